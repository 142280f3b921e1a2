"""Jobs as tasks of a Ray cluster, on this machine or on many."""

import contextlib
import dataclasses
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from sweeps.engines import Ended, Engine, Job, leash, package, process, refused
from training.errors import ConfigError

_NODE = """
import ray, sys
node = ray.init(address="local", include_dashboard=False, log_to_driver=False)
print("address", node.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a job asks of the cluster.

  Attributes:
    address: of the cluster: "auto" for the one that this machine belongs to, or "host:port". Empty
      starts one of this machine alone, which ends with the engine.
    num_cpus: CPU cores that a job reserves.
    num_gpus: GPUs that a job reserves and sees; a fraction shares one.
    maximum: jobs at a time. None is as many as the nodes of the moment have room for; a number may
      exceed that, so that a cluster which grows on demand has a reason to.
    grace: seconds between asking a job to stop and killing it.
  """

  address: str = ""
  num_cpus: Annotated[float, "(0, inf)"] = 1.0
  num_gpus: Annotated[float, "[0, inf)"] = 0.0
  maximum: Annotated[int, "[1, inf)"] | None = None
  grace: Annotated[float, "[0, inf)"] = 60.0


class _Started(NamedTuple):
  """Where a job's command runs: for people, Ray's name of the node, the process there."""

  where: str
  node: str
  process: int


@dataclasses.dataclass
class _Task:
  job: Job
  results: Any  # Ray's generator of a _Started, then the exit status or why there is none
  started: _Started | None = None
  cancelled: bool = False

  @property
  def where(self) -> str:
    return self.started.where if self.started else "waiting for a node"


class Ray(Engine):
  """Runs jobs as Ray tasks that are never retried: what becomes of a lost job is not Ray's choice.

  Args:
    settings: what a job asks of the cluster.

  Raises:
    ConfigError: Ray is not installed, or there is no cluster at the address.
  """

  def __init__(self, settings: Settings):
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not settings.address:
      # What Ray wants of a cluster that it starts, and does not expect of one at an address. It is
      # read when the package is imported.
      os.environ.setdefault("RAY_AUTH_MODE", "token")
    self._ray = package("ray")
    self._settings = settings
    self.accelerated = settings.num_gpus > 0
    self._tasks: dict[str, _Task] = {}
    self._ended: list[Ended] = []
    self._node: subprocess.Popen | None = None
    try:
      self._connect()
    except BaseException:
      self._disconnect()
      raise
    self._run = self._ray.remote(_run).options(
      num_cpus=settings.num_cpus,
      num_gpus=settings.num_gpus,
      max_retries=0,
      num_returns="streaming",
    )
    self._stop = self._ray.remote(_stop)

  def _connect(self) -> None:
    address = self._settings.address or self._start_node()
    try:
      if ":" in address:
        # Ray itself would try for minutes.
        host, _, port = address.rpartition(":")
        socket.create_connection((host, port), timeout=10).close()
      with _own_signals():
        self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except OSError as error:
      raise ConfigError(
        f"there is no Ray cluster at {address!r} ({error})",
        kept="the sweep is as it was",
        do="start one with `ray start --head`, or leave the engine's address empty",
      ) from None

  def _start_node(self) -> str:
    """Starts a cluster of this machine alone; returns its address."""
    # In a process of its own, because Ray forks the one that it starts nodes from, and this one may
    # have loaded JAX. It ends with its stdin.
    self._node = subprocess.Popen(
      leash.leashed([sys.executable, "-c", _NODE]),
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
      start_new_session=True,
    )
    said = (line.split() for line in iter(self._node.stdout.readline, ""))
    address = next((words[1] for words in said if words[:1] == ["address"]), None)
    if address is None:
      raise ConfigError(
        "no Ray could be started on this machine",
        where="/tmp/ray/session_latest/logs",
        kept="the sweep is as it was",
        do="see its logs, or use --engine=local",
      )
    return address

  def free(self) -> int:
    room = self._settings.maximum
    if room is None:
      room = sum(self._room(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
    return max(0, room - len(self._tasks))

  def _room(self, resources: dict[str, float]) -> int:
    asked = {"CPU": self._settings.num_cpus, "GPU": self._settings.num_gpus}
    # Ray counts in ten-thousandths; rounded like that, three thirds are one.
    return min(
      int(round(resources.get(kind, 0) / amount, 4)) for kind, amount in asked.items() if amount
    )

  def submit(self, job: Job) -> None:
    results = self._run.remote(job.command, str(job.log), self._settings.grace)
    self._tasks[job.id] = _Task(job, results)

  def ended(self) -> list[Ended]:
    self._poll()
    ended, self._ended = self._ended, []
    return ended

  def _poll(self) -> None:
    if not self._tasks:
      return
    waiting = [task.results for task in self._tasks.values()]
    ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
    news = {id(results) for results in ready}
    for task in [task for task in self._tasks.values() if id(task.results) in news]:
      self._read(task)

  def _read(self, task: _Task) -> None:
    """Takes the next result of a task, which is there."""
    errors = self._ray.exceptions
    # Where Ray interrupted the task itself, before the command ran, nobody knows better.
    status = -signal.SIGTERM if task.cancelled else None
    try:
      result = self._ray.get(next(task.results))
    except (StopIteration, errors.RayError):
      pass
    else:
      if isinstance(result, _Started):
        task.started = result
        return
      status = result
    del self._tasks[task.job.id]
    if isinstance(status, str):
      raise refused(task.job, "a node", status)
    self._ended.append(Ended(task.job.id, status, task.where))

  def cancel(self, job_id: str) -> None:
    self._poll()
    if job_id not in self._tasks or self._tasks[job_id].cancelled:
      return
    task = self._tasks[job_id]
    task.cancelled = True
    if task.started is None:
      self._ray.cancel(task.results)
      return
    # Not by Ray's own way: what a task returns after that is lost, its exit status with it.
    strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    there = strategy(node_id=task.started.node, soft=False)
    # It needs no room, or it would wait for the job that it is to stop.
    stop = self._stop.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    stop.remote(task.started.process, self._settings.grace)

  def where(self, job_id: str) -> str:
    self._poll()
    return self._tasks[job_id].where if job_id in self._tasks else ""

  def close(self) -> None:
    for job_id in list(self._tasks):
      self.cancel(job_id)
    deadline = time.monotonic() + self._settings.grace + 10
    while self._tasks and time.monotonic() < deadline:
      self._poll()
      time.sleep(0.05)
    self._ended += [Ended(job_id, None, task.where) for job_id, task in self._tasks.items()]
    self._tasks.clear()
    self._disconnect()

  def _disconnect(self) -> None:
    self._ray.shutdown()
    if self._node is not None:
      self._node.communicate()
      self._node = None


def make(settings: Settings, folder: pathlib.Path, trials: int) -> Ray:
  """The engine for a sweep in `folder`."""
  return Ray(settings)


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
  """Keeps this process's answer to SIGTERM, which Ray replaces by leaving at once."""
  if threading.current_thread() is not threading.main_thread():
    yield  # then Ray cannot either
    return
  before = signal.getsignal(signal.SIGTERM)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


# On the nodes


def _run(command: list[str], log: str, grace: float) -> Iterator[_Started | int | str]:
  import ray

  try:
    running = process.start(command, pathlib.Path(log))
  except OSError as error:
    yield f"{process.place()}: {error}"
    return
  try:
    yield _Started(process.place(), ray.get_runtime_context().get_node_id(), running.pid)
    while running.poll() is None:
      time.sleep(0.1)  # Ray interrupts Python, not a call that blocks
    yield running.returncode
  finally:
    if running.poll() is None:
      process.stop(running, grace)


def _stop(pid: int, grace: float) -> None:
  """Asks a command that another task of this node started to stop."""
  deadline = time.monotonic() + grace
  with contextlib.suppress(ProcessLookupError):
    os.kill(pid, signal.SIGTERM)
    while time.monotonic() < deadline:
      os.kill(pid, 0)  # raises when it is gone
      time.sleep(0.1)
    os.killpg(pid, signal.SIGKILL)
