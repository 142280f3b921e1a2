"""Host batches of a split that does not fit in memory, read while the device computes.

What is read ahead is whole batches, each by the number of its step, so the order is a pure function
of the step and there is no iterator state to save: a resumed run passes another `start`.

The threads that read are daemons: one that never comes back, because a disk or a network file
system does not answer, keeps the process neither from hearing a signal nor from ending.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np

from data import source

_LOOK = 0.1  # seconds of waiting after which the caller is asked whether to wait on

Batch = dict[str, np.ndarray]


def batches(
  split: source.Split,
  rows_of_step: Callable[[int], np.ndarray],
  *,
  start: int,
  stop: int,
  workers: int = 0,
  waiting: Callable[[], None] = lambda: None,
) -> Iterator[Batch]:
  """Yields the batch of each step in order.

  Args:
    split: where the examples are read.
    rows_of_step: the rows of a step's batch; called from several threads when workers > 1.
    start: first step.
    stop: one past the last step.
    workers: threads that read ahead; 0 reads in the caller's thread. One overlaps decoding with
      the caller's waits; more pay only where decoding an example takes milliseconds, because small
      ones spend their time under the interpreter's lock.
    waiting: called again and again while a batch is waited for; what it raises ends the wait.

  Raises:
    Exception: whatever reading a batch raised, at the step of that batch.
  """
  if not workers:
    for step in range(start, stop):
      yield split.take(rows_of_step(step))
    return
  asked: queue.SimpleQueue[tuple[int, Future[Batch]] | None] = queue.SimpleQueue()
  for _ in range(workers):
    threading.Thread(target=_read, args=(split, rows_of_step, asked), daemon=True).start()
  ahead: queue.SimpleQueue[Future[Batch]] = queue.SimpleQueue()
  # Two batches a thread: enough that none waits, and memory stays bounded.
  following = start
  try:
    for _ in range(start, stop):
      while following < stop and ahead.qsize() < 2 * workers:
        ahead.put(future := Future())
        asked.put((following, future))
        following += 1
      yield _result(ahead.get(), waiting)
  finally:
    # A caller that stops early leaves no thread behind, but for one that does not come back.
    while not ahead.empty():
      ahead.get().cancel()
    for _ in range(workers):
      asked.put(None)


def _read(split: source.Split, rows_of_step: Callable[[int], np.ndarray], asked: queue.SimpleQueue):
  """What a thread does: reads the batches that it is asked for."""
  while (one := asked.get()) is not None:
    step, future = one
    if not future.set_running_or_notify_cancel():
      continue
    try:
      future.set_result(split.take(rows_of_step(step)))
    except BaseException as error:  # a thread that died in silence would be waited for
      future.set_exception(error)


def _result(future: Future[Batch], waiting: Callable[[], None]) -> Batch:
  while True:
    try:
      return future.result(timeout=_LOOK)
    except TimeoutError:
      if future.done():
        raise  # the reader's own
    waiting()
