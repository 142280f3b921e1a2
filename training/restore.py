"""Finding the state that a run goes on from, or that is looked at."""

import hashlib
import sys
from typing import Any, NamedTuple

import jax

from training import step as steps
from training import workdir as workdirs
from training.build import Experiment, Stage, build, check_shares, reading
from training.checkpoint import AnotherModel, Checkpoints, Corrupt
from training.errors import CheckpointError
from training.machine import Machine, Machines
from training.workdir import ASSETS, Workdir, read_rows


def asset_hashes(stage: Stage) -> dict[str, str]:
  """SHA-256 of what a stage's source keeps beside the run, by file name: a tokenizer, say."""
  with reading(stage.source):
    found = stage.source.assets()
  return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in found.items()}


def _check_assets(meta, stage: Stage, checkpoints: Checkpoints):
  """Refuses a model whose tokens would mean something else than when it was trained."""
  # Checkpoints from before sources had any say nothing of them.
  kept = meta["assets"] if "assets" in meta else {}
  found = asset_hashes(stage)
  for name in kept:
    if name in found and found[name] != kept[name]:
      raise CheckpointError(
        f"{name} is not the one that the model was trained with",
        where=str(checkpoints.directory),
        kept="the checkpoints are untouched",
        do="put back the run's own file, or the data it was made from",
      )


def _stage_of(step: int, experiment: Experiment, checkpoints: Checkpoints, *, best: bool) -> int:
  """The stage whose step it is; what was saved beside it agrees, or it is Corrupt."""
  meta = checkpoints.meta(step, best=best)
  ends = experiment.ends
  i = next((i for i, end in enumerate(ends) if step <= end), len(ends) - 1)
  # A whole step under another's number would pass every other test.
  if meta["step"] != step - ends[i] + experiment.stages[i].training.steps:
    raise Corrupt(f"it is not step {step} of this run, but step {meta['step']} of a stage")
  if step > ends[-1]:
    raise CheckpointError(
      f"step {step} is beyond the last step of the config, {ends[-1]}",
      where=str(checkpoints.directory),
      kept="the checkpoints are untouched",
      do="give at least as many training.steps, or another --workdir",
    )
  return i


class _Found(NamedTuple):
  """A step that is whole and fits, and what could not be used before it."""

  step: int
  best: bool
  stage: int
  machine: Machine
  state: steps.State
  meta: dict[str, Any]
  refused: list[tuple[int, bool]]


def _first_usable(
  experiment: Experiment, checkpoints: Checkpoints, machines: Machines, places
) -> _Found | None:
  """The first of `places`, (step, whether of the best), that can be used; of the others it warns.

  Raises:
    CheckpointError: none of them fits, and one is whole; or a newer version of the code wrote one.
  """
  refused, other = [], []
  for step, best in places:
    try:
      i = _stage_of(step, experiment, checkpoints, best=best)
      machine = machines.of(experiment.stages[i])
      state = checkpoints.restore(step, machine.abstract, best=best)
      meta = checkpoints.meta(step, best=best)
      _check_assets(meta, machine.stage, checkpoints)
      for why, _ in other:
        _warn(why)
      return _Found(step, best, i, machine, state, meta, refused)
    except Corrupt as why:
      _warn(f"{_name(step, best)} is not used: {why}")
    except AnotherModel as error:  # of all of them, if the config is another one
      other.append((f"{_name(step, best)} is not used: {error.parts[0]}", error))
    refused.append((step, best))
  if other:
    raise other[0][1]
  return None


def _name(step: int, best: bool) -> str:
  return f"the best checkpoint, of step {step}," if best else f"checkpoint {step}"


def _warn(what: str):
  print(f"warning: {' '.join(what.split())}"[:500], file=sys.stderr, flush=True)


def resume(experiment: Experiment, checkpoints: Checkpoints, machines: Machines):
  """(stage to go on with, its state), or (0, None) where there is nothing to resume.

  Steps newer than the one that is used are set aside, so that they can be saved again.

  Raises:
    CheckpointError: there are checkpoints, or were, and none can be used. Never a silent fresh
      start.
    StorageError: what cannot be used cannot be set aside.
  """
  places = [(step, False) for step in checkpoints.steps()]
  committed = checkpoints.committed()
  if not places and committed is None and not _must_have_saved(experiment, checkpoints):
    return 0, None
  # The best one only when nothing else is left: it may be much older than the run.
  places += [(step, True) for step in checkpoints.steps(best=True)]
  found = _first_usable(experiment, checkpoints, machines, places)
  if found is None:
    raise CheckpointError(
      f"none of {len(places)} checkpoints can be used"
      if places
      else "steps of this run were saved, and no checkpoint is left",
      where=str(checkpoints.directory),
      kept="everything that is there, as it is",
      do="restore the directory from a copy, or start again in another --workdir",
    )
  refused = {step for step, _ in found.refused}
  if committed is not None and committed > found.step and committed not in refused:
    _warn(f"checkpoint {committed} was saved and is gone")
  # A newest step that is gone is told of once.
  checkpoints.set_aside(found.refused, found.step)
  print(f"going on from step {found.step}", flush=True)
  meta, stage = found.meta, found.machine.stage
  shares = found.machine.parallel.shares
  if meta["devices"] != shares or meta["parallel"] != stage.training.parallel:
    print(
      f"note: saved by {meta['parallel']} on {meta['devices']} device(s), going on by"
      f" {stage.training.parallel} on {shares}: equal up to rounding, not bitwise",
      flush=True,
    )
  return found.stage, found.state


def _must_have_saved(experiment: Experiment, checkpoints: Checkpoints) -> bool:
  """Whether the rows go beyond the second save: it waits for the first to be on the disk."""
  due = []
  for stage, end in zip(experiment.stages, experiment.ends, strict=True):
    begun = end - stage.training.steps
    every = stage.training.checkpoint_every
    due += [begun + n * every for n in (1, 2) if 0 < n * every < stage.training.steps] + [end]
  rows = read_rows(checkpoints.directory.parent / "metrics.jsonl")
  return len(due) > 1 and any(row["step"] > due[1] for row in rows)


def best_so_far(checkpoints: Checkpoints, stage: Stage) -> float | None:
  """The metric of the best checkpoint of this stage, where there is one that can be read."""
  for step in checkpoints.steps(best=True):
    try:
      meta = checkpoints.meta(step, best=True)
    except Corrupt:
      continue
    if meta["stage"] == stage.name:
      return meta["best"]
  return None


def trained(workdir: Workdir, weights: str) -> tuple[Machine, steps.State]:
  """The last stage of a run and its state.

  Args:
    workdir: of the run.
    weights: "latest", "best", "raw" (latest without its moving average), or "average" (the mean of
      the checkpoints that are kept: Vaswani et al. 2017, section 6.1).
  """
  experiment = build(workdirs.read_config(workdir.path), assets=workdir / ASSETS)
  check_shares(experiment)
  checkpoints = Checkpoints(workdir / "checkpoints")
  best = weights == "best"
  places = [(step, best) for step in checkpoints.steps(best=best)]
  found = _first_usable(experiment, checkpoints, Machines(), places)
  if found is None:
    raise CheckpointError(
      f"{workdir.path} holds no {'best ' if best else ''}checkpoint that can be used",
      kept="the run is as it was",
      do="train it first" if not best else "use --weights=latest",
    )
  if weights == "average":
    return found.machine, _averaged(checkpoints, found, experiment)
  return found.machine, found.state.replace(ema=None) if weights == "raw" else found.state


def _averaged(checkpoints: Checkpoints, found: _Found, experiment: Experiment):
  """The newest state with the mean of the weights of all kept steps of its stage."""
  total, count = None, 0
  for step in checkpoints.steps():
    try:
      if _stage_of(step, experiment, checkpoints, best=False) != found.stage:
        continue
      own = found.state
      if step != found.step:
        own = checkpoints.restore(step, found.machine.abstract)
    except (Corrupt, AnotherModel) as why:
      _warn(f"checkpoint {step} is not averaged: {why}")
      continue
    total = own.weights if total is None else jax.tree.map(lambda a, b: a + b, total, own.weights)
    count += 1
  print(f"the average of {count} checkpoints", flush=True)
  return found.state.replace(params=jax.tree.map(lambda x: x / count, total), ema=None)
