"""Any image classification set prepared by TensorFlow Datasets, read without TensorFlow.

The set must lie in array_record files, which read in any order. A small one is decoded into memory
once; a large one is decoded as it is asked for.
"""

import dataclasses
import functools
import logging
import math
import pathlib
from typing import Annotated, Any

import numpy as np

from data import images, source

_HASHED_BYTES = 2**28  # sets decoded to more than this are fingerprinted by a sample
_PREPARE = "python -m data.prepare_tfds --from=idx:fashion_mnist --directory=DIR"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(images.ImageSource):
  """A TFDS set with features `image` (Image or Tensor, of one shape) and `label` (ClassLabel).

  Its facts are read from the set's info file. TFDS shuffles a set once while preparing it, so that
  its end is a fair validation sample.

  Attributes:
    dataset: as TFDS names it: "name", "name/config", either with ":version".
    directory: TFDS data directory, or the directory of one version of one set; empty means TFDS's
      own default, $TFDS_DATA_DIR or ~/tensorflow_datasets.
    download: whether to have TFDS download and prepare a set that is not there. Most built-in
      builders need TensorFlow for that.
    memory_limit: bytes; the set lies in memory when decoded it takes no more.
  """

  dataset: str
  directory: str = ""
  download: bool = False
  memory_limit: Annotated[int, "[0, inf)"] = 2**28

  @property
  def data_shape(self) -> tuple[int, int, int]:
    return tuple(self._feature("image").shape)

  @property
  def class_names(self) -> tuple[str, ...]:
    return tuple(self._feature("label").names)

  def part(self, name: str) -> source.Split | None:
    info = self._builder.info
    if name not in info.splits:
      if name == "train":
        raise ValueError(f"{self._builder.data_path}: found splits {[*info.splits]}, no train")
      return None
    stream = _Stream(self._builder, name, shape=self.data_shape, classes=len(self.class_names))
    if self._decoded_bytes() > self.memory_limit:
      return stream
    chunks = [
      stream.take(np.arange(start, min(start + 4096, len(stream))))
      for start in range(0, len(stream), 4096)
    ]
    return source.Arrays({key: np.concatenate([c[key] for c in chunks]) for key in chunks[0]})

  def fingerprint(self) -> str:
    # The same however the set is read: memory_limit must not decide what is hashed.
    if self._decoded_bytes() <= _HASHED_BYTES:
      return super().fingerprint()
    builder = self._builder
    digest = self._settings_digest()
    digest.update(f"{builder.info.full_name}".encode())
    for file in sorted(pathlib.Path(builder.data_path).iterdir()):
      digest.update(f"{file.name} {file.stat().st_size}".encode())
    for name in images.PARTS:
      split = self.split(name)
      digest.update(f"{name} {len(split)}".encode())
      if len(split):
        sample = split.take(np.linspace(0, len(split) - 1, 256).astype(np.int64))
        digest.update(sample["image"].tobytes() + sample["label"].tobytes())
    return digest.hexdigest()

  @property
  def image_dtype(self) -> np.dtype:
    return np.dtype(self._feature("image").np_dtype)

  def _decoded_bytes(self) -> int:
    splits = self._builder.info.splits
    examples = sum(splits[name].num_examples for name in images.PARTS if name in splits)
    return examples * math.prod(self.data_shape) * self.image_dtype.itemsize

  def _feature(self, name: str) -> Any:
    features = self._builder.info.features
    path = self._builder.data_path
    if name not in features:
      raise ValueError(f"{path}: found features {sorted(features)}, expected image and label")
    feature = features[name]
    if name == "label" and not getattr(feature, "num_classes", None):
      raise ValueError(f"{path}: found a label of {feature}, expected a ClassLabel")
    if name == "image" and (len(feature.shape) != 3 or None in feature.shape):
      raise ValueError(f"{path}: found images of shape {feature.shape}, expected one [H, W, C]")
    return feature

  @functools.cached_property
  def _builder(self) -> Any:
    return open_builder(self.dataset, self.directory, download=self.download)


def open_builder(dataset: str, directory: str, *, download: bool) -> Any:
  """The TFDS builder of a prepared set.

  Raises:
    FileNotFoundError: it is not prepared there.
    ValueError: what is there is not that set.
  """
  tfds = _import_tfds()
  directory = str(pathlib.Path(directory).expanduser()) if directory else None
  name, place = f"tfds:{dataset}", directory or tfds.core.constants.DATA_DIR
  if directory and (pathlib.Path(directory) / "dataset_info.json").is_file():
    with source.naming(directory):
      builder = tfds.builder_from_directory(directory)
    if builder.name != dataset.split("/")[0].split(":")[0]:
      raise ValueError(f"{directory}: found {builder.name!r}, expected {dataset!r}")
    return builder
  try:
    # From the files alone: a builder's own code may need TensorFlow, or be of another version.
    return tfds.core.read_only_builder.builder_from_files(dataset, data_dir=directory)
  except tfds.core.DatasetNotFoundError:
    if download:
      return _download(tfds, dataset, directory)
  except Exception as error:  # a misspelt name, or an unsound info file
    raise ValueError(f"{name} in {place}: {source.first_line(error)}") from error
  raise FileNotFoundError(
    f"{name} is not prepared in {place}: pass the directory that has it as "
    f"--config.data.directory=DIR, or --config.data.download=True, or prepare one "
    f"from local files with `{_PREPARE}`"
  )


def open_split(builder: Any, name: str) -> Any:
  """The examples of one split of a prepared set, to be read in any order.

  Raises:
    ValueError: they are not in array_record files, or not as many as the set says.
  """
  file = f"{builder.data_path} ({name})"
  formats = {file_format.value for file_format in builder.info.available_file_formats()}
  if "array_record" not in formats:
    raise ValueError(f"{file}: found {sorted(formats)} files, expected array_record")
  from array_record.python import array_record_module

  split = builder.info.splits[name]
  if not split.num_examples:
    raise ValueError(f"{file}: found 0 examples, expected at least 1")
  with source.naming(file):
    data = builder.as_data_source(split=name, file_format="array_record")
    # The length of a data source is what the info says; only the files know what is there.
    found = sum(
      array_record_module.ArrayRecordReader(str(part)).num_records() for part in split.filepaths
    )
  if not found == len(data) == split.num_examples:
    raise ValueError(
      f"{file}: found {found} examples in {len(split.filepaths)} files, "
      f"expected {split.num_examples}"
    )
  return data


def texts(builder: Any, name: str, feature: str) -> list[str]:
  """One text feature of all examples of a split, in the order of the files.

  Raises:
    ValueError: there is no such feature, or it is no UTF-8.
  """
  found = builder.info.features
  if feature not in found or found[feature].np_dtype not in (str, object, bytes):
    raise ValueError(f"{builder.data_path}: found features {sorted(found)}, no text {feature!r}")
  data = open_split(builder, name)
  with source.naming(f"{builder.data_path} ({name})"):
    return [bytes(example[feature]).decode("utf-8") for example in data]


class _Stream:
  """One TFDS split, decoded as it is asked for."""

  arrays = None

  def __init__(self, builder: Any, name: str, *, shape: tuple[int, ...], classes: int):
    self._file = f"{builder.data_path} ({name})"
    self._shape = shape
    self._classes = classes
    self._data = open_split(builder, name)

  def __len__(self) -> int:
    return len(self._data)

  def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    with source.naming(self._file):
      examples = self._data.__getitems__([int(row) for row in rows])
      arrays = {
        "image": np.stack([example["image"] for example in examples]),
        "label": np.array([example["label"] for example in examples], np.int32),
      }
    images.check(arrays, file=self._file, shape=self._shape, classes=self._classes)
    return arrays


@functools.cache
def _import_tfds() -> Any:
  """tensorflow_datasets, imported only once a set is asked for: it takes half a second."""
  try:
    # TFDS finds out that it lacks one of the first two only when it reads.
    import array_record.python.array_record_module  # noqa: F401
    import PIL.Image  # noqa: F401
    import tensorflow_datasets
  except ImportError as error:
    raise FileNotFoundError(
      f"data.name=tfds needs a package that is not installed ({error}): "
      "`pip install tensorflow-datasets array-record pillow importlib_resources`"
    ) from error
  # TFDS recommends OpenCV through absl's logger; the bytes it decodes to are the same.
  logging.getLogger("absl").addFilter(
    lambda record: "OpenCV is not installed" not in record.getMessage()
  )
  return tensorflow_datasets


def _download(tfds: Any, dataset: str, directory: str | None) -> Any:
  try:
    builder = tfds.builder(dataset, data_dir=directory, file_format="array_record")
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
  except Exception as error:  # a builder is anyone's code, and may fail in any way
    raise FileNotFoundError(
      f"tfds:{dataset} could not be downloaded and prepared ({source.first_line(error)}): "
      "prepare it elsewhere as array_record and pass --config.data.directory=DIR, "
      f"or use `{_PREPARE}`"
    ) from error
  return builder
