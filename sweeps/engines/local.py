"""Jobs as processes of this machine, each with accelerators or cores of its own."""

import dataclasses
import importlib.util
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
from typing import Annotated, NamedTuple

from sweeps.engines import Ended, Engine, Job, process
from training.errors import ConfigError

_CORE_JOBS = 4  # processes that a machine without accelerators gets unasked, for its memory's sake


class _Slot(NamedTuple):
  """Room for one job.

  Attributes:
    name: of its devices.
    prefix: the start of a command line that gives a job these devices and no others.
  """

  name: str
  prefix: list[str]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a job gets of this machine.

  Attributes:
    jobs: at a time; 0 for one an accelerator, or where there is none, one a core up to four.
    devices: accelerators of a job.
    grace: seconds between asking a job to stop and killing it.
  """

  jobs: Annotated[int, "[0, inf)"] = 0
  devices: Annotated[int, "[1, inf)"] = 1
  grace: Annotated[float, "[0, inf)"] = 20.0


class Local(Engine):
  """Processes started afresh, never forked from one that has computed.

  Args:
    settings: what a job gets.
    trials: that are to be run; more devices than these are shared among the jobs.

  Raises:
    ConfigError: there are fewer devices than jobs.
  """

  def __init__(self, settings: Settings, trials: int = 1):
    gpus, tpu = _gpus(), _tpu()
    self.accelerated = tpu or bool(gpus)
    if gpus:
      slots = _gpu_slots(gpus, settings.devices)
    elif tpu:
      slots = [_Slot("tpu", [])]  # one process owns all chips of a host
    else:
      # Two small trials on a core each are faster than one after the other on both.
      slots = _core_slots(settings.jobs or max(min(trials, _CORE_JOBS), 1))
    if settings.jobs > len(slots):
      raise ConfigError(
        f"--jobs={settings.jobs} is more than the {len(slots)} that this machine's devices allow",
        do="choose fewer, or fewer devices for each",
      )
    self._slots = slots[: settings.jobs or len(slots)]
    self._grace = settings.grace
    self._sick: set[str] = set()
    self._running: dict[str, tuple[_Slot, subprocess.Popen]] = {}
    self._killed_at: dict[str, float] = {}

  def free(self) -> int:
    return len(self._free())

  def _free(self) -> list[_Slot]:
    taken = {slot.name for slot, _ in self._running.values()} | self._sick
    return [slot for slot in self._slots if slot.name not in taken]

  def submit(self, job: Job) -> None:
    slot = self._free()[0]
    self._running[job.id] = slot, process.start([*slot.prefix, *job.command], job.log)

  def ended(self) -> list[Ended]:
    found = []
    for job, (slot, running) in list(self._running.items()):
      if job in self._killed_at and time.monotonic() > self._killed_at[job]:
        process.kill(running)
      status = running.poll()
      if status is not None:
        del self._running[job]
        self._killed_at.pop(job, None)
        found.append(Ended(job, status, self._place(slot)))
    return found

  def cancel(self, job_id: str) -> None:
    if job_id in self._running and job_id not in self._killed_at:
      self._running[job_id][1].terminate()
      self._killed_at[job_id] = time.monotonic() + self._grace

  def where(self, job_id: str) -> str:
    return self._place(self._running[job_id][0])

  def avoid(self, where: str) -> bool:
    self._sick |= {slot.name for slot in self._slots if self._place(slot) == where}
    return len(self._sick) < len(self._slots)

  def close(self) -> None:
    for job in self._running:
      self.cancel(job)
    deadline = time.monotonic() + self._grace
    for _, running in self._running.values():
      try:
        running.wait(max(deadline - time.monotonic(), 0.0))
      except subprocess.TimeoutExpired:
        process.kill(running)
        running.wait()

  def _place(self, slot: _Slot) -> str:
    return f"{socket.gethostname()} {slot.name}"


def _gpus() -> list[str]:
  """The NVIDIA GPUs that this process may use, by number, without starting CUDA."""
  if "CUDA_VISIBLE_DEVICES" in os.environ:
    return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu not in ("", "-1")]
  names = [path.name for path in pathlib.Path("/dev").glob("nvidia[0-9]*")]
  return sorted((re.sub(r"\D", "", name) for name in names), key=int)


def _tpu() -> bool:
  """Whether this host has TPU chips and the library that drives them."""
  chips = [*pathlib.Path("/dev").glob("accel[0-9]*"), *pathlib.Path("/dev").glob("vfio/[0-9]*")]
  return bool(chips) and importlib.util.find_spec("libtpu") is not None


def _gpu_slots(gpus: list[str], devices: int) -> list[_Slot]:
  groups = [gpus[i : i + devices] for i in range(0, len(gpus) - devices + 1, devices)]
  return [
    _Slot(f"gpu {','.join(g)}", ["env", f"CUDA_VISIBLE_DEVICES={','.join(g)}"]) for g in groups
  ]


def _core_slots(jobs: int) -> list[_Slot]:
  """As many even shares of the cores as there are jobs; with fewer cores, no more than cores."""
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
  if jobs == 1 or not cores or not shutil.which("taskset"):
    return [_Slot(f"share {i}" if jobs > 1 else "all cores", []) for i in range(jobs)]
  jobs = min(jobs, len(cores))
  shares = [cores[i * len(cores) // jobs : (i + 1) * len(cores) // jobs] for i in range(jobs)]
  # XLA counts the cores it may use; without a share of its own, every job would use all of them.
  return [
    _Slot(f"cores {','.join(map(str, s))}", ["taskset", "-c", ",".join(map(str, s))])
    for s in shares
  ]


def make(settings: Settings, folder: pathlib.Path, trials: int) -> Local:
  """The engine for a sweep in `folder` of so many trials."""
  return Local(settings, trials)
