"""One run on two processes of this machine: the same losses, one writer, and it goes on."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
from conftest import ROOT

from training import config, processes, run
from training.errors import ConfigError

EXPERIMENT = "experiments/vae/gaussian_digits.py:smoke"
MESH = {"data": 2, "fsdp": 2}
SETTINGS = {"training.mesh": str(MESH), "model.hidden": "64"}
PATIENCE = 240  # seconds; a peer that died would be waited for forever


def free_port():
  with contextlib.closing(socket.socket()) as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


def train_on_two(workdir):
  """What two processes of two devices each printed; both are ended, whatever happens."""
  command = [sys.executable, "launch.py", "train", f"--config={EXPERIMENT}", f"--workdir={workdir}"]
  command += [f"--config.{key}={value}" for key, value in SETTINGS.items()]
  command += [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
  flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
  started = [
    subprocess.Popen(
      [*command, f"--process={i}"],
      cwd=ROOT,
      env={**os.environ, **flags},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]
  try:
    said = [process.communicate(timeout=PATIENCE)[0] for process in started]
  finally:
    for process in started:
      process.kill()
  for process, text in zip(started, said, strict=True):
    assert process.returncode == 0, text[-3000:]
  return said


def rows(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("two")
  return workdir, train_on_two(workdir)


def test_two_processes_train_like_one(trained, tmp_path):
  found = config.override(config.load(EXPERIMENT), SETTINGS.items())
  run.train(found, tmp_path, command=[])  # four devices of one process
  wanted = rows(tmp_path)
  assert len(rows(trained[0])) == len(wanted) > 4
  for row, same in zip(rows(trained[0]), wanted, strict=True):
    assert row.keys() == same.keys()
    for name, value in same.items():
      assert row[name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)
  figures = {file.name for file in (trained[0] / "figures").iterdir()}
  assert figures == {file.name for file in (tmp_path / "figures").iterdir()}


def test_only_the_first_process_speaks(trained):
  _, (first, second) = trained
  assert "training: 4/4" in first
  assert "report: " in first
  assert "training: " not in second
  assert "report: " not in second


def test_a_run_of_two_goes_on_with_two(trained, tmp_path):
  before = rows(trained[0])
  workdir = tmp_path / "again"
  shutil.copytree(trained[0], workdir)
  for kind in ("latest", "best"):
    shutil.rmtree(workdir / "checkpoints" / kind / "4", ignore_errors=True)
  first, _ = train_on_two(workdir)
  assert "going on from step 2" in first
  after = rows(workdir)
  assert [row["step"] for row in after] == [row["step"] for row in before]
  for row, same in zip(after, before, strict=True):
    assert row["loss"] == pytest.approx(same["loss"], rel=1e-6)


@pytest.mark.parametrize(
  "which", [("", 2, 0), ("host", 2, 0), ("host:1", 2, 2), ("host:1", 0, 0), ("host:x", 1, 0)]
)
def test_processes_that_cannot_be_are_refused(which):
  with pytest.raises(ConfigError, match="name no process"):
    processes.join(*which)


def test_a_process_alone_is_the_first():
  assert processes.first()
