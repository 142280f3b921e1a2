"""Training a run: from a config to a workdir with everything in it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from report.tensorboard import Events
from training import restore
from training import workdir as workdirs
from training.build import Experiment, Stage, build, devices, reading
from training.checkpoint import Checkpoints
from training.errors import ConfigError, Interrupted
from training.initial import handed_on, initial_state, measured
from training.loop import Place, Stop, run_stage
from training.parallel import Parallel, to_host
from training.workdir import Workdir


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
  _check(experiment)
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
    if default is not None:
      workdirs.write_json(workdir / ".default.json", _resolved(default))
    from training import look  # matplotlib, for which the first step need not wait

    look.finish(workdir, stage, state, parallel)
  finally:
    workdir.close()


def _resolved(config: Mapping[str, Any]):
  """Every default filled in, so that the report lists only what the user changed."""
  try:
    return build(config).config
  except ConfigError:  # the overrides may be what makes the experiment fit these devices
    return config


def _check(experiment: Experiment):
  """Reads every split once and traces an evaluation, so that what is wrong stops no started run."""
  for stage in experiment.stages:
    with reading(stage.source):
      sizes = {name: len(stage.source.split(name)) for name in ("train", "validation", "test")}
    if stage.program.examples > sizes["train"]:
      raise ConfigError(
        f"config.data.batch_size: a step reads {stage.program.examples} examples, the training"
        f" split has {sizes['train']}",
        do="choose a smaller batch_size",
      )
    names = measured(stage)
    if stage.training.best not in names:
      raise ConfigError(
        f"config.training.best={stage.training.best!r} is no metric of an evaluation",
        do=f"choose one of {', '.join(sorted(names))}",
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
    first, state = restore.resume(experiment, checkpoints, ends)
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
          before = handed_on(state) if state is not None else restore.elsewhere(experiment)
          # Another stage may run on other devices; the host is common ground.
          before = to_host(before) if before is not None else None
          state = parallel.initialise(initial_state(stage), key, before)
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
        best = restore.best_so_far(checkpoints, stage)
        state = run_stage(stage, state, place, seed=seed + (i << 32), best=best)
    finally:
      events.close()
  finally:
    checkpoints.close()
  return state, stage, parallel


def _watcher(stage: Stage, workdir: Workdir, parallel: Parallel):
  """Keeps samples from the same noise at every evaluation, to see them change."""
  folder = workdir / "samples"

  def watch(params, mutable, step: int):
    drawn = stage.task.sample(parallel.caller(stage.model, params, mutable), 12, 0)
    if drawn is not None:
      folder.mkdir(exist_ok=True)
      np.savez(folder / f"step_{step:08d}.npz", images=np.concatenate(list(drawn.rows.values())))

  return watch
