"""Two-dimensional sprites whose five factors of variation are known exactly.

After the "2D shapes" of Higgins et al. 2017, "beta-VAE", published as dSprites (Matthey et al.
2017): every combination of shape 3 x scale 6 x orientation 40 x position 32 x 32 as a binary image
of 64x64 pixels, 737,280 images. The defaults are those sizes. dSprites itself is a download; these
images are drawn here, so their pixels are not its pixels.

How a sprite is drawn. With the side of the picture as the unit, its centre lies in
[radius, 1 - radius] along either axis, and at scale s all of it lies within radius * s of the
centre. A pixel is on where its centre lies in the sprite; nothing is smoothed. In coordinates
(u, v) turned with the sprite in which that disc has radius 1; y and v point upwards:

  square   max(|u|, |v|) <= 1 / sqrt 2
  ellipse  u^2 + 4 v^2 <= 1
  heart    (x^2 + y^2 - 1)^3 <= x^2 y^3,  x = 1.26 u,  y = 1.26 v + 0.25

Orientations are equally spaced over the full turn, so a square looks the same at four of them and
an ellipse at two, as in dSprites. The arithmetic is additions, products and comparisons of doubles
that any IEEE machine rounds alike, after sines rounded to 2^-20: the same pixels everywhere.

Axes: N or B images, K factors.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from data import source

FACTORS = ("shape", "scale", "orientation", "x", "y")
_SHAPES = ("square", "ellipse", "heart")
_SPLITS = ("test", "validation", "train")  # in this order off the permutation of all images
_HEART, _LIFT = 1.26, 0.25  # radius and centre of a disc around the curve
_CHUNK = 1024  # images drawn at once, which bounds the memory of drawing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """uint8 [N, side, side, 1] of 0 and 255, `label` the shape, `factors` int32 [N, 5].

  Held-out images are combinations of factors that are not trained on, chosen at random (a
  permutation of seed 0); the values of each factor are the same in every split.

  Attributes:
    side: pixels along either axis.
    scales: values of the scale, from a half to 1.
    orientations: values of the orientation.
    positions: values of x, and of y.
    radius: of the disc that holds a sprite at scale 1, as a fraction of the side.
    test_examples: images held out for testing.
    validation: further images held out for validation.
    train_examples: only the first so many of the others; 0 means all.
    memory_limit: bytes; the images lie in memory when they take no more, and are drawn each time
      they are asked for otherwise.
  """

  side: Annotated[int, "[1, inf)"] = 64
  scales: Annotated[int, "[2, inf)"] = 6
  orientations: Annotated[int, "[1, inf)"] = 40
  positions: Annotated[int, "[2, inf)"] = 32
  radius: Annotated[float, "(0, 0.5]"] = 0.2
  test_examples: Annotated[int, "[0, inf)"] = 10_000
  validation: Annotated[int, "[0, inf)"] = 10_000
  train_examples: Annotated[int, "[0, inf)"] = 0
  memory_limit: Annotated[int, "[0, inf)"] = 2**28

  def __post_init__(self):
    held_out = self.test_examples + self.validation
    if held_out + max(self.train_examples, 1) > self.images:
      raise ValueError(
        f"test_examples={self.test_examples}, validation={self.validation} and"
        f" train_examples={self.train_examples} are more than the {self.images} images"
      )

  @property
  def sizes(self) -> tuple[int, ...]:
    """How many values each factor takes, in the order of `FACTORS`."""
    return (len(_SHAPES), self.scales, self.orientations, self.positions, self.positions)

  @property
  def images(self) -> int:
    """All combinations of factors."""
    return math.prod(self.sizes)

  @property
  def class_names(self) -> tuple[str, ...]:
    return _SHAPES

  def facts(self) -> Mapping[str, Any]:
    return {"data_shape": (self.side, self.side, 1), "classes": len(_SHAPES), "levels": 2}

  def conditions(self) -> Mapping[str, str]:
    # Fewer values of a factor, or fewer pixels, are another task.
    return {"sprites": f"{self.images} of {self.side}x{self.side}"}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return {
      "image": jax.ShapeDtypeStruct((self.side, self.side, 1), np.uint8),
      "label": jax.ShapeDtypeStruct((), np.int32),
      "factors": jax.ShapeDtypeStruct((len(FACTORS),), np.int32),
    }

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    return {}

  def split(self, name: str) -> source.Split:
    if name not in _SPLITS:
      raise ValueError(f"no split {name!r}: the splits are {', '.join(_SPLITS)}")
    if name not in self._splits:
      drawn = _Drawn(self, self._places(name))
      fits = len(drawn) * self.side**2 <= self.memory_limit
      self._splits[name] = source.Arrays(drawn.take(np.arange(len(drawn)))) if fits else drawn
    return self._splits[name]

  def _places(self, name: str) -> np.ndarray:
    """Which of all images are a split's."""
    train = self.train_examples or self.images
    ends = np.cumsum([0, self.test_examples, self.validation, train])
    part = _SPLITS.index(name)
    return np.random.RandomState(0).permutation(self.images)[ends[part] : ends[part + 1]]

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    return {**batch, "image": batch["image"].astype(jnp.float32) / 255}

  def fingerprint(self) -> str:
    # The images are a function of these alone; the tests hold their pixels.
    settings = (self.side, *self.sizes, self.radius)
    splits = (self.test_examples, self.validation, self.train_examples)
    return hashlib.sha256(repr((settings, splits)).encode()).hexdigest()


class _Drawn:
  """Images of a source by their place among all combinations, drawn when they are asked for."""

  arrays = None

  def __init__(self, of: Source, places: np.ndarray):
    self._of = of
    self._places = places.astype(np.int64)

  def __len__(self) -> int:
    return len(self._places)

  def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    places = self._places[rows]
    factors = np.stack(np.unravel_index(places, self._of.sizes), axis=-1).astype(np.int32)
    image = np.empty((len(rows), self._of.side, self._of.side, 1), np.uint8)
    for start in range(0, len(rows), _CHUNK):
      image[start : start + _CHUNK] = draw(
        factors[start : start + _CHUNK],
        sizes=self._of.sizes,
        side=self._of.side,
        radius=self._of.radius,
      )
    return {"image": image, "label": factors[:, 0].copy(), "factors": factors}


def draw(factors: np.ndarray, *, sizes: tuple[int, ...], side: int, radius: float) -> np.ndarray:
  """Images [B, side, side, 1], uint8 of 0 and 255, of factors [B, 5].

  Args:
    factors: indices in the order of `FACTORS`.
    sizes: how many values each factor takes.
    side: pixels along either axis.
    radius: of the disc that holds a sprite at scale 1, as a fraction of the side.
  """
  shape_B, *others = factors.T
  # Fractions of each range, [B, 1, 1]; the full turn would be the first orientation again.
  intervals = (sizes[1] - 1, sizes[2], sizes[3] - 1, sizes[4] - 1)
  scale, turn, x, y = (i[:, None, None] / n for i, n in zip(others, intervals, strict=True))
  # Two machines' sines may differ in the last bit, which would move a pixel on the border.
  sine, cosine = (np.round(f(2 * np.pi * turn) * 2**20) / 2**20 for f in (np.sin, np.cos))
  middle = (np.arange(side) + 0.5) / side
  right = middle[None, None, :] - (radius + (1 - 2 * radius) * x)
  up = (1 - middle)[None, :, None] - (radius + (1 - 2 * radius) * y)
  size = radius * (0.5 + 0.5 * scale)
  u, v = (right * cosine + up * sine) / size, (up * cosine - right * sine) / size
  image = np.zeros((len(factors), side, side), np.uint8)
  for i, inside in enumerate((_in_square, _in_ellipse, _in_heart)):
    of_this = shape_B == i
    image[of_this] = 255 * inside(u[of_this], v[of_this]).astype(np.uint8)
  return image[..., None]


def _in_square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  return np.maximum(np.abs(u), np.abs(v)) <= math.sqrt(0.5)


def _in_ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  return u * u + 4 * v * v <= 1


def _in_heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  x, y = _HEART * u, _HEART * v + _LIFT
  bump = x * x + y * y - 1
  return bump * bump * bump <= x * x * y * y * y
