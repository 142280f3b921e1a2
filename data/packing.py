"""Documents of tokens into rows of one length, so that every target is scored once.

A row is `tokens` int32 [T+1], -1 where padded: a model reads tokens[:-1] and predicts tokens[1:].
The lengths of tokens in characters and bytes go along, and a row says how much its scored targets
stand for.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Overlong = Literal["split", "truncate", "refuse"]


class Document(NamedTuple):
  """Tokens [N], and how many characters and bytes each stands for [N]."""

  tokens: np.ndarray
  characters: np.ndarray
  bytes: np.ndarray

  def part(self, start: int, stop: int) -> "Document":
    return Document(*(array[start:stop] for array in self))


_FILL = Document(tokens=-1, characters=0, bytes=0)  # where a row is padded
Rows = dict[str, np.ndarray]


def join(documents: Sequence[Document]) -> Document:
  """One after another."""
  if not documents:
    return Document(*(np.zeros(0, np.int32) for _ in Document._fields))
  return Document(*(np.concatenate(arrays) for arrays in zip(*documents, strict=True)))


def windows(stream: Document, length: int, stride: int = 0) -> Rows:
  """A stream cut into rows of `length` targets; every token but the first is scored once.

  A row begins `stride` tokens after the one before; with a stride below `length` rows overlap, and
  `context` says how many targets at a row's begin the row before has scored.
  """
  stride = stride or length
  targets = len(stream.tokens) - 1
  count = 1 + max(0, -(-(targets - length) // stride)) if targets > 0 else 0
  starts = np.arange(count) * stride
  place = starts[:, None] + np.arange(length + 1)
  there = place < len(stream.tokens)
  place = np.where(there, place, 0)
  rows = {
    name: np.where(there, array[place], fill).astype(np.int32)
    for (name, array), fill in zip(stream._asdict().items(), _FILL, strict=True)
  }
  rows["context"] = np.where(starts > 0, length - stride, 0).astype(np.int32)
  scored = np.arange(length) >= rows["context"][:, None]
  return _measured(rows, scored)


def padded(documents: Sequence[Document], length: int) -> Rows:
  """A document a row."""
  rows = _rows(documents, length)
  return _measured(rows, np.ones(length, bool))


def packed(documents: Sequence[Document], length: int) -> Rows:
  """Whole documents, several a row: the first row that has room takes the next (first fit).

  `segments` [T+1] numbers a row's documents from 1, 0 where padded. A document's first token is
  nobody's target, so a target whose segment is not its input's is not scored.
  """
  bins = first_fit([len(document.tokens) for document in documents], length + 1)
  rows = _rows([join([documents[i] for i in chosen]) for chosen in bins], length)
  segments = np.zeros((len(bins), length + 1), np.int32)
  for row, chosen in enumerate(bins):
    sizes = [len(documents[i].tokens) for i in chosen]
    segments[row, : sum(sizes)] = np.repeat(np.arange(1, len(sizes) + 1), sizes)
  rows["segments"] = segments
  return _measured(rows, segments[:, 1:] == segments[:, :-1])


def first_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
  """Which of the items go together so that none exceeds `room`, each in the first bin it fits."""
  bins: list[list[int]] = []
  left = np.zeros(len(sizes), np.int64)
  smallest, opened = min(sizes, default=0), 0  # bins before `opened` have no room for any item
  for item, size in enumerate(sizes):
    while opened < len(bins) and left[opened] < smallest:
      opened += 1
    fits = left[opened : len(bins)] >= size
    place = opened + int(fits.argmax()) if fits.any() else len(bins)
    if place == len(bins):
      bins.append([])
      left[place] = room
    bins[place].append(item)
    left[place] -= size
  return bins


def fitted(
  documents: Sequence[Document], length: int, overlong: Overlong
) -> tuple[list[Document], int]:
  """Documents of at most `length` targets each, and how many were longer.

  One that is longer is cut into pieces that share a token, so that each of its targets is scored
  once ("split"), keeps its first `length` targets ("truncate"), or is an error ("refuse").

  Raises:
    ValueError: a document is longer and is not to be.
  """
  found, longer = [], 0
  for document in documents:
    targets = len(document.tokens) - 1
    if targets <= length:
      found.append(document)
      continue
    longer += 1
    if overlong == "refuse":
      raise ValueError(f"a document has {targets} targets, more than data.length={length}")
    last = targets if overlong == "split" else 1
    found.extend(document.part(start, start + length + 1) for start in range(0, last, length))
  return found, longer


def _rows(documents: Sequence[Document], length: int) -> Rows:
  """A document a row, in arrays [rows, T+1]."""
  rows = {
    name: np.full((len(documents), length + 1), fill, np.int32)
    for name, fill in zip(Document._fields, _FILL, strict=True)
  }
  for row, document in enumerate(documents):
    for name, array in document._asdict().items():
      rows[name][row, : len(array)] = array
  return rows


def _measured(rows: Rows, scored_NT: np.ndarray) -> Rows:
  """The characters and bytes of every row's scored targets, instead of its tokens'."""
  for name in ("characters", "bytes"):
    rows[name] = np.where(scored_NT, rows[name][:, 1:], 0).sum(-1).astype(np.int32)
  return rows
