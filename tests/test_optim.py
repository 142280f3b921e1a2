"""Optimizers against PyTorch's, and schedules at their ends."""

import dataclasses
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from training import optim

needs_torch = pytest.mark.skipif(
  importlib.util.find_spec("torch") is None, reason="parity is against PyTorch"
)

STEPS = 10
CURVATURE = np.array([[3.0, 0.2], [0.5, 10.0]], np.float32)


@pytest.fixture(autouse=True)
def _promotion():
  # Optax's Adam raises a float to an integer power, which strict promotion forbids.
  with jax.numpy_dtype_promotion("standard"):
    yield


def start():
  """A matrix, which decay of kernels touches, and a vector, which it does not."""
  return {
    "kernel": jnp.asarray([[1.0, -2.0], [0.7, 0.1]], jnp.float32),
    "bias": jnp.asarray([1.5, -0.5], jnp.float32),
  }


def quadratic(params):
  """Curvatures far apart, and minima away from zero."""
  kernel = (CURVATURE * (params["kernel"] - 0.3) ** 2).sum()
  return kernel + 2 * ((params["bias"] + 0.2) ** 2).sum()


def ours(optimizer, steps=STEPS):
  """The parameters after each update of the quadratic's gradients."""
  transformation = optimizer.transformation(steps)

  @jax.jit
  def update(params, state):
    updates, state = transformation.update(jax.grad(quadratic)(params), state, params)
    return optax.apply_updates(params, updates), state

  params, path = start(), []
  state = transformation.init(params)
  for _ in range(steps):
    params, state = update(params, state)
    path.append(jax.tree.map(np.asarray, params))
  return path


def torchs(make, steps=STEPS, *, decayed=0.0, masked=True, clip=None):
  """The same from a torch optimizer; weight decay of the kernel alone where `masked`."""
  import torch

  params = {
    k: torch.tensor(np.asarray(v, np.float64), requires_grad=True) for k, v in start().items()
  }
  groups = [
    {"params": [params["kernel"]], "weight_decay": decayed},
    {"params": [params["bias"]], "weight_decay": 0.0 if masked else decayed},
  ]
  optimizer, path = make(groups), []
  for _ in range(steps):
    optimizer.zero_grad()
    kernel = (torch.tensor(CURVATURE) * (params["kernel"] - 0.3) ** 2).sum()
    (kernel + 2 * ((params["bias"] + 0.2) ** 2).sum()).backward()
    if clip:
      torch.nn.utils.clip_grad_norm_(list(params.values()), clip)
    optimizer.step()
    path.append({k: v.detach().numpy().copy() for k, v in params.items()})
  return path


def same(a, b, rtol=2e-5):
  for mine, theirs in zip(a, b, strict=True):
    for name in theirs:
      np.testing.assert_allclose(mine[name], theirs[name], rtol=rtol, atol=rtol, err_msg=name)


# PyTorch's definitions.


@needs_torch
@pytest.mark.parametrize("decay", ["kernels", "all"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_pytorchs(momentum, nesterov, weight_decay, decay):
  import torch

  settings = dict(momentum=momentum, nesterov=nesterov)
  mine = ours(optim.Sgd(learning_rate=0.02, weight_decay=weight_decay, decay=decay, **settings))
  # L2: its gradient goes through the momentum.
  make = lambda groups: torch.optim.SGD(groups, lr=0.02, **settings)  # noqa: E731
  same(mine, torchs(make, decayed=weight_decay, masked=decay == "kernels"))


@needs_torch
@pytest.mark.parametrize("decay", ["kernels", "all"])
@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adam_is_pytorchs(name, weight_decay, decay):
  import torch

  settings = dict(weight_decay=weight_decay, decay=decay, b1=0.8, b2=0.95, epsilon=1e-3)
  mine = ours(optim.NAMES[name](learning_rate=0.1, **settings))
  cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
  make = lambda groups: cls(groups, lr=0.1, betas=(0.8, 0.95), eps=1e-3)  # noqa: E731
  same(mine, torchs(make, decayed=weight_decay, masked=decay == "kernels"))


@needs_torch
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("initial", [0.0, 0.1])
def test_adagrad_is_pytorchs(initial, weight_decay):
  import torch

  # Optax divides by sqrt(s + epsilon), PyTorch by sqrt(s) + epsilon: the same as epsilon vanishes.
  mine = ours(
    optim.Adagrad(learning_rate=0.1, initial=initial, epsilon=1e-10, weight_decay=weight_decay)
  )
  make = lambda groups: torch.optim.Adagrad(  # noqa: E731
    groups, lr=0.1, initial_accumulator_value=initial, eps=1e-10
  )
  same(mine, torchs(make, decayed=weight_decay))


@needs_torch
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_is_pytorchs(momentum, weight_decay):
  import torch

  # Epsilon inside the square root in Optax, outside in PyTorch, as for Adagrad.
  mine = ours(
    optim.RmsProp(
      learning_rate=0.01, rho=0.95, momentum=momentum, epsilon=1e-10, weight_decay=weight_decay
    )
  )
  make = lambda groups: torch.optim.RMSprop(  # noqa: E731
    groups, lr=0.01, alpha=0.95, eps=1e-10, momentum=momentum
  )
  same(mine, torchs(make, decayed=weight_decay))


@needs_torch
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adadelta_is_pytorchs(weight_decay):
  import torch

  mine = ours(optim.Adadelta(learning_rate=0.7, rho=0.8, epsilon=1e-4, weight_decay=weight_decay))
  make = lambda groups: torch.optim.Adadelta(groups, lr=0.7, rho=0.8, eps=1e-4)  # noqa: E731
  same(mine, torchs(make, decayed=weight_decay))


@needs_torch
@pytest.mark.parametrize("clip", [0.5, 1e3])
def test_clipping_is_pytorchs(clip):
  import torch

  # PyTorch adds 1e-6 to the norm.
  mine = ours(optim.Sgd(learning_rate=0.05, momentum=0.9, clip_norm=clip))
  make = lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9)  # noqa: E731
  same(mine, torchs(make, clip=clip))


def test_clipping_is_by_the_norm_of_everything_before_the_penalty():
  params, updates = start(), 3
  transformation = optim.Sgd(learning_rate=1.0, clip_norm=2.0, weight_decay=0.5).transformation(
    updates
  )
  grads = jax.tree.map(lambda x: 100 * x, params)
  found, _ = transformation.update(grads, transformation.init(params), params)
  norm = math.sqrt(sum(float((x**2).sum()) for x in params.values()))
  np.testing.assert_allclose(found["bias"], -2 * params["bias"] / norm, rtol=1e-6)
  # What is clipped is the loss's gradient; the penalty comes on top.
  expected = -2 * params["kernel"] / norm - 0.5 * params["kernel"]
  np.testing.assert_allclose(found["kernel"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(optim.NAMES))
@pytest.mark.parametrize("decay", ["kernels", "all"])
def test_decay_is_decoupled_for_adamw_alone(name, decay):
  settings = dict(learning_rate=0.1, weight_decay=0.5, decay=decay)
  transformation = optim.NAMES[name](**settings).transformation(STEPS)
  params = start()
  still = jax.tree.map(jnp.zeros_like, params)
  found, _ = transformation.update(still, transformation.init(params), params)
  assert bool((found["bias"] == 0).all()) == (decay == "kernels")
  decoupled = np.allclose(found["kernel"], -0.1 * 0.5 * params["kernel"], rtol=1e-6)
  # SGD's first step is the gradient itself, where the two kinds of decay are the same.
  assert decoupled == (name in ("adamw", "sgd"))


# Schedules.

PEAK, UPDATES = 0.4, 100


def rate(schedule, warmup=0, **settings):
  settings = {"final_fraction": 0.01, **settings}
  optimizer = optim.Sgd(learning_rate=PEAK, schedule=schedule, warmup_steps=warmup, **settings)
  found = optimizer.rate(UPDATES)
  return [float(found(jnp.int32(i))) for i in range(UPDATES + 1)]


SCHEDULES = ("constant", "cosine", "linear", "exponential", "step")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_start_at_their_peak(schedule):
  assert rate(schedule)[0] == pytest.approx(PEAK)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [1, 7, 20])
def test_warmup_is_linear_and_never_zero(schedule, warmup):
  found = rate(schedule, warmup)
  expected = [PEAK * (i + 1) / (warmup + 1) for i in range(warmup + 1)]
  assert found[: warmup + 1] == pytest.approx(expected, rel=1e-5)
  assert min(found) > 0


@pytest.mark.parametrize("warmup", [0, 20])
@pytest.mark.parametrize("final", [0.01, 0.25, 1.0])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "exponential"])
def test_schedules_end_at_the_final_fraction(schedule, final, warmup):
  found = rate(schedule, warmup, final_fraction=final)
  assert found[UPDATES] == pytest.approx(PEAK * final, rel=1e-4)
  # Half way after warm-up.
  middle = {
    "cosine": (1 + final) / 2,
    "linear": (1 + final) / 2,
    "exponential": math.sqrt(final),
  }[schedule]
  assert found[warmup + (UPDATES - warmup) // 2] == pytest.approx(PEAK * middle, rel=1e-4)
  # And it never goes below.
  assert min(found[warmup:]) == pytest.approx(PEAK * final, rel=1e-4)


@pytest.mark.parametrize("warmup", [0, 20])
def test_constant_stays(warmup):
  assert rate("constant", warmup)[warmup:] == pytest.approx([PEAK] * (UPDATES + 1 - warmup))


@pytest.mark.parametrize("warmup", [0, 20])
@pytest.mark.parametrize("drops", [(0.5, 0.75), (0.3,), (0.25, 0.5, 0.9), ()])
def test_steps_drop_at_fractions_of_the_whole_run(drops, warmup):
  # Of the whole run, warm-up included: warm-up moves no drop.
  found = rate("step", warmup, step_at=drops, step_factor=0.1)
  for i in range(warmup, UPDATES + 1):
    passed = sum(i >= at * UPDATES for at in drops)
    assert found[i] == pytest.approx(PEAK * 0.1**passed, rel=1e-5), i


def test_drops_at_one_update_multiply():
  # Fractions so near to each other that they round to the same update.
  found = rate("step", step_at=(0.5, 0.501), step_factor=0.1)
  assert found[UPDATES] == pytest.approx(PEAK * 0.01, rel=1e-5)


def test_a_run_shorter_than_its_warmup_stays_below_the_peak():
  for schedule in SCHEDULES:
    found = optim.Sgd(learning_rate=PEAK, schedule=schedule, warmup_steps=50).rate(10)
    values = [float(found(jnp.int32(i))) for i in range(10)]
    assert all(0 < value < PEAK for value in values)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", sorted(optim.NAMES))
def test_the_rate_is_what_the_transformation_applies(name, schedule, warmup):
  cls = optim.NAMES[name]
  settings = dict(schedule=schedule, warmup_steps=warmup)
  optimizer = cls(learning_rate=PEAK, **settings)
  unit = cls(learning_rate=1.0)
  schedule = optimizer.rate(STEPS)
  params = start()

  def updates(o):
    transformation = o.transformation(STEPS)

    def body(state, grads):
      found, state = transformation.update(grads, state, params)
      return state, found

    grads = jax.tree.map(lambda x: jnp.stack([x * (i + 1) for i in range(STEPS)]), params)
    return jax.jit(lambda: jax.lax.scan(body, transformation.init(params), grads)[1])()

  mine, directions = updates(optimizer), updates(unit)
  for i in range(STEPS):
    expected = float(schedule(jnp.int32(i))) * np.asarray(directions["kernel"][i])
    np.testing.assert_allclose(mine["kernel"][i], expected, rtol=1e-5)


def test_names_are_the_classes_in_lower_case():
  assert {name: cls.__name__.lower() for name, cls in optim.NAMES.items()} == {
    name: name for name in ("sgd", "adam", "adamw", "adagrad", "rmsprop", "adadelta", "adafactor")
  }
  assert all(dataclasses.is_dataclass(cls) for cls in optim.NAMES.values())
