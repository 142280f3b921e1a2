"""Checkpoints: Orbax writes them, a SHA-256 manifest inside each step says whether they are whole.

Orbax commits a step atomically but checks no content: a flipped bit restores as another number.
The manifest names every leaf's shape, type and hash, and a hash of itself. Once a step is committed
its files are brought to the disk and summed too, so that damage is found, and named, before
anything parses it. The latest steps and the best one lie in separate directories, so the best never
evicts the step that a run resumes from. Groups of parameters that a stage does not train (a
teacher; what has adapters) are saved once a stage, in a directory of their own, and steps name the
hash of what they go with.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import logging
import os
import pathlib
import re
import shutil
import sys
import warnings
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from training import faults, processes, sums
from training.errors import CheckpointError, NumericsError, StorageError
from training.parallel import to_host
from training.sums import Corrupt
from training.workdir import room, storing, write_text

SCHEMA = 2
# Fields of the state that a version did not have yet: they begin at zero, as in a new run.
_ADDED_AFTER = {1: ("rejected",)}
_META = {"stage": str, "step": int, "devices": int, "parallel": str, "best": float | int | None}
_QUARANTINE = "quarantine"
_COMMITTED = "committed"
_LATEST, _BEST, _FROZEN = "latest", "best", "frozen"
# Threads that await a folder which a full disk refused keep the process alive for minutes.
_FOLDERS_FIRST = ocp.options.AsyncOptions(create_directories_asynchronously=False)
_UNFINISHED = re.compile(r".*\.orbax-checkpoint-tmp.*|\..*\.old")


class AnotherModel(CheckpointError):
  """A step that is whole, and of another model than the one that is to go on."""


class Checkpoints:
  """The checkpoints of one workdir.

  Args:
    directory: where they are, or will be.
    keep: how many of the latest are kept.
  """

  def __init__(self, directory: pathlib.Path, *, keep: int = 2):
    _raise_once()
    self.directory = directory.absolute()
    self._keep = {_LATEST: keep, _BEST: 1, _FROZEN: sys.maxsize}
    self._kept: dict[int, str] = {}  # digests of the frozen groups saved, by the stage's first step
    self._writers: dict[str, _Writer] = {}  # opened by the first save, which few readers do

  def steps(self, *, best: bool = False) -> list[int]:
    """Committed steps, newest first."""
    return sums.numbered(self.directory / _kind(best))

  def committed(self) -> int | None:
    """The newest step that was saved, or gone on from, in this workdir; None where none was."""
    try:
      return int((self.directory / _COMMITTED).read_text(encoding="utf-8"))
    except FileNotFoundError:
      return None
    except (OSError, ValueError):  # damaged, and yet it says that there was one
      return 0

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
      StorageError: this step, or an earlier one, cannot be written.
    """
    faults.point("save.begin")
    self.check()
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
    described = manifest(state, host, meta)
    faults.point("save.described")
    kind = _kind(best)
    if not (self.directory / kind / str(step)).is_dir():
      self._set_aside(kind, step)  # a file or a dead link that has the name
    self._writer(kind).save(step, state, described)
    faults.point("save.started")

  def _writer(self, kind: str) -> "_Writer":
    if kind not in self._writers:
      marker = self.directory / _COMMITTED if kind == _LATEST else None
      self._writers[kind] = _Writer(self.directory / kind, self._keep[kind], marker)
    return self._writers[kind]

  def _keep_frozen(self, state: Any, groups: Collection[str], begun: int) -> dict[str, Any]:
    """Where frozen groups are kept, which the first save of a stage writes."""
    if begun not in self._kept:
      params = _apart(state, groups)[1]
      found = manifest(params, to_host(params), {})
      if not self._frozen_as(begun, found["digest"]):
        self._set_aside(_FROZEN, begun)
        # No step may be committed before what it goes with.
        self._writer(_FROZEN).save(begun, params, found)
        self._writer(_FROZEN).ended(wait=True)
      self._kept[begun] = found["digest"]
    return {"begun": begun, "groups": sorted(groups), "digest": self._kept[begun]}

  def _frozen_as(self, begun: int, wanted: str) -> bool:
    """Whether a process before this one kept the same groups, and they are sealed and whole."""
    if not (self.directory / _FROZEN / str(begun) / sums.SUMS).exists():
      return False
    try:
      return self._manifest(_FROZEN, begun)["digest"] == wanted
    except (Corrupt, CheckpointError):
      return False

  def meta(self, step: int, *, best: bool = False) -> dict[str, Any]:
    """What was saved beside the state, verified.

    Raises:
      Corrupt: the manifest cannot be read, or does not hash to what it says.
      CheckpointError: a newer version of this code wrote it.
    """
    return self._manifest(_kind(best), step)["meta"]

  def restore(self, step: int, abstract: Any, *, best: bool = False) -> Any:
    """The state at `step`, verified leaf by leaf, placed as `abstract` says.

    Raises:
      Corrupt: anything at all is not as it was saved.
      CheckpointError: it is whole, but of another model, or a newer version of this code wrote it.
    """
    faults.point("restore.begin")
    found = self._manifest(_kind(best), step)
    faults.point("restore.described")
    if "frozen" not in found["meta"]:
      return self._restored(_kind(best), step, found, abstract)
    begun, groups, wanted = _frozen_of(found["meta"])
    if unknown := set(groups) - set(abstract.params):
      raise self._of_another_model(step, f"it has the groups {', '.join(sorted(unknown))}")
    moving, still = _apart(abstract, groups)
    frozen = self._manifest(_FROZEN, begun)
    if frozen["digest"] != wanted:
      raise Corrupt("what it does not train is not what it was saved with")
    state = self._restored(_kind(best), step, found, moving)
    params = self._restored(_FROZEN, begun, frozen, still)
    # Copies: a step gives its buffers away, and can give each only once.
    ema = None if state.ema is None else {**state.ema, **jax.tree.map(jax.numpy.copy, params)}
    return state.replace(params={**state.params, **params}, ema=ema)

  def _manifest(self, kind: str, step: int) -> dict[str, Any]:
    """A step's manifest, verified."""
    directory = self.directory / kind / str(step)
    sums.check(directory)
    try:
      found = json.loads((directory / "manifest/metadata").read_text(encoding="utf-8"))
      same = found["digest"] == digest(found)
      schema, stated, meta = found["schema"], found["leaves"], found["meta"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
      raise Corrupt(f"its manifest cannot be read ({type(error).__name__})") from error
    if not same or not isinstance(schema, int) or schema < 1:
      raise Corrupt("its manifest has been changed")
    if schema > SCHEMA:
      raise CheckpointError(
        f"step {step} is of schema {schema}, and this version of the code reads up to {SCHEMA}",
        where=str(directory),
        kept="the checkpoint is untouched",
        do="use the version of the code that wrote it",
      )
    wanted = {} if kind == _FROZEN else _META
    later = {"assets": {}, "data": {}}  # which the first versions did not say
    described = _holds(meta, wanted) and _holds(later | meta, dict.fromkeys(later, dict))
    if not described or not all(_is_leaf(x) for x in _values(stated)):
      raise Corrupt("its manifest does not say what a manifest says")
    return found

  def _restored(self, kind: str, step: int, found, abstract: Any) -> Any:
    """The arrays of a step whose manifest is `found`."""
    whole, abstract, added = abstract, *_without_later(abstract, found["schema"])
    stated = found["leaves"]
    self._check_model(step, stated, abstract)
    try:
      restored = _reader().restore(
        self.directory / kind / str(step),
        args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
      )["state"]
    except Exception as error:  # Orbax raises a different class for every kind of damage
      raise Corrupt(f"its arrays cannot be read ({type(error).__name__})") from error
    copies = leaves(to_host(restored))
    for (path, _), found_hash in zip(copies, _fingerprints(copies), strict=True):
      if found_hash != stated[path]["sha256"]:
        raise Corrupt(f"{path} does not have the hash it was saved with")
    faults.point("restore.done")
    return whole.replace(**restored, **jax.tree.map(_zeros, added)) if added else restored

  def _check_model(self, step: int, stated: dict[str, Any], abstract: Any):
    """Before Orbax sees it: Orbax casts types silently."""
    wanted = {
      path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} for path, leaf in leaves(abstract)
    }
    has = {path: {"shape": v["shape"], "dtype": v["dtype"]} for path, v in stated.items()}
    if wanted != has:
      wrong = [p for p in {**wanted, **has} if _at(wanted, p) != _at(has, p)]
      shown = [f"{p} wants {_brief(_at(wanted, p))}, has {_brief(_at(has, p))}" for p in wrong[:5]]
      raise self._of_another_model(step, f"{len(wrong)} leaves differ: {', '.join(shown)}")

  def _of_another_model(self, step: int, how: str) -> AnotherModel:
    return AnotherModel(
      f"step {step} is of another model: {how}"[:310],
      where=str(self.directory)[-100:],
      kept="the checkpoint is untouched",
      do="use the workdir's own config.json",
    )

  def set_aside(self, refused: Collection[tuple[int, bool]], resumed: int):
    """Moves steps that cannot be used out of the way, for whoever wants to look at them.

    Args:
      refused: (step, whether it is of the best) of each.
      resumed: the step that the run goes on from instead.

    Raises:
      StorageError: they cannot be moved.
    """
    for step, best in refused:
      self._set_aside(_kind(best), step)
    if refused and processes.first():
      write_text(self.directory / _COMMITTED, f"{resumed}\n")

  def _set_aside(self, kind: str, step: int):
    place = self.directory / kind / str(step)
    if not (processes.first() and os.path.lexists(place)):
      return
    with storing(place):
      names = (self.directory / _QUARANTINE / f"{kind}-{step}-{n}" for n in range(1, sys.maxsize))
      target = next(name for name in names if not name.exists())
      target.parent.mkdir(exist_ok=True)
      faults.point("restore.setaside")
      place.rename(target)

  def check(self):
    """Raises the error of a background save that has failed; costs next to nothing.

    Raises:
      StorageError: a step was not saved.
    """
    for writer in self._writers.values():
      writer.ended(wait=False)

  def wait(self):
    """Until all saves are on disk.

    Raises:
      StorageError: a step was not saved.
    """
    for writer in self._writers.values():
      writer.ended(wait=True)

  def close(self):
    """Ends the background saves; one that fails now can only be warned of."""
    for writer in self._writers.values():
      try:
        writer.ended(wait=True)
      except StorageError as error:
        print(f"warning: {error.parts[0]}", file=sys.stderr, flush=True)
      writer.close()
    self._writers = {}


class _Writer:
  """Writes the steps of one directory, one at a time, behind the training's back.

  Args:
    directory: of the steps.
    keep: how many of them stay.
    marker: file that names the newest of them, if one is to.

  Raises:
    StorageError: the directory cannot be written.
  """

  def __init__(self, directory: pathlib.Path, keep: int, marker: pathlib.Path | None):
    self._directory, self._keep, self._marker = directory, keep, marker
    self._step, self._bytes, self._pending = 0, 0, None
    if processes.first():
      with storing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
    together = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=directory.name)
    # Processes wait for one another by name, and writers save at the same time.
    self._orbax = ocp.AsyncCheckpointer(
      _handler(together), multiprocessing_options=together, async_options=_FOLDERS_FIRST
    )
    self._sealing = concurrent.futures.ThreadPoolExecutor(1, "seal")

  def _sweep(self):
    """Removes half-written steps, as a kill leaves them; nobody else writes here."""
    for path in self._directory.iterdir():
      if _UNFINISHED.fullmatch(path.name):
        path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)

  def save(self, step: int, tree: Any, described: dict[str, Any]):
    """Starts a save once the one before has ended; raises StorageError of either."""
    self.ended(wait=True)
    self._step, self._bytes = step, sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    try:
      self._orbax.save(
        self._directory / str(step),
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(tree), manifest=ocp.args.JsonSave(described)
        ),
        force=True,  # a step of that number that is there already is from before a fallback
      )
    except Exception as error:  # Orbax raises a different class for every kind of failure
      raise self._not_saved(error) from error
    self._pending = self._sealing.submit(self._finish, step)

  def ended(self, *, wait: bool):
    """Raises StorageError if the save has failed; asks only, or waits until it has ended."""
    if self._pending is None or not (wait or self._pending.done()):
      return
    pending, self._pending = self._pending, None
    try:
      pending.result()
    except Exception as error:  # as above
      raise self._not_saved(error) from error

  def _finish(self, step: int):
    """Makes a step last, and only then forgets older ones."""
    self._orbax.wait_until_finished()
    if not processes.first():
      return
    faults.point("save.committed")
    sums.seal(self._directory / str(step))
    sums.sync(self._directory)
    faults.point("save.sealed")
    if self._marker is not None:
      write_text(self._marker, f"{step}\n")
    others = [other for other in sums.numbered(self._directory) if other != step]
    for other in others[self._keep - 1 :]:
      # Under another name first: half a step must not look like one.
      old = self._directory / f".{other}.old"
      (self._directory / str(other)).rename(old)
      faults.point("save.forgetting")
      shutil.rmtree(old)

  def _not_saved(self, error: Exception) -> StorageError:
    kept = [step for step in sums.numbered(self._directory) if step != self._step]
    free = room(self._directory)
    return StorageError(
      f"the checkpoint of step {self._step} was not saved: {_reason(error)} ({self._bytes:,} bytes"
      f" needed, {free:,} free)",
      where=str(self._directory)[-150:],
      kept=f"step {kept[0]}, saved before" if kept else "no step was saved before",
      do="make room there, then run the same command to go on",
    )

  def close(self):
    self._sealing.shutdown()
    with contextlib.suppress(Exception):  # more of an error that `ended` has raised
      self._orbax.close()
    if processes.first():
      with contextlib.suppress(OSError):
        self._sweep()  # what a failed save began takes the room that was missing


@functools.cache
def _raise_once():
  """Of a failure Orbax raises the first part; the rest it logs, or leaves to Python to print."""
  for name in ("absl", "asyncio"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
  before = sys.unraisablehook

  def after(unraisable):
    # Other writes of the same step end when nobody waits for them any more.
    late = str(unraisable.exc_value) == "Event loop is closed"
    if not (late or inspect.iscoroutine(unraisable.object)):
      before(unraisable)

  sys.unraisablehook = after


def _reason(error: Exception) -> str:
  """Why something was not written; Orbax and TensorStore wrap it in paragraphs."""
  if isinstance(error, StorageError):
    error = error.__cause__
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  found = re.search(r"os_error_code='(\d+)'", str(error))
  return os.strerror(int(found[1])) if found else f"{type(error).__name__}: {error}"[:120]


def _kind(best: bool) -> str:
  return _BEST if best else _LATEST


def _handler(together: ocp.options.MultiprocessingOptions) -> ocp.CompositeCheckpointHandler:
  return ocp.CompositeCheckpointHandler(
    composite_options=ocp.CompositeOptions(
      multiprocessing_options=together, async_options=_FOLDERS_FIRST
    )
  )


@functools.cache
def _reader() -> ocp.Checkpointer:
  together = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix="restore")
  return ocp.Checkpointer(_handler(together), multiprocessing_options=together)


def _holds(meta: Any, wanted: dict[str, Any]) -> bool:
  return isinstance(meta, dict) and all(
    key in meta and isinstance(meta[key], kind) for key, kind in wanted.items()
  )


def _values(stated: Any) -> list[Any]:
  return list(stated.values()) if isinstance(stated, dict) else [None]


def _is_leaf(entry: Any) -> bool:
  return _holds(entry, {"shape": list, "dtype": str, "sha256": str})


def _frozen_of(meta: dict[str, Any]) -> tuple[int, list[str], str]:
  """(first step of the stage, frozen groups, digest of their manifest)."""
  kept = meta["frozen"]
  whole = _holds(kept, {"begun": int, "groups": list, "digest": str})
  if not whole or not all(isinstance(group, str) for group in kept["groups"]):
    raise Corrupt("its manifest does not say what a manifest says")
  return kept["begun"], kept["groups"], kept["digest"]


def _at(entries: dict[str, Any], path: str) -> dict[str, Any] | None:
  return entries[path] if path in entries else None


def _without_later(abstract: Any, schema: int) -> tuple[Any, dict[str, Any]]:
  """(what a state of an older schema holds, the fields that were added since)."""
  later = [field for version in range(schema, SCHEMA) for field in _ADDED_AFTER[version]]
  added = {field: getattr(abstract, field) for field in later if hasattr(abstract, field)}
  if not added:
    return abstract, {}
  fields = [field.name for field in dataclasses.fields(abstract)]
  return {name: getattr(abstract, name) for name in fields if name not in added}, added


def _zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
  return jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)


def _apart(state: Any, groups: Collection[str]) -> tuple[Any, dict[str, Any]]:
  """(the state without groups of parameters, these groups)."""

  def moving(tree):
    return None if tree is None else {k: v for k, v in tree.items() if k not in groups}

  still = {name: state.params[name] for name in sorted(groups)}
  return state.replace(params=moving(state.params), ema=moving(state.ema)), still


def _brief(entry) -> str:
  return f"{entry['dtype']}{entry['shape']}" if entry else "nothing"


def leaves(tree) -> list[tuple[str, Any]]:
  """(path, leaf) pairs, in a fixed order."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]


def fingerprint(array: np.ndarray) -> str:
  """SHA-256 of an array's bytes, in hexadecimal."""
  return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def _fingerprints(named: list[tuple[str, np.ndarray]]) -> list[str]:
  """Of all leaves, on all cores: hashing lets other threads run."""
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    return list(threads.map(fingerprint, [leaf for _, leaf in named]))


def manifest(state: Any, host: Any, meta: dict[str, Any]) -> dict[str, Any]:
  """Shapes and types of a state, hashes of its copy on the host, `meta`, and a hash of all that."""
  named = leaves(state)
  # A key's type names its generator: other random bits would be another run.
  entries = {
    path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "sha256": found}
    for (path, leaf), found in zip(named, _fingerprints(leaves(host)), strict=True)
  }
  found = {"schema": SCHEMA, "leaves": entries, "meta": meta}
  return {**found, "digest": digest(found)}


def digest(found: dict[str, Any]) -> str:
  """SHA-256 of a manifest, its own digest aside."""
  rest = {key: value for key, value in found.items() if key != "digest"}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
