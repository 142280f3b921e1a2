"""Places where a test may make a run fail; in any other run they do nothing.

`FAULT=save.commit:3:kill` in the environment kills the process when it comes to the point
`save.commit` for the third time. `FAULT_TRACE=FILE` writes the name of every point that is passed,
a line each, so that a test can list them all before it arms any.
"""

import errno
import os
import signal
import time
from collections import Counter
from typing import NamedTuple

import jax

_SIGNALS = {
  "kill": signal.SIGKILL,
  "stop": signal.SIGSTOP,
  "term": signal.SIGTERM,
  "int": signal.SIGINT,
}
_ACTIONS = (*_SIGNALS, "full", "memory", "stall")


class _Armed(NamedTuple):
  name: str
  ordinal: int
  action: str


def _armed() -> _Armed | None:
  text = os.environ.get("FAULT", "")
  if not text:
    return None
  name, ordinal, action = text.split(":")
  if action not in _ACTIONS:
    raise ValueError(f"FAULT={text!r}: an action is one of {', '.join(_ACTIONS)}")
  return _Armed(name, int(ordinal), action)


_ARMED = _armed()
_TRACE = os.environ.get("FAULT_TRACE", "")
_PASSED = Counter()


def point(name: str):
  """Does nothing, unless the environment asks that the process fail here.

  Args:
    name: of the point: what is done, and how far it is, as "save.commit".

  Raises:
    OSError: the action is "full": no space is left on the device.
    JaxRuntimeError: the action is "memory": a device has too little.
  """
  if _ARMED is None and not _TRACE:
    return
  _PASSED[name] += 1
  if _TRACE:
    with open(_TRACE, "a", encoding="utf-8") as file:
      file.write(f"{name}\n")
  if _ARMED is None or (name, _PASSED[name]) != _ARMED[:2]:
    return
  if _ARMED.action == "full":
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  if _ARMED.action == "memory":
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1024 bytes.")
  if _ARMED.action == "stall":
    time.sleep(3600)
  else:
    os.kill(os.getpid(), _SIGNALS[_ARMED.action])
