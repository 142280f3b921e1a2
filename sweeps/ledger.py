"""The ledger of a sweep: what was asked, what became of each trial, who works on it.

A sweep is a directory of small JSON files, each written whole or not at all, so that whatever is
killed, what is there is true:

  sweep.json             what was asked
  trials/0003/           the workdir of a trial, and in it trial.json, its entry
  trials/0003/claim.1    who works on it; its age says whether they still do
  jobs/HOST-PID-1.json   what a job was given to do; .log beside it is what it printed
  workers/HOST-PID       the controllers that are alive, by their age

Machines that share the directory share the sweep. There is no server and no lock that a dead
process could keep.
"""

import dataclasses
import json
import os
import pathlib
import socket
import time
from collections.abc import Sequence
from typing import Any

from training import workdir as workdirs
from training.errors import StorageError

HEARTBEAT = 5.0  # seconds between signs of life
_LEASE = 60.0  # seconds without one after which a claim is anybody's
LIVE = ("pending", "running", "interrupted")  # states from which a trial goes on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """What became of a trial.

  Attributes:
    id: its number.
    overrides: dotted config key to value.
    state: one of `report.trials.STATES`.
    attempts: how often it was started.
    status: exit status of the last attempt, as `launch.py train` would have given; None before.
    error: the last attempt's last line of error.
    where: host and devices of the last attempt.
    started: of the last attempt, seconds since 1970.
    seconds: of all attempts.
    value: the ranking metric at the end.
  """

  id: int
  overrides: dict[str, Any]
  state: str = "pending"
  attempts: int = 0
  status: int | None = None
  error: str = ""
  where: str = ""
  started: float = 0.0
  seconds: float = 0.0
  value: float | None = None

  def started_now(self, where: str) -> "Entry":
    """The entry of a new attempt."""
    return dataclasses.replace(
      self,
      state="running",
      attempts=self.attempts + 1,
      status=None,
      error="",
      where=where,
      started=time.time(),
    )

  def ended(self, state: str, *, status: int | None, error: str = "", value=None) -> "Entry":
    """The entry after its attempt ended."""
    return dataclasses.replace(
      self,
      state=state,
      status=status,
      error=error,
      seconds=self.seconds + max(time.time() - self.started, 0.0),
      value=value,
    )


class Ledger:
  """The files of one sweep.

  Raises:
    StorageError: the directory cannot be written, or has a link to somewhere else.
  """

  def __init__(self, path: str | pathlib.Path):
    self.path = pathlib.Path(path).absolute()
    workdirs.refuse_links(self.path)
    self.me = f"{socket.gethostname()}-{os.getpid()}"
    try:
      for name in ("trials", "jobs", "workers"):
        (self.path / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise StorageError(
        f"cannot write to {self.path} ({error.strerror})", do="choose another --workdir"
      ) from None

  # What was asked

  def asked(self) -> dict[str, Any] | None:
    """What was asked, None where nothing was yet."""
    return _json(self.path / "sweep.json")

  def ask(self, asked: dict[str, Any]):
    workdirs.write_json(self.path / "sweep.json", asked)

  # Trials

  def workdir(self, trial: int) -> pathlib.Path:
    return self.path / "trials" / f"{trial:04d}"

  def add(self, overrides: dict[str, Any]) -> Entry:
    """A new pending trial."""
    number = len(list((self.path / "trials").iterdir()))
    while True:
      try:
        self.workdir(number).mkdir()
        break
      except FileExistsError:
        number += 1
    entry = Entry(id=number, overrides=overrides)
    self.write(entry)
    return entry

  def write(self, entry: Entry):
    workdirs.write_json(self.workdir(entry.id) / "trial.json", dataclasses.asdict(entry))

  def read(self, trial: int) -> Entry:
    return Entry(**_json(self.workdir(trial) / "trial.json"))

  def entries(self) -> list[Entry]:
    """All trials by number. One whose first entry was not written before a kill is forgotten."""
    found = []
    for place in sorted((self.path / "trials").glob("[0-9]*"), key=lambda place: int(place.name)):
      entry = _json(place / "trial.json")
      if entry is not None:
        found.append(Entry(**entry))
    return found

  def tell_to_stop(self, trial: int, why: str):
    """Asks whoever runs a trial to save it and go on with the next."""
    workdirs.write_text(self.workdir(trial) / "stop", why)

  def told_to_stop(self, trial: int) -> str:
    """Why a trial is to stop; empty where it is not."""
    try:
      return (self.workdir(trial) / "stop").read_text(encoding="utf-8")
    except FileNotFoundError:
      return ""

  def forget_stop(self, trial: int):
    (self.workdir(trial) / "stop").unlink(missing_ok=True)

  # Claims: which controller a trial is with

  def claim(self, trial: int) -> bool:
    """Whether the trial is now ours to run; of any number of machines one gets it."""
    number = self._claims(trial)
    if number and self._fresh(self._claim(trial, number)):
      return False
    # Claims are numbered and none is ever removed, so who looked too early finds the number taken.
    # A link appears whole or not at all, also between machines.
    written = self.workdir(trial) / f".claim.{self.me}"
    written.write_text(self.me, encoding="utf-8")
    try:
      os.link(written, self._claim(trial, number + 1))
    except FileExistsError:
      return False
    finally:
      written.unlink()
    return True

  def release(self, trial: int):
    """Gives up a claim of ours."""
    number = self._claims(trial)
    if number and self._claim(trial, number).read_text(encoding="utf-8") == self.me:
      workdirs.write_text(self._claim(trial, number), "")

  def claimed(self, trial: int) -> bool:
    """Whether anybody who is alive has the trial."""
    number = self._claims(trial)
    return number > 0 and self._fresh(self._claim(trial, number))

  def _claims(self, trial: int) -> int:
    """How many claims there have been; the last one counts."""
    return len(list(self.workdir(trial).glob("claim.*")))

  def _claim(self, trial: int, number: int) -> pathlib.Path:
    return self.workdir(trial) / f"claim.{number}"

  def alive(self, trials: Sequence[int]):
    """A sign of life, for oneself and for the trials that one has claimed."""
    _touch(self.path / "workers" / self.me)
    for trial in trials:
      os.utime(self._claim(trial, self._claims(trial)))

  def gone(self):
    """Leaves the sweep."""
    (self.path / "workers" / self.me).unlink(missing_ok=True)

  def controllers(self) -> int:
    """How many controllers are alive."""
    return sum(self._fresh(file) for file in (self.path / "workers").glob("[!.]*"))

  def _fresh(self, file: pathlib.Path) -> bool:
    """Whether a file's owner gave a sign of life, by the clock of the machine that keeps it."""
    try:
      age = self._now() - file.stat().st_mtime
      owner = file.name if file.parent.name == "workers" else file.read_text(encoding="utf-8")
    except FileNotFoundError:
      return False
    return bool(owner) and age < _LEASE and not _dead(owner)

  def _now(self) -> float:
    clock = self.path / "workers" / f".clock.{self.me}"
    _touch(clock)
    now = clock.stat().st_mtime
    clock.unlink(missing_ok=True)
    return now

  # Jobs: what a worker process has been given

  def give(self, job: str, batches: Sequence[Sequence[int]], *, closed: bool):
    """Says what a job is to do; batches only ever get appended."""
    workdirs.write_json(
      self.path / "jobs" / f"{job}.json", {"batches": [list(b) for b in batches], "closed": closed}
    )

  def given(self, job: str) -> tuple[list[list[int]], bool]:
    """(batches of trials, whether no more will come)."""
    found = _json(self.path / "jobs" / f"{job}.json")
    return found["batches"], found["closed"]

  def log(self, job: str) -> pathlib.Path:
    return self.path / "jobs" / f"{job}.log"

  def last_error(self, job: str) -> str:
    """The last line that a job printed, which is what ended it where anything was said."""
    try:
      lines = self.log(job).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
      return ""
    lines = [line.strip() for line in lines if line.strip()]
    return lines[-1][:500] if lines else ""


def _json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    return None


def _touch(path: pathlib.Path):
  path.touch()
  os.utime(path)


def _dead(owner: str) -> bool:
  """Whether an owner was a process of this machine that is no more."""
  host, _, process = owner.rpartition("-")
  if host != socket.gethostname() or not process.isdecimal():
    return False
  try:
    os.kill(int(process), 0)
  except ProcessLookupError:
    return True
  except PermissionError:
    return False
  return False
