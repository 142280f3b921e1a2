"""A job's command as a process of this machine."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess

from sweeps.engines import leash


def start(command: list[str], log: pathlib.Path) -> subprocess.Popen:
  """Starts a command on a leash, its output appended to `log`.

  It leads a process group of its own, so a Ctrl-C at the terminal is for the engine to pass on.

  Raises:
    OSError: the log cannot be written.
  """
  log.parent.mkdir(parents=True, exist_ok=True)
  with open(log, "ab") as output:
    return subprocess.Popen(
      leash.leashed(command),
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )


def stop(process: subprocess.Popen, grace: float) -> int:
  """Asks a command to stop, waits `grace` seconds for it, then kills it and what it started.

  Returns:
    Its exit status; negative is the signal that ended it.
  """
  process.terminate()
  try:
    return process.wait(grace)
  except subprocess.TimeoutExpired:
    kill(process)
    return process.wait()


def kill(process: subprocess.Popen) -> None:
  """Kills a command and what it started."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)


def place() -> str:
  """This machine, and the GPUs of it that a scheduler gave this process."""
  gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
  return f"{socket.gethostname()} gpu {gpus}" if gpus else socket.gethostname()
