"""What a person sees of a sweep: a table that lives while it runs, and one of its results."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from report.trials import Direction, Trial, ranked, varied
from report.wording import ABSENT, brief, duration, short, short_names

if TYPE_CHECKING:  # rich takes a tenth of a second, which --help need not pay
  from rich.table import Table
  from rich.text import Text

_WIDTH = 100  # columns of a terminal that a table keeps to
_SILENCE = 10.0  # seconds between plain lines of progress
_LAST_FINISHED = 5  # rows of the live table besides those that run
_STYLES = {
  "done": "green",
  "failed": "bold red",
  "pruned": "yellow",
  "timeout": "yellow",
  "interrupted": "yellow",
  "running": "cyan",
  "pending": "dim",
}


class Row(NamedTuple):
  """What the live table says of one trial.

  Attributes:
    id: its number in the sweep.
    state: one of `report.trials.STATES`.
    step: how far it has come.
    total: the step at which it is done.
    value: the newest value of the ranking metric, or None.
    best: the best value so far, or None.
    eta_seconds: how long it will still take, or None where that is not known.
    overrides: dotted config key to value.
    error: why it failed, or empty.
  """

  id: int
  state: str
  step: int
  total: int
  value: float | None
  best: float | None
  eta_seconds: float | None
  overrides: Mapping[str, Any]
  error: str


class Live:
  """The sweep as it runs: a table on a terminal, plain lines elsewhere.

  What is finished at the first update was finished by an earlier session and makes no line.

  Args:
    metric: the name of the ranking metric.
  """

  def __init__(self, metric: str):
    self._metric = metric
    self._states: dict[int, str] | None = None  # before the first update
    self._finished: list[int] = []  # the newest last
    self._printed, self._summary, self._said = time.monotonic(), "", ""
    self._live = None
    if sys.stdout.isatty():
      from rich.console import Console
      from rich.live import Live as RichLive

      self._live = RichLive(console=Console(), auto_refresh=False)
      self._live.start()

  def update(self, trials: Sequence[Row], summary: str):
    """Shows where the trials are.

    Args:
      trials: all of them, in any order.
      summary: one line about the sweep as a whole.
    """
    self._summary = summary
    changed = self._changed(trials)
    names = short_names(dict.fromkeys(key for row in trials for key in row.overrides))
    if self._live is None:
      for row in changed:
        print(_line(row, self._metric, names), flush=True)
      if time.monotonic() - self._printed >= _SILENCE:
        self._say()
      return
    for row in changed:
      if row.state == "failed":  # stays in sight above the table
        self._live.console.print(
          _line(row, self._metric, names), style="red", markup=False, highlight=False
        )
    room = max(4, self._live.console.height - 8)
    shown, hidden = _chosen(trials, self._finished, room)
    table = _live_table(shown, names, self._metric, caption=_caption(summary, hidden))
    self._live.update(table, refresh=True)

  def close(self):
    """Leaves the last table standing, or says the last summary."""
    if self._live is not None:
      self._live.stop()
    elif self._summary != self._said:
      self._say()

  def _say(self):
    print(self._summary, flush=True)
    self._printed, self._said = time.monotonic(), self._summary

  def _changed(self, trials: Sequence[Row]) -> list[Row]:
    """The trials whose state is news; remembers all states."""
    before = self._states
    self._states = {row.id: row.state for row in trials}
    news = []
    for row in sorted(trials, key=lambda row: row.id):
      old = before[row.id] if before is not None and row.id in before else "pending"
      if row.state == old:
        continue
      finished = row.state not in ("pending", "running")
      if finished:
        self._finished = [number for number in self._finished if number != row.id] + [row.id]
      if before is not None or not finished:
        news.append(row)
    return news


def _chosen(
  trials: Sequence[Row], finished: Sequence[int], room: int
) -> tuple[list[Row], dict[str, int]]:
  """(the rows there is room for, how many of each state are not among them)."""
  running = [row for row in trials if row.state == "running"]
  ended = {row.id: row for row in trials if row.state not in ("running", "pending")}
  last = [ended[number] for number in finished if number in ended][-_LAST_FINISHED:]
  # Trials that run matter more, yet the newest result is always worth a row.
  running = sorted(running, key=lambda row: row.id)[: max(1, room - min(len(last), 1))]
  last = last[-(room - len(running)) :] if room > len(running) else []
  shown = [*last, *running]
  numbers = {row.id for row in shown}
  hidden: dict[str, int] = {}
  for row in trials:
    if row.id not in numbers:
      hidden[row.state] = hidden.get(row.state, 0) + 1
  return shown, hidden


def _caption(summary: str, hidden: Mapping[str, int]) -> str:
  if not hidden:
    return summary
  rest = ", ".join(f"{count} {state}" for state, count in hidden.items())
  return f"{summary}\n… and {sum(hidden.values())} more: {rest}"


def _live_table(
  rows: Sequence[Row], names: Mapping[str, str], metric: str, *, caption: str
) -> Table:
  from rich.text import Text

  table = _table(caption)
  table.expand = True  # or the last column would not give way to the others
  for heading in ("trial", "state", "step", metric, "best", "left"):
    words = heading == "state"
    table.add_column(Text(heading), justify="left" if words else "right", no_wrap=True, min_width=4)
  table.add_column("overrides", no_wrap=True, overflow="ellipsis", ratio=1)
  for row in rows:
    table.add_row(
      f"{row.id}",
      _state(row.state),
      f"{row.step:,}/{row.total:,}",
      _number(row.value),
      _number(row.best),
      "" if row.eta_seconds is None or row.state != "running" else duration(row.eta_seconds),
      Text(_settings(row.overrides, names)),
    )
  return table


def _line(row: Row, metric: str, names: Mapping[str, str]) -> str:
  """One trial as a plain line."""
  parts = [f"trial {row.id}: {row.state}"]
  if row.step or row.state not in ("running", "pending"):
    parts.append(f"{row.step:,}/{row.total:,}")
  if row.value is not None:
    parts.append(f"{metric} {brief(float(row.value))}")
  if row.best is not None and row.best != row.value:
    parts.append(f"best {brief(float(row.best))}")
  parts.append(_settings(row.overrides, names))
  if row.error.strip():
    parts.append(short(row.error.strip().splitlines()[-1], 160))
  return "  ".join(part for part in parts if part)


def terminal_table(
  trials: Sequence[Trial], *, metric: str, direction: Direction, rows: int = 20
) -> Table:
  """The results of a sweep, best first.

  Args:
    trials: in any order.
    metric: the name of the ranking metric.
    direction: whether the least or the greatest value is the best.
    rows: how many trials are shown at most; how many more there are is said below them.

  Returns:
    A table for rich, at most 100 columns wide.

  Raises:
    ValueError: the direction is neither "least" nor "greatest".
  """
  from rich.text import Text

  order = ranked(trials, direction)
  shown, hidden = order[:rows], order[rows:]
  keys = varied(order)
  names = short_names(keys)
  fixed = [
    (str(trial.id), trial.state, _number(trial.value), f"{trial.step:,}", duration(trial.seconds))
    for trial in shown
  ]
  settings = [
    tuple("" if trial.setting(key) is ABSENT else _value(trial.setting(key)) for key in keys)
    for trial in shown
  ]
  headings = ("trial", "state", metric, "steps", "time", *names.values())
  cells = [(*first, *rest) for first, rest in zip(fixed, settings, strict=True)]
  # Three columns of space stand between two columns of the table.
  widths = [max(map(len, column)) + 3 for column in zip(headings, *cells, strict=True)]
  if sum(widths) > _WIDTH:  # too many settings for a column each
    headings = (*headings[:5], "overrides")
    cells = [
      (
        *first,
        _settings({key: trial.setting(key) for key in keys if key in trial.overrides}, names),
      )
      for first, trial in zip(fixed, shown, strict=True)
    ]
  failures = [
    f"trial {trial.id} failed: {short(trial.last_line, 80)}" for trial in order if trial.last_line
  ]
  if len(failures) > 3:
    failures[3:] = [f"… and {len(failures) - 3} more failures"]
  more = [f"… and {len(hidden):,} more"] if hidden else []
  table = _table("\n".join([*more, *failures]))
  room = _WIDTH - sum(widths[:5]) - 2
  for index, heading in enumerate(headings):
    folded = heading == "overrides" and index == 5
    justify = "left" if folded or heading == "state" else "right"
    most = max(room, 20) if folded else None
    table.add_column(Text(heading), justify=justify, overflow="fold", max_width=most)
  for first, *middle in cells:
    table.add_row(first, _state(middle[0]), *map(Text, middle[1:]))
  return table


def _table(caption: str) -> Table:
  from rich import box
  from rich.table import Table
  from rich.text import Text

  return Table(
    box=box.SIMPLE_HEAD,
    pad_edge=False,
    padding=(0, 1),
    caption=Text(caption, justify="left") if caption else None,
    caption_justify="left",
    caption_style="",
  )


def _state(state: str) -> Text:
  from rich.text import Text

  return Text(state, style=_STYLES[state])


def _number(value: float | None) -> str:
  return "" if value is None else brief(float(value), 5)


def _value(value: Any) -> str:
  return short(brief(value), 24)


def _settings(overrides: Mapping[str, Any], names: Mapping[str, str]) -> str:
  return ", ".join(f"{names[key]} {_value(value)}" for key, value in overrides.items())
