"""Curves in the plane, each a function of three random points: six numbers make a picture.

Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks", Science
313:504-507: a synthetic set of 28x28 images of curves "generated from three randomly chosen points
in two dimensions", 20,000 to train and 10,000 to test. How a curve goes through its points, and how
it is drawn, is ours: a quadratic Bezier curve of these control points, which therefore never leaves
the picture, in ink that fades away from it.

A curve depends on its part and its number alone, so fewer curves are the first of more.
"""

import dataclasses
import functools
from typing import Annotated

import numpy as np

from data import images, source

_SIZE = 28
_MARGIN = 4.0  # pixels between the points and the edge
_FADE = 2.5  # pixels from the middle of the line, where it is black, to where its ink ends
_SEGMENTS = 16  # straight pieces of a curve: off by less than a twentieth of a pixel
_AT_ONCE = 500  # pictures; their distances take 25 MB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(images.ImageSource):
  """uint8 [N, 28, 28, 1] in one class.

  Attributes:
    curves: made for training and validation.
    test_curves: made for testing.
  """

  curves: Annotated[int, "[1, inf)"] = 20_000
  test_curves: Annotated[int, "[1, inf)"] = 10_000

  @property
  def data_shape(self) -> tuple[int, int, int]:
    return (_SIZE, _SIZE, 1)

  @property
  def class_names(self) -> tuple[str, ...]:
    return ("curve",)

  def part(self, name: str) -> source.Split | None:
    if name == "validation":
      return None
    count = self.curves if name == "train" else self.test_curves
    image = _drawn(name, count)
    return source.Arrays({"image": image, "label": np.zeros(count, np.int32)})


@functools.lru_cache(maxsize=2)
def _drawn(part: str, count: int) -> np.ndarray:
  parts = [points(part, np.arange(i, min(i + _AT_ONCE, count))) for i in range(0, count, _AT_ONCE)]
  return np.concatenate([draw(p) for p in parts])


def points(part: str, rows: np.ndarray) -> np.ndarray:
  """The control points [B, 3, 2] of curves `rows` of a part, as (x, y) in pixels."""
  result = np.empty((len(rows), 3, 2), np.float32)
  key = [1, images.PARTS.index(part)]
  for place, row in enumerate(rows):
    # Counter-based: curve 20,000 needs no draw of the curves before it.
    generator = np.random.Generator(np.random.Philox(key=key, counter=[0, row, 0, 0]))
    result[place] = generator.random((3, 2), dtype=np.float32)
  return _MARGIN + (_SIZE - 2 * _MARGIN) * result


def draw(points_B32: np.ndarray) -> np.ndarray:
  """Pictures [B, 28, 28, 1], uint8, of Bezier curves with control points [B, 3, 2]."""
  t = np.linspace(0, 1, _SEGMENTS + 1, dtype=np.float32)
  bernstein = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1)
  knots = np.einsum("sk,bkd->bsd", bernstein, points_B32)
  centres = np.arange(_SIZE, dtype=np.float32) + 0.5
  pixels_P2 = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)
  squared_BP = np.full((len(points_B32), len(pixels_P2)), np.inf, np.float32)
  for s in range(_SEGMENTS):
    piece = _squared_distance(pixels_P2, knots[:, s], knots[:, s + 1])
    np.minimum(squared_BP, piece, out=squared_BP)
  ink_BP = np.maximum(1 - np.sqrt(squared_BP) / _FADE, 0)
  return np.rint(255 * ink_BP).astype(np.uint8).reshape(-1, _SIZE, _SIZE, 1)


def _squared_distance(pixels_P2, from_B2, to_B2) -> np.ndarray:
  """[B, P] of every pixel to every segment."""
  along_B2 = to_B2 - from_B2
  length_B = np.maximum(np.square(along_B2).sum(1), 1e-6)
  x_BP, y_BP = (pixels_P2[:, i] - from_B2[:, i : i + 1] for i in range(2))
  place_BP = (x_BP * along_B2[:, :1] + y_BP * along_B2[:, 1:]) / length_B[:, None]
  place_BP = np.clip(place_BP, 0, 1)
  return (x_BP - place_BP * along_B2[:, :1]) ** 2 + (y_BP - place_BP * along_B2[:, 1:]) ** 2
