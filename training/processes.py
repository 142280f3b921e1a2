"""One run on several processes: who they are, and who writes.

Every process runs the same program on its own devices, which together are one mesh. The first
writes the workdir; all take part in checkpoints, since each holds a part of the state. Whatever
decides what a process does next must be the same in all of them, or they wait for one another
forever.
"""

import os
import sys

import jax

from training.errors import ConfigError, UserError


def join(coordinator: str, count: int, index: int, *, patience: int = 300):
  """Makes this process one of `count`; before JAX has looked for devices.

  Args:
    coordinator: HOST:PORT of the first process, reachable from all.
    count: how many there are.
    index: which one this is, from 0.
    patience: seconds to wait for the others.

  Raises:
    ConfigError: the three do not go together, or the others did not come.
  """
  host, _, port = coordinator.rpartition(":")
  if not (host and port.isdecimal() and 0 <= index < count):
    raise ConfigError(
      f"--coordinator={coordinator} --processes={count} --process={index} name no process",
      do="give HOST:PORT of the first process, how many there are, and this one's number from 0",
    )
  try:
    jax.distributed.initialize(coordinator, count, index, initialization_timeout=patience)
  except RuntimeError as error:
    raise ConfigError(
      f"process {index} of {count} did not find the others at {coordinator}: {error}"[:300],
      do="start all of them with the same --coordinator and --processes",
    ) from None
  if index:
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends


def alone() -> bool:
  """Whether the run has no other process."""
  # Asked only where there are several: else JAX would look for devices, which takes its time.
  return not jax.distributed.is_initialized() or jax.process_count() == 1


def first() -> bool:
  """Whether this process is the one that writes."""
  return alone() or jax.process_index() == 0


def leave(error: UserError):
  """Ends this process without waiting for the others, or for its own threads."""
  print(error, file=sys.stderr, flush=True)
  os._exit(error.status)
