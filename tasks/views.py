"""What is worth looking at, as plain host arrays; the report decides how to draw each kind."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Images:
  """Rows of equally many images, drawn one row under the other.

  Attributes:
    rows: row label to images [N, H, W] or [N, H, W, C], values in [0, 1].
    caption: one sentence that says what a reader should look for.
  """

  rows: Mapping[str, np.ndarray]
  caption: str


@dataclasses.dataclass(frozen=True)
class Scatter:
  """Points in the plane, coloured by class.

  Attributes:
    points: [N, 2].
    labels: [N] class indices, or None where the data has no classes.
    axes: the names of the two axes.
    caption: one sentence that says what a reader should look for.
    names: class names in the order of the indices; the indices themselves when empty.
  """

  points: np.ndarray
  labels: np.ndarray | None
  axes: tuple[str, str]
  caption: str
  names: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Counts [true class, predicted class].

  Attributes:
    counts: [C, C] integers.
    names: the C class names.
    caption: one sentence that says what a reader should look for.
  """

  counts: np.ndarray
  names: Sequence[str]
  caption: str


@dataclasses.dataclass(frozen=True)
class Lines:
  """Curves over one axis.

  Attributes:
    x: [N], shared by all of them.
    lines: label to values [N]; what is not a number leaves a gap.
    axes: the names of the two axes.
    caption: one sentence that says what a reader should look for.
  """

  x: np.ndarray
  lines: Mapping[str, np.ndarray]
  axes: tuple[str, str]
  caption: str


@dataclasses.dataclass(frozen=True)
class Bars:
  """A number for each of some things, drawn in their order.

  Attributes:
    values: label to height.
    axes: what the things are, and what the heights.
    caption: one sentence that says what a reader should look for.
  """

  values: Mapping[str, float]
  axes: tuple[str, str]
  caption: str


@dataclasses.dataclass(frozen=True)
class Alignment:
  """Which position of one sequence attends to which of another.

  Attributes:
    weights: [T, S] in [0, 1], rows sum to one.
    rows: the T names of what attends, first to last.
    columns: the S names of what is attended to.
  """

  weights: np.ndarray
  rows: Sequence[str]
  columns: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Alignments:
  """Heat maps of attention, one beside the other.

  Attributes:
    items: title to map.
    caption: one sentence that says what a reader should look for.
  """

  items: Mapping[str, Alignment]
  caption: str


@dataclasses.dataclass(frozen=True)
class Table:
  """Text in rows and columns, for the report's page.

  Attributes:
    columns: their names.
    rows: as many texts each.
    caption: one sentence that says what a reader should look for.
  """

  columns: Sequence[str]
  rows: Sequence[Sequence[str]]
  caption: str


def contact_sheet(images: np.ndarray, caption: str, *, columns: int) -> Images:
  """[N, ...] images in rows of `columns`; a last row that is not full is left out."""
  if len(images) <= columns:
    return Images({"": images}, caption)
  starts = range(0, len(images) - columns + 1, columns)
  return Images({f"{i + 1}-{i + columns}": images[i : i + columns] for i in starts}, caption)


def first_and_last(maps_LHTT: np.ndarray, names: Sequence[str], caption: str) -> Alignments:
  """Attention of a text's tokens to one another, in the first and in the last layer."""
  items = {
    f"layer {i + 1}, mean of heads": Alignment(maps_LHTT[i].mean(0), names, names)
    for i in sorted({0, len(maps_LHTT) - 1})
  }
  return Alignments(items, caption)


def every_head(maps_LHTT: np.ndarray, caption: str) -> Images:
  """Attention of a text's tokens to one another, a layer in each row, a head in each column.

  Each map is drawn from its least weight to its greatest, so that what stands out is seen.
  """
  low = maps_LHTT.min((-2, -1), keepdims=True)
  high = maps_LHTT.max((-2, -1), keepdims=True)
  shades = (maps_LHTT - low) / np.maximum(high - low, 1e-9)
  return Images({f"layer {i}": maps for i, maps in enumerate(shades, 1)}, caption)


View = Images | Scatter | Confusion | Lines | Bars | Alignments | Table
