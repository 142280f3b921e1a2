"""What a run's data were when it was started, so that it goes on with the same or says that not.

A source's fingerprint is a hash of its examples and of the settings that change what a model sees.
It is kept, of every stage, beside each checkpoint. Whoever changes the data of a run on purpose
says so with --allow-changed-config, as for its config.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from training.build import Stage, reading
from training.checkpoint import Checkpoints, Corrupt
from training.errors import DataError

Prints = dict[str, dict[str, Any]]

_PARTS = ("train", "validation", "test")


def of_data(stages: Sequence[Stage]) -> Prints:
  """By the name of a stage, the fingerprint of its source and the sizes of its splits."""
  found = {}
  for stage in stages:
    if stage.source not in found:  # stages often share one, and it is read once
      with reading(stage.source):
        sizes = {name: len(stage.source.split(name)) for name in _PARTS}
        found[stage.source] = {"sha256": stage.source.fingerprint(), **sizes}
  return {stage.name: found[stage.source] for stage in stages}


def check(found: Prints, checkpoints: Checkpoints, *, changed: bool):
  """Refuses to go on with other data than those of the newest checkpoint.

  Args:
    found: what the data are now.
    checkpoints: of the run.
    changed: only say that they are others.

  Raises:
    DataError: they are others.
  """
  what = _difference(found, checkpoints)
  if what and not changed:
    raise DataError(
      f"the data are not those that the run was trained on: {what}",
      where=str(checkpoints.directory),
      kept="the run is as it was",
      do="put the data back, choose another --workdir, or say --allow-changed-config",
    )
  if what:
    print(f"note: from here on, other data: {what}", flush=True)


def warn(stage: Stage, checkpoints: Checkpoints):
  """Says in one line that what is measured on is not of the data that the run was trained on."""
  what = _difference(of_data([stage]), checkpoints)
  if what:
    print(f"warning: other data than the run was trained on: {what}", file=sys.stderr, flush=True)


def _difference(found: Prints, checkpoints: Checkpoints) -> str:
  """What is different since the newest checkpoint, which may be from before they said."""
  for step in checkpoints.steps():
    try:
      meta = checkpoints.meta(step)
    except Corrupt:
      continue
    kept = meta["data"] if "data" in meta else {}
    # Only stages that both have: a changed config may have others.
    return "; ".join(
      _said(stage, kept[stage], found[stage])
      for stage in found
      if stage in kept and kept[stage] != found[stage]
    )
  return ""


def _said(stage: str, kept: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  names = ("sha256",) if kept["sha256"] != now["sha256"] else _PARTS
  one, other = (" ".join(f"{name} {side[name]}" for name in names) for side in (kept, now))
  return f"{f'{stage}: ' if stage else ''}{one}, now {other}"
