"""Figures of a run: the views of a task, its samples over time, and its learning curves.

Every function returns a `Figure` with an Agg canvas of its own, so figures can be drawn in any
thread and without a display. Captions are not drawn into the pixels; they stand beside the figure,
where they can be read and wrapped.
"""

import itertools
import math
import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from report import plots
from report.canvas import (
  ALARM,
  DPI,
  FAINT,
  GRID,
  INK,
  RULE,
  new_figure,
  pixels,
  plain_axes,
  save,
  text_width,
)
from report.curves import SPLITS, curves
from report.wording import short
from tasks.views import Alignments, Bars, Confusion, Images, Lines, Scatter, View

__all__ = ["DPI", "curves", "draw", "pixels", "samples_over_time", "save"]

# Petroff (2021), ten colours chosen by optimisation for colour-vision deficiency and lightness.
_CLASSES = (
  "#3f90da",
  "#ffa90e",
  "#bd1f01",
  "#94a4a2",
  "#832db6",
  "#a96b59",
  "#e76300",
  "#b9ac70",
  "#717581",
  "#92dadd",
)
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")  # one more shape for each ten further classes
_SHADES = LinearSegmentedColormap.from_list("share", ["#ffffff", "#9ecae1", "#2171b5", "#08306b"])


def draw(view: View) -> Figure:
  """Draws one view; its caption is left to whoever shows the figure.

  Args:
    view: what the task found worth looking at.

  Raises:
    ValueError: the arrays do not have the shapes or the range that the view promises.
    TypeError: the view is of no known kind.
  """
  match view:
    case Images():
      return _image_grid(view.rows)
    case Scatter():
      return _scatter(view)
    case Confusion():
      return _confusion(view)
    case Lines():
      return plots.lines(view)
    case Bars():
      return plots.bars(view)
    case Alignments():
      return plots.alignments(view)
  raise TypeError(f"no drawing for {type(view).__name__}; known are {View}")


def samples_over_time(steps_to_images: Mapping[int, np.ndarray]) -> Figure:
  """Draws samples from fixed noise, one row a step, earliest at the top.

  At most 20 steps (the first, the last and an even choice between) and 16 samples of each are
  drawn, so a long run still fits a page.

  Args:
    steps_to_images: step to images [N, H, W] or [N, H, W, C], values in [0, 1].

  Raises:
    ValueError: there is no step, or the images are not what they should be.
  """
  steps = sorted(steps_to_images)
  if len(steps) > 20:
    steps = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, 20).round().astype(int))]
  return _image_grid({f"step {step:,}": np.asarray(steps_to_images[step])[:16] for step in steps})


# Images


def _image_grid(rows: Mapping[str, np.ndarray]) -> Figure:
  """Rows of images at whole multiples of their size, so that every pixel is equally large."""
  if not rows:
    raise ValueError("no rows of images to draw")
  colours = {label: _rgb(images, label=label) for label, images in rows.items()}
  columns = max(len(images) for images in colours.values())
  # The largest cell that keeps the page about 8.5 inches wide and not much longer than that.
  room = min(180, max(64, min(1250 // columns, 1800 // len(colours))))
  strips = {label: _strip(images, room=room) for label, images in colours.items()}

  size = 9.5
  labels = {label: _wrapped(label, strip.shape[0], size) for label, strip in strips.items()}
  margin, gap = 18, 9  # pixels
  named = any(label.strip() for label in labels.values())
  label_width = max(text_width(label, size) for label in labels.values()) * DPI
  left = margin + (math.ceil(label_width) + 15 if named else 0)
  width = left + max(strip.shape[1] for strip in strips.values()) + margin
  height = 2 * margin + sum(s.shape[0] for s in strips.values()) + gap * (len(strips) - 1)

  figure = new_figure(width / DPI, height / DPI)
  top = height - margin
  for label, strip in strips.items():
    h, w = strip.shape[:2]
    axes = figure.add_axes((left / width, (top - h) / height, w / width, h / height))
    axes.imshow(strip, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    figure.text(
      (left - 15) / width,
      (top - h / 2) / height,
      labels[label],
      ha="right",
      va="center",
      fontsize=size,
      color=INK,
      linespacing=1.05,
      parse_math=False,  # a label is a name, whatever dollar signs it holds
    )
    top -= h + gap
  return figure


def _rgb(images: np.ndarray, *, label: str) -> np.ndarray:
  """Images as uint8 [N, H, W, 3]; what is not a number becomes an alarming red."""
  images = np.asarray(images)
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
    raise ValueError(
      f"row {label!r}: images must be [N, H, W] or [N, H, W, C] with C 1 or 3, and not empty; "
      f"got shape {images.shape}"
    )
  if images.dtype.kind in "iu" and images.max() > 1:
    raise ValueError(f"row {label!r}: values must lie in [0, 1]; the largest is {images.max()}")
  values = images.astype(np.float32)
  lost = ~np.isfinite(values).all(axis=-1)
  scaled = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
  scaled = np.repeat(scaled, 3 // scaled.shape[-1], axis=-1)
  scaled[lost] = tuple(bytes.fromhex(ALARM[1:]))
  return scaled


def _strip(images: np.ndarray, *, room: int) -> np.ndarray:
  """One row of images side by side, each enlarged by a whole factor to at most `room` pixels."""
  count, h, w, _ = images.shape
  factor = max(1, room // max(h, w))
  large = images.repeat(factor, axis=1).repeat(factor, axis=2)
  h, w = h * factor, w * factor
  gap = 3 + max(h, w) // 24
  strip = np.full((h + 2, count * (w + 2 + gap) - gap, 3), 255, np.uint8)
  for i, image in enumerate(large):
    left = i * (w + 2 + gap)
    strip[:, left : left + w + 2] = 205  # a hairline, or white images would have no edge
    strip[1:-1, left + 1 : left + 1 + w] = image
  return strip


def _wrapped(label: str, height: int, size: float) -> str:
  """The label in as few characters a line as its row has room for lines."""
  lines = max(1, int(height / DPI * 72 / (1.3 * size)))
  for width in (14, 18, 24, 32, 48):
    wrapped = textwrap.wrap(label, width)
    if len(wrapped) <= lines:
      break
  return "\n".join(wrapped)


# Scatter


def _scatter(view: Scatter) -> Figure:
  points = np.asarray(view.points, dtype=np.float64)
  if points.ndim != 2 or points.shape[1] != 2:
    raise ValueError(f"points must be [N, 2]; got shape {points.shape}")
  size = float(np.clip(16000 / max(len(points), 1), 4, 36))
  kwargs = dict(s=size, alpha=0.8 if len(points) < 3000 else 0.55, linewidths=0)

  figure = new_figure(6.4 if view.labels is not None else 5.4, 5.2, layout="constrained")
  axes = figure.add_subplot()
  if view.labels is None:
    axes.scatter(*points.T, color=SPLITS["train"], **kwargs)
  else:
    labels = np.asarray(view.labels).astype(int)
    if labels.shape != (len(points),):
      raise ValueError(f"labels must be [{len(points)}]; got shape {labels.shape}")
    if view.names and labels.size and not 0 <= labels.min() <= labels.max() < len(view.names):
      raise ValueError(
        f"labels must lie in 0..{len(view.names) - 1}, the indices of the names; "
        f"found {labels.min()}..{labels.max()}"
      )
    classes = range(len(view.names)) if view.names else np.unique(labels)
    colours = np.array(_CLASSES)
    # Drawn in a shuffled order, or the last class would hide the others wherever they overlap.
    order = np.random.default_rng(0).permutation(len(points))
    shapes = (labels // len(_CLASSES)) % len(_MARKERS)
    for shape in np.unique(shapes):
      chosen = order[shapes[order] == shape]
      axes.scatter(
        *points[chosen].T,
        c=colours[labels[chosen] % len(_CLASSES)],
        marker=_MARKERS[shape],
        **kwargs,
      )
    handles = [
      Line2D(
        [],
        [],
        ls="",
        ms=6,
        color=_CLASSES[index % len(_CLASSES)],
        marker=_MARKERS[(index // len(_CLASSES)) % len(_MARKERS)],
        label=short(view.names[index], 28) if view.names else str(index),
      )
      for index in classes
    ]
    legend = figure.legend(
      handles=handles,
      loc="outside right upper",
      frameon=False,
      fontsize=9,
      ncols=max(1, math.ceil(len(handles) / 20)),
      handletextpad=0.2,
      labelspacing=0.45,
    )
    for text in legend.get_texts():
      text.set_parse_math(False)
  axes.set_aspect("equal", adjustable="datalim")
  axes.margins(0.04)
  plain_axes(axes)
  axes.set_xlabel(view.axes[0], fontsize=10, color=INK, parse_math=False)
  axes.set_ylabel(view.axes[1], fontsize=10, color=INK, parse_math=False)
  return figure


# Confusion


def _confusion(view: Confusion) -> Figure:
  """Laid out by hand from the widths of the texts: the cells keep their size whatever the names."""
  counts = np.asarray(view.counts)
  classes = len(counts)
  if counts.shape != (classes, classes) or classes == 0:
    raise ValueError(f"counts must be [C, C]; got shape {counts.shape}")
  if len(view.names) != classes:
    raise ValueError(f"{classes} classes but {len(view.names)} names")
  total = int(counts.sum())
  right = int(np.trace(counts))
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

  written = classes <= 30  # beyond that no count could be read; the shading remains
  if classes <= 12:
    cell = max(0.46, min(1.0, 2.0 / classes))  # inches
  else:
    cell = max(0.3, 5.6 / classes) if written else 7.5 / classes
  digits = len(str(int(counts.max())))
  count_size = min(9.0, cell * 72 / (0.68 * max(digits, 3)))
  name_size = min(9.5, max(5.0, cell * 72 * 0.8))
  names = [short(name, 28) for name in view.names]
  name_width = max(text_width(name, name_size) for name in names)
  stride = math.ceil(name_size * 1.15 / (cell * 72))  # names that would touch are left out
  upright = name_width < 0.92 * cell * stride
  slant = math.sin(math.radians(45))
  name_height = 0.17 if upright else slant * (name_width + name_size / 72)

  side = cell * classes
  overall = f"accuracy {right / total:.4g} ({right:,} of {total:,})" if total else "no examples"
  left = 0.12 + 0.22 + name_width + 0.1
  if not upright:  # the first slanted name leans out to the left of the axes
    left = max(left, 0.12 + slant * name_width)
  bottom = 0.12 + 0.22 + name_height + 0.08
  bar = 0.16 + 0.14 + 0.7  # gap, bar, its tick labels and title
  width = max(left + side + bar, left + text_width(overall, 11) + 0.15)
  height = bottom + side + 0.42

  figure = new_figure(width, height)
  axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
  shown = axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
  ticks = np.arange(classes)
  named = dict(labels=names[::stride], fontsize=name_size, color=INK, parse_math=False)
  axes.set_xticks(ticks[::stride], **named)
  axes.set_yticks(ticks[::stride], **named)
  if not upright:
    for text in axes.get_xticklabels():
      text.set(rotation=45, ha="right", va="center", rotation_mode="anchor")
  axes.tick_params(length=0, pad=4)
  if written:
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color=GRID, lw=0.6)
    axes.tick_params(which="minor", length=0)
  for spine in axes.spines.values():
    spine.set(color=RULE, linewidth=0.7)
  # In inches from the corner, so neither title can meet the names.
  middle = (left + side / 2) / width, (bottom + side / 2) / height
  figure.text(middle[0], 0.12 / height, "predicted", ha="center", va="bottom", fontsize=10.5)
  figure.text(0.12 / width, middle[1], "true", va="center", ha="left", rotation=90, fontsize=10.5)
  figure.text(left / width, (bottom + side + 0.12) / height, overall, fontsize=11, color=INK)

  if written:
    for i, j in itertools.product(range(classes), repeat=2):
      # The shade at 0.6 is equally far from both inks; zeros step back.
      colour = "white" if shares[i, j] > 0.6 else INK if counts[i, j] else "#767676"
      text = f"{int(counts[i, j])}"
      axes.text(j, i, text, ha="center", va="center", fontsize=count_size, color=colour)

  x = (left + side + 0.16) / width
  tall = min(side, 3.0)
  scale = figure.add_axes((x, (bottom + side - tall) / height, 0.14 / width, tall / height))
  figure.colorbar(shown, cax=scale, ticks=[0, 0.5, 1])
  scale.tick_params(labelsize=8, length=2, colors=FAINT)
  scale.set_ylabel("share of true class", fontsize=8, color=FAINT, labelpad=5)
  scale.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
  for spine in scale.spines.values():
    spine.set(color=RULE, linewidth=0.7)
  return figure
