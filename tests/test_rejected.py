"""A step whose loss or gradient is not finite changes nothing, and is counted."""

import copy
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks.objective import Mean
from training import checkpoint, config, look, optim, parallel, run
from training import step as steps
from training.build import build
from training.checkpoint import Checkpoints
from training.errors import NumericsError
from training.loop import Stop
from training.machine import Machine, Machines
from training.parallel import to_host
from training.workdir import Workdir, read_rows

SEAMS = {
  "vae": "experiments/vae/gaussian_digits.py",
  "gan": "experiments/gan/mlp_digits.py",
  "resnet": "experiments/convnet/resnet_digits.py",
  "gpt": "experiments/gpt/gpt_kjv.py",
}


class Poisoned:
  """An objective whose losses, from the `first` on, are not numbers at some steps.

  Their gradients are not either.
  """

  def __init__(self, task, at, value=np.nan, first=0):
    self.__dict__.update(task=task, at=tuple(at), value=value, first=first)

  def __getattr__(self, name):
    if name.startswith("__"):
      raise AttributeError(name)
    return getattr(self.task, name)

  def __copy__(self):
    return Poisoned(copy.copy(self.task), self.at, self.value, self.first)

  def phases(self, model):
    phases = self.task.phases(model)
    poisoned = (phase._replace(loss=self.poison(phase.loss)) for phase in phases[self.first :])
    return (*phases[: self.first], *poisoned)

  def poison(self, loss):
    def poisoned(params, state, batch, rng):
      found, rest = loss(params, state, batch, rng)
      bad = jnp.isin(batch["step"][0], jnp.asarray(self.at, jnp.int32))
      return Mean(found.total * jnp.where(bad, jnp.float32(self.value), 1.0), found.count), rest

    return poisoned


def experiment(seam="vae", at=(), value=np.nan, first=0, **more):
  overrides = {"training.steps": 8, "training.log_every": 2, "training.eval_every": 0}
  overrides |= {"training.checkpoint_every": 4, "training.keep": 6, **more}
  pairs = [(key, str(value)) for key, value in overrides.items()]
  found = build(config.override(config.load(f"{SEAMS[seam]}:smoke"), pairs))
  for stage in found.stages:
    stage.training.mesh["data"] = 1
  if at:
    stages = [
      stage._replace(
        task=Poisoned(stage.task, at, value, first), structure=f"{stage.structure} {at}"
      )
      for stage in found.stages
    ]
    found = found._replace(stages=tuple(stages))
  return found


def fit(found, path):
  workdir = Workdir(path)
  try:
    with Stop() as stop:
      return run.fit([run.Run(found, workdir, ["test"])], Machines(), stop=stop)[0]
  finally:
    workdir.close()


def bits(tree):
  return {name: checkpoint.fingerprint(leaf) for name, leaf in checkpoint.leaves(to_host(tree))}


def states(found, count):
  """The state before each of a stage's first steps, and after the last of them."""
  stage = found.stages[0]
  machine = Machine(stage, parallel.Mesh(devices=jax.devices()[:1]))
  numbers = machine.parallel.join([stage.numbers])
  state = machine.initial([run.stage_key(found, 0)], None)
  train = stage.source.split("train")
  yield jax.tree.map(jnp.copy, state)
  for step in range(count):
    rows = np.arange(stage.program.examples) + step
    feed = rows if train.arrays is not None else train.take(rows)
    state = machine.trainer(state, [feed], numbers)
    yield jax.tree.map(jnp.copy, state)


@pytest.mark.parametrize(
  ("seam", "value"), [*((seam, np.nan) for seam in SEAMS), ("vae", np.inf), ("vae", -np.inf)]
)
def test_a_poisoned_step_changes_nothing_but_its_count(seam, value):
  found = experiment(seam, at=(2,), value=value, **{"training.ema_decay": 0.5})
  before, after = list(states(found, 3))[2:]
  assert int(after.step) == int(before.step) + 1 == 3
  assert (int(after.rejected.running), int(after.rejected.total)) == (1, 1)
  untouched = before.replace(step=after.step, rejected=after.rejected)
  assert bits(after) == bits(untouched)


def test_an_update_before_the_poisoned_one_is_undone():
  before, after = list(states(experiment("gan", at=(2,), first=1), 3))[2:]
  assert int(after.rejected.total) == 1
  assert bits(after.params) == bits(before.params)
  assert bits(after.optimizer) == bits(before.optimizer)


def test_a_select_rejects_as_a_branch_does(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  taken, before, after = list(states(experiment(at=(2,), **{"training.ema_decay": 0.5}), 3))[1:]
  assert bits(taken.params) != bits(before.params)
  assert int(after.rejected.total) == 1
  assert bits(after) == bits(before.replace(step=after.step, rejected=after.rejected))


@pytest.mark.parametrize("name", sorted(optim.NAMES))
def test_every_optimizer_is_left_as_it_was(name):
  found = experiment(at=(1,), **{"optimizer": f"{{'name': '{name}', 'learning_rate': 1e-3}}"})
  before, after = list(states(found, 2))[1:]
  assert bits(before.optimizer) == bits(after.optimizer)
  assert bits(before.params) == bits(after.params)


def test_the_run_goes_on_and_says_how_many(tmp_path, capsys):
  state = fit(experiment(at=(2, 3, 6)), tmp_path)
  assert int(state.step) == 8
  rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if row["split"] == "train"]
  assert [row["step"] for row in rows] == [2, 4, 6, 8]
  assert ["loss" in row for row in rows] == [True, False, True, True]
  assert [row.get("rejected", 0) for row in rows] == [0, 2, 2, 3]
  said = capsys.readouterr().err
  assert "rejected 2 steps up to step 4" in said
  assert "rejected 1 step up to step 8" in said


@pytest.mark.parametrize("every", [1, 2, 4])
def test_steps_rejected_in_a_row_end_the_run_where_the_last_of_them_is(tmp_path, every):
  settings = {"training.most_rejected": 3, "training.log_every": every}
  found = experiment(at=range(3, 8), **settings)
  with pytest.raises(NumericsError, match=r"3 steps in a row .* up to step 6") as ended:
    fit(found, tmp_path)
  assert ended.value.status == 6
  kept = Checkpoints(tmp_path / "checkpoints")
  assert kept.steps()[0] == 6
  machine = Machine(found.stages[0], parallel.Mesh(devices=jax.devices()[:1]))
  state = kept.restore(6, machine.abstract)
  kept.close()
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(to_host(state.params)))
  # What is kept is what the third step left, though it stands at the sixth.
  third = state_after(3, tmp_path / "healthy", settings)
  assert bits(state.params) == bits(third.params)
  assert bits(state.optimizer) == bits(third.optimizer)


def state_after(count, path, settings):
  """The state after `count` steps of a run that nothing poisons.

  Of the same program as one that is poisoned: another is rounded otherwise.
  """
  found = experiment(at=range(103, 108), **settings, **{"training.checkpoint_every": 1})
  fit(found, path)
  kept = Checkpoints(path / "checkpoints")
  machine = Machine(found.stages[0], parallel.Mesh(devices=jax.devices()[:1]))
  try:
    return kept.restore(count, machine.abstract)
  finally:
    kept.close()


def test_the_same_command_tries_again(tmp_path):
  found = experiment(at=range(3, 8), **{"training.most_rejected": 2, "training.steps": 12})
  for last in (5, 7):
    with pytest.raises(NumericsError, match=f"up to step {last}"):
      fit(found, tmp_path)
  state = fit(found, tmp_path)
  assert (int(state.step), int(state.rejected.total)) == (12, 5)


def test_a_gradient_over_the_limit_is_rejected_alike(tmp_path):
  spike = experiment(at=(3,), value=1e6, **{"training.largest_gradient": 1e4})
  state = fit(spike, tmp_path)
  assert int(state.rejected.total) == 1
  assert int(fit(experiment(at=(3,), value=1e6), tmp_path / "off").rejected.total) == 0


def test_an_update_whose_squares_overflow_is_rejected():
  state = list(states(experiment(at=(1,), value=1e30), 2))[-1]
  assert int(state.rejected.total) == 1
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(to_host(state.optimizer)))


def test_an_interruption_between_rejected_steps_changes_no_bit(tmp_path):
  whole = fit(experiment(at=(2, 3, 5)), tmp_path / "whole")
  fit(experiment(at=(2, 3, 5)), tmp_path / "other")
  shutil.rmtree(tmp_path / "other/checkpoints/latest/8")
  again = fit(experiment(at=(2, 3, 5)), tmp_path / "other")
  assert bits(again) == bits(whole)
  text = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "other")]
  assert text[0] == text[1]


def test_a_statistic_that_is_not_finite_is_one_too():
  loss, grads = Mean(jnp.float32(1), jnp.float32(1)), {"w": jnp.ones(3)}
  assert steps._sound(loss, grads, {"batch_stats": jnp.ones(2)}, 0.0)
  assert not steps._sound(loss, grads, {"batch_stats": jnp.array([1.0, jnp.inf])}, 0.0)


def test_a_set_that_cannot_be_scored_ends_in_a_line(tmp_path, monkeypatch):
  found = experiment(**{"training.steps": 2})
  state = fit(found, tmp_path)
  machine = Machines().of(found.stages[0])
  broken = state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
  with pytest.raises(NumericsError, match="cannot be scored") as ended:
    look.measure(machine, broken, list(found.stages))
  assert ended.value.status == 6
