"""What every figure stands on: a canvas of its own, one palette, one look of axes and curves.

Neither pyplot nor rcParams is touched, because both are global: figures can be drawn in any thread
and without a display.
"""

import math
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import (
  EngFormatter,
  FuncFormatter,
  LogLocator,
  MaxNLocator,
  NullFormatter,
  ScalarFormatter,
)

from report.files import write_whole

DPI = 150
WIDTH = 9.2  # inches, as much as a page shows without shrinking

INK = "#222222"
FAINT = "#6b6b6b"
RULE = "#b5b5b5"
GRID = "#e4e4e4"
ALARM = "#c8102e"  # a pixel or a value that is not a number


def new_figure(width: float, height: float, **kwargs) -> Figure:
  """An empty figure of `width` by `height` inches with an Agg canvas of its own."""
  figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", **kwargs)
  FigureCanvasAgg(figure)
  return figure


def note(sentence: str) -> Figure:
  """A sentence in place of a figure that has nothing to show."""
  figure = new_figure(5.0, 1.2)
  figure.text(0.5, 0.5, sentence, ha="center", va="center", color=FAINT)
  return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
  """Writes a PNG at 150 dpi; a reader sees the old file or the whole new one, never a part.

  The same figure gives the same bytes: no date and no version of the drawing library is stored.

  Args:
    figure: what to write.
    path: where to; missing folders are made.
  """
  buffer = BytesIO()
  figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
  return write_whole(path, buffer.getvalue())


def pixels(figure: Figure) -> np.ndarray:
  """The figure as uint8 [H, W, 3], for writers that take arrays."""
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def text_width(text: str, size: float) -> float:
  """Inches that the widest line of `text` takes."""
  renderer = FigureCanvasAgg(Figure(figsize=(1, 1), dpi=DPI)).get_renderer()
  font = FontProperties(size=size)
  lines = text.split("\n")
  return max(renderer.get_text_width_height_descent(x, font, False)[0] for x in lines) / DPI


def plain_axes(axes: Axes) -> None:
  """A grid behind the data, and spines only where the ticks are."""
  axes.grid(color=GRID, lw=0.7)
  axes.set_axisbelow(True)
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[["left", "bottom"]].set(color=RULE, linewidth=0.8)
  axes.tick_params(labelsize=8, color=RULE, length=3, labelcolor=INK)


def step_axis(axes: Axes, steps: Sequence[int]) -> None:
  """Limits and ticks of training steps, of which there is at least one."""
  first, last = min(steps), max(steps)
  pad = 0.03 * (last - first) or 0.5
  axes.set_xlim(first - pad, last + pad)
  if first == last:
    axes.set_xticks([first])
  else:
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
  axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def value_axis(axes: Axes, values: Sequence[float]) -> None:
  """Scale and ticks for a metric: logarithmic where it is positive and spans over two decades."""
  finite = [value for value in values if math.isfinite(value)]
  if not finite:
    axes.set_yticks([])
    axes.text(
      0.5,
      0.5,
      "no finite value",
      transform=axes.transAxes,
      ha="center",
      va="center",
      fontsize=9,
      color=ALARM,
    )
  elif min(finite) > 0 and max(finite) / min(finite) > 100:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    # Plain text: the default would typeset powers through the mathematics parser.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
  else:
    formatter = ScalarFormatter(useOffset=False, useMathText=False)
    formatter.set_powerlimits((-4, 5))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.get_offset_text().set_fontsize(8)


def curve(axes: Axes, values: Mapping[int, float], **style) -> Line2D:
  """Draws a metric over training steps.

  A value that is not finite breaks the line and is marked by a cross at the foot of the axes.

  Args:
    axes: where to.
    values: step to value.
    **style: of the line, its colour among them.

  Returns:
    The line.
  """
  steps = np.array(sorted(values))
  heights = np.array([values[step] for step in steps])
  finite = np.isfinite(heights)
  few = len(steps) <= 30
  # A point between two that are not finite belongs to no segment and would not show without one.
  alone = finite & ~np.r_[False, finite[:-1]] & ~np.r_[finite[1:], False]
  (line,) = axes.plot(
    steps,
    np.where(finite, heights, np.nan),
    marker="o",
    ms=3.2 if len(steps) > 1 else 6,
    mew=0,
    markevery=slice(None) if few else np.flatnonzero(alone).tolist(),
    solid_joinstyle="round",
    **style,
  )
  if not finite.all():
    axes.plot(
      steps[~finite],
      np.full((~finite).sum(), 0.035),
      transform=axes.get_xaxis_transform(),
      color=ALARM,
      marker="x",
      ls="",
      ms=4.5,
      mew=1.2,
      clip_on=False,
      zorder=5,
    )
  return line


def not_finite_mark() -> Line2D:
  """The legend's handle for the crosses of `curve`."""
  return Line2D([], [], color=ALARM, marker="x", ls="", ms=5, label="not finite")


def fences(values: Sequence[float]) -> tuple[float, float]:
  """Limits that hold all values but those so far out that they would flatten the rest.

  Far is ten interquartile ranges beyond a quartile, of the logarithms where all are positive.
  """
  array = np.asarray(values, dtype=np.float64)
  scale = np.log(array) if (array > 0).all() else array
  lower, upper = np.quantile(scale, [0.25, 0.75])
  reach = 10 * (upper - lower)
  inside = array[(scale >= lower - reach) & (scale <= upper + reach)] if reach > 0 else array
  return float(inside.min()), float(inside.max())


def shade(badness: float) -> tuple[float, float, float, float]:
  """The colour of a trial from the best (0, dark) to the worst (1, never too bright for white).

  Viridis's lightness changes steadily, so the order survives a colour-vision deficiency and a
  black-and-white print.
  """
  return colormaps["viridis"](0.92 * badness)
