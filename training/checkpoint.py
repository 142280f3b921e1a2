"""Checkpoints: Orbax writes them, a SHA-256 manifest inside each step says whether they are whole.

Orbax commits a step atomically but checks no content: a flipped bit restores as another number.
The manifest names every leaf's shape, type and hash, and a hash of itself. Once a step is committed
its files are summed too, so that damage is found, and named, before anything parses it. The latest
steps and the best one lie in separate directories, so the best never evicts the step that a run
resumes from.
"""

import hashlib
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from training import processes
from training.errors import CheckpointError, NumericsError
from training.parallel import to_host

SCHEMA = 1
_SUMS = "SHA256SUMS"


class Corrupt(Exception):
  """A step that cannot be used, and why."""


class Checkpoints:
  """The checkpoints of one workdir."""

  def __init__(self, directory: pathlib.Path, *, keep: int = 2, read_only: bool = False):
    # Orbax logs every save at WARNING when it shares a process with absl; errors still raise.
    logging.getLogger("absl").setLevel(logging.ERROR)
    self.directory = directory.absolute()

    def manager(name: str, keep: int) -> ocp.CheckpointManager:
      place = self.directory / name
      if read_only:
        place.mkdir(parents=True, exist_ok=True)  # Orbax reads no directory that is not there
        return ocp.CheckpointManager(place, options=ocp.CheckpointManagerOptions(read_only=True))
      # Half-written steps are what a kill leaves; nobody else writes here, so they are rubbish.
      options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        cleanup_tmp_directories=True,
        # Processes wait for one another by name, and the two managers save at the same time.
        multiprocessing_options=ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=name),
      )
      return ocp.CheckpointManager(place, options=options)

    self._latest, self._best = manager("latest", keep), manager("best", 1)

  def steps(self, *, best: bool = False) -> list[int]:
    """Committed steps, newest first."""
    return sorted((self._best if best else self._latest).all_steps(), reverse=True)

  def save(self, step: int, state: Any, meta: dict[str, Any], *, best: bool = False):
    """Saves in the background; an error of an earlier background save is raised here.

    Raises:
      NumericsError: a parameter is not finite; what is on disk stays the newest finite state.
    """
    manager = self._best if best else self._latest
    manager.check_for_errors()
    self._seal_committed()
    if step in manager.all_steps():
      manager.delete(step)
    host = to_host(state)
    for path, leaf in leaves({"params": host.params, "ema": host.ema}):
      if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        raise NumericsError(
          f"parameter {path} is not finite at step {step}",
          where=str(self.directory),
          kept=f"checkpoints up to step {max(self.steps(), default=0)}",
          do="lower the learning rate or set optimizer.clip_norm",
        )
    manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        manifest=ocp.args.JsonSave(manifest(state, host, meta)),
      ),
    )

  def meta(self, step: int, *, best: bool = False) -> dict[str, Any]:
    """What was saved beside the state, verified.

    Raises:
      Corrupt: the manifest cannot be read, or does not hash to what it says.
    """
    return self._manifest(step, best=best)["meta"]

  def _manifest(self, step: int, *, best: bool):
    manager = self._best if best else self._latest
    _check_files(pathlib.Path(manager.directory) / str(step))
    try:
      found = manager.restore(step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
      found = found["manifest"]
      if found["digest"] != digest(found) or found["schema"] != SCHEMA:
        raise Corrupt("its manifest has been changed")
    except Corrupt:
      raise
    except Exception as error:  # Orbax raises a different class for every kind of damage
      raise Corrupt(f"its manifest cannot be read ({type(error).__name__})") from error
    return found

  def restore(self, step: int, abstract: Any, *, best: bool = False) -> Any:
    """The state at `step`, verified leaf by leaf, placed as `abstract` says.

    Raises:
      Corrupt: anything at all is not as it was saved.
      CheckpointError: it is whole, but of another model.
    """
    stated = self._manifest(step, best=best)["leaves"]
    wanted = {
      path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in leaves(abstract)
    }
    found = {path: {"shape": v["shape"], "dtype": v["dtype"]} for path, v in stated.items()}
    # Before Orbax sees it: Orbax casts types silently.
    if wanted != found:
      wrong = [p for p in {**wanted, **found} if wanted.get(p) != found.get(p)]
      raise CheckpointError(
        f"step {step} is of another model: "
        + ", ".join(
          f"{p} wants {_brief(wanted.get(p))}, has {_brief(found.get(p))}" for p in wrong[:3]
        )
        + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
        where=str(self.directory),
        kept="the checkpoint is untouched",
        do="use the workdir's own config.json",
      )
    manager = self._best if best else self._latest
    try:
      restored = manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
      )["state"]
    except Exception as error:  # as above
      raise Corrupt(f"its arrays cannot be read ({type(error).__name__})") from error
    for path, leaf in leaves(to_host(restored)):
      if fingerprint(leaf) != stated[path]["sha256"]:
        raise Corrupt(f"{path} does not have the hash it was saved with")
    return restored

  def wait(self):
    """Until all saves are on disk; raises their errors."""
    for manager in (self._latest, self._best):
      manager.wait_until_finished()
      manager.check_for_errors()
    self._seal_committed()

  def _seal_committed(self):
    if not processes.first():
      return
    for manager in (self._latest, self._best):
      for step in manager.all_steps():
        directory = pathlib.Path(manager.directory) / str(step)
        # Orbax lists a step from the moment it is asked to save it; the rename commits it.
        if directory.is_dir() and not (directory / _SUMS).exists():
          _seal(directory)

  def close(self):
    for manager in (self._latest, self._best):
      manager.close()


def _seal(step: pathlib.Path):
  """Writes the sums of a committed step's files, in the format that `sha256sum -c` reads."""
  files = sorted(p for p in step.rglob("*") if p.is_file() and p.name != _SUMS)
  lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(step)}\n" for p in files]
  temporary = step / f".{_SUMS}.tmp"
  temporary.write_text("".join(lines), encoding="utf-8")
  temporary.rename(step / _SUMS)


def _check_files(step: pathlib.Path):
  """Raises Corrupt, naming the file, before anything parses what is in it."""
  sums = step / _SUMS
  if not sums.exists():
    return  # killed between commit and seal: the leaves' own hashes still decide
  try:
    lines = sums.read_text(encoding="utf-8").splitlines()
    entries = [line.split("  ", 1) for line in lines]
    for stated, name in entries:
      found = hashlib.sha256((step / name).read_bytes()).hexdigest()
      if found != stated:
        raise Corrupt(f"{name} does not have the SHA-256 it was written with")
  except (OSError, ValueError) as error:
    raise Corrupt(f"its files cannot be read ({error})") from error


def _brief(entry) -> str:
  return f"{entry['dtype']}{entry['shape']}" if entry else "nothing"


def leaves(tree) -> list[tuple[str, Any]]:
  """(path, leaf) pairs, in a fixed order."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]


def fingerprint(array: np.ndarray) -> str:
  """SHA-256 of an array's bytes, in hexadecimal."""
  return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def manifest(state: Any, host: Any, meta: dict[str, Any]) -> dict[str, Any]:
  """Shapes and types of a state, hashes of its copy on the host, `meta`, and a hash of all that."""
  entries = {}
  # A key's type names its generator: other random bits would be another run.
  for (path, leaf), (_, copy) in zip(leaves(state), leaves(host), strict=True):
    entries[path] = {
      "shape": list(leaf.shape),
      "dtype": str(leaf.dtype),
      "sha256": fingerprint(copy),
    }
  found = {"schema": SCHEMA, "leaves": entries, "meta": meta}
  return {**found, "digest": digest(found)}


def digest(found: dict[str, Any]) -> str:
  """SHA-256 of a manifest, its own digest aside."""
  rest = {key: value for key, value in found.items() if key != "digest"}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
