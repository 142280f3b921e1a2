"""What every dataset offers: splits by row, facts about its elements, a pure transform.

A batch is a pure function of (seed, step): `rows` names the examples, `Split.take` reads them,
`Source.transform` (pure JAX, inside the compiled step) turns stored bytes into what a model sees.
Nothing has an iterator, so a resumed run needs no iterator state and any process can compute its
own share.
"""

import abc
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Annotated, Any, Protocol

import jax
import numpy as np

Batch = dict[str, Any]
SPLITS = ("train", "validation", "test")


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


class NoSuchName(ValueError):
  """A setting that names nothing.

  Attributes:
    setting: whose value it is.
    value: that it has.
    known: what it may name.
    others: what else it may be, in words.
  """

  def __init__(self, setting: str, value: str, known: Iterable[str], others: str = ""):
    self.setting, self.value, self.known, self.others = setting, value, tuple(known), others
    super().__init__(f"{setting}={value!r}: choose among {', '.join(self.known)}{others}")


@contextlib.contextmanager
def naming(file: str | pathlib.Path, what: str = "unsound") -> Iterator[None]:
  """Whatever is raised on a file's unsound bytes is a ValueError of one line that names the file.

  A library has errors of its own for what it cannot read, few of which say where they were.

  Args:
    file: that is being read.
    what: is wrong with it then.
  """
  try:
    yield
  except Exception as error:
    if isinstance(error, ValueError | OSError) and str(file) in str(error):
      raise
    raise ValueError(f"{file}: {what}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
  """The type of an error and the first line of what it says."""
  return f"{type(error).__name__}: {error}".splitlines()[0][:200]


@contextlib.contextmanager
def opened(file: pathlib.Path) -> Iterator[IO[bytes]]:
  """A file's bytes, unpacked as they are read where its name ends in .gz.

  Whoever reads says how many, so that a small file that unpacks to a huge one takes no memory.

  Raises:
    ValueError: it is cut or damaged, as far as it was read.
  """
  with naming(file), (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
    try:
      yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
      raise ValueError(f"{file}: gzip data is corrupt: {error}") from error


def read_at_most(file: pathlib.Path, most: int) -> bytes:
  """All bytes of a file, unpacked where its name ends in .gz.

  Raises:
    ValueError: it is damaged, or has more of them.
  """
  with opened(file) as stream:
    raw = stream.read(most + 1)
  if len(raw) > most:
    raise ValueError(f"{file}: holds more than {most} bytes, so it is another file")
  return raw


def pinned(file: str | pathlib.Path, values: bytes | np.ndarray, sha256: str):
  """Raises ValueError, with both hashes, unless a published set's values are the published ones."""
  found = hashlib.sha256(np.ascontiguousarray(values)).hexdigest()
  if found != sha256:
    raise ValueError(f"{file}: damaged, or another version: SHA-256 {found}, expected {sha256}")


def sizes(source: Source) -> dict[str, int]:
  """Reads every split and says how many examples it has.

  Raises:
    ValueError: a split in memory is not what `spec` and `facts` say: another shape or type, a value
      that is not finite, a token that the vocabulary does not have, a label that is no class.
  """
  found = {}
  for name in SPLITS:
    split = source.split(name)
    found[name] = len(split)
    if split.arrays is not None:
      _check(source, name, split.arrays)
  return found


def _check(source: Source, name: str, arrays: Mapping[str, np.ndarray]):
  facts, texts = source.facts(), source.tokenizers()
  for key, leaf in source.spec().items():
    where, array = f"{type(source).__module__}: {key} of the {name} split", arrays[key]
    if array.dtype != leaf.dtype or array.shape != (len(array), *leaf.shape):
      raise ValueError(f"{where} is {array.dtype}{array.shape}, expected {leaf.dtype}{leaf.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
      raise ValueError(f"{where} has values that are not finite")
    if array.dtype.kind != "i" or not array.size:
      continue
    bounds = {"label": ("classes", 0), "labels": ("classes", -1)}  # -1 is a token of no class
    if key in texts:
      bounds[key] = (f"{key}_vocabulary" if f"{key}_vocabulary" in facts else "vocabulary", -1)
    fact, least = bounds[key] if key in bounds else ("", 0)
    low, high = int(array.min()), int(array.max())
    if fact in facts and not (least <= low and high < facts[fact]):
      raise ValueError(f"{where} has values {low}..{high}, but {fact} is {facts[fact]}")


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
