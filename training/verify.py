"""A certificate that an experiment resumes: interrupted runs end with the bits of one that was not.

The experiment is trained once as a whole, and then again and again, killed (SIGKILL) after each of
its saves and started anew by the same command. Every one is a process of its own on this machine's
devices, as it would be for a user. What is compared is the SHA-256 of every array of the last
checkpoint (parameters, optimizer, average, statistics, random key, counts), the rows of
metrics.jsonl, and evaluation.json.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple

from training import sums
from training.errors import StorageError, UserError

_LAUNCH = pathlib.Path(__file__).parent.parent / "launch.py"
_POINT = "save.sealed"  # a save that is on the disk


class Ended(NamedTuple):
  """How a run ended.

  Attributes:
    arrays: SHA-256 of every array of the last checkpoint, by path.
    rows: of metrics.jsonl, as text.
    evaluation: evaluation.json, as text.
  """

  arrays: dict[str, str]
  rows: str
  evaluation: str


class Interrupted(NamedTuple):
  """A run that was killed and went on, beside one that was not.

  Attributes:
    save: after which save it was killed, from 1.
    step: from which it went on.
    arrays: how many arrays differ.
    rows: whether the rows are equal.
    evaluation: whether the evaluation is.
  """

  save: int
  step: int
  arrays: int
  rows: bool
  evaluation: bool

  @property
  def equal(self) -> bool:
    return not self.arrays and self.rows and self.evaluation


def verify(command: list[str], folder: pathlib.Path, *, most: int = 0) -> list[Interrupted]:
  """Trains an experiment whole and interrupted; prints a line for each interruption.

  Args:
    command: what `launch.py train` is given, but for the workdir.
    folder: where the runs are left.
    most: of interruptions, spread evenly over the saves; 0 interrupts after every save.

  Raises:
    UserError: the experiment cannot be trained to its end.
  """
  if folder.exists() and any(folder.iterdir()):
    raise StorageError(
      f"{folder} holds something already", kept="it", do="choose an empty --workdir"
    )
  whole = folder / "whole"
  trace = folder / "points"
  folder.mkdir(parents=True, exist_ok=True)
  _train(command, whole, {"FAULT_TRACE": str(trace.absolute())})
  saves = trace.read_text(encoding="utf-8").splitlines().count(_POINT)
  wanted = _ended(whole)
  chosen = range(1, saves)  # after the last there is nothing left to train
  if most and len(chosen) > most:
    chosen = [chosen[i * len(chosen) // most + len(chosen) // (2 * most)] for i in range(most)]
  print(f"{len(wanted.arrays)} arrays; {saves} saves, killed after {len(chosen)} of them")
  print("save  step  arrays        metrics.jsonl  evaluation.json")
  found = []
  for save in chosen:
    workdir = folder / f"save_{save}"
    _train(command, workdir, {"FAULT": f"{_POINT}:{save}:kill"}, killed=True)
    step = max(sums.numbered(workdir / "checkpoints/latest"), default=0)
    _train(command, workdir, {})
    one = _compared(save, step, wanted, _ended(workdir))
    said = ["equal" if same else "DIFFERS" for same in (one.rows, one.evaluation)]
    arrays = f"{one.arrays} DIFFER" if one.arrays else "equal"
    print(f"{save:4}  {step:4}  {arrays:12}  {said[0]:13}  {said[1]}", flush=True)
    found.append(one)
    if one.equal:
      shutil.rmtree(workdir)
  return found


def _train(command: list[str], workdir: pathlib.Path, armed: dict[str, str], *, killed=False):
  """Trains in a process of its own, which is killed if that is what it is armed for."""
  environment = {k: v for k, v in os.environ.items() if k not in ("FAULT", "FAULT_TRACE")}
  ended = subprocess.run(
    [sys.executable, str(_LAUNCH), "train", *command, f"--workdir={workdir}"],
    env=environment | armed,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    check=False,
  )
  if ended.returncode == (-9 if killed else 0):
    return
  said = ended.stderr.strip().splitlines()
  error = UserError(
    f"a run ended with status {ended.returncode}: {said[-1] if said else 'nothing was said'}",
    where=str(workdir),
    kept="its workdir",
    do="train the experiment by itself first",
  )
  error.status = max(ended.returncode, 1)
  raise error


def _ended(workdir: pathlib.Path) -> Ended:
  latest = workdir / "checkpoints/latest"
  step = latest / str(sums.numbered(latest)[0])
  described = json.loads((step / "manifest/metadata").read_text(encoding="utf-8"))
  evaluation = json.loads((workdir / "evaluation.json").read_text(encoding="utf-8"))
  return Ended(
    {path: leaf["sha256"] for path, leaf in described["leaves"].items()},
    (workdir / "metrics.jsonl").read_text(encoding="utf-8"),
    json.dumps(evaluation, sort_keys=True),
  )


def _compared(save: int, step: int, wanted: Ended, found: Ended) -> Interrupted:
  paths = wanted.arrays.keys() | found.arrays.keys()
  both = [
    (path in wanted.arrays and path in found.arrays and wanted.arrays[path] == found.arrays[path])
    for path in paths
  ]
  return Interrupted(
    save,
    step,
    both.count(False),
    wanted.rows == found.rows,
    wanted.evaluation == found.evaluation,
  )
