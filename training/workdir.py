"""The files of a run: who holds the directory, what was run, and the rows of metrics."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

import jax

from training import faults, processes
from training.build import build
from training.config import shown
from training.errors import ConfigError, StorageError, UserError

ASSETS = "assets"  # what a source keeps beside the run
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml-collections")


class Workdir:
  """A directory that one process at a time writes.

  Args:
    path: the directory.
    trained: it must hold a run already; without one, nothing is created.

  Raises:
    StorageError: it cannot be written, has a link to somewhere else, or another process holds it.
    ConfigError: it should hold a run and does not.
  """

  def __init__(self, path: str | pathlib.Path, *, trained: bool = False):
    self.path = pathlib.Path(path).absolute()
    if trained:
      read_config(self.path)
    refuse_links(self.path)
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self._lock = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 - held till close
    except OSError as error:
      raise StorageError(
        f"cannot write to {self.path} ({error.strerror})", do="choose another --workdir"
      ) from None
    self.rows = Rows(self.path / "metrics.jsonl")
    if not processes.first():
      return  # the first process holds the lock for all
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      self._lock.seek(0)
      raise StorageError(
        f"{self.path} is in use by {self._lock.read().strip() or 'another process'}",
        kept="the other run goes on",
        do="wait for it, stop it, or choose another --workdir",
      ) from None
    with storing(self / ".lock"):
      self._lock.truncate(0)
      self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
      self._lock.flush()

  def close(self):
    self.rows.close()
    self._lock.close()

  def __truediv__(self, name: str) -> pathlib.Path:
    return self.path / name

  def claim(self, config: dict[str, Any], *, changed: bool = False):
    """Writes config.json, or checks that the one that is there says the same.

    Args:
      config: the resolved config.
      changed: take the new config even though the run was started with another.
    """
    file = self / "config.json"
    fresh = json.loads(json.dumps(config))
    if file.exists() and not changed:
      lines = differences(flat(_completed(read_config(self.path))), flat(fresh))
      if lines:
        more = f", and {len(lines) - 4} more" if len(lines) > 4 else ""
        raise ConfigError(
          f"this run was started with another config: {', '.join(lines[:4])}{more}"[:300],
          where=str(file),
          kept="the run is as it was",
          do="give the same config, another --workdir, or --allow-changed-config",
        )
    write_json(file, fresh)


def refuse_links(path: pathlib.Path):
  """Refuses links that lead out of a workdir, since who writes to one writes to where it leads.

  A workdir may come from somebody else. Its checkpoints may lie elsewhere, on a larger disk.

  Raises:
    StorageError: there is such a link.
  """
  inside = os.path.join(os.path.realpath(path), "")
  for folder, folders, files in os.walk(path):
    for name in [*folders, *files]:
      file = os.path.join(folder, name)
      if name != "checkpoints" and os.path.islink(file):
        where = os.path.realpath(file)
        if not where.startswith(inside):
          raise StorageError(
            f"{file} is a link that leaves the workdir, to {where}",
            do="put what it leads to in its place, or remove it",
          )
    folders[:] = [name for name in folders if name != "checkpoints"]


class Rows:
  """metrics.jsonl: one object a line, in order of steps, nothing twice and nothing torn."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file = None

  def trim(self, step: int):
    """Forgets rows after `step`: they will be written again, the same."""
    self.close()
    kept = [row for row in read_rows(self._path) if row["step"] <= step]
    text = "".join(json.dumps(row) + "\n" for row in kept)
    write_text(self._path, text)

  def write(self, row: dict[str, Any]):
    if not processes.first():
      return
    try:
      with storing(self._path):
        if self._file is None:
          self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - held till close
        faults.point("row.begin")
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        faults.point("row.written")
    except StorageError:
      self.close()
      raise

  def sync(self):
    """Rows reach the disk before the checkpoint that vouches for them."""
    if self._file is not None:
      with storing(self._path):
        os.fsync(self._file.fileno())

  def close(self):
    if self._file is not None:
      with contextlib.suppress(OSError):  # every row was flushed, or its error has been raised
        self._file.close()
      self._file = None


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of a metrics.jsonl; a torn last line, as a kill leaves it, is no row.

  What comes after a line that is no row is none either.
  """
  if not path.exists():
    return []
  rows = []
  for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
    try:
      row = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
      break
    if not (isinstance(row, dict) and "step" in row and isinstance(row["step"], int)):
      break
    rows.append(row)
  return rows


def read_config(path: pathlib.Path) -> dict[str, Any]:
  """The resolved config of a workdir.

  Raises:
    ConfigError: there is none, or it is not JSON.
  """
  file = pathlib.Path(path) / "config.json"
  try:
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
      raise ValueError("no object")
    return found
  except (OSError, ValueError, RecursionError) as error:
    raise ConfigError(
      f"{path} is no workdir: its config.json cannot be read ({type(error).__name__})",
      do="give the --workdir of a run that `train` started",
    ) from None


def _completed(config: dict[str, Any]) -> dict[str, Any]:
  """A config with the defaults of settings younger than it; as it is where nothing reads it."""
  try:
    return json.loads(json.dumps(build(config).config))
  except UserError:
    return config


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
  """A nested config as dotted keys to values."""
  if isinstance(tree, dict):
    items = tree.items()
  elif isinstance(tree, list) and any(isinstance(x, dict) for x in tree):
    items = enumerate(tree)
  else:
    return {prefix: tree}
  found = {}
  for key, value in items:
    found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
  return found


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """What changed, as "key was -> is". Neither True nor 1.0 is 1, not in a list either."""
  lines = []
  for key in {**old, **new}:
    was, now = (json.dumps(side[key]) if key in side else "" for side in (old, new))
    if was != now:
      said = [shown(side[key]) if key in side else "nothing" for side in (old, new)]
      lines.append(f"{key} {said[0]} -> {said[1]}")
  return lines


def environment(*, seed: int, command: list[str]) -> dict[str, Any]:
  """What a figure of this run depends on besides its config."""
  versions = {}
  for package in _PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = "absent"
  devices = jax.devices()
  return {
    "command": " ".join(command),
    "seed": seed,
    "commit": _commit(),
    "python": platform.python_version(),
    "versions": versions,
    "devices": {
      "kind": devices[0].device_kind,
      "platform": devices[0].platform,
      "count": len(devices),
      "processes": jax.process_count(),
    },
    "random_bits": str(jax.config.jax_default_prng_impl),
    "host": platform.platform(),
    "cores": os.cpu_count(),
    "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    "flags": os.environ["XLA_FLAGS"] if "XLA_FLAGS" in os.environ else "",
    "argv0": sys.argv[0],
  }


def _commit() -> str:
  """The commit of the code, with "+" where the tree has changes; empty outside a checkout."""
  here = pathlib.Path(__file__).parent
  try:
    run = lambda *args: subprocess.run(  # noqa: E731
      ["git", *args], cwd=here, capture_output=True, text=True, timeout=10, check=True
    ).stdout.strip()
    return run("rev-parse", "HEAD") + ("+" if run("status", "--porcelain", "-uno") else "")
  except (OSError, subprocess.SubprocessError):
    return ""


def write_json(path: pathlib.Path, value: Any):
  """JSON, whole or not at all."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: pathlib.Path, text: str):
  """Whole or not at all; of several processes, by the first."""
  if not processes.first():
    return
  temporary = path.with_name(f".{path.name}.tmp")
  with storing(path):
    with open(temporary, "w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    faults.point("file.written")
    os.replace(temporary, path)
    faults.point("file.replaced")


@contextlib.contextmanager
def storing(path: pathlib.Path):
  """Says in one line that a file cannot be written.

  Raises:
    StorageError: instead of an OSError.
  """
  try:
    yield
  except OSError as error:
    raise StorageError(
      f"{path.name} cannot be written: {error.strerror or error} ({room(path):,} bytes free)",
      where=str(path.parent)[-200:],
      kept="what was written before",
      do="make room there, or see who may write there",
    ) from error


def room(path: pathlib.Path) -> int:
  """Bytes free where a path is, or would be."""
  return shutil.disk_usage(next(p for p in (path, *path.parents) if p.is_dir())).free
