"""Sweeps from the command line, whatever is killed; the ledger that makes it so."""

import csv
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from sweeping import (
  LIMIT,
  ROOT,
  begun,
  entries,
  launch,
  running_step,
  states,
  sweep,
  until,
  workers,
  write_experiment,
)

from sweeps import ledger as ledgers
from sweeps.controller import Controller, Limits, SweepError
from sweeps.curve import Curve
from sweeps.display import Live
from sweeps.engines import local
from sweeps.ledger import Ledger
from training.errors import ConfigError
from training.loop import Stop
from training.workdir import read_rows


@pytest.fixture
def experiment(tmp_path):
  return write_experiment(tmp_path)


# The command


def test_a_sweep_runs_ranks_and_reports_and_its_trials_are_ordinary_runs(experiment, tmp_path):
  folder = tmp_path / "sweep"
  done = sweep(experiment, folder)
  assert done.returncode == 0, done.stderr
  assert "4 trials, 0 of them ended" in done.stdout  # the plan
  assert "1 program(s) to compile" in done.stdout
  assert states(folder) == ["done"] * 4
  with open(folder / "results.csv", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  values = [float(row["value"]) for row in sorted(rows, key=lambda row: int(row["id"]))]
  assert values == [entry.value for entry in entries(folder).values()]
  assert sorted(map(int, next(zip(*[r.values() for r in rows], strict=True)))) == [0, 1, 2, 3]
  names = {path.name for path in (folder / "figures").iterdir()}
  assert names >= {"parallel_coordinates.png", "learning_curves.png", "importances.png"}
  assert f"{max(values):.5g}" in (folder / "report.html").read_text(encoding="utf-8")

  # A trial is a run: the same command line alone gives the same bits.
  entry = entries(folder)[3]
  overrides = [f"--config.{key}={value}" for key, value in entry.overrides.items()]
  alone = launch(
    "train", f"--config={experiment}:smoke", f"--workdir={tmp_path / 'alone'}", *overrides
  )
  assert alone.returncode == 0, alone.stderr
  trial = folder / "trials" / "0003"
  for name in ("metrics.jsonl", "config.json", "evaluation.json"):
    assert (trial / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
  value = json.loads((trial / "evaluation.json").read_text())["splits"]["validation"]["elbo"]
  assert entry.value == value
  assert launch("evaluate", f"--workdir={trial}").returncode == 0

  # Asked again, nothing runs again; another sweep is refused.
  again = sweep(experiment, folder)
  assert again.returncode == 0
  assert "4 trials, 4 of them ended" in again.stdout
  assert [entry.attempts for entry in entries(folder).values()] == [1] * 4
  other = sweep(experiment, folder, "--config.training.steps=41")
  assert other.returncode == 2
  assert "training.steps 40 -> 41" in other.stderr


def test_failures_are_marked_and_do_not_stop_the_others(experiment, tmp_path):
  folder = tmp_path / "bad"
  done = sweep(experiment, folder, "--sweep=bad")
  assert done.returncode == 0, done.stderr
  found = entries(folder)
  assert [entry.state for entry in found.values()] == ["done", "failed", "done"]
  assert found[1].status == 6
  assert found[1].error.startswith("error[NUMERICS]")
  assert "error[NUMERICS]" in done.stdout
  strict = sweep(experiment, tmp_path / "strict", "--sweep=bad", "--max-failures=1")
  assert strict.returncode == 1
  assert strict.stderr.startswith("error[SWEEP]: 1 trials failed")
  assert len(strict.stderr.splitlines()) == 1


def test_what_a_search_proposes_in_vain_fails_alone(experiment, tmp_path):
  folder = tmp_path / "vain"
  done = sweep(experiment, folder, "--search=random", "--space=wrong", "--trials=2", "--jobs=1")
  assert done.returncode == 0, done.stderr
  found = entries(folder)
  assert [(entry.state, entry.status) for entry in found.values()] == [("failed", 2)] * 2
  assert found[0].error.startswith("error[CONFIG]: config.model.latents")


def test_running_out_of_memory_is_a_failed_trial(experiment, tmp_path):
  folder = tmp_path / "hungry"
  done = sweep(experiment, folder, "--sweep=hungry", "--retries=0")
  assert done.returncode == 0, done.stderr
  found = entries(folder)
  assert [entry.state for entry in found.values()] == ["done", "failed", "done"]
  assert found[1].status == 7
  assert "out of memory" in found[1].error


def test_a_wrong_sweep_is_refused_before_anything_runs(experiment, tmp_path):
  done = sweep(experiment, tmp_path / "wrong", "--sweep=wrong")
  assert done.returncode == 2
  assert "did you mean 'hidden'" in done.stderr
  assert not (tmp_path / "wrong").exists()
  done = sweep(experiment, tmp_path / "wrong", "--sweep=badd")
  assert done.returncode == 2
  assert "did you mean 'bad'" in done.stderr


@pytest.mark.deep
def test_vectorised_equals_one_after_another_and_a_process_each(experiment, tmp_path):
  values = {}
  for way in ("sequential", "vectorised", "off"):
    done = sweep(experiment, tmp_path / way, "--sweep=seeds", f"--population={way}", "--jobs=1")
    assert done.returncode == 0, done.stderr
    values[way] = [entry.value for entry in entries(tmp_path / way).values()]
  assert values["sequential"] == values["off"]  # bit for bit
  assert values["vectorised"] == pytest.approx(values["off"], rel=1e-5)
  assert len(set(values["off"])) == 3
  logs = [path.read_text() for path in (tmp_path / "vectorised" / "jobs").glob("*.log")]
  assert any("trials [0, 1, 2]" in log for log in logs)
  assert len(list((tmp_path / "off" / "jobs").glob("*.log"))) == 3


def test_a_search_proposes_stops_early_and_counts_in_all(experiment, tmp_path):
  folder = tmp_path / "search"
  words = ("--search=tpe", "--prune=median", "--config.training.eval_every=2")
  done = sweep(experiment, folder, *words, "--trials=3")
  assert done.returncode == 0, done.stderr
  assert len(states(folder)) == 3
  more = sweep(experiment, folder, *words, "--trials=5")
  assert more.returncode == 0, more.stderr
  assert len(states(folder)) == 5
  assert [entry.attempts for entry in entries(folder).values()] == [1] * 5
  assert all(
    1e-6 <= e.overrides["optimizer.learning_rate"] <= 1e-2 for e in entries(folder).values()
  )


# Kills


def test_a_killed_sweep_goes_on_where_it_was(experiment, tmp_path):
  """The controller is killed: its worker saves and ends; then all goes on, to the same bits."""
  folder = tmp_path / "killed"
  words = [
    "sweep",
    f"--config={experiment}:paper",
    f"--workdir={folder}",
    "--sweep=seeds",
    "--jobs=1",
  ]
  process = begun(*words)
  until(lambda: running_step(folder, 1) > 1000, "the second trial runs", process)
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=LIMIT)
  until(lambda: not workers(folder), "the orphan has ended")
  assert states(folder)[0] == "done"
  before = (folder / "trials/0000/evaluation.json").stat().st_mtime_ns
  step = read_rows(folder / "trials/0001/metrics.jsonl")[-1]["step"]

  process = begun(*words)
  until(lambda: running_step(folder, 2) > 500, "the third trial runs", process)
  process.send_signal(signal.SIGINT)
  said = process.communicate(timeout=LIMIT)[0]
  assert process.returncode == 75, said
  assert "error[INTERRUPTED]" in said
  assert states(folder) == ["done", "done", "interrupted"]
  assert (folder / "report.html").exists()  # of what there is

  done = launch(*words)
  assert done.returncode == 0, done.stderr
  assert states(folder) == ["done"] * 3
  assert (folder / "trials/0000/evaluation.json").stat().st_mtime_ns == before
  log = "".join(path.read_text() for path in (folder / "jobs").glob("*.log"))
  assert log.count("going on from step") == 2
  assert step >= 1000
  alone = launch("train", *words[1:2], f"--workdir={tmp_path / 'alone'}", "--config.seed=1")
  assert alone.returncode == 0, alone.stderr
  wanted = (tmp_path / "alone" / "metrics.jsonl").read_bytes()
  assert (folder / "trials/0001/metrics.jsonl").read_bytes() == wanted


@pytest.mark.deep
def test_ten_kills_change_nothing_in_the_table_of_twenty_trials(experiment, tmp_path):
  words = ["--sweep=twenty", "--jobs=2", "--retries=10", "--config.training.steps=500"]
  words += ["--config.training.eval_every=250", "--config.training.checkpoint_every=100"]
  words = ["sweep", f"--config={experiment}:smoke", *words]
  assert launch(*words, f"--workdir={tmp_path / 'whole'}").returncode == 0
  folder, chance, killed = tmp_path / "killed", random.Random(0), 0
  while killed < 10:
    process = begun(*words, f"--workdir={folder}")
    until(lambda found=process: workers(folder) or found.poll() is not None, "workers run")
    assert process.poll() is None, f"ended after {killed} kills"
    time.sleep(chance.uniform(4.0, 12.0))
    # A worker, which is tried again, or all: the controller's orphans save and end.
    running = workers(folder)
    if killed % 3 and running:
      os.kill(chance.choice(running), signal.SIGKILL)
      time.sleep(2.0)
      killed += 1
    process.kill()
    process.communicate(timeout=LIMIT)
    killed += 1
    until(lambda: not workers(folder), "the orphans have ended")
  done = launch(*words, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  assert states(folder) == ["done"] * 20
  for name in ("metrics.jsonl", "evaluation.json"):
    for trial in sorted((folder / "trials").iterdir()):
      wanted = tmp_path / "whole/trials" / trial.name / name
      assert (trial / name).read_bytes() == wanted.read_bytes(), f"{trial.name} {name}"
  values = [
    [entry.value for entry in entries(tmp_path / one).values()] for one in ("whole", "killed")
  ]
  assert values[0] == values[1]


def test_a_worker_that_dies_or_hangs_costs_its_trial_alone(experiment, tmp_path):
  folder = tmp_path / "dies"
  words = ("--sweep=seeds", "--retries=0", "--timeout=25", "--grace=1", "--jobs=1")
  process = begun("sweep", f"--config={experiment}:paper", f"--workdir={folder}", *words)
  until(lambda: running_step(folder, 0) > 500, "the first trial runs", process)
  (worker,) = workers(folder)
  os.kill(worker, signal.SIGKILL)
  until(lambda: running_step(folder, 1) > 500, "the second trial runs", process)
  (worker,) = workers(folder)
  os.kill(worker, signal.SIGSTOP)  # it answers nothing, not even SIGTERM
  said = process.communicate(timeout=LIMIT)[0]
  assert process.returncode == 0, said
  found = entries(folder)
  assert [entry.state for entry in found.values()] == ["failed", "timeout", "done"]
  assert "SIGKILL" in found[0].error
  assert "error[TIMEOUT]" in found[1].error
  assert found[1].seconds > 24
  retried = sweep(experiment, folder, "--sweep=seeds", "--retry-failed", variant="paper")
  assert retried.returncode == 0, retried.stderr
  assert states(folder) == ["done"] * 3


def test_a_crash_is_tried_again_from_its_checkpoint(experiment, tmp_path):
  folder = tmp_path / "again"
  process = begun(
    "sweep", f"--config={experiment}:paper", f"--workdir={folder}", "--sweep=seeds", "--jobs=1"
  )
  until(lambda: running_step(folder, 0) > 1000, "the first trial runs", process)
  os.kill(workers(folder)[0], signal.SIGKILL)
  said = process.communicate(timeout=LIMIT)[0]
  assert process.returncode == 0, said
  assert states(folder) == ["done"] * 3
  assert entries(folder)[0].attempts == 2
  log = "".join(path.read_text() for path in (folder / "jobs").glob("*.log"))
  assert "going on from step" in log


def test_two_machines_share_a_directory(experiment, tmp_path):
  """Two controllers on one directory: every trial runs once."""
  folder = tmp_path / "shared"
  words = [
    "sweep",
    f"--config={experiment}:paper",
    f"--workdir={folder}",
    "--sweep=seeds",
    "--jobs=1",
  ]
  first = begun(*words)
  until(lambda: running_step(folder, 0) > 0, "the first trial runs", first)
  second = begun("sweep", f"--workdir={folder}", "--join", "--jobs=1")
  for process in (first, second):
    said = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0, said
  assert states(folder) == ["done"] * 3
  assert [entry.attempts for entry in entries(folder).values()] == [1] * 3
  owners = {path.stem.rsplit("-", 1)[0] for path in (folder / "jobs").glob("*.log")}
  assert len(owners) == 2
  refused = launch(*words[:2], f"--workdir={tmp_path / 'nothing'}", "--join")
  assert refused.returncode == 2


# Claims


def test_reproduce_runs_what_is_missing_judges_and_records(experiment, tmp_path, monkeypatch):
  words = ("reproduce", f"--config={experiment}:smoke", f"--workdir={tmp_path / 'runs'}")
  done = launch(*words, "--no-record")
  assert done.returncode == 1, done.stderr  # one claim fails
  assert "PASS" in done.stdout
  assert "FAIL" in done.stdout
  assert "6 trials, 0 of them ended" in done.stdout  # three settings, two seeds
  again = launch(*words, "--no-record", "--seeds=3")
  assert "9 trials, 6 of them ended" in again.stdout
  assert launch(*words, "--no-record", "--seeds=1").returncode == 2
  assert launch(*words, "--config.seed=3").returncode == 2

  from reproduction import records
  from reproduction import run as reproduce
  from sweeps.engines import make

  monkeypatch.setattr(reproduce, "ROOT", tmp_path)
  judged = reproduce.reproduce(
    str(experiment),
    "smoke",
    seeds=3,
    workdir=str(tmp_path / "runs"),
    engine=lambda folder, trials: make("local", folder, trials, jobs=0, options={}),
    limits=Limits(),
    command=["python", "launch.py", "reproduce"],
  )
  assert {claim.name: verdict.outcome for claim, verdict in judged} == {
    "learns": "PASS",
    "impossible": "FAIL",
  }
  record = records.read(tmp_path / "docs/results/test/vae_digits.smoke.json")
  assert record["command"] == "python launch.py reproduce"
  assert len(record["commit"]) >= 40
  assert len(record["data"]) == 64
  assert not records.stale(record, tmp_path)
  assert {len(run["seeds"]) for claim in record["claims"] for run in claim["runs"]} == {3}


# The ledger


def test_a_trial_is_claimed_by_one(tmp_path):
  ledger = Ledger(tmp_path)
  trial = ledger.add({}).id
  taken = []

  def take(name):
    own = Ledger(tmp_path)
    own.me = f"elsewhere-{name}"
    barrier.wait()
    if own.claim(trial):
      taken.append(name)

  for round in range(20):
    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert len(taken) == round + 1
    ledger.me = "elsewhere-none"
    ledger.release(trial)  # not ours: nothing happens
    assert ledger.claimed(trial)
    ledger.me = f"elsewhere-{taken[-1]}"
    ledger.release(trial)
    assert not ledger.claimed(trial)


def test_a_claim_without_a_sign_of_life_is_anybodys(tmp_path):
  ledger, other = Ledger(tmp_path), Ledger(tmp_path)
  other.me = "elsewhere-1"
  trial = ledger.add({}).id
  assert other.claim(trial)
  assert not ledger.claim(trial)
  assert ledger.claimed(trial)
  file = ledger.workdir(trial) / "claim.1"
  old = time.time() - ledgers._LEASE - 1
  os.utime(file, (old, old))
  assert not ledger.claimed(trial)
  other.alive([trial])
  assert ledger.claimed(trial)
  os.utime(file, (old, old))
  assert ledger.claim(trial)
  assert not other.claim(trial)


def test_a_claim_of_a_dead_process_here_is_anybodys(tmp_path):
  ledger = Ledger(tmp_path)
  trial = ledger.add({}).id
  gone = subprocess.Popen(["true"])
  gone.wait()
  dead = Ledger(tmp_path)
  dead.me = f"{ledger.me.rpartition('-')[0]}-{gone.pid}"
  assert dead.claim(trial)
  assert ledger.claim(trial)


def test_trials_are_numbered_once_however_many_add_them(tmp_path):
  def add(start):
    for i in range(20):
      Ledger(tmp_path).add({"seed": start + i})

  threads = [threading.Thread(target=add, args=(100 * i,)) for i in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  found = Ledger(tmp_path).entries()
  assert [entry.id for entry in found] == list(range(80))
  assert len({entry.overrides["seed"] for entry in found}) == 80


def test_what_a_kill_left_half_written_is_no_trial(tmp_path):
  ledger = Ledger(tmp_path)
  ledger.add({"seed": 0})
  ledger.workdir(1).mkdir()  # killed before its entry
  (ledger.workdir(0) / ".trial.json.tmp").write_text('{"id": 0, "sta')  # killed while writing
  assert [entry.id for entry in ledger.entries()] == [0]
  assert ledger.add({"seed": 1}).id == 2


def test_an_entry_outlives_its_process(tmp_path):
  ledger = Ledger(tmp_path)
  entry = ledger.add({"task.beta": 2.0, "model.widths": [8, 4]}).started_now("here")
  ledger.write(entry)
  assert ledger.read(entry.id) == entry
  ended = dataclasses.replace(entry, started=time.time() - 5).ended("done", status=0, value=1.5)
  assert ended.seconds == pytest.approx(5, abs=1)
  assert ended.attempts == 1
  ledger.write(ended)
  assert ledger.read(entry.id).value == 1.5


def test_a_curve_is_read_as_it_grows_and_anew_when_rows_are_forgotten(tmp_path):
  file = tmp_path / "metrics.jsonl"
  curve = Curve(file, "loss", "validation", greatest=False)
  curve.read()
  assert curve.last is None
  row = lambda step, split, loss: json.dumps({"step": step, "split": split, "loss": loss}) + "\n"  # noqa: E731
  file.write_text(row(1, "train", 9.0) + row(1, "validation", 5.0) + row(2, "validation", 3.0)[:9])
  curve.read()
  assert curve.values == [(1, 5.0)]  # the torn line is not read yet
  file.write_text(row(1, "train", 9.0) + row(1, "validation", 5.0) + row(2, "validation", 3.0))
  curve.read()
  assert curve.values == [(1, 5.0), (2, 3.0)]
  assert (curve.best, curve.last, curve.step) == (3.0, 3.0, 2)
  file.write_text(row(1, "train", 9.0) + row(1, "validation", 5.0))
  curve.read()
  assert curve.values == [(1, 5.0)]


# Devices


def controlled(tmp_path, script, *, trials, limits, jobs=2):
  """A controller whose workers are a script of ours; their devices are real shares of the cores."""
  ledger = Ledger(tmp_path)
  for seed in range(trials):
    ledger.add({"seed": seed})
  ledger.ask({"direction": "least"})
  engine = local.Local(local.Settings(jobs=jobs, grace=1))
  worker = tmp_path / "worker.py"
  worker.write_text(textwrap.dedent(script), encoding="utf-8")
  controller = Controller(
    ledger,
    engine,
    limits,
    command=lambda job: [sys.executable, str(worker), str(ROOT), str(tmp_path), job],
    structure=lambda entry: "",
    metric="loss",
    split="validation",
    total=lambda entry: 1,
  )
  live = Live("loss")
  with Stop() as stop:
    try:
      controller.run(live, stop=stop)
    finally:
      live.close()
  return controller.trials()


FAULTY = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from sweeps.ledger import Ledger
ledger = Ledger(sys.argv[2])
done = 0
while True:
  batches, closed = ledger.given(sys.argv[3])
  for (trial,) in batches[done:]:
    entry = ledger.read(trial).started_now("")
    ledger.write(entry)
    if SICK:
      os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    ledger.write(entry.ended("done", status=0, value=1.0))
  done = len(batches)
  if closed:
    break
  time.sleep(0.01)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_device_that_crashes_repeatedly_gets_no_more_work(tmp_path, capsys):
  """One of two shares of the cores kills whatever runs on it."""
  sick = min(os.sched_getaffinity(0))
  script = FAULTY.replace("SICK", f"{sick} in os.sched_getaffinity(0)")
  found = controlled(tmp_path, script, trials=12, limits=Limits(retries=9))
  assert [trial.state for trial in found] == ["done"] * 12
  assert "gets no more work after 3 crashes in a row" in capsys.readouterr().out
  logs = len(list((tmp_path / "jobs").glob("*.log")))
  assert logs == 4  # three crashes, and the healthy one


def test_when_every_device_crashes_the_sweep_says_so(tmp_path):
  with pytest.raises(SweepError, match="every device crashed"):
    controlled(tmp_path, FAULTY.replace("SICK", "True"), trials=9, limits=Limits(), jobs=1)


def test_workers_that_never_begin_end_the_sweep(tmp_path):
  with pytest.raises(SweepError, match="no such thing"):
    controlled(tmp_path, "import sys; sys.exit('no such thing')", trials=2, limits=Limits(), jobs=1)


def test_jobs_get_devices_of_their_own(monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3,5")
  engine = local.Local(local.Settings(devices=2))
  assert engine.accelerated
  assert [slot.prefix[1] for slot in engine._slots] == [
    "CUDA_VISIBLE_DEVICES=0,2",
    "CUDA_VISIBLE_DEVICES=3,5",
  ]
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
  engine = local.Local(local.Settings(jobs=2))
  assert not engine.accelerated
  assert engine.free() == 2
  cores = len(os.sched_getaffinity(0))
  assert local.Local(local.Settings(), trials=1).free() == 1  # all cores for one
  assert local.Local(local.Settings(), trials=99).free() == min(cores, 4)
  with pytest.raises(ConfigError, match="more than"):
    local.Local(local.Settings(jobs=cores + 1))
