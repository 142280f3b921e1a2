"""Host batches of a split that does not fit in memory, decoded while the device computes.

One element of the Grain pipeline is one whole batch, at the index of its step, so Grain's cost per
element is paid once a batch, the order is a pure function of the step, and there is no iterator
state to save: a resumed run passes another `start`.
"""

from collections.abc import Callable, Iterator

import numpy as np

from data import source


class _Steps:
  """A random-access sequence whose elements are the batches of steps start..stop-1."""

  def __init__(self, split: source.Split, rows_of_step: Callable, start: int, stop: int):
    self._split = split
    self._rows_of_step = rows_of_step
    self._start = start
    self._stop = stop

  def __len__(self) -> int:
    return self._stop - self._start

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    return self._split.take(self._rows_of_step(self._start + index))


def batches(
  split: source.Split,
  rows_of_step: Callable[[int], np.ndarray],
  *,
  start: int,
  stop: int,
  workers: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the batch of each step in order.

  Args:
    split: where the examples are read.
    rows_of_step: the rows of a step's batch; called from several threads when workers > 1.
    start: first step.
    stop: one past the last step.
    workers: threads that read ahead; 0 reads in the caller's thread. One overlaps decoding with
      the caller's waits; more pay only where decoding an example takes milliseconds, because small
      ones spend their time under the interpreter's lock.
  """
  if stop <= start:
    return
  import grain  # only a split that streams pays for the import

  steps = grain.MapDataset.source(_Steps(split, rows_of_step, start, stop))
  # Two batches a thread: enough that none waits, and memory stays bounded.
  options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
  iterator = iter(steps.to_iter_dataset(options))
  try:
    yield from iterator
  finally:
    iterator.close()  # a caller that stops early leaves no thread behind
