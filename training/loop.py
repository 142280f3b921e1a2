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

from data import source as sources
from data import streaming
from training import step as steps
from training.build import Stage
from training.checkpoint import Checkpoints
from training.errors import Interrupted, NumericsError
from training.evaluate import means
from training.machine import Machine
from training.parallel import Parallel
from training.progress import Progress
from training.workdir import Workdir


class Stop:
  """SIGINT and SIGTERM ask for a stop after the step in hand; a second one exits at once."""

  def __init__(self):
    self._signalled = False

  @property
  def requested(self) -> bool:
    """Whether to stop."""
    return self._signalled

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
    watch: called with (state, step) after an evaluation, to keep samples over time.
    best: the metric of its best checkpoint so far.
    error: why it was dropped while the others went on.
  """

  stage: Stage
  seed: int
  workdir: Workdir
  checkpoints: Checkpoints
  events: Any
  watch: Callable[[steps.State, int], None] | None = None
  best: float | None = None
  error: NumericsError | None = None


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
  parallel, trainer, stage = machine.parallel, machine.trainer, machine.stage
  training = stage.training
  numbers = parallel.join([member.stage.numbers for member in members])
  zeros = steps.zeros(state.metrics)
  feeds = _feeds(stage, [member.seed for member in members], int(state.step.min()), parallel)
  start = now = int(state.step.min())
  progress = Progress(
    training.steps, name=stage.name, start=start, examples=stage.program.examples * len(members)
  )
  unwritten = None  # the newest row stays on the device until the next step is on its way

  def alive():
    return [(i, member) for i, member in enumerate(members) if member.error is None]

  def write():
    nonlocal unwritten
    if unwritten is not None:
      step, metrics = unwritten
      unwritten = None
      rows = parallel.on_host(metrics)
      for i, member in alive():
        with _dropped(member, alive()):
          _write_training(member, progress, step, offset + step, rows[i])

  def save(chosen: Sequence[tuple[int, Member]], *, best: bool = False):
    for i, member in chosen:
      member.workdir.rows.sync()
      meta = {
        "stage": stage.name,
        "step": now,
        "devices": parallel.shares,
        "parallel": training.parallel,
        "best": member.best if best else None,
      }
      with _dropped(member, alive()):
        member.checkpoints.save(offset + now, parallel.member(state, i), meta, best=best)

  try:
    while True:
      fresh = now > start  # what belongs to the first step was done before the interruption
      stopping = stop.requested
      if fresh and _due(training.eval_every, now, training.steps):
        write()
        if len(stage.source.split("validation")):
          measured = machine.evaluate(state.weights, state.mutable, "validation", numbers)
          better = []
          for i, member in alive():
            _record(member, offset + now, "validation", measured[i].values)
            value = measured[i].values[training.best]
            if _better(value, member.best, training.best_is):
              member.best = value
              better.append((i, member))
          save(better, best=True)
        for i, member in alive():
          if member.watch is not None:
            member.watch(parallel.member(state, i), offset + now)
      if fresh and (stopping or _due(training.checkpoint_every, now, training.steps)):
        write()
        save(alive())
      if now == training.steps:
        break
      if stopping:
        for member in members:
          member.checkpoints.wait()
        raise Interrupted(
          f"stopped at step {offset + now}",
          where=", ".join(str(member.workdir.path) for member in members),
          kept="everything up to that step" if now else "nothing, since no step was taken",
          do="run the same command to go on",
        )

      count = min(_until_next(training, now), trainer.group)
      feed = [next(feeds) for _ in range(count)]
      if fresh:
        state = trainer(state, feed, numbers)
      else:
        with progress.compiling():
          state = jax.block_until_ready(trainer(state, feed, numbers))
      now += count
      write()
      if now % training.log_every == 0 or now == training.steps:
        unwritten = (now, state.metrics)
        state = state.replace(metrics=zeros)
    for member in members:
      member.checkpoints.wait()
  finally:
    progress.close()
  return state


@contextlib.contextmanager
def _dropped(member: Member, alive: Sequence[tuple[int, Member]]):
  """Numbers that are not finite end their own run, and only the last of a population's."""
  try:
    yield
  except NumericsError as error:
    member.error = error
    if len(alive) == 1:
      raise


def _feeds(stage: Stage, seeds: Sequence[int], start: int, parallel: Parallel) -> Iterator[Any]:
  """What the trainer is fed from step `start` on: rows of a resident split, or streamed batches."""
  train = stage.source.split("train")
  stop = stage.training.steps

  def rows(seed: int):
    return lambda step: sources.rows(
      seed, step, examples=len(train), batch_size=stage.program.examples
    )

  if train.arrays is not None:
    return (parallel.join([rows(seed)(step) for seed in seeds]) for step in range(start, stop))
  # One thread reads ahead while the device computes; more would only share the interpreter's lock.
  streams = [
    iter(streaming.batches(train, rows(seed), start=start, stop=stop, workers=1)) for seed in seeds
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


def _write_training(member: Member, progress: Progress, now: int, step: int, metrics):
  values = means(metrics)
  phases = member.stage.program.phases
  # One name a phase, as for its other metrics.
  for phase, rate in zip(phases, member.stage.rates, strict=True):
    name = steps.label(phases, phase, "learning_rate")
    values[name] = float(rate((now - 1) * phase.repeats))
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
  member.events.scalars(step, "speed", {"examples_per_second": progress.rate(now)})


def _record(member: Member, step: int, split: str, values: dict[str, float]):
  name = {"stage": member.stage.name} if member.stage.name else {}
  member.workdir.rows.write({"step": step, "split": split, **name, **values})
  member.events.scalars(step, split, values)
