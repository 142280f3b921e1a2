"""Pairs of sequences as a model reads them, and batches of pairs of about one length.

`source` int32 [S] ends with <eos>, `target` int32 [T+1] is <bos>, the text, <eos>; -1 is padding.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from data import source
from data.tokenizers import Encoded, Tokenizer

_WIDTH = 8  # buckets are as wide as a multiple of this, so that few shapes are compiled

Arrays = dict[str, np.ndarray]


def arrays(
  sources: Sequence[Encoded],
  targets: Sequence[Encoded],
  tokenizers: Mapping[str, Tokenizer],
  *,
  source_length: int,
  target_length: int,
  reverse_source: bool = False,
) -> Arrays:
  """All pairs; what is longer than the rows is cut at its end, its <eos> kept.

  `characters` and `bytes` int32 say how much text the targets stand for.

  Args:
    sources: the sources.
    targets: the target of each.
    tokenizers: by element.
    source_length: S, with <eos>.
    target_length: T: the targets of a pair, with <eos>.
    reverse_source: whether the source is read from its end, <eos> still last.
  """
  read, write = tokenizers["source"], tokenizers["target"]
  found = {
    "source": np.full((len(sources), source_length), -1, np.int32),
    "target": np.full((len(targets), target_length + 1), -1, np.int32),
    "characters": np.zeros(len(targets), np.int32),
    "bytes": np.zeros(len(targets), np.int32),
  }
  for row, (one, other) in enumerate(zip(sources, targets, strict=True)):
    ids = one.ids[: source_length - 1]
    found["source"][row, : len(ids)] = ids[::-1] if reverse_source else ids
    found["source"][row, len(ids)] = read.eos
    room = target_length - 1
    ids = other.ids[:room]
    found["target"][row, 0] = write.bos
    found["target"][row, 1 : len(ids) + 1] = ids
    found["target"][row, len(ids) + 1] = write.eos
    found["characters"][row] = other.characters[:room].sum()
    found["bytes"][row] = other.bytes[:room].sum()
  return found


class Bucketed:
  """A split whose batches hold pairs of about one length, cut to the width that they need.

  Every bucket is walked through as a set of its own, each of its rows once in a turn; the buckets'
  batches come in a random order, as often as a bucket's size asks for. So a batch remains a
  function of (seed, step), and in the long run no pair is seen more often than another.
  """

  arrays = None  # rows have several widths

  def __init__(self, arrays: Arrays, buckets: int):
    self._arrays = arrays
    lengths = np.stack([(arrays[name] >= 0).sum(-1) for name in ("source", "target")])
    order = np.argsort(lengths.max(0), kind="stable")
    self._buckets = [np.sort(part) for part in np.array_split(order, buckets) if len(part)]
    self._bucket = np.zeros(len(order), np.int64)
    for index, rows in enumerate(self._buckets):
      self._bucket[rows] = index
    # Wide enough for all buckets before, so that a bucket's width fits rows of those too.
    widest = np.array([lengths[:, rows].max(-1) for rows in self._buckets]).reshape(-1, 2)
    self._widths = np.maximum.accumulate(-(-widest // _WIDTH) * _WIDTH)

  def __len__(self) -> int:
    return len(self._bucket)

  def take(self, rows: np.ndarray) -> Arrays:
    """The pairs at `rows`, as wide as the widest bucket among them."""
    widths = dict(zip(("source", "target"), self._widths[self._bucket[rows].max()], strict=True))
    found = {name: array[rows] for name, array in self._arrays.items()}
    return {k: array[:, : widths[k]] if k in widths else array for k, array in found.items()}

  def batch_rows(self, seed: int, step: int, batch_size: int) -> np.ndarray:
    """[batch_size] the rows of a step, all of one bucket."""
    counts = np.array([len(rows) for rows in self._buckets])
    before = lambda turn: turn * counts // batch_size  # noqa: E731  batches of each until a turn
    # A turn shows each pair about once; of small buckets several turns make one batch.
    turn = int(step * batch_size // counts.sum())
    while before(turn).sum() > step:
      turn -= 1
    while before(turn + 1).sum() <= step:
      turn += 1
    done = before(turn)
    place = _order(seed, turn, tuple(before(turn + 1) - done))[step - done.sum()]
    bucket, nth = place
    rows = source.rows(
      seed, int(done[bucket] + nth), examples=int(counts[bucket]), batch_size=batch_size
    )
    return self._buckets[bucket][rows]


@functools.lru_cache(maxsize=4)
def _order(seed: int, turn: int, batches: tuple[int, ...]) -> list[tuple[int, int]]:
  """The (bucket, its nth batch) of one turn in a random order."""
  generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 1, turn]))
  places = [(bucket, nth) for bucket, count in enumerate(batches) for nth in range(count)]
  return [places[index] for index in generator.permutation(len(places))]
