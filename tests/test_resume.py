"""Interrupted anywhere and resumed: the same bits as never interrupted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from training import checkpoint, config, parallel, run
from training import step as steps
from training.build import build
from training.errors import CheckpointError, Interrupted, StorageError
from training.loop import Stop
from training.machine import Machines
from training.parallel import to_host
from training.workdir import Workdir, read_rows

SEAMS = {
  "vae": ("experiments/vae/gaussian_digits.py", {"training.ema_decay": "0.5"}),
  "gan": ("experiments/gan/mlp_digits.py", {}),
  "resnet": ("experiments/convnet/resnet_digits.py", {"training.ema_decay": "0.5"}),
  "stacked": ("experiments/autoencoder/stacked_digits.py", {}),
}


def experiment(seam, **more):
  path, overrides = SEAMS[seam]
  found = config.load(f"{path}:smoke")
  if seam != "stacked":
    # Rows of two steps, evaluations of three, checkpoints of one: each crosses the others.
    overrides = {
      **overrides,
      "training.steps": "6",
      "training.log_every": "2",
      "training.eval_every": "3",
      "training.checkpoint_every": "1",
      "training.keep": "6",
      **more,
    }
  return build(config.override(found, overrides.items()))


def fit(found, path):
  workdir = Workdir(path)
  try:
    with Stop() as stop:
      return run.fit([run.Run(found, workdir, ["test"])], Machines(), stop=stop)
  finally:
    workdir.close()


def bits(state):
  return {name: checkpoint.fingerprint(leaf) for name, leaf in checkpoint.leaves(to_host(state))}


def text(path):
  return (path / "metrics.jsonl").read_text()


def one_device(found):
  mesh = [s.training.mesh for s in found.stages]
  for m in mesh:
    m["data"] = 1
  return found


@pytest.fixture(scope="module", params=SEAMS)
def whole(request, tmp_path_factory):
  """A run that nothing interrupted, with all its checkpoints."""
  path = tmp_path_factory.mktemp(request.param)
  found = one_device(experiment(request.param))
  state, _, _ = fit(found, path)
  return request.param, found, path, bits(state)


@pytest.mark.parametrize("way", ["jit", "pmap"])
def test_a_step_is_compiled_once_whatever_comes_between_two_of_them(way, tmp_path, monkeypatch):
  traced, step = [], parallel.train_step
  monkeypatch.setattr(parallel, "train_step", lambda *a, **k: traced.append(1) or step(*a, **k))
  fit(experiment("vae", **{"training.parallel": way}), tmp_path)
  assert len(traced) == 2  # for a look whether it has a convolution, and to be compiled
  fit(experiment("vae", **{"training.parallel": way, "training.steps": "8"}), tmp_path)
  assert len(traced) == 4


def test_a_step_is_traced_once_for_a_machine_however_often_its_state_is_asked_for(monkeypatch):
  traced, step = [], steps.train_step
  monkeypatch.setattr(steps, "train_step", lambda *a, **k: traced.append(1) or step(*a, **k))
  machines, found = Machines(), one_device(experiment("vae"))
  run.check(found, machines)
  machine = machines.of(found.stages[0])
  for seed in range(2):
    machine.initial([jax.random.key(seed)], None)
  assert machine.abstract.metrics.keys() >= {"loss"}
  assert len(traced) == 1


def test_resuming_from_every_checkpoint_gives_the_same_bits(whole, tmp_path):
  seam, found, path, wanted = whole
  last = sum(s.training.steps for s in found.stages)
  kept = sorted(int(p.name) for p in (path / "checkpoints/latest").iterdir())
  assert len(kept) >= 2
  for step in kept:
    if step == last:
      continue
    other = tmp_path / str(step)
    # As a kill leaves it: rows beyond the last checkpoint, the last of them torn.
    shutil.copytree(path, other)
    for later in kept:
      if later > step:
        shutil.rmtree(other / "checkpoints/latest" / str(later))
    with open(other / "metrics.jsonl", "a") as file:
      file.write('{"step": 99, "spl')
    state, _, _ = fit(found, other)
    assert bits(state) == wanted, f"resumed from step {step}"
    assert text(other) == text(path), f"resumed from step {step}"


def test_rows_are_unique_and_have_no_gap(whole):
  seam, found, path, _ = whole
  rows = read_rows(path / "metrics.jsonl")
  places = [(r["step"], r["split"]) for r in rows]
  assert len(set(places)) == len(places)
  assert places == sorted(places, key=lambda p: p[0])
  if seam == "vae":
    assert [s for s, split in places if split == "train"] == [2, 4, 6]
    assert [s for s, split in places if split == "validation"] == [3, 6]
  if seam == "stacked":
    assert {r["stage"] for r in rows} == {"layer_0", "layer_1", "layer_2", "supervised"}


def test_a_finished_run_trains_no_further(whole, tmp_path):
  _, found, path, wanted = whole
  other = tmp_path / "again"
  shutil.copytree(path, other)
  state, _, _ = fit(found, other)
  assert bits(state) == wanted
  assert text(other) == text(path)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
  path = tmp_path_factory.mktemp("vae")
  found = one_device(experiment("vae"))
  state, _, _ = fit(found, path)
  return found, path, bits(state)


class StopAt(Stop):
  """A stop that is asked for when the loop has looked `at` times; a look may be several steps."""

  def __init__(self, at):
    super().__init__()
    self._left = at

  @property
  def requested(self):
    self._left -= 1
    return self._left < 0


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_stop_saves_the_step_in_hand_and_resumes_to_the_same_bits(vae, tmp_path, at):
  found, path, wanted = vae
  # No checkpoint but the one that the stop asks for.
  rare = one_device(experiment("vae", **{"training.checkpoint_every": "0"}))
  workdir = Workdir(tmp_path)
  try:
    with pytest.raises(Interrupted) as stopped:
      run.fit([run.Run(rare, workdir, [])], Machines(), stop=StopAt(at))
    assert f"stopped at step {max(at, 0)}" in str(stopped.value) or at > 1
  finally:
    workdir.close()
  state, _, _ = fit(rare, tmp_path)
  assert bits(state) == wanted
  assert text(tmp_path) == text(path)


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x10
  path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest", "empty"])
def test_a_corrupt_latest_falls_back_with_a_warning(vae, tmp_path, capsys, damage):
  found, path, wanted = vae
  other = tmp_path / "run"
  shutil.copytree(path, other)
  latest = other / "checkpoints/latest/6"
  data = max((latest / "state").rglob("d/*"), key=lambda p: p.stat().st_size)
  match damage:
    case "flip":
      flip(data)
    case "truncate":
      data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    case "delete":
      data.unlink()
    case "manifest":
      flip(latest / "manifest/metadata")
    case "empty":
      data.write_bytes(b"")
  state, _, _ = fit(found, other)
  assert bits(state) == wanted
  assert text(other) == text(path)
  assert "checkpoint 6 is not used" in capsys.readouterr().err


def test_when_no_checkpoint_is_whole_nothing_is_started_anew(vae, tmp_path):
  found, path, _ = vae
  other = tmp_path / "run"
  shutil.copytree(path, other)
  for kind in ("latest", "best"):
    for step in (other / "checkpoints" / kind).iterdir():
      for file in (step / "state").rglob("d/*"):
        flip(file)
  before = sorted(str(p) for p in other.rglob("*") if p.is_file() and "tensorboard" not in str(p))
  with pytest.raises(CheckpointError, match="none of 7 checkpoints"):
    fit(found, other)
  after = sorted(str(p) for p in other.rglob("*") if p.is_file() and "tensorboard" not in str(p))
  assert before == after


def test_another_model_is_refused_with_the_paths_that_differ(vae, tmp_path):
  found, path, _ = vae
  other = tmp_path / "run"
  shutil.copytree(path, other)
  wider = one_device(experiment("vae", **{"model.hidden": "33"}))
  with pytest.raises(
    CheckpointError, match=r"encoder/bias wants float32\[33\], has float32\[128\]"
  ):
    fit(wider, other)


def test_the_best_checkpoint_never_evicts_the_resume_point(tmp_path):
  found = one_device(
    experiment(
      "vae", **{"training.keep": "2", "training.eval_every": "1", "optimizer.learning_rate": "0.3"}
    )
  )
  fit(found, tmp_path)
  rows = [r for r in read_rows(tmp_path / "metrics.jsonl") if r["split"] == "validation"]
  best = min(rows, key=lambda r: r["loss"])["step"]
  assert best < 6  # such a learning rate makes the later steps worse
  assert [p.name for p in (tmp_path / "checkpoints/best").iterdir()] == [str(best)]
  assert {p.name for p in (tmp_path / "checkpoints/latest").iterdir()} == {"5", "6"}


@pytest.mark.parametrize("seam", ["vae", pytest.param("gan", marks=pytest.mark.deep)])
def test_other_device_counts_go_on_and_say_so(seam, tmp_path, capsys):
  """100 steps on 4 devices, or on 4, then 2, then 1: the same examples, up to rounding."""
  long = {"data.batch_size": "16", "training.keep": "9", "training.checkpoint_every": "20"}
  long |= {"training.steps": "100", "training.eval_every": "50"}
  fit(experiment(seam, **long, **{"training.mesh.data": "4"}), tmp_path)
  four = read_rows(tmp_path / "metrics.jsonl")
  for devices, last in (("2", 40), ("1", 60)):
    for step in (tmp_path / "checkpoints/latest").iterdir():
      if int(step.name) > last:
        shutil.rmtree(step)
    capsys.readouterr()
    fit(experiment(seam, **long, **{"training.mesh.data": devices}), tmp_path)
    assert "not bitwise" in capsys.readouterr().out
  changed = read_rows(tmp_path / "metrics.jsonl")
  assert [list(row) for row in changed] == [list(row) for row in four]
  for a, b in zip(four, changed, strict=True):
    for name, value in a.items():
      assert b[name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value), a


def test_a_second_writer_is_refused(tmp_path):
  first = Workdir(tmp_path)
  try:
    before = time.monotonic()
    with pytest.raises(StorageError, match=f"process {os.getpid()}"):
      Workdir(tmp_path)
    assert time.monotonic() - before < 2
  finally:
    first.close()
  Workdir(tmp_path).close()


def launch(*words, **kwargs):
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  return subprocess.Popen(
    [sys.executable, "launch.py", *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=env,
    **kwargs,
  )


LONG = (
  "train",
  "--config=experiments/vae/gaussian_digits.py:small",
  "--config.training.steps=40000",
  "--config.training.log_every=50",
  "--config.training.eval_every=1000",
  "--config.training.checkpoint_every=500",
)


@pytest.mark.parametrize(
  "number",
  [
    signal.SIGTERM,
    *(pytest.param(n, marks=pytest.mark.deep) for n in (signal.SIGINT, signal.SIGKILL)),
  ],
)
def test_a_signal_to_the_real_command(number, tmp_path):
  """SIGINT and SIGTERM save and exit 75; SIGKILL loses nothing that was saved."""
  process = launch(*LONG, f"--workdir={tmp_path}")
  for line in process.stdout:
    if "/40000" in line and int(line.split("/")[0].split()[-1]) > 600:
      break
  process.send_signal(number)
  _, errors = process.communicate(timeout=60)
  rows = read_rows(tmp_path / "metrics.jsonl")
  kept = max(int(p.name) for p in (tmp_path / "checkpoints/latest").iterdir() if p.name.isdigit())
  if number == signal.SIGKILL:
    assert process.returncode == -signal.SIGKILL
  else:
    assert process.returncode == 75
    assert errors.count("\n") == 1
    assert f"error[INTERRUPTED]: stopped at step {kept}" in errors
  steps = kept - kept % 50
  # A little further: the same command goes on, and the first rows stay as they were.
  resumed = launch(*LONG, f"--workdir={tmp_path}")
  for line in resumed.stdout:
    if "/40000" in line and int(line.split("/")[0].split()[-1]) > steps + 200:
      break
  resumed.send_signal(signal.SIGINT)
  assert resumed.wait(timeout=60) == 75
  resumed.stdout.close()
  resumed.stderr.close()
  again = read_rows(tmp_path / "metrics.jsonl")
  common = [r for r in rows if r["step"] <= kept]
  assert json.dumps(again[: len(common)]) == json.dumps(common)
  trained = [r["step"] for r in again if r["split"] == "train"]
  assert trained == list(range(50, trained[-1] + 1, 50))


def test_a_changed_config_is_refused_with_the_difference(tmp_path, capsys):
  import launch as command

  words = ["train", "--config=experiments/vae/gaussian_digits.py:smoke", f"--workdir={tmp_path}"]
  assert command.main([*words, "--config.training.mesh.data=1"]) == 0
  capsys.readouterr()
  status = command.main([*words, "--config.training.mesh.data=1", "--config.task.beta=2"])
  assert status == 2
  assert "task.beta 1.0 -> 2.0" in capsys.readouterr().err


def test_a_run_that_is_not_finite_stops_with_its_last_finite_step(tmp_path):
  import launch as command

  status = command.main(
    [
      "train",
      "--config=experiments/convnet/resnet_digits.py:smoke",
      f"--workdir={tmp_path}",
      "--config.optimizer.learning_rate=1e30",
      "--config.training.mesh.data=1",
      "--config.training.checkpoint_every=1",
      "--config.training.steps=20",
    ]
  )
  assert status == 6
  for step in (tmp_path / "checkpoints/latest").iterdir():
    assert int(step.name) < 20
  assert jax.tree.leaves([r for r in read_rows(tmp_path / "metrics.jsonl")])
