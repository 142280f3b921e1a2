"""Labelled image sets: splits, binarisation and augmentation, whatever file they come from.

Stored images are [N, H, W, C], uint8 (or float32 already in [0, 1]); a model sees float32 in
[0, 1]. B examples of a batch, H height, W width, C channels.

Augmentation is that of He et al. (2015), "Deep Residual Learning for Image Recognition", section
4.2: zero-pad each side, crop back to size at random, flip horizontally half of the time.
Binarisation is either a Bernoulli draw of each pixel each time an example is seen ("dynamic",
Burda et al. 2015) or one draw for good ("fixed", after Larochelle and Murray 2011, whose files
hold another draw).
"""

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from data import source

PARTS = ("train", "test", "validation")  # the order keys the fixed draws: append, never reorder


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSource(source.Source):
  """A labelled image set; a subclass says where its parts are read from.

  Attributes:
    validation: examples held out for validation off the end of the training part; a set that comes
      with a validation part of its own uses that and ignores this.
    train_examples: only the first so many training examples; 0 means all.
    test_examples: only the first so many test examples; 0 means all.
    normal: the one class of the training and validation examples, the test split being whole, for
      learning what is normal and telling the rest from it (Ruff et al. 2018); -1 means all classes.
    binarize: "none"; "dynamic", a fresh draw of each pixel from each example's key; "fixed", one
      draw an example that never changes.
    crop_padding: pixels of zero padding on each side before the random crop; 0 means no crop.
    flip: whether to flip horizontally at random.
    resolution: a model sees images of so many pixels on either side, bilinearly resized; 0 leaves
      them as they are stored.
  """

  validation: Annotated[int, "[0, inf)"] = 0
  train_examples: Annotated[int, "[0, inf)"] = 0
  test_examples: Annotated[int, "[0, inf)"] = 0
  normal: Annotated[int, "[-1, inf)"] = -1
  binarize: Literal["none", "dynamic", "fixed"] = "none"
  crop_padding: Annotated[int, "[0, inf)"] = 0  # train only
  flip: bool = False  # train only
  resolution: Annotated[int, "[0, inf)"] = 0

  @property
  @abc.abstractmethod
  def data_shape(self) -> tuple[int, int, int]:
    """(H, W, C)."""

  @property
  @abc.abstractmethod
  def class_names(self) -> tuple[str, ...]:
    """The name of each label."""

  @abc.abstractmethod
  def part(self, name: str) -> source.Split | None:
    """The stored part "train", "test" or "validation", whole; None where the set has no such part.

    Yields `image` [N, H, W, C] and `label` int32 [N].
    """

  @property
  def image_dtype(self) -> np.dtype:
    """The type in which pixels are stored."""
    return np.dtype(np.uint8)

  @property
  def levels(self) -> int:
    """Values that a stored pixel can take, equally spaced from 0 to 1; 0 where it is continuous."""
    return 256 if self.image_dtype == np.uint8 else 0

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return {
      "image": jax.ShapeDtypeStruct(self.data_shape, self.image_dtype),
      "label": jax.ShapeDtypeStruct((), np.int32),
    }

  def facts(self) -> Mapping[str, Any]:
    side = self.resolution
    return {
      "data_shape": (side, side, self.data_shape[-1]) if side else self.data_shape,
      "classes": len(self.class_names),
      "levels": self._levels_seen(),
    }

  def _levels_seen(self) -> int:
    if self.resolution and self.binarize != "dynamic":
      return 0  # resized images have the values in between
    return self.levels if self.binarize == "none" else 2

  def conditions(self) -> Mapping[str, str]:
    # Bounds on binarised images, drawn afresh or once, and on grey ones are three different things.
    return {"binarisation": self.binarize}

  @functools.cached_property
  def _parts(self) -> dict[str, source.Split | None]:
    return {}

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    return {}

  def split(self, name: str) -> source.Split:
    if name not in PARTS:
      raise ValueError(f"no split {name!r}: the splits are {', '.join(PARTS)}")
    if name not in self._splits:
      self._splits[name] = self._make_split(name)
    return self._splits[name]

  def _part(self, name: str) -> source.Split | None:
    if name not in self._parts:
      part = self.part(name)
      if self.normal >= 0 and name != "test" and part is not None:
        part = self._of_one_class(part)
      self._parts[name] = part
    return self._parts[name]

  def _of_one_class(self, part: source.Split) -> source.Split:
    if self.normal >= len(self.class_names):
      raise ValueError(f"data.normal={self.normal}, but there are {len(self.class_names)} classes")
    starts = range(0, len(part), 4096)  # a set that streams is not decoded at once
    labels = [part.take(np.arange(s, min(s + 4096, len(part))))["label"] for s in starts]
    return _Rows(part, np.flatnonzero(np.concatenate(labels) == self.normal))

  def _make_split(self, name: str) -> source.Split:
    part = self._part(name)
    if name == "test" and part is None:
      _first("test_examples", self.test_examples, 0)
      empty = np.zeros((0, *self.data_shape), np.uint8)
      return source.Arrays({"image": empty, "label": np.zeros(0, np.int32)})
    if name == "test":
      size = len(part)
      return self._range("test", part, 0, _first("test_examples", self.test_examples, size))
    if name == "validation" and part is not None:
      return self._range("validation", part, 0, len(part))
    own_validation = self._part("validation") is not None
    train = self._part("train")
    held_out = 0 if own_validation else self.validation
    size = len(train) - held_out
    if size < 1:
      raise ValueError(
        f"data.validation={held_out} leaves nothing to train on: "
        f"the training part has {len(train)} examples"
      )
    if name == "validation":
      return self._range("train", train, size, len(train))
    return self._range("train", train, 0, _first("train_examples", self.train_examples, size))

  def _range(self, part: str, whole: source.Split, start: int, stop: int) -> source.Split:
    chosen = _Range(whole, start, stop, part if self.binarize == "fixed" else None)
    if whole.arrays is None:
      return chosen
    if self.binarize == "fixed":
      return source.Arrays(chosen.take(np.arange(len(chosen))))
    # Slices are views, so train and validation share the memory of the part.
    return source.Arrays({key: array[start:stop] for key, array in whole.arrays.items()})

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    image = batch["image"]
    if image.dtype == jnp.uint8:
      image = _by_pixel(lambda x: x.astype(jnp.float32) / 255)(image)
    # Each use folds in its own number, so turning one on does not change the draws of another.
    if train and self.crop_padding:
      image = jax.vmap(functools.partial(_crop, padding=self.crop_padding))(image, _fold(keys, 0))
    if train and self.flip:
      image = jax.vmap(_flip)(image, _fold(keys, 1))
    if self.resolution:
      image = _resized(image, self.resolution)
    if self.binarize == "dynamic":
      image = _by_pixel(jax.vmap(_bernoulli))(image, _fold(keys, 2))
    return {**batch, "image": image}

  def fingerprint(self) -> str:
    digest = self._settings_digest()
    for name in PARTS:
      split = self.split(name)
      digest.update(f"{name} {len(split)}".encode())
      for start in range(0, len(split), 4096):
        examples = split.take(np.arange(start, min(start + 4096, len(split))))
        for key in sorted(examples):
          array = np.ascontiguousarray(examples[key])
          digest.update(f"{key} {array.dtype} {array.shape}".encode())
          digest.update(array.data)
    return digest.hexdigest()

  def _settings_digest(self):
    # Only settings that the examples themselves do not show: where they lie, how many are held out
    # and how they are read may differ between machines that train the same thing.
    settings = (self.binarize, self.crop_padding, self.flip)
    settings += (self.resolution,) if self.resolution else ()
    return hashlib.sha256(repr(settings).encode())


class _Rows:
  """The examples of a part at chosen rows."""

  def __init__(self, whole: source.Split, rows: np.ndarray):
    self._whole = whole
    self._rows = rows
    self.arrays = None if whole.arrays is None else whole.take(rows)

  def __len__(self) -> int:
    return len(self._rows)

  def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    return self._whole.take(self._rows[rows])


class _Range:
  """Examples start..stop-1 of a part, binarised for good when `binarized_part` names that part."""

  arrays = None

  def __init__(self, whole: source.Split, start: int, stop: int, binarized_part: str | None):
    self._whole = whole
    self._start = start
    self._stop = stop
    self._binarized_part = binarized_part

  def __len__(self) -> int:
    return self._stop - self._start

  def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    # Negative or overlong rows would silently reach into the neighbouring split.
    if len(rows) and (np.min(rows) < 0 or np.max(rows) >= len(self)):
      raise IndexError(f"rows {np.min(rows)}..{np.max(rows)} of a split of {len(self)} examples")
    rows = np.asarray(rows) + self._start
    examples = self._whole.take(rows)
    if self._binarized_part is None:
      return examples
    return {**examples, "image": binarized(examples["image"], part=self._binarized_part, rows=rows)}


def binarized(image: np.ndarray, *, part: str, rows: np.ndarray) -> np.ndarray:
  """One Bernoulli draw of each pixel, a function of the part and the row alone.

  Args:
    image: [B, H, W, C], uint8 or float32 in [0, 1].
    part: the stored part that the images come from.
    rows: [B] their places in it.

  Returns:
    [B, H, W, C] in the same dtype, each pixel 0 or the largest value (255 or 1).
  """
  largest = 255 if image.dtype == np.uint8 else 1
  key = [0, PARTS.index(part)]
  result = np.empty_like(image)
  for place, row in enumerate(rows):
    # Counter-based: example 50,000 needs no draw of the examples before it.
    generator = np.random.Generator(np.random.Philox(key=key, counter=[0, row, 0, 0]))
    uniform = generator.random(image.shape[1:], dtype=np.float32)
    # uniform < 1 strictly: a full pixel is always on and an empty one never.
    result[place] = (uniform * np.float32(largest) < image[place]) * largest
  return result


def check(
  arrays: Mapping[str, np.ndarray],
  *,
  file: str,
  shape: Sequence[int],
  classes: int,
  examples: int | None = None,
) -> None:
  """Raises ValueError, naming the file, unless the arrays are a sound labelled image set.

  Args:
    arrays: `image` and `label`.
    file: where they were read from, for the message.
    shape: (H, W, C) expected.
    classes: labels must lie in [0, classes).
    examples: how many there must be; None takes any number above 0.
  """
  image, label = arrays["image"], arrays["label"]

  def require(condition, found, expected):
    if not condition:
      raise ValueError(f"{file}: found {found}, expected {expected}")

  require(image.ndim == 4, f"an image array of shape {image.shape}", f"[N, *{tuple(shape)}]")
  require(image.shape[1:] == tuple(shape), f"images of shape {image.shape[1:]}", f"{tuple(shape)}")
  require(image.dtype in (np.uint8, np.float32), f"{image.dtype} images", "uint8 or float32")
  require(label.dtype == np.int32, f"{label.dtype} labels", "int32")
  require(len(image) > 0, "0 examples", "at least 1")
  require(label.shape == (len(image),), f"labels {label.shape}", f"({len(image)},), one an image")
  if examples is not None:
    require(len(image) == examples, f"{len(image)} examples", f"{examples}")
  low, high = int(label.min()), int(label.max())
  require(low >= 0 and high < classes, f"labels {low}..{high}", f"labels in 0..{classes - 1}")
  if image.dtype == np.float32:
    require(np.isfinite(image).all(), "pixels that are not finite", "finite pixels")
    low, high = float(image.min()), float(image.max())
    require(low >= 0 and high <= 1, f"pixels {low}..{high}", "pixels in [0, 1]")


def _first(field: str, wanted: int, size: int) -> int:
  if wanted > size:
    raise ValueError(f"data.{field}={wanted}, but only {size} examples are there")
  return wanted or size


def _by_pixel(function):
  """`function` of images as rows of pixels [B, D], which is twice as fast on a CPU.

  XLA's CPU backend vectorises along the last axis, and grey images have one of length one.
  """
  return lambda image, *rest: function(image.reshape(len(image), -1), *rest).reshape(image.shape)


def _fold(keys: jax.Array, number: int) -> jax.Array:
  return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _crop(image: jax.Array, key: jax.Array, *, padding: int) -> jax.Array:
  padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
  top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
  return jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)


def _flip(image: jax.Array, key: jax.Array) -> jax.Array:
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def _resized(image: jax.Array, side: int) -> jax.Array:
  return jax.image.resize(image, (len(image), side, side, image.shape[-1]), "bilinear")


def _bernoulli(image: jax.Array, key: jax.Array) -> jax.Array:
  return jax.random.bernoulli(key, image).astype(image.dtype)
