"""What the commands do: a run from config to report, and the same run looked at again."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from report import figures, html
from report.tensorboard import Events
from training import step as steps
from training import workdir as workdirs
from training.build import Experiment, Stage, build, devices, reading
from training.checkpoint import Checkpoints, Corrupt
from training.errors import CheckpointError, ConfigError, Interrupted
from training.evaluate import evaluator, examples
from training.loop import Place, Stop, run_stage
from training.parallel import Parallel
from training.workdir import Workdir

_FOR_FIGURES = 2000  # test examples that figures look at
_SPLITS = ("train", "validation", "test")


def train(
  config: Mapping[str, Any],
  path: str,
  *,
  command: list[str],
  default: Mapping[str, Any] | None = None,
  changed: bool = False,
):
  """Trains, or goes on training, the run in a workdir; then evaluates, draws and reports it.

  Args:
    config: of the experiment.
    path: the workdir.
    command: what the user typed, for the record.
    default: the experiment's config without overrides, for the report.
    changed: go on although the run was started with another config.

  Raises:
    UserError: whatever the user can mend, Interrupted among them.
  """
  experiment = build(config)
  _check_data(experiment)
  workdir = Workdir(path)
  try:
    workdir.claim(experiment.config, changed=changed)
    with Stop() as stop:
      state, stage, parallel = fit(experiment, workdir, command=command, stop=stop)
      if stop.requested:
        raise Interrupted(
          "stopped after the last step",
          where=str(workdir.path),
          kept="the whole training",
          do="run the same command to evaluate it",
        )
    _finish(workdir, stage, state, parallel, default)
  finally:
    workdir.close()


def evaluate(path: str, *, weights: str = "latest"):
  """Measures a trained run again and rewrites its evaluation.json."""
  workdir = Workdir(path)
  try:
    stage, state, parallel = _trained(workdir, weights)
    _evaluate(workdir, stage, state, parallel, weights)
  finally:
    workdir.close()


def sample(path: str, *, count: int = 48, seed: int = 0, weights: str = "latest"):
  """Generates examples from a trained run into samples/."""
  workdir = Workdir(path)
  try:
    stage, state, parallel = _trained(workdir, weights)
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
  workdir = Workdir(path)
  try:
    stage, state, parallel = _trained(workdir, "latest")
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


def stage_shapes(stage: Stage):
  """(shapes of the stage's state, shapes of a step's stored examples), by tracing alone."""
  stored = _stored(stage, stage.program.examples)
  return jax.eval_shape(initial_state(stage, jax.random.key(0), None)), stored


# ------------------------------------------------------------------------------- training


def _check_data(experiment: Experiment):
  """Reads every split once, so that missing or broken data stops a run before it starts."""
  for stage in experiment.stages:
    with reading(stage.source):
      sizes = {name: len(stage.source.split(name)) for name in _SPLITS}
    if stage.program.examples > sizes["train"]:
      raise ConfigError(
        f"config.data.batch_size: a step reads {stage.program.examples} examples, the training"
        f" split has {sizes['train']}",
        do="choose a smaller batch_size",
      )


def fit(experiment: Experiment, workdir: Workdir, *, command: list[str], stop: Stop):
  """Runs all stages, from the newest usable checkpoint where there is one.

  Returns:
    (state after the last step, last stage, its devices).

  Raises:
    Interrupted, NumericsError: see `training.loop.run_stage`.
    CheckpointError: there are checkpoints, and none can be used.
  """
  seed = experiment.run.seed
  source = experiment.stages[0].source
  workdirs.write_json(
    workdir / "environment.json",
    {**workdirs.environment(seed=seed, command=command), "data": source.fingerprint()},
  )
  ends = np.cumsum([stage.training.steps for stage in experiment.stages]).tolist()
  checkpoints = Checkpoints(
    workdir / "checkpoints", keep=max(s.training.keep for s in experiment.stages)
  )
  try:
    first, state = _resume(experiment, checkpoints, ends)
    resumed = (
      0
      if state is None
      else ends[first] - experiment.stages[first].training.steps + int(state.step)
    )
    workdir.rows.trim(resumed)
    events = Events(workdir.path, purge_step=resumed + 1 if resumed else None)
    try:
      for i in range(first, len(experiment.stages)):
        stage = experiment.stages[i]
        parallel = devices(stage.training)
        key = jax.random.fold_in(jax.random.key(seed), i)
        if state is None or i > first:
          before = state.params if state is not None else _foreign(experiment.run.init_from)
          state = parallel.initialise(initial_state(stage, key, before))
        place = Place(
          parallel=parallel,
          workdir=workdir,
          checkpoints=checkpoints,
          events=events,
          offset=ends[i] - stage.training.steps,
          stop=stop,
          watch=_watcher(stage, workdir, parallel),
        )
        # The order of examples differs between stages and between seeds.
        best = _best(checkpoints, stage)
        state = run_stage(stage, state, place, seed=seed + (i << 32), best=best)
    finally:
      events.close()
  finally:
    checkpoints.close()
  return state, stage, parallel


def initial_state(stage: Stage, key, before: Mapping[str, Any] | None):
  """A pure function that makes the stage's first state, with parameters of `before` by name."""
  stored = _stored(stage, stage.program.examples)
  batch = _shapes_seen(stage)

  def init():
    # A model is created from one example of zeros, whatever its inputs are called.
    image = jax.tree.map(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), batch)["image"]
    variables = stage.model.init({"params": jax.random.fold_in(key, 0)}, image)
    mutable = {name: tree for name, tree in variables.items() if name != "params"}
    params = _hand_over(variables["params"], before)
    return steps.initial(stage.program, params, mutable, jax.random.fold_in(key, 1), stored)

  return init


def _hand_over(fresh, before, path: str = ""):
  """`fresh` with every leaf of `before` that has its name and shape."""
  if before is None:
    return fresh
  if not isinstance(fresh, Mapping):
    return before if before.shape == fresh.shape else fresh
  return {
    name: _hand_over(tree, before[name]) if name in before else tree for name, tree in fresh.items()
  }


def _stored(stage: Stage, count: int):
  """Shapes of `count` examples as the source stores them, without reading the data."""
  with reading(stage.source):
    spec = stage.source.spec()
  return {k: jax.ShapeDtypeStruct((count, *v.shape), v.dtype) for k, v in spec.items()}


def _shapes_seen(stage: Stage):
  """Shapes of a batch as the model sees it."""
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), stage.program.examples))
  return jax.eval_shape(stage.program.transform, _stored(stage, stage.program.examples), keys)


def _foreign(init_from: str):
  """Parameters of another run, to start from."""
  if not init_from:
    return None
  other = Workdir(init_from)
  try:
    _, state, _ = _trained(other, "latest")
    return state.params if state.ema is None else state.ema
  finally:
    other.close()


def _watcher(stage: Stage, workdir: Workdir, parallel: Parallel):
  """Keeps samples from the same noise at every evaluation, to see them change."""
  folder = workdir / "samples"

  def watch(params, mutable, step: int):
    drawn = stage.task.sample(parallel.caller(stage.model, params, mutable), 12, 0)
    if drawn is not None:
      folder.mkdir(exist_ok=True)
      np.savez(folder / f"step_{step:08d}.npz", images=np.concatenate(list(drawn.rows.values())))

  return watch


# ------------------------------------------------------------------------- finding a state


def _stage_of(step: int, ends: list[int]) -> int:
  return next(i for i, end in enumerate(ends) if step <= end)


def _resume(experiment: Experiment, checkpoints: Checkpoints, ends: list[int]):
  """(stage to go on with, its state), or (0, None) where there is nothing to resume.

  Raises:
    CheckpointError: there are checkpoints, and none can be used. Never a silent fresh start.
  """
  kept = checkpoints.steps()
  for step in kept:
    i = _stage_of(step, ends)
    stage = experiment.stages[i]
    parallel = devices(stage.training)
    key = jax.random.key(experiment.run.seed)
    abstract = parallel.abstract(initial_state(stage, key, None))
    try:
      state = checkpoints.restore(step, abstract)
      meta = checkpoints.meta(step)
    except Corrupt as why:
      print(f"warning: checkpoint {step} is not used: {why}", file=sys.stderr, flush=True)
      continue
    print(f"going on from step {step}", flush=True)
    if meta["devices"] != parallel.shares or meta["parallel"] != stage.training.parallel:
      print(
        f"note: saved by {meta['parallel']} on {meta['devices']} device(s), going on by"
        f" {stage.training.parallel} on {parallel.shares}: equal up to rounding, not bitwise",
        flush=True,
      )
    return i, state
  if kept:
    raise CheckpointError(
      f"none of {len(kept)} checkpoints can be used",
      where=str(checkpoints.directory),
      kept="all of them, as they are",
      do="restore the directory from a copy, or start again in another --workdir",
    )
  return 0, None


def _best(checkpoints: Checkpoints, stage: Stage) -> float | None:
  """The metric of the best checkpoint of this stage, where there is one that can be read."""
  for step in checkpoints.steps(best=True):
    try:
      meta = checkpoints.meta(step, best=True)
    except Corrupt:
      continue
    if meta["stage"] == stage.name:
      return meta["best"]
  return None


def _trained(workdir: Workdir, weights: str) -> tuple[Stage, steps.State, Parallel]:
  """The last stage of a run and its state: "latest", "best" or "raw" (latest without averaging)."""
  experiment = build(workdirs.read_config(workdir.path))
  ends = np.cumsum([stage.training.steps for stage in experiment.stages]).tolist()
  checkpoints = Checkpoints(workdir / "checkpoints")
  try:
    best = weights == "best"
    for step in checkpoints.steps(best=best):
      stage = experiment.stages[_stage_of(step, ends)]
      parallel = devices(stage.training)
      abstract = parallel.abstract(initial_state(stage, jax.random.key(0), None))
      try:
        state = checkpoints.restore(step, abstract, best=best)
      except Corrupt as why:
        print(f"warning: checkpoint {step} is not used: {why}", file=sys.stderr, flush=True)
        continue
      return stage, state.replace(ema=None) if weights == "raw" else state, parallel
  finally:
    checkpoints.close()
  raise CheckpointError(
    f"{workdir.path} holds no {'best ' if best else ''}checkpoint that can be used",
    kept="the run is as it was",
    do="train it first" if not best else "use --weights=latest",
  )


# ------------------------------------------------------------------- looking at a trained run


def _weights(state: steps.State):
  return state.params if state.ema is None else state.ema


def _call(stage: Stage, state: steps.State, parallel: Parallel):
  return parallel.caller(stage.model, _weights(state), state.mutable)


def _finish(workdir: Workdir, stage: Stage, state, parallel, default):
  if default is not None:
    workdirs.write_json(workdir / ".default.json", default)
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
      count, values = measure(_weights(state), state.mutable, name)
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
