"""Watching the rows of training metrics for ways in which training fails silently."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.objective import Sentinel
from training.build import Stage

_RUNNING = 3  # rows in which a sentinel must hold
_EARLY = 0.1  # of a stage's steps: what holds there is only a beginning


class Watch:
  """The sentinels of one stage, and for how many rows running each has held."""

  def __init__(self, sentinels: Sequence[Sentinel], steps: int):
    self._held = {sentinel: 0 for sentinel in sentinels}
    self._first = _EARLY * steps
    self._rejected = 0

  def row(self, step: int, values: Mapping[str, float], rejected: int, *, shown: int) -> list[str]:
    """A sentence for each sentinel that this row makes speak; each speaks once.

    Args:
      step: of the stage.
      values: the row's means; empty where all its steps were rejected.
      rejected: steps of the stage that were.
      shown: the step counted through all stages.
    """
    said, more = [], rejected - self._rejected
    self._rejected = rejected
    if more:
      said.append(
        f"rejected {more} step{'s' * (more > 1)} up to step {shown}: a loss or a gradient was not"
        " finite"
      )
    if not values:
      return said
    for sentinel, held in self._held.items():
      if step < self._first or held == _RUNNING:
        continue
      self._held[sentinel] = held + 1 if sentinel.holds(values) else 0
      if self._held[sentinel] == _RUNNING:
        said.append(f"{sentinel.name} at step {shown}: {sentinel.remedy}")
    return said


def warnings(stages: Sequence[Stage], rows: Iterable[Mapping[str, Any]]) -> list[str]:
  """What was warned of in a run with these rows of metrics, read off the rows again."""
  offset, found = 0, []
  rows = [row for row in rows if row["split"] == "train"]
  for stage in stages:
    watch = Watch(stage.task.sentinels(), stage.training.steps)
    for row in rows:
      if offset < row["step"] <= offset + stage.training.steps:
        rates = {name for name in row if name.endswith("learning_rate")}
        values = {k: v for k, v in row.items() if isinstance(v, float) and k not in rates}
        rejected = row["rejected"] if "rejected" in row else 0
        found += watch.row(row["step"] - offset, values, rejected, shown=row["step"])
    offset += stage.training.steps
  return found
