"""Checkpoints that were damaged, or could not be written: never other weights, never silence."""

import contextlib
import faulthandler
import hashlib
import io
import json
import os
import pathlib
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from training import checkpoint, config, restore, sums
from training.build import build
from training.checkpoint import Checkpoints
from training.errors import CheckpointError, StorageError, UserError
from training.machine import Machines
from training.parallel import to_host

STEPS = (1, 2, 3)
FROZEN = ("encoder",)
PATIENCE = 60  # seconds until what hangs is shown and ended


def experiment(**more):
  found = config.load("experiments/vae/gaussian_digits.py:smoke").to_dict()
  found["model"] |= {"hidden": 16, "latents": 4}
  settings = {"steps": 6, "log_every": 1, "eval_every": 0, "checkpoint_every": 1, "keep": 3}
  found["training"] |= settings | {"ema_decay": 0.5, "mesh": {"data": 1}} | more
  return build(found)


def bits(state):
  return {name: checkpoint.fingerprint(leaf) for name, leaf in checkpoint.leaves(to_host(state))}


def meta_of(step, **more):
  return {"stage": "", "step": step, "devices": 1, "parallel": "jit", "best": None} | more


class Good:
  """A run of three steps, whose states are known without training."""

  def __init__(self, path):
    self.path, self.experiment, self.machines = path, experiment(), Machines()
    machine = self.machines.of(self.experiment.stages[0])
    self.abstract = machine.abstract
    self.initial = machine.initial([jax.random.key(0)], None)
    self.states = {step: self.at(step) for step in STEPS}
    self.bits = {step: bits(state) for step, state in self.states.items()}
    path.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"step": step, "split": "train"}) + "\n" for step in STEPS]
    (path / "metrics.jsonl").write_text("".join(rows))
    checkpoints = Checkpoints(path / "checkpoints", keep=3)
    with contextlib.closing(checkpoints):
      for step in STEPS:
        checkpoints.save(step, self.states[step], meta_of(step), frozen=FROZEN)
      checkpoints.save(2, self.states[2], meta_of(2, best=0.5), best=True, frozen=FROZEN)
      checkpoints.wait()

  def at(self, step):
    """A state that differs from that of any other step in all that is trained."""
    move = lambda tree: jax.tree.map(lambda x: x + step, tree)  # noqa: E731
    moving = {k: v if k in FROZEN else move(v) for k, v in self.initial.params.items()}
    return self.initial.replace(
      step=jnp.int32(step),
      params=moving,
      ema=jax.tree.map(jnp.copy, moving),
      optimizer=move(self.initial.optimizer),
    )

  def resume(self, path):
    """(state, what was said on stderr); None where it would begin anew."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
      _, state = restore.resume(self.experiment, Checkpoints(path / "checkpoints"), self.machines)
    return state, said.getvalue()

  def copy(self, path):
    shutil.copytree(self.path, path, symlinks=True)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory):
  return Good(tmp_path_factory.mktemp("good") / "run")


# ------------------------------------------------------------------------------- the mutator


class Mutator:
  """Damage as disks, people and programs do it; `damaged` names the steps that it fell on."""

  def __init__(self, root, seed):
    self.root, self.random = root, random.Random(seed)
    self.damaged, self.refused, self.done = set(), False, []

  def once(self):
    kinds = (
      *(self.flip, self.cut, self.delete, self.empty) * 2,
      *(self.from_another_step, self.exchange, self.manifest, self.manifest, self.consistent),
      *(self.unsummed, self.unsummed, self.sums, self.stale, self.special, self.rename),
      *(self.replace_step, self.lose, self.marker, self.extra),
    )
    kind = self.random.choice(kinds)
    try:
      kind()
    except (OSError, IndexError, KeyError, TypeError, ValueError):  # damaged before: nothing left
      return
    self.done.append(kind.__name__)

  def step(self):
    """The newest is hit most, since it is what a run goes on from."""
    places = [("latest", 3)] * 4 + [("latest", 2), ("latest", 1), ("best", 2), ("frozen", 0)]
    kind, step = self.random.choice(places)
    return (kind, step), self.root / kind / str(step)

  def pick(self):
    key, place = self.step()
    found = sorted(p for p in place.rglob("*") if p.is_file() and not p.is_symlink())
    self.damaged.add(key)
    return place, self.random.choice(found)

  @staticmethod
  def whole(file):
    """`file`, unless it is a link, a pipe or a device by now: what is meant is another, or endless."""
    if file.is_symlink() or not file.is_file():
      raise FileNotFoundError(file)
    return file

  def flip(self, file=None):
    file = file or self.pick()[1]
    data = bytearray(file.read_bytes())
    for _ in range(self.random.choice((1, 1, 1, 8)) if data else 0):
      data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
    file.write_bytes(bytes(data))

  def cut(self, file=None):
    file = file or self.pick()[1]
    data = file.read_bytes()
    file.write_bytes(data[: self.random.randrange(len(data))] if data else b"")

  def delete(self, file=None):
    (file or self.pick()[1]).unlink()

  def empty(self, file=None):
    (file or self.pick()[1]).write_bytes(b"")

  def any_damage(self, file):
    self.random.choice((self.flip, self.flip, self.cut, self.delete, self.empty))(file)

  def from_another_step(self):
    place, file = self.pick()
    others = [self.root / "latest" / str(step) for step in STEPS]
    other = self.random.choice([o for o in others if o != place]) / file.relative_to(place)
    shutil.copyfile(self.whole(other), file)

  def exchange(self):
    place, one = self.pick()
    two = self.random.choice([p for p in sorted(place.rglob("*")) if p.is_file()])
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)

  def manifest(self):
    """An edit of the manifest, with a digest that fits or not, and sums that fit or not."""
    key, place = self.step()
    file = place / "manifest/metadata"
    found = json.loads(self.whole(file).read_text())
    self.damaged.add(key)
    choose, names = self.random.choice, sorted(found["leaves"])
    one, two = self.random.sample(names, 2)
    leaf = found["leaves"][one]
    match choose(("shape", "dtype", "sha", "drop", "rename", "meta", "schema", "junk", "frozen")):
      case "shape":
        leaf["shape"] = choose(([], [3], [-1], [2**40], leaf["shape"][::-1], "x", [None]))
      case "dtype":
        leaf["dtype"] = choose(("int32", "float16", "bfloat16", "key<rbg>", "object", 7, ""))
      case "sha":
        other = found["leaves"][two]
        leaf["sha256"], other["sha256"] = other["sha256"], leaf["sha256"]
      case "drop":
        del found["leaves"][one]
      case "rename":
        found["leaves"][one + "x"] = found["leaves"].pop(one)
      case "meta":
        found["meta"] = choose(({}, [], None, {**found["meta"], "step": 99}, "x"))
        part = {choose(("assets", "data", "best", "parallel")): choose((3, "x", [1]))}
        found["meta"] = choose((found["meta"], {**self.as_dict(found["meta"]), **part}))
      case "schema":
        found["schema"] = choose((0, -1, 99, "2", None, 1.5, True))
      case "junk":
        found["leaves"] = choose(({}, [], None, 3, {one: None}, {one: {"shape": 1}}))
      case "frozen" if "frozen" in found["meta"]:
        part = choose(("begun", "groups", "digest"))
        found["meta"]["frozen"][part] = choose((7, "x", [], ["decoder"], [[]], None, {}))
    if choose((True, True, False)):
      found["digest"] = checkpoint.digest(found)
      # A whole step that says it is of a newer version is not ours to step over.
      self.refused |= found["schema"] == 99
    file.write_text(json.dumps(found))
    self.sum_again(place, choose(("sum", "sum", "drop", "leave")))

  @staticmethod
  def as_dict(value):
    return value if isinstance(value, dict) else {}

  def sum_again(self, place, how):
    if how != "leave":
      (place / sums.SUMS).unlink(missing_ok=True)
    if how == "sum":
      files = sorted(p for p in place.rglob("*") if p.is_file())
      found = [(hashlib.sha256(p.read_bytes()).hexdigest(), p.relative_to(place)) for p in files]
      (place / sums.SUMS).write_text("".join(f"{value}  {name}\n" for value, name in found))

  def consistent(self):
    """Damage that was there before the sums were taken."""
    place, file = self.pick()
    self.any_damage(file)
    self.sum_again(place, "sum")

  def unsummed(self):
    place, file = self.pick()
    (place / sums.SUMS).unlink(missing_ok=True)
    if file.name != sums.SUMS:
      self.any_damage(file)

  def sums(self):
    key, place = self.step()
    self.damaged.add(key)
    file = place / sums.SUMS
    name = self.random.choice(("../../../x", "/dev/zero", "/etc/passwd", "state", "\0", "nothing"))
    text = self.random.choice((self.whole(file).read_text(), ""))
    file.write_text(text + f"{'0' * 64}  {name}\n" + self.random.choice(("", "x\n", "\udcff" * 0)))

  def stale(self):
    """What was begun and never ended, and what has a name that no step has."""
    whole = self.root / "latest/1"
    name = self.random.choice(
      (
        *("7.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-17", "4", "5", "999999", "-1", "007"),
        *("3.5", "\u0663", "step_4", ".3.old", "4 ", "1e3", "99999999999999999999999", "tmp"),
      )
    )
    target = self.root / self.random.choice(("latest", "latest", "best", "frozen")) / name
    if os.path.lexists(target):
      return
    match self.random.choice(("empty", "half", "whole", "file")):
      case "empty":
        target.mkdir()
      case "half":
        shutil.copytree(whole, target, symlinks=True)
        for file in sorted(target.rglob("*")):
          if file.is_file() and self.random.random() < 0.5:
            file.unlink()
      case "whole":
        shutil.copytree(whole, target, symlinks=True)
      case "file":
        target.write_bytes(self.random.randbytes(100))

  def special(self):
    """Links and pipes where files and steps should be."""
    place, file = self.pick()
    match self.random.choice(("link", "dangling", "pipe", "loop", "step", "outside")):
      case "link":
        file.unlink()
        file.symlink_to(self.root / "latest/1" / file.relative_to(place))
      case "dangling":
        file.unlink()
        file.symlink_to("nowhere")
      case "pipe":
        file.unlink()
        os.mkfifo(file)
      case "loop":
        (file.parent / "loop").symlink_to(place)
      case "outside":
        file.unlink()
        file.symlink_to("/dev/zero")
      case "step":
        shutil.rmtree(place)
        place.symlink_to(self.root / "latest/1")

  def rename(self):
    """Whole steps under each other's numbers."""
    one, two = self.random.sample(STEPS, 2)
    first, second = self.root / "latest" / str(one), self.root / "latest" / str(two)
    self.damaged |= {("latest", one), ("latest", two)}
    aside = self.root / "latest/aside"
    first.rename(aside)
    if self.random.random() < 0.5:
      second.rename(first)
    aside.rename(second if not second.exists() else self.root / "latest/5")

  def replace_step(self):
    key, place = self.step()
    self.damaged.add(key)
    shutil.rmtree(place)
    if self.random.random() < 0.5:
      place.write_text("a step")
    elif self.random.random() < 0.5:
      place.mkdir()

  def lose(self):
    """A whole kind of checkpoints."""
    kind = self.random.choice(("latest", "best", "frozen"))
    self.damaged |= {(kind, step) for step in (0, *STEPS)}
    shutil.rmtree(self.root / kind)
    if self.random.random() < 0.3:
      (self.root / kind).write_text("no directory")

  def marker(self):
    file = self.root / "committed"
    self.random.choice((self.flip, self.empty, self.delete, self.cut))(file)

  def extra(self):
    _, place = self.step()
    (place / self.random.choice(("notes.txt", "state/more", ".nfs0001"))).write_text("more")


def judge(good, path, seed):
  """Damages a copy of a good run and goes on from it; returns (what was done, step gone on from)."""
  good.copy(path)
  mutator = Mutator(path / "checkpoints", seed)
  for _ in range(mutator.random.choice((1, 1, 1, 2, 3, 6))):
    mutator.once()
  whole = {("latest", step) for step in STEPS} | {("best", 2)}
  whole = set() if ("frozen", 0) in mutator.damaged else whole - mutator.damaged
  label = f"seed {seed}: {mutator.done}"
  faulthandler.dump_traceback_later(PATIENCE, exit=True)
  refusal = None
  try:
    state, said = good.resume(path)
  except UserError as error:
    refusal = error
  finally:
    faulthandler.cancel_dump_traceback_later()
  if refusal is not None:
    assert refusal.status in (4, 5), label
    assert len(str(refusal)) <= 500, label
    assert "\n" not in str(refusal), label
    assert mutator.refused or not whole, f"{label}: {refusal}, though {sorted(whole)} are whole"
    return mutator.done, None
  assert state is not None, f"{label}: began anew"
  assert int(state.step) in STEPS, label
  assert bits(state) == good.bits[int(state.step)], f"{label}: other weights"
  latest = [step for kind, step in whole if kind == "latest"]
  assert int(state.step) >= max(latest, default=0), f"{label}: {sorted(whole)} are whole"
  assert "Traceback" not in said, label
  assert all(len(line) <= 500 for line in said.splitlines()), label
  return mutator.done, int(state.step)


def judge_all(good, seeds):
  # In memory where it can be: nothing here needs a disk, and some are slow.
  memory_disk = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
  with tempfile.TemporaryDirectory(dir=memory_disk) as folder:
    return judge_each(good, pathlib.Path(folder), seeds)


def judge_each(good, folder, seeds):
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  slowest, gone_on, refused, kinds = 0.0, 0, 0, set()
  for seed in seeds:
    path = folder / str(seed)
    before = time.monotonic()
    done, step = judge(good, path, seed)
    slowest = max(slowest, time.monotonic() - before)
    kinds |= set(done)
    gone_on, refused = gone_on + (step is not None), refused + (step is None)
    shutil.rmtree(path)
  grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 2**20
  print(f"{gone_on} gone on, {refused} refused, slowest {slowest:.2f} s, {grown:.2f} GiB more")
  assert slowest < 10, "generous: a shared machine may be slow"
  assert grown < 2
  assert gone_on > len(seeds) / 3, "the mutator destroys all"
  return kinds


def test_damaged_checkpoints_are_never_accepted(good):
  kinds = judge_all(good, range(300))
  every = {name for name in vars(Mutator) if not name.startswith("_")}
  assert kinds == every - {*("once", "step", "pick", "whole", "any_damage", "as_dict", "sum_again")}


@pytest.mark.deep
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_damaged_checkpoints(good, part):
  judge_all(good, range(1000 * (part + 1), 1000 * (part + 2)))


def test_arrays_of_another_step_are_not_believed(good, tmp_path):
  """Nothing but the hash of each array can tell: they are whole, and there are no sums."""
  path = good.copy(tmp_path / "run")
  newest, before = (path / f"checkpoints/latest/{step}" for step in (3, 2))
  (newest / sums.SUMS).unlink()
  shutil.rmtree(newest / "state")
  shutil.copytree(before / "state", newest / "state")
  state, said = good.resume(path)
  assert bits(state) == good.bits[2]
  assert "does not have the hash it was saved with" in said


# ------------------------------------------------------------------------- what is gone on from


@pytest.mark.parametrize("damage", ["zeros", "empty", "flip"])
def test_a_corrupt_newest_step_is_set_aside_and_can_be_saved_again(good, tmp_path, damage):
  path = good.copy(tmp_path / "run")
  files = [p for p in (path / "checkpoints/latest/3").rglob("*") if p.is_file()]
  for file in files:  # as the loss of power leaves them
    data = file.read_bytes()
    file.write_bytes({"zeros": bytes(len(data)), "empty": b"", "flip": data[::-1]}[damage])
  state, said = good.resume(path)
  assert bits(state) == good.bits[2]
  assert "checkpoint 3 is not used" in said
  assert (path / "checkpoints/quarantine/latest-3-1").is_dir()
  checkpoints = Checkpoints(path / "checkpoints", keep=2)
  with contextlib.closing(checkpoints):
    assert checkpoints.committed() == 2
    checkpoints.save(3, good.states[3], meta_of(3), frozen=FROZEN)
    checkpoints.wait()
    assert checkpoints.steps() == [3, 2]  # two that are whole
  state, said = good.resume(path)
  assert (bits(state), said) == (good.bits[3], "")


@pytest.mark.parametrize("how", ["flip", "cut", "delete", "pipe", "link"])
def test_the_damaged_file_is_named(good, tmp_path, how):
  path = good.copy(tmp_path / "run")
  file = path / "checkpoints/latest/3/state/_METADATA"
  data = bytearray(file.read_bytes())
  match how:
    case "flip":
      data[len(data) // 2] ^= 1
      file.write_bytes(data)
    case "cut":
      file.write_bytes(data[:-1])
    case "delete":
      file.unlink()
    case "pipe":
      file.unlink()
      os.mkfifo(file)
    case "link":
      file.unlink()
      file.symlink_to("/dev/zero")
  if how == "pipe":  # which waits forever once it is opened: in a process that can be ended
    script = (
      "import pathlib, sys\nfrom training import sums\n"
      "try:\n  sums.check(pathlib.Path(sys.argv[1]))\n"
      "except sums.Corrupt as error:\n  print(error)\n"
    )
    place = str(path / "checkpoints/latest/3")
    words = [sys.executable, "-c", script, place]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    assert "state/_METADATA is no plain file" in said.stdout
  state, said = good.resume(path)
  assert bits(state) == good.bits[2]
  assert "checkpoint 3 is not used" in said
  assert "_METADATA" in said


@pytest.mark.parametrize("what", ["meta", "digest"])
def test_an_edited_manifest_is_not_believed(good, tmp_path, what):
  path = good.copy(tmp_path / "run")
  place = path / "checkpoints/latest/3"
  (place / sums.SUMS).unlink()
  found = json.loads((place / "manifest/metadata").read_text())
  if what == "meta":
    found["meta"]["devices"] = 7
  else:
    found["digest"] = "0" * 64
  (place / "manifest/metadata").write_text(json.dumps(found))
  state, said = good.resume(path)
  assert bits(state) == good.bits[2]
  assert "its manifest has been changed" in said


def test_damage_does_not_count_as_a_kept_step(good, tmp_path):
  """What lies under a higher number neither evicts nor outlives what is saved next."""
  path = good.copy(tmp_path / "run")
  for step in (4, 5):
    shutil.copytree(path / "checkpoints/latest/1", path / "checkpoints/latest" / str(step))
  state, said = good.resume(path)
  assert bits(state) == good.bits[3]
  assert said.count("is not used") == 2
  checkpoints = Checkpoints(path / "checkpoints", keep=2)
  with contextlib.closing(checkpoints):
    checkpoints.save(4, good.at(4), meta_of(4), frozen=FROZEN)
    checkpoints.wait()
    assert checkpoints.steps() == [4, 3]


def test_the_best_checkpoint_is_the_last_resort(good, tmp_path):
  path = good.copy(tmp_path / "run")
  shutil.rmtree(path / "checkpoints/latest")
  state, said = good.resume(path)
  assert bits(state) == good.bits[2]
  assert "checkpoint 3 was saved and is gone" in said
  assert good.resume(path)[0] is not None


@pytest.mark.parametrize("left", ["marker", "rows"])
def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(good, tmp_path, left):
  path = good.copy(tmp_path / "run")
  for kind in ("latest", "best", "frozen"):
    shutil.rmtree(path / "checkpoints" / kind)
  (path / {"marker": "metrics.jsonl", "rows": "checkpoints/committed"}[left]).unlink()
  with pytest.raises(CheckpointError, match="no checkpoint is left"):
    good.resume(path)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(good, tmp_path):
  """Rows up to the second save may all be of a run whose first save never came to its end."""
  path = tmp_path / "run"
  (path / "checkpoints/latest/1.orbax-checkpoint-tmp/state").mkdir(parents=True)
  rows = good.path.joinpath("metrics.jsonl").read_text().splitlines(keepends=True)
  (path / "metrics.jsonl").write_text("".join(rows[:2]))
  assert good.resume(path) == (None, "")


def test_half_a_step_is_swept_away_by_the_next_save(good, tmp_path):
  path = good.copy(tmp_path / "run")
  latest = path / "checkpoints/latest"
  shutil.copytree(latest / "1", latest / "7.orbax-checkpoint-tmp")
  (latest / ".9.old").mkdir()
  (latest / "4").write_text("a file that has a step's name")
  (latest / "notes").write_text("somebody's own")
  assert bits(good.resume(path)[0]) == good.bits[3]
  checkpoints = Checkpoints(path / "checkpoints", keep=3)
  with contextlib.closing(checkpoints):
    checkpoints.save(4, good.at(4), meta_of(4), frozen=FROZEN)
    checkpoints.wait()
  assert sorted(p.name for p in latest.iterdir()) == ["2", "3", "4", "notes"]
  assert bits(good.resume(path)[0]) == bits(good.at(4))


# ------------------------------------------------------------------------------ failed saves


@contextlib.contextmanager
def no_file_over(size):
  """As a disk that is full: writing beyond `size` bytes of a file fails with an error of the OS."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores SIGXFSZ
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def saved(checkpoints, step, state, **more):
  """The error of a save, if it has one, waited for."""
  try:
    checkpoints.save(step, state, meta_of(step), **more)
    checkpoints.wait()
  except StorageError as error:
    return error
  return None


def check_failed(error, step):
  assert error.status == 5
  assert "\n" not in str(error)
  assert len(str(error)) <= 500
  for words in ("bytes needed", "free", "was not saved", f"step {step}"):
    assert words in str(error)


def step_until_it_is_noticed(checkpoints):
  for _ in range(6000):
    checkpoints.check()  # as every step does; it never waits
    time.sleep(0.01)


def test_a_failed_background_save_surfaces_at_the_next_step(good, tmp_path):
  path = good.copy(tmp_path / "run")
  checkpoints = Checkpoints(path / "checkpoints", keep=3)
  with contextlib.closing(checkpoints), no_file_over(1000):
    checkpoints.save(4, good.at(4), meta_of(4), frozen=FROZEN)
    with pytest.raises(StorageError) as caught:
      step_until_it_is_noticed(checkpoints)
    check_failed(caught.value, 4)
    assert "step 3, saved before" in str(caught.value)
    assert checkpoints.steps() == [3, 2, 1]
    assert checkpoints.committed() == 3
  state, said = good.resume(path)
  assert (bits(state), said) == (good.bits[3], "")


FAIL = """
import pathlib, resource, sys
import jax, jax.numpy as jnp
from training.checkpoint import Checkpoints
from training.errors import StorageError
from training.step import State
leaves = {str(i): jnp.arange(500.0) + i for i in range(60)}
state = State(*(None,) * 8).replace(step=jnp.int32(1), params=leaves, rng=jax.random.key(0))
for room in [0] * 80 + [100] * 8 + [1000] * 8:
  checkpoints = Checkpoints(pathlib.Path(sys.argv[1]))
  resource.setrlimit(resource.RLIMIT_FSIZE, (room, -1))
  try:
    checkpoints.save(1, state, {})
    checkpoints.wait()
  except StorageError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    print(error.status)
  checkpoints.close()
"""


def test_a_process_whose_saves_failed_ends_at_once_without_a_traceback(tmp_path):
  """Orbax writes leaves side by side; when one fails, the others end with nobody to hear of it.

  Nor may any wait on for a folder that was never made: of a single save that fails few do.
  """
  found = subprocess.run(
    [sys.executable, "-c", FAIL, str(tmp_path)],
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=PATIENCE,
    check=False,
  )
  assert (found.returncode, found.stdout, found.stderr) == (0, "5\n" * 96, "")


def test_an_unnoticed_failure_is_at_least_warned_of(good, tmp_path, capsys):
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  with no_file_over(1000):
    checkpoints.save(1, good.at(1), meta_of(1))
    checkpoints.close()
  assert "step 1 was not saved" in capsys.readouterr().err


def full_disk(good, path, room):
  """Saves where `room` bytes of one file are left; then all is as it was, and there is room again."""
  checkpoints = Checkpoints(path / "checkpoints", keep=3)
  with contextlib.closing(checkpoints), no_file_over(room):
    error = saved(checkpoints, 4, good.at(4), frozen=FROZEN)
  failed = error is not None
  if failed:
    check_failed(error, 4)
  state, said = good.resume(path)
  assert said == ""
  assert bits(state) == (good.bits[3] if failed else bits(good.at(4)))
  return failed


def test_full_at_any_point_of_a_save(good, tmp_path):
  sizes = [p.stat().st_size for p in (good.path / "checkpoints/latest/3").rglob("*") if p.is_file()]
  found = {}
  for i in range(10):
    path = good.copy(tmp_path / str(i))
    found[i] = full_disk(good, path, max(sizes) * i // 8)
  assert (found[0], found[9]) == (True, False)
  assert set(found.values()) == {True, False}


@pytest.mark.deep
def test_full_at_every_kilobyte_of_a_save(good, tmp_path):
  sizes = [p.stat().st_size for p in (good.path / "checkpoints/latest/3").rglob("*") if p.is_file()]
  for room in range(0, max(sizes) + 2048, 1024):
    full_disk(good, good.copy(tmp_path / str(room)), room)
    shutil.rmtree(tmp_path / str(room))


@contextlib.contextmanager
def small_disk(path, size):
  path.mkdir()
  words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
  if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
    pytest.skip("only root mounts a small disk; test_full_at_any_point_of_a_save runs without")
  try:
    yield path
  finally:
    subprocess.run(["umount", "-l", str(path)], check=True)


def wide_state(good, size):
  """`good`'s state with a leaf of random numbers, which no compression makes smaller."""
  noise = np.random.default_rng(0).random(size // 4, np.float32)
  return good.at(1).replace(mutable={"noise": {"x": jnp.asarray(noise)}})


@pytest.mark.deep
def test_disk_full_at_every_64_kib_of_a_save(good, tmp_path):
  """T10: the file system itself says that no space is left."""
  state, block = wide_state(good, 1 << 20), 64 << 10
  outcomes = []
  with small_disk(tmp_path / "disk", "8m") as disk:
    for n in range(26):
      path = disk / "run"
      checkpoints = Checkpoints(path / "checkpoints")
      with contextlib.closing(checkpoints):
        checkpoints.save(1, state, meta_of(1))
        checkpoints.wait()
        free = shutil.disk_usage(disk).free
        with open(disk / "filler", "wb") as filler:
          filler.write(bytes(max(0, free - n * block)))
        error = saved(checkpoints, 2, state.replace(step=jnp.int32(2)))
      outcomes.append(error is None)
      if error is not None:
        check_failed(error, 2)
        assert "No space left" in str(error)
      os.unlink(disk / "filler")
      abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
      )
      again = Checkpoints(path / "checkpoints")
      assert again.steps() == ([2, 1] if outcomes[-1] else [1])
      assert bits(again.restore(1, abstract)) == bits(state)
      shutil.rmtree(path)
    assert (outcomes[0], outcomes[-1]) == (False, True)
    assert outcomes == sorted(outcomes)  # never succeeds with less room


def test_a_run_whose_final_save_fails_has_failed(tmp_path, capfd):
  import launch as command

  words = ["train", "--config=experiments/vae/gaussian_digits.py:smoke", f"--workdir={tmp_path}"]
  words += ["--config.model.hidden=2048", "--config.training.mesh.data=1"]
  with no_file_over(1_000_000):  # what else a run writes is smaller
    status = command.main([*words, "--config.training.steps=2"])
  said = capfd.readouterr().err
  assert status == 5, said
  (line,) = [line for line in said.splitlines() if line.startswith("error")]
  assert "was not saved" in line
  assert "Traceback" not in said
  assert not (tmp_path / "evaluation.json").exists()


# -------------------------------------------------------------------------- what a save holds


def test_a_save_is_of_its_step_whatever_happens_to_the_buffers(good, tmp_path):
  """Training goes on, into the same memory, while the step is still being written."""
  begin = wide_state(good, 16 << 20)
  advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), begin
  )
  rng, state = begin.rng, jax.tree.map(jnp.copy, begin.replace(rng=None))
  checkpoints, wanted = Checkpoints(tmp_path, keep=9), {}
  with contextlib.closing(checkpoints):
    for step in range(1, 5):
      state = advance(state)
      wanted[step] = bits(state.replace(rng=rng))
      checkpoints.save(step, state.replace(rng=rng), meta_of(step))
      for _ in range(3):  # the buffers are given away before the writer is done with them
        state = advance(state)
    checkpoints.wait()
  for step, hashes in wanted.items():
    assert bits(Checkpoints(tmp_path).restore(step, abstract)) == hashes


def test_every_file_of_a_step_is_summed_and_the_system_agrees(good):
  for kind, step in (("latest", 3), ("best", 2), ("frozen", 0)):
    place = good.path / "checkpoints" / kind / str(step)
    files = {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()}
    lines = (place / sums.SUMS).read_text().splitlines()
    assert {line.split("  ", 1)[1] for line in lines} == files - {sums.SUMS}
    subprocess.run(["sha256sum", "-c", "--quiet", sums.SUMS], cwd=place, check=True)


# --------------------------------------------------------------------------- other versions


SCHEMAS = sorted(p for p in (ROOT / "tests/fixtures").glob("schema_*/*") if p.is_dir())


@pytest.mark.parametrize("fixture", SCHEMAS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_a_checkpoint_of_every_released_schema_loads_bit_exactly(fixture, tmp_path):
  """The fixtures hold what an earlier version wrote, and the hashes of what it had in memory."""
  shutil.copytree(fixture, tmp_path / "run")
  found = build(json.loads((fixture / "config.json").read_text()))
  _, state = restore.resume(found, Checkpoints(tmp_path / "run/checkpoints"), Machines())
  loaded = bits(state)
  for name, wanted in json.loads((fixture / "hashes.json").read_text()).items():
    assert loaded.pop(name) == wanted, name
  # What the version did not have yet begins as in a new run.
  for name in loaded:
    assert name.split("/")[0] in ("rejected",)
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(to_host(state.rejected)))


def test_there_is_a_fixture_of_every_schema_before_this_one():
  assert {p.parent.name for p in SCHEMAS} >= {f"schema_{n}" for n in range(1, checkpoint.SCHEMA)}


def edited(place, **changes):
  file = place / "manifest/metadata"
  found = json.loads(file.read_text()) | changes
  found["digest"] = checkpoint.digest(found)
  file.write_text(json.dumps(found))
  (place / sums.SUMS).unlink()
  sums.seal(place)


def test_a_newer_schema_is_refused_naming_both(good, tmp_path):
  path = good.copy(tmp_path / "run")
  edited(path / "checkpoints/latest/3", schema=checkpoint.SCHEMA + 1)
  with pytest.raises(CheckpointError) as caught:
    good.resume(path)
  assert f"schema {checkpoint.SCHEMA + 1}" in str(caught.value)
  assert f"up to {checkpoint.SCHEMA}" in str(caught.value)


def test_another_generator_of_random_numbers_is_refused_by_name(good, tmp_path):
  path = good.copy(tmp_path / "run")
  key = jax.random.key(0, impl="rbg")
  other = good.abstract.replace(
    rng=jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=key.sharding)
  )
  with pytest.raises(CheckpointError, match=r"rng wants key<rbg>\[\], has key<fry>\[\]"):
    Checkpoints(path / "checkpoints").restore(3, other)


def test_a_step_of_another_model_is_refused_with_up_to_five_paths(good, tmp_path):
  path = good.copy(tmp_path / "run")
  found = good.experiment.config
  wider = build({**found, "model": {**found["model"], "hidden": 24}})
  with pytest.raises(CheckpointError) as caught:
    restore.resume(wider, Checkpoints(path / "checkpoints"), Machines())
  said = str(caught.value)
  assert "has float32[16]" in said
  assert "wants float32[24]" in said
  assert 4 <= said.count(" wants ") <= 5
  assert "leaves differ" in said
  assert len(said) <= 500


def test_a_shortened_run_does_not_step_over_what_was_trained(good, tmp_path):
  path = good.copy(tmp_path / "run")
  with pytest.raises(CheckpointError, match="step 3 is beyond the last step of the config, 2"):
    restore.resume(experiment(steps=2), Checkpoints(path / "checkpoints"), Machines())
  assert Checkpoints(path / "checkpoints").steps() == [3, 2, 1]


# --------------------------------------------------------------------------------- workdirs


CLAIM = """
import os, sys
from training.errors import UserError
from training.workdir import Workdir
if os.geteuid() == 0:  # whom no mode of a file stops; Python itself may lie where only root reads
  os.setgroups([])
  os.setgid(65534)
  os.setuid(65534)
try:
  workdir = Workdir(sys.argv[1])
  workdir.claim({"a": 1})
except UserError as error:
  print(error)
  sys.exit(error.status)
"""


@pytest.mark.parametrize("how", ["mode", "file", "below a file", "lock", "config"])
def test_a_workdir_that_cannot_be_written_is_refused(how, tmp_path):
  path = tmp_path / "run"
  for parent in (tmp_path, *tmp_path.parents):
    if any(name.startswith("pytest-") for name in parent.parts):
      parent.chmod(0o755)
  match how:
    case "mode":
      path.mkdir(mode=0o555)
    case "file":
      path.write_text("no directory")
    case "below a file":
      path.write_text("no directory")
      path = path / "run"
    case "lock":
      (path / ".lock").mkdir(parents=True)
      path.chmod(0o777)
    case "config":
      (path / "config.json").mkdir(parents=True)
      path.chmod(0o777)
  found = subprocess.run(
    [sys.executable, "-c", CLAIM, str(path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=PATIENCE,
    check=False,
  )
  assert found.returncode == (2 if how == "config" else 5), found.stderr[-2000:]
  assert found.stdout.count("\n") == 1
  assert "Traceback" not in found.stderr


HOLD = """
import sys
from training.workdir import Workdir
workdir = Workdir(sys.argv[1])
workdir.rows.write({"step": 1})
print("held", flush=True)
sys.stdin.read()
workdir.rows.write({"step": 2})
workdir.close()
"""


def test_a_second_writer_is_refused_five_times_and_the_first_goes_on(tmp_path):
  first = subprocess.Popen(
    [sys.executable, "-c", HOLD, str(tmp_path)],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert first.stdout.readline() == "held\n"
    from training.workdir import Workdir

    for _ in range(5):
      before = time.monotonic()
      with pytest.raises(StorageError, match=f"process {first.pid} on {socket.gethostname()}"):
        Workdir(tmp_path)
      assert time.monotonic() - before < 2
    first.communicate("go on", timeout=PATIENCE)
    assert first.returncode == 0
  finally:
    first.kill()
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert rows == [{"step": 1}, {"step": 2}]
  assert f"process {first.pid}" in (tmp_path / ".lock").read_text()  # stale, and yet no lock
  Workdir(tmp_path).close()


def test_rows_that_cannot_be_written_are_a_failed_run(tmp_path):
  from training.workdir import Workdir

  workdir = Workdir(tmp_path)
  try:
    workdir.rows.write({"step": 1, "split": "train"})
    with no_file_over(50), pytest.raises(StorageError, match=r"metrics\.jsonl cannot be written"):
      workdir.rows.write({"step": 2, "split": "train"})
  finally:
    workdir.close()


@pytest.mark.parametrize("rubbish", ["5\n", "[]\n", "null\n", '{"split": "train"}\n', "\udcff"])
def test_lines_that_are_no_rows_end_the_rows(tmp_path, rubbish):
  from training.workdir import read_rows

  file = pathlib.Path(tmp_path / "metrics.jsonl")
  file.write_bytes(b'{"step": 1}\n' + rubbish.encode("utf-8", "surrogateescape"))
  assert read_rows(file) == [{"step": 1}]
