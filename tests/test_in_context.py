"""Functions that are read off examples: the sequences, and what is measured of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data import functions
from models.layers.sequence import Prediction
from tasks import in_context


def seen(data, name="train", rows=200, seed=0):
  stored = data.split(name).take(np.arange(rows) % len(data.split(name)))
  keys = jax.random.split(jax.random.key(seed), rows)
  return {k: np.asarray(v) for k, v in data.transform(stored, keys, train=True).items()}


@pytest.mark.parametrize("kind", ["affine", "tables"])
def test_values_are_the_functions(kind):
  data = functions.Source(functions=kind, arguments=5, examples=6, tables=50, test_examples=20)
  batch = seen(data)
  arguments, values = batch["tokens"][:, ::2], batch["tokens"][:, 1::2]
  assert arguments.min() == 0
  assert arguments.max() == 4
  np.testing.assert_array_equal(values - 5, np.take_along_axis(batch["table"], arguments, 1))
  assert data.facts() == {"vocabulary": 10, "length": 11}
  # What is scored are the values, as targets.
  targets = batch["tokens"][:, 1:]
  assert (targets[batch["scored"] > 0] >= 5).all()
  assert (targets[batch["scored"] == 0] < 5).all()
  for row, repeated in zip(arguments, batch["repeated"], strict=True):
    assert list(repeated) == [int(x in row[:k]) for k, x in enumerate(row)]
  # Arguments are drawn afresh.
  assert (seen(data, seed=1)["tokens"] != batch["tokens"]).any()


def test_affine_functions_are_all_of_them_and_two_examples_tell():
  pools = functions.Source(arguments=7, test=0.2, validation=0.1).pools
  tables = np.concatenate(list(pools.values()))
  assert len(np.unique(tables, axis=0)) == len(tables) == 7 * 6
  assert {name: len(pool) for name, pool in pools.items()} == {
    "test": 8,
    "validation": 4,
    "train": 30,
  }
  for i in range(7):
    for j in range(i):
      assert len(np.unique(tables[:, [i, j]], axis=0)) == len(tables)


@pytest.mark.parametrize("kind", ["affine", "tables"])
def test_held_out_functions_are_never_trained_on(kind):
  data = functions.Source(functions=kind, arguments=3, tables=500, validation=0.2)
  rows = {name: {tuple(t) for t in data.split(name).arrays["table"]} for name in data.pools}
  assert not rows["train"] & rows["test"]
  assert not rows["train"] & rows["validation"]
  assert not rows["test"] & rows["validation"]
  assert len(functions.Source(train_functions=4).pools["train"]) == 4
  with pytest.raises(ValueError, match="too few"):
    functions.Source(arguments=2, test=0.9).pools["train"]


def test_accuracy_is_told_by_what_came_before():
  data = functions.Source(arguments=5, examples=6)
  batch = {k: jnp.asarray(v) for k, v in seen(data, rows=300).items()}
  mask = jnp.asarray(np.arange(300) < 290, jnp.float32)
  # Whoever copies the value of an argument that has occurred, and says value 0 otherwise.
  tokens, repeated = np.asarray(batch["tokens"]), np.asarray(batch["repeated"])
  said = np.where(repeated > 0, tokens[:, 1::2], 5)
  logits = np.zeros((300, 11, 10), np.float32)
  logits[:, ::2] = 5.0 * np.eye(10)[said]
  out = Prediction(jnp.asarray(logits), jnp.zeros(()))
  found = in_context.Task()._measured(out, {**batch, "mask": mask})
  mean = {name: float(m.total / m.count) for name, m in found.items()}
  right = (said == tokens[:, 1::2])[:290]
  assert mean["accuracy"] == pytest.approx(right.mean(), rel=1e-5)
  assert mean["accuracy_first"] == pytest.approx(right[:, 0].mean(), rel=1e-5)
  assert mean["accuracy_last"] == pytest.approx(right[:, -1].mean(), rel=1e-5)
  late = np.arange(6) >= 3
  new = (repeated[:290] == 0) & late
  assert mean["accuracy_new"] == pytest.approx(right[new].mean(), rel=1e-5)
  assert mean["accuracy_repeated"] == 1.0
  assert mean["accuracy_last"] > mean["accuracy_first"]
  assert float(found["nll"].count) == 290 * 6
