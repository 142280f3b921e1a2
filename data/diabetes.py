"""Disease progression of 442 diabetes patients, packaged with scikit-learn: a regression.

Efron, Hastie, Johnstone & Tibshirani 2004, "Least angle regression", Annals of Statistics
32:407-499. Ten measurements (age, sex, body mass index, blood pressure, six of blood serum) predict
a measure of progression a year later. The set has no split of its own: a permutation of seed 0
gives the first 342 patients to training and the last 100 to testing.

Every measurement is scaled to [0, 1] by its range, and the target to mean 0 and variance 1, over
the training part, validation included; a test patient beyond the range is clipped to it.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import numpy as np

from data import source

_EXAMPLES, _TRAIN, _MEASUREMENTS = 442, 342, 10
_MOST_BYTES = 2**20  # of a file; the larger has 20 thousand
# SHA-256 of each table's values, so that damage is told from data.
_FEATURES = "diabetes_data_raw.csv.gz"
_TARGET = "diabetes_target.csv.gz"
_SHA256 = {
  _FEATURES: "6b93b2556c8942c79d8374838768047adf9d1f4044510b9f948ddace62567d75",
  _TARGET: "4911e8747aff95aa1cd523fea86dd91cfd1cd14c1a8ead274f1913b14fa853c4",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`features` float32 [10] in [0, 1] and `target` float32 [1].

  Attributes:
    validation: patients held out off the end of the training part.
  """

  validation: Annotated[int, "[0, 341]"] = 42

  def facts(self) -> Mapping[str, Any]:
    return {"data_shape": (_MEASUREMENTS,), "targets": 1}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return {
      "features": jax.ShapeDtypeStruct((_MEASUREMENTS,), np.float32),
      "target": jax.ShapeDtypeStruct((1,), np.float32),
    }

  def split(self, name: str) -> source.Split:
    features, target = _load()
    middle = _TRAIN - self.validation
    rows = {
      "train": slice(0, middle),
      "validation": slice(middle, _TRAIN),
      "test": slice(_TRAIN, _EXAMPLES),
    }[name]
    return source.Arrays({"features": features[rows], "target": target[rows]})

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    return batch

  def fingerprint(self) -> str:
    digest = hashlib.sha256()
    for array in _load():
      digest.update(array.tobytes())
    return digest.hexdigest()


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
  """All patients in the order of the split, scaled: features [442, 10] and target [442, 1]."""
  spec = importlib.util.find_spec("sklearn")
  if spec is None or not spec.submodule_search_locations:
    raise FileNotFoundError(
      "the diabetes set is packaged with scikit-learn: `pip install scikit-learn`"
    )
  # Importing scikit-learn takes a second, reading its files a few milliseconds.
  place = pathlib.Path(spec.submodule_search_locations[0], "datasets", "data")
  order = np.random.RandomState(0).permutation(_EXAMPLES)
  tables = {
    _FEATURES: _table(place / _FEATURES, _MEASUREMENTS),
    _TARGET: _table(place / _TARGET, 1),
  }
  for name, table in tables.items():
    source.pinned(place / name, table, _SHA256[name])
  features, target = (table[order] for table in tables.values())
  train = features[:_TRAIN]
  low, high = train.min(0), train.max(0)
  features = np.clip((features - low) / (high - low), 0, 1)
  target = (target - target[:_TRAIN].mean()) / target[:_TRAIN].std()
  return features.astype(np.float32), target.astype(np.float32)


def _table(file: pathlib.Path, columns: int) -> np.ndarray:
  if not file.exists():
    raise FileNotFoundError(f"no {file}: `pip install -U scikit-learn`, 1.1 or newer")
  with source.naming(file, "not a gzipped table of numbers"):
    lines = source.read_at_most(file, _MOST_BYTES).decode("ascii").splitlines()
    table = np.loadtxt(lines, dtype=np.float64, ndmin=2)
  if table.shape != (_EXAMPLES, columns):
    raise ValueError(
      f"{file}: found a table of shape {table.shape}, expected ({_EXAMPLES}, {columns})"
    )
  return table
