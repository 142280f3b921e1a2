"""What every dataset offers: splits by row, facts about its elements, a pure transform.

A batch is a pure function of (seed, step): `rows` names the examples, `Split.take` reads them,
`Source.transform` (pure JAX, inside the compiled step) turns stored bytes into what a model sees.
Nothing has an iterator, so a resumed run needs no iterator state and any process can compute its
own share.
"""

import abc
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import jax
import numpy as np

Batch = dict[str, Any]


class Split(Protocol):
  """Examples 0..len-1, readable in any order."""

  arrays: dict[str, np.ndarray] | None  # everything, where it fits in memory; None when it streams

  def __len__(self) -> int: ...

  def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The examples at `rows` [B] as a dict of arrays with leading axis B."""
    ...


class Arrays:
  """A split that lies in memory."""

  def __init__(self, arrays: dict[str, np.ndarray]):
    self.arrays = arrays

  def __len__(self) -> int:
    return len(next(iter(self.arrays.values())))

  def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in self.arrays.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(abc.ABC):
  """A dataset as a config names it: `data.name` is the module, the fields are its settings.

  Raises (from any method that reads): FileNotFoundError when the data is not here, with the ways to
  get it; ValueError when what is here is not what it should be, naming the file.
  """

  batch_size: Annotated[int, "[1, inf)"] = 128  # examples of one optimizer update, on all devices
  eval_batch_size: Annotated[int, "[1, inf)"] = 500

  @abc.abstractmethod
  def facts(self) -> Mapping[str, Any]:
    """What a model must know of the elements, by the name of the model's field.

    For instance {"data_shape": (28, 28, 1), "classes": 10}. Reads no example, so that a model can
    be described where its data is not.
    """

  @abc.abstractmethod
  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Shape and type of one example as it is stored, by name."""

  @abc.abstractmethod
  def split(self, name: str) -> Split:
    """The split "train", "validation" or "test"; a split may be empty."""

  @abc.abstractmethod
  def transform(self, batch: Batch, keys: jax.Array, *, train: bool) -> Batch:
    """Pure: stored examples to model inputs, per example.

    Args:
      batch: stored arrays, leading axis B.
      keys: [B] PRNG keys, one an example, for augmentation and binarisation.
      train: augmentation only happens while training.
    """

  def conditions(self) -> Mapping[str, str]:
    """Settings without which a measured number says nothing, by name: it is reported with them."""
    return {}

  def tokenizers(self) -> Mapping[str, Any]:
    """The tokenizer of every element that is text, by the element's name."""
    return {}

  def assets(self) -> Mapping[str, str]:
    """Texts that a run keeps beside its checkpoints, by file name: a trained tokenizer."""
    return {}

  def restored(self, folder: pathlib.Path) -> "Source":
    """This source with what `assets` wrote into a folder, instead of what it would make anew."""
    return self

  @abc.abstractmethod
  def fingerprint(self) -> str:
    """SHA-256 (hex) of the examples and of the settings that change what a model sees."""


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, examples: int) -> np.ndarray:
  generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, epoch]))
  return generator.permutation(examples).astype(np.int32)


def rows(seed: int, step: int, *, examples: int, batch_size: int) -> np.ndarray:
  """The examples of step `step`: [batch_size] indices into a split of `examples` examples.

  Every epoch is a fresh permutation; a batch that meets the end of one epoch continues into the
  next, so no example is dropped and each is seen once an epoch.
  """
  positions = np.arange(step * batch_size, (step + 1) * batch_size)
  epochs, offsets = np.divmod(positions, examples)
  return np.concatenate(
    [
      _permutation(seed, int(epoch), examples)[offsets[epochs == epoch]]
      for epoch in np.unique(epochs)
    ]
  )


def batch_rows(split: Split, seed: int, step: int, batch_size: int) -> np.ndarray:
  """[batch_size] the examples of step `step`: of the split's own choosing where it has one.

  A split that keeps examples of like length together, so that little of a batch is padding, has a
  `batch_rows(seed, step, batch_size)`.
  """
  if hasattr(split, "batch_rows"):
    return split.batch_rows(seed, step, batch_size)
  return rows(seed, step, examples=len(split), batch_size=batch_size)


def padded_rows(examples: int, batch_size: int):
  """Yields (rows [batch_size], mask [batch_size]) over a whole split, in order.

  The last batch is padded by repeating row 0 under a zero mask: nothing dropped, nothing twice.
  """
  for start in range(0, examples, batch_size):
    positions = np.arange(start, start + batch_size)
    mask = positions < examples
    yield np.where(mask, positions, 0).astype(np.int32), mask.astype(np.float32)
