"""Adapters of low rank: what they add, what is trained, what is saved, what is handed on."""

import copy
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import close
from test_resume import bits, fit, one_device

from models.transformer import gpt
from models.transformer.published import GPT
from training import config
from training.build import build
from training.checkpoint import Checkpoints, Corrupt
from training.errors import ConfigError
from training.initial import handed_on
from training.lora import Lora, adapted, merged
from training.machine import Machines

TOKENS = np.random.default_rng(0).integers(0, 19, (2, 7), np.int32)
EVERYTHING = Lora(
  rank=2,
  alpha=6.0,
  targets=("*/query/kernel", "*/output/kernel", "*/mlp/*/kernel", "embedding"),
)


def tiny(**changes):
  sizes = dict(layers=3, features=8, heads=2, dropout=0.0, attention_dropout=0.0)
  return gpt.Model(19, 12, **(sizes | changes))


def moved(params, seed=1):
  """Parameters away from where they began, so that adapters add something."""
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  noise = [0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
  return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


def created(model):
  return model.init({"params": jax.random.key(0)}, TOKENS)["params"]


@pytest.mark.parametrize(
  ("size", "rank", "count"),
  [
    ("gpt3-175b", 4, 18_874_368),  # section 4.2: 18M, 35 MB of the 350 GB
    ("gpt2-medium", 4, 393_216),
    ("gpt2-large", 4, 737_280),
  ],
)
def test_counts_of_the_paper(size, rank, count):
  model = adapted(gpt.Model(**GPT[size]), Lora(rank=rank))
  shapes = jax.eval_shape(lambda: created(model))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes["lora"])) == count


def test_adapters_begin_as_nothing_and_change_the_rest_of_nothing():
  model, plain = adapted(tiny(), EVERYTHING), tiny()
  params, own = created(model), created(plain)
  base = {name: tree for name, tree in params.items() if name != "lora"}
  jax.tree.map(np.testing.assert_array_equal, base, own)
  found, wanted = (m.apply({"params": p}, TOKENS) for m, p in ((model, params), (plain, own)))
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_merged_model_is_the_adapted_one_without_adapters():
  model = adapted(tiny(), EVERYTHING)
  params = moved(created(model))
  whole = merged(model, params)
  assert "lora" not in whole
  found = model.apply({"params": params}, TOKENS).logits
  np.testing.assert_array_equal(found, tiny().apply({"params": whole}, TOKENS).logits)
  # The base lies beside the adapters untouched, so taking them off again is exact.
  base = {name: tree for name, tree in params.items() if name != "lora"}
  assert not np.allclose(found, tiny().apply({"params": base}, TOKENS).logits)


def test_the_product_is_the_papers():
  """h = W x + (alpha / r) B A x, kernels seen as matrices [in, out]."""
  model = adapted(tiny(layers=1), EVERYTHING)
  params = moved(created(model))
  whole = merged(model, params)
  layer = lambda tree, *path: jax.tree.map(lambda x: np.float64(x[0]), _at(tree, *path))  # noqa: E731
  x = np.random.default_rng(2).normal(size=(5, 8))
  for name, columns in (("query", (8, 8)), ("output", (8, 8))):
    path = "decoder_layers", "attention", name, "kernel"
    pair = layer(params["lora"], *path)
    h = x @ layer(params, *path).reshape(columns) + 6 / 2 * (x @ pair["a"] @ pair["b"])
    close(x @ layer(whole, *path).reshape(columns), h)


def _at(tree, *path):
  for name in path:
    tree = tree[name]
  return tree


def test_adapted_kernels_keep_the_rank():
  model = adapted(tiny(), EVERYTHING)
  params = moved(created(model))
  change = jax.tree.map(
    jnp.subtract, merged(model, params), {k: v for k, v in params.items() if k != "lora"}
  )
  up = change["decoder_layers"]["mlp"]["up"]["kernel"]
  assert np.linalg.matrix_rank(up, tol=1e-5).tolist() == [2, 2, 2]
  assert not any(np.any(x) for x in jax.tree.leaves(change["decoder_layers"]["mlp_norm"]))


def masked(lora=None, **training):
  found = config.load("experiments/transformer/masked_kjv.py:smoke").to_dict()
  found["training"] |= training
  if lora is not None:
    found["model"]["lora"] = lora
  return found


LORA = dict(rank=2, targets=("*/query/kernel", "*/value/kernel"), trains=("final_norm",))


def abstract(found):
  return Machines().of(found.stages[0]).abstract


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp("lora")
  settings = dict(steps=4, checkpoint_every=1, keep=6, ema_decay=0.5)
  found = one_device(build(masked(LORA, **settings)))
  state, _, _ = fit(found, path)
  return found, path, state


def test_only_adapters_and_what_is_named_are_trained(trained, tmp_path):
  found, _, state = trained
  first, _, _ = fit(one_device(build(masked(LORA, steps=1))), tmp_path / "first")
  changed = {
    name
    for name, tree in state.params.items()
    if any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (tree, first.params[name]))))  # noqa: B905
  }
  assert changed == {"lora", "final_norm"}
  count = sum(x.size for x in jax.tree.leaves(state.optimizer) if x.ndim)
  own = sum(x.size for name in changed for x in jax.tree.leaves(state.params[name]))
  assert count == 2 * own  # Adam's moments


def test_steps_hold_adapters_and_the_base_is_saved_once(trained):
  found, path, state = trained
  kept = {}
  for step in (1, 4):
    file = next((path / "checkpoints/latest" / str(step) / "manifest").glob("*"))
    leaves = json.loads(file.read_text())["leaves"]
    kept[step] = {name.split("/")[1] for name in leaves if name.startswith(("params", "ema"))}
  assert kept == {1: {"lora", "final_norm"}, 4: {"lora", "final_norm"}}
  assert [p.name for p in (path / "checkpoints/frozen").iterdir() if p.is_dir()] == ["0"]
  checkpoints = Checkpoints(path / "checkpoints")
  try:
    assert bits(checkpoints.restore(4, abstract(found))) == bits(state)
  finally:
    checkpoints.close()


def test_resuming_from_every_step_gives_the_same_bits(trained, tmp_path):
  found, path, state = trained
  for step in (1, 3):
    other = tmp_path / str(step)
    shutil.copytree(path, other)
    for later in range(step + 1, 5):
      shutil.rmtree(other / "checkpoints/latest" / str(later))
    again, _, _ = fit(found, other)
    assert bits(again) == bits(state)


def test_a_base_that_was_exchanged_is_noticed(trained, tmp_path):
  found, path, _ = trained
  other, another = tmp_path / "one", tmp_path / "two"
  shutil.copytree(path, other)
  settings = dict(steps=1, checkpoint_every=1)
  fit(one_device(build(masked(LORA, **settings) | {"seed": 7})), another)
  shutil.rmtree(other / "checkpoints/frozen")
  shutil.copytree(another / "checkpoints/frozen", other / "checkpoints/frozen")
  checkpoints = Checkpoints(other / "checkpoints")
  try:
    with pytest.raises(Corrupt, match="not what it was saved with"):
      checkpoints.restore(4, abstract(found))
  finally:
    checkpoints.close()


def test_a_stage_hands_on_what_its_adapters_made(tmp_path):
  found = masked(LORA)
  second = copy.deepcopy(found)
  del second["model"]["lora"]
  shared = {"seed": found.pop("seed")}
  second.pop("seed")
  whole = build(shared | {"stages": [dict(found, name="one"), dict(second, name="two")]})
  first = one_device(build(shared | found))
  state, machine, _ = fit(first, tmp_path / "first")
  before = handed_on(first.stages[0], state)
  assert "lora" not in before.params
  query = before.params["encoder_layers"]["attention"]["query"]["kernel"]
  assert np.any(query != state.weights["encoder_layers"]["attention"]["query"]["kernel"])
  after, _, _ = fit(one_device(whole), tmp_path / "both")
  assert "lora" not in after.params


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(targets=("*/queri/kernel",)), "names no parameter"),
    (dict(targets=("output_bias",)), "is no matrix"),
    (dict(trains=("head",)), "is no group"),
    (dict(rank=0), "config.model.lora.rank"),
    (dict(rnak=2), "rank"),
  ],
)
def test_what_cannot_be_adapted_is_refused(changes, said, tmp_path):
  with pytest.raises(ConfigError, match=said):
    fit(build(masked(LORA | changes)), tmp_path)


def test_a_task_with_parts_of_its_own_takes_no_adapters():
  found = config.load("experiments/gan/mlp_digits.py:smoke").to_dict()
  found["model"]["lora"] = dict(targets=("*/kernel",))
  with pytest.raises(ConfigError, match=r"model\.lora"):
    build(found)
