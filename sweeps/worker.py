"""A worker: the process that runs the trials a job was given, one after another or at once.

It compiles what the trials share once, and goes on from one trial to the next without starting
anew. What goes wrong within a trial ends that trial alone; what ends the process is for the
controller to notice.
"""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from sweeps.ledger import LIVE, Entry, Ledger
from training import config, look, run
from training import workdir as workdirs
from training.build import Experiment, build
from training.errors import Interrupted, NumericsError, ResourceError, UserError
from training.loop import Stop
from training.machine import Machines
from training.workdir import Workdir

_POLL = 0.05  # seconds between two looks for more to do
_LOOK = 0.2  # seconds between two looks whether a trial is to stop
_KEPT = 4  # structures whose programs and data stay in memory


class TrialStop(Stop):
  """Also stops when the ledger says that this trial is to stop."""

  def __init__(self, ledger: Ledger, trials: Sequence[int]):
    super().__init__()
    self._ledger, self._trials = ledger, trials
    self._looked, self.why = time.monotonic(), ""

  @property
  def requested(self) -> bool:
    if not self.why and time.monotonic() - self._looked > _LOOK:
      self._looked = time.monotonic()
      told = [self._ledger.told_to_stop(trial) for trial in self._trials]
      self.why = next(filter(None, told), "")
    return super().requested or bool(self.why)


class Worker:
  """Runs the batches of one job.

  Args:
    ledger: of the sweep.
    job: whose batches to run.
  """

  def __init__(self, ledger: Ledger, job: str):
    self._ledger, self._job = ledger, job
    asked = ledger.asked()
    self._base, self._metric = asked["config"], asked["metric"]
    self._split, self._command = asked["split"], asked["command"]
    self._title, self._track = asked["title"], tuple(asked["track"])
    self._default = run.resolved(self._base)
    self._machines: dict[tuple[str, int], Machines] = {}
    self._where = _where()

  def work(self):
    """Runs what the job is given until it is closed.

    Raises:
      Interrupted: SIGTERM or SIGINT came; the trial in hand is saved.
    """
    for batch in self._batches():
      entries = [self._ledger.read(trial) for trial in batch]
      # A job that SLURM put back into its queue begins its list anew.
      if entries := [entry for entry in entries if entry.state in LIVE]:
        self._run(entries)

  def _batches(self) -> Iterator[list[int]]:
    done = 0
    controller = os.getppid()
    while True:
      batches, closed = self._ledger.given(self._job)
      yield from batches[done:]
      if len(batches) == done and (closed or not self._awaited(controller)):
        return
      done = len(batches)
      time.sleep(_POLL)

  def _awaited(self, controller: int) -> bool:
    """Whether anybody may still give this job something to do."""
    return os.getppid() == controller and self._ledger.controllers() > 0

  def _run(self, entries: list[Entry]):
    """Runs a batch: at once where it is more than one trial and that is faster."""
    built = [(entry, experiment) for entry in entries if (experiment := self._built(entry))]
    entries, experiments = [entry for entry, _ in built], [experiment for _, experiment in built]
    if len(entries) > 1 and self._at_once(experiments):
      try:
        self._attempt(entries, experiments)
        return
      except run.Uneven:
        pass  # an earlier session left them at different steps
    for entry, experiment in zip(entries, experiments, strict=True):
      self._attempt([entry], [experiment])

  def _built(self, entry: Entry) -> Experiment | None:
    """The trial's experiment; None where a search proposed what cannot be one."""
    assignments = [(key, repr(value)) for key, value in entry.overrides.items()]
    tree = config.override(config.ml_collections.ConfigDict(self._base), assignments)
    try:
      return build(tree)
    except UserError as error:
      entry = entry.started_now(self._where)
      self._ledger.write(entry.ended("failed", status=error.status, error=str(error)))
      return None

  def _shared(self, experiment: Experiment, members: int) -> Machines:
    key = (experiment.structure, members)
    if key not in self._machines:
      machines = Machines(members)
      run.check(experiment, machines)
      while len(self._machines) >= _KEPT:
        self._machines.pop(next(iter(self._machines)))
      self._machines[key] = machines
    return self._machines[key]

  def _attempt(self, entries: list[Entry], experiments: list[Experiment]):
    """Runs trials together, usually one, and writes into the ledger what becomes of them.

    Raises:
      Interrupted: this process is to stop.
      ResourceError: memory is short; a fresh process has more of it.
    """
    ledger = self._ledger
    entries = [entry.started_now(self._where) for entry in entries]
    for entry in entries:
      ledger.write(entry)
    print(f"trials {[entry.id for entry in entries]}", flush=True)

    def end(state: str, *, status: int | None, error: str = ""):
      for entry in entries:
        ledger.write(entry.ended(state, status=status, error=error))

    stop = TrialStop(ledger, [entry.id for entry in entries])
    try:
      self._train(entries, experiments, stop)
    except run.Uneven:
      end("pending", status=None)
      raise
    except Interrupted as why:
      if stop.why:
        late = f"error[TIMEOUT]: its time was up; {why.parts[0]}"
        end(stop.why, status=why.status, error=late if stop.why == "timeout" else "")
      else:
        end("interrupted", status=why.status)
        raise
    except UserError as error:
      print(error, file=sys.stderr, flush=True)
      end("failed", status=error.status, error=str(error))
      if isinstance(error, ResourceError):
        raise
    except Exception as error:  # a trial's crash is its own
      traceback.print_exc()
      said = f"{type(error).__name__}: {error}".splitlines()[0]
      end("failed", status=1, error=f"error[CRASH]: {said}"[:500])

  def _train(self, entries: list[Entry], experiments: list[Experiment], stop: TrialStop):
    machines = self._shared(experiments[0], len(entries) if len(entries) > 1 else 0)
    workdirs_ = []
    try:
      with stop:
        for entry, experiment in zip(entries, experiments, strict=True):
          workdir = Workdir(self._ledger.workdir(entry.id))
          workdirs_.append(workdir)
          workdir.claim(experiment.config)
          workdirs.write_json(workdir / ".default.json", self._default)
        runs = [
          run.Run(
            experiment,
            workdir,
            self._command,
            watched=False,
            name=f"{self._title} trial {workdir.path.name}",
            track=self._track,
          )
          for experiment, workdir in zip(experiments, workdirs_, strict=True)
        ]
        state, machine, errors = run.fit(runs, machines, stop=stop)
        stages = [experiment.stages[-1] for experiment in experiments]
        measured = look.measure(machine, state, stages)
        for i, (entry, error) in enumerate(zip(entries, errors, strict=True)):
          if error is not None:
            self._ledger.write(entry.ended("failed", status=error.status, error=str(error)))
            continue
          own = machine.parallel.member(state, i)
          look.write_evaluation(workdirs_[i], stages[i], own, measured[i], "latest")
          value = self._value(workdirs_[i], measured[i])
          ended = entry.ended("done", status=0, value=value)
          if value is not None and not np.isfinite(value):
            ended = entry.ended("failed", status=NumericsError.status, error=_NOT_FINITE)
          self._ledger.write(ended)
    finally:
      for workdir in workdirs_:
        workdir.close()

  def _value(self, workdir: Workdir, measured) -> float | None:
    """The ranking metric at the end."""
    if self._split in measured:
      return measured[self._split][self._metric]
    rows = workdirs.read_rows(workdir / "metrics.jsonl")
    values = [r[self._metric] for r in rows if r["split"] == self._split and self._metric in r]
    return values[-1] if values else None

  def _at_once(self, experiments: list[Experiment]) -> bool:
    """Whether trials are vectorised: as asked, or as a measurement on these devices says."""
    asked = self._ledger.asked()["population"]
    if asked != "auto":
      return asked == "vectorised"
    if not _accelerated():
      return False  # benchmarks/population.py: the cores are busy already
    stages = [experiment.stages[0] for experiment in experiments]
    try:
      alone = self._shared(experiments[0], 0).of(stages[0]).seconds(stages[:1])
      together = self._shared(experiments[0], len(stages)).of(stages[0]).seconds(stages)
    except UserError:
      return False  # each trial will say so for itself
    chosen = together < alone * len(experiments)
    print(
      f"{len(experiments)} trials at once: {together:.4f} s a dispatch; one after another:"
      f" {alone:.4f} s each; {'at once' if chosen else 'one after another'}",
      flush=True,
    )
    return chosen


_NOT_FINITE = str(
  NumericsError(
    "the ranking metric is not finite at the end",
    kept="the trial's checkpoints",
    do="lower optimizer.learning_rate or set optimizer.clip_norm",
  )
)


def _accelerated() -> bool:
  return jax.devices()[0].platform != "cpu"


def _where() -> str:
  devices = jax.devices()
  ids = ",".join(str(device.id) for device in devices)
  if devices[0].platform == "cpu":
    return f"{socket.gethostname()} cores {','.join(map(str, sorted(os.sched_getaffinity(0))))}"
  visible = os.environ["CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else ids
  return f"{socket.gethostname()} {devices[0].platform} {visible}"


def work(path: str, job: str):
  """Runs a job of the sweep in `path`."""
  # Until a trial listens, a signal ends the process at once; nothing has been begun.
  signal.signal(signal.SIGTERM, lambda *_: os._exit(Interrupted.status))
  Worker(Ledger(path), job).work()
