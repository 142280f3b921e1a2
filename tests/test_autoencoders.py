"""Basic autoencoders: their sizes, PyTorch's numbers on the same weights, what the papers claim."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import (
  MNIST,
  batch_of,
  close,
  created,
  gradients,
  needs_torch,
  padded,
  shapes,
  size,
  to_torch,
  torch_bernoulli_loss,
  torch_dense,
  torch_gradients,
)
from test_parallel import WAYS, assert_close, stage_of, steps_of

from evaluation import pca, subspace
from models.autoencoder import convolutional, k_sparse, shallow, stacked_convolutional
from tasks import contractive, principal, reconstruction, sparse
from tasks import k_sparse as k_sparse_task
from tasks.objective import Examples
from training import step

DIGITS = (8, 8, 1)
SMALL = (4, 4, 1)


# Sizes. The numbers are sums over the layers that the papers name, done by hand.


@pytest.mark.parametrize(
  ("data_shape", "code", "tied", "count"),
  [
    (DIGITS, 8, False, 1_096),  # the linear autoencoder
    (DIGITS, 25, False, 3_289),  # Ng's 64-25-64
    (MNIST, 1000, True, 785_784),  # the contractive autoencoder
  ],
)
def test_shallow_sizes(data_shape, code, tied, count):
  assert size(shapes(shallow.Model(data_shape, code, tied=tied), data_shape)) == count


def test_k_sparse_size():
  assert size(shapes(k_sparse.Model(MNIST), MNIST)) == 785_784


def test_convolutional_sizes():
  params = shapes(convolutional.Model(MNIST), MNIST)["params"]
  assert {name: size(tree) for name, tree in params.items()} == {
    "encoder_0": 160,
    "encoder_1": 4_640,
    "to_code": 50_208,
    "from_code": 51_744,
    "decoder_0": 4_624,
    "decoder_1": 145,
  }
  assert size(params) == 111_521


def test_stacked_convolutional_sizes():
  params = shapes(stacked_convolutional.Model(MNIST, 10), MNIST)["params"]
  # Kernels, a bias a map, a decoder's bias a channel below: 28 -> 24, 12 -> 8, 4 -> 2.
  assert {name: size(tree) for name, tree in params.items()} == {
    "layer_0": 25 * 100 + 100 + 1,
    "layer_1": 25 * 100 * 150 + 150 + 100,
    "layer_2": 9 * 150 * 200 + 200 + 150,
    "top": 800 * 300 + 300 + 300 * 10 + 10,
  }


@pytest.mark.parametrize("shape", [(6, 6, 1), (4, 6, 1)])
def test_maps_that_do_not_halve_are_refused(shape):
  with pytest.raises(ValueError, match="halve"):
    shapes(convolutional.Model(shape), shape)


def test_maps_that_do_not_pool_are_refused():
  model = stacked_convolutional.Model(DIGITS, 10, widths=(2,), sides=(4,), pools=(2,))
  with pytest.raises(ValueError, match="no whole blocks"):
    shapes(model, DIGITS)
  model = stacked_convolutional.Model(DIGITS, 10, widths=(2,), sides=(3, 3), pools=(2,))
  with pytest.raises(ValueError, match="differ"):
    shapes(model, DIGITS)


# PyTorch on the same weights, in float64, so that what differs is ours.


def torch_image(batch):
  import torch

  return torch.tensor(np.asarray(batch["image"], np.float64))


def torch_shallow(p, x, *, activation, tied):
  """(code, logits) of flat images."""
  import torch

  act = {"linear": lambda a: a, "logistic": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}
  code = act[activation](x @ p["kernel"] + p["bias"])
  return code, code @ (p["kernel"].T if tied else p["decoder_kernel"]) + p["decoder_bias"]


@needs_torch
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
  ("activation", "output"),
  [("linear", "linear"), ("logistic", "logistic"), ("tanh", "linear"), ("relu", "logistic")],
)
def test_shallow_is_pytorchs(activation, output, tied):
  import torch

  model = shallow.Model(SMALL, 5, activation=activation, output=output, tied=tied)
  params, mutable = created(model, SMALL)
  batch = batch_of(SMALL, 6)
  (phase,) = reconstruction.Task(error="squared").phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)

  p, x = to_torch(params), torch_image(batch).flatten(1)
  _, logits = torch_shallow(p, x, activation=activation, tied=tied)
  found = torch.sigmoid(logits) if output == "logistic" else logits
  expected = (found - x).square().sum(1).mean()
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p))


@needs_torch
@pytest.mark.parametrize("k", [1, 3, 7])
def test_k_sparse_is_pytorchs(k):
  import torch

  model = k_sparse.Model(SMALL, code=7, k=k)
  params, mutable = created(model, SMALL)
  batch = batch_of(SMALL, 6)
  (phase,) = reconstruction.Task(error="squared").phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)

  p, x = to_torch(params), torch_image(batch).flatten(1)
  z = x @ p["kernel"] + p["bias"]
  value, place = z.topk(k)
  found = torch.zeros_like(z).scatter(1, place, value) @ p["kernel"].T + p["decoder_bias"]
  expected = (found - x).square().sum(1).mean()
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p))


@needs_torch
@pytest.mark.parametrize("error", ["squared", "cross_entropy"])
def test_convolutional_is_pytorchs(error):
  import torch
  import torch.nn.functional as F

  model = convolutional.Model(DIGITS, features=(3, 5), code=4)
  params, mutable = created(model, DIGITS)
  batch = batch_of(DIGITS, 6)
  (phase,) = reconstruction.Task(error=error).phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)

  def down(layer, x):
    # "SAME" at stride 2: one pixel more at the end alone.
    kernel = layer["kernel"].permute(3, 2, 0, 1)
    return F.relu(F.conv2d(F.pad(x, (0, 1, 0, 1)), kernel, layer["bias"], stride=2))

  def up(layer, x):
    kernel = layer["kernel"].permute(2, 3, 0, 1).flip(2, 3)
    return F.conv_transpose2d(x, kernel, layer["bias"], stride=2)[:, :, :-1, :-1]

  p, image = to_torch(params), torch_image(batch)
  x = down(p["encoder_1"], down(p["encoder_0"], image.permute(0, 3, 1, 2)))
  code = torch_dense(p["to_code"], x.permute(0, 2, 3, 1).flatten(1))
  x = F.relu(torch_dense(p["from_code"], code)).reshape(-1, 2, 2, 5).permute(0, 3, 1, 2)
  logits = up(p["decoder_1"], F.relu(up(p["decoder_0"], x))).permute(0, 2, 3, 1)
  expected = {
    "squared": (torch.sigmoid(logits) - image).square().flatten(1).sum(1).mean(),
    "cross_entropy": torch_bernoulli_loss(logits, image).mean(),
  }[error]
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p))


MASCI = dict(widths=(3, 4), sides=(3, 2), pools=(2, 1), hidden=5)


@needs_torch
@pytest.mark.parametrize("layer", [0, 1])
def test_stacked_convolutional_layers_are_pytorchs(layer):
  import torch
  import torch.nn.functional as F

  model = stacked_convolutional.Model(DIGITS, 10, **MASCI)
  params, _ = created(model, DIGITS)
  image = batch_of(DIGITS, 5)["image"]

  def ours(params):
    x, logits = model.apply({"params": params}, image, layer=layer, method="reconstruct")
    return jnp.square(jax.nn.sigmoid(logits) - jax.lax.stop_gradient(x)).sum(), logits

  (_, logits), grads = jax.value_and_grad(ours, has_aux=True)(params)

  p = to_torch(params)
  x = torch.tensor(np.asarray(image, np.float64)).permute(0, 3, 1, 2)

  def hidden(name, x):
    return torch.sigmoid(F.conv2d(x, p[name]["kernel"].permute(3, 2, 0, 1), p[name]["bias"]))

  if layer:
    x = F.max_pool2d(hidden("layer_0", x), 2).detach()
  own = p[f"layer_{layer}"]
  h = hidden(f"layer_{layer}", x)
  if layer == 0:
    value, place = F.max_pool2d(h, 2, return_indices=True)
    h = F.max_unpool2d(value, place, 2)
  # The layer's own kernel, which conv_transpose2d flips.
  theirs = F.conv_transpose2d(h, own["kernel"].permute(3, 2, 0, 1), own["decoder_bias"])
  close(logits, theirs.permute(0, 2, 3, 1).detach())
  (torch.sigmoid(theirs) - x).square().sum().backward()
  close(grads[f"layer_{layer}"], jax.tree.map(lambda t: t.grad.numpy(), own))


@needs_torch
def test_stacked_convolutional_classifier_is_pytorchs():
  import torch
  import torch.nn.functional as F

  model = stacked_convolutional.Model(DIGITS, 10, **MASCI)
  params, _ = created(model, DIGITS)
  image = batch_of(DIGITS, 5)["image"]
  ours = model.apply({"params": params}, image).logits
  p = to_torch(params)
  x = torch.tensor(np.asarray(image, np.float64)).permute(0, 3, 1, 2)
  for name, pool in (("layer_0", 2), ("layer_1", 1)):
    x = torch.sigmoid(F.conv2d(x, p[name]["kernel"].permute(3, 2, 0, 1), p[name]["bias"]))
    x = F.max_pool2d(x, pool)
  h = torch.sigmoid(torch_dense(p["top"]["Dense_0"], x.permute(0, 2, 3, 1).flatten(1)))
  close(ours, torch_dense(p["top"]["Dense_1"], h).detach())


# The code of the k-sparse autoencoder.


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("of", ["normal", "ties", "negative", "far"])
def test_exactly_k_units_stay_and_they_are_the_largest(k, of):
  generator = np.random.default_rng(0)
  z = generator.normal(size=(20, 7)).astype(np.float32)
  z = {
    "normal": z,
    "ties": np.round(z) + 0.5,  # of equals, the first ones
    "negative": -np.abs(z),
    "far": (1e38 * z).astype(np.float32),
  }[of]
  found = np.asarray(jax.jit(k_sparse.largest)(jnp.asarray(z), jnp.int32(k)))
  expected = np.zeros_like(z)
  for row, place in enumerate(np.argsort(-z, axis=1, kind="stable")[:, :k]):
    expected[row, place] = z[row, place]
  np.testing.assert_array_equal(found, expected)
  assert ((found != 0).sum(1) == k).all()


def test_dropped_units_get_no_gradient():
  model = k_sparse.Model(SMALL, code=7, k=3)
  params, _ = created(model, SMALL)
  image = batch_of(SMALL, 1)["image"]
  grads = jax.grad(
    lambda p: jnp.square(model.apply({"params": p}, image).reconstruction - image).sum()
  )(params)
  kept = np.asarray(model.apply({"params": params}, image).code)[0] != 0
  assert kept.sum() == 3
  assert not np.any(grads["kernel"][:, ~kept])
  assert not np.any(grads["bias"][~kept])
  assert np.all(np.any(grads["kernel"][:, kept], axis=0))
  assert np.all(grads["bias"][kept])


def test_with_every_unit_kept_it_is_the_linear_autoencoder():
  sparse = k_sparse.Model(SMALL, code=7, k=7)
  linear = shallow.Model(SMALL, 7, activation="linear", output="linear")
  params, _ = created(sparse, SMALL)
  image = batch_of(SMALL, 5)["image"]
  ours, theirs = (model.apply({"params": params}, image) for model in (sparse, linear))
  close(ours, theirs, rtol=1e-6)


# Contraction.


@pytest.mark.parametrize("activation", ["linear", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("tied", [True, False])
def test_contraction_is_the_jacobians_norm(activation, tied):
  model = shallow.Model(SMALL, 5, activation=activation, tied=tied)
  params, _ = created(model, SMALL)
  image = batch_of(SMALL, 4)["image"]
  encode = lambda x: model.apply({"params": params}, x[None], method="encode")[0]  # noqa: E731
  jacobian = jax.vmap(jax.jacrev(encode))(image).reshape(4, 5, -1)
  found = model.apply({"params": params}, image, method="contraction")
  close(found, jnp.square(jacobian).sum((1, 2)), rtol=1e-6)


def test_contraction_of_a_linear_encoder_is_weight_decay():
  model = shallow.Model(SMALL, 5, activation="linear")
  params, _ = created(model, SMALL)
  found = model.apply({"params": params}, batch_of(SMALL, 3)["image"], method="contraction")
  close(found, np.full(3, np.square(params["kernel"]).sum()), rtol=1e-6)


# What max-pooling erases.


def test_only_the_largest_of_a_block_is_decoded():
  h = np.random.default_rng(0).random((2, 4, 6, 3)).astype(np.float32)
  found = np.asarray(stacked_convolutional.erased(jnp.asarray(h), 2))
  blocks = lambda x: x.reshape(2, 2, 2, 3, 2, 3)  # noqa: E731
  assert ((blocks(found) > 0).sum((2, 4)) == 1).all()
  np.testing.assert_array_equal(blocks(found).max((2, 4)), blocks(h).max((2, 4)))
  np.testing.assert_array_equal(stacked_convolutional.erased(jnp.asarray(h), 1), h)


# Objectives.


def penalised(model, task, batch, seed=0):
  """(phase, params, gradients, loss, metrics) of a task's one phase."""
  params, mutable = created(model, model.data_shape, seed)
  (phase,) = task.phases(model)
  grads, loss, _, metrics = gradients(phase, params, mutable, batch)
  return params, grads, loss, metrics


@needs_torch
@pytest.mark.parametrize("beta", [0.0, 3.0])
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_sparse_objective_is_pytorchs(beta, margin):
  import torch

  model, batch = shallow.Model(SMALL, 5, tied=False, margin=margin), batch_of(SMALL, 6)
  task = sparse.Task(rho=0.05, beta=beta)
  params, grads, loss, metrics = penalised(model, task, batch)

  # As in the notes: of pixels that lie in [margin, 1 - margin] from the start.
  p = to_torch(params)
  x = margin + (1 - 2 * margin) * torch_image(batch).flatten(1)
  code, logits = torch_shallow(p, x, activation="logistic", tied=False)
  rho = code.mean(0)
  kl = torch.nn.functional.kl_div  # of log q and p, element by element p (log p - log q)
  both = [(rho, 0.05), (1 - rho, 0.95)]
  divergence = sum(
    kl(q.log(), torch.full_like(q, target), reduction="none").sum() for q, target in both
  )
  expected = 0.5 * (torch.sigmoid(logits) - x).square().sum(1).mean() + beta * divergence
  close(loss, expected.detach(), rtol=3e-5)
  close(metrics["activation"], rho.mean().detach())
  # The bound that keeps the logarithm finite is 1e-6 of an activation.
  close(grads, torch_gradients(expected, p), rtol=3e-5)


@needs_torch
@pytest.mark.parametrize("contraction", [0.0, 0.1, 2.0])
def test_contractive_objective_is_pytorchs(contraction):
  import torch

  model, batch = shallow.Model(SMALL, 5), batch_of(SMALL, 6)
  params, grads, loss, _ = penalised(model, contractive.Task(contraction=contraction), batch)
  p, x = to_torch(params), torch_image(batch).flatten(1)
  code, logits = torch_shallow(p, x, activation="logistic", tied=True)
  encode = lambda x: torch.sigmoid(x @ p["kernel"] + p["bias"])  # noqa: E731
  jacobian = torch.func.vmap(torch.func.jacrev(encode))(x)
  expected = (torch_bernoulli_loss(logits, x) + contraction * jacobian.square().sum((1, 2))).mean()
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p))


@pytest.mark.parametrize("of", ["logistic", "other"])
def test_objectives_refuse_what_they_say_nothing_of(of):
  if of == "logistic":
    with pytest.raises(ValueError, match="logistic"):
      sparse.Task().phases(shallow.Model(SMALL, 5, activation="relu"))
  else:
    with pytest.raises(ValueError, match="tied"):
      contractive.Task().phases(shallow.Model(SMALL, 5, tied=False))
    with pytest.raises(ValueError, match="units"):
      shapes(k_sparse.Model(SMALL, code=3, k=4), SMALL)


def test_units_that_are_always_off_or_on_keep_the_divergence_finite():
  value, slope = jax.vmap(jax.value_and_grad(lambda q: sparse.divergence(0.01, q, 1 - q)))(
    jnp.asarray([0.0, 0.01, 1.0])
  )
  assert np.isfinite(value).all()
  assert np.isfinite(slope).all()
  assert slope[0] < 0 < slope[2]
  np.testing.assert_allclose(value[1], 0, atol=1e-6)


@pytest.mark.parametrize(
  ("model", "task"),
  [
    (shallow.Model(SMALL, 5, tied=False), sparse.Task()),
    (shallow.Model(SMALL, 5), contractive.Task()),
    (shallow.Model(SMALL, 5, activation="linear", output="linear"), principal.Task()),
    (k_sparse.Model(SMALL, code=7, k=3), k_sparse_task.Task()),
    (convolutional.Model(SMALL, features=(3, 4), code=2), reconstruction.Task()),
  ],
  ids=["sparse", "contractive", "linear", "k-sparse", "convolutional"],
)
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_finite_at_extreme_inputs(model, task, scale):
  batch = batch_of(SMALL, 4)
  batch["image"] = scale * batch["image"]
  _, grads, loss, _ = penalised(model, task, batch)
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("task", [sparse.Task(beta=0.0), contractive.Task(contraction=0.0)])
def test_without_the_penalty_it_is_a_plain_autoencoder(task):
  model, batch = shallow.Model(SMALL, 5), batch_of(SMALL, 6)
  _, grads, loss, _ = penalised(model, task, batch)
  _, plain_grads, plain, _ = penalised(model, reconstruction.Task(error=task.error), batch)
  weight = 0.5 if task.error == "squared" else 1.0
  close(loss, weight * plain)
  close(grads, jax.tree.map(lambda g: weight * g, plain_grads))


def test_the_mean_activation_is_that_of_the_whole_batch():
  """The penalty of a mean is no mean of penalties: microbatches differ, padded rows do not."""
  model, batch = shallow.Model(SMALL, 5), batch_of(SMALL, 6)
  task = sparse.Task(beta=3.0)
  params, grads, loss, _ = penalised(model, task, batch)
  (phase,) = task.phases(model)
  again, padded_loss, _, _ = gradients(phase, params, {}, padded(batch, 2))
  close(padded_loss, loss, rtol=1e-6)
  close(again, grads, rtol=1e-5)
  code = model.apply({"params": params}, batch["image"]).code
  tied = lambda mean: sparse.divergence(0.01, mean, 1 - mean).sum()  # noqa: E731
  by_half = [tied(code[i : i + 3].mean(0)) for i in (0, 3)]
  assert float(sum(by_half) / 2) > float(tied(code.mean(0))) + 1e-4


@pytest.mark.parametrize("way", ["jit", "pmap"])
def test_sparse_losses_do_not_depend_on_the_devices(way):
  path = "experiments/autoencoder/sparse_digits.py"
  found, state = steps_of(stage_of(path), WAYS[way](), 10)
  wanted, wanted_state = steps_of(stage_of(path), WAYS["one device"](), 10)
  assert_close(found, wanted)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
    state.params,
    wanted_state.params,
  )


def test_k_falls_over_the_first_steps():
  model = k_sparse.Model(SMALL, code=11, k=3)
  task = k_sparse_task.Task(falling_steps=8)
  params, _ = created(model, SMALL)
  (phase,) = task.phases(model)
  run = jax.jit(functools.partial(step.gradients, phase))
  batch, active = batch_of(SMALL, 4), {}
  for i in (0, 2, 4, 8, 100):
    seen = {**batch, "step": jnp.full(4, i, jnp.int32)}
    *_, metrics = run(params, {}, seen, jnp.arange(4), jax.random.key(0))
    active[i] = float(metrics["active"].total / metrics["active"].count)
  assert active == {0: 11, 2: 9, 4: 7, 8: 3, 100: 3}
  measured = task.measure(model)(params, {}, batch, jax.random.key(0))
  assert float(measured["active"].total / 4) == 3


# Scores.


class Trained:
  """A model with its parameters, called as a task's score calls one."""

  def __init__(self, model, params):
    self.model, self._params = model, params

  def __call__(self, *inputs, method="__call__", seed=0, **fixed):
    out = self.model.apply({"params": self._params}, *inputs, method=method, **fixed)
    return jax.tree.map(np.asarray, out)


def data(examples, seed=0):
  generator = np.random.default_rng(seed)
  image = generator.random((examples, *SMALL), np.float32)
  return Examples({"image": image, "label": np.arange(examples, dtype=np.int32) % 3})


def test_scores_of_an_autoencoder_that_is_pca():
  """Whatever basis of the subspace its units have; and of one that is not."""
  train, test = data(60), data(20, seed=1)
  mean_D, directions = pca.components(train.arrays["image"], 3)
  mix = np.asarray([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [1.0, 0.0, 3.0]])
  kernel = directions.T @ np.linalg.inv(mix)
  model = shallow.Model(SMALL, 3, activation="linear", output="linear", tied=False)
  params = {
    "kernel": kernel,
    "bias": -mean_D @ kernel,
    "decoder_kernel": mix @ directions,
    "decoder_bias": mean_D,
  }
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
  found = principal.Task().score(Trained(model, params), train, test)
  assert found["pca_gap"] == pytest.approx(0, abs=1e-5)
  assert found["pca_cosine"] == pytest.approx(1, abs=1e-5)
  out = model.apply({"params": params}, test.arrays["image"])
  squared = np.square(out.reconstruction - test.arrays["image"]).sum((1, 2, 3)).mean()
  assert found["pca_squared"] == pytest.approx(float(squared), rel=1e-5)
  # One principal direction for another one that is none.
  _, many = pca.components(train.arrays["image"], 4)
  wrong = mix @ many[[0, 1, 3]]
  found = principal.Task().score(
    Trained(model, {**params, "decoder_kernel": jnp.asarray(wrong, jnp.float32)}), train, test
  )
  assert found["pca_gap"] > 1e-3
  assert found["pca_cosine"] == pytest.approx(0, abs=1e-5)


def test_scores_of_contraction_and_sparsity():
  train, test = data(30), data(12, seed=1)
  model = shallow.Model(SMALL, 5)
  params, _ = created(model, SMALL)
  params["bias"] = jnp.asarray([-30.0, 30.0, 0.0, 0.0, 0.0])
  params["kernel"] = params["kernel"].at[:, 2:].multiply(0.1)
  call = Trained(model, params)
  code = call(test.arrays["image"]).code
  found = contractive.Task().score(call, train, test)
  norm = np.sqrt(call(test.arrays["image"], method="contraction")).mean()
  assert found["jacobian_norm"] == pytest.approx(float(norm), rel=1e-5)
  assert found["saturated"] == pytest.approx(0.4)
  found = sparse.Task(rho=0.2).score(call, train, test)
  rho = call(train.arrays["image"]).code.mean(0)
  assert found["activation_train"] == pytest.approx(float(rho.mean()), rel=1e-5)
  assert found["activation_train_off"] == pytest.approx(0.8, abs=1e-4)  # the unit always on
  assert found["rho"] == 0.2
  assert code.shape == (12, 5)


def test_features_keep_alpha_k_units_and_dead_units_are_counted():
  train, test = data(30), data(12, seed=1)
  model = k_sparse.Model(SMALL, code=11, k=3)
  params, _ = created(model, SMALL)
  params["bias"] = params["bias"].at[:2].set(-100.0)  # never among the largest
  call = Trained(model, params)
  for alpha, kept in ((1.0, 3), (2.0, 6), (9.0, 11)):
    features = k_sparse_task.Task(alpha=alpha).features(call, test)
    assert ((features != 0).sum(1) == kept).all()
  found = k_sparse_task.Task(alpha=2.0).score(call, train, test)
  never = np.mean((call(train.arrays["image"]).code == 0).all(0))
  assert found["dead"] == pytest.approx(never)
  assert never >= 2 / 11
  assert found["k"] == 3
  assert {"linear_accuracy", "pixels_linear_accuracy"} <= found.keys()


# Subspaces.


def test_principal_angles_are_scipys():
  linalg = pytest.importorskip("scipy.linalg")
  generator = np.random.default_rng(0)
  for first, second in ((3, 3), (2, 5), (4, 1)):
    a, b = generator.normal(size=(first, 9)), generator.normal(size=(second, 9))
    expected = np.sort(np.cos(linalg.subspace_angles(a.T, b.T)))[::-1]
    np.testing.assert_allclose(subspace.cosines(a, b), expected, atol=1e-12)


def test_principal_angles_do_not_depend_on_the_basis():
  generator = np.random.default_rng(0)
  a = generator.normal(size=(3, 9))
  np.testing.assert_allclose(subspace.cosines(a, generator.normal(size=(3, 3)) @ a), 1, atol=1e-12)
  across = np.eye(9)[3:5]
  np.testing.assert_allclose(subspace.cosines(np.eye(9)[:3], across), 0, atol=1e-12)
  # One direction shared, one at 60 degrees.
  tilted = np.stack([np.eye(9)[0], 0.5 * np.eye(9)[1] + math.sqrt(0.75) * np.eye(9)[4]])
  np.testing.assert_allclose(subspace.cosines(np.eye(9)[:2], tilted), [1, 0.5], atol=1e-12)
