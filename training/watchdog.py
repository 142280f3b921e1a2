"""Ends a run that stands still: a step or a wait for data that never comes back.

A process that hangs holds its devices and says nothing. After `training.stalled_after` seconds
without a sign of life, the stack of every thread goes to the terminal and to `stacks.txt` in the
workdir, and the process exits with status 7. What was saved is as good as after a kill.
"""

import faulthandler
import pathlib
import sys
import threading
import time

from training import processes
from training.errors import StalledError

_LOOK = 0.5  # seconds between looks


class Watchdog:
  """Watches from a thread; a context manager.

  Args:
    limit: seconds without a sign of life that are too long; 0 watches nothing.
    workdir: where the stacks are written.
  """

  def __init__(self, limit: float, workdir: pathlib.Path):
    self._limit, self._workdir = limit, workdir
    self._doing, self._since = "the first step", time.monotonic()
    self._over = threading.Event()

  def __enter__(self) -> "Watchdog":
    if self._limit:
      threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
    return self

  def __exit__(self, *_):
    self._over.set()

  def now(self, doing: str):
    """A sign of life: the run begins to do something else."""
    self._doing, self._since = doing, time.monotonic()

  def _watch(self):
    while not self._over.wait(min(_LOOK, self._limit / 4)):
      if time.monotonic() - self._since > self._limit:
        self._end()

  def _end(self):
    stacks = self._workdir / "stacks.txt"
    error = StalledError(
      f"nothing has happened for {self._limit:g} s in {self._doing}",
      where=str(self._workdir),
      kept="what was saved before",
      do=f"see {stacks.name} for where it stands; training.stalled_after is the limit",
    )
    faulthandler.dump_traceback(sys.stderr)
    try:
      with open(stacks, "w", encoding="utf-8") as file:
        faulthandler.dump_traceback(file)
    except OSError:  # the disk may be what stalls; the terminal has them
      pass
    processes.leave(error)  # an exception would wait for the thread that stands still
