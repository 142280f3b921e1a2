"""The learning curves of a run: one panel a metric, its splits together."""

import itertools
import math
import numbers
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report.canvas import (
  FAINT,
  INK,
  curve,
  new_figure,
  not_finite_mark,
  note,
  plain_axes,
  step_axis,
  value_axis,
)
from report.wording import short

# Okabe and Ito (2008); the order is also the order of drawing, so evaluation lies over training.
SPLITS = {"train": "#0072b2", "validation": "#d55e00", "test": "#009e73"}
_OTHER_SPLITS = ("#cc79a7", "#56b4e9", "#000000")


def curves(rows: Iterable[Mapping[str, Any]]) -> Figure:
  """Draws small multiples, one panel a metric, with the splits together.

  Where a metric has several values for one split and step, as after a resume, the last one counts.
  A value that is not finite breaks its line and is marked by a cross at the foot of the panel.
  A positive metric that spans more than two decades has a logarithmic axis.

  Args:
    rows: the lines of metrics.jsonl: "step", "split", optionally "stage", and numbers by name.
  """
  rows = list(rows)
  series = _series(rows)
  if not series:
    return note("No metrics were logged.")

  splits = _ordered_splits({split for by_split in series.values() for split in by_split})
  stages = _stages(rows)
  steps = [row["step"] for row in rows]
  columns = {1: 1, 2: 2, 4: 2}.get(len(series), 3)
  count = math.ceil(len(series) / columns)
  width = 5.4 if columns == 1 else 3.0 * columns if columns == 3 else 4.0 * columns
  figure = new_figure(width, 2.15 * count + 0.4, layout="constrained")
  grid = figure.subplots(count, columns, squeeze=False)
  for axes in grid.flat[len(series) :]:
    axes.set_axis_off()
  broken = False
  for index, (axes, (name, by_split)) in enumerate(zip(grid.flat, series.items(), strict=False)):
    for split, colour in splits.items():
      if split in by_split:
        curve(axes, by_split[split], color=colour, lw=1.3)
    values = [value for by_step in by_split.values() for value in by_step.values()]
    broken |= not all(map(math.isfinite, values))
    axes.set_title(short(name, 36), fontsize=9.5, loc="left", color=INK, pad=4, parse_math=False)
    plain_axes(axes)
    # The same steps in every panel, so that one moment of the run is one place on the page.
    step_axis(axes, steps)
    value_axis(axes, values)
    # Nothing stands below the last panel of a column, so that is where the axis needs its name.
    if index + columns >= len(series):
      axes.set_xlabel("step", fontsize=8.5, color=INK)
    for step, _ in stages[1:]:
      axes.axvline(step, color=FAINT, lw=0.9, ls=(0, (4, 3)), alpha=0.6, zorder=0.5)

  handles = [Line2D([], [], color=colour, lw=2, label=name) for name, colour in splits.items()]
  if broken:
    handles.append(not_finite_mark())
  figure.legend(
    handles=handles,
    loc="outside upper left",
    ncols=max(1, min(len(handles), int(width / 1.3))),
    frameon=False,
    fontsize=9,
    handlelength=1.6,
  )
  if len(stages) > 1:
    # Below the panels and not beside the lines, where a name would lie over the curves.
    figure.supxlabel(
      textwrap.fill(_named_stages(stages), int(width * 14)),
      x=0.01,
      ha="left",
      fontsize=8.5,
      color=FAINT,
      parse_math=False,
    )
  return figure


def _series(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
  """Metric to split to step to value, in the order the panels have."""
  series: dict[str, dict[str, dict[int, float]]] = {}
  for row in rows:
    for name, value in row.items():
      if name in ("step", "split") or isinstance(value, bool):
        continue
      if isinstance(value, numbers.Real):
        series.setdefault(name, {}).setdefault(row["split"], {})[row["step"]] = float(value)

  def place(name: str) -> int:
    if name == "loss":
      return 0
    return 2 if name.rsplit("/", 1)[-1] == "learning_rate" else 1

  return {name: series[name] for name in sorted(series, key=place)}


def _ordered_splits(found: set[str]) -> dict[str, str]:
  others = itertools.cycle(_OTHER_SPLITS)
  known = {split: colour for split, colour in SPLITS.items() if split in found}
  return known | {split: next(others) for split in sorted(found - set(SPLITS))}


def _stages(rows: Iterable[Mapping[str, Any]]) -> list[tuple[int, str]]:
  """(step where it begins, name) of each stage; one begins where the one before was last seen."""
  stages: list[tuple[int, str]] = []
  seen = None
  for row in sorted((row for row in rows if row.get("stage")), key=lambda row: row["step"]):
    if not stages or stages[-1][1] != row["stage"]:
      stages.append((row["step"] if seen is None else seen, row["stage"]))
    seen = row["step"]
  return stages


def _named_stages(stages: list[tuple[int, str]]) -> str:
  if len(stages) > 12:
    return f"Dashed lines: the boundaries of {len(stages)} stages."
  first, *others = stages
  names = "".join(f", then {name} from step {step:,}" for step, name in others)
  return f"Stages: {first[1]}{names} (dashed lines)."
