"""Sweeps to test with: an experiment as a user would write it, and commands begun and watched."""

import pathlib
import subprocess
import sys
import textwrap
import time

from sweeps.ledger import Ledger
from training.workdir import read_rows

ROOT = pathlib.Path(__file__).parent.parent
LIMIT = 180  # seconds after which a command is taken to hang

# An experiment of one's own, as a user would write it. Trials of 4 steps end in a fraction of a
# second once their process has started; "long" ones are for being interrupted.
EXPERIMENT = '''
"""A sweep to test with.

Paper     none.
"""
from ml_collections import ConfigDict

from sweeps.space import grid, integers, log_uniform

CLAIMS = [
  dict(name="learns", metric="elbo", split="test", relation="elbo > rival.elbo", paper="none",
       settings=[{"optimizer.learning_rate": 0.01}], rivals=[{"optimizer.learning_rate": 1e-6}],
       seeds=2, variants=("smoke",)),
  dict(name="impossible", metric="elbo", split="test", relation="elbo > 0", paper="none",
       published="1.0", seeds=2, variants=("smoke",)),
]


def get_config(variant="paper"):
  long = variant == "paper"
  return ConfigDict(dict(
    seed=0,
    model=dict(name="vae.gaussian", hidden=16, latents=2),
    task=dict(name="elbo"),
    data=dict(name="digits", batch_size=32, binarize="dynamic"),
    optimizer=dict(name="adam", learning_rate=1e-3),
    training=dict(steps=STEPS if long else 40, log_every=10, eval_every=500 if long else 20,
                  checkpoint_every=500 if long else 20, best="elbo", best_is="greatest"),
  ))


def sweep():
  return grid({"optimizer.learning_rate": (1e-3, 1e-2), "task.beta": (1.0, 2.0)})


def sweep_seeds():
  return grid({"seed": range(3)})


def sweep_twenty():
  return grid({"seed": range(10), "task.beta": (1.0, 2.0)})


def sweep_bad():
  return grid({"optimizer.learning_rate": (1e-3, 1e30, 1e-2)})


def sweep_hungry():
  return grid({"model.hidden": (16, 10**11, 8)})


def sweep_wrong():
  return grid({"model.hiden": (16, 8)})


def space_wrong():
  return {"model.latents": integers(-1, 0)}


def space():
  return {"optimizer.learning_rate": log_uniform(1e-6, 1e-2)}
'''


def write_experiment(folder):
  """The experiment as a file, in the place where experiments lie."""
  file = folder / "experiments" / "test" / "vae_digits.py"
  file.parent.mkdir(parents=True)
  file.write_text(textwrap.dedent(EXPERIMENT).replace("STEPS", "10_000"), encoding="utf-8")
  return file


def argv(*words):
  return [sys.executable, str(ROOT / "launch.py"), *map(str, words)]


def launch(*words):
  """A finished command."""
  # One device, as users of a CPU have.
  return subprocess.run(
    argv(*words), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
  )


def sweep(experiment, folder, *words, variant="smoke"):
  return launch("sweep", f"--config={experiment}:{variant}", f"--workdir={folder}", *words)


def begun(*words):
  return subprocess.Popen(
    argv(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )


def until(condition, what, process=None):
  """Waits for something, that a command brings about which would not end before."""
  deadline = time.monotonic() + LIMIT
  while not condition():
    assert process is None or process.poll() is None, process.communicate()[0]
    assert time.monotonic() < deadline, f"waited in vain until {what}"
    time.sleep(0.05)


def entries(folder):
  return {entry.id: entry for entry in Ledger(folder).entries()}


def states(folder):
  return [entry.state for entry in entries(folder).values()]


def workers(folder):
  """Processes of this machine that work on a sweep."""
  found = []
  for place in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      words = (place / "cmdline").read_bytes().split(b"\0")
    except OSError:
      continue
    if b"work" in words and f"--workdir={folder}".encode() in words:
      found.append(int(place.name))
  return found


def running_step(folder, trial):
  """How far a running trial has come."""
  entry = entries(folder)[trial] if (folder / "trials").exists() and entries(folder) else None
  if entry is None or entry.state != "running":
    return 0
  rows = read_rows(folder / "trials" / f"{trial:04d}" / "metrics.jsonl")
  return rows[-1]["step"] if rows else 0
