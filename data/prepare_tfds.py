"""Prepares MNIST or Fashion-MNIST for TFDS from local IDX files, without TensorFlow.

The built-in builders of those names need TensorFlow to unpack and to encode; this one needs only
tensorflow-datasets, array-record and pillow. The result is a data set named after its origin,
fashion_mnist_local or mnist_local, which any TFDS reader opens and whose name never shadows a
built-in:

  python -m data.prepare_tfds --from=idx:fashion_mnist --directory=DIR
  ... --config.data.name=tfds:fashion_mnist_local --config.data.directory=DIR
"""

import argparse
import sys

import tensorflow_datasets as tfds
from PIL import Image

from data import idx

SOURCES = ("idx:fashion_mnist", "idx:mnist")


class Local(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A labelled image set, read from an `idx.Source`; a subclass gives it its name."""

  VERSION = tfds.core.Version("1.0.0")
  # TFDS constructs builders itself and passes only what it knows, hence no argument of __init__.
  origin: idx.Source
  examples: int  # of each part, 0 for all

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=self.origin.data_shape, encoding_format="png"),
      "label": tfds.features.ClassLabel(names=self.origin.class_names),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"{self.origin.dataset} as read from its IDX files.",
      features=tfds.features.FeaturesDict(features),
      supervised_keys=("image", "label"),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # the files are here already
    return {name: self._generate_examples(name) for name in ("train", "test")}

  def _generate_examples(self, name: str):
    arrays = self.origin.part(name).arrays
    count = min(self.examples or len(arrays["label"]), len(arrays["label"]))
    for row in range(count):
      # A PIL image: TFDS encodes an array with TensorFlow.
      image = Image.fromarray(arrays["image"][row, :, :, 0])
      yield row, {"image": image, "label": int(arrays["label"][row])}


def prepare(origin: idx.Source, *, directory: str, examples: int = 0) -> str:
  """Writes an IDX data set as a TFDS data set of array_record files.

  Args:
    origin: where to read; its validation and example counts do not matter, parts go whole.
    directory: TFDS data directory to write to.
    examples: only the first so many of each part; 0 means all.

  Returns:
    The data set's name for TFDS.

  Raises:
    ValueError: the directory already holds that data set with another number of examples.
  """
  sizes = {part: len(origin.part(part)) for part in ("train", "test")}  # fails before it writes
  name = f"{''.join(word.capitalize() for word in origin.dataset.split('_'))}Local"
  attributes = {"origin": origin, "examples": examples, "__module__": __name__}
  builder_class = type(name, (Local,), attributes, skip_registration=True)
  # array_record: tfrecord needs TensorFlow, and parquet loses rows (tensorflow-datasets 4.9.10).
  builder = builder_class(data_dir=directory, file_format="array_record")
  builder.download_and_prepare()
  for part, size in sizes.items():
    expected = min(examples or size, size)
    found = len(builder.as_data_source(split=part))
    if found != expected:
      raise ValueError(
        f"{builder.data_path}: found {found} {part} examples, expected {expected}; "
        "delete that directory to prepare it anew"
      )
  return builder.name


def main(arguments: list[str]) -> None:
  """The command line of the recipe."""
  parser = argparse.ArgumentParser(
    prog="python -m data.prepare_tfds",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--from", dest="origin", choices=SOURCES, required=True, help="the IDX data set to read"
  )
  parser.add_argument(
    "--idx-directory", default="", help="where its files lie (default: the usual places)"
  )
  parser.add_argument("--directory", required=True, help="TFDS data directory to write to")
  parser.add_argument(
    "--examples", type=int, default=0, help="only the first so many of each split (default: all)"
  )
  options = parser.parse_args(arguments)
  if options.examples < 0:
    parser.error(f"--examples={options.examples}: must be 0 or more")
  dataset = options.origin.removeprefix("idx:")
  origin = idx.Source(dataset=dataset, directory=options.idx_directory)
  try:
    name = prepare(origin, directory=options.directory, examples=options.examples)
  except FileNotFoundError as error:
    sys.exit(f"error: {error} (here: --idx-directory=DIR)")
  except ValueError as error:
    sys.exit(f"error: {error}")
  print(f"use --config.data.name=tfds:{name} --config.data.directory={options.directory}")


if __name__ == "__main__":
  main(sys.argv[1:])
