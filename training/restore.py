"""Finding the state that a run goes on from, or that is looked at."""

import hashlib
import sys

import jax

from training import step as steps
from training import workdir as workdirs
from training.build import Experiment, Stage, build, check_shares, reading
from training.checkpoint import Checkpoints, Corrupt
from training.errors import CheckpointError
from training.machine import Machine, Machines
from training.workdir import ASSETS, Workdir


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


def _stage_of(step: int, ends: list[int]) -> int:
  return next(i for i, end in enumerate(ends) if step <= end)


def resume(experiment: Experiment, checkpoints: Checkpoints, machines: Machines):
  """(stage to go on with, its state), or (0, None) where there is nothing to resume.

  Raises:
    CheckpointError: there are checkpoints, and none can be used. Never a silent fresh start.
  """
  kept = checkpoints.steps()
  for step in kept:
    i = _stage_of(step, experiment.ends)
    stage = experiment.stages[i]
    machine = machines.of(stage)
    parallel = machine.parallel
    try:
      state = checkpoints.restore(step, machine.abstract)
      meta = checkpoints.meta(step)
    except Corrupt as why:
      print(f"warning: checkpoint {step} is not used: {why}", file=sys.stderr, flush=True)
      continue
    _check_assets(meta, stage, checkpoints)
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
  checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
  try:
    best = weights == "best"
    for step in checkpoints.steps(best=best):
      machine = Machines().of(experiment.stages[_stage_of(step, experiment.ends)])
      try:
        state = checkpoints.restore(step, machine.abstract, best=best)
        _check_assets(checkpoints.meta(step, best=best), machine.stage, checkpoints)
      except Corrupt as why:
        print(f"warning: checkpoint {step} is not used: {why}", file=sys.stderr, flush=True)
        continue
      if weights == "average":
        return machine, _averaged(checkpoints, machine, state, step, experiment)
      return machine, state.replace(ema=None) if weights == "raw" else state
  finally:
    checkpoints.close()
  raise CheckpointError(
    f"{workdir.path} holds no {'best ' if best else ''}checkpoint that can be used",
    kept="the run is as it was",
    do="train it first" if not best else "use --weights=latest",
  )


def _averaged(checkpoints: Checkpoints, machine: Machine, state, newest: int, experiment):
  """The newest state with the mean of the weights of all kept steps of its stage."""
  ends, total, count = experiment.ends, None, 0
  for step in checkpoints.steps():
    if _stage_of(step, ends) != _stage_of(newest, ends):
      continue
    try:
      own = (state if step == newest else checkpoints.restore(step, machine.abstract)).weights
    except Corrupt as why:
      print(f"warning: checkpoint {step} is not averaged: {why}", file=sys.stderr, flush=True)
      continue
    total = own if total is None else jax.tree.map(lambda a, b: a + b, total, own)
    count += 1
  print(f"the average of {count} checkpoints", flush=True)
  return state.replace(params=jax.tree.map(lambda x: x / count, total), ema=None)
