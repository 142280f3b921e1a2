"""Finding the state that a run goes on from, or that is looked at."""

import sys

import jax
import numpy as np

from training import step as steps
from training import workdir as workdirs
from training.build import Experiment, Stage, build, devices
from training.checkpoint import Checkpoints, Corrupt
from training.errors import CheckpointError
from training.initial import Before, handed_on, initial_state
from training.parallel import Parallel
from training.workdir import Workdir


def _stage_of(step: int, ends: list[int]) -> int:
  return next(i for i, end in enumerate(ends) if step <= end)


def resume(experiment: Experiment, checkpoints: Checkpoints, ends: list[int]):
  """(stage to go on with, its state), or (0, None) where there is nothing to resume.

  Raises:
    CheckpointError: there are checkpoints, and none can be used. Never a silent fresh start.
  """
  kept = checkpoints.steps()
  for step in kept:
    i = _stage_of(step, ends)
    stage = experiment.stages[i]
    parallel = devices(stage.training)
    abstract = parallel.abstract(initial_state(stage), jax.random.key(0), None)
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


def trained(workdir: Workdir, weights: str) -> tuple[Stage, steps.State, Parallel]:
  """The last stage of a run and its state: "latest", "best" or "raw" (latest without averaging)."""
  experiment = build(workdirs.read_config(workdir.path))
  ends = np.cumsum([stage.training.steps for stage in experiment.stages]).tolist()
  checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
  try:
    best = weights == "best"
    for step in checkpoints.steps(best=best):
      stage = experiment.stages[_stage_of(step, ends)]
      parallel = devices(stage.training)
      abstract = parallel.abstract(initial_state(stage), jax.random.key(0), None)
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


def elsewhere(experiment: Experiment) -> Before | None:
  """What the run named by `init_from` hands on, None where none is named."""
  if not experiment.run.init_from:
    return None
  workdir = Workdir(experiment.run.init_from, trained=True)
  try:
    return handed_on(trained(workdir, "latest")[1])
  finally:
    workdir.close()
