"""Becomes a command that receives SIGTERM when the process that started it dies, however it dies.

`python -I -S leash.py PARENT COMMAND...`, PARENT being the process id of who starts it. It needs
no more than the standard library and replaces itself, so it costs some 20 ms and no process. Where
it is not Linux, the command runs without a leash.

The kernel means the *thread* that started the command: start it from one that lives as long.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def leashed(command: list[str]) -> list[str]:
  """The argv that runs `command` on a leash held by this process."""
  return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *command]


def _become(parent: int, command: list[str]) -> None:
  # Schedulers send it to warn of a timeout, some of them to every process; it is the engine's.
  signal.signal(signal.SIGUSR2, signal.SIG_IGN)
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
      sys.exit(-signal.SIGTERM)  # it died before the kernel knew
  try:
    os.execvp(command[0], command)
  except OSError as error:
    sys.exit(f"{command[0]} cannot be run: {error.strerror}")


if __name__ == "__main__":
  _become(int(sys.argv[1]), sys.argv[2:])
