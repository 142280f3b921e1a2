"""Checkpoints: Orbax writes them, a SHA-256 manifest inside each step says whether they are whole.

Orbax commits a step atomically but checks no content: a flipped bit restores as another number.
The manifest names every leaf's shape, type and hash, and a hash of itself. Once a step is committed
its files are summed too, so that damage is found, and named, before anything parses it. The latest
steps and the best one lie in separate directories, so the best never evicts the step that a run
resumes from. Groups of parameters that a stage does not train (a teacher; what has adapters) are
saved once a stage, in a directory of their own, and steps name the hash of what they go with.
"""

import functools
import hashlib
import json
import logging
import pathlib
from collections.abc import Collection
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

    self._read_only, self._opened = read_only, []
    self._kept: dict[int, str] = {}  # digests of the frozen groups saved, by the stage's first step
    self._latest, self._best = self._manager("latest", keep), self._manager("best", 1)

  def _manager(self, name: str, keep: int | None) -> ocp.CheckpointManager:
    place = self.directory / name
    if self._read_only:
      place.mkdir(parents=True, exist_ok=True)  # Orbax reads no directory that is not there
      options = ocp.CheckpointManagerOptions(read_only=True)
    else:
      # Half-written steps are what a kill leaves; nobody else writes here, so they are rubbish.
      options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        cleanup_tmp_directories=True,
        # Processes wait for one another by name, and managers save at the same time.
        multiprocessing_options=ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=name),
      )
    self._opened.append(ocp.CheckpointManager(place, options=options))
    return self._opened[-1]

  @functools.cached_property
  def _frozen(self) -> ocp.CheckpointManager:
    """What stages do not train, by the step that they begin after; few runs have any."""
    return self._manager("frozen", None)

  def steps(self, *, best: bool = False) -> list[int]:
    """Committed steps, newest first."""
    return sorted((self._best if best else self._latest).all_steps(), reverse=True)

  def save(
    self,
    step: int,
    state: Any,
    meta: dict[str, Any],
    *,
    best: bool = False,
    frozen: Collection[str] = (),
    begun: int = 0,
  ):
    """Saves in the background; an error of an earlier background save is raised here.

    Args:
      step: counted through all stages.
      state: of the run.
      meta: what to save beside it.
      best: as the best one, and not as the latest.
      frozen: groups of parameters that the stage does not change.
      begun: the step that the stage began after.

    Raises:
      NumericsError: a parameter is not finite; what is on disk stays the newest finite state.
    """
    manager = self._best if best else self._latest
    manager.check_for_errors()
    self._seal_committed()
    if step in manager.all_steps():
      manager.delete(step)
    if frozen:
      meta = {**meta, "frozen": self._keep_frozen(state, frozen, begun)}
      state = _apart(state, frozen)[0]
    host = to_host(state)
    for path, leaf in leaves({"params": host.params, "ema": host.ema}):
      if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
        raise NumericsError(
          f"parameter {path} is not finite at step {step}",
          where=str(self.directory),
          kept=f"checkpoints up to step {max(self.steps(), default=0)}",
          do="lower the learning rate or set optimizer.clip_norm",
        )
    _save(manager, step, state, manifest(state, host, meta))

  def _keep_frozen(self, state: Any, groups: Collection[str], begun: int) -> dict[str, Any]:
    """Where frozen groups are kept, which the first save of a stage writes."""
    if begun not in self._kept:
      params = _apart(state, groups)[1]
      found = manifest(params, to_host(params), {})
      if begun in self._frozen.all_steps():  # of this stage, begun before the process was
        if self._readable(begun, found["digest"]):
          self._kept[begun] = found["digest"]
        else:
          self._frozen.delete(begun)
      if begun not in self._kept:
        _save(self._frozen, begun, params, found)
        self._kept[begun] = found["digest"]
    return {"begun": begun, "groups": sorted(groups), "digest": self._kept[begun]}

  def _readable(self, begun: int, wanted: str) -> bool:
    try:
      return _manifest(self._frozen, begun)["digest"] == wanted
    except Corrupt:
      return False

  def meta(self, step: int, *, best: bool = False) -> dict[str, Any]:
    """What was saved beside the state, verified.

    Raises:
      Corrupt: the manifest cannot be read, or does not hash to what it says.
    """
    return _manifest(self._best if best else self._latest, step)["meta"]

  def restore(self, step: int, abstract: Any, *, best: bool = False) -> Any:
    """The state at `step`, verified leaf by leaf, placed as `abstract` says.

    Raises:
      Corrupt: anything at all is not as it was saved.
      CheckpointError: it is whole, but of another model.
    """
    manager = self._best if best else self._latest
    found = _manifest(manager, step)
    if "frozen" not in found["meta"]:
      return self._restored(manager, step, found, abstract)
    kept = found["meta"]["frozen"]
    if unknown := set(kept["groups"]) - set(abstract.params):
      raise self._of_another_model(step, f"it has the groups {', '.join(sorted(unknown))}")
    moving, still = _apart(abstract, kept["groups"])
    frozen = _manifest(self._frozen, kept["begun"])
    if frozen["digest"] != kept["digest"]:
      raise Corrupt("what it does not train is not what it was saved with")
    state = self._restored(manager, step, found, moving)
    params = self._restored(self._frozen, kept["begun"], frozen, still)
    # Copies: a step gives its buffers away, and can give each only once.
    ema = None if state.ema is None else {**state.ema, **jax.tree.map(jax.numpy.copy, params)}
    return state.replace(params={**state.params, **params}, ema=ema)

  def _restored(self, manager: ocp.CheckpointManager, step: int, found, abstract: Any) -> Any:
    """The arrays of a step whose manifest is `found`."""
    stated = found["leaves"]
    wanted = {
      path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in leaves(abstract)
    }
    has = {path: {"shape": v["shape"], "dtype": v["dtype"]} for path, v in stated.items()}
    # Before Orbax sees it: Orbax casts types silently.
    if wanted != has:
      wrong = [p for p in {**wanted, **has} if wanted.get(p) != has.get(p)]
      raise self._of_another_model(
        step,
        ", ".join(f"{p} wants {_brief(wanted.get(p))}, has {_brief(has.get(p))}" for p in wrong[:3])
        + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
      )
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

  def _of_another_model(self, step: int, how: str) -> CheckpointError:
    return CheckpointError(
      f"step {step} is of another model: {how}",
      where=str(self.directory),
      kept="the checkpoint is untouched",
      do="use the workdir's own config.json",
    )

  def wait(self):
    """Until all saves are on disk; raises their errors."""
    for manager in self._opened:
      manager.wait_until_finished()
      manager.check_for_errors()
    self._seal_committed()

  def _seal_committed(self):
    if not processes.first():
      return
    for manager in self._opened:
      for step in manager.all_steps():
        directory = pathlib.Path(manager.directory) / str(step)
        # Orbax lists a step from the moment it is asked to save it; the rename commits it.
        if directory.is_dir() and not (directory / _SUMS).exists():
          _seal(directory)

  def close(self):
    for manager in self._opened:
      manager.close()


def _save(manager: ocp.CheckpointManager, step: int, tree: Any, described: dict[str, Any]):
  manager.save(
    step,
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(tree), manifest=ocp.args.JsonSave(described)
    ),
  )


def _manifest(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """A step's manifest, verified; raises Corrupt."""
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


def _apart(state: Any, groups: Collection[str]) -> tuple[Any, dict[str, Any]]:
  """(the state without groups of parameters, these groups)."""

  def moving(tree):
    return None if tree is None else {k: v for k, v in tree.items() if k not in groups}

  still = {name: state.params[name] for name in sorted(groups)}
  return state.replace(params=moving(state.params), ema=moving(state.ema)), still


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
