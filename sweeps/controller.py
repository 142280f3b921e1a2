"""The controller of a sweep: hands trials to jobs, and writes down what becomes of them.

It may be killed at any moment. What it knows is in the ledger; a controller that starts on the same
directory goes on from there, and several may work on one directory at the same time.
"""

import collections
import dataclasses
import json
import pathlib
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from report.trials import Trial
from sweeps.curve import Curve
from sweeps.display import Live, Row
from sweeps.engines import Ended, Engine, Job
from sweeps.ledger import HEARTBEAT, LIVE, Entry, Ledger
from training.errors import Interrupted, UserError
from training.loop import Stop

_POLL = 0.05  # seconds between two looks at everything
_SHOWN = 0.5  # seconds between two drawings of the table
_OTHERS = 2.0  # seconds between two looks at trials that other machines run
_LOST = 5  # times that a trial may lose its machine before it counts as failed
_BARREN = 3  # jobs that end without having begun anything before the sweep gives up
_IDLE = 5.0  # seconds without work after which a job makes room for others
_SICK = 3  # crashes in a row after which a device gets no more work


class SweepError(UserError):
  """A sweep that cannot or shall not go on."""

  code, status = "SWEEP", 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """How trials are run, which changes no result.

  Attributes:
    population: whether trials that share a program share a process: one after another, vectorised
      (at once under vmap), auto (at once on accelerators where that measures faster), or off (a
      process for each trial).
    group: the most trials that are trained at once.
    timeout: seconds that one attempt at a trial may take; 0 for no limit.
    retries: how often a trial is tried again after its process died.
    max_failures: trials that may fail before the sweep stops; 0 for no limit.
    grace: seconds that a trial told to stop has to save before its process is ended.
  """

  population: Literal["auto", "sequential", "vectorised", "off"] = "auto"
  group: Annotated[int, "[1, inf)"] = 64
  timeout: Annotated[float, "[0, inf)"] = 0.0
  retries: Annotated[int, "[0, inf)"] = 1
  max_failures: Annotated[int, "[0, inf)"] = 0
  grace: Annotated[float, "[0, inf)"] = 20.0


@dataclasses.dataclass
class _Assigned:
  """A job that runs, and what it was given."""

  batches: list[list[int]]
  closed: bool = False
  busy: float = dataclasses.field(default_factory=time.monotonic)  # when it last had work

  @property
  def trials(self) -> list[int]:
    return [trial for batch in self.batches for trial in batch]


class Controller:
  """Runs the trials of a ledger to their end.

  Args:
    ledger: the sweep.
    engine: what runs jobs.
    limits: how.
    command: `(job) -> argv` of a worker.
    structure: `(entry) -> structure` of its experiment; trials of one structure share a program.
    metric: the ranking metric, read off the rows of `split`.
    split: "validation", or "train" where there is none.
    total: `(entry) -> training steps`, for the display.
    search: proposes trials and stops them, or None.
    wanted: how many trials a search makes in all.
    helping: with a sweep that another machine has begun, as long as anybody works on it.
  """

  def __init__(
    self,
    ledger: Ledger,
    engine: Engine,
    limits: Limits,
    *,
    command: Callable[[str], list[str]],
    structure: Callable[[Entry], str],
    metric: str,
    split: str,
    total: Callable[[Entry], int],
    search=None,
    wanted: int = 0,
    helping: bool = False,
  ):
    self._ledger, self._engine, self._limits = ledger, engine, limits
    self._command, self._structure = command, structure
    self._search, self._wanted, self._total = search, wanted, total
    self._helping = helping
    self._jobs: dict[str, _Assigned] = {}
    self._made = 0
    self._entries: dict[int, Entry] = {}
    self._curves: dict[int, Curve] = {}
    self._seen: dict[int, str] = {}  # the state in which a trial's curve was last read
    self._told: set[int] = set()  # trials whose end the search has heard
    self._due: dict[int, float] = {}  # when a trial that was told to stop is ended by force
    self._lost = collections.Counter()  # times a trial's machine was lost
    self._sick = collections.Counter()  # crashes in a row, by device
    self._barren = 0
    self._beat = self._looked = self._drawn = 0.0
    self._metric, self._split = metric, split

  def run(self, display: Live, *, stop: Stop):
    """Until every trial has ended.

    Raises:
      Interrupted: a stop was asked for; what ran has been saved.
      SweepError: too many trials failed, or nothing can be run at all.
    """
    for entry in self._ledger.entries():
      self._entries[entry.id] = entry
    self._restart()
    try:
      while True:
        self._beat_and_read()
        self._settle(self._engine.ended())
        self._follow()
        self._check(stop)
        self._refill()
        self._dispatch()
        self._show(display)
        if self._finished():
          break
        time.sleep(_POLL)
    finally:
      self._close()
      self._show(display, now=True)
      self._ledger.gone()

  def _finished(self) -> bool:
    if any(entry.state in LIVE for entry in self._entries.values()):
      return False
    # Who helps with a sweep cannot know what a search will still propose.
    return len(self._entries) >= self._wanted and not (
      self._helping and self._ledger.controllers() > 1
    )

  def trials(self) -> list[Trial]:
    """What became of every trial, as a report shows it."""
    return [self._trial(entry) for _, entry in sorted(self._entries.items())]

  def _trial(self, entry: Entry) -> Trial:
    curve = self._curve(entry.id)
    evaluation = _json(self._ledger.workdir(entry.id) / "evaluation.json")
    splits = evaluation["splits"] if evaluation and entry.state == "done" else {}
    return Trial(
      id=entry.id,
      overrides=entry.overrides,
      state=entry.state,
      value=entry.value,
      best=curve.best,
      step=curve.step,
      seconds=entry.seconds,
      error=entry.error,
      curve=curve.values,
      metrics={
        f"{split}/{name}": value for split, found in splits.items() for name, value in found.items()
      },
    )

  def _curve(self, trial: int) -> Curve:
    if trial not in self._curves:
      path = self._ledger.workdir(trial) / "metrics.jsonl"
      self._curves[trial] = Curve(path, self._metric, self._split, self._greatest)
    self._curves[trial].read()
    return self._curves[trial]

  @property
  def _greatest(self) -> bool:
    return self._ledger.asked()["direction"] == "greatest"

  # What has happened

  def _restart(self):
    """Takes up what an earlier controller left, and lets the search hear of it."""
    for entry in list(self._entries.values()):
      if entry.state == "running" and not self._ledger.claimed(entry.id):
        self._write(dataclasses.replace(entry, state="interrupted"))
      if entry.state in LIVE and not self._ledger.claimed(entry.id):
        self._ledger.forget_stop(entry.id)
    if self._search is not None:
      self._search.restore(self.trials())
      self._told = {entry.id for entry in self._entries.values() if entry.state not in LIVE}

  def _beat_and_read(self):
    """Gives a sign of life, and reads the entries that may have changed."""
    now = time.monotonic()
    if now - self._beat > HEARTBEAT:
      self._beat = now
      self._ledger.alive(self._outstanding())
    mine = set(self._outstanding())
    if now - self._looked > _OTHERS:
      self._looked = now
      for entry in self._ledger.entries():  # other controllers may have added some
        if entry.id not in mine:
          self._entries[entry.id] = entry
    for trial in mine:
      self._entries[trial] = self._ledger.read(trial)

  def _outstanding(self, job: str | None = None) -> list[int]:
    """Trials that our jobs have been given and not ended."""
    jobs = self._jobs.values() if job is None else [self._jobs[job]]
    return [t for j in jobs for t in j.trials if self._entries[t].state in LIVE]

  def _settle(self, ended: Iterable[Ended]):
    """Writes down what became of the trials that an ended job had in hand."""
    for job, status, where in ended:
      assigned = self._jobs.pop(job)
      begun = False
      crashed = False
      for trial in assigned.trials:
        entry = self._ledger.read(trial)
        begun |= entry.attempts > 0 and entry.state != "pending"
        if entry.state == "running":
          entry = self._dropped(entry, job, status)
          crashed |= entry.status is not None and entry.state != "timeout"
        self._write(entry)
        self._ledger.release(trial)
        self._due.pop(trial, None)
      self._judge_device(where, crashed)
      self._barren = 0 if begun or status in (0, Interrupted.status, None) else self._barren + 1
      if self._barren >= _BARREN:
        raise SweepError(
          f"{_BARREN} jobs ended before they began a trial: {self._ledger.last_error(job)}",
          where=str(self._ledger.log(job)),
          kept="the ledger, and what was trained before",
          do="mend what the log says, then run the same command",
        )

  def _dropped(self, entry: Entry, job: str, status: int | None) -> Entry:
    """What becomes of a trial whose process ended while it ran."""
    if why := self._ledger.told_to_stop(entry.id):
      return entry.ended(why, status=status, error=_no_answer(self._limits) * (why == "timeout"))
    if status == Interrupted.status:
      return entry.ended("interrupted", status=None)
    if status is None:
      self._lost[entry.id] += 1
      if self._lost[entry.id] < _LOST:
        return entry.ended("interrupted", status=None)
    said = self._ledger.last_error(job)
    error = f"error[CRASH]: its process {_ending(status)}; last line: {said or 'none'}"[:500]
    # A crash may be the machine's fault, and the checkpoints are still there.
    state = "failed" if entry.attempts > self._limits.retries else "interrupted"
    return entry.ended(state, status=1 if status is None else status, error=error)

  def _judge_device(self, where: str, crashed: bool):
    self._sick[where] = self._sick[where] + 1 if crashed else 0
    if self._sick[where] == _SICK:
      left = self._engine.avoid(where)
      print(f"warning: {where} gets no more work after {_SICK} crashes in a row", flush=True)
      if not left:
        raise SweepError(
          "every device crashed repeatedly",
          where=where,
          kept="the ledger, and what was trained before",
          do="see the logs in jobs/; mend the machine, then run the same command",
        )

  def _follow(self):
    """Lets the search hear of new values and ends; stops what it or the clock says to stop."""
    for trial in self._outstanding():
      entry = self._entries[trial]
      if entry.state != "running":
        continue
      if self._limits.timeout and time.time() - entry.started > self._limits.timeout:
        self._stop(trial, "timeout")
      if self._search is not None:
        for step, value in self._curve(trial).values:
          self._search.report(trial, step, value)
        if self._search.should_stop(trial):
          self._stop(trial, "pruned")
    if self._search is not None:
      for entry in self._entries.values():
        if entry.state not in LIVE and entry.id not in self._told:
          self._told.add(entry.id)
          for step, value in self._curve(entry.id).values:
            self._search.report(entry.id, step, value)
          state = "failed" if entry.state == "timeout" else entry.state
          self._search.tell(entry.id, entry.value, state)

  def _stop(self, trial: int, why: str):
    if trial not in self._due:
      self._ledger.tell_to_stop(trial, why)
      self._due[trial] = time.monotonic() + self._limits.grace
    elif time.monotonic() > self._due[trial]:
      self._due[trial] = float("inf")
      for job, assigned in self._jobs.items():
        if trial in assigned.trials:
          self._engine.cancel(job)

  def _check(self, stop: Stop):
    if stop.requested:
      raise Interrupted(
        "the sweep was stopped",
        where=str(self._ledger.path),
        kept="what is finished, and the checkpoints of what is not",
        do="run the same command to go on",
      )
    failed = [e for e in self._entries.values() if e.state in ("failed", "timeout")]
    if self._limits.max_failures and len(failed) >= self._limits.max_failures:
      raise SweepError(
        f"{len(failed)} trials failed, the last: {failed[-1].error}",
        where=str(self._ledger.workdir(failed[-1].id)),
        kept="what is finished, and the checkpoints of what is not",
        do="mend it, then run the same command, or allow more with --max-failures",
      )

  # What is to be done

  def _refill(self):
    """Asks the search for as many trials as can run at the moment."""
    if self._search is None:
      return
    waiting = sum(entry.state in ("pending", "interrupted") for entry in self._entries.values())
    idle = self._engine.free() + sum(not self._outstanding(job) for job in self._jobs)
    room = idle + max(self._ledger.controllers() - 1, 0) - waiting
    for _ in range(min(room, self._wanted - len(self._entries))):
      number, overrides = self._search.ask()
      entry = self._ledger.add(overrides)
      assert entry.id == number, "the search and the ledger count the same trials"
      self._entries[entry.id] = entry

  def _dispatch(self):
    """Gives what waits to jobs that are idle, and starts jobs while there is room."""
    queue = self._queue()
    open_ = [job for job, assigned in self._jobs.items() if not assigned.closed]
    idle = [job for job in open_ if not self._outstanding(job)]
    if len(queue) > len(idle) + self._engine.free() + len(open_):
      # So many wait that a job may know its next trial early, and need not wait for us.
      idle = [job for job in open_ if len(self._outstanding(job)) == 1] + idle
    while queue and (idle or self._engine.free() > 0):
      batch = self._batch(queue, len(idle) + self._engine.free())
      if not batch:
        continue  # another machine was faster
      if idle:
        job = idle.pop()
        self._jobs[job].batches.append(batch)
        self._ledger.give(job, self._jobs[job].batches, closed=False)
        continue
      self._made += 1
      job = f"{self._ledger.me}-{self._made}"
      self._jobs[job] = _Assigned([batch], closed=self._limits.population == "off")
      self._ledger.give(job, [batch], closed=self._jobs[job].closed)
      self._engine.submit(Job(job, self._command(job), self._ledger.log(job)))
    self._dismiss()

  def _dismiss(self):
    """Closes jobs that are idle: another may wait for the very devices that they hold."""
    for job, assigned in self._jobs.items():
      if self._outstanding(job):
        assigned.busy = time.monotonic()
      elif not assigned.closed and time.monotonic() - assigned.busy > _IDLE:
        assigned.closed = True
        self._ledger.give(job, assigned.batches, closed=True)

  def _queue(self) -> list[int]:
    """Trials that wait for somebody, those of one structure beside each other."""
    mine = set(self._outstanding())
    order: dict[str, int] = {}
    waiting = []
    for entry in sorted(self._entries.values(), key=lambda entry: entry.id):
      if entry.state in ("pending", "interrupted") and entry.id not in mine:
        structure = self._structure(entry)
        order.setdefault(structure, len(order))
        waiting.append((order[structure], entry.id))
    return [trial for _, trial in sorted(waiting)]

  def _batch(self, queue: list[int], places: int) -> list[int]:
    """Takes the next trials off the queue: several of one structure where they may run at once."""
    first = self._entries[queue[0]]
    alike = [t for t in queue if self._structure(self._entries[t]) == self._structure(first)]
    at_once = self._limits.population == "vectorised" or (
      self._limits.population == "auto" and self._engine.accelerated
    )
    size = 1
    if at_once and self._search is None:  # a search stops single trials, and learns from each
      size = min(self._limits.group, -(-len(alike) // places))
    batch = alike[:size]
    for trial in batch:
      queue.remove(trial)
    return [trial for trial in batch if self._claim(trial)]

  def _claim(self, trial: int) -> bool:
    """Whether a trial is ours to run: nobody has it, and nobody ended it in the meantime."""
    if not self._ledger.claim(trial):
      return False
    self._entries[trial] = self._ledger.read(trial)
    if self._entries[trial].state in LIVE:
      return True
    self._ledger.release(trial)
    return False

  def _close(self):
    """Ends the jobs: those that have nothing to do by themselves, the others by a signal."""
    for job, assigned in self._jobs.items():
      self._ledger.give(job, assigned.batches, closed=True)
    deadline = time.monotonic() + self._limits.grace
    while self._jobs and not self._outstanding() and time.monotonic() < deadline:
      self._settle(self._engine.ended())
      time.sleep(_POLL)
    self._engine.close()
    self._settle(self._engine.ended())
    for job in list(self._jobs):  # whatever an engine could not even say
      self._settle([Ended(job, None, "")])

  def _write(self, entry: Entry):
    self._entries[entry.id] = entry
    self._ledger.write(entry)

  # What is shown

  def _show(self, display: Live, *, now: bool = False):
    if not now and time.monotonic() - self._drawn < _SHOWN:
      return
    self._drawn = time.monotonic()
    rows = [self._row(entry) for _, entry in sorted(self._entries.items())]
    states = collections.Counter(row.state for row in rows)
    wanted = max(self._wanted, len(rows))
    running = f"{len(self._jobs)} job(s)"
    done = f"{states['done']}/{wanted} done"
    others = [f"{n} {state}" for state, n in states.items() if state not in ("done", "pending")]
    display.update(rows, ", ".join([done, *others, running]))

  def _row(self, entry: Entry) -> Row:
    curve = self._known_curve(entry)
    elapsed = time.time() - entry.started
    left = None
    total = self._total(entry)
    if entry.state == "running" and curve.step > curve.first:
      left = elapsed * (total - curve.step) / (curve.step - curve.first)
    return Row(
      id=entry.id,
      state=entry.state,
      step=curve.step,
      total=total,
      value=entry.value if entry.state == "done" else curve.last,
      best=curve.best,
      eta_seconds=left,
      overrides=entry.overrides,
      error=entry.error,
    )

  def _known_curve(self, entry: Entry) -> Curve:
    """The curve, read again only while it may have grown."""
    if self._seen.get(entry.id) != entry.state or entry.state == "running":
      self._seen[entry.id] = entry.state
      return self._curve(entry.id)
    return self._curves[entry.id]


def _ending(status: int | None) -> str:
  """A process's end in words."""
  if status is None:
    return f"lost its machine {_LOST} times"
  if status >= 0:
    return f"ended with status {status}"
  name = signal.Signals(-status).name
  hint = ", as the kernel does when memory is short" if name == "SIGKILL" else ""
  return f"was ended by {name}{hint}"


def _no_answer(limits: Limits) -> str:
  return f"error[TIMEOUT]: no end after {limits.timeout:g} s, nor an answer to being stopped"


def _json(path: pathlib.Path) -> Mapping[str, Any] | None:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (FileNotFoundError, json.JSONDecodeError):
    return None
