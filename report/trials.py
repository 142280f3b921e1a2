"""The trials of a sweep as plain data, and their order."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from report.wording import ABSENT, text

Direction = Literal["least", "greatest"]

STATES = ("done", "failed", "pruned", "timeout", "interrupted", "running", "pending")


class Trial(NamedTuple):
  """One trial, whatever has become of it.

  Attributes:
    id: its number in the sweep.
    overrides: dotted config key to value.
    state: one of `STATES`.
    value: the ranking metric at the end, or None.
    best: the best that the ranking metric has been at any step, or None.
    step: the last training step.
    seconds: of wall time.
    error: why it failed, or empty; a traceback ends with the line that is shown.
    curve: (step, value) of the ranking metric on the split that ranks.
    metrics: the numbers of the final evaluation, by split and name: "test/loss".
  """

  id: int
  overrides: dict[str, Any]
  state: str
  value: float | None
  best: float | None
  step: int
  seconds: float
  error: str
  curve: list[tuple[int, float]]
  metrics: dict[str, float]

  def setting(self, key: str) -> Any:
    """What it overrides `key` with, or `ABSENT`."""
    return self.overrides[key] if key in self.overrides else ABSENT

  @property
  def finite(self) -> bool:
    """Whether it has a value that can be compared."""
    return self.value is not None and math.isfinite(self.value)

  @property
  def compared(self) -> bool:
    """Whether it is done with a value, and so has a rank."""
    return self.state == "done" and self.finite

  @property
  def last_line(self) -> str:
    """The last line of its error."""
    lines = self.error.strip().splitlines()
    return lines[-1].strip() if lines else ""


class Group(NamedTuple):
  """Trials that differ in nothing but their seeds.

  Attributes:
    overrides: what they have in common.
    mean: of the values of those that are done.
    deviation: the standard deviation of these values (n - 1), or None for a single one.
    count: how many are done with a finite value.
    total: how many there are.
  """

  overrides: dict[str, Any]
  mean: float
  deviation: float | None
  count: int
  total: int


def ranked(trials: Iterable[Trial], direction: Direction) -> list[Trial]:
  """Trials from best to worst.

  First those that are done, by value, with equal values in the order of their numbers and those
  without a finite value last; then the unfinished, by state and value; at the end the failed.

  Args:
    trials: in any order.
    direction: whether the least or the greatest value is the best.

  Raises:
    ValueError: the direction is neither.
  """
  sign = _sign(direction)

  def place(trial: Trial):
    part = {"done": 0, "failed": 2}.get(trial.state, 1)
    value = sign * trial.value if trial.finite else math.inf
    return part, STATES.index(trial.state), value, trial.id

  return sorted(trials, key=place)


def best_done(order: Sequence[Trial]) -> Trial | None:
  """The winner of trials in the order of `ranked`, or None before any is done."""
  return order[0] if order and order[0].compared else None


def varied(trials: Sequence[Trial]) -> list[str]:
  """The keys in which the trials differ; all keys where they differ in none."""
  keys = list(dict.fromkeys(key for trial in trials for key in trial.overrides))
  differing = [key for key in keys if len({text(trial.setting(key)) for trial in trials}) > 1]
  return differing or keys


def over_seeds(trials: Sequence[Trial], direction: Direction) -> list[Group]:
  """Groups of trials that differ in "seed" alone, by their mean, those without a mean last.

  Args:
    trials: of a sweep that varies "seed" among other keys.
    direction: whether the least or the greatest mean is the best.

  Raises:
    ValueError: the direction is neither.
  """
  sign = _sign(direction)
  members: dict[str, list[Trial]] = {}
  for trial in trials:
    common = {key: value for key, value in trial.overrides.items() if key != "seed"}
    members.setdefault(text(dict(sorted(common.items()))), []).append(trial)
  groups = []
  for alike in members.values():
    values = [trial.value for trial in alike if trial.compared]
    groups.append(
      Group(
        {key: value for key, value in alike[0].overrides.items() if key != "seed"},
        statistics.fmean(values) if values else math.nan,
        statistics.stdev(values) if len(values) > 1 else None,
        len(values),
        len(alike),
      )
    )
  return sorted(groups, key=lambda group: sign * group.mean if group.count else math.inf)


def counts(states: Sequence[str]) -> str:
  """States in words: "18 done, 1 failed, 1 pruned of 20"."""
  parts = [f"{states.count(state):,} {state}" for state in STATES if state in states]
  return f"{', '.join(parts)} of {len(states):,}" if parts else "no trials"


def _sign(direction: Direction) -> int:
  if direction not in ("least", "greatest"):
    raise ValueError(f'direction must be "least" or "greatest"; got {direction!r}')
  return 1 if direction == "least" else -1
