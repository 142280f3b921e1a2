"""The ranking metric of a trial as it is written."""

import json
import pathlib


class Curve:
  """The ranking metric of a trial by step, read as it is written.

  Attributes:
    values: (step, value) of the ranking metric.
    step: the newest step of any row.
    first: the newest step when this process began to read.
  """

  def __init__(self, path: pathlib.Path, metric: str, split: str, greatest: bool):
    self._path, self._metric, self._split, self._greatest = path, metric, split, greatest
    self._read, self._begun = 0, False
    self.values: list[tuple[int, float]] = []
    self.step = self.first = 0

  @property
  def last(self) -> float | None:
    return self.values[-1][1] if self.values else None

  @property
  def best(self) -> float | None:
    found = [value for _, value in self.values if value == value]
    return (max if self._greatest else min)(found) if found else None

  def read(self):
    """Reads what was written since."""
    try:
      size = self._path.stat().st_size
      if size == self._read:
        return
      if size < self._read:  # a resumed run forgot rows
        self.values, self._read, self.step = [], 0, 0
      with open(self._path, "rb") as file:
        file.seek(self._read)
        text = file.read()
    except FileNotFoundError:
      return
    whole = text[: text.rfind(b"\n") + 1]
    self._read += len(whole)
    for line in whole.splitlines():
      row = json.loads(line)
      self.step = row["step"]
      if row["split"] == self._split and self._metric in row:
        self.values.append((row["step"], row[self._metric]))
    if not self._begun:
      self._begun, self.first = True, self.step
