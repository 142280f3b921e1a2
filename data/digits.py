"""Handwritten digits of 8x8 pixels: 1,797 of them, packaged with scikit-learn.

Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", the test set of the UCI
data set of that name; pixels are counts 0..16, stored here as count / 16. The set has no split of
its own: a permutation of seed 0 gives the first 1,347 to training and the last 450 to testing.
"""

import dataclasses
import functools
import importlib.util
import pathlib
from typing import Annotated

import numpy as np

from data import images, source

_EXAMPLES = 1797
_TRAIN = 1347
_MOST_BYTES = 2**20  # of the file; it has 264,712
_SHA256 = "e10b10289c0d9d8a1b3e6b7dfe998949029a89056e0e06dfb989924a36d75a3c"  # of the table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(images.ImageSource):
  """scikit-learn's digits: float32 [N, 8, 8, 1] in [0, 1], 10 classes."""

  validation: Annotated[int, "[0, inf)"] = 147

  @property
  def data_shape(self) -> tuple[int, int, int]:
    return (8, 8, 1)

  @property
  def image_dtype(self) -> np.dtype:
    return np.dtype(np.float32)

  @property
  def levels(self) -> int:
    return 17

  @property
  def class_names(self) -> tuple[str, ...]:
    return tuple("0123456789")

  def part(self, name: str) -> source.Split | None:
    if name == "validation":
      return None
    image, label = _load()
    order = np.random.RandomState(0).permutation(_EXAMPLES)
    chosen = order[:_TRAIN] if name == "train" else order[_TRAIN:]
    return source.Arrays({"image": image[chosen], "label": label[chosen]})


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
  """All examples in the packaged order: image [1797, 8, 8, 1] and label [1797]."""
  spec = importlib.util.find_spec("sklearn")
  if spec is None or not spec.submodule_search_locations:
    raise FileNotFoundError("digits are packaged with scikit-learn: `pip install scikit-learn`")
  file = pathlib.Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
  if file.exists():
    # Importing scikit-learn takes a second, reading its file 20 ms.
    with source.naming(file, "not a gzipped table of integers"):
      lines = source.read_at_most(file, _MOST_BYTES).decode("ascii").splitlines()
      table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
  else:
    from sklearn import datasets  # the file has moved, the function has not

    counts, target = datasets.load_digits(return_X_y=True)
    file = pathlib.Path("sklearn.datasets.load_digits")
    table = np.concatenate([counts, target[:, None]], axis=1)
  if table.shape != (_EXAMPLES, 65):
    raise ValueError(f"{file}: found a table of shape {table.shape}, expected ({_EXAMPLES}, 65)")
  source.pinned(file, table.astype(np.int64), _SHA256)
  image = (table[:, :64].reshape(-1, 8, 8, 1) / 16).astype(np.float32)
  label = table[:, 64].astype(np.int32)
  arrays = {"image": image, "label": label}
  images.check(arrays, file=str(file), shape=(8, 8, 1), classes=10, examples=_EXAMPLES)
  return image, label
