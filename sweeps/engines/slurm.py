"""Jobs of a SLURM cluster, handed over by submitit."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import time
from typing import Annotated, Any, Literal

from sweeps.engines import Ended, Engine, Job, package, process, refused
from training.errors import ConfigError

_ROOT = pathlib.Path(__file__).parents[2]
_LAG = 30.0  # seconds after the end of a job in which its result may still be on its way
_REQUEUES = 1000  # by timeouts; a worker that makes no progress is the ledger's to notice


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a job asks of the cluster.

  Attributes:
    cluster: "slurm", or "local" for processes of this machine under the same machinery.
    partition: of the cluster; empty is its default.
    timeout_min: minutes after which SLURM ends a job. A job that is not done by then is saved and
      put back into the queue.
    cpus: CPU cores of a job.
    gpus: GPUs of a job.
    array_parallelism: jobs at a time.
    parameters: further options of sbatch by name, e.g. {"account": "lab", "mem": "32G"}.
    grace: seconds between asking a job to stop and killing it.
  """

  cluster: Literal["slurm", "local"] = "slurm"
  partition: str = ""
  timeout_min: Annotated[int, "[1, inf)"] = 240
  cpus: Annotated[int, "[1, inf)"] = 4
  gpus: Annotated[int, "[0, inf)"] = 0
  array_parallelism: Annotated[int, "[1, inf)"] = 64
  parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
  grace: Annotated[float, "[0, inf)"] = 60.0


@dataclasses.dataclass
class _Sent:
  job: Job
  handle: Any  # submitit's
  cancelled: bool = False
  missing_since: float | None = None  # when it was seen to be over without a result


class Slurm(Engine):
  """Submits what has come in since the last look as one array.

  `ended` and `cancel` run sbatch, sacct and scancel, and take as long as these.

  Args:
    settings: what a job asks of the cluster.
    folder: for submitit's files; the nodes must see it under the same path.

  Raises:
    ConfigError: submitit is not installed, or there is no SLURM.
  """

  def __init__(self, settings: Settings, folder: pathlib.Path):
    self._settings = settings
    self.accelerated = settings.gpus > 0
    self._submitit = package("submitit")
    self._unsent: list[Job] = []
    self._sent: dict[str, _Sent] = {}
    self._ended: list[Ended] = []
    try:
      self._executor = self._submitit.AutoExecutor(
        folder.absolute(),
        cluster=settings.cluster,
        slurm_max_num_timeout=_REQUEUES,
        local_max_num_timeout=_REQUEUES,
      )
    except RuntimeError:
      raise ConfigError(
        "this machine has no srun, so it belongs to no SLURM cluster",
        kept="the sweep is as it was",
        do="start the sweep on a login node of the cluster",
      ) from None
    self._executor.update_parameters(
      name="fukugen",
      timeout_min=settings.timeout_min,
      cpus_per_task=settings.cpus,
      gpus_per_node=settings.gpus,
      stderr_to_stdout=True,
      slurm_partition=settings.partition or None,
      slurm_array_parallelism=settings.array_parallelism,
      # The warning of a timeout comes early enough for a worker to save.
      slurm_signal_delay_s=int(settings.grace) + 30,
      slurm_additional_parameters=dict(settings.parameters),
    )

  def free(self) -> int:
    return max(0, self._settings.array_parallelism - len(self._unsent) - len(self._sent))

  def submit(self, job: Job) -> None:
    self._unsent.append(job)

  def ended(self) -> list[Ended]:
    self._flush()
    self._poll()
    ended, self._ended = self._ended, []
    return ended

  def _flush(self) -> None:
    jobs, self._unsent = self._unsent, []
    if not jobs:
      return
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    # A job begins in whichever directory the sweep was started from.
    core = self._submitit.core.utils
    try:
      with core.environment_variables(PYTHONPATH=path), self._executor.batch():
        handles = [self._executor.submit(_Command(job, self._settings.grace)) for job in jobs]
    except (core.FailedJobError, core.FailedSubmissionError) as error:
      raise ConfigError(
        f"sbatch refuses the jobs: {error}",
        kept="every trial so far",
        do="check the engine's partition, timeout_min and parameters",
      ) from None
    for job, handle in zip(jobs, handles, strict=True):
      self._sent[job.id] = _Sent(job, handle)

  def _poll(self) -> None:
    for sent in list(self._sent.values()):
      if sent.handle.done():
        self._read(sent)

  def _read(self, sent: _Sent) -> None:
    """Takes the result of a job that is over, once it is there."""
    where = self.where(sent.job.id)
    # Where the command was never run, or not to its end, nobody knows better.
    status = -signal.SIGTERM if sent.cancelled else None
    if sent.handle.paths.result_pickle.exists():
      # Its errors are submitit's own: it gave the job up.
      with contextlib.suppress(self._submitit.core.utils.UncompletedJobError):
        status, where = sent.handle.result()
    elif not sent.cancelled:
      now = time.monotonic()
      sent.missing_since = sent.missing_since or now
      if now - sent.missing_since < _LAG:
        return
    del self._sent[sent.job.id]
    if isinstance(status, str):
      raise refused(sent.job, where, status)
    self._ended.append(Ended(sent.job.id, status, where))

  def cancel(self, job_id: str) -> None:
    waiting = [job for job in self._unsent if job.id == job_id]
    for job in waiting:
      self._unsent.remove(job)
      self._ended.append(Ended(job_id, -signal.SIGTERM, self.where(job_id)))
    if job_id in self._sent and not self._sent[job_id].cancelled:
      self._sent[job_id].cancelled = True
      self._sent[job_id].handle.cancel(check=False)  # it may have ended by itself just now

  def where(self, job_id: str) -> str:
    if job_id in self._sent:
      return f"{self._settings.cluster} job {self._sent[job_id].handle.job_id}"
    return "not submitted yet"

  def close(self) -> None:
    for job_id in [*(job.id for job in self._unsent), *self._sent]:
      self.cancel(job_id)
    deadline = time.monotonic() + self._settings.grace + 10
    while self._sent and time.monotonic() < deadline:
      self._poll()
      time.sleep(0.1)
    self._ended += [Ended(job_id, None, self.where(job_id)) for job_id in self._sent]
    self._sent.clear()


def make(settings: Settings, folder: pathlib.Path, trials: int) -> Slurm:
  """The engine for a sweep in `folder`, in which submitit's files are kept too."""
  return Slurm(settings, folder / "submitit")


class _Command:
  """A job as submitit runs it on a node, in the main thread of a process of its own."""

  def __init__(self, job: Job, grace: float):
    self._job = job
    self._grace = grace
    self._process = None
    self._deadline = float("inf")

  def __call__(self) -> tuple[int | str, str]:
    """Runs the command.

    Returns:
      (exit status or why there is none, where it ran).
    """
    try:
      self._process = process.start(self._job.command, self._job.log)
    except OSError as error:
      return str(error), process.place()
    # submitit ignores SIGTERM, with which SLURM cancels, or warns of a preemption.
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, self._forward)
    while self._process.poll() is None:
      if time.monotonic() > self._deadline:
        process.kill(self._process)
      time.sleep(0.1)
    return self._process.returncode, process.place()

  def _forward(self, number, frame) -> None:
    self._deadline = min(self._deadline, time.monotonic() + self._grace)
    self._process.terminate()

  def checkpoint(self):
    """Called on a preemption or before a timeout: saves, and asks for the same job again."""
    from submitit.helpers import DelayedSubmission

    if self._process is not None:
      process.stop(self._process, self._grace)
    return DelayedSubmission(_Command(self._job, self._grace))
