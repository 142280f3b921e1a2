"""Figures of how a sweep went: how every trial learned, which settings mattered."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report.canvas import (
  FAINT,
  GRID,
  INK,
  WIDTH,
  curve,
  fences,
  new_figure,
  not_finite_mark,
  note,
  plain_axes,
  shade,
  step_axis,
  text_width,
  value_axis,
)
from report.trials import Direction, Trial, ranked
from report.wording import brief, short

_MOST_LABELS = 5
_MARKS = {"pruned": "|", "failed": "x"}

# Learning curves


def learning_curves(
  trials: Sequence[Trial], *, metric: str, direction: Direction, split: str
) -> Figure:
  """Draws every trial's curve coloured by its rank, the best labelled with number and value.

  Args:
    trials: of the sweep.
    metric: the name of the ranking metric.
    direction: whether the least or the greatest value is the best.
    split: the data that the curves were measured on.
  """
  order = [trial for trial in ranked(trials, direction) if trial.curve]
  if not order:
    return note("No trial has been evaluated yet.")
  labelled = [trial for trial in order if trial.finite and trial.state != "failed"][:_MOST_LABELS]
  labels = {trial.id: f"#{trial.id}  {brief(trial.value)}" for trial in labelled}
  margin = max((text_width(label, 9) for label in labels.values()), default=0) + 0.45
  left, bottom, height, top = 0.85, 0.55, 4.3, 0.4
  figure = new_figure(WIDTH, height)
  axes = figure.add_axes(
    (left / WIDTH, bottom / height, 1 - (left + margin) / WIDTH, 1 - (bottom + top) / height)
  )
  plain_axes(axes)
  values = [value for trial in order for _, value in trial.curve]
  finite = [value for value in values if math.isfinite(value)]
  low, high = fences(finite) if finite else (0.0, 0.0)
  step_axis(axes, [step for trial in order for step, _ in trial.curve])
  value_axis(axes, [value for value in finite if low <= value <= high])
  _draw_curves(axes, order, {trial.id for trial in labelled})
  if low < high and (low > min(finite) or high < max(finite)):
    edges = np.array([low, high])
    pad = 0.04
    if axes.get_yscale() == "log":
      axes.set_ylim(*np.exp(np.log(edges) + np.log(high / low) * np.array([-pad, pad])))
    else:
      axes.set_ylim(*(edges + (high - low) * np.array([-pad, pad])))
  axes.set_xlabel("step", fontsize=9.5, color=INK)
  axes.set_ylabel(f"{split} {metric}", fontsize=9.5, color=INK, parse_math=False)
  axes.tick_params(labelsize=9)
  _label_ends(axes, labelled, labels, order)
  handles = [
    Line2D([], [], color=FAINT, ls="", marker=mark, ms=7, mew=1.6, label=state)
    for state, mark in _MARKS.items()
    if any(trial.state == state for trial in order)
  ]
  if len(finite) < len(values):
    handles.append(not_finite_mark())
  if handles:
    axes.legend(
      handles=handles,
      loc="lower left",
      bbox_to_anchor=(0, 1),
      ncols=len(handles),
      frameon=False,
      fontsize=9,
      handletextpad=0.2,
    )
  return figure


def _rank_shade(trial: Trial, order: Sequence[Trial]):
  return shade(order.index(trial) / max(len(order) - 1, 1))


def _draw_curves(axes: Axes, order: Sequence[Trial], thick: set[int]) -> None:
  """Curves from the worst to the best, those of `thick` heavier, with a mark where one stopped."""
  for rank in reversed(range(len(order))):
    trial = order[rank]
    colour = _rank_shade(trial, order)
    heavy = trial.id in thick
    line = curve(
      axes,
      dict(trial.curve),
      color=colour,
      lw=(2.6 if rank == 0 else 1.9) if heavy else 1.1,
      alpha=1.0 if heavy or len(order) <= 60 else 0.5,
      zorder=3 - rank / len(order),
      gid=f"trial {trial.id}",
    )
    ends = [(x, y) for x, y in zip(*line.get_data(), strict=True) if math.isfinite(y)]
    if trial.state in _MARKS and ends:
      axes.plot(
        *ends[-1],
        marker=_MARKS[trial.state],
        color=colour,
        ms=8,
        mew=1.8,
        zorder=3.5,
        gid=f"{trial.state} {trial.id}",
      )


def _label_ends(
  axes: Axes,
  labelled: Sequence[Trial],
  labels: Mapping[int, str],
  order: Sequence[Trial],
) -> None:
  """Labels right of the axes, as near to the ends of their curves as they fit under each other."""
  axes.get_ylim()  # settles the limits, on which the transform depends
  to_axes = axes.transData + axes.transAxes.inverted()
  ends = [
    (trial, max(point for point in trial.curve if math.isfinite(point[1])))
    for trial in labelled
    if any(math.isfinite(value) for _, value in trial.curve)
  ]
  heights = [float(np.clip(to_axes.transform(point)[1], 0, 1)) for _, point in ends]
  for (trial, point), height in zip(ends, _spread(heights, gap=0.062), strict=True):
    axes.annotate(
      labels[trial.id],
      point,
      xytext=(1.035, height),
      textcoords=axes.transAxes,
      ha="left",
      va="center",
      fontsize=9,
      color=INK,
      weight="bold" if trial is order[0] else "normal",
      annotation_clip=False,
      arrowprops=dict(
        arrowstyle="-",
        color=_rank_shade(trial, order),
        lw=1.0,
        relpos=(0, 0.5),
        shrinkA=2,
        shrinkB=1,
      ),
    )


def _spread(heights: Sequence[float], *, gap: float) -> list[float]:
  """Heights moved apart to at least `gap`, in their order, about where they were."""
  order = sorted(range(len(heights)), key=lambda index: heights[index])
  placed = [heights[index] for index in order]
  for index in range(1, len(placed)):
    placed[index] = max(placed[index], placed[index - 1] + gap)
  # So far they only moved up: the mean of it is taken back, as far as there is room below.
  lift = sum(new - heights[index] for new, index in zip(placed, order, strict=True))
  shift = min(lift / max(len(placed), 1), placed[0] if placed else 0.0)
  moved = [0.0] * len(heights)
  for new, index in zip(placed, order, strict=True):
    moved[index] = new - shift
  return moved


# Importances


def importances(values: Mapping[str, float]) -> Figure:
  """Draws the share of each setting as a bar, the greatest at the top, at most fifteen.

  Args:
    values: importance by key.
  """
  known = {key: value for key, value in values.items() if math.isfinite(value)}
  rows = sorted(known.items(), key=lambda item: -item[1])[:15]
  if not rows:
    return note("Too few trials are done to tell.")
  names = [short(key, 44) for key, _ in rows]
  left = max(text_width(name, 9.5) for name in names) + 0.25
  tall, height = 0.34 * len(rows), 0.34 * len(rows) + 0.3
  width = min(WIDTH, left + 4.6)
  figure = new_figure(width, height)
  axes = figure.add_axes((left / width, 0.15 / height, 1 - (left + 0.6) / width, tall / height))
  most = max(rows[0][1], 1e-12)
  axes.barh(range(len(rows)), [value for _, value in rows], height=0.62, color="#3f90da")
  axes.set(xlim=(0, most), ylim=(len(rows) - 0.5, -0.5), xticks=[])
  axes.set_yticks(range(len(rows)), labels=names, fontsize=9.5, color=INK, parse_math=False)
  axes.tick_params(length=0)
  axes.spines[["top", "right", "bottom"]].set_visible(False)
  axes.spines["left"].set(color=GRID)
  for index, (_, value) in enumerate(rows):
    axes.annotate(
      f"{value:.2f}",
      (value, index),
      xytext=(5, 0),
      textcoords="offset points",
      va="center",
      fontsize=9.5,
      color=INK,
      annotation_clip=False,
    )
  return figure
