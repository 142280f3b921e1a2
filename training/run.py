"""Training a run: from a config to a workdir with everything in it."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from data import source as sources
from report.writer import Writer
from training import faults, fingerprints, processes, restore, writers
from training import step as steps
from training import workdir as workdirs
from training.build import Experiment, Stage, build, check_shares, reading, tracing
from training.checkpoint import Checkpoints
from training.config import nearest, shown
from training.errors import (
  ConfigError,
  DataError,
  Interrupted,
  NumericsError,
  ResourceError,
  StalledError,
)
from training.initial import handed_on, measured, order_seed
from training.loop import Member, Stop, run_stage
from training.machine import Machine, Machines
from training.parallel import to_host
from training.workdir import ASSETS, Workdir


def train(
  config: Mapping[str, Any],
  path: str,
  *,
  command: list[str],
  default: Mapping[str, Any] | None = None,
  changed: bool = False,
  name: str = "",
  track: Sequence[str] = (),
):
  """Trains, or goes on training, the run in a workdir; then evaluates, draws and reports it.

  Args:
    config: of the experiment.
    path: the workdir.
    command: what the user typed, for the record.
    default: the experiment's config without overrides, for the report.
    changed: go on although the run was started with another config.
    name: of the experiment, for trackers.
    track: trackers that log the run besides metrics.jsonl and TensorBoard.

  Raises:
    UserError: whatever the user can mend, Interrupted among them.
  """
  experiment, machines = build(config), Machines()
  check(experiment, machines)
  workdir = Workdir(path)
  try:
    workdir.claim(experiment.config, changed=changed)
    with Stop() as stop:
      run = Run(experiment, workdir, command, name=name, track=tuple(track), changed=changed)
      state, machine, _ = fit([run], machines, stop=stop)
      if stop.requested:
        raise Interrupted(
          "stopped after the last step",
          where=str(workdir.path),
          kept="the whole training",
          do="run the same command to evaluate it",
        )
    if default is not None:
      workdirs.write_json(workdir / ".default.json", resolved(default))
    faults.point("finish.begin")
    from training import look  # matplotlib, for which the first step need not wait

    with contextlib.closing(writer(run, experiment.ends[-1])) as events:
      look.finish(workdir, machine, state, events)
  finally:
    workdir.close()


def resolved(config: Mapping[str, Any]):
  """Every default filled in, so that the report lists only what the user changed."""
  try:
    return build(config).config
  except ConfigError:  # the overrides may be what makes the experiment fit these devices
    return config


def check(experiment: Experiment, machines: Machines):
  """Reads every split once and traces everything, so that what is wrong stops no started run.

  Args:
    experiment: to be trained.
    machines: those that will train it; they do not trace again what is traced here.

  Raises:
    ConfigError, DataError: what would fail later.
  """
  check_shares(experiment)
  for stage in experiment.stages:
    with reading(stage.source):
      sizes = sources.sizes(stage.source)
    if stage.program.examples > sizes["train"]:
      raise ConfigError(
        f"config.data.batch_size: a step reads {stage.program.examples} examples, the training"
        f" split has {sizes['train']}",
        do="choose a smaller batch_size",
      )
    with tracing(stage):
      _ = machines.of(stage).abstract  # for which a step is traced
    names = measured(stage)
    if stage.training.best not in names:
      raise ConfigError(
        f"config.training.best={shown(stage.training.best)} is no metric of an evaluation"
        f"{nearest(stage.training.best, names)}",
        do=f"choose one of {', '.join(sorted(names))}",
      )


class Run(NamedTuple):
  """An experiment in a workdir that this process holds."""

  experiment: Experiment
  workdir: Workdir
  command: list[str]  # that the user typed
  watched: bool = True  # keep samples at every evaluation
  name: str = ""  # of the experiment, for trackers
  track: tuple[str, ...] = ()  # trackers
  changed: bool = False  # go on although the data are not those of its checkpoints


def fit(
  runs: Sequence[Run], machines: Machines, *, stop: Stop
) -> tuple[steps.State, Machine, list[NumericsError | None]]:
  """Trains runs of one structure at the same time, usually one, through all their stages.

  Each goes on from its newest usable checkpoint where there is one.

  Returns:
    (joined state after the last step, machine of the last stage, why each member was dropped).

  Raises:
    Interrupted, NumericsError: see `training.loop.run_stage`.
    CheckpointError: there are checkpoints, and none can be used.
    Uneven: the runs have not come equally far, so they can't go on together.
    ResourceError: there is not enough memory.
  """
  # A process whose peer is gone is left before its files are closed, which would wait for the peer.
  with contextlib.ExitStack() as files, _devices(runs):
    for run in runs:
      keep_assets(run)
    data = [fingerprints.of_data(run.experiment.stages) for run in runs]
    checkpoints = [files.enter_context(contextlib.closing(_checkpoints(run))) for run in runs]
    for run, own, found in zip(runs, checkpoints, data, strict=True):
      fingerprints.check(found, own, changed=run.changed)
      _write_environment(run, found)
    first, state = _resumed(runs, checkpoints, machines)
    stages = runs[0].experiment.stages
    done = runs[0].experiment.ends[first] - stages[first].training.steps
    done += 0 if state is None else int(state.step.min())
    members = []
    for run, own, found in zip(runs, checkpoints, data, strict=True):
      run.workdir.rows.trim(done)
      events = files.enter_context(contextlib.closing(writer(run, done)))
      members.append(Member(run.experiment.stages[0], 0, run.workdir, own, events, data=found))

    for i in range(first, len(stages)):
      faults.point("stage.begin")
      machine = machines.of(stages[i])
      if state is None or i > first:
        keys = [stage_key(run.experiment, i) for run in runs]
        state = machine.initial(keys, _before(runs, stages[i - 1], state, machine))
      for run, member in zip(runs, members, strict=True):
        member.stage = run.experiment.stages[i]
        member.seed = order_seed(stage_key(run.experiment, i))
        member.best = restore.best_so_far(member.checkpoints, member.stage)
        member.watch = _watcher(run.workdir, machine, member.stage) if run.watched else None
      offset = runs[0].experiment.ends[i] - stages[i].training.steps
      state = run_stage(machine, state, members, offset=offset, stop=stop)
  return state, machine, [member.error for member in members]


@contextlib.contextmanager
def _devices(runs: Sequence[Run]):
  """Says in one line that memory ran out, on a device or on the host, or that a peer is gone."""
  where, kept = str(runs[0].workdir.path), "the checkpoints saved before"
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    said = str(error) or type(error).__name__
    short = "RESOURCE_EXHAUSTED" in said or "out of memory" in said.lower()
    if short or isinstance(error, MemoryError):
      raise ResourceError(
        f"out of memory: {said}"[:200],
        where=where,
        kept=kept,
        do="lower data.batch_size, raise training.microbatches, or set training.remat=True",
      ) from None
    if processes.alone():
      raise
    processes.leave(
      StalledError(
        f"another process of this run is gone: {said}"[:200],
        where=where,
        kept=kept,
        do="start all processes again to go on from there",
      )
    )


def keep_assets(run: Run):
  """Writes what the sources made, a trained tokenizer for instance, or checks what is there.

  Raises:
    DataError: the run was started with other ones.
  """
  folder = run.workdir / ASSETS
  for stage in run.experiment.stages:
    with reading(stage.source):
      found = stage.source.assets()
    for name, text in found.items():
      file = folder / name
      if file.exists() and file.read_text(encoding="utf-8") != text:
        raise DataError(
          f"{name} is not the one that the run was started with",
          where=str(file),
          kept="the run is as it was",
          do="use the data that it was started with, or another --workdir",
        )
      folder.mkdir(exist_ok=True)
      workdirs.write_text(file, text)


def writer(run: Run, step: int) -> Writer:
  """Where a run that goes on from `step` logs besides its own files."""
  return writers.opened(
    run.workdir, run.experiment.config, name=run.name, track=run.track, step=step
  )


def stage_key(experiment: Experiment, i: int) -> jax.Array:
  """The key of stage `i`, from which everything random in it derives."""
  return jax.random.fold_in(jax.random.key(experiment.run.seed), i)


class Uneven(Exception):
  """Runs that were to be trained together stand at different steps."""


def _write_environment(run: Run, data: fingerprints.Prints):
  first = run.experiment.stages[0]
  workdirs.write_json(
    run.workdir / "environment.json",
    {
      **workdirs.environment(seed=run.experiment.run.seed, command=run.command),
      "data": data[first.name]["sha256"],
    },
  )


def _checkpoints(run: Run) -> Checkpoints:
  keep = max(stage.training.keep for stage in run.experiment.stages)
  return Checkpoints(run.workdir / "checkpoints", keep=keep)


def _resumed(runs: Sequence[Run], checkpoints: Sequence[Checkpoints], machines: Machines):
  """(stage to go on with, joined state), the state None where nothing was saved."""
  alone = machines if len(runs) == 1 else Machines()
  found = [
    restore.resume(run.experiment, own, alone) for run, own in zip(runs, checkpoints, strict=True)
  ]
  places = {(first, None if state is None else int(state.step)) for first, state in found}
  if len(places) > 1:
    raise Uneven(f"runs stand at {sorted(map(str, places))}")
  first, state = found[0]
  if state is None or len(runs) == 1:
    return first, state
  parallel = machines.of(runs[0].experiment.stages[first]).parallel
  return first, parallel.place(parallel.join([state for _, state in found]))


def _before(runs: Sequence[Run], last: Stage, state, machine: Machine):
  """What every member takes over: of the stage before, or of the run that `init_from` names."""
  if state is not None:
    # Another stage may run on other devices; the host is common ground.
    return machine.parallel.on_host(handed_on(last, state))
  if not runs[0].experiment.run.init_from:
    return None
  from training import elsewhere  # formats that few runs need

  before = elsewhere.before(runs[0].experiment)
  return [to_host(before)] * len(runs)


def _watcher(workdir: Workdir, machine: Machine, stage: Stage):
  """Keeps samples from the same noise at every evaluation, to see them change."""
  folder = workdir / "samples"

  def watch(state: steps.State, step: int):
    drawn = stage.task.sample(machine.call(state, stage.numbers), 12, 0)
    if drawn is not None and processes.first():
      folder.mkdir(exist_ok=True)
      np.savez(folder / f"step_{step:08d}.npz", images=np.concatenate(list(drawn.rows.values())))

  return watch
