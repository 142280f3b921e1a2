"""Curves over an axis, a number for each of some things, heat maps of attention."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from report.canvas import INK, WIDTH, new_figure, note, plain_axes, text_width
from report.wording import short
from tasks.views import Alignments, Bars, Lines

# Okabe and Ito (2008); black first, since the truth usually is.
_LINES = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_BAR = "#0072b2"
_MOST_NAMES = 40  # bars that can still be told apart by a name below each


def lines(view: Lines) -> Figure:
  """Curves in one panel, their names above it.

  Raises:
    ValueError: a line is not as long as the axis, or there are more than can be told apart.
  """
  x = np.asarray(view.x)
  if not view.lines or not len(x):
    return note("There is nothing to draw.")
  if len(view.lines) > len(_LINES):
    raise ValueError(f"{len(view.lines)} lines; at most {len(_LINES)} can be told apart")
  figure = new_figure(8.0, 3.2, layout="constrained")
  axes = figure.subplots()
  for colour, (label, values) in zip(_LINES, view.lines.items(), strict=False):
    if np.shape(values) != x.shape:
      raise ValueError(f"line {label!r} is of shape {np.shape(values)}, the axis of {x.shape}")
    axes.plot(x, values, color=colour, lw=1.2, label=short(label, 40))
  _label(axes, view.axes)
  plain_axes(axes)
  axes.margins(x=0.01)
  figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9, handlelength=1.6)
  return figure


def bars(view: Bars) -> Figure:
  """Bars in the order given; names below them while there is room, else their count."""
  names, heights = list(view.values), np.asarray(list(view.values.values()), float)
  if not names:
    return note("There is nothing to draw.")
  shown = [short(name, 24) for name in names]
  wide = max(text_width(name, 8) for name in shown)
  named = len(names) <= _MOST_NAMES
  width = min(8.5, max(3.2, 0.8 + 0.24 * len(names), 0.9 + 3 * wide if named else 0))
  figure = new_figure(width, 2.8, layout="constrained")
  axes = figure.subplots()
  axes.bar(range(len(names)), np.nan_to_num(heights), color=_BAR, width=0.8)
  for place in np.flatnonzero(~np.isfinite(heights)):
    axes.annotate("nan", (place, 0), ha="center", va="bottom", fontsize=7, color="#bd1f01")
  _label(axes, view.axes)
  plain_axes(axes)
  axes.grid(axis="x", visible=False)
  if named:
    crowded = wide > (width - 0.9) / len(names)
    axes.set_xticks(range(len(names)), shown, rotation=90 if crowded else 0, parse_math=False)
  else:
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(f"{view.axes[0]}, {len(names):,} in this order", fontsize=8.5, color=INK)
  axes.set_xlim(-0.7, len(names) - 0.3)
  return figure


def alignments(view: Alignments) -> Figure:
  """Heat maps in a row, white for no weight; every row and column carries its token.

  Raises:
    ValueError: a map's names are not as many as its rows and columns.
  """
  if not view.items:
    return note("There is nothing to draw.")
  sides = [np.shape(item.weights) for item in view.items.values()]
  widths = [max(1.6, 0.15 * columns + 0.9) for _, columns in sides]
  figure = new_figure(
    min(WIDTH, sum(widths)),
    min(9.0, 1.2 + 0.15 * max(rows for rows, _ in sides)),
    layout="constrained",
  )
  panels = figure.subplots(1, len(view.items), width_ratios=widths, squeeze=False)[0]
  for axes, (title, item) in zip(panels, view.items.items(), strict=True):
    if np.shape(item.weights) != (len(item.rows), len(item.columns)):
      raise ValueError(
        f"{title!r}: weights of {np.shape(item.weights)} for {len(item.rows)} rows and"
        f" {len(item.columns)} columns"
      )
    axes.imshow(np.asarray(item.weights, float), cmap="Greys", vmin=0, vmax=1, aspect="auto")
    size = 6 if max(np.shape(item.weights)) > 24 else 7.5
    names = [[short(name, 12) for name in side] for side in (item.columns, item.rows)]
    axes.set_xticks(range(len(names[0])), names[0], rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(names[1])), names[1], fontsize=size, parse_math=False)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.set_xlabel(short(title, 40), fontsize=8.5, color=INK, parse_math=False)
  return figure


def _label(axes, names: tuple[str, str]) -> None:
  axes.set_xlabel(names[0], fontsize=8.5, color=INK, parse_math=False)
  axes.set_ylabel(names[1], fontsize=8.5, color=INK, parse_math=False)
