"""What a step costs, known without taking one."""

import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import ml_collections
import pytest
from conftest import ROOT
from test_sharding import CONFIG

from training import cost, describe, parallel
from training.build import build
from training.errors import ConfigError
from training.initial import initial_state, stage_shapes

F32 = jnp.float32


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, F32)


def test_flops_of_products():
  assert cost.flops(lambda a, b: a @ b, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
  batched = cost.flops(
    lambda a, b: jnp.einsum("bij,bkj->bik", a, b), shape(2, 3, 5), shape(2, 7, 5)
  )
  assert batched == 2 * 2 * 3 * 5 * 7
  assert cost.flops(lambda a: a + 1, shape(100)) == 0


def test_flops_of_a_convolution():
  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  # 6 x 6 places, each 3 x 3 x 4 products for 5 features.
  assert cost.flops(convolve, shape(2, 8, 8, 4), shape(3, 3, 4, 5)) == 2 * 2 * 36 * 36 * 5


def test_a_loop_counts_as_often_as_it_runs_and_gradients_count_twice():
  def chain(x, weights):
    return jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0].sum()

  shapes = shape(4, 8), shape(6, 8, 8)
  once = 2 * 4 * 8 * 8
  assert cost.flops(chain, *shapes) == 6 * once
  assert cost.flops(jax.grad(chain, argnums=(0, 1)), *shapes) == 18 * once
  again = cost.flops(jax.grad(jax.checkpoint(chain), argnums=(0, 1)), *shapes)
  assert again == 24 * once  # the forward pass once more


def test_a_branch_counts_as_its_dearest():
  def branch(p, x):
    return jax.lax.cond(p, lambda x: x @ x, lambda x: x @ x @ x, x)

  assert cost.flops(branch, jax.ShapeDtypeStruct((), bool), shape(4, 4)) == 2 * 2 * 4**3


def test_a_transformer_costs_six_flops_a_parameter_and_token():
  """Of large layers; attention's own products, which have no parameters, come on top."""
  settings = {**CONFIG["model"], "layers": 4, "features": 256, "heads": 8, "attention": "naive"}
  stage = stage_of(model=settings)
  state, stored = stage_shapes(stage)
  batch, length = stored["tokens"].shape
  tokens = batch * (length - 1)
  parameters = 4 * 12 * 256**2 + stage.model.vocabulary * 256
  attention = 3 * 4 * 2 * 2 * tokens * (length - 1) * 256
  found = describe.measure(stage, None)
  assert found.flops == 6 * parameters * tokens + attention


def stage_of(**blocks):
  (stage,) = build(ml_collections.ConfigDict({**CONFIG, **blocks})).stages
  return stage


@pytest.mark.parametrize("mesh", [(2, 2, 1), (4, 1, 4)])
def test_bytes_on_each_device_are_those_of_a_state_that_is_there(mesh):
  stage = stage_of()
  sizes = dict(zip(("data", "fsdp", "model"), mesh, strict=True))
  found = describe.measure(stage, sizes)
  way = parallel.Mesh(1, *mesh[1:])
  state = way.initialise(initial_state(stage), jax.random.key(0), None)

  def held(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))

  assert found.parameter_bytes == held(state.params)
  assert found.optimizer_bytes == held(state.optimizer)
  batch = sum(
    leaf.dtype.itemsize * leaf.size // (mesh[0] * mesh[1])
    for leaf in jax.tree.leaves(stage_shapes(stage)[1])
  )
  whole = found.parameter_bytes + found.optimizer_bytes + batch
  assert found.state_and_batch_bytes == pytest.approx(whole, rel=0.02, abs=1024)
  assert found.temporary_bytes > 0


def test_activations_shrink_with_the_share_of_the_batch_and_with_recomputation():
  one, two = (describe.measure(stage_of(), {"data": n, "fsdp": 1, "model": 1}) for n in (1, 4))
  assert two.temporary_bytes < 0.5 * one.temporary_bytes
  assert two.flops == one.flops  # of all devices together
  remat = {"steps": 100, "remat": True}
  deep = {**CONFIG["model"], "layers": 12}
  again = describe.measure(stage_of(model=deep, training=remat), None)
  assert again.temporary_bytes < 2 * one.temporary_bytes  # of four times as many layers
  assert again.flops > 4 * one.flops


def test_what_fits():
  found = describe.Cost({"data": 1}, 1, 1, 1, 40 * 2**30, 60 * 2**30, 30 * 2**30, 1)
  assert [found.fits(gib) for gib in (39, 40, 70, 99, 100)] == [
    "no",
    "no",
    "perhaps",
    "perhaps",
    "yes",
  ]


def test_a_batch_that_does_not_divide_is_refused():
  training = {"steps": 100, "mesh": {"data": 3, "fsdp": 1, "model": 2}}
  with pytest.raises(ConfigError, match="does not divide"):
    describe.describe(build(ml_collections.ConfigDict({**CONFIG, "training": training})))


def test_gpt3_is_described_on_a_thousand_devices():
  """Brown et al. 2020, the largest; on one machine, in a minute, in little memory."""
  command = [
    sys.executable,
    "launch.py",
    "describe",
    "--config=experiments/gpt/gpt3.py:175b",
    "--config.training.mesh={'data': 8, 'fsdp': 16, 'model': 8}",
    "--config.data.vocabulary=51200",
    "--config.data.batch_size=1536",
  ]
  limited = "import resource, sys, os; resource.setrlimit(resource.RLIMIT_DATA, (4 << 30,) * 2);"
  limited += "os.execv(sys.argv[1], sys.argv[1:])"
  before = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-c", limited, *command],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=240,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert time.perf_counter() - before < 200  # a minute on a machine that does nothing else
  said = done.stdout
  assert "parameters: 174,615,846,912" in said
  # Three numbers of four bytes a parameter, over 16 x 8 devices.
  gib = 3 * 4 * 174_615_846_912 / 128 / 2**30
  held = float(re.search(r"state and batch: ([\d.]+) GiB", said)[1])
  assert held == pytest.approx(gib, rel=0.01)
  flops = float(re.search(r"convolutions: ([\d.e+]+)", said)[1])
  tokens = 1536 * 2048
  # 6 a parameter and token, and 2 more less an MLP's last product for what is computed twice.
  assert 6 < flops / (tokens * 174.6e9) < 8.2
  assert re.search(r"A100 40 GB +│ 40 +│ no", said)
