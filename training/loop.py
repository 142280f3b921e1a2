"""The loop that every experiment runs: evaluate, save, fetch, step, write, in that order.

The order decides what a checkpoint vouches for: a step's evaluation and rows are on disk before the
step is saved, so a resumed run neither repeats nor loses a row.
"""

import contextlib
import dataclasses
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from data import source as sources
from data import streaming
from training import faults
from training import step as steps
from training.build import Stage, reading
from training.checkpoint import Checkpoints
from training.errors import Interrupted, NumericsError
from training.evaluate import means
from training.machine import Machine
from training.parallel import Parallel, anywhere, cleared
from training.progress import Progress
from training.restore import asset_hashes
from training.sentinels import Watch
from training.watchdog import Watchdog
from training.workdir import Workdir


class Stop:
  """SIGINT and SIGTERM ask for a stop after the step in hand; a second one exits at once."""

  def __init__(self):
    self._signalled = False

  @property
  def requested(self) -> bool:
    """Whether to stop."""
    return anywhere(self._signalled)

  def __enter__(self):
    self._before = {s: signal.signal(s, self._hear) for s in (signal.SIGINT, signal.SIGTERM)}
    return self

  def _hear(self, number, frame):
    if self._signalled:
      os._exit(Interrupted.status)
    self._signalled = True

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)


@dataclasses.dataclass
class Member:
  """One of the runs that are trained at the same time; usually there is one.

  Attributes:
    stage: its own, for its numbers and learning rates.
    seed: of the order of its examples.
    workdir: its directory.
    checkpoints: those of the whole run.
    events: where scalars go besides metrics.jsonl.
    data: of every stage, what its data are, which a checkpoint says.
    watch: called with (state, step) after an evaluation, to keep samples over time.
    best: the metric of its best checkpoint so far.
    error: why it was dropped while the others went on.
    watched: what its rows are watched for; set by the stage.
  """

  stage: Stage
  seed: int
  workdir: Workdir
  checkpoints: Checkpoints
  events: Any
  data: dict[str, Any]
  watch: Callable[[steps.State, int], None] | None = None
  best: float | None = None
  error: NumericsError | None = None
  watched: Watch | None = None


def run_stage(
  machine: Machine, state: steps.State, members: Sequence[Member], *, offset: int, stop: Stop
) -> steps.State:
  """Trains a stage from `state` to its last step, which is saved.

  Args:
    machine: the stage's compiled programs.
    state: where to begin, of all members joined; at step 0, or restored.
    members: whose state it is. One whose numbers are not finite is dropped; the others go on.
    offset: steps of the stages before; rows and checkpoints count through all stages.
    stop: whether to stop.

  Raises:
    Interrupted: a stop was asked for; the state has been saved.
    NumericsError: the loss of the last member left is not finite; its last finite checkpoint is
      kept.
  """
  limit = machine.stage.training.stalled_after
  with Watchdog(limit, members[0].workdir.path) as watchdog:
    loop = _Loop(machine, state, members, offset, stop, watchdog)
    try:
      loop.run()
    finally:
      loop.progress.close()
  return loop.state


class _Loop:
  """A stage under way."""

  def __init__(self, machine: Machine, state, members: Sequence[Member], offset, stop, watchdog):
    self.machine, self.state, self.members = machine, state, members
    self.offset, self.stop, self.watchdog = offset, stop, watchdog
    self.stage, self.training = machine.stage, machine.stage.training
    self.now = self.start = int(state.step.min())
    self.numbers = machine.parallel.join([member.stage.numbers for member in members])
    self.assets = asset_hashes(self.stage)
    for member in members:
      member.watched = Watch(member.stage.task.sentinels(), self.training.steps)
    self.unwritten = None  # the newest row stays on the device until the next step is on its way
    seeds = [member.seed for member in members]
    self.feeds = _feeds(self.stage, seeds, self.start, machine.parallel, self.waiting)
    self.progress = Progress(
      self.training.steps,
      name=self.stage.name,
      start=self.start,
      examples=self.stage.program.examples * len(members),
    )

  def run(self):
    """Evaluate, save, fetch, step, write, in that order, until the last step."""
    last = self.training.steps
    while True:
      fresh = self.now > self.start  # what belongs to the first step was done before the stop
      stopping = self.stop.requested
      if fresh and _due(self.training.eval_every, self.now, last):
        self.write()
        self.evaluate()
      if fresh and (stopping or _due(self.training.checkpoint_every, self.now, last)):
        self.write()
        self.save(self.alive())
      if self.now == last:
        break
      if stopping:
        self.interrupt()
      if not self.advance(fresh):
        if fresh and not _due(self.training.checkpoint_every, self.now, last):
          self.write()
          self.save(self.alive())
        self.interrupt()
    self.wait()

  def waiting(self):
    """Ends a wait for data where a stop is asked for; of several processes all stop together."""
    if jax.process_count() == 1 and self.stop.requested:
      raise _StoppedWaiting

  def alive(self) -> list[tuple[int, Member]]:
    return [(i, member) for i, member in enumerate(self.members) if member.error is None]

  def advance(self, fresh: bool) -> bool:
    """Takes the next steps, unless a stop is asked for while their data are waited for."""
    faults.point("step.begin")
    trainer = self.machine.trainer
    count = min(_until_next(self.training, self.now), trainer.group)
    for _, member in self.alive():
      member.checkpoints.check()
    self.watchdog.now("a wait for data")
    try:
      with reading(self.stage.source, "what was saved before"):
        feed = [next(self.feeds) for _ in range(count)]
    except _StoppedWaiting:
      return False
    self.watchdog.now("a step")
    if fresh:
      self.state = trainer(self.state, feed, self.numbers)
    else:
      with self.progress.compiling():
        self.state = jax.block_until_ready(trainer(self.state, feed, self.numbers))
    faults.point("step.sent")
    self.now += count
    self.write()
    if self.now % self.training.log_every == 0 or self.now == self.training.steps:
      rejected = jax.tree.map(jnp.copy, self.state.rejected)  # a step gives its state away
      self.unwritten = (self.now, (self.state.metrics, rejected))
      self.state = self.state.replace(metrics=cleared(self.state.metrics))
    return True

  def write(self):
    if self.unwritten is None:
      return
    (step, measured), self.unwritten = self.unwritten, None
    rows = self.machine.parallel.on_host(measured)
    for i, member in self.alive():
      metrics, rejected = rows[i]
      with _dropped(member, self.alive()):
        self.check(i, member, rejected)
        _write_training(member, self.progress, step, self.offset + step, metrics, rejected)

  def check(self, i: int, member: Member, rejected: steps.Rejected):
    """Ends a run that rejects every step, and keeps the state that none of them changed."""
    most = self.training.most_rejected
    if rejected.running < most:
      return
    own = self.machine.parallel.member(self.state, i)
    # The same command tries as many steps again, from where these ended.
    again = own.rejected._replace(running=own.rejected.running * 0)
    step = self.offset + int(own.step)
    self.keep(member, own.replace(rejected=again))
    member.checkpoints.wait()
    raise NumericsError(
      f"{most} steps in a row had a loss or a gradient that is not finite, up to step {step}",
      where=str(member.workdir.path),
      kept=f"the state before them, as the checkpoint of step {step}",
      do="lower optimizer.learning_rate or set optimizer.clip_norm; --allow-changed-config goes on",
    )

  def evaluate(self):
    faults.point("evaluate.begin")
    self.watchdog.now("an evaluation")
    step, parallel = self.offset + self.now, self.machine.parallel
    if len(self.stage.source.split("validation")):
      measured = self.machine.evaluate(
        self.state.weights, self.state.mutable, "validation", self.numbers
      )
      better = []
      for i, member in self.alive():
        _record(member, step, "validation", measured[i].values)
        value = measured[i].values[self.training.best]
        if _better(value, member.best, self.training.best_is):
          member.best = value
          better.append((i, member))
      self.save(better, best=True)
    for i, member in self.alive():
      if member.watch is not None:
        member.watch(parallel.member(self.state, i), step)

  def save(self, chosen: Sequence[tuple[int, Member]], *, best: bool = False):
    self.watchdog.now("a save")
    for i, member in chosen:
      own = self.machine.parallel.member(self.state, i)
      with _dropped(member, self.alive()):
        self.check(i, member, own.rejected)
        self.keep(member, own, best=best)

  def keep(self, member: Member, own: steps.State, *, best: bool = False):
    member.workdir.rows.sync()
    step = int(own.step)
    meta = {
      "stage": self.stage.name,
      "step": step,
      "devices": self.machine.parallel.shares,
      "parallel": self.training.parallel,
      "best": member.best if best else None,
      "assets": self.assets,
      "data": member.data,
    }
    member.checkpoints.save(
      self.offset + step,
      own,
      meta,
      best=best,
      frozen=steps.frozen(self.stage.program.phases, own.params),
      begun=self.offset,
    )

  def wait(self):
    self.watchdog.now("the end of a save")
    for member in self.members:
      member.checkpoints.wait()

  def interrupt(self):
    self.wait()
    raise Interrupted(
      f"stopped at step {self.offset + self.now}",
      where=", ".join(str(member.workdir.path) for member in self.members),
      kept="everything up to that step" if self.now else "nothing, since no step was taken",
      do="run the same command to go on",
    )


class _StoppedWaiting(Exception):
  """A stop was asked for while data were waited for."""


@contextlib.contextmanager
def _dropped(member: Member, alive: Sequence[tuple[int, Member]]):
  """Numbers that are not finite end their own run, and only the last of a population's."""
  try:
    yield
  except NumericsError as error:
    member.error = error
    if len(alive) == 1:
      raise


def _feeds(
  stage: Stage,
  seeds: Sequence[int],
  start: int,
  parallel: Parallel,
  waiting: Callable[[], None],
) -> Iterator[Any]:
  """What the trainer is fed from step `start` on: rows of a resident split, or streamed batches."""
  train = stage.source.split("train")
  stop = stage.training.steps

  def rows(seed: int):
    return lambda step: sources.batch_rows(train, seed, step, stage.program.examples)

  if train.arrays is not None:
    return (parallel.join([rows(seed)(step) for seed in seeds]) for step in range(start, stop))
  # One thread reads ahead while the device computes; more would only share the interpreter's lock.
  streams = [
    streaming.batches(train, rows(seed), start=start, stop=stop, workers=1, waiting=waiting)
    for seed in seeds
  ]
  return (parallel.join(batches) for batches in zip(*streams, strict=True))


def _due(every: int, now: int, last: int) -> bool:
  return now == last or (every > 0 and now % every == 0)


def _until_next(training, now: int) -> int:
  """Steps from `now` to the next one at which something is evaluated, saved or logged."""
  periods = (training.log_every, training.eval_every, training.checkpoint_every)
  return min(training.steps - now, *(every - now % every for every in periods if every))


def _better(value: float, best: float | None, kind: str) -> bool:
  if not math.isfinite(value):
    return False
  return best is None or (value < best if kind == "least" else value > best)


def _write_training(
  member: Member, progress: Progress, now: int, step: int, metrics, rejected: steps.Rejected
):
  values = {}
  # Where every step since the last row was rejected, there is nothing to take a mean of.
  if not rejected.total or any(mean.count for mean in metrics.values()):
    values = means(metrics)
    values |= member.stage.task.derive(values)
  measured = dict(values)
  phases = member.stage.program.phases
  # One name a phase, as for its other metrics.
  for phase, rate in zip(phases, member.stage.rates, strict=True):
    name = steps.label(phases, phase, "learning_rate")
    values[name] = float(rate((now - 1) * phase.repeats))
  if rejected.total:
    values["rejected"] = int(rejected.total)
  progress.advance(now, values)
  for name, value in values.items():
    if not math.isfinite(value):
      steps_kept = member.checkpoints.steps()
      raise NumericsError(
        f"{name} is {value} at step {step}",
        where=str(member.workdir.path),
        kept=f"the checkpoint of step {steps_kept[0]}" if steps_kept else "no checkpoint yet",
        do="lower optimizer.learning_rate or set optimizer.clip_norm",
      )
  _record(member, step, "train", values)
  for sentence in member.watched.row(now, measured, int(rejected.total), shown=step):
    progress.warn(sentence)
  member.events.scalars(step, "speed", {"examples_per_second": progress.rate(now)})


def _record(member: Member, step: int, split: str, values: dict[str, float]):
  name = {"stage": member.stage.name} if member.stage.name else {}
  member.workdir.rows.write({"step": step, "split": split, **name, **values})
  member.events.scalars(step, split, values)
