"""Parallel coordinates of a sweep: a line through each trial's settings to its value."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from report.canvas import FAINT, INK, RULE, WIDTH, fences, new_figure, note, shade, text_width
from report.trials import Direction, Trial, best_done, ranked, varied
from report.wording import ABSENT, brief, short, short_names, text

MOST_AXES = 8  # settings in one figure
_NO_VALUE = -0.13  # where lines go that have no value on an axis
_STOPPED = (0, (1, 1.4))
_FAILED = (0, (4, 3))


def axes_of(
  trials: Sequence[Trial], importances: Mapping[str, float]
) -> tuple[list[str], list[str]]:
  """Which settings have an axis among the parallel coordinates.

  Args:
    trials: of the sweep.
    importances: by key.

  Returns:
    The keys with an axis, at most `MOST_AXES` of those that vary, and the keys without one. "seed"
    has none where anything else varies: its numbers have no order.
  """
  keys = varied(trials)
  chosen = [key for key in keys if key != "seed"] or keys
  if len(chosen) > MOST_AXES:
    weights = {key: importances[key] if key in importances else 0.0 for key in chosen}
    best = sorted(chosen, key=lambda key: -weights[key])[:MOST_AXES]
    chosen = [key for key in chosen if key in best]
  return chosen, [key for key in keys if key not in chosen]


@dataclass(frozen=True)
class _Numbers:
  """An axis of numbers, from `low` at its foot (0) to `high` at its head (1)."""

  low: float
  high: float
  values: tuple[float, ...]

  @property
  def log(self) -> bool:
    return self.low > 0 and self.high / self.low > 50

  def place(self, value: float) -> float:
    if self.low == self.high:
      return 0.5
    low, high = self.low, self.high
    value = min(max(value, low), high)
    if self.log:
      return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)

  def ticks(self) -> list[tuple[float, str]]:
    distinct = sorted(set(self.values))
    if len(distinct) <= 7:
      marks = [value for value in distinct if self.low <= value <= self.high]
    elif self.log:
      decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
      steps = (1, 2, 5) if len(decades) <= 4 else (1,)
      marks = [step * 10.0**decade for decade in decades for step in steps]
    else:
      whole = all(float(value).is_integer() for value in distinct)
      marks = MaxNLocator(6, integer=whole, steps=[1, 2, 2.5, 5, 10]).tick_values(
        self.low, self.high
      )
    ticks = [(self.place(mark), brief(float(mark))) for mark in marks if self._holds(mark)]
    # What lies beyond a limit is drawn at it.
    if distinct[0] < self.low:
      ticks.insert(0, (0.0, f"≤ {brief(float(self.low), 3)}"))
    if distinct[-1] > self.high:
      ticks.append((1.0, f"≥ {brief(float(self.high), 3)}"))
    return _thinned(ticks)

  def _holds(self, value: float) -> bool:
    return self.low <= value <= self.high


@dataclass(frozen=True)
class _Categories:
  """An axis of names, the first at its head."""

  names: tuple[str, ...]

  def place(self, value: Any) -> float:
    count = len(self.names)
    return 1 - (self.names.index(text(value)) + 0.5) / count

  def ticks(self) -> list[tuple[float, str]]:
    count = len(self.names)
    places = [(1 - (index + 0.5) / count, name) for index, name in enumerate(self.names)]
    return _thinned([(place, short(name, 18)) for place, name in reversed(places)])


def _thinned(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
  """Ticks from foot to head without those whose labels would touch; both ends stay."""
  kept: list[tuple[float, str]] = []
  for tick in ticks:
    if kept and tick[0] - kept[-1][0] < 0.055:
      if tick is ticks[-1] and len(kept) > 1:
        kept[-1] = tick
      continue
    kept.append(tick)
  return kept


def _axis(values: Sequence[Any]) -> _Numbers | _Categories:
  present = [value for value in values if value is not ABSENT]
  if all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in present) and all(
    map(math.isfinite, present)
  ):
    return _Numbers(min(present), max(present), tuple(present))
  return _Categories(tuple(dict.fromkeys(map(text, present))))


def draw(
  trials: Sequence[Trial],
  *,
  metric: str,
  direction: Direction,
  importances: Mapping[str, float],
) -> Figure:
  """Draws each trial as a line through its settings to its value.

  A numeric axis is logarithmic where its values are positive and span a factor of 50. Trials that
  stopped before their end are dotted; those without a value are grey dashes to below the last axis.

  Args:
    trials: of the sweep.
    metric: the name of the ranking metric.
    direction: whether the least or the greatest value is the best.
    importances: by key; they choose among more settings than there is room for.
  """
  keys, _ = axes_of(trials, importances)
  if not keys:
    return note("No setting was varied.")
  axes_by_key = {key: _axis([trial.setting(key) for trial in trials]) for key in keys}
  values = [trial.value for trial in trials if trial.finite]
  last = _Numbers(*fences(values), tuple(values)) if values else None
  names = [*short_names(keys).values(), metric]
  columns = [*axes_by_key.values(), last]
  lacking = [any(trial.setting(key) is ABSENT for trial in trials) for key in keys]
  feet = ["default" if lacks else "" for lacks in lacking]
  feet.append("no value" if len(values) < len(trials) else "")
  axes = _parallel_axes(names, columns, feet, direction)

  order = ranked(trials, direction)
  winner = best_done(order)
  alpha = 0.9 if len(trials) <= 60 else 0.4
  for trial in reversed(order):  # the best over the others
    heights = [
      _NO_VALUE if trial.setting(key) is ABSENT else axis.place(trial.setting(key))
      for key, axis in axes_by_key.items()
    ]
    style = dict(color="#a8a8a8", lw=1.0, ls=_FAILED, zorder=1.5)
    if trial.finite:
      height = last.place(trial.value)
      badness = height if direction == "least" else 1 - height
      style = dict(color=shade(badness), lw=1.3, alpha=alpha, zorder=2)
      style["ls"] = "-" if trial.state == "done" else _STOPPED
    if trial is winner:
      style |= dict(lw=3.0, alpha=1.0, zorder=2.5)
    axes.plot(
      range(len(columns)),
      [*heights, height if trial.finite else _NO_VALUE],
      gid=f"trial {trial.id}",
      clip_on=False,
      solid_joinstyle="round",
      **style,
    )
  return axes.figure


def _parallel_axes(
  names: Sequence[str],
  columns: Sequence[_Numbers | _Categories | None],
  feet: Sequence[str],
  direction: Direction,
) -> Axes:
  """The axes, their ticks and titles; one unit across is the way from one axis to the next.

  Args:
    names: of the axes.
    columns: their scales; the last, of the metric, may be None for want of a value.
    feet: what stands below each axis where lines go that have no value on it, or nothing.
    direction: whether the least or the greatest value is the best.
  """
  end = len(columns) - 1
  ticks = [column.ticks() if column else [] for column in columns]
  for marks, foot in zip(ticks, feet, strict=True):
    if foot:
      marks.append((_NO_VALUE, foot))
  titles = [_folded(name) for name in names]
  half_titles = [text_width(title, 9.5) / 2 for title in titles]
  first, last = (
    max((text_width(label, 8.5) for _, label in ticks[index]), default=0) for index in (0, -1)
  )
  left = max(first + 0.2, half_titles[0]) + 0.12
  right = max(last + 0.35, half_titles[-1]) + 0.12
  width = min(WIDTH, left + right + 2.2 * end)
  lines = max(title.count("\n") for title in titles) + 1
  bottom, tall = 0.65 if any(feet) else 0.25, 3.1
  height = bottom + tall + 0.35 + 0.17 * lines
  figure = new_figure(width, height)
  across = (width - left - right) / width
  axes = figure.add_axes((left / width, bottom / height, across, tall / height))
  axes.set(xlim=(0, end), ylim=(0, 1))
  axes.set_axis_off()
  axes.patch.set_visible(False)
  inches = (width - left - right) / end
  for index, (title, marks) in enumerate(zip(titles, ticks, strict=True)):
    axes.plot([index, index], [0, 1], color=RULE, lw=1.0, zorder=1, clip_on=False)
    axes.text(
      index,
      1.07,
      title,
      ha="center",
      va="baseline",
      fontsize=min(9.5, 9.5 * 0.96 * inches / (2 * half_titles[index] or 1)),
      color=INK,
      parse_math=False,
      linespacing=1.1,
    )
    for place, label in marks:
      axes.plot([index], [place], marker="_", ms=5, color=FAINT, zorder=1, clip_on=False)
      _label(axes, index, place, label, end)
  if columns[-1]:
    # The last axis is the key to the colours.
    thickness = 0.08 / inches
    for foot in np.linspace(0, 1, 64, endpoint=False):
      height = foot + 0.5 / 64
      colour = shade(height if direction == "least" else 1 - height)
      band = Rectangle((end, foot), thickness, 1 / 64, fc=colour, lw=0, zorder=1, clip_on=False)
      axes.add_patch(band)
  return axes


def _label(axes: Axes, index: int, place: float, label: str, end: int) -> None:
  """A tick's label: left of its axis, or right of the last one, over the lines and legible."""
  last = index == end
  axes.annotate(
    label,
    (index, place),
    xytext=(11 if last else -5, 0),
    textcoords="offset points",
    ha="left" if last else "right",
    va="center",
    fontsize=8.5,
    color=INK,
    zorder=4,
    annotation_clip=False,
    parse_math=False,
    bbox=dict(fc="white", ec="none", alpha=0.75, pad=0.6),
  )


def _folded(name: str) -> str:
  """A name in at most three lines, broken after its dots, slashes and underscores."""
  name = short(name, 42)
  lines, line = [], ""
  start = 0
  pieces = []
  for index, letter in enumerate(name):
    if letter in "._/ ":
      pieces.append(name[start : index + 1])
      start = index + 1
  for piece in [*pieces, name[start:]]:
    if line and len(line) + len(piece) > 14:
      lines.append(line)
      line = ""
    line += piece
  return "\n".join([*lines, line])
