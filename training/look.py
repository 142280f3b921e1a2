"""A trained run looked at: measured, drawn, sampled from, reported."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from report import figures, html
from report.tensorboard import Events
from training import step as steps
from training import workdir as workdirs
from training.build import Stage, build
from training.errors import ConfigError
from training.evaluate import evaluator, examples
from training.initial import stage_shapes
from training.parallel import Parallel
from training.restore import trained
from training.workdir import Workdir

_FOR_FIGURES = 2000  # test examples that figures look at


def evaluate(path: str, *, weights: str = "latest"):
  """Measures a trained run again and rewrites its evaluation.json."""
  workdir = Workdir(path, trained=True)
  try:
    stage, state, parallel = trained(workdir, weights)
    _evaluate(workdir, stage, state, parallel, weights)
  finally:
    workdir.close()


def sample(path: str, *, count: int = 48, seed: int = 0, weights: str = "latest"):
  """Generates examples from a trained run into samples/."""
  workdir = Workdir(path, trained=True)
  try:
    stage, state, parallel = trained(workdir, weights)
    drawn = stage.task.sample(_call(stage, state, parallel), count, seed)
    if drawn is None:
      raise ConfigError(
        f"the task {type(stage.task).__module__} generates nothing to sample",
        where=str(workdir.path),
        kept="the run is as it was",
        do="`report` shows what it does instead",
      )
    file = workdir / "samples" / f"seed_{seed}.png"
    file.parent.mkdir(exist_ok=True)
    figures.save(figures.draw(drawn), file)
    images = np.concatenate(list(drawn.rows.values()))
    np.savez(file.with_suffix(".npz"), images=images)
    print(f"{len(images)} samples: {file} and {file.with_suffix('.npz').name}")
  finally:
    workdir.close()


def report(path: str):
  """Draws the figures of a trained run again and rewrites its report.html."""
  workdir = Workdir(path, trained=True)
  try:
    stage, state, parallel = trained(workdir, "latest")
    _draw(workdir, stage, state, parallel)
    print(f"report: {html.write(workdir.path, default_config=_default(workdir))}")
  finally:
    workdir.close()


def describe(config: Mapping[str, Any]):
  """Prints what a config would train: shapes, parameters, cost of a step. Trains nothing."""
  from training.describe import tables  # rich, which no other command needs

  experiment = build(config)
  for stage in experiment.stages:
    tables(stage, stage_shapes(stage))


def _call(stage: Stage, state: steps.State, parallel: Parallel):
  return parallel.caller(stage.model, state.weights, state.mutable)


def finish(workdir: Workdir, stage: Stage, state: steps.State, parallel: Parallel):
  """Evaluates, draws and reports a run that has just been trained."""
  _evaluate(workdir, stage, state, parallel, "latest")
  _draw(workdir, stage, state, parallel)
  print(f"report: {html.write(workdir.path, default_config=_default(workdir))}")


def _default(workdir: Workdir):
  file = workdir / ".default.json"
  return json.loads(file.read_text()) if file.exists() else None


def _evaluate(workdir: Workdir, stage: Stage, state, parallel, weights: str):
  measure = evaluator(stage.task, stage.model, stage.source, parallel)
  found = {}
  for name in ("validation", "test"):
    if len(stage.source.split(name)):
      count, values = measure(state.weights, state.mutable, name)
      found[name] = {"examples": count, **values}
  if "test" in found:
    sets = examples(stage.source, "train"), examples(stage.source, "test")
    found["test"] |= stage.task.score(_call(stage, state, parallel), *sets)
  if weights == "latest" and state.ema is not None:
    weights = "latest, averaged (ema)"
  result = {"step": int(state.step), "stage": stage.name, "weights": weights, "splits": found}
  workdirs.write_json(workdir / "evaluation.json", result)
  for name, values in found.items():
    shown = "  ".join(f"{k} {v:.5g}" for k, v in values.items() if k != "examples")
    print(f"{name} ({values['examples']} examples, {weights} weights): {shown}", flush=True)


def _draw(workdir: Workdir, stage: Stage, state, parallel):
  folder = workdir / "figures"
  folder.mkdir(exist_ok=True)
  drawn = {"curves": figures.curves(workdirs.read_rows(workdir / "metrics.jsonl"))}
  captions = {"curves": "Metrics by training step."}
  sets = [examples(stage.source, name, most=_FOR_FIGURES) for name in ("train", "test")]
  for name, view in stage.task.views(_call(stage, state, parallel), *sets).items():
    drawn[name], captions[name] = figures.draw(view), view.caption
  over_time = {
    int(file.stem.removeprefix("step_")): np.load(file)["images"]
    for file in sorted((workdir / "samples").glob("step_*.npz"))
  }
  if over_time:
    drawn["samples_over_time"] = figures.samples_over_time(over_time)
    captions["samples_over_time"] = "The same noise at every evaluation, by training step."
  events = Events(workdir.path, purge_step=None)
  try:
    for name, figure in drawn.items():
      figures.save(figure, folder / f"{name}.png")
      events.image(name, figure, int(state.step))
  finally:
    events.close()
  workdirs.write_json(folder / "captions.json", captions)
