"""Engines with real processes: a Ray cluster of two nodes, submitit's own executor, a small SLURM.

There is no SLURM where tests run, so its five commands are played by scripts that start what sbatch
is given; what submitit writes into that, and what happens on the node, is the real thing.
"""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import sweeping

from sweeps.engines import Ended, Job, leash, package, process
from sweeps.engines import ray as ray_engine
from sweeps.engines import slurm as slurm_engine
from training.errors import ConfigError, StorageError

PATIENCE = 180  # seconds, of which a busy machine may need many

# Counts to argv[2] in the file argv[1], ten a second, from where the file says; takes argv[3]
# seconds to save.
WORKER = """
import os, pathlib, signal, sys, time
state, last, pause = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
step = int(state.read_text()) if state.exists() else 0
state.with_suffix(".pid").write_text(str(os.getpid()))
print("from", step, flush=True)
while step < last:
  step += 1
  time.sleep(0.1)
  state.write_text(str(step))
  if stopping:
    time.sleep(pause)
    print("saved", step, flush=True)
    sys.exit(75)
print("done", flush=True)
"""


@pytest.fixture
def jobs(tmp_path):
  """Makes jobs: `jobs(id, last, pause)` counts, `jobs(id, code=...)` runs Python code."""
  script = tmp_path / "worker.py"
  script.write_text(WORKER)

  def make(name, last=0, pause=0.0, *, code=None):
    count = [str(script), str(tmp_path / name), str(last), str(pause)]
    return Job(name, [sys.executable, *(["-c", code] if code else count)], tmp_path / f"{name}.log")

  yield make
  for file in tmp_path.glob("*.pid"):
    with contextlib.suppress(ProcessLookupError):
      os.kill(int(file.read_text()), signal.SIGKILL)


def until(condition, what):
  deadline = time.monotonic() + PATIENCE
  while not (found := condition()):
    said = what if isinstance(what, str) else what()
    assert time.monotonic() < deadline, f"never: {said}"
    time.sleep(0.05)
  return found


def statuses(engine, count):
  """Statuses by job of the next `count` jobs that end."""
  found = {}

  def collect():
    found.update({ended.job: ended.status for ended in engine.ended()})
    return len(found) == count

  until(collect, lambda: f"{count} jobs ended, only {found}")
  assert engine.ended() == []
  return found


def counted(job):
  """How far a counting job has come."""
  file = job.log.with_suffix("")
  return int(file.read_text() or 0) if file.exists() else 0


def alive(pid):
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except FileNotFoundError:
    return False


def pid_of(job):
  return int(job.log.with_suffix(".pid").read_text())


# A command and its leash


def test_a_command_is_asked_to_stop_when_its_engine_is_killed(jobs, tmp_path):
  job = jobs("a", 600)
  code = f"""
    import pathlib, sys, time
    from sweeps.engines import process
    process.start({job.command!r}, pathlib.Path({str(job.log)!r}))
    time.sleep(600)
  """
  engine = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
  until(lambda: counted(job) >= 2, "a start")
  engine.kill()
  engine.wait()
  until(lambda: not alive(pid_of(job)), "the end of the orphan")
  assert job.log.read_text().splitlines() == ["from 0", f"saved {counted(job)}"]


def test_a_command_whose_engine_died_before_the_leash_held_is_never_run(jobs):
  job = jobs("a", 1)
  argv = leash.leashed(job.command)
  argv[argv.index(str(os.getpid()))] = "1"
  assert subprocess.run(argv).returncode != 0
  assert counted(job) == 0


def test_a_command_that_ignores_the_request_is_killed_with_its_children(tmp_path):
  code = """
    import signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
    time.sleep(600)
  """
  log = tmp_path / "deep" / "a.log"
  running = process.start([sys.executable, "-c", textwrap.dedent(code)], log)
  child = int(until(lambda: log.exists() and log.read_text(), "a child"))
  began = time.monotonic()
  assert process.stop(running, grace=0.5) == -signal.SIGKILL
  assert time.monotonic() - began >= 0.5
  until(lambda: not alive(child), "the end of the child")


def test_a_command_that_cannot_be_run_fails_with_a_reason_in_its_log(tmp_path):
  assert process.start(["no-such-command"], tmp_path / "a.log").wait() == 1
  assert (tmp_path / "a.log").read_text() == (
    "no-such-command cannot be run: No such file or directory\n"
  )


def test_a_package_that_is_absent_is_a_user_error(monkeypatch):
  monkeypatch.setitem(sys.modules, "ray", None)
  with pytest.raises(ConfigError, match=r"needs the package ray.*requirements-cluster\.txt"):
    package("ray")


# SLURM

SBATCH = """
number = 100 + len(list(home.glob("*.sh")))
script = home / f"{number}.sh"
script.write_text(open(sys.argv[1]).read())
array = re.search(r"--array=0-(\\d+)", script.read_text())
for i in range(int(array[1]) + 1) if array else [None]:
  name = f"{number}_{i}" if array else str(number)
  state(name, "PENDING")
  with open(home / f"{name}.out", "w") as output:
    both = {"stdout": output, "stderr": output}
    subprocess.Popen([home / "node", name, script], start_new_session=True, **both)
print("Submitted batch job", number)
"""
NODE = """
name, script = sys.argv[1:]
main, _, task = name.partition("_")
environment = {**os.environ, "SLURM_JOB_ID": main, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
if task:
  environment |= {"SLURM_ARRAY_JOB_ID": main, "SLURM_ARRAY_TASK_ID": task}
requeued = True
while requeued:
  state(name, "RUNNING")
  status = subprocess.call(["bash", script], env={**environment, "FAKE_NAME": name})
  requeued = (home / f"{name}.requeue").exists()
  (home / f"{name}.requeue").unlink(missing_ok=True)
state(name, "FAILED" if status else "COMPLETED")
"""
SRUN = """
command = sys.argv[sys.argv.index(sys.executable):]
(home / f"{os.environ['FAKE_NAME']}.pid").write_text(str(os.getpid()))
os.execv(command[0], command)
"""
SCANCEL = """
os.kill(int((home / f"{sys.argv[1]}.pid").read_text()), signal.SIGTERM)
"""
SACCT = """
print("JobID|State|NodeList")
for file in home.glob("*.state"):
  print(f"{file.stem}|{file.read_text()}|here")
"""
SCONTROL = """
(home / f"{sys.argv[2]}.requeue").touch()
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
  """The folder of a SLURM whose commands are on the path."""
  home = tmp_path / "slurm"
  home.mkdir()
  head = f"""#!{sys.executable}
import os, pathlib, re, signal, subprocess, sys
home = pathlib.Path({str(home)!r})
def state(name, value):
  (home / f"{{name}}.tmp").write_text(value)
  (home / f"{{name}}.tmp").rename(home / f"{{name}}.state")
"""
  commands = {
    "sbatch": SBATCH,
    "node": NODE,
    "srun": SRUN,
    "scancel": SCANCEL,
    "sacct": SACCT,
    "scontrol": SCONTROL,
  }
  for name, body in commands.items():
    (home / name).write_text(head + body)
    (home / name).chmod(0o755)
  monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
  return home


@pytest.fixture(params=["slurm", "local"])
def submitit(request, tmp_path, slurm, monkeypatch):
  """(an engine, what tells the process of its job on the node)."""
  name = "submitit"
  pytest.importorskip(name, reason=f"{name} is not installed (requirements-cluster.txt)")
  import submitit

  # As in a sweep, which hears SIGINT itself: what was started with it ignored (nohup, a background
  # job) would hand that on, and submitit's own way to cancel a local job would do nothing.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  monkeypatch.setattr(submitit.SlurmJob.watcher, "_delay_s", 0.2)
  settings = slurm_engine.Settings(
    cluster=request.param,
    partition="gpu",
    gpus=2,
    array_parallelism=5,
    parameters={"account": "lab"},
    grace=5,
  )
  engine = slurm_engine.Slurm(settings, tmp_path / "submitit")

  def node_process(job):
    handle = engine._sent[job.id].handle
    if request.param == "slurm":
      return int((slurm / f"{handle.job_id}.pid").read_text())
    controller = handle._process.pid
    return int(pathlib.Path(f"/proc/{controller}/task/{controller}/children").read_text())

  yield engine, node_process
  engine.close()
  signal.signal(signal.SIGINT, before)


def test_submitit_runs_stops_and_requeues_jobs(submitit, jobs, slurm, monkeypatch):
  engine, node_process = submitit
  fine, wrong = jobs("fine", 2), jobs("wrong", code="import sys; sys.exit('wrong')")
  preempted = jobs("preempted", 20, 2.0)  # it is not begun again before it has saved
  cancelled, never = jobs("cancelled", 600), jobs("never", 1)
  assert engine.free() == 5
  # From wherever the sweep is started, its code is found.
  monkeypatch.chdir(slurm)
  for job in (fine, wrong, preempted, cancelled, never):
    engine.submit(job)
  assert engine.free() == 0
  engine.cancel("never")  # before anything is submitted
  assert engine.ended() == [Ended("never", -signal.SIGTERM, "not submitted yet")]
  until(lambda: counted(preempted) >= 3 and counted(cancelled), "a start")
  os.kill(node_process(preempted), signal.SIGUSR2)
  assert engine.where("cancelled").split()[1] == "job"
  engine.cancel("cancelled")
  engine.cancel("cancelled")
  assert statuses(engine, 4) == {"fine": 0, "wrong": 1, "preempted": 0, "cancelled": 75}
  assert engine.free() == 5
  assert wrong.log.read_text() == "wrong\n"
  first, saved, again, done = preempted.log.read_text().splitlines()
  assert (first, done) == ("from 0", "done")
  assert saved.removeprefix("saved") == again.removeprefix("from") != " 0"
  assert not never.log.exists()


@pytest.mark.parametrize("submitit", ["slurm"], indirect=True)
def test_slurm_is_asked_for_one_array_of_what_the_settings_say(submitit, jobs, slurm):
  engine, _ = submitit
  for name in "abc":
    engine.submit(jobs(name, 1))
  assert statuses(engine, 3) == dict.fromkeys("abc", 0)
  engine.submit(jobs("d", 1))
  assert statuses(engine, 1) == {"d": 0}
  array, single = (path.read_text().splitlines() for path in sorted(slurm.glob("*.sh")))
  for option in (
    "partition=gpu",
    "array=0-2%3",
    "gpus-per-node=2",
    "cpus-per-task=4",
    "time=240",
    "signal=USR2@35",
    "account=lab",
  ):
    assert f"#SBATCH --{option}" in array
  assert not [line for line in single if "array" in line]


def test_slurm_loses_a_job_that_ends_without_a_result(submitit, jobs, monkeypatch):
  monkeypatch.setattr(slurm_engine, "_LAG", 0.5)
  engine, node_process = submitit
  job = jobs("a", 600)
  engine.submit(job)
  assert engine.ended() == []
  until(lambda: counted(job), "a start")
  os.kill(node_process(job), signal.SIGKILL)
  assert statuses(engine, 1) == {"a": None}
  until(lambda: not alive(pid_of(job)), "the end of the orphan")
  assert job.log.read_text().splitlines()[-1].startswith("saved")


@pytest.mark.parametrize("submitit", ["slurm"], indirect=True)
def test_what_slurm_cannot_do_is_a_user_error(submitit, jobs, slurm, tmp_path, monkeypatch):
  engine, _ = submitit
  blocked = tmp_path / "file"
  blocked.write_text("")
  engine.submit(jobs("a", 1)._replace(log=blocked / "a.log"))
  with pytest.raises(StorageError, match=r"could not start job a .*same path"):
    statuses(engine, 1)
  (slurm / "sbatch").write_text("#!/bin/sh\necho 'invalid partition: gpu' >&2; exit 1\n")
  engine.submit(jobs("b", 1))
  with pytest.raises(ConfigError, match=r"sbatch refuses the jobs: .*invalid partition: gpu"):
    engine.ended()
  monkeypatch.setenv("PATH", "/nowhere")
  with pytest.raises(ConfigError, match="no srun"):
    slurm_engine.Slurm(engine._settings, tmp_path)


# Ray


@pytest.fixture(scope="module")
def cluster():
  name = "ray"
  pytest.importorskip(name, reason=f"{name} is not installed (requirements-cluster.txt)")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
      cluster.add_node(num_cpus=1)
      yield cluster
    finally:
      cluster.shutdown()


@pytest.fixture
def ray(cluster):
  own = lambda *_: None  # noqa: E731
  before = signal.signal(signal.SIGTERM, own)
  engine = ray_engine.Ray(ray_engine.Settings(address=cluster.address, grace=5))
  yield engine
  engine.close()
  # Not Ray's, which would leave at once.
  assert signal.signal(signal.SIGTERM, before) is own


def test_ray_runs_and_stops_jobs_on_every_node(ray, jobs):
  assert ray.free() == 2
  wrong, running = jobs("wrong", code="import sys; sys.exit(3)"), jobs("running", 600)
  beside, waiting = jobs("beside", 600), jobs("waiting", 1)
  ray.submit(wrong)
  assert statuses(ray, 1) == {"wrong": 3}
  ray.submit(running)
  ray.submit(beside)
  until(lambda: counted(running) and counted(beside), "two jobs at a time, one on each node")
  assert ray.free() == 0
  ray.submit(waiting)
  assert ray.where("waiting") == "waiting for a node"
  assert ray.where("running") == process.place()
  for job_id in ("waiting", "running", "running", "nobody"):
    ray.cancel(job_id)
  found = statuses(ray, 2)
  assert found == {"waiting": -signal.SIGTERM, "running": 75}
  assert not waiting.log.exists()
  ray.close()
  until(lambda: not alive(pid_of(beside)), "the end of what still ran")
  assert beside.log.read_text().splitlines()[-1].startswith("saved")


def test_ray_loses_a_job_with_its_node(ray, cluster, jobs):
  first, second = jobs("first", 150), jobs("second", 150)
  for job in (first, second):
    ray.submit(job)
  until(lambda: counted(first) and counted(second), "a start")
  (node,) = cluster.worker_nodes
  ray.ended()
  (lost,) = [job for job in (first, second) if ray._tasks[job.id].started.node == node.node_id]
  kept = second if lost is first else first
  cluster.remove_node(node, allow_graceful=False)
  assert until(ray.ended, "a lost job") == [Ended(lost.id, None, process.place())]
  until(lambda: not alive(pid_of(lost)), "the end of the orphan")
  saved = counted(lost)
  assert 0 < saved < 150
  until(lambda: ray.free() == 0, "the dead node to be forgotten")
  ray.submit(lost)
  assert statuses(ray, 2) == {kept.id: 0, lost.id: 0}
  log = lost.log.read_text().splitlines()
  assert log[:1] + log[-2:] == ["from 0", f"from {saved}", "done"]


def test_an_address_without_a_cluster_is_a_user_error():
  pytest.importorskip("ray", reason="ray is not installed (requirements-cluster.txt)")
  for address in ("127.0.0.1:9", "nowhere.invalid:6379"):
    with pytest.raises(ConfigError, match=f"no Ray cluster at '{re.escape(address)}'"):
      ray_engine.Ray(ray_engine.Settings(address=address))


def test_ray_of_this_machine_alone_is_started_without_a_fork(jobs, tmp_path):
  pytest.importorskip("ray", reason="ray is not installed (requirements-cluster.txt)")
  fine, blocked = jobs("fine", 1), tmp_path / "file" / "a.log"
  blocked.parent.write_text("")
  # Another process, because Ray settles how clusters trust each other once in each; and one that
  # has computed with JAX, as a sweep's has, and must not be forked.
  code = f"""
    import pathlib, time, warnings
    import jax.numpy as jnp
    from sweeps.engines import Job
    from sweeps.engines import ray
    from training.errors import UserError
    jnp.zeros(3).sum()
    warnings.simplefilter("error")
    engine = ray.make(ray.Settings(num_cpus=0.5, maximum=3, grace=5), pathlib.Path(), 1)
    print(engine.free())
    engine.submit(Job("fine", {fine.command!r}, pathlib.Path({str(fine.log)!r})))
    engine.submit(Job("blocked", [], pathlib.Path({str(blocked)!r})))
    count = 0
    while count < 2:
      try:
        for ended in engine.ended():
          count += 1
          print(ended)
      except UserError as error:
        count += 1
        print(error)
      time.sleep(0.1)
    engine.close()
    print(engine.ended())
  """
  done = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)],
    env={**os.environ, "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=2 * PATIENCE,
  )
  assert "fork" not in done.stderr
  assert done.returncode == 0, done.stderr
  room, *ended, last = done.stdout.splitlines()
  assert (room, last) == ("3", "[]")
  fine_ended, blocked_ended = sorted(ended)
  assert fine_ended == str(Ended("fine", 0, process.place()))
  assert "could not start job blocked" in blocked_ended
  assert "Errno" in blocked_ended


# Whole sweeps


@pytest.mark.deep
def test_a_sweep_loses_nothing_with_a_ray_node(cluster, tmp_path):
  experiment, folder = sweeping.write_experiment(tmp_path), tmp_path / "sweep"
  node = cluster.add_node(num_cpus=1)
  process = sweeping.begun(
    "sweep",
    f"--config={experiment}:paper",
    f"--workdir={folder}",
    # So long that the first trial still runs when a busy machine has started the second.
    "--config.training.steps=30_000",
    "--sweep=seeds",
    "--engine=ray",
    f"--engine-option=address={cluster.address}",
    "--engine-option=grace=5",
  )
  reached = lambda: [sweeping.running_step(folder, trial) > 1000 for trial in (0, 1)]  # noqa: E731
  sweeping.until(lambda: all(reached()), "a trial on each node has saved", process)
  cluster.remove_node(node, allow_graceful=False)
  said = process.communicate(timeout=sweeping.LIMIT)[0]
  assert process.returncode == 0, said
  found = sweeping.entries(folder)
  assert [entry.state for entry in found.values()] == ["done"] * 3
  (lost,) = [entry.id for entry in found.values() if entry.attempts == 2]
  alone = sweeping.launch(
    "train",
    f"--config={experiment}:paper",
    f"--workdir={tmp_path / 'alone'}",
    "--config.training.steps=30_000",
    f"--config.seed={lost}",
  )
  assert alone.returncode == 0, alone.stderr
  rows = folder / "trials" / f"{lost:04d}" / "metrics.jsonl"
  assert rows.read_bytes() == (tmp_path / "alone" / "metrics.jsonl").read_bytes()


def test_a_sweep_goes_on_after_slurm_preempts_it(tmp_path):
  pytest.importorskip("submitit", reason="submitit is not installed (requirements-cluster.txt)")
  experiment, folder = sweeping.write_experiment(tmp_path), tmp_path / "sweep"
  process = sweeping.begun(
    "sweep",
    f"--config={experiment}:paper",
    f"--workdir={folder}",
    "--sweep=seeds",
    "--engine=slurm",
    "--engine-option=cluster=local",
    "--jobs=1",
  )
  sweeping.until(lambda: sweeping.running_step(folder, 1) > 1000, "the second trial runs", process)
  (worker,) = sweeping.workers(folder)
  parent = int(re.search(r"PPid:\s+(\d+)", pathlib.Path(f"/proc/{worker}/status").read_text())[1])
  os.kill(parent, signal.SIGUSR2)  # as SLURM warns of a preemption
  said = process.communicate(timeout=sweeping.LIMIT)[0]
  assert process.returncode == 0, said
  found = sweeping.entries(folder)
  assert [entry.state for entry in found.values()] == ["done"] * 3
  assert [entry.attempts for entry in found.values()] == [1, 2, 1]
  logs = "".join(path.read_text() for path in (folder / "jobs").glob("*.log"))
  assert "going on from step" in logs
