"""MNIST and Fashion-MNIST from their IDX files, gzipped or not.

LeCun et al. (1998), "Gradient-Based Learning Applied to Document Recognition"; Xiao et al. (2017),
"Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms". An IDX file is
a big-endian header (two zero bytes, the type, the number of axes, each axis as 32 bits) and then
the values, the last axis fastest.
"""

import dataclasses
import functools
import math
import os
import pathlib
import struct
from typing import Annotated, Literal

import numpy as np

from data import images, source

_FILES = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08
_MOST_BYTES = 2**30  # of a file; the largest of the published ones has 47 million
_CLASS_NAMES = {
  "mnist": tuple("0123456789"),
  "fashion_mnist": (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
  ),
}
_DEBIAN = {"fashion_mnist": "/usr/share/datasets/fashion-mnist"}
# SHA-256 of the values as they are packaged, so that damage is told from data.
_PACKAGED = {
  "train-images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
  "train-labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
  "t10k-images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
  "t10k-labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
_WAYS = {
  "mnist": "put the four IDX files in a directory and pass --config.data.directory=DIR, "
  "or use --config.data.name=tfds:mnist",
  "fashion_mnist": "`apt-get install dataset-fashion-mnist`, or put the four IDX files of "
  "github.com/zalandoresearch/fashion-mnist in a directory and pass --config.data.directory=DIR",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(images.ImageSource):
  """uint8 [N, 28, 28, 1], 10 classes; 60,000 to train and 10,000 to test.

  Attributes:
    dataset: which of the two; both use the same file names.
    directory: where the four files lie. Empty means the first of these that holds any of them:
      $FUKUGEN_DATA/<dataset>, ~/.cache/fukugen/data/<dataset>, and where Debian's package
      dataset-fashion-mnist puts them.
  """

  dataset: Literal["mnist", "fashion_mnist"]
  directory: str = ""
  validation: Annotated[int, "[0, inf)"] = 5000

  @property
  def data_shape(self) -> tuple[int, int, int]:
    return (28, 28, 1)

  @property
  def class_names(self) -> tuple[str, ...]:
    return _CLASS_NAMES[self.dataset]

  def part(self, name: str) -> source.Split | None:
    if name == "validation":
      return None
    place = self._place()
    image_file = self._file(place, _FILES[name], "images", 3)
    label_file = self._file(place, _FILES[name], "labels", 1)
    image, label = read(image_file, axes=3), read(label_file, axes=1)
    if self.dataset in _DEBIAN and place == pathlib.Path(_DEBIAN[self.dataset]):
      source.pinned(image_file, image, _PACKAGED[f"{_FILES[name]}-images"])
      source.pinned(label_file, label, _PACKAGED[f"{_FILES[name]}-labels"])
    arrays = {"image": image[..., None], "label": label.astype(np.int32)}
    if len(arrays["image"]) != len(arrays["label"]):
      raise ValueError(
        f"{label_file}: found {len(arrays['label'])} labels, "
        f"expected {len(arrays['image'])}, one for each image of {image_file.name}"
      )
    images.check(
      arrays,
      file=f"{image_file} and {label_file.name}",
      shape=self.data_shape,
      classes=len(self.class_names),
    )
    return source.Arrays(arrays)

  def _places(self) -> list[pathlib.Path]:
    if self.directory:
      # Only there: to read other files than those named would be worse than to fail.
      return [pathlib.Path(self.directory).expanduser()]
    places = [pathlib.Path.home() / ".cache" / "fukugen" / "data" / self.dataset]
    if os.environ.get("FUKUGEN_DATA"):
      places.insert(0, pathlib.Path(os.environ["FUKUGEN_DATA"], self.dataset))
    if self.dataset in _DEBIAN:
      places.append(pathlib.Path(_DEBIAN[self.dataset]))
    return places

  def _place(self) -> pathlib.Path:
    # All four files from one place, so that the parts of two copies never mix.
    names = [
      name
      for part in _FILES.values()
      for name in (*_names(part, "images", 3), *_names(part, "labels", 1))
    ]
    for place in self._places():
      if any((place / name).is_file() for name in names):
        return place
    looked = ", ".join(map(str, self._places()))
    raise FileNotFoundError(f"no {self.dataset} in {looked}: {_WAYS[self.dataset]}")

  def _file(self, place: pathlib.Path, part: str, kind: str, axes: int) -> pathlib.Path:
    names = _names(part, kind, axes)
    for name in names:
      if (place / name).is_file():
        return place / name
    raise FileNotFoundError(f"{place} lacks {names[0]} (or with a dot, or .gz): it needs all four")


@functools.cache
def _names(part: str, kind: str, axes: int) -> tuple[str, ...]:
  # The dash is the original's, the dot what some archives unpack to.
  stems = (f"{part}-{kind}-idx{axes}-ubyte", f"{part}-{kind}.idx{axes}-ubyte")
  return (*stems, *(f"{stem}.gz" for stem in stems))


def read(file: pathlib.Path, *, axes: int) -> np.ndarray:
  """The array of unsigned bytes in an IDX file, gzipped where its name ends in .gz.

  Raises:
    ValueError: the file is not that, or is cut short, or goes on after its end.
  """
  length = 4 + 4 * axes
  with source.opened(file) as stream:
    header = stream.read(length)
    if len(header) < length:
      raise ValueError(f"{file}: found {len(header)} bytes, expected a header of {length}")
    magic = bytes([0, 0, _UNSIGNED_BYTE, axes])
    if header[:4] != magic:
      raise ValueError(f"{file}: found magic number 0x{header[:4].hex()}, expected 0x{magic.hex()}")
    shape = struct.unpack(f">{axes}I", header[4:])
    expected = length + math.prod(shape)
    if expected > _MOST_BYTES:
      raise ValueError(f"{file}: its header says {expected} bytes, expected at most {_MOST_BYTES}")
    values = stream.read(expected - length + 1)  # one more: whether it goes on
  found = length + len(values)
  if found != expected:
    raise ValueError(
      f"{file}: found {found} bytes, expected {expected} for an array of shape {shape}"
      f"{', and it goes on' if found > expected else ''}"
    )
  return np.frombuffer(values, np.uint8).reshape(shape)
