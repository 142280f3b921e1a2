"""The loop that every experiment runs: evaluate, save, fetch, step, write, in that order.

The order decides what a checkpoint vouches for: a step's evaluation and rows are on disk before the
step is saved, so a resumed run neither repeats nor loses a row.
"""

import math
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from data import source as sources
from data import streaming
from training import step as steps
from training.build import Stage
from training.checkpoint import Checkpoints
from training.errors import Interrupted, NumericsError
from training.evaluate import evaluator, means
from training.parallel import Parallel
from training.progress import Progress
from training.workdir import Workdir


class Stop:
  """SIGINT and SIGTERM ask for a stop after the step in hand; a second one exits at once."""

  def __init__(self):
    self.requested = False

  def __enter__(self):
    self._before = {s: signal.signal(s, self._hear) for s in (signal.SIGINT, signal.SIGTERM)}
    return self

  def _hear(self, number, frame):
    if self.requested:
      os._exit(Interrupted.status)
    self.requested = True

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)


class Place(NamedTuple):
  """Where a stage runs and what it writes to.

  Attributes:
    parallel: its devices.
    workdir: its directory.
    checkpoints: those of the whole run.
    events: TensorBoard's.
    offset: steps of the stages before; rows and checkpoints count through all stages.
    stop: whether to stop.
    watch: called with (params, mutable, step) after an evaluation, to keep samples over time.
  """

  parallel: Parallel
  workdir: Workdir
  checkpoints: Checkpoints
  events: Any
  offset: int
  stop: Stop
  watch: Callable[[Any, Any, int], None]


def run_stage(
  stage: Stage, state: steps.State, place: Place, *, seed: int, best: float | None
) -> steps.State:
  """Trains a stage from `state` to its last step, which is saved.

  Args:
    stage: what to train.
    state: where to begin; at step 0, or restored.
    place: where to run and write.
    seed: of the order of examples.
    best: the metric of the best checkpoint so far, None where there is none.

  Raises:
    Interrupted: a stop was asked for; the state has been saved.
    NumericsError: the loss is not finite; the last finite checkpoint is kept.
  """
  training, program, source = stage.training, stage.program, stage.source
  evaluate = evaluator(stage.task, stage.model, source, place.parallel)
  trainer = place.parallel.trainer(program, state, resident=source.split("train").arrays)
  zeros = steps.zeros(state.metrics)
  start = now = int(state.step)
  feeds = _feeds(stage, seed, start)
  progress = Progress(training.steps, name=stage.name, start=start, examples=program.examples)
  unwritten = None  # the newest row stays on the device until the next step is on its way

  def write():
    nonlocal unwritten
    if unwritten is not None:
      step, metrics = unwritten
      unwritten = None
      _write_training(stage, place, progress, step, metrics)

  def save(*, best: bool = False, value: float | None = None):
    place.workdir.rows.sync()
    meta = {
      "stage": stage.name,
      "step": now,
      "devices": place.parallel.shares,
      "parallel": training.parallel,
      "best": value,
    }
    place.checkpoints.save(place.offset + now, state, meta, best=best)

  try:
    while True:
      fresh = now > start  # what belongs to the first step was done before the interruption
      stopping = place.stop.requested
      if fresh and _due(training.eval_every, now, training.steps):
        write()
        if len(source.split("validation")):
          measured = evaluate(state.weights, state.mutable, "validation")
          _record(stage, place, now, "validation", measured.values)
          value = measured.values[training.best]
          if _better(value, best, training.best_is):
            best = value
            save(best=True, value=value)
        place.watch(state.weights, state.mutable, place.offset + now)
      if fresh and (stopping or _due(training.checkpoint_every, now, training.steps)):
        write()
        save()
      if now == training.steps:
        break
      if stopping:
        place.checkpoints.wait()
        raise Interrupted(
          f"stopped at step {place.offset + now}",
          where=str(place.workdir.path),
          kept="everything up to that step" if now else "nothing, since no step was taken",
          do="run the same command to go on",
        )

      count = min(_until_next(training, now), trainer.group)
      feed = [next(feeds) for _ in range(count)]
      if fresh:
        state = trainer(state, feed)
      else:
        with progress.compiling():
          state = jax.block_until_ready(trainer(state, feed))
      now += count
      write()
      if now % training.log_every == 0 or now == training.steps:
        unwritten = (now, state.metrics)
        state = state.replace(metrics=zeros)
    place.checkpoints.wait()
  finally:
    progress.close()
  return state


def _feeds(stage: Stage, seed: int, start: int) -> Iterator[Any]:
  """What the trainer is fed from step `start` on: rows of a resident split, or streamed batches."""
  train = stage.source.split("train")

  def rows(step: int):
    return sources.rows(seed, step, examples=len(train), batch_size=stage.program.examples)

  if train.arrays is not None:
    return (rows(step) for step in range(start, stage.training.steps))
  # One thread reads ahead while the device computes; more would only share the interpreter's lock.
  return iter(streaming.batches(train, rows, start=start, stop=stage.training.steps, workers=1))


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


def _write_training(stage: Stage, place: Place, progress: Progress, now: int, metrics):
  values = means(metrics)
  # One name a phase, as for its other metrics.
  for phase, rate in zip(stage.program.phases, stage.rates, strict=True):
    name = steps.label(stage.program.phases, phase, "learning_rate")
    values[name] = float(rate((now - 1) * phase.repeats))
  progress.advance(now, values)
  for name, value in values.items():
    if not math.isfinite(value):
      steps_kept = place.checkpoints.steps()
      raise NumericsError(
        f"{name} is {value} at step {place.offset + now}",
        where=str(place.workdir.path),
        kept=f"the checkpoint of step {steps_kept[0]}" if steps_kept else "no checkpoint yet",
        do="lower optimizer.learning_rate or set optimizer.clip_norm",
      )
  _record(stage, place, now, "train", values)
  place.events.scalars(place.offset + now, "speed", {"examples_per_second": progress.rate(now)})


def _record(stage: Stage, place: Place, now: int, split: str, values: dict[str, float]):
  step = place.offset + now
  name = {"stage": stage.name} if stage.name else {}
  place.workdir.rows.write({"step": step, "split": split, **name, **values})
  place.events.scalars(step, split, values)
