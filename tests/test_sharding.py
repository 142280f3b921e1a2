"""Layers split over devices: the same losses, little communication, nothing laid out whole."""

import functools
import json
import re
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest
from conftest import ROOT

from data import source as sources
from training import parallel, sharding, step
from training.build import build
from training.errors import ConfigError
from training.initial import initial_state

LAYERS, FEATURES = 3, 32
MESHES = {
  "data": (4, 1, 1),
  "fsdp": (1, 4, 1),
  "model": (1, 1, 4),
  "data and model": (2, 1, 2),
  "fsdp and model": (1, 2, 2),
}
CONFIG = {
  "model": {
    "name": "transformer.gpt",
    "layers": LAYERS,
    "features": FEATURES,
    "heads": 4,
    "unroll": 1,  # a loop over layers, as on accelerators
    "dropout": 0.1,  # noise belongs to the example and its place, not to the device
    "attention_dropout": 0.0,
  },
  "task": {"name": "language_model"},
  "data": {
    "name": "strings:sort",
    "form": "stream",
    "maximum": 5,
    "symbols": 20,  # with <bos>, <eos>, <unk> and = a vocabulary of 24, which 4 divides
    "train_examples": 64,
    "test_examples": 8,
    "batch_size": 16,
  },
  "optimizer": {"name": "adamw", "learning_rate": 1e-2, "weight_decay": 0.1, "clip_norm": 1.0},
  "training": {"steps": 100, "parallel": "jit"},
}


def stage_of(**model):
  config = json.loads(json.dumps(CONFIG))
  config["model"] |= model
  (stage,) = build(ml_collections.ConfigDict(config)).stages
  return stage


def losses(stage, mesh, count=4):
  """The loss of each of the first steps on a mesh (data, fsdp, model)."""
  way = parallel.Mesh(*mesh)
  state = way.initialise(initial_state(stage), jax.random.key(0), None)
  train = stage.source.split("train")
  trainer = way.trainer(stage, state, resident=None)
  zeros, found = step.zeros(state.metrics), []
  for i in range(count):
    rows = sources.rows(0, i, examples=len(train), batch_size=stage.program.examples)
    state = trainer(state, [train.take(rows)])
    loss = state.metrics["loss"]
    found.append(float(loss.total) / float(loss.count))
    state = state.replace(metrics=zeros)
  return found


@functools.cache
def compiled(mesh, **model):
  """The text of the step that XLA compiles for a mesh, and the shapes of its activations."""
  stage = stage_of(**model)
  way = parallel.Mesh(*mesh)
  shapes = way.abstract(initial_state(stage), jax.random.key(0), None)
  numbers = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), stage.numbers)
  stored = {
    name: jax.ShapeDtypeStruct((stage.program.examples, *leaf.shape), leaf.dtype)
    for name, leaf in stage.source.spec().items()
  }

  def one(state, numbers, stored, *, offset, shards):
    return step.train_step(state, stored, stage.at(numbers).program, first=offset, shards=shards)

  step_ = way._compile_step(one, shapes, resident=False, fused=False)
  return step_.lower(shapes, numbers, stored).compile().as_text(), stage.model


_OPERATION = re.compile(
  r" = (?P<result>\S.*?) "
  r"(?P<kind>all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\("
)


def collectives(text):
  """[(computation, kind, shapes of the results)] of a compiled program."""
  found, computation = [], ""
  for line in text.splitlines():
    if line.endswith("{") and not line.startswith(" "):
      computation = line.removeprefix("ENTRY ").split(" ")[0]
    if match := _OPERATION.search(line):
      shapes = re.findall(r"[a-z]\w*\[([\d,]*)\]", match["result"])
      shapes = [tuple(int(n) for n in s.split(",") if n) for s in shapes]
      found.append((computation, match["kind"], shapes))
  return found


@functools.cache
def alone():
  return losses(stage_of(), (1, 1, 1))


@pytest.mark.parametrize("mesh", MESHES)
def test_losses_do_not_depend_on_the_mesh(mesh):
  np.testing.assert_allclose(losses(stage_of(), MESHES[mesh]), alone(), rtol=1e-5)
  assert alone()[-1] < alone()[0]


def test_grouped_queries_and_gated_layers_are_split_too():
  llama = dict(
    name="transformer.llama", kv_heads=2, mlp_features=48, layers=2, features=32, heads=4
  )
  config = json.loads(json.dumps(CONFIG))
  config["model"] = llama
  (stage,) = build(ml_collections.ConfigDict(config)).stages
  wanted = losses(stage, (1, 1, 1), 3)
  # More devices than heads of keys: those are copied, everything else is split.
  np.testing.assert_allclose(losses(stage, (1, 1, 4), 3), wanted, rtol=1e-5)


_EIGHT = """
import sys
sys.path[:0] = ["tests", "."]
import test_sharding  # which, as every test, asks for four devices
import jax
jax.config.update("jax_num_cpu_devices", 8)
print(test_sharding.losses(test_sharding.stage_of(), (2, 2, 2)))
"""


def test_eight_devices_in_all_three_directions():
  done = subprocess.run(
    [sys.executable, "-c", _EIGHT], cwd=ROOT, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr[-2000:]
  np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), alone(), rtol=1e-5)


def test_a_block_sums_over_devices_twice_forwards_and_twice_backwards():
  """Megatron-LM, section 3 and figure 4; the loop over layers holds one block."""
  text, _ = compiled((1, 1, 4))
  inside, outside = {}, []
  entry = re.search(r"^ENTRY (\S+)", text, re.MULTILINE)[1]
  for computation, kind, shapes in collectives(text):
    if kind == "all-gather":  # each device's likeliest token, for the accuracy; no activation
      assert shapes == [(16, 12, 4)]
      continue
    assert kind == "all-reduce"
    # A CPU clips and updates in a branch: a number of each leaf, for the norm.
    if computation == entry or not any(shapes):
      outside += shapes
    else:
      inside.setdefault(computation, []).extend(shapes)
  whole = 16 * 12 * FEATURES  # the residual stream, as [B, T, D] or as a matrix of tokens
  assert sorted(len(shapes) for shapes in inside.values()) == [2, 2]
  assert all(np.prod(shape) == whole for shapes in inside.values() for shape in shapes)
  # Outside: the embedding's rows, the gradient of the last layer's output, and numbers a token.
  assert sorted(np.prod(shape) for shape in outside if np.prod(shape) > whole / 2) == [whole, whole]


def test_logits_are_never_gathered():
  """The loss exchanges maxima and sums [B, T], not logits [B, T, V] (section 3)."""
  text, model = compiled((1, 1, 4))
  assert model.vocabulary % 4 == 0
  assert f"f32[16,12,{model.vocabulary // 4}]" in text
  assert f"f32[16,12,{model.vocabulary}]" not in text
  assert not re.search(rf"\[\d+,{model.vocabulary},", text)


def test_fully_sharded_weights_are_gathered_a_layer_at_a_time():
  text, _ = compiled((1, 4, 1))
  for _, kind, shapes in collectives(text):
    if kind == "all-gather":
      # Batch and length never come together, nor a stack of all the layers' weights.
      assert all(16 not in shape[:1] and shape[0] != LAYERS for shape in shapes)
  weights = {(FEATURES, 4 * FEATURES), (4 * FEATURES, FEATURES), (FEATURES, 1, 4 * FEATURES)}
  gathered = [s for _, kind, shapes in collectives(text) if kind == "all-gather" for s in shapes]
  assert len([s for s in gathered if s in weights]) >= 3


def test_data_parallel_sums_gradients_once():
  text, _ = compiled((4, 1, 1))
  kinds = [kind for _, kind, _ in collectives(text)]
  assert set(kinds) == {"all-reduce"}
  whole = FEATURES * 4 * FEATURES
  assert not any(
    np.prod(s) == 16 * 12 * FEATURES for _, _, shapes in collectives(text) for s in shapes
  )
  assert any(np.prod(s) >= whole for _, _, shapes in collectives(text) for s in shapes)


@pytest.mark.parametrize("mesh", ["fsdp", "model", "fsdp and model"])
def test_each_device_holds_its_part(mesh):
  way = parallel.Mesh(*MESHES[mesh])
  state = way.initialise(initial_state(stage_of()), jax.random.key(0), None)
  kernels = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.optimizer))
    if leaf.size > 2048 and "position" not in jax.tree_util.keystr(path)
  ]
  assert len(kernels) >= 3 * 5  # parameters and two moments
  for leaf in kernels:
    assert leaf.addressable_shards[0].data.size == leaf.size // 4
    path_free = sharding.shard_size(leaf.shape, tuple(leaf.sharding.spec), way.mesh_shape)
    assert path_free == leaf.size // 4


PLACES = [
  # (path, shape, split by model=4, with fsdp=2 besides)
  ("params/decoder_layers/attention/query/kernel", (8, 64, 4, 16), (0, 0, "model", 0), 1),
  ("params/decoder_layers/attention/output/kernel", (8, 4, 16, 64), (0, "model", 0, 0), 3),
  ("optimizer/0/1/mu/encoder_layers/cross_attention/key/bias", (8, 4, 16), (0, "model", 0), None),
  ("params/decoder_layers/mlp/gate/kernel", (8, 64, 256), (0, 0, "model"), 1),
  ("ema/decoder_layers/mlp/down/kernel", (8, 256, 64), (0, "model", 0), 2),
  ("params/layers/0/mlp/up/bias", (256,), ("model",), None),
  ("params/embedding", (96, 64), ("model", 0), 1),
  ("params/target_embedding", (96, 64), ("model", 0), 1),
  ("params/unembedding", (96, 64), ("model", 0), 1),
  ("params/position_embedding", (96, 64), (0, 0), 0),
  ("params/embedding", (97, 64), (0, 0), 1),  # a vocabulary that does not divide is copied
  ("params/decoder_layers/attention/key/kernel", (8, 64, 2, 16), (0, 0, 0, 0), 1),
  ("params/encoder/kernel", (784, 400), (0, 0), 0),  # no Transformer
  ("params/decoder_layers/attention_norm/scale", (8, 64), (0, 0), None),  # small
]


@pytest.mark.parametrize(("path", "shape", "split", "rest"), PLACES)
def test_rules_of_placement(path, shape, split, rest):
  split = [axis or None for axis in split]
  sizes = {"data": 2, "fsdp": 1, "model": 4}
  assert list(sharding.parameter(path, shape, sizes)) == split
  if rest is not None:
    split[rest] = "fsdp"
  assert list(sharding.parameter(path, shape, {**sizes, "fsdp": 2})) == split
  assert not any(sharding.parameter(path, shape, {"data": 8, "fsdp": 1, "model": 1}))


@pytest.mark.parametrize(
  ("settings", "said"),
  [
    ({"mesh": {"model": 3, "fsdp": 2}}, "does not fit"),
    ({"mesh": {"model": 0}}, "does not fit"),
    ({"mesh": {"model": 2}, "parallel": "pmap"}, "mesh.model"),
    ({"mesh": {"modell": 2}}, "modell"),
  ],
)
def test_meshes_that_cannot_be_are_refused(settings, said):
  from training.build import devices

  config = {**CONFIG, "training": {**CONFIG["training"], **settings}}
  with pytest.raises(ConfigError, match=said):
    devices(build(ml_collections.ConfigDict(config)).stages[0].training)
