"""Runs that differ in numbers and seed alone share one program, one after another or at once."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from sweeps import worker
from sweeps.ledger import Ledger
from training import checkpoint, config, run
from training.build import build
from training.errors import Interrupted, NumericsError
from training.initial import order_seed
from training.loop import Stop
from training.machine import Machine, Machines
from training.parallel import to_host
from training.workdir import Workdir, read_rows

VAE = "experiments/vae/gaussian_digits.py:smoke"
GAN = "experiments/gan/mlp_digits.py:smoke"
RESNET = "experiments/convnet/resnet_digits.py:smoke"
STACKED = "experiments/autoencoder/stacked_digits.py:smoke"
CASES = {
  "vae": (
    VAE,
    [
      {"task.beta": 0.5, "optimizer.learning_rate": 1e-3, "seed": 3},
      {"task.beta": 4.0, "optimizer.learning_rate": 3e-3, "seed": 3},
      {"task.beta": 1.0, "optimizer.learning_rate": 1e-2, "seed": 4},
      {"task.beta": 1.0, "optimizer.b1": 0.5, "seed": 5},
    ],
  ),
  "gan": (
    GAN,
    [
      {"model.hidden_dropout": 0.3, "seed": 1},
      {"model.input_dropout": 0.4, "optimizer.learning_rate": 1e-3},
      {"optimizer.b2": 0.9, "seed": 2},
    ],
  ),
  "resnet": (
    RESNET,
    [
      {"optimizer.weight_decay": 1e-2, "training.mesh.data": 1},
      {"optimizer.momentum": 0.5, "training.mesh.data": 1},
    ],
  ),
  "stacked": (STACKED, [{"seed": 1}, {"seed": 2}]),
}


def experiments(case, **more):
  path, trials = CASES[case]
  found = config.load(path)
  more = {key.replace("__", "."): value for key, value in more.items()}
  return [
    build(config.override(found, [(k, str(v)) for k, v in {**trial, **more}.items()]))
    for trial in trials
  ]


def fit(found, paths, machines, stop=None):
  workdirs = [Workdir(path) for path in paths]
  try:
    with Stop() as heard:
      runs = [run.Run(e, w, []) for e, w in zip(found, workdirs, strict=True)]
      return run.fit(runs, machines, stop=stop or heard)
  finally:
    for workdir in workdirs:
      workdir.close()


def bits(state):
  return {name: checkpoint.fingerprint(leaf) for name, leaf in checkpoint.leaves(to_host(state))}


def cases(*every):
  """All of them, of which those that are not named take `-m deep`."""
  deep = lambda case: [] if case in every else [pytest.mark.deep]  # noqa: E731
  return pytest.mark.parametrize("case", [pytest.param(c, marks=deep(c)) for c in CASES])


@cases("vae", "gan")
def test_one_after_another_is_bit_identical_to_alone(case, tmp_path):
  found = experiments(case)
  assert len({experiment.structure for experiment in found}) == 1
  shared = Machines()
  for i, experiment in enumerate(found):
    alone, _, _ = fit([experiment], [tmp_path / f"alone{i}"], Machines())
    here, _, _ = fit([experiment], [tmp_path / f"here{i}"], shared)
    assert bits(alone) == bits(here)
    rows = [(tmp_path / f"{way}{i}" / "metrics.jsonl").read_bytes() for way in ("alone", "here")]
    assert rows[0] == rows[1]
  assert len(shared) == len(found[0].stages)


def test_numbers_reach_the_compiled_step(tmp_path):
  """A program whose numbers were baked in would train every member as the first."""
  shared = Machines()
  found = experiments("vae", seed=0, optimizer__learning_rate=1e-3, optimizer__b1=0.9)
  losses = []
  for i, experiment in enumerate(found[:3]):
    fit([experiment], [tmp_path / str(i)], shared)
    rows = read_rows(tmp_path / str(i) / "metrics.jsonl")
    (row,) = [r for r in rows if r["step"] == 1 and r["split"] == "train"]
    assert row["loss"] == pytest.approx(
      row["reconstruction"] + (0.5, 4.0, 1.0)[i] * row["kl"], rel=1e-6
    )
    losses.append(row["loss"])
  assert len(set(losses)) == 3


@cases("vae", "stacked")
def test_at_once_equals_alone(case, tmp_path):
  found = experiments(case)
  fit(found, [tmp_path / f"at_once{i}" for i in range(len(found))], Machines(len(found)))
  for i, experiment in enumerate(found):
    fit([experiment], [tmp_path / f"alone{i}"], Machines())
    alone, at_once = (
      read_rows(tmp_path / f"{way}{i}" / "metrics.jsonl") for way in ("alone", "at_once")
    )
    assert len(alone) == len(at_once) >= 4
    for a, b in zip(alone, at_once, strict=True):
      assert a.keys() == b.keys()
      for name, value in a.items():
        assert b[name] == (value if name in ("split", "stage") else pytest.approx(value, rel=1e-5))


def test_a_member_whose_loss_is_not_finite_leaves_the_others_alone(tmp_path):
  most = ("training.most_rejected", "2")
  found = [build(config.override(config.load(VAE), [("seed", n), most])) for n in "01"]
  wild = build(config.override(config.load(VAE), [("optimizer.learning_rate", "1e30"), most]))
  _, _, errors = fit(
    [found[0], wild, found[1]], [tmp_path / "a", tmp_path / "wild", tmp_path / "b"], Machines(3)
  )
  assert errors[0] is None
  assert errors[2] is None
  assert isinstance(errors[1], NumericsError)
  assert "wild" in str(errors[1])
  fit([found[0]], [tmp_path / "alone"], Machines())
  alone, here = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("alone", "a"))
  assert here[-1]["loss"] == pytest.approx(alone[-1]["loss"], rel=1e-5)
  last = read_rows(tmp_path / "wild" / "metrics.jsonl")
  # A row whose steps were all rejected has no loss.
  losses = [row["loss"] for row in last if row["split"] == "train" and "loss" in row]
  assert np.isfinite(losses).all()


class StopAfter:
  """Asks for a stop the `count`-th time that the loop looks."""

  def __init__(self, count):
    self.left = count

  @property
  def requested(self):
    self.left -= 1
    return self.left < 0


def test_a_population_resumes_together(tmp_path):
  found = experiments("vae")
  names = [str(i) for i in range(len(found))]
  whole, _, _ = fit(found, [tmp_path / "whole" / n for n in names], Machines(len(found)))
  parts = [tmp_path / "parts" / n for n in names]
  with pytest.raises(Interrupted):
    fit(found, parts, Machines(len(found)), stop=StopAfter(2))
  resumed, _, _ = fit(found, parts, Machines(len(found)))
  assert bits(whole) == bits(resumed)
  for name in names:
    rows = [(tmp_path / way / name / "metrics.jsonl").read_bytes() for way in ("whole", "parts")]
    assert rows[0] == rows[1]


def test_runs_at_different_steps_are_not_trained_together(tmp_path):
  found = experiments("vae")[:2]
  fit([found[0]], [tmp_path / "ahead"], Machines())
  with pytest.raises(run.Uneven):
    fit(found, [tmp_path / "ahead", tmp_path / "behind"], Machines(2))


@pytest.mark.parametrize(
  ("change", "same"),
  [
    ({"task.beta": 3.0}, True),
    ({"optimizer.learning_rate": 0.5}, True),
    ({"seed": 7}, True),
    ({"task.beta": 0.0}, False),  # off is another program
    ({"optimizer.clip_norm": 1.0}, False),
    ({"model.latents": 3}, False),
    ({"optimizer.schedule": "constant"}, False),
    ({"optimizer.name": "sgd"}, False),
    ({"data.batch_size": 50}, False),
    ({"training.steps": 5}, False),
  ],
)
def test_what_shares_a_program(change, same):
  default = build(config.load(VAE))
  changed = build(config.override(config.load(VAE), [(k, str(v)) for k, v in change.items()]))
  assert (default.structure == changed.structure) is same


def test_numbers_of_each_phase_are_its_own():
  found = config.override(
    config.load(GAN), [("optimizer.per_phase.generator.learning_rate", "0.004")]
  )
  numbers = build(found).stages[0].numbers
  assert numbers["optimizer.generator.learning_rate"] == np.float32(0.004)
  assert numbers["optimizer.discriminator.learning_rate"] == np.float32(2e-4)
  assert json.dumps(sorted(numbers))  # plain names
  assert "optimizer.generator.weight_decay" not in numbers  # 0 switches it off


def test_a_population_is_split_over_devices():
  from training.parallel import Population

  assert len(Population(8).devices) == 4
  assert len(Population(6).devices) == 3
  assert len(Population(5).devices) == 1
  assert len(Population(5, jax.devices()[:2]).devices) == 1


@pytest.mark.parametrize("members", [0, 3])
def test_a_step_can_be_timed(members):
  found = experiments("vae")[:3]
  stages = [experiment.stages[0] for experiment in found]
  machine = Machines(members).of(stages[0])
  assert 0 < machine.seconds(stages[: max(members, 1)]) < 60


def test_the_same_command_twice_gives_the_same_bits(tmp_path):
  """In two processes, as a user would."""
  root = pathlib.Path(__file__).parent.parent
  found = []
  for name in ("first", "second"):
    command = [sys.executable, "launch.py", "train", f"--config={GAN}", "--deterministic"]
    subprocess.run(
      [*command, f"--workdir={tmp_path / name}"],
      cwd=root,
      check=True,
      capture_output=True,
      timeout=300,
    )
    environment = json.loads((tmp_path / name / "environment.json").read_text())
    assert "--xla_gpu_deterministic_ops=true" in environment["flags"]
    files = ("metrics.jsonl", "evaluation.json")
    found.append([(tmp_path / name / file).read_bytes() for file in files])
  assert found[0] == found[1]


def test_on_an_accelerator_a_measurement_decides(tmp_path, monkeypatch, capsys):
  ledger = Ledger(tmp_path)
  base = config.load(VAE).to_dict()
  ledger.ask(
    dict(
      config=base,
      metric="elbo",
      split="validation",
      command=[],
      title="",
      track=[],
      population="auto",
    )
  )
  found = experiments("vae")[:3]
  of_ours = worker.Worker(ledger, "job")
  assert not of_ours._at_once(found)  # a CPU, unasked
  monkeypatch.setattr(worker, "_accelerated", lambda: True)
  of_ours._at_once(found)
  assert "3 trials at once" in capsys.readouterr().out
  for together, chosen in ((2.9, True), (3.1, False)):
    monkeypatch.setattr(
      Machine, "seconds", lambda self, stages, t=together: 1.0 if len(stages) == 1 else t
    )
    assert of_ours._at_once(found) is chosen


def test_every_seed_and_stage_has_an_order_of_its_own():
  found = experiments("stacked")
  orders = {order_seed(run.stage_key(e, i)) for e in found for i in range(len(e.stages))}
  assert len(orders) == len(found) * len(found[0].stages)
  assert orders == {order_seed(run.stage_key(e, i)) for e in found for i in range(len(e.stages))}
