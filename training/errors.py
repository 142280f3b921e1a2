"""Errors that a user can cause: one line, an exit code, nothing lost."""


class UserError(Exception):
  """Something the user can mend; printed as one line, without a traceback.

  Attributes:
    code: the name in brackets.
    status: the exit status of the process.
  """

  code = "USER"
  status = 1

  def __init__(self, what: str, *, where: str = "", kept: str = "nothing was written", do: str):
    super().__init__(what)
    self.parts = (what, where, kept, do)

  def __str__(self) -> str:
    line = "; ".join(" ".join(str(part).split()) for part in self.parts if part)
    # Names of files come from others, and may hold what steers a terminal.
    line = "".join(c if c.isprintable() else f"<U+{ord(c):04X}>" for c in line)
    return f"error[{self.code}]: {line}"[:500]


class ConfigError(UserError):
  """A setting or a command line that nothing can run."""

  code, status = "CONFIG", 2


class DataError(UserError):
  """Data that is not here, or not what it should be."""

  code, status = "DATA", 3


class CheckpointError(UserError):
  """No checkpoint that can be used."""

  code, status = "CHECKPOINT", 4


class StorageError(UserError):
  """A workdir that cannot be written, or that another process writes."""

  code, status = "STORAGE", 5


class NumericsError(UserError):
  """A loss or a parameter that is not finite."""

  code, status = "NUMERICS", 6


class ResourceError(UserError):
  """More memory asked for than a device or the host has."""

  code, status = "MEMORY", 7


class StalledError(UserError):
  """Nothing has happened for too long."""

  code, status = "STALLED", 7


class Interrupted(UserError):
  """SIGINT or SIGTERM arrived; the run was saved and resumes with the same command."""

  code, status = "INTERRUPTED", 75
