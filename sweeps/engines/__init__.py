"""Engines: what runs a sweep's jobs somewhere and says when they have ended.

The ledger in the sweep's directory is the truth about trials. An engine is transport: it knows
nothing of trials, keeps nothing after its process, and may lose a job.
"""

import abc
import importlib
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

from training import config
from training.errors import ConfigError, StorageError


class Job(NamedTuple):
  """A command line that works on some trials.

  Attributes:
    id: unique among the jobs of an engine.
    command: argv, which works from any directory; on SIGTERM it saves its state and exits with 75.
    log: the file that its stdout and stderr are appended to.
  """

  id: str
  command: list[str]
  log: pathlib.Path


class Ended(NamedTuple):
  """A job that does not run any more.

  Attributes:
    job: its id.
    status: its exit status; negative is the signal that ended it; None where the engine lost it
      (its node died, or it was preempted for good).
    where: the device or node that it ran on.
  """

  job: str
  status: int | None
  where: str


class Engine(abc.ABC):
  """Runs jobs. Every method is called from one thread, the one that made the engine.

  Attributes:
    accelerated: whether jobs have an accelerator, where trials may well run at once.
  """

  accelerated = False

  @abc.abstractmethod
  def free(self) -> int:
    """How many more jobs it would start now."""

  @abc.abstractmethod
  def submit(self, job: Job) -> None:
    """Takes a job, to start it as soon as there is room."""

  @abc.abstractmethod
  def ended(self) -> list[Ended]:
    """The jobs that ended since the last call; does not wait for any."""

  @abc.abstractmethod
  def cancel(self, job_id: str) -> None:
    """Asks a job to stop: SIGTERM, so that it saves, and SIGKILL where that is ignored.

    The job is among those that `ended` returns later. One that has ended already is left alone.
    """

  @abc.abstractmethod
  def where(self, job_id: str) -> str:
    """The device or node of a job, or that it waits for one."""

  def avoid(self, where: str) -> bool:
    """Gives a device that crashed repeatedly no more work, where the engine chooses devices.

    Returns:
      Whether any other is left.
    """
    return True

  @abc.abstractmethod
  def close(self) -> None:
    """Cancels whatever runs, waits for it, and lets go of the engine's resources."""


def package(name: str) -> ModuleType:
  """The package that an engine drives, imported only by who asks for that engine.

  Raises:
    ConfigError: it is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ConfigError(
      f"this engine needs the package {name}, which cannot be imported ({error})",
      kept="the sweep is as it was",
      do="pip install -r requirements-cluster.txt",
    ) from None


def refused(job: Job, where: str, reason: str) -> StorageError:
  """What to raise when a machine could not even start a job, as it will not the next one."""
  return StorageError(
    f"{where} could not start job {job.id} ({reason})",
    where=str(job.log),
    kept="every trial so far",
    do="put the sweep and this code in directories that all machines see under the same path",
  )


_AT_A_TIME = {"local": "jobs", "ray": "maximum", "slurm": "array_parallelism"}


def make(
  name: str, folder: pathlib.Path, trials: int, *, jobs: int, options: Mapping[str, str]
) -> Engine:
  """The engine of that name.

  Args:
    name: "local", "ray" or "slurm".
    folder: of the sweep.
    trials: that are to be run; no more jobs are worth having.
    jobs: how many at a time; 0 for as many as there is room for.
    options: settings of the engine as a command line spells them.

  Raises:
    ConfigError: a setting is wrong, or the engine cannot be had here.
  """
  module = importlib.import_module(f"sweeps.engines.{name}")
  spec = {key: config.literal(text) for key, text in options.items()}
  if jobs:
    spec[_AT_A_TIME[name]] = jobs
  settings = module.Settings(**config.arguments(module.Settings, spec, where="engine"))
  return module.make(settings, folder, trials)
