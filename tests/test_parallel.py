"""One step, many ways to run it: the same numbers on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data import source as sources
from training import config, parallel, step
from training.build import build
from training.evaluate import evaluator
from training.initial import initial_state

SEAMS = {
  "vae": "experiments/vae/gaussian_digits.py",
  "gan": "experiments/gan/mlp_digits.py",
  "resnet": "experiments/convnet/resnet_digits.py",
  # Losses that are functions of a mean over the whole batch.
  "free bits": "experiments/vae/gaussian_digits.py",
  "capacity": "experiments/vae/gaussian_digits.py",
}
WAYS = {
  "one device": lambda: parallel.Mesh(1, 1),
  "jit": lambda: parallel.Mesh(4, 1),
  "fsdp": lambda: parallel.Mesh(1, 4),
  "data and fsdp": lambda: parallel.Mesh(2, 2),
  "pmap": lambda: parallel.Pmap(4),
}


def stage_of(path, **overrides):
  found = config.load(f"{path}:smoke")
  found = config.override(found, [(k.replace("__", "."), str(v)) for k, v in overrides.items()])
  (stage,) = build(found).stages
  return stage


def steps_of(stage, way, count, *, resident=True, init_seed=0):
  """(rows of losses, final state on the host) after `count` steps, one row a step."""
  state = way.initialise(initial_state(stage), jax.random.key(init_seed), None)
  train = stage.source.split("train")
  trainer = way.trainer(stage, state, resident=train.arrays if resident else None)
  zeros = step.zeros(state.metrics)
  found = []
  for i in range(count):
    rows = sources.rows(0, i, examples=len(train), batch_size=stage.program.examples)
    state = trainer(state, [rows if resident else train.take(rows)])
    found.append({k: float(m.total) / float(m.count) for k, m in state.metrics.items()})
    state = state.replace(metrics=zeros)
  return found, parallel.to_host(state)


@functools.cache
def reference(seam):
  return steps_of(stage_of(SEAMS[seam], **WIDE[seam]), WAYS["one device"](), 20)


# Wide enough that FSDP has something to split.
WIDE = {
  "vae": dict(model__hidden=64),
  "gan": dict(model__generator_widths="(64,64)", model__discriminator_widths="(64,64)"),
  "resnet": dict(model__widths="(8,16,16)"),
  "free bits": dict(model__hidden=64, task__free_bits=0.01, task__warmup_steps=10),
  "capacity": dict(model__hidden=64, task__capacity=3.0, task__capacity_steps=10, task__beta=5.0),
}


def assert_close(found, wanted, *, rtol=1e-5):
  for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
    assert a.keys() == b.keys()
    for name in a:
      assert a[name] == pytest.approx(b[name], rel=rtol, abs=1e-6), f"{name} at step {i + 1}"


@pytest.mark.parametrize("way", [w for w in WAYS if w != "one device"])
@pytest.mark.parametrize("seam", SEAMS)
def test_losses_do_not_depend_on_the_devices(seam, way):
  losses, state = steps_of(stage_of(SEAMS[seam], **WIDE[seam]), WAYS[way](), 20)
  wanted, wanted_state = reference(seam)
  assert_close(losses, wanted)
  # Batch statistics are of the global batch, whichever device saw which example.
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    state.mutable,
    wanted_state.mutable,
  )


def test_fsdp_splits_parameters_and_moments():
  stage = stage_of(SEAMS["vae"], model__hidden=64)
  state = WAYS["fsdp"]().initialise(initial_state(stage), jax.random.key(0), None)
  kernel = state.params["encoder"]["kernel"]
  assert kernel.addressable_shards[0].data.size == kernel.size // 4
  moments = state.optimizer[0][0].mu["encoder"]["kernel"]
  assert moments.sharding == kernel.sharding
  assert len(kernel.sharding.device_set) == 4


@pytest.mark.parametrize("way", ["one device", "jit", "pmap"])
def test_streamed_batches_train_like_resident_ones(way):
  stage = stage_of(SEAMS["vae"])
  assert_close(
    steps_of(stage, WAYS[way](), 5, resident=False)[0], steps_of(stage, WAYS[way](), 5)[0]
  )


@pytest.mark.parametrize("way", ["one device", "pmap"])
def test_grouping_steps_changes_no_bit(way):
  stage = stage_of(SEAMS["vae"])
  train = stage.source.split("train")

  def run(groups):
    place = WAYS[way]()
    state = place.initialise(initial_state(stage), jax.random.key(0), None)
    trainer = place.trainer(stage, state, resident=train.arrays)
    assert trainer.fused
    first = 0
    for size in groups:
      feeds = [
        sources.rows(0, i, examples=len(train), batch_size=stage.program.examples)
        for i in range(first, first + size)
      ]
      state, first = trainer(state, feeds), first + size
    return parallel.to_host(state)

  jax.tree.map(np.testing.assert_array_equal, run([1] * 7), run([1, 2, 4]))


def test_convolutions_are_not_looped_on_cpu():
  stage = stage_of(SEAMS["resnet"])
  way = WAYS["one device"]()
  state = way.initialise(initial_state(stage), jax.random.key(0), None)
  arrays = stage.source.split("train").arrays
  assert not way.trainer(stage, state, resident=arrays).fused


@pytest.mark.parametrize("way", ["one device", "jit", "pmap"])
@pytest.mark.parametrize("microbatches", [2, 5])
def test_accumulated_gradients_equal_the_whole_batch(way, microbatches):
  whole = stage_of(SEAMS["vae"])
  parts = stage_of(
    SEAMS["vae"],
    data__batch_size=100 if way == "one device" else 20 * 4,
    training__microbatches=microbatches,
    training__mesh__data=1,
  )
  whole = stage_of(SEAMS["vae"], data__batch_size=parts.source.batch_size)
  assert_close(steps_of(parts, WAYS[way](), 5)[0], steps_of(whole, WAYS[way](), 5)[0])


@pytest.mark.parametrize("microbatches", [2, 4])
def test_accumulation_weighs_unequal_masks_by_count(microbatches):
  stage = stage_of(SEAMS["vae"])
  (phase,) = stage.program.phases
  params = initial_state(stage)(jax.random.key(0), None).params
  rng = np.random.default_rng(0)
  batch = {
    "image": rng.uniform(size=(16, 8, 8, 1)).astype(np.float32),
    "mask": np.ones(16, np.float32),
  }
  batch["mask"][[0, 4, 8, 12, 1]] = 0.0
  batch = jax.tree.map(jnp.asarray, batch)
  args = (phase, params, {}, batch, jnp.arange(16), jax.random.key(1))
  whole = step.gradients(*args)
  parts = step.gradients(*args, microbatches=microbatches)
  counts = np.asarray(batch["mask"]).reshape(-1, microbatches).sum(0)
  assert len(set(counts.tolist())) > 1
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, parts[0], whole[0])
  jax.tree.map(close, parts[1], whole[1])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [7, 64, 500])
def test_evaluation_counts_every_example_once(way, size):
  """Whatever the batch size, however ragged the last batch: the same mean over the same 147."""
  stage = stage_of(SEAMS["resnet"], data__eval_batch_size=size)
  place = WAYS[way]()
  state = initial_state(stage)(jax.random.key(0), None)
  (measured,) = evaluator(stage, place)(state.params, state.mutable, "validation")
  split = stage.source.split("validation")
  stored = split.take(np.arange(len(split)))
  logits = stage.model.apply(
    {"params": state.params, **state.mutable}, stored["image"], train=False
  ).logits
  assert measured.examples == len(split) == 147
  logits = np.asarray(logits, np.float64)
  accuracy = float(np.mean(np.argmax(logits, -1) == stored["label"]))
  assert measured.values["accuracy"] == pytest.approx(accuracy, abs=1e-6)
  own = np.take_along_axis(logits, stored["label"][:, None], 1)[:, 0]
  nll = float((np.log(np.exp(logits).sum(1)) - own).mean())
  assert measured.values["loss"] == pytest.approx(nll, rel=1e-5)


def test_noise_at_evaluation_belongs_to_the_example():
  values = []
  for size in (10, 500):
    stage = stage_of(SEAMS["vae"], data__eval_batch_size=size)
    state = initial_state(stage)(jax.random.key(0), None)
    measured = evaluator(stage, WAYS["pmap"]())
    values.append(measured(state.params, state.mutable, "test")[0].values["elbo"])
  assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_the_average_of_parameters_follows_them():
  stage = stage_of(SEAMS["vae"], training__ema_decay=0.9)
  way = WAYS["one device"]()
  state = way.initialise(initial_state(stage), jax.random.key(0), None)
  train = stage.source.split("train")
  trainer = way.trainer(stage, state, resident=train.arrays)
  wanted = parallel.to_host(state).params["encoder"]["kernel"]
  for i in range(5):
    rows = sources.rows(0, i, examples=len(train), batch_size=stage.program.examples)
    state = trainer(state, [rows])
    wanted = 0.9 * wanted + 0.1 * np.asarray(state.params["encoder"]["kernel"])
  np.testing.assert_allclose(state.ema["encoder"]["kernel"], wanted, rtol=1e-5)


@pytest.mark.parametrize("way", ["one device", "fsdp"])
def test_weights_that_compile_quickly_have_the_bits_of_the_highest_level(way, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS")  # by which tests choose a level of their own
  assert parallel._compiled_quickly() == {"xla_backend_optimization_level": 1}
  found = []
  for level in (1, 3):
    options = {"xla_backend_optimization_level": level}
    monkeypatch.setattr(parallel, "_compiled_quickly", lambda options=options: options)
    init = initial_state(stage_of(SEAMS["resnet"]))
    found.append(parallel.to_host(WAYS[way]().initialise(init, jax.random.key(0), None).params))
  jax.tree.map(np.testing.assert_array_equal, *found)
