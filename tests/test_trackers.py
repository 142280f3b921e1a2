"""Trackers against the real packages, without a network: what they are told is read back."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from report import canvas, trackers
from report.tensorboard import Events
from report.writer import Several

CONFIG = {
  "seed": 3,
  "model": {"name": "vae.gaussian", "hidden": [32, 16]},
  "stages": [{"training": {"steps": 9}}],
}
SETTINGS = {"seed": 3, "model.name": "vae.gaussian", "stages.0.training.steps": 9}
EXPERIMENT = "experiments/vae/gaussian_digits.py:smoke"


@pytest.fixture(autouse=True, scope="module")
def offline(tmp_path_factory):
  """The packages read most of these once in a process."""
  home = tmp_path_factory.mktemp("home")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("WANDB_MODE", "offline")
    patch.setenv("TRACKIO_DIR", str(home / "trackio"))
    for name in ("WANDB_DIR", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
      patch.delenv(name, raising=False)
    yield
  if "wandb" in sys.modules:
    sys.modules["wandb"].teardown()


def start(name, workdir, resume_step=None):
  (writer,) = trackers.writers(
    [name], workdir, config=CONFIG, experiment=EXPERIMENT, resume_step=resume_step
  )
  return writer


def record(workdir):
  return json.loads((workdir / ".trackers.json").read_text())


# What each package holds of a run: {series: [(step, value)]}, {image: steps}, settings, tags.


def read_wandb(workdir, run_id):
  from wandb.proto import wandb_internal_pb2

  points, images, settings, tags, axes = {}, {}, {}, [], set()
  for path in sorted(workdir.glob(f"wandb/offline-run-*/run-{run_id}.wandb")):
    for data in _log_records(path.read_bytes()):
      message = wandb_internal_pb2.Record.FromString(data)
      for item in message.run.config.update:
        settings[item.key] = json.loads(item.value_json)
      tags.extend(message.run.tags)
      if message.HasField("metric"):
        axes.add((message.metric.glob_name, message.metric.step_metric))
      row = {
        tuple(item.nested_key) or (item.key,): json.loads(item.value_json)
        for item in message.history.item
      }
      for (key, *inner), value in row.items():
        if inner == ["_type"] and value == "image-file":
          images.setdefault(key, []).append(row[("step",)])
        elif not inner and key != "step" and not key.startswith("_"):
          points.setdefault(key, []).append((row[("step",)], value))
  assert axes == {("*", "step")}
  return points, images, settings, tags


def _log_records(data):
  """The records of a LevelDB log: blocks of 32 KiB, in which a long record is in fragments."""
  position, parts = 7, []  # behind the header of the file
  while position + 7 <= len(data):
    room = 32768 - position % 32768
    if room < 7:
      position += room
      continue
    _, length, kind = struct.unpack_from("<IHB", data, position)
    parts.append(data[position + 7 : position + 7 + length])
    position += 7 + length
    if kind in (1, 4):  # whole, or the last fragment
      yield b"".join(parts)
      parts = []


def read_mlflow(workdir, run_id):
  from mlflow.tracking import MlflowClient

  client = MlflowClient(tracking_uri=f"sqlite:///{workdir.parent / 'mlflow.db'}")
  run = client.get_run(run_id)
  points = {
    name: [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]
    for name in run.data.metrics
  }
  images = {}
  for artifact in client.list_artifacts(run_id, "images"):
    if artifact.path.endswith(".png"):
      name, _, step, *_ = artifact.path.removeprefix("images/").split("+")
      images.setdefault(name.replace("~", "/"), []).append(int(step))
  return points, images, run.data.params, run.data.tags


def read_trackio(workdir, run_id):
  from trackio.sqlite_storage import SQLiteStorage

  points, images = {}, {}
  for row in SQLiteStorage.get_logs("fukugen", run_id):
    for key, value in row.items():
      if isinstance(value, dict):
        images.setdefault(key, []).append(row["step"])
      elif key not in ("step", "timestamp"):
        points.setdefault(key, []).append((row["step"], value))
  settings = SQLiteStorage.get_run_config("fukugen", run_id)
  return points, images, settings, {name: settings[name] for name in ("experiment", "workdir")}


PACKAGES = {"wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}


def needs(name):
  for module in trackers._SERVICES[name].modules:
    pytest.importorskip(module, reason=f"{module} is not installed (requirements-tracking.txt)")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_resumed_run_goes_on_in_the_same_run(name, tmp_path, capfd):
  needs(name)
  workdir = tmp_path / "digits"
  workdir.mkdir()
  writer = start(name, workdir)
  for step in (100, 200, 300):
    writer.scalars(step, "train", {"loss": np.float32(step), "critic/loss": 0.5})
    writer.scalars(step, "validation", {"elbo": -step})
  writer.close()
  run_id = record(workdir)[name]["run"]
  # Restored from step 200: what it computes again has been sent.
  writer = start(name, workdir, resume_step=200)
  for step in (300, 400):
    writer.scalars(step, "train", {"loss": 7.0, "critic/loss": 0.5})
  writer.image("curves", canvas.note("Nothing."), 400)
  writer.close()
  # Drawn once more, as `launch.py report` does.
  writer = start(name, workdir, resume_step=400)
  writer.image("curves", canvas.note("Nothing."), 400)
  writer.close()
  assert record(workdir)[name] == {
    "run": run_id,
    "sent": {"train": 400, "validation": 300, "figures/curves": 400},
  }
  points, images, settings, tags = PACKAGES[name](workdir, run_id)
  assert points["train/loss"] == [(100, 100), (200, 200), (300, 300), (400, 7)]
  assert points["train/critic/loss"] == [(step, 0.5) for step in (100, 200, 300, 400)]
  assert points["validation/elbo"] == [(step, -step) for step in (100, 200, 300)]
  assert images == {"figures/curves": [400]}
  assert {key: str(settings[key]) for key in SETTINGS} == {k: str(v) for k, v in SETTINGS.items()}
  told = set(tags.values() if isinstance(tags, dict) else tags)
  assert EXPERIMENT in told
  # W&B allows a tag 64 characters.
  assert str(workdir) in told or str(workdir)[-64:] in told
  assert "warning" not in capfd.readouterr().err


def test_a_run_from_the_start_is_a_new_one(tmp_path):
  needs("mlflow")
  first = []
  for _ in range(2):
    writer = start("mlflow", tmp_path / "run")
    writer.scalars(1, "train", {"loss": 1.0})
    writer.close()
    first.append(record(tmp_path / "run")["mlflow"]["run"])
  assert first[0] != first[1]
  for run_id in first:
    assert read_mlflow(tmp_path / "run", run_id)[0] == {"train/loss": [(1, 1.0)]}


def test_runs_in_one_folder_share_a_store_even_when_they_start_together(
  tmp_path, monkeypatch, capfd
):
  needs("mlflow")
  from mlflow.tracking import MlflowClient

  ask, asked, together = MlflowClient.get_experiment_by_name, set(), threading.Barrier(3)

  def ask_together(self, name):
    found = ask(self, name)
    if threading.get_ident() not in asked:
      asked.add(threading.get_ident())
      together.wait(30)
    return found

  monkeypatch.setattr(MlflowClient, "get_experiment_by_name", ask_together)
  writers = [start("mlflow", tmp_path / f"run{i}") for i in range(3)]
  for writer in writers:
    writer.scalars(1, "train", {"loss": 1.0})
  for writer in writers:
    writer.close()
  client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
  experiment = ask(client, "fukugen")
  found = client.search_runs([experiment.experiment_id])
  assert {run.info.run_name for run in found} == {"run0", "run1", "run2"}
  assert {run.info.status for run in found} == {"FINISHED"}
  assert capfd.readouterr().err == ""


# Failures


class Broken(trackers._Service):
  """Raises in the method named `where`; `gate` holds every row back."""

  modules, install = (), ""
  where = ""
  gate = threading.Event()

  def _call(self, name):
    if name == self.where:
      raise ConnectionError("no route\nto host")

  def open(self, run_id):
    self._call("open")
    return "id"

  def scalars(self, step, values):
    self.gate.wait(20)
    self._call("scalars")

  def image(self, step, tag, array):
    self._call("image")

  def close(self):
    self._call("close")


@pytest.fixture
def broken(monkeypatch):
  monkeypatch.setitem(trackers._SERVICES, "broken", Broken)
  monkeypatch.setattr(Broken, "gate", threading.Event())
  Broken.gate.set()
  return monkeypatch


@pytest.mark.parametrize("where", ["open", "scalars", "image", "close"])
def test_a_tracker_that_fails_is_switched_off_with_one_warning(broken, tmp_path, capfd, where):
  broken.setattr(Broken, "where", where)
  events = Events(tmp_path)
  writer = Several([events, start("broken", tmp_path)])
  for step in range(1, 6):
    writer.scalars(step, "train", {"loss": 1.0})
    writer.image("figure", np.zeros((2, 2)), step)
  writer.close()
  writer.close()
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith("warning: the tracker broken is off")
  assert "ConnectionError: no route to host" in line
  assert len(list(tmp_path.glob("tensorboard/*/*tfevents*"))) == 2


def test_a_tracker_that_hangs_costs_the_training_nothing(broken, tmp_path, capfd):
  broken.setattr(trackers, "_WAITING", 50)
  broken.setattr(trackers, "_PATIENCE", 0.2)
  broken.setattr(Broken, "where", "scalars")  # which is no news once it is off
  Broken.gate.clear()
  slow, stuck = start("broken", tmp_path / "a"), start("broken", tmp_path / "b")
  began = time.perf_counter()
  stuck.scalars(1, "train", {"loss": 1.0})
  for step in range(200):
    slow.scalars(step, "train", {"loss": 1.0})
  slow.close()
  stuck.close()
  assert time.perf_counter() - began < 5
  Broken.gate.set()
  for thread in threading.enumerate():
    if thread.name.startswith("tracker"):
      thread.join(20)
  errors = capfd.readouterr().err.splitlines()
  assert [line.partition("off from here on: ")[2].partition(";")[0] for line in errors] == [
    "50 rows wait for it",
    "it did not finish within 0.2 s",
  ]


def test_what_cannot_be_started_is_said_before_anything_is(tmp_path, monkeypatch):
  def refuse(match, error, *names):
    with pytest.raises(error, match=match):
      trackers.writers(names, tmp_path, config={}, experiment="", resume_step=5)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tracker")]

  refuse("no tracker 'wanb'; there are wandb, mlflow, trackio", ValueError, "wandb", "wanb")
  monkeypatch.setitem(sys.modules, "alembic", None)
  if importlib.util.find_spec("mlflow"):
    refuse(r"needs the package alembic.*pip install mlflow-skinny .*alembic", ImportError, "mlflow")
  monkeypatch.setitem(sys.modules, "trackio", None)
  refuse(r"needs the package trackio.*`pip install trackio`", ImportError, "trackio")
  (tmp_path / ".trackers.json").write_text("{")
  monkeypatch.setitem(trackers._SERVICES, "broken", Broken)
  refuse(r"\.trackers\.json cannot be read.*delete it", ValueError, "broken")


def test_weights_and_biases_without_a_key_asks_nothing(tmp_path):
  needs("wandb")
  # Its settings are read once in a process, so this is another one, at a terminal.
  code = """
    import os, pathlib, pty, sys
    sys.stdin = open(pty.openpty()[1])
    from report import trackers
    (writer,) = trackers.writers(
      ["wandb"], pathlib.Path(sys.argv[1]), config={}, experiment="", resume_step=None
    )
    writer.close()
  """
  environment = {
    "PATH": os.environ["PATH"],
    "HOME": str(tmp_path),
    "WANDB_BASE_URL": "http://127.0.0.1:9",
    "WANDB_ERROR_REPORTING": "false",
  }
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code), tmp_path],
    env=environment,
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert "no API key; run `wandb login`, or set WANDB_MODE=offline" in done.stderr
  assert len(done.stderr.splitlines()) == 1
  assert done.returncode == 0
