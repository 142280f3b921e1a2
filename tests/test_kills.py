"""Killed anywhere, again and again, a run ends with the bits and rows of one that was not."""

import collections
import contextlib
import functools
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from training.workdir import read_rows

# Dropout, shuffling, an average, two optimizers, BatchNorm, stages: whatever a state can hold.
SEAMS = {
  "vae": ("experiments/vae/gaussian_digits.py:smoke", "training.ema_decay=0.5"),
  "gan": ("experiments/gan/mlp_digits.py:smoke",),
  "resnet": ("experiments/convnet/resnet_digits.py:smoke",),
  "transformer": ("experiments/transformer/masked_kjv.py:smoke", "model.dropout=0.1"),
  "bert": ("experiments/bert/distil_kjv.py:smoke",),
}
_DEEP = {"bert"}  # three stages a run; test_verify.py kills one of its family on every commit
STEPS = ("training.steps=12", "training.log_every=2", "training.eval_every=3")
STEPS += ("training.checkpoint_every=2",)
_LONGEST = 300  # seconds of one process, on a machine that has other things to do


def command(path, seam):
  name, *overrides = SEAMS[seam]
  steps = () if seam == "bert" else STEPS  # its stages have lengths of their own
  return [sys.executable, "tests/killing.py", str(path), name, *steps, *overrides]


def trains(path, seam, **armed):
  """(exit status, what it printed last, standard error) of one process."""
  ended = subprocess.run(
    command(path, seam),
    capture_output=True,
    text=True,
    timeout=_LONGEST,
    env=os.environ | armed,
  )
  return ended.returncode, ended.stdout.splitlines()[-1:], ended.stderr


def end(path, seam):
  """What a run ends with; it goes on from wherever it is."""
  status, said, error = trains(path, seam)
  assert status == 0, error
  return json.loads(said[0])


def rows_are_unique(path):
  places = [(row["step"], row["split"]) for row in read_rows(path / "metrics.jsonl")]
  return len(set(places)) == len(places) and places == sorted(places, key=lambda place: place[0])


@functools.cache
def uninterrupted(seam):
  """(what a run ends with that nothing interrupts, the points that it passes)."""
  with tempfile.TemporaryDirectory() as folder:
    trace = pathlib.Path(folder, "points")
    status, said, error = trains(f"{folder}/run", seam, FAULT_TRACE=str(trace))
    assert status == 0, error
    return json.loads(said[0]), collections.Counter(trace.read_text().split())


@pytest.fixture(
  params=[pytest.param(seam, marks=[pytest.mark.deep] * (seam in _DEEP)) for seam in SEAMS]
)
def whole(request):
  """(seam, what a run ends with that nothing interrupts, the points that it passes)."""
  return request.param, *uninterrupted(request.param)


# Before and after what makes a save last, and in the middle of what follows from it.
CHOSEN = ("save.described", "save.started", "save.committed", "save.summed", "save.forgetting")


def test_killed_at_one_point_after_another(whole, tmp_path):
  seam, wanted, passed = whole
  for point in CHOSEN if seam == "vae" else CHOSEN[2:3]:
    path = tmp_path / point
    status, _, error = trains(path, seam, FAULT=f"{point}:{max(1, passed[point] // 2)}:kill")
    assert status == -signal.SIGKILL, error
    assert end(path, seam) == wanted, point
    assert rows_are_unique(path)


@pytest.mark.deep
def test_killed_at_every_point(whole, tmp_path):
  seam, wanted, passed = whole
  for point, times in passed.items():
    for ordinal in sorted({1, (times + 1) // 2, times}):
      path = tmp_path / f"{point}.{ordinal}"
      status, _, error = trains(path, seam, FAULT=f"{point}:{ordinal}:kill")
      assert status == -signal.SIGKILL, f"{point} {ordinal}: {error}"
      assert end(path, seam) == wanted, f"{point} {ordinal}"


@pytest.mark.parametrize("depth", [1, pytest.param(3, marks=pytest.mark.deep)])
def test_killed_while_it_recovers(whole, tmp_path, depth):
  seam, wanted, _ = whole
  if depth == 1 and seam != "vae":
    pytest.skip("of one family here; pytest -m deep kills the others too")
  points = ("restore.begin", "restore.described", "restore.done", "file.written", "stage.begin")
  for point in points if depth > 1 else points[1:4:2]:
    path = tmp_path / point
    status, _, _ = trains(path, seam, FAULT="save.started:3:kill")
    assert status == -signal.SIGKILL
    for _ in range(depth):
      status, _, error = trains(path, seam, FAULT=f"{point}:1:kill")
      assert status == -signal.SIGKILL, f"{point}: {error}"
    assert end(path, seam) == wanted, point


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.deep)])
def test_killed_at_any_time(whole, tmp_path, kills):
  """Five families: 125 kills with -m deep."""
  seam, wanted, _ = whole
  chance, killed, attempt = random.Random(f"{seam} {kills}"), 0, 0
  while killed < kills:
    attempt += 1
    path = tmp_path / str(attempt)
    # A run is killed until it has ended; then another one begins.
    while True:
      with open(tmp_path / "said", "w") as said:
        process = subprocess.Popen(command(path, seam), stdout=said, stderr=said)
      before = newest(path)
      wait = chance.uniform(2.0, 9.0)
      try:
        process.wait(timeout=wait)
        break
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        killed += 1
        assert newest(path) >= before, "a committed step is gone"
      if killed >= kills:
        break
    assert end(path, seam) == wanted, attempt
    assert rows_are_unique(path)


def newest(path: pathlib.Path) -> int:
  """The newest sealed step."""
  sealed = (path / "checkpoints/latest").glob("[0-9]*/SHA256SUMS")
  return max((int(file.parent.name) for file in sealed), default=0)


PHASES = {
  "before the first step": "step.begin:1",
  "a step": "step.sent:3",
  "an evaluation": "evaluate.begin:2",
  "a save": "save.started:2",
  "the end of a save": "save.committed:2",
  "a row": "row.written:4",
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("action", ["term", pytest.param("int", marks=pytest.mark.deep)])
def test_a_signal_in_any_phase_saves_and_says_so(tmp_path, phase, action):
  status, _, error = trains(tmp_path / "run", "vae", FAULT=f"{PHASES[phase]}:{action}")
  assert status == 75, error
  assert len(error.strip().splitlines()) == 1, error
  assert error.startswith("error[INTERRUPTED]: stopped at step")
  kept = newest(tmp_path / "run")
  assert f"step {kept};" in error
  assert end(tmp_path / "run", "vae") == uninterrupted("vae")[0]


def test_a_second_signal_ends_at_once(tmp_path):
  process = subprocess.Popen(
    command(tmp_path, "vae"),
    env=os.environ | {"FAULT": "step.begin:3:stall"},  # it hears the first, and cannot act on it
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    for line in process.stdout:
      if "first step" in line:
        break
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 75
  finally:
    process.kill()


def test_a_damaged_compilation_cache_changes_nothing(tmp_path):
  cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
  status, wanted, error = trains(tmp_path / "whole", "vae", **cache)
  assert status == 0, error
  entries = [path for path in (tmp_path / "cache").iterdir() if path.name.endswith("-cache")]
  assert entries
  for path in entries:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  status, found, error = trains(tmp_path / "again", "vae", **cache)
  assert status == 0, error
  assert found == wanted


@pytest.fixture
def peers(tmp_path):
  """Starts two processes of one run, of which one fails as it is told."""
  with contextlib.closing(socket.socket()) as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
  arguments = [sys.executable, "launch.py", "train", f"--config={SEAMS['vae'][0]}"]
  arguments += [f"--workdir={tmp_path}", f"--coordinator=127.0.0.1:{port}", "--processes=2"]
  arguments += ["--config.training.stalled_after=30"]
  started = []

  def start(failing, action):
    for i in range(2):
      armed = {"FAULT": f"step.begin:3:{action}"} if i == failing else {}
      started.append(
        subprocess.Popen(
          [*arguments, f"--process={i}"],
          env=os.environ | armed,
          stdout=subprocess.DEVNULL,
          stderr=subprocess.PIPE,
          text=True,
        )
      )
    return started

  yield start
  for process in started:
    process.kill()
    process.wait()


def test_a_peer_that_stands_still_ends_the_run(peers):
  first, second = peers(1, "stop")
  _, said = first.communicate(timeout=_LONGEST)
  assert first.returncode == 7, said
  assert "error[STALLED]: nothing has happened for 30 s" in said
  assert second.poll() is None  # it stood still itself


def test_a_peer_that_is_killed_ends_the_run(peers):
  first, second = peers(1, "kill")
  _, said = first.communicate(timeout=_LONGEST)
  assert first.returncode == 7, said
  assert said.splitlines()[-1].startswith("error[STALLED]: another process of this run is gone")
  assert "Traceback" not in said
  assert second.wait() == -signal.SIGKILL


def test_memory_that_runs_out_is_said_in_a_line_and_costs_no_more(tmp_path):
  status, _, error = trains(tmp_path / "run", "vae", FAULT="step.sent:5:memory")
  assert status == 7, error
  said = error.splitlines()[-1]
  assert said.startswith("error[MEMORY]: out of memory: RESOURCE_EXHAUSTED")
  assert "1024 bytes" in said
  assert "training.microbatches" in said
  assert "Traceback" not in error
  assert end(tmp_path / "run", "vae") == uninterrupted("vae")[0]


def test_what_stands_still_is_ended_with_its_stacks(tmp_path):
  arguments = [*command(tmp_path, "vae"), "training.stalled_after=25"]
  ended = subprocess.run(
    arguments,
    env=os.environ | {"FAULT": "step.begin:4:stall"},
    capture_output=True,
    text=True,
    timeout=_LONGEST,
  )
  assert ended.returncode == 7
  assert ended.stderr.splitlines()[-1].startswith("error[STALLED]: nothing has happened for 25 s")
  stacks = (tmp_path / "stacks.txt").read_text()
  assert "faults.py" in stacks
  assert "loop.py" in stacks
