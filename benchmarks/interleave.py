"""Contenders measured in turns, so that whatever else the machine does falls on all of them alike.

A figure of one contender, taken alone, says little on a shared machine; the ratio of two that took
turns says much. Every round runs every contender once, in a fresh random order (or rotated by one);
ratios are taken within a round, and their smallest and largest are printed beside the median.
"""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


class Timing(NamedTuple):
  """What some steps took: seconds on the wall, and seconds of CPU summed over threads."""

  seconds: float
  cpu: float


# Takes that many steps and returns when they are done. It may return a Timing of the part that
# counts; with None, the whole call counts.
Run = Callable[[int], Timing | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
  """Something to measure.

  Attributes:
    name: in the table.
    setup: prepares whatever is not to be measured and returns the run.
    multiple: steps come in multiples of this.
  """

  name: str
  setup: Callable[[], Run]
  multiple: int = 1


@dataclasses.dataclass(kw_only=True)
class Record:
  """What was measured of a contender.

  Attributes:
    name: the contender's.
    setup_seconds: its setup.
    first_seconds: its first run, which compiles.
    steps: of each later run, one a round.
    timings: of all those steps, one a round.
  """

  name: str
  setup_seconds: float
  first_seconds: float
  steps: list[int] = dataclasses.field(default_factory=list)
  timings: list[Timing] = dataclasses.field(default_factory=list)

  @property
  def step_seconds(self) -> list[float]:
    """Seconds a step, one figure a round."""
    return [timing.seconds / n for timing, n in zip(self.timings, self.steps, strict=True)]

  @property
  def best(self) -> float:
    return min(self.step_seconds)

  @property
  def median(self) -> float:
    return statistics.median(self.step_seconds)

  @property
  def cpu(self) -> float:
    """The least CPU-seconds a step; unlike wall time it hardly minds a busy machine."""
    return min(timing.cpu / n for timing, n in zip(self.timings, self.steps, strict=True))

  @property
  def cores(self) -> float:
    """How many cores the best round had; fewer than its threads means a busy machine."""
    timing = self.timings[self.step_seconds.index(self.best)]
    return timing.cpu / timing.seconds


class Ratio(NamedTuple):
  """How many times as fast as a reference: of the best rounds, and within the rounds."""

  best: float
  median: float
  least: float
  greatest: float

  def __str__(self) -> str:
    return f"{self.best:.2f} ({self.median:.2f}, {self.least:.2f}..{self.greatest:.2f})"


def ratio(record: Record, reference: Record) -> Ratio:
  """The speed of `record` over that of `reference`; above 1, `record` is the faster."""
  rounds = [
    theirs / ours for ours, theirs in zip(record.step_seconds, reference.step_seconds, strict=True)
  ]
  best = reference.best / record.best
  return Ratio(best, statistics.median(rounds), min(rounds), max(rounds))


def orders(count: int, rounds: int, *, order: Literal["random", "rotate"], seed: int = 0):
  """Yields for each round the order of `count` contenders, every one of them once."""
  generator = random.Random(seed)
  for i in range(rounds):
    if order == "random":
      yield generator.sample(range(count), count)
    else:
      yield [(i + place) % count for place in range(count)]


def race(
  contenders: Sequence[Contender],
  *,
  rounds: int,
  seconds: float,
  order: Literal["random", "rotate"] = "random",
  seed: int = 0,
  pause: float = 0.0,
) -> list[Record]:
  """Sets every contender up, then runs them in turns.

  Args:
    contenders: what to measure.
    rounds: turns of each.
    seconds: that one turn should take; its number of steps follows from the fastest turn so far.
    order: of the contenders within a round.
    seed: of the random order.
    pause: seconds of rest before each turn, in which threads that spin for work fall asleep.
  """
  runs, records, fastest = [], [], []
  for contender in contenders:
    before = time.perf_counter()
    run = contender.setup()
    ready = time.perf_counter()
    run(contender.multiple)
    first = time.perf_counter() - ready
    runs.append(run)
    records.append(Record(name=contender.name, setup_seconds=ready - before, first_seconds=first))
    steps, trial = _calibrated(run, contender.multiple, seconds)
    fastest.append(trial.seconds / steps)
    print(f"{contender.name}: ready, first run {first:.1f} s", flush=True)
  for turns in orders(len(runs), rounds, order=order, seed=seed):
    for i in turns:
      # Not fixed once and for all: whom a busy machine held up in the trial, or whom warming up
      # did, would have turns too short to compare for the whole race.
      multiple = contenders[i].multiple
      steps = max(round(seconds / fastest[i] / multiple), 1) * multiple
      time.sleep(pause)
      timing = timed(runs[i], steps)
      records[i].steps.append(steps)
      records[i].timings.append(timing)
      fastest[i] = min(fastest[i], timing.seconds / steps)
  return records


def timed(run: Run, steps: int) -> Timing:
  """`run(steps)`, timed by itself or else from here."""
  wall, cpu = time.perf_counter(), time.process_time()
  own = run(steps)
  return own or Timing(time.perf_counter() - wall, time.process_time() - cpu)


def _calibrated(run: Run, multiple: int, seconds: float) -> tuple[int, Timing]:
  """Steps, a multiple of `multiple`, of which a trial took long enough, and that trial."""
  steps = multiple
  while (took := timed(run, steps)).seconds < seconds / 4:
    steps *= 2
  return steps, took


# ------------------------------------------------------------------- a contender in its own process


def elsewhere(name: str, command: Sequence[str], *, threads: int, multiple: int = 1) -> Contender:
  """A contender whose setup and runs happen in a process that calls `serve`.

  Two frameworks in one process share its allocator, its signal handlers and its OpenMP settings; in
  processes that take turns each is as its users have it, and the one whose turn it is not, sleeps.
  """

  def setup() -> Run:
    process = subprocess.Popen(
      [sys.executable, *command],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      cwd=ROOT,
      env={**os.environ, **thread_settings(threads)},
    )

    def ask(steps: int) -> Timing:
      process.stdin.write(f"{steps}\n")
      process.stdin.flush()
      return Timing(*_answer(process, name))

    _answer(process, name)
    return ask

  return Contender(name=name, setup=setup, multiple=multiple)


def _answer(process: subprocess.Popen, name: str) -> list[float]:
  for line in process.stdout:
    if line.startswith(_MARK):  # whatever else a framework prints is not for us
      return json.loads(line.removeprefix(_MARK))
  raise RuntimeError(f"the process of {name!r} ended with status {process.wait()}")


_MARK = "@interleave "


def serve(setup: Callable[[], Run]):
  """The other end of `elsewhere`: sets up, then runs as many steps as each line of stdin says.

  Ends with its stdin, so a worker never outlives the process that asked for it.
  """
  run = setup()
  print(_MARK + "[]", flush=True)
  for line in sys.stdin:
    print(_MARK + json.dumps(timed(run, int(line))), flush=True)


def matmul(size: int) -> Run:
  """A float32 product of square matrices, for the machine's rate."""
  import jax

  square = jax.random.normal(jax.random.key(0), (size, size))
  product = jax.jit(lambda a, b: a @ b)

  def run(steps: int):
    for _ in range(steps):
      result = product(square, square)
    result.block_until_ready()

  return run


def thread_settings(threads: int) -> dict[str, str]:
  """The environment that gives each framework `threads` threads; XLA reads NPROC, others OMP's."""
  return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "NPROC": str(threads)}


# ----------------------------------------------------------------------------- what comes out of it


def show(records: Sequence[Record], *, reference: str) -> str:
  """A table of the records; ratios are speeds over that of `reference`."""
  by_name = {record.name: record for record in records}
  rows = [
    (
      "",
      "first run s",
      "best ms",
      "median ms",
      "cpu ms",
      "cores",
      "speed (median, least..greatest)",
    )
  ]
  for record in records:
    rows.append(
      (
        record.name,
        f"{record.first_seconds:.2f}",
        f"{1e3 * record.best:.3f}",
        f"{1e3 * record.median:.3f}",
        f"{1e3 * record.cpu:.3f}",
        f"{record.cores:.1f}",
        "1" if record.name == reference else str(ratio(record, by_name[reference])),
      )
    )
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = [
    "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
  ]
  return "\n".join([*lines, f"Milliseconds are of one step; speed is relative to {reference}."])


def results(records: Sequence[Record], *, reference: str) -> dict[str, Any]:
  """The records as JSON, every round of them."""
  by_name = {record.name: record for record in records}
  return {
    record.name: {
      "setup_seconds": record.setup_seconds,
      "first_run_seconds": record.first_seconds,
      "steps": record.steps,
      "best_ms": 1e3 * record.best,
      "median_ms": 1e3 * record.median,
      "best_cpu_ms": 1e3 * record.cpu,
      "cores_at_best": record.cores,
      "speed_over_reference": ratio(record, by_name[reference])._asdict(),
      "step_ms": [1e3 * seconds for seconds in record.step_seconds],
    }
    for record in records
  }


def machine() -> dict[str, Any]:
  """What figures depend on besides the program."""
  cpu = platform.processor()
  with contextlib.suppress(OSError):
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
      if line.startswith("model name"):
        cpu = line.partition(":")[2].strip()
        break
  return {
    "cpu": cpu,
    "cores": os.cpu_count(),
    "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    "system": platform.platform(),
    "python": platform.python_version(),
    "versions": dict(_versions()),
    "load": os.getloadavg(),
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "command": " ".join(["python", *sys.argv]),
  }


def _versions() -> Iterator[tuple[str, str]]:
  for package in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      yield package, importlib.metadata.version(package)


def write(path: str | None, **found: Any):
  """Everything found, with the machine, as JSON; nothing where there is no path."""
  if path:
    pathlib.Path(path).write_text(
      json.dumps({"machine": machine(), **found}, indent=2) + "\n", encoding="utf-8"
    )


def add_options(parser, *, rounds: int, seconds: float):
  """The command-line options that all benchmarks share."""
  parser.add_argument("--rounds", type=int, default=rounds, help=f"turns of each ({rounds})")
  parser.add_argument(
    "--seconds", type=float, default=seconds, help=f"that one turn should take ({seconds:g})"
  )
  parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each (all cores)")
  parser.add_argument("--json", metavar="FILE", help="write everything measured here")
