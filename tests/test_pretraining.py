"""Pretraining: Boltzmann machines and their unrolling, denoising layers, and the data for them."""

import functools
import gzip
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import (
  batch_of,
  close,
  created,
  gradients,
  needs_torch,
  shapes,
  size,
  smoke,
  to_torch,
  torch_bernoulli_loss,
  torch_dense,
  torch_gradients,
)

from data import curves, diabetes
from models.autoencoder import boltzmann, deep, stacked
from models.layers import batch_axis
from tasks import contrastive_divergence, layerwise, reconstruction, regress
from tasks import corruption as corruptions
from tasks.corruption import corrupt
from tasks.objective import Examples
from training import initial, optim, step

SHAPE = (4, 4, 1)
KINDS = ("masking", "salt_and_pepper", "gaussian")


def sigmoid(x):
  return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


# Sizes, from the paper's layers by hand.


@pytest.mark.parametrize(
  ("inputs", "widths", "code", "output", "encoder", "decoder"),
  [
    (784, (400, 200, 100, 50, 25), 6, "logistic", 420_781, 421_559),
    (784, (1000, 500, 250), 30, "logistic", 1_418_280, 1_419_034),
    (625, (2000, 1000, 500), 30, "linear", 3_768_530, 3_769_125),
    (2000, (500, 250, 125), 10, "softmax", 1_158_385, 1_160_375),
  ],
  ids=["curves", "mnist", "faces", "documents"],
)
def test_sizes_of_the_papers_autoencoders(inputs, widths, code, output, encoder, decoder):
  model = deep.Model((inputs,), widths=widths, code=code, output=output)
  params = shapes(model, (inputs,))["params"]
  found = {side: size([v for k, v in params.items() if k.startswith(side)]) for side in SIDES}
  assert found == {"encoder": encoder, "decoder": decoder}
  machines = shapes(boltzmann.Model((inputs,), widths=widths, code=code), (inputs,))["params"]
  # Both directions share a machine's weights.
  sizes = (inputs, *widths, code)
  weights = sum(a * b for a, b in itertools.pairwise(sizes))
  assert size(machines) == encoder + decoder - weights


SIDES = ("encoder", "decoder")


def test_a_tied_layer_has_one_matrix():
  params = shapes(stacked.Model((28, 28, 1), 10, tied=True), (28, 28, 1))["params"]
  assert size(params["layer_0"]) == 785_784
  assert params["layer_1"]["decoder_bias"].shape == (1000,)


# Boltzmann machines.


def machine(visible, hidden, inputs=4, units=5, seed=0):
  """A machine and parameters that are nowhere zero."""
  model = boltzmann.Machine(inputs, units, visible, hidden, 0.5, jnp.float32)
  generator = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(generator.normal(size=shape), jnp.float32)  # noqa: E731
  params = {
    "kernel": draw(inputs, units),
    "visible_bias": draw(inputs),
    "hidden_bias": draw(units),
  }
  return model, params


@pytest.mark.parametrize("visible", ["logistic", "softmax", "linear"])
def test_free_energy_sums_over_all_hidden_states(visible):
  model, params = machine(visible, "logistic")
  v = np.random.default_rng(1).random((6, 4))
  found = model.apply({"params": params}, jnp.asarray(v, jnp.float32), method="free_energy")
  w, b, c = (np.asarray(params[k], np.float64) for k in ("kernel", "visible_bias", "hidden_bias"))
  h = np.array(list(itertools.product((0.0, 1.0), repeat=5)))
  energy = -(h @ c)[None] - v @ w @ h.T
  energy += (0.5 * np.square(v - b).sum(1) if visible == "linear" else -v @ b)[:, None]
  np.testing.assert_allclose(found, -np.log(np.exp(-energy).sum(1)), rtol=1e-5)


def test_free_energy_integrates_over_a_linear_unit():
  model, params = machine("logistic", "linear", units=1)
  v = np.random.default_rng(1).random((6, 4))
  found = model.apply({"params": params}, jnp.asarray(v, jnp.float32), method="free_energy")
  w, b, c = (np.asarray(params[k], np.float64) for k in ("kernel", "visible_bias", "hidden_bias"))
  h = np.linspace(-30, 30, 20_001)
  energy = 0.5 * np.square(h)[None] - (v @ w + c) * h[None] - (v @ b)[:, None]
  expected = -np.log(np.exp(-energy).sum(1) * (h[1] - h[0]))
  constant = 0.5 * np.log(2 * np.pi)
  np.testing.assert_allclose(found - constant, expected, rtol=1e-5)


@pytest.mark.parametrize("hidden", ["logistic", "linear"])
def test_hidden_samples_have_their_mean_and_variance(hidden):
  model, params = machine("logistic", hidden)
  v = jnp.tile(jnp.asarray([[0.1, 0.9, 0.5, 0.0]]), (20_000, 1))
  total = np.asarray(v[0] @ params["kernel"] + params["hidden_bias"], np.float64)
  mean = sigmoid(total) if hidden == "logistic" else total
  h = model.apply({"params": params}, jax.random.key(0), v, method="hidden_sample")
  variance = mean * (1 - mean) if hidden == "logistic" else np.ones(5)
  margin = 5 * np.sqrt(variance / len(v))
  assert (np.abs(np.asarray(h).mean(0) - mean) < margin).all()
  np.testing.assert_allclose(np.asarray(h).var(0), variance, atol=0.05)
  if hidden == "logistic":
    assert set(np.unique(h)) == {0.0, 1.0}


def test_reconstructions_come_from_binary_hidden_units():
  model = boltzmann.Model((6,), widths=(2,), code=3)
  params, _ = created(model, (6,))
  v = jnp.tile(batch_of((6,), 1)["image"], (200, 1))
  rngs = {"latent": jax.random.key(0)}
  found = np.asarray(model.apply({"params": params}, v, layer=0, method="gibbs", rngs=rngs))
  own = params["rbm_0"]
  h = np.array(list(itertools.product((0.0, 1.0), repeat=2)))
  possible = sigmoid(h @ np.asarray(own["kernel"], np.float64).T + own["visible_bias"])
  distance = np.abs(found[:, None] - possible[None]).max(-1)
  assert distance.min(1).max() < 1e-5
  # All of the four states, example by example.
  assert set(distance.argmin(1)) == set(range(4))


def test_softmax_units_give_back_as_many_words_as_they_saw():
  model = boltzmann.Model((6,), widths=(5,), code=3, visible="softmax")
  params, _ = created(model, (6,))
  words = jnp.asarray([[3.0, 0, 1, 0, 0, 0], [0, 2, 2, 2, 2, 9], [0.5, 0.5, 0, 0, 0, 0]])
  rngs = {"latent": jax.random.key(0)}
  found = model.apply({"params": params}, words, layer=0, method="gibbs", rngs=rngs)
  np.testing.assert_allclose(found.sum(1), [4, 17, 1], rtol=1e-5)
  assert (np.asarray(found) > 0).all()


STACKS = {
  "pixels": boltzmann.Model(SHAPE, widths=(7, 6), code=3),
  "words": boltzmann.Model(SHAPE, widths=(7, 6), code=3, visible="softmax"),
  "numbers": boltzmann.Model(SHAPE, widths=(7, 6), code=3, visible="linear"),
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("layer", range(3))
def test_the_gradient_is_contrastive_divergence(stack, layer):
  """<v h> of the data minus <v h> of the reconstruction, from the very same samples."""
  model = STACKS[stack]
  params, mutable = created(model, SHAPE)
  batch = batch_of(SHAPE, 8)
  (phase,) = contrastive_divergence.Task(layer=layer).phases(model)
  grads, _, _, metrics = gradients(phase, params, mutable, batch)
  assert set(grads) == {f"rbm_{layer}"}

  run = functools.partial(model.apply, {"params": params}, layer=layer)
  data = run(batch["image"], method="data")
  (key,) = jax.random.split(jax.random.key(0), 1)
  found = run(data, method="gibbs", rngs={"latent": key})
  own = {k: np.asarray(x, np.float64) for k, x in params[f"rbm_{layer}"].items()}
  total = lambda v: np.asarray(v, np.float64) @ own["kernel"] + own["hidden_bias"]  # noqa: E731
  hidden = total if layer == 2 else lambda v: sigmoid(total(v))
  v, w = (np.asarray(x, np.float64) for x in (data, found))
  # Gradients descend, so all signs turn.
  expected = {
    "kernel": -(v.T @ hidden(v) - w.T @ hidden(w)) / 8,
    "visible_bias": -(v - w).mean(0),
    "hidden_bias": -(hidden(v) - hidden(w)).mean(0),
  }
  close(grads[f"rbm_{layer}"], expected, rtol=1e-4)
  close(metrics["squared"], np.square(v - w).sum(1).mean())


def test_the_data_of_a_machine_are_means_of_the_one_below():
  model = STACKS["pixels"]
  params, _ = created(model, SHAPE)
  image = batch_of(SHAPE, 5)["image"]
  x = np.asarray(image, np.float64).reshape(5, -1)
  for layer in range(3):
    close(model.apply({"params": params}, image, layer=layer, method="data"), x)
    own = params[f"rbm_{layer}"]
    x = sigmoid(x @ np.asarray(own["kernel"], np.float64) + own["hidden_bias"])


def test_more_gibbs_steps_go_further_from_the_data():
  model = boltzmann.Model(SHAPE, widths=(12,), code=3, init_std=2.0)
  params, mutable = created(model, SHAPE)
  batch = batch_of(SHAPE, 200)
  squared = [
    float(gradients(task.phases(model)[0], params, mutable, batch)[3]["squared"])
    for task in (contrastive_divergence.Task(steps=steps) for steps in (1, 5))
  ]
  assert squared[1] > squared[0]


def test_contrastive_divergence_refuses_a_machine_that_is_not_there():
  with pytest.raises(ValueError, match="3 machines"):
    contrastive_divergence.Task(layer=3).phases(STACKS["pixels"])


def test_the_update_is_the_authors():
  """increment = momentum * increment + rate * ((data - reconstruction) / n - cost * W)."""
  rate, momentum, cost = 0.1, 0.9, 2e-4
  settings = dict(learning_rate=rate, momentum=momentum, weight_decay=cost)
  rule = optim.Sgd(**settings).transformation(10)
  generator = np.random.default_rng(0)
  tree = {"kernel": (3, 2), "hidden_bias": (2,)}
  params = {k: generator.normal(size=s).astype(np.float32) for k, s in tree.items()}
  ours, state = params, rule.init(params)
  theirs = {k: x.astype(np.float64) for k, x in params.items()}
  increment = {k: np.zeros(s) for k, s in tree.items()}
  for _ in range(4):
    grads = {k: generator.normal(size=s).astype(np.float32) for k, s in tree.items()}
    updates, state = rule.update(grads, state, ours)
    ours = jax.tree.map(np.add, ours, updates)
    for k, gradient in grads.items():
      decay = cost * theirs[k] if k == "kernel" else 0
      increment[k] = momentum * increment[k] + rate * (-gradient - decay)
      theirs[k] = theirs[k] + increment[k]
  close(ours, theirs)


@needs_torch
@pytest.mark.parametrize("layer", range(3))
def test_contrastive_divergence_is_pytorchs(layer):
  """Autograd through F(data) - F(reconstruction), the reconstruction given."""
  import torch

  model = STACKS["pixels"]
  params, mutable = created(model, SHAPE)
  batch = batch_of(SHAPE, 6)
  (phase,) = contrastive_divergence.Task(layer=layer).phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)
  run = functools.partial(model.apply, {"params": params}, layer=layer)
  data = run(batch["image"], method="data")
  (key,) = jax.random.split(jax.random.key(0), 1)
  found = run(data, method="gibbs", rngs={"latent": key})

  p = to_torch(params[f"rbm_{layer}"])

  def energy(v):
    v = torch.tensor(np.asarray(v, np.float64))
    total = v @ p["kernel"] + p["hidden_bias"]
    hidden = total.square() / 2 if layer == 2 else torch.nn.functional.softplus(total)
    return -(v * p["visible_bias"]).sum(1) - hidden.sum(1)

  expected = (energy(data) - energy(found)).mean()
  close(loss, expected.detach(), rtol=1e-4)
  close(grads[f"rbm_{layer}"], torch_gradients(expected, p), rtol=1e-4)


# Unrolling.


@pytest.mark.parametrize("stack", STACKS)
def test_the_unrolled_stack_is_the_same_autoencoder(stack):
  model = STACKS[stack]
  machines, _ = created(model, SHAPE)
  network = deep.Model(SHAPE, widths=(7, 6), code=3, output=model.visible)
  fresh, _ = created(network, SHAPE, seed=1)
  params = network.adopt(fresh, machines)
  image = batch_of(SHAPE, 5)["image"]
  ours = network.apply({"params": params}, image)
  close(ours, model.apply({"params": machines}, image))
  # Untied from here on: a matrix for each direction, and the fine-tuning moves both.
  (phase,) = reconstruction.Task().phases(network)
  grads, _, _, _ = gradients(phase, params, {}, batch_of(SHAPE, 5))
  np.testing.assert_array_equal(params["encoder_1"]["kernel"], params["decoder_1"]["kernel"].T)
  assert np.abs(grads["encoder_1"]["kernel"] - grads["decoder_1"]["kernel"].T).max() > 1e-3


def test_a_deep_autoencoder_takes_over_what_fits():
  small, large = deep.Model(SHAPE, (7,), 3), deep.Model(SHAPE, (7,), 2)
  before, _ = created(small, SHAPE)
  fresh, _ = created(large, SHAPE, seed=1)
  found = large.adopt(fresh, before)
  fits = {name: found[name] is before[name] for name in found}
  assert fits == {"encoder_0": True, "decoder_1": True, "encoder_1": False, "decoder_0": False}
  assert found["encoder_1"] is fresh["encoder_1"]


def test_the_last_stage_starts_as_the_stack():
  *_, last, unrolled = smoke("experiments/autoencoder/boltzmann_digits").stages
  machines, _ = created(last.model, (8, 8, 1))
  start = initial.initial_state(unrolled)
  with jax.numpy_dtype_promotion("standard"):
    state = jax.jit(start)(jax.random.key(0), initial.Before(machines, {}))
  image = batch_of((8, 8, 1), 5)["image"]
  ours = unrolled.model.apply({"params": state.params}, image)
  close(ours, last.model.apply({"params": machines}, image))


@pytest.mark.parametrize("output", ["logistic", "softmax", "linear"])
def test_outputs_are_what_they_say(output):
  model = deep.Model((2, 3), widths=(5,), code=2, output=output)
  params, _ = created(model, (2, 3))
  x = 3 * batch_of((2, 3), 4)["image"]
  out = model.apply({"params": params}, x)
  expected = {
    "logistic": sigmoid(out.logits),
    # As many words as went in.
    "softmax": x.sum((1, 2), keepdims=True)
    * np.exp(out.logits)
    / np.exp(out.logits).sum((1, 2), keepdims=True),
    "linear": out.logits,
  }[output]
  np.testing.assert_allclose(out.reconstruction, expected, rtol=1e-5)


# Corruption.


@pytest.mark.parametrize("kind", ["masking", "salt_and_pepper"])
@pytest.mark.parametrize("level", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_corruption_touches_exactly_its_share(kind, level):
  x = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (400, 30)), jnp.float32)
  found, touched = jax.jit(corrupt, static_argnums=0)(kind, jax.random.key(0), x, level)
  found, touched = np.asarray(found), np.asarray(touched)
  assert (touched.sum(1) == round(level * 30)).all()
  # What is left is left as it was, not rescaled.
  np.testing.assert_array_equal(found[~touched], np.asarray(x)[~touched])
  ends = {0.0} if kind == "masking" else {0.0, 1.0}
  assert set(np.unique(found[touched])) == (ends if level else set())
  if kind == "salt_and_pepper" and level:
    assert abs(found[touched].mean() - 0.5) < 4 * 0.5 / np.sqrt(touched.sum())
  if 0 < level < 1:
    # Every component is as likely as any other, and every example has its own.
    assert np.abs(touched.mean(0) - round(level * 30) / 30).max() < 5 * 0.5 / np.sqrt(400)
    assert len(np.unique(touched, axis=0)) > 200


def test_gaussian_corruption_adds_noise_of_its_standard_deviation():
  x = jnp.full((200, 100), 0.5)
  found, touched = corrupt("gaussian", jax.random.key(0), x, 0.3)
  noise = np.asarray(found - x)
  assert np.asarray(touched).all()
  assert abs(noise.mean()) < 5 * 0.3 / np.sqrt(noise.size)
  assert noise.std() == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_corruption_belongs_to_the_example(kind):
  x = batch_of((20,), 6)["image"]
  whole = corrupt(kind, jax.random.key(0), x, 0.5)
  with batch_axis.scope(jnp.arange(2, 6)):
    part = corrupt(kind, jax.random.key(0), x[2:], 0.5)
  close(part, jax.tree.map(lambda leaf: leaf[2:], whole))


# Denoising layers.


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def stack(request):
  model = stacked.Model(SHAPE, 10, widths=(7, 6), tied=request.param)
  return model, *created(model, SHAPE), batch_of(SHAPE, 6)


@pytest.mark.parametrize(("layer", "kind"), [(0, "masking"), (1, "gaussian")])
def test_no_corruption_is_the_plain_autoencoder_bit_for_bit(stack, layer, kind):
  model, params, mutable, batch = stack
  plain = layerwise.Task(layer=layer)
  none = layerwise.Task(layer=layer, corruption=kind, level=0.0, clean_weight=0.5)
  found = [gradients(t.phases(model)[0], params, mutable, batch)[:2] for t in (none, plain)]
  same = jax.tree.map(lambda a, b: bool((a == b).all()), *found)
  assert all(jax.tree.leaves(same))


def test_as_good_as_no_corruption_is_the_plain_autoencoder(stack):
  """A level too low for a single component goes through the other code to the same loss."""
  model, params, mutable, batch = stack
  faint, plain = layerwise.Task(level=0.01), layerwise.Task()
  found = [gradients(t.phases(model)[0], params, mutable, batch)[:2] for t in (faint, plain)]
  close(found[0], found[1])


@needs_torch
@pytest.mark.parametrize(
  ("kind", "alpha", "beta", "layer"),
  [
    ("masking", 1.0, 1.0, 0),
    ("masking", 2.0, 0.0, 1),
    ("salt_and_pepper", 1.0, 0.5, 1),
    ("gaussian", 1.0, 1.0, 1),
  ],
)
def test_denoising_is_pytorchs(monkeypatch, stack, kind, alpha, beta, layer):
  """On the same corruption: corrupted codes in, the codes of clean images as the target."""
  import torch

  model, params, mutable, batch = stack
  seen = []

  def recorded(kind, key, x, level):
    result = corrupt(kind, jax.random.key(7), x, level)
    seen.append((kind, level))
    return result

  monkeypatch.setattr(layerwise, "corrupt", recorded)
  task = layerwise.Task(
    layer=layer, corruption=kind, level=0.4, corrupted_weight=alpha, clean_weight=beta
  )
  grads, loss, _, _ = gradients(task.phases(model)[0], params, mutable, batch)
  assert seen == [(kind, 0.4)]
  assert set(grads) == {f"layer_{layer}"}

  p = to_torch(params)
  x = torch.tensor(np.asarray(batch["image"], np.float64)).flatten(1)
  for below in range(layer):
    x = torch.sigmoid(torch_dense(p[f"layer_{below}"]["encoder"], x)).detach()
  noisy, touched = corrupt(kind, jax.random.key(7), jnp.asarray(x.numpy(), jnp.float32), 0.4)
  own = p[f"layer_{layer}"]
  code = torch.sigmoid(torch_dense(own["encoder"], torch.tensor(np.asarray(noisy, np.float64))))
  if model.tied:
    logits = code @ own["encoder"]["kernel"].T + own["decoder_bias"]
  else:
    logits = torch_dense(own["decoder"], code)
  bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
  weight = torch.where(torch.tensor(np.asarray(touched)), alpha, beta)
  expected = (weight * bce).sum(1).mean()
  close(loss, expected.detach())
  close(grads[f"layer_{layer}"], torch_gradients(expected, own), rtol=2e-5)


@needs_torch
def test_measuring_is_without_corruption(stack):
  import torch

  model, params, mutable, batch = stack
  task = layerwise.Task(level=0.5, corruption="gaussian", clean_weight=0.0)
  found = task.measure(model)(params, mutable, batch, jax.random.key(0))["loss"]
  x, logits = model.apply({"params": params}, batch["image"], layer=0, method="reconstruct")
  nll = torch_bernoulli_loss(*(torch.tensor(np.asarray(t, np.float64)) for t in (logits, x)))
  close(found.total / found.count, nll.mean())


# Losses whatever the way a batch is split, and whatever its values.

OBJECTIVES = {
  **{
    f"contrastive divergence, {name}, {layer}": (
      contrastive_divergence.Task(layer=layer),
      STACKS[name],
    )
    for name in STACKS
    for layer in (0, 2)
  },
  **{
    f"denoising, {kind}": (
      layerwise.Task(layer=1, corruption=kind, level=0.3),
      stacked.Model(SHAPE, 10, widths=(7, 6)),
    )
    for kind in KINDS
  },
  "regression": (regress.Task(of="image"), stacked.Model(SHAPE, targets=2, widths=(7, 6))),
}


def batch_for(examples):
  target = np.random.default_rng(3).normal(size=(examples, 2)).astype(np.float32)
  return {**batch_of(SHAPE, examples), "target": jnp.asarray(target)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_microbatches_change_nothing(name):
  task, model = OBJECTIVES[name]
  params, mutable = created(model, SHAPE)
  (phase,) = task.phases(model)
  args = (phase, params, mutable, batch_for(8), jnp.arange(8), jax.random.key(0))
  whole, parts = (step.gradients(*args, microbatches=n) for n in (1, 4))
  close(parts[:2], whole[:2], rtol=2e-5)


@pytest.mark.parametrize("scale", [1e4, -1e4])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_finite_at_extreme_inputs(name, scale):
  task, model = OBJECTIVES[name]
  params, mutable = created(model, SHAPE)
  batch = batch_for(4)
  batch["image"] = scale * batch["image"]
  grads, loss, _, _ = gradients(task.phases(model)[0], params, mutable, batch)
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("error", ["squared", "cross_entropy", "multinomial"])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_deep_autoencoders_are_finite_at_extreme_inputs(error, scale):
  output = {"squared": "linear", "cross_entropy": "logistic", "multinomial": "softmax"}[error]
  model = deep.Model((16,), (7,), 3, output=output)
  params, mutable = created(model, (16,))
  batch = batch_of((16,), 4)
  batch["image"] = scale * batch["image"]
  grads, loss, _, _ = gradients(
    reconstruction.Task(error=error).phases(model)[0], params, mutable, batch
  )
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


# Regression.


@needs_torch
def test_regression_is_pytorchs():
  import torch

  model = stacked.Model(SHAPE, targets=2, widths=(7, 6))
  params, mutable = created(model, SHAPE)
  batch = batch_for(6)
  (phase,) = regress.Task(of="image").phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)
  p = to_torch(params)
  x = torch.tensor(np.asarray(batch["image"], np.float64)).flatten(1)
  for layer in range(2):
    x = torch.sigmoid(torch_dense(p[f"layer_{layer}"]["encoder"], x))
  target = torch.tensor(np.asarray(batch["target"], np.float64))
  expected = (torch_dense(p["top"], x) - target).square().sum(1).mean()
  close(loss, expected.detach())
  expected.backward()
  trained = lambda tree: {k: v for k, v in tree.items() if k != "decoder"}  # noqa: E731
  theirs = {k: jax.tree.map(lambda t: t.grad.numpy(), trained(v)) for k, v in p.items()}
  close({k: trained(v) for k, v in grads.items()}, theirs)


def test_scores_of_a_regression_are_scikit_learns():
  linear_model = pytest.importorskip("sklearn.linear_model")
  metrics = pytest.importorskip("sklearn.metrics")
  source = diabetes.Source()
  train, test = (Examples(source.split(name).arrays) for name in ("train", "test"))
  guess = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
  call = lambda x, **_: types.SimpleNamespace(logits=guess)  # noqa: E731
  found = regress.Task().score(call, train, test)
  fitted = linear_model.LinearRegression().fit(train.arrays["features"], train.arrays["target"])
  target = test.arrays["target"]
  assert found["r2"] == pytest.approx(metrics.r2_score(target, guess), rel=1e-6)
  linear = metrics.r2_score(target, fitted.predict(test.arrays["features"]))
  assert found["linear_r2"] == pytest.approx(linear, rel=1e-4)


# Data.


def test_curves_are_functions_of_their_number():
  few, more = (curves.Source(curves=n, test_curves=5).split("train").arrays for n in (7, 12))
  np.testing.assert_array_equal(few["image"], more["image"][:7])
  # More at a time than are drawn at once, and not the test set's.
  parts = [curves.points("train", np.array([row])) for row in (0, 6)]
  np.testing.assert_array_equal(curves.draw(np.concatenate(parts)), few["image"][[0, 6]])
  test = curves.Source(curves=7, test_curves=5).split("test").arrays["image"]
  assert (test != few["image"][:5]).reshape(5, -1).any(1).all()
  assert len(np.unique(more["image"].reshape(12, -1), axis=0)) == 12
  assert few["image"].shape == (7, 28, 28, 1)
  assert few["image"].dtype == np.uint8


def test_curves_stay_inside_and_have_ink():
  image = curves.Source(curves=2000, test_curves=1).split("train").arrays["image"][..., 0]
  edge = np.concatenate([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], 1)
  assert not edge.any()
  assert (image.reshape(len(image), -1).max(1) > 150).all()


def test_a_curve_is_drawn_where_it_runs():
  points = np.array([[[5.0, 14.0], [14.0, 14.0], [23.0, 14.0]]], np.float32)
  image = curves.draw(points)[0, :, :, 0]
  # Level at y = 14, between rows 13 and 14: their centres lie half a pixel away.
  ink = lambda distance: round(255 * max(1 - distance / 2.5, 0))  # noqa: E731
  rows = [ink(abs(row + 0.5 - 14)) for row in range(28)]
  np.testing.assert_array_equal(image[:, 14], rows)
  assert image[13, 3] == ink(np.hypot(1.5, 0.5))
  # A curve has no direction, and its middle point bends it.
  np.testing.assert_array_equal(curves.draw(points[:, ::-1])[0, :, :, 0], image)
  bent = points.copy()
  bent[0, 1, 1] = 24
  assert curves.draw(bent)[0, 18, 13, 0] > 200  # halfway from the chord to the control point


def test_diabetes_is_scaled_by_its_training_part():
  datasets = pytest.importorskip("sklearn.datasets")
  source = diabetes.Source()
  parts = {name: source.split(name).arrays for name in ("train", "validation", "test")}
  assert [len(p["features"]) for p in parts.values()] == [300, 42, 100]
  features, target = (
    np.concatenate([parts[n][key] for n in ("train", "validation")])
    for key in ("features", "target")
  )
  raw = datasets.load_diabetes(scaled=False).data[np.random.RandomState(0).permutation(442)[:342]]
  np.testing.assert_allclose(features, (raw - raw.min(0)) / np.ptp(raw, axis=0), atol=1e-6)
  assert (abs(target.mean()), target.std()) == pytest.approx((0, 1), abs=1e-5)
  test = parts["test"]
  assert 0 <= test["features"].min() <= test["features"].max() <= 1
  # The scale is not the test part's own.
  assert abs(test["target"].std() - 1) > 1e-3
  assert source.facts() == {"data_shape": (10,), "targets": 1}
  assert {k: v.shape for k, v in source.spec().items()} == {"features": (10,), "target": (1,)}


@pytest.mark.parametrize(
  ("content", "says"), [("1 2 3\n", "shape"), ("x y\n", "not a gzipped table")]
)
def test_a_malformed_table_is_named(tmp_path, content, says):
  file = tmp_path / "diabetes_target.csv.gz"
  file.write_bytes(gzip.compress(content.encode()))
  with pytest.raises(ValueError, match=f"{file.name}.*{says}"):
    diabetes._table(file, 1)


def test_a_missing_table_says_how_to_get_it(tmp_path):
  with pytest.raises(FileNotFoundError, match="pip install"):
    diabetes._table(tmp_path / "diabetes_target.csv.gz", 1)


def test_every_kind_of_corruption_is_tested():
  assert set(KINDS) == set(corruptions.Kind.__args__)
