"""The data room: what is read is what was written, once an epoch, the same on every run."""

import gzip
import importlib.util
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data import digits, idx, images, source, streaming

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")
SIZES = {"train": 40, "t10k": 12}

needs_tfds = pytest.mark.skipif(
  any(importlib.util.find_spec(name) is None for name in ("tensorflow_datasets", "array_record")),
  reason="needs `pip install tensorflow-datasets array-record pillow importlib_resources`",
)


def idx_bytes(array):
  header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
  return header + array.tobytes()


def idx_arrays(part):
  generator = np.random.default_rng(list(SIZES).index(part))
  size = SIZES[part]
  image = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
  return image, generator.integers(0, 10, size, dtype=np.uint8)


def write_idx(directory, *, separator="-", zipped=False):
  directory.mkdir(parents=True, exist_ok=True)
  for part in SIZES:
    for kind, array in zip(("images", "labels"), idx_arrays(part), strict=True):
      name = f"{part}-{kind}{separator}idx{array.ndim}-ubyte"
      raw = idx_bytes(array)
      if zipped:
        (directory / f"{name}.gz").write_bytes(gzip.compress(raw))
      else:
        (directory / name).write_bytes(raw)
  return directory


def per_example(arrays):
  """The examples as a sorted list of bytes: a multiset that no order and no padding can hide in."""
  return sorted(
    image.tobytes() + bytes([label])
    for image, label in zip(arrays["image"], arrays["label"], strict=True)
  )


def whole(split):
  return split.take(np.arange(len(split)))


def example_keys(seed, size):
  return jax.random.split(jax.random.key(seed), size)


# Digits.


def test_digits_are_scikit_learns():
  from sklearn import datasets

  counts, target = datasets.load_digits(return_X_y=True)
  order = np.random.RandomState(0).permutation(1797)
  loaded = [whole(digits.Source().split(name)) for name in ("train", "validation", "test")]
  image = np.concatenate([part["image"] for part in loaded])
  label = np.concatenate([part["label"] for part in loaded])
  assert image.dtype == np.float32
  assert label.dtype == np.int32
  np.testing.assert_array_equal(image.reshape(1797, 64) * 16, counts[order])
  np.testing.assert_array_equal(label, target[order])


def test_digits_are_read_without_importing_scikit_learn():
  code = (
    "import sys; from data import digits; digits.Source().split('train'); "
    "sys.exit('sklearn' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_digits_without_the_packaged_file(monkeypatch, tmp_path):
  expected = digits._load()
  spec = importlib.util.spec_from_loader("sklearn", None, is_package=True)
  spec.submodule_search_locations.append(str(tmp_path))
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
  for array, reference in zip(digits._load.__wrapped__(), expected, strict=True):
    np.testing.assert_array_equal(array, reference)


@pytest.mark.parametrize(
  "content", [b"not gzip", gzip.compress(b"1,2,3\n", mtime=0), gzip.compress(b"a\n", mtime=0)]
)
def test_digits_corrupt_file_is_named(monkeypatch, tmp_path, content):
  file = tmp_path / "datasets" / "data" / "digits.csv.gz"
  file.parent.mkdir(parents=True)
  file.write_bytes(content)
  spec = importlib.util.spec_from_loader("sklearn", None, is_package=True)
  spec.submodule_search_locations.append(str(tmp_path))
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
  with pytest.raises(ValueError, match=re.escape(str(file))):
    digits._load.__wrapped__()


# Splits.


@pytest.mark.parametrize(
  ("settings", "sizes"),
  [
    ({}, (1200, 147, 450)),
    ({"validation": 0}, (1347, 0, 450)),
    ({"validation": 1346}, (1, 1346, 450)),
    ({"train_examples": 100, "test_examples": 7}, (100, 147, 7)),
  ],
)
def test_split_sizes_and_disjointness(settings, sizes):
  splits = [digits.Source(**settings).split(name) for name in ("train", "validation", "test")]
  assert tuple(map(len, splits)) == sizes
  reference = {name: whole(digits.Source(validation=0).split(name)) for name in ("train", "test")}
  # Where each split lies in its part decides disjointness: no two digits need be distinct images.
  places = [(0, "train"), (1347 - sizes[1], "train"), (0, "test")]
  for split, (start, part) in zip(splits, places, strict=True):
    for key, array in whole(split).items():
      np.testing.assert_array_equal(array, reference[part][key][start : start + len(split)])
  assert sizes[0] <= 1347 - sizes[1]


@pytest.mark.parametrize(
  ("settings", "split", "numbers"),
  [
    ({"validation": 1347}, "train", ("1347",)),
    ({"validation": 2000}, "validation", ("2000", "1347")),
    ({"train_examples": 1201}, "train", ("1201", "1200")),
    ({"test_examples": 451}, "test", ("451", "450")),
  ],
)
def test_too_many_examples_asked_for(settings, split, numbers):
  with pytest.raises(ValueError, match="data\\.") as error:
    digits.Source(**settings).split(split)
  assert all(number in str(error.value) for number in numbers)


def test_unknown_split():
  with pytest.raises(ValueError, match="'eval'"):
    digits.Source().split("eval")


def test_a_split_is_read_once():
  dataset = digits.Source()
  assert dataset.split("train") is dataset.split("train")


# The order of examples.


@pytest.mark.parametrize(("examples", "batch_size"), [(10, 4), (7, 7), (3, 8), (12, 1)])
def test_rows_see_every_example_once_an_epoch(examples, batch_size):
  steps = 3 * examples  # so a whole number of epochs, most met in the middle of a batch
  stream = np.concatenate(
    [source.rows(5, step, examples=examples, batch_size=batch_size) for step in range(steps)]
  )
  epochs = stream.reshape(-1, examples)
  np.testing.assert_array_equal(
    np.sort(epochs, axis=1), np.tile(np.arange(examples), (len(epochs), 1))
  )
  if examples > 3:
    assert len({epoch.tobytes() for epoch in epochs}) > 1


def test_rows_are_a_pure_function_of_seed_and_step():
  settings = {"examples": 1000, "batch_size": 64}
  forward = [source.rows(0, step, **settings) for step in range(40)]
  source._permutation.cache_clear()
  for step in reversed(range(40)):
    np.testing.assert_array_equal(source.rows(0, step, **settings), forward[step])
  assert not np.array_equal(source.rows(1, 0, **settings), forward[0])


@pytest.mark.parametrize(("examples", "batch_size"), [(10, 4), (8, 4), (3, 8), (0, 4)])
def test_padded_rows_cover_each_example_exactly_once(examples, batch_size):
  batches = list(source.padded_rows(examples, batch_size))
  assert all(rows.shape == mask.shape == (batch_size,) for rows, mask in batches)
  seen = [row for rows, mask in batches for row in rows[mask == 1]]
  assert seen == list(range(examples))
  assert all(rows.min() >= 0 and rows.max() < max(examples, 1) for rows, _ in batches)


# The transform.


def transformed(dataset, batch, keys, *, train):
  return jax.jit(lambda batch, keys: dataset.transform(batch, keys, train=train))(batch, keys)


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_transform_scales_bytes_and_passes_the_rest_through(train, typed):
  image = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
  batch = {"image": image, "label": np.arange(4, dtype=np.int32), "mask": np.ones(4, np.float32)}
  make_key = jax.random.key if typed else jax.random.PRNGKey
  keys = jax.random.split(make_key(0), 4)
  result = transformed(digits.Source(), batch, keys, train=train)
  assert result["image"].dtype == jnp.float32
  # XLA may multiply by the reciprocal: one unit in the last place, but black and white stay exact.
  np.testing.assert_allclose(result["image"], image / np.float32(255), rtol=1.2e-7)
  assert result["image"].min() == 0
  assert result["image"].max() == 1
  for name in ("label", "mask"):
    np.testing.assert_array_equal(result[name], batch[name])
  everything = digits.Source(crop_padding=2, flip=True, binarize="dynamic")
  assert transformed(everything, batch, keys, train=train)["image"].shape == image.shape


def test_transform_is_per_example():
  dataset = digits.Source(crop_padding=2, flip=True, binarize="dynamic")
  batch, keys = dataset.split("train").take(np.arange(6)), example_keys(0, 6)
  together = transformed(dataset, batch, keys, train=True)["image"]
  last = {name: array[4:] for name, array in batch.items()}
  np.testing.assert_array_equal(
    together[4:], transformed(dataset, last, keys[4:], train=True)["image"]
  )


def test_crop_is_a_shift_with_zeros_in_training_only():
  dataset = digits.Source(crop_padding=2)
  batch = dataset.split("train").take(np.zeros(200, np.int32))
  image = batch["image"][0, :, :, 0]
  padded = np.pad(image, 2)
  windows = {padded[i : i + 8, j : j + 8].tobytes() for i in range(5) for j in range(5)}
  keys = example_keys(0, 200)
  seen = {x.tobytes() for x in np.asarray(transformed(dataset, batch, keys, train=True)["image"])}
  assert seen <= windows
  assert len(seen) > 20  # 25 places, 200 draws
  kept = transformed(dataset, batch, keys, train=False)["image"]
  np.testing.assert_array_equal(kept, batch["image"])


def test_flip_mirrors_half_of_the_images_in_training_only():
  dataset = digits.Source(flip=True)
  batch = dataset.split("train").take(np.zeros(200, np.int32))
  keys = example_keys(0, 200)
  result = np.asarray(transformed(dataset, batch, keys, train=True)["image"])
  flipped = np.array([np.array_equal(x, batch["image"][0][:, ::-1]) for x in result])
  kept = np.array([np.array_equal(x, batch["image"][0]) for x in result])
  assert np.all(flipped ^ kept)
  assert 70 < flipped.sum() < 130  # 100 expected, standard deviation 7
  unchanged = transformed(dataset, batch, keys, train=False)["image"]
  np.testing.assert_array_equal(unchanged, batch["image"])


def test_dynamic_binarisation_draws_anew_for_each_key():
  dataset = digits.Source(binarize="dynamic")
  batch = whole(dataset.split("train"))
  first, second = (
    np.asarray(transformed(dataset, batch, example_keys(seed, 1200), train=True)["image"])
    for seed in (0, 1)
  )
  assert set(np.unique(first)) == {0.0, 1.0}
  assert np.any(first != second)
  np.testing.assert_array_equal(first[batch["image"] == 1], 1)
  np.testing.assert_array_equal(first[batch["image"] == 0], 0)
  # 76,800 pixels of variance at most 1/4: standard error below 0.0019.
  assert abs(first.mean() - batch["image"].mean()) < 0.006
  half = batch["image"] == 0.5
  assert abs(first[half].mean() - 0.5) < 5 * 0.5 / np.sqrt(half.sum())
  # With the caller's keys fixed, as in evaluation, it is one fixed draw.
  evaluated = [
    np.asarray(transformed(dataset, batch, example_keys(0, 1200), train=False)["image"])
    for _ in range(2)
  ]
  np.testing.assert_array_equal(*evaluated)
  assert set(np.unique(evaluated)) == {0.0, 1.0}


def test_fixed_binarisation_never_changes():
  dataset = digits.Source(binarize="fixed")
  plain = whole(digits.Source().split("train"))
  batch = whole(dataset.split("train"))
  assert set(np.unique(batch["image"])) == {0.0, 1.0}
  assert abs(batch["image"].mean() - plain["image"].mean()) < 0.006
  np.testing.assert_array_equal(batch["label"], plain["label"])
  for seed, train in ((0, True), (1, True), (2, False)):
    seen = transformed(dataset, batch, example_keys(seed, 1200), train=train)["image"]
    np.testing.assert_array_equal(seen, batch["image"])
  # A row's draw depends neither on how the part is divided nor on what else is read.
  other = digits.Source(binarize="fixed", validation=0, train_examples=300).split("train")
  np.testing.assert_array_equal(whole(other)["image"], batch["image"][:300])
  held_out = whole(dataset.split("validation"))["image"]
  everything = whole(digits.Source(binarize="fixed", validation=0).split("train"))["image"]
  np.testing.assert_array_equal(held_out, everything[1200:])


def test_fixed_draws_differ_between_examples_and_parts():
  grey = np.full((2, 28, 28, 1), 128, np.uint8)
  train, test = (images.binarized(grey, part=part, rows=np.arange(2)) for part in ("train", "test"))
  assert set(np.unique(train)) == {0, 255}
  assert 0.4 < np.mean(train[0] != train[1]) < 0.6
  assert 0.4 < np.mean(train[0] != test[0]) < 0.6


# Facts and fingerprints.


def test_facts_read_no_file(tmp_path):
  empty = idx.Source(dataset="mnist", directory=str(tmp_path))
  assert empty.facts() == {"data_shape": (28, 28, 1), "classes": 10, "levels": 256}
  assert digits.Source().facts() == {"data_shape": (8, 8, 1), "classes": 10, "levels": 17}
  assert digits.Source(binarize="fixed").facts()["levels"] == 2
  assert idx.Source(dataset="fashion_mnist").class_names[9] == "Ankle boot"


def test_fingerprint_is_of_what_a_model_sees(tmp_path):
  reference = digits.Source().fingerprint()
  assert re.fullmatch("[0-9a-f]{64}", reference)
  assert digits.Source(batch_size=7, eval_batch_size=9).fingerprint() == reference
  changed = [
    {"validation": 146},
    {"train_examples": 1199},
    {"test_examples": 449},
    {"binarize": "fixed"},
    {"binarize": "dynamic"},
    {"crop_padding": 1},
    {"flip": True},
  ]
  prints = {digits.Source(**settings).fingerprint() for settings in changed}
  assert len(prints - {reference}) == len(changed)

  def fingerprint(directory):
    return idx.Source(dataset="mnist", directory=str(directory), validation=5).fingerprint()

  plain, zipped = write_idx(tmp_path / "a"), write_idx(tmp_path / "b", zipped=True)
  before = fingerprint(plain)
  assert before == fingerprint(zipped)
  file = plain / "t10k-images-idx3-ubyte"
  raw = bytearray(file.read_bytes())
  raw[-1] ^= 1
  file.write_bytes(raw)
  assert fingerprint(plain) != before


# IDX.


@pytest.mark.parametrize("separator", ["-", "."])
@pytest.mark.parametrize("zipped", [True, False])
def test_idx_round_trip(tmp_path, separator, zipped):
  write_idx(tmp_path, separator=separator, zipped=zipped)
  dataset = idx.Source(dataset="mnist", directory=str(tmp_path), validation=8)
  parts = {
    "train": [("train", 0, 32)],
    "validation": [("train", 32, 40)],
    "test": [("t10k", 0, 12)],
  }
  for name, [(part, start, stop)] in parts.items():
    arrays = whole(dataset.split(name))
    image, label = idx_arrays(part)
    np.testing.assert_array_equal(arrays["image"], image[start:stop, ..., None])
    np.testing.assert_array_equal(arrays["label"], label[start:stop])
    assert arrays["image"].dtype == np.uint8
    assert arrays["label"].dtype == np.int32


def test_idx_is_found_in_the_environments_directory(tmp_path, monkeypatch):
  write_idx(tmp_path / "mnist")
  monkeypatch.setenv("FUKUGEN_DATA", str(tmp_path))
  monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
  assert len(idx.Source(dataset="mnist", validation=0).split("train")) == 40


def test_idx_is_found_in_the_cache(tmp_path, monkeypatch):
  write_idx(tmp_path / ".cache" / "fukugen" / "data" / "mnist")
  monkeypatch.delenv("FUKUGEN_DATA", raising=False)
  monkeypatch.setenv("HOME", str(tmp_path))
  assert len(idx.Source(dataset="mnist", validation=0).split("train")) == 40


def test_idx_missing_names_the_places_and_the_ways(tmp_path, monkeypatch):
  monkeypatch.setenv("FUKUGEN_DATA", str(tmp_path / "data"))
  monkeypatch.setenv("HOME", str(tmp_path))
  with pytest.raises(FileNotFoundError) as error:
    idx.Source(dataset="mnist").split("train")
  message = str(error.value)
  assert str(tmp_path / "data" / "mnist") in message
  assert str(tmp_path / ".cache" / "fukugen" / "data" / "mnist") in message
  assert "--config.data.directory=DIR" in message
  # Named a directory, it looks nowhere else, though the package may be installed.
  with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist") as error:
    idx.Source(dataset="fashion_mnist", directory=str(tmp_path)).split("train")
  assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_idx_lacking_one_file_names_it(tmp_path, name):
  write_idx(tmp_path)
  (tmp_path / name).unlink()
  with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))) as error:
    idx.Source(dataset="mnist", directory=str(tmp_path)).split("train")
  assert name in str(error.value)


IMAGE, LABEL = idx_arrays("train")
CORRUPTIONS = {
  "empty": ("images-idx3-ubyte", b"", "found 0 bytes, expected a header of 16"),
  "cut header": ("images-idx3-ubyte", idx_bytes(IMAGE)[:10], "found 10 bytes"),
  "cut values": ("images-idx3-ubyte", idx_bytes(IMAGE)[:-1], "found 31375 bytes, expected 31376"),
  "trailing": ("images-idx3-ubyte", idx_bytes(IMAGE) + b"x", "found 31377 bytes, expected 31376"),
  "type": (
    "images-idx3-ubyte",
    b"\0\0\x0d" + idx_bytes(IMAGE)[3:],
    "found magic number 0x00000d03",
  ),
  "axes": ("images-idx3-ubyte", idx_bytes(LABEL), "found magic number 0x00000801"),
  "html": ("images-idx3-ubyte", b"<!DOCTYPE html>...", "expected 0x00000803"),
  "size": ("images-idx3-ubyte", idx_bytes(IMAGE[:, :20]), r"\(20, 28, 1\), expected \(28, 28, 1\)"),
  "none": ("images-idx3-ubyte", idx_bytes(IMAGE[:0]), "expected 0, one for each"),
  "labels": ("labels-idx1-ubyte", idx_bytes(LABEL[:-1]), "found 39 labels, expected 40"),
  "classes": ("labels-idx1-ubyte", idx_bytes(LABEL + 1), r"labels \d..10, expected labels in 0..9"),
  "not gzip": ("images-idx3-ubyte.gz", idx_bytes(IMAGE), "gzip"),
  "cut gzip": ("images-idx3-ubyte.gz", gzip.compress(idx_bytes(IMAGE))[:-20], "gzip"),
  "bad gzip": ("labels-idx1-ubyte.gz", gzip.compress(idx_bytes(LABEL))[:-8] + bytes(8), "gzip"),
}


@pytest.mark.parametrize(("ending", "raw", "message"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_idx_corruption_names_the_file(tmp_path, ending, raw, message):
  write_idx(tmp_path)
  file = tmp_path / f"train-{ending}"
  file.with_name(file.name.removesuffix(".gz")).unlink()
  file.write_bytes(raw)
  with pytest.raises(ValueError, match=message) as error:
    idx.Source(dataset="mnist", directory=str(tmp_path), validation=5).split("train")
  assert file.name in str(error.value)
  assert "\n" not in str(error.value)


def test_idx_without_a_single_example(tmp_path):
  write_idx(tmp_path)
  (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(IMAGE[:0]))
  (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(LABEL[:0]))
  with pytest.raises(ValueError, match="found 0 examples"):
    idx.Source(dataset="mnist", directory=str(tmp_path)).split("test")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"image": np.zeros((2, 8, 8), np.float32)}, "expected \\[N, "),
    ({"image": np.zeros((2, 8, 8, 1), np.float64)}, "float64 images"),
    ({"image": np.full((2, 8, 8, 1), np.nan, np.float32)}, "finite"),
    ({"image": np.full((2, 8, 8, 1), 16, np.float32)}, "expected pixels in"),
    ({"label": np.zeros(2, np.int64)}, "int64 labels"),
    ({"label": np.array([0, -1], np.int32)}, "labels -1..0"),
    ({"label": np.zeros(3, np.int32)}, "one an image"),
    ({"image": np.zeros((0, 8, 8, 1), np.float32)}, "found 0 examples"),
  ],
)
def test_check_says_what_was_found_and_expected(change, message):
  sound = {"image": np.zeros((2, 8, 8, 1), np.float32), "label": np.zeros(2, np.int32)}
  images.check(sound, file="F", shape=(8, 8, 1), classes=10, examples=2)
  with pytest.raises(ValueError, match="F: found 2 examples, expected 3"):
    images.check(sound, file="F", shape=(8, 8, 1), classes=10, examples=3)
  with pytest.raises(ValueError, match=message) as error:
    images.check({**sound, **change}, file="F", shape=(8, 8, 1), classes=10)
  assert str(error.value).startswith("F: found")


@pytest.mark.skipif(
  not DEBIAN.is_dir(), reason="Fashion-MNIST: `apt-get install dataset-fashion-mnist`"
)
def test_fashion_mnist_of_debian():
  dataset = idx.Source(dataset="fashion_mnist", directory=str(DEBIAN))
  splits = {name: dataset.split(name) for name in ("train", "validation", "test")}
  assert {name: len(split) for name, split in splits.items()} == {
    "train": 55000,
    "validation": 5000,
    "test": 10000,
  }
  np.testing.assert_array_equal(np.bincount(splits["test"].arrays["label"]), [1000] * 10)
  # The mean of the training pixels that the authors' users quote, 0.2860.
  pixels = [splits[name].arrays["image"] for name in ("train", "validation")]
  assert abs(np.concatenate(pixels).mean() / 255 - 0.2860) < 1e-4


# Streaming.


class Stream:
  """The same examples as a split in memory, but only on request."""

  arrays = None

  def __init__(self, split):
    self._split = split

  def __len__(self):
    return len(self._split)

  def take(self, rows):
    return self._split.take(rows)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_streaming_is_in_the_order_of_rows(workers):
  split = digits.Source(train_examples=50).split("train")

  def rows_of_step(step):
    return source.rows(3, step, examples=50, batch_size=16)

  before = threading.active_count()
  stream = streaming.batches(Stream(split), rows_of_step, start=7, stop=20, workers=workers)
  found = list(stream)
  assert len(found) == 13
  for step, batch in zip(range(7, 20), found, strict=True):
    expected = split.take(rows_of_step(step))
    assert batch.keys() == expected.keys()
    for name, array in expected.items():
      np.testing.assert_array_equal(batch[name], array)
      assert batch[name].dtype == array.dtype
  # A caller that stops early is not left with threads.
  unfinished = streaming.batches(Stream(split), rows_of_step, start=0, stop=99, workers=workers)
  next(unfinished)
  unfinished.close()
  deadline = time.monotonic() + 10  # they end after the batch that they are at
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() == before
  assert list(streaming.batches(Stream(split), rows_of_step, start=5, stop=5)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_raises_what_reading_raises(workers):
  split = digits.Source(train_examples=50).split("train")
  stream = streaming.batches(
    Stream(split), lambda step: np.array([49 + step]), start=0, stop=5, workers=workers
  )
  assert len(next(stream)["label"]) == 1
  with pytest.raises(IndexError):
    next(stream)


# TFDS.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """(IDX directory, TFDS data directory), the second made by the documented command."""
  root = tmp_path_factory.mktemp("tfds")
  origin, directory = write_idx(root / "idx", zipped=True), root / "prepared"
  command = [sys.executable, "-m", "data.prepare_tfds", "--from=idx:fashion_mnist"]
  command += [f"--idx-directory={origin}", f"--directory={directory}"]
  run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  hint = f"--config.data.name=tfds:fashion_mnist_local --config.data.directory={directory}"
  assert hint in run.stdout
  return origin, directory


def tfds_source(directory, **settings):
  from data import tfds

  return tfds.Source(
    **{"dataset": "fashion_mnist_local", "directory": str(directory), "validation": 8, **settings}
  )


@needs_tfds
def test_tfds_recipe_holds_the_idx_arrays(prepared):
  origin, directory = prepared
  reference = idx.Source(dataset="fashion_mnist", directory=str(origin), validation=0)
  dataset = tfds_source(directory)
  assert dataset.facts() == reference.facts()
  assert dataset.class_names == reference.class_names
  sizes = {name: len(dataset.split(name)) for name in ("train", "validation", "test")}
  assert sizes == {"train": 32, "validation": 8, "test": 12}
  train = [whole(dataset.split(name)) for name in ("train", "validation")]
  together = {name: np.concatenate([part[name] for part in train]) for name in train[0]}
  assert per_example(together) == per_example(whole(reference.split("train")))
  assert per_example(whole(dataset.split("test"))) == per_example(whole(reference.split("test")))
  assert "tensorflow" not in sys.modules


@needs_tfds
@pytest.mark.parametrize("binarize", ["none", "fixed"])
def test_tfds_streams_what_it_holds_in_memory(prepared, binarize):
  _, directory = prepared
  memory = tfds_source(directory, binarize=binarize)
  stream = tfds_source(directory, binarize=binarize, memory_limit=0)
  for name in ("train", "validation", "test"):
    assert memory.split(name).arrays is not None
    assert stream.split(name).arrays is None
    assert len(memory.split(name)) == len(stream.split(name))
    rows = np.array([3, 0, 7, 3])
    expected = memory.split(name).take(rows)
    for key, array in stream.split(name).take(rows).items():
      np.testing.assert_array_equal(array, expected[key])
      assert array.dtype == expected[key].dtype
  assert memory.fingerprint() == stream.fingerprint()
  with pytest.raises(IndexError):
    stream.split("train").take(np.array([32]))  # would be the first of the validation split

  def rows_of_step(step):
    return source.rows(0, step, examples=32, batch_size=10)

  batches = streaming.batches(stream.split("train"), rows_of_step, start=2, stop=6, workers=2)
  for step, batch in zip(range(2, 6), batches, strict=True):
    expected = memory.split("train").take(rows_of_step(step))
    np.testing.assert_array_equal(batch["image"], expected["image"])
    np.testing.assert_array_equal(batch["label"], expected["label"])


@needs_tfds
def test_tfds_sampled_fingerprint_sees_the_settings(prepared, monkeypatch):
  from data import tfds

  monkeypatch.setattr(tfds, "_HASHED_BYTES", 0)
  reference = tfds_source(prepared[1]).fingerprint()
  assert tfds_source(prepared[1], memory_limit=0).fingerprint() == reference
  for settings in ({"validation": 9}, {"test_examples": 3}, {"flip": True}, {"binarize": "fixed"}):
    assert tfds_source(prepared[1], **settings).fingerprint() != reference


@needs_tfds
def test_tfds_directory_of_one_version(prepared):
  version = prepared[1] / "fashion_mnist_local" / "1.0.0"
  assert len(tfds_source(version).split("test")) == 12
  with pytest.raises(ValueError, match=re.escape(str(version))):
    tfds_source(version, dataset="mnist_local").split("test")


@needs_tfds
def test_tfds_not_prepared_names_the_ways(tmp_path):
  with pytest.raises(FileNotFoundError, match="tfds:mnist is not prepared in") as error:
    tfds_source(tmp_path, dataset="mnist").facts()
  for way in (str(tmp_path), "data.directory", "data.download=True", "python -m data.prepare_tfds"):
    assert way in str(error.value)
  assert len(str(error.value).replace(str(tmp_path), "DIR")) < 300
  with pytest.raises(FileNotFoundError, match="no_such_set could not be downloaded"):
    tfds_source(tmp_path, dataset="no_such_set", download=True).facts()


@needs_tfds
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("damage", ["missing", "cut", "info", "count"])
def test_tfds_damage_names_the_files(prepared, tmp_path, damage, by_name):
  version = tmp_path / "fashion_mnist_local" / "1.0.0"
  shutil.copytree(prepared[1] / "fashion_mnist_local" / "1.0.0", version)
  [records] = version.glob("*-train.array_record-*")
  info = version / "dataset_info.json"
  if damage == "missing":
    records.unlink()
  elif damage == "cut":
    records.write_bytes(records.read_bytes()[:-1000])
  elif damage == "info":
    info.write_text("{")
  else:
    info.write_text(info.read_text().replace('"40"', '"39"'))
  with pytest.raises(ValueError, match=re.escape(str(tmp_path))) as error:
    tfds_source(tmp_path if by_name else version).split("train")
  assert "\n" not in str(error.value)


@needs_tfds
def test_prepare_tfds_takes_a_few_examples(prepared, tmp_path):
  from data import prepare_tfds

  origin = idx.Source(dataset="mnist", directory=str(prepared[0]))
  assert prepare_tfds.prepare(origin, directory=str(tmp_path), examples=15) == "mnist_local"
  dataset = tfds_source(tmp_path, dataset="mnist_local", validation=0)
  first = {name: array[:15] for name, array in origin.part("train").arrays.items()}
  assert per_example(whole(dataset.split("train"))) == per_example(first)
  assert len(dataset.split("test")) == 12
  with pytest.raises(ValueError, match="found 15 train examples, expected 14"):
    prepare_tfds.prepare(origin, directory=str(tmp_path), examples=14)


@needs_tfds
def test_prepare_tfds_without_files_writes_nothing(tmp_path):
  from data import prepare_tfds

  options = ["--from=idx:mnist", f"--idx-directory={tmp_path}", f"--directory={tmp_path / 'out'}"]
  with pytest.raises(SystemExit) as stop:
    prepare_tfds.main(options)
  assert "--idx-directory=DIR" in str(stop.value)
  assert str(tmp_path) in str(stop.value)
  assert not (tmp_path / "out").exists()


@needs_tfds
def test_tfds_tensor_features_and_own_validation_split(tmp_path):
  import tensorflow_datasets as tfds

  image, label = idx_arrays("train")

  class Raw(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {
        "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8, encoding="zlib"),
        "label": tfds.features.ClassLabel(num_classes=10),
      }
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      del dl_manager
      rows = {"train": range(30), "validation": range(30, 40)}
      return {name: self._generate_examples(places) for name, places in rows.items()}

    def _generate_examples(self, rows):
      for row in rows:
        yield row, {"image": image[row, ..., None], "label": int(label[row])}

  Raw(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
  dataset = tfds_source(tmp_path, dataset="raw", validation=7)
  sizes = {name: len(dataset.split(name)) for name in ("train", "validation", "test")}
  assert sizes == {"train": 30, "validation": 10, "test": 0}
  held_out = {"image": image[30:, ..., None], "label": label[30:].astype(np.int32)}
  assert per_example(whole(dataset.split("validation"))) == per_example(held_out)
  assert dataset.class_names == tuple("0123456789")
