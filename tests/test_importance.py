"""Importance-weighted, ladder and conditional VAEs: sizes, PyTorch on the same weights, properties."""

import functools
import importlib.util
import itertools
import math
import types

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
  shapes,
  size,
  to_torch,
  torch_bernoulli_loss,
  torch_dense,
  torch_gradients,
)

from models.layers import batch_axis
from models.vae import Gaussian, conditional, importance, labelled, ladder
from tasks import conditional as completing
from tasks import elbo
from tasks import importance as weighted
from tasks import labelled as given_label
from tasks.objective import Examples
from training import build, config, step

SHAPE = (4, 4, 1)


# Sizes.


@pytest.mark.parametrize(
  ("hidden", "latents", "count"),
  [((200,), (50,), 425_284), ((200, 100), (100, 50), 521_084)],
)
def test_importance_weighted_sizes(hidden, latents, count):
  model = importance.Model(MNIST, hidden=hidden, latents=latents)
  assert size(shapes(model, MNIST)) == count


def test_ladder_size():
  """Two dense layers for every MLP, without biases before batch normalisation; two heads each."""
  widths, latents = (512, 256, 128, 64, 32), (64, 32, 16, 8, 4)
  up = list(zip((784, *widths), widths, strict=False))
  down = list(zip(latents, widths, strict=True))
  normalised = sum(a * b + 2 * b + b * b + 2 * b for a, b in up + down)
  heads = [*zip(widths, latents, strict=True), *zip(widths[1:], latents[:-1], strict=True)]
  linear = sum(2 * (h * z + z) for h, z in heads) + 512 * 784 + 784
  variables = shapes(ladder.Model(MNIST), MNIST)
  assert size(variables["params"]) == normalised + linear == 1_858_936
  # A mean and a variance where there are a scale and a bias.
  assert size(variables["batch_stats"]) == sum(4 * b for _, b in up + down)


@pytest.mark.parametrize("quadrants", [1, 2, 3])
def test_conditional_sizes(quadrants):
  """784-500-500 networks: what is observed, the guess of the rest, and z where they meet it."""
  x = 196 * quadrants
  y = 784 - x
  model = conditional.Model(MNIST)
  zeros = jnp.zeros((1, x)), jnp.zeros((1, y))
  params = jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, *zeros))["params"]
  mlp = lambda a, b: a * 500 + 500 + 500 * 500 + 500 + 500 * b + b  # noqa: E731
  assert {name: size(tree) for name, tree in params.items()} == {
    "baseline": mlp(x, y),
    "recognition": mlp(x + y + y, 400),
    "conditional_prior": mlp(x + y, 400),
    "generation": mlp(x + y + 200, y),
  }


def test_labelled_size():
  zeros = jnp.zeros((1, *MNIST)), jnp.zeros(1, jnp.int32)
  model = labelled.Model(MNIST, 10)
  params = jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, *zeros))["params"]
  assert size(params) == (784 + 10) * 500 + 500 + 501 * 100 + (50 + 10) * 500 + 500 + 501 * 784


def test_layers_need_both_their_sizes():
  for family in (importance, ladder):
    with pytest.raises(ValueError, match="one each a layer"):
      family.Model(SHAPE, hidden=(5, 4), latents=(3,))


# PyTorch in float64 on the same weights and the same noise.


def noise(model, params, mutable, key, examples, latents):
  """What a model's call draws, in its order: [B, Z] for each of `latents`."""
  draw = lambda module: [  # noqa: E731
    batch_axis.normal(module.make_rng("latent"), (examples, z)) for z in latents
  ]
  run = lambda: model.apply({"params": params, **mutable}, method=draw, rngs={"params": key})  # noqa: E731
  return jax.jit(run)()


def tensor(x):
  import torch

  return torch.tensor(np.asarray(x, np.float64))


def torch_conditional(p, parent):
  """(mean, standard deviation) of Burda et al.'s Gaussian given its parent."""
  import torch

  h = torch.tanh(torch_dense(p["hidden_1"], torch.tanh(torch_dense(p["hidden_0"], parent))))
  return torch_dense(p["mean"], h), torch.exp(torch_dense(p["log_std"], h))


def torch_log_density(z, mean, std):
  import torch

  return torch.distributions.Normal(mean, std).log_prob(z).sum(-1)


def torch_decode(p, z):
  import torch

  h = torch.tanh(torch_dense(p["decoder_1"], torch.tanh(torch_dense(p["decoder_0"], z))))
  return torch_dense(p["output"], h)


def torch_log_weight(p, x, drawn):
  """(log w [B], log p(x|z) [B]) of the model with as many layers as there are draws."""
  parent, latents, log_w = x, [], 0.0
  for i, eps in enumerate(drawn):
    mean, std = torch_conditional(p[f"recognition_{i}"], parent)
    parent = mean + std * tensor(eps)
    log_w = log_w - torch_log_density(parent, mean, std)
    latents.append(parent)
  for i, above in enumerate(latents[1:]):
    log_w = log_w + torch_log_density(latents[i], *torch_conditional(p[f"generation_{i}"], above))
  zero = 0 * latents[-1]
  log_w = log_w + torch_log_density(latents[-1], zero, zero + 1)
  log_p = -torch_bernoulli_loss(torch_decode(p, latents[0]), x)
  return log_w + log_p, log_p


LAYERS = {"one": dict(hidden=(7,), latents=(3,)), "two": dict(hidden=(7, 6), latents=(4, 3))}


@functools.cache
def weighed(layers):
  """A small model, its parameters, and a batch of binary images."""
  model = importance.Model(SHAPE, **LAYERS[layers])
  params, mutable = created(model, SHAPE)
  batch = batch_of(SHAPE, 5)
  return model, params, mutable, {**batch, "image": (batch["image"] > 0.5).astype(jnp.float32)}


def torch_log_weights(layers, p, samples, key):
  """[K, B] log weights and log p(x|z), with the noise of the task's K draws."""
  import torch

  model, params, mutable, batch = weighed(layers)
  x = tensor(batch["image"]).flatten(1)
  found = [
    torch_log_weight(p, x, noise(model, params, mutable, k, len(x), model.latents))
    for k in jax.random.split(key, samples)
  ]
  return (torch.stack(values) for values in zip(*found, strict=True))


@needs_torch
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("bound", ["importance", "evidence"])
@pytest.mark.parametrize("layers", LAYERS)
def test_importance_weighted_bound_is_pytorchs(layers, bound, samples):
  import torch

  model, params, mutable, batch = weighed(layers)
  (phase,) = weighted.Task(samples=samples, bound=bound).phases(model)
  grads, loss, _, metrics = gradients(phase, params, mutable, batch)
  p = to_torch(params)
  log_w, log_p = torch_log_weights(layers, p, samples, jax.random.key(0))
  if bound == "importance":
    expected = -(torch.logsumexp(log_w, 0) - math.log(samples)).mean()
  else:
    expected = -log_w.mean()
  ours = [loss, metrics["reconstruction"], metrics["kl"]]
  close(ours, [v.detach() for v in (expected, -log_p.mean(), (log_p - log_w).mean())])
  close(grads, torch_gradients(expected, p))


@needs_torch
def test_its_gradient_weighs_those_of_the_log_weights_by_their_softmax():
  """Burda et al., eq. 13: constant weights; by PyTorch, so that nothing of ours is on both sides."""
  import torch

  model, params, mutable, batch = weighed("two")
  (phase,) = weighted.Task(samples=4).phases(model)
  grads, *_ = gradients(phase, params, mutable, batch)
  p = to_torch(params)
  log_w, _ = torch_log_weights("two", p, 4, jax.random.key(0))
  constant = torch.softmax(log_w, 0).detach()
  close(grads, torch_gradients(-(constant * log_w).sum(0).mean(), p))
  # Without holding them constant it is another gradient, as in a well-known port.
  wrong = to_torch(params)
  log_w, _ = torch_log_weights("two", wrong, 4, jax.random.key(0))
  found = torch_gradients(-(torch.softmax(log_w, 0) * log_w).sum(0).mean(), wrong)
  with pytest.raises(AssertionError, match="relative error"):
    close(grads, found, rtol=1e-2)


@needs_torch
def test_its_gradient_is_pythaes():
  """`pip install --no-deps pythae dill cloudpickle pydantic`."""
  reason = "parity is also against pythae"
  if importlib.util.find_spec("pythae") is None:
    pytest.skip(reason)
  import torch

  try:
    from pythae.models.iwae.iwae_model import IWAE
  except ImportError as error:
    pytest.skip(f"{reason}: {error}")
  model, params, mutable, batch = weighed("one")
  samples = 4
  (phase,) = weighted.Task(samples=samples).phases(model)
  grads, *_ = gradients(phase, params, mutable, batch)
  p = to_torch(params)
  x = tensor(batch["image"]).flatten(1)
  mean, std = torch_conditional(p["recognition_0"], x)
  drawn = [
    tensor(noise(model, params, mutable, k, len(x), (3,))[0])
    for k in jax.random.split(jax.random.key(0), samples)
  ]
  z = torch.stack([mean + std * eps for eps in drawn], 1)
  repeated = lambda t: t.unsqueeze(1).repeat(1, samples, 1)  # noqa: E731
  settings = types.SimpleNamespace(
    model_config=types.SimpleNamespace(reconstruction_loss="bce"), n_samples=samples
  )
  loss, _, _ = IWAE.loss_function(
    settings,
    torch.sigmoid(torch_decode(p, z)),
    x,
    repeated(mean),
    repeated(2 * torch.log(std)),
    z,
  )
  close(grads, torch_gradients(loss, p))


def torch_hidden(p, stats, x, *, train):
  """Two layers of leaky rectifiers, batch-normalised."""
  import torch.nn.functional as F

  for i in range(2):
    s = stats[f"norm_{i}"]
    scope = p[f"norm_{i}"]
    x = F.batch_norm(
      x @ p[f"dense_{i}"]["kernel"],
      s["mean"],
      s["variance"],
      scope["scale"],
      scope["bias"],
      train,
      momentum=0.1,
      eps=1e-5,
    )
    x = F.leaky_relu(x, 0.1)
  return x


def torch_heads(p, h):
  """(mean, variance)."""
  import torch.nn.functional as F

  return torch_dense(p["mean"], h), F.softplus(torch_dense(p["variance"], h)) + 1e-6


@needs_torch
@pytest.mark.parametrize("layers", [2, 3])
def test_ladder_is_pytorchs(layers):
  import torch

  hidden, latents, examples = (8, 7, 6)[:layers], (5, 4, 3)[:layers], 6
  model = ladder.Model(SHAPE, hidden=hidden, latents=latents)
  params, mutable = created(model, SHAPE)
  batch = batch_of(SHAPE, examples)
  (phase,) = elbo.Task().phases(model)
  grads, loss, after, metrics = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  stats = jax.tree.map(lambda x: torch.tensor(np.asarray(x, np.float64)), mutable["batch_stats"])
  drawn = noise(model, params, mutable, jax.random.key(0), examples, latents[::-1])
  x = tensor(batch["image"]).flatten(1)
  d, found = x, []
  for i in range(layers):
    d = torch_hidden(p[f"up_{i}"], stats[f"up_{i}"], d, train=True)
    found.append(torch_heads(p[f"up_heads_{i}"], d))
  kl, z, normal = 0.0, None, torch.distributions.Normal
  for i, eps in zip(reversed(range(layers)), drawn, strict=True):
    mean, variance = found[i]
    prior = normal(torch.zeros_like(mean), torch.ones_like(mean))
    if z is not None:
      h = torch_hidden(p[f"down_{i + 1}"], stats[f"down_{i + 1}"], z, train=True)
      prior_mean, prior_variance = torch_heads(p[f"down_heads_{i}"], h)
      prior = normal(prior_mean, prior_variance.sqrt())
      # Eq. 13 and 14, as they are printed.
      precision = 1 / variance + 1 / prior_variance
      mean = (mean / variance + prior_mean / prior_variance) / precision
      variance = 1 / precision
    z = mean + variance.sqrt() * tensor(eps)
    posterior = normal(mean, variance.sqrt())
    kl = kl + torch.distributions.kl_divergence(posterior, prior).sum(1)
  h = torch_hidden(p["down_0"], stats["down_0"], z, train=True)
  nll = torch_bernoulli_loss(torch_dense(p["output"], h), x)
  expected = (nll + kl).mean()
  close([loss, metrics["kl"]], [expected.detach(), kl.mean().detach()])
  close(grads, torch_gradients(expected, p), rtol=5e-5)
  close(after["batch_stats"], stats)


def torch_mlp(p, *inputs):
  import torch

  x = torch.cat(inputs, -1)
  for i in range(2):
    x = torch.relu(torch_dense(p[f"Dense_{i}"], x))
  return torch_dense(p["Dense_2"], x)


def completion(quadrants, hybrid=0.0, trains="latent"):
  """The task, a small model, its parameters and a batch."""
  task = completing.Task(quadrants=quadrants, hybrid=hybrid, trains=trains)
  model = conditional.Model(SHAPE, hidden=(9, 8), latents=3)
  batch = batch_of(SHAPE, 6)
  inputs = task.inputs(batch)
  params = jax.jit(lambda: model.init({"params": jax.random.key(0)}, *inputs))()["params"]
  generator = np.random.default_rng(0)
  move = lambda x: x + 0.1 * generator.normal(size=x.shape).astype(np.float32)  # noqa: E731
  return task, model, jax.tree.map(move, params), batch


# A quadrant of a 4x4 image: bottom left, top left, top right, bottom right.
QUADRANTS = [(8, 9, 12, 13), (0, 1, 4, 5), (2, 3, 6, 7), (10, 11, 14, 15)]


@needs_torch
@pytest.mark.parametrize(("quadrants", "hybrid"), [(1, 0.0), (2, 0.3), (3, 1.0)])
def test_conditional_bound_is_pytorchs(quadrants, hybrid):
  import torch

  task, model, params, batch = completion(quadrants, hybrid)
  (phase,) = task.phases(model)
  grads, loss, _, metrics = gradients(phase, params, {}, batch)

  p = to_torch(params)
  pixels = tensor(batch["image"]).flatten(1)
  seen = sorted(i for quadrant in QUADRANTS[:quadrants] for i in quadrant)
  x, y = pixels[:, seen], pixels[:, [i for i in range(16) if i not in seen]]
  guess = torch.sigmoid(torch_mlp(p["baseline"], x)).detach()
  split = lambda moments: (moments[:, :3], torch.exp(moments[:, 3:] / 2))  # noqa: E731
  q_mean, q_std = split(torch_mlp(p["recognition"], x, y, guess))
  p_mean, p_std = split(torch_mlp(p["conditional_prior"], x, guess))
  keys = jax.random.split(jax.random.key(0))  # of the posterior, of the prior
  eps = [tensor(noise(model, params, {}, key, 6, (3,))[0]) for key in keys]

  def nll(z):
    return torch_bernoulli_loss(torch_mlp(p["generation"], x, guess, z), y).mean()

  normal = torch.distributions.Normal
  kl = torch.distributions.kl_divergence(normal(q_mean, q_std), normal(p_mean, p_std))
  bound = nll(q_mean + q_std * eps[0]) + kl.sum(1).mean()
  predicted = nll(p_mean + p_std * eps[1])
  expected = (1 - hybrid) * bound + hybrid * predicted
  close([loss, metrics["kl"]], [expected.detach(), kl.sum(1).mean().detach()])
  assert "prior_reconstruction" not in metrics or hybrid
  groups = ("recognition", "conditional_prior", "generation")
  assert set(grads) == set(groups)
  if hybrid == 1.0:  # whose loss never sees the recognition network
    expected = expected + 0 * bound
  found = torch_gradients(expected, {name: p[name] for name in groups})
  close(grads, found)


@needs_torch
def test_the_baseline_is_pytorchs_and_is_alone_in_its_phase():
  task, model, params, batch = completion(2, trains="baseline")
  (phase,) = task.phases(model)
  grads, loss, _, metrics = gradients(phase, params, {}, batch)
  p = to_torch(params)
  pixels = tensor(batch["image"]).flatten(1)
  # The left half is observed.
  x, y = pixels.reshape(6, 4, 4)[:, :, :2].flatten(1), pixels.reshape(6, 4, 4)[:, :, 2:].flatten(1)
  expected = torch_bernoulli_loss(torch_mlp(p["baseline"], x), y).mean()
  close([loss, metrics["baseline_nll"]], [expected.detach()] * 2)
  assert set(grads) == {"baseline"}
  close(grads["baseline"], torch_gradients(expected, p["baseline"]))


@needs_torch
def test_labelled_bound_is_pytorchs():
  import torch

  model = labelled.Model(SHAPE, 10, hidden=7, latents=3)
  batch = batch_of(SHAPE, 5)
  task = given_label.Task(beta=2.0)
  init = jax.jit(lambda: model.init({"params": jax.random.key(0)}, *task.inputs(batch)))
  params = init()["params"]
  (phase,) = task.phases(model)
  grads, loss, _, metrics = gradients(phase, params, {}, batch)
  p = to_torch(params)
  x = tensor(batch["image"]).flatten(1)
  label = torch.nn.functional.one_hot(torch.tensor(np.asarray(batch["label"], np.int64)), 10)
  h = torch.tanh(torch_dense(p["encoder"], torch.cat([x, label], 1)))
  mean, log_variance = torch_dense(p["posterior"], h).split(3, 1)
  (eps,) = noise(model, params, {}, jax.random.key(0), 5, (3,))
  z = mean + torch.exp(log_variance / 2) * tensor(eps)
  logits = torch_dense(p["output"], torch.tanh(torch_dense(p["decoder"], torch.cat([z, label], 1))))
  kl = 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance).sum(1).mean()
  expected = torch_bernoulli_loss(logits, x).mean() + 2 * kl
  close([loss, metrics["kl"]], [expected.detach(), kl.detach()])
  close(grads, torch_gradients(expected, p))


# Properties.


@pytest.mark.parametrize("layers", LAYERS)
def test_more_samples_give_a_tighter_bound(layers):
  model, params, mutable, batch = weighed(layers)

  def bound(samples):
    measure = weighted.Task(samples=samples).measure(model)
    run = jax.jit(lambda key: measure(params, mutable, batch, key)["loss"].total / 5)
    return -np.asarray(jax.lax.map(run, jax.random.split(jax.random.key(1), 4000 // samples)))

  found = [bound(samples) for samples in (1, 5, 50)]
  for fewer, more in itertools.pairwise(found):
    errors = [x.std(ddof=1) / math.sqrt(len(x)) for x in (fewer, more)]
    assert more.mean() - fewer.mean() > 3 * math.hypot(*errors)


def test_one_sample_is_the_evidence_lower_bound_on_the_average():
  model, params, mutable, batch = weighed("one")
  keys = jax.random.split(jax.random.key(1), 3000)

  def mean(task):
    measure = task.measure(model)
    run = jax.jit(lambda key: measure(params, mutable, batch, key)["loss"].total / 5)
    found = np.asarray(jax.lax.map(run, keys))
    return found.mean(), found.std(ddof=1) / math.sqrt(len(found))

  (sampled, error), (closed, other) = mean(weighted.Task(samples=1)), mean(elbo.Task())
  assert error > other  # the divergence is sampled here, known there
  assert abs(sampled - closed) < 4 * math.hypot(error, other)


def test_layers_inferred_upwards_have_no_closed_divergence():
  model, params, mutable, batch = weighed("two")
  with pytest.raises(ValueError, match="no closed form"):
    elbo.Task().phases(model)
  elbo.Task().phases(weighed("one")[0])
  # And the closed form would be wrong: z_2 is drawn given z_1, on which the prior's place depends.
  count = 20_000
  out = jax.jit(
    jax.vmap(lambda key: model.apply({"params": params}, batch["image"], rngs={"params": key}))
  )(jax.random.split(jax.random.key(0), count))
  sampled = np.asarray(jax.jit(jax.vmap(weighted.sampled_divergence))(out))
  closed = np.asarray(sum(jax.vmap(elbo.divergence)(layer).sum(-1) for layer in out.layers))
  gap = (sampled - closed).mean(1)
  assert abs(gap.mean()) > 5 * gap.std() / math.sqrt(count)


@pytest.mark.parametrize(
  "settings", [dict(free_bits=0.1), dict(capacity=1.0)], ids=["free_bits", "capacity"]
)
def test_what_needs_a_closed_divergence_is_refused(settings):
  with pytest.raises(ValueError, match="closed form"):
    weighted.Task(**settings)


def test_warm_up_weighs_the_sampled_divergence():
  model, params, mutable, batch = weighed("two")
  (phase,) = weighted.Task(samples=1, warmup_steps=10, beta=2.0).phases(model)

  def weight(step):
    _, loss, _, m = gradients(phase, params, mutable, {**batch, "step": jnp.full(5, step)})
    return float((loss - m["reconstruction"]) / m["kl"])

  assert [weight(step) for step in (0, 5, 10, 99)] == pytest.approx([0, 1, 2, 2], abs=1e-5)


def test_draws_are_normalised_apart():
  """The statistics that k draws leave behind are the mean of what each would leave."""
  model = ladder.Model(SHAPE, hidden=(6, 5), latents=(3, 2))
  params, mutable = created(model, SHAPE)
  batch = batch_of(SHAPE, 6)
  (phase,) = weighted.Task(samples=3).phases(model)
  _, _, after, _ = gradients(phase, params, mutable, batch)

  @jax.jit
  def left(key):
    variables, rngs = {"params": params, **mutable}, {"params": key}
    return model.apply(variables, batch["image"], train=True, mutable=list(mutable), rngs=rngs)[1]

  apart = [left(key) for key in jax.random.split(jax.random.key(0), 3)]
  close(after, jax.tree.map(lambda *x: sum(x) / 3, *apart), rtol=1e-5)


def test_the_reported_bounds_are_of_samples_of_their_own():
  """Of the same samples they would be in order whatever the weights, by Jensen's inequality."""
  asked = []

  class Fake(weighted.Task):
    def log_weights(self, call, examples, samples):
      asked.append(samples)
      return np.random.default_rng(0).normal(size=(samples, 7))

  call = types.SimpleNamespace(
    model=types.SimpleNamespace(observation=types.SimpleNamespace(discrete=False))
  )
  weights_KN = np.random.default_rng(0).normal(size=(1000, 7))
  found = Fake().likelihood(call, weights_KN, Examples({}))
  assert asked == [4000]
  assert {"nll", "bound_1", "bound_5", "bound_50", "bound_1000"} <= set(found)
  everything = np.random.default_rng(0).normal(size=(4000, 7))
  assert found["bound_1"] == pytest.approx(everything[3000:].mean())
  assert "bound_50" not in Fake().likelihood(call, weights_KN[:20], Examples({}))


def test_a_product_of_gaussians_is_weighted_by_precision():
  generator = np.random.default_rng(0)
  a, b = (Gaussian(*generator.normal(size=(2, 4, 3)).astype(np.float32)) for _ in range(2))
  found = ladder.combined(a, b)
  precision = np.exp(-a.log_variance) + np.exp(-b.log_variance)
  np.testing.assert_allclose(np.exp(found.log_variance), 1 / precision, rtol=1e-5)
  mean = (a.mean * np.exp(-a.log_variance) + b.mean * np.exp(-b.log_variance)) / precision
  np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-6)
  # A distribution that is sure decides, whatever float32 makes of its precision.
  sure = Gaussian(b.mean, jnp.full((4, 3), -200.0))
  np.testing.assert_allclose(ladder.combined(a, sure).mean, b.mean, rtol=1e-6)
  assert np.isfinite(jax.tree.leaves(ladder.combined(a, sure))).all()


def test_the_ladder_shares_its_way_down_with_the_generative_model():
  model = ladder.Model(SHAPE, hidden=(6, 5), latents=(3, 2))
  params, mutable = created(model, SHAPE)
  image = batch_of(SHAPE, 4)["image"]
  run = jax.jit(
    lambda params: model.apply(
      {"params": params, **mutable}, image, rngs={"params": jax.random.key(0)}
    )
  )
  found = run(params)
  # The posterior of the layer below is never less sure than the prior it takes part in.
  below = found.layers[0]
  assert (below.posterior.log_variance < below.prior.log_variance).all()
  # Moving the generative model's conditional moves the posterior too.
  moved = {**params, "down_heads_0": jax.tree.map(lambda x: x + 0.5, params["down_heads_0"])}
  assert float(jnp.abs(run(moved).layers[0].posterior.mean - below.posterior.mean).max()) > 0.01
  np.testing.assert_array_equal(run(moved).layers[1].posterior.mean, found.layers[1].posterior.mean)


@pytest.mark.parametrize("name", ["importance", "ladder"])
def test_draws_from_the_prior_go_from_the_top_down(name):
  family = {"importance": importance, "ladder": ladder}[name]
  model = family.Model(SHAPE, hidden=(6, 5), latents=(3, 2))
  params, mutable = created(model, SHAPE)
  key = jax.random.key(0)
  apply = jax.jit(
    lambda params: model.apply(
      {"params": params, **mutable}, method="prior", examples=3000, rngs={"params": key}
    )
  )
  z = apply(params)
  assert z.shape == (3000, 3)
  # With conditionals that are constant, the draws have their mean and deviation.
  group = {"importance": "generation_0", "ladder": "down_heads_0"}[name]
  flat = jax.tree.map(jnp.zeros_like, params[group])
  flat["mean"]["bias"] = jnp.asarray([1.0, -2.0, 0.5])
  z = apply({**params, group: flat})
  std = {"importance": 1.0, "ladder": math.sqrt(math.log(2))}[name]
  np.testing.assert_allclose(z.mean(0), [1.0, -2.0, 0.5], atol=0.1)
  np.testing.assert_allclose(z.std(0), std, rtol=0.06)


@pytest.mark.parametrize("quadrants", [1, 2, 3])
def test_quadrants_are_observed_in_their_order(quadrants):
  image = jnp.arange(32.0).reshape(2, 4, 4, 1)
  x, y = completing.Task(quadrants=quadrants).inputs({"image": image})
  seen = sorted(i for quadrant in QUADRANTS[:quadrants] for i in quadrant)
  np.testing.assert_array_equal(x[0], seen)
  np.testing.assert_array_equal(y[1], [16 + i for i in range(16) if i not in seen])


def test_what_is_hidden_reaches_neither_prior_nor_prediction():
  task, model, params, batch = completion(2)

  def through(method, *inputs):
    jacobian = jax.jacobian(
      lambda image: model.apply(
        {"params": params},
        *[task.inputs({"image": image})[i] for i in inputs],
        method=method,
        rngs={"params": jax.random.key(0)},
      )[0]
    )
    return jax.jit(jacobian)(batch["image"][:1])

  hidden = np.zeros((4, 4, 1), bool)
  hidden[:, 2:] = True
  for method in ("guess", "prior", "predict"):
    change = np.abs(through(method, 0)).reshape(-1, 4, 4, 1).sum(0)
    assert not change[hidden].any()
    assert change[~hidden].all()
  # The recognition network sees both.
  assert np.abs(through("encode", 0, 1)).reshape(-1, 16).sum(0).all()


def test_the_label_reaches_encoder_and_decoder():
  model = labelled.Model(SHAPE, 10, hidden=7, latents=3)
  batch = batch_of(SHAPE, 4)
  label = jnp.zeros(4, jnp.int32)
  params = model.init({"params": jax.random.key(0)}, batch["image"], label)["params"]
  run = lambda method, *inputs: np.asarray(  # noqa: E731
    jax.tree.leaves(model.apply({"params": params}, *inputs, method=method))[0]
  )
  z = jnp.ones((4, 3))
  for method, first in (("encode", batch["image"]), ("decode", z)):
    assert np.abs(run(method, first, label) - run(method, first, label + 3)).max() > 1e-3


TASKS = {
  "one": (weighted.Task(samples=3), importance.Model(SHAPE, **LAYERS["one"])),
  "two": (weighted.Task(samples=3), importance.Model(SHAPE, **LAYERS["two"])),
  "ladder": (elbo.Task(), ladder.Model(SHAPE, hidden=(6, 5), latents=(3, 2))),
  "plain ladder": (
    elbo.Task(),
    ladder.Model(SHAPE, hidden=(6, 5), latents=(3, 2), batch_norm=False),
  ),
  "conditional": (completing.Task(hybrid=0.5), conditional.Model(SHAPE, hidden=(9, 8), latents=3)),
  "baseline": (
    completing.Task(trains="baseline"),
    conditional.Model(SHAPE, hidden=(9, 8), latents=3),
  ),
  "labelled": (given_label.Task(), labelled.Model(SHAPE, 10, hidden=7, latents=3)),
}


@pytest.mark.parametrize("name", TASKS)
def test_losses_and_gradients_are_finite_at_extreme_inputs(name):
  task, model = TASKS[name]
  batch = batch_of(SHAPE, 4)
  (phase,) = task.phases(model)

  @jax.jit
  def run(scale, key):
    extreme = {**batch, "image": scale * batch["image"]}
    variables = model.init({"params": key}, *task.inputs(extreme))
    mutable = {k: v for k, v in variables.items() if k != "params"}
    found = step.gradients(phase, variables["params"], mutable, extreme, jnp.arange(4), key)
    return found, task.measure(model)(variables["params"], mutable, extreme, key)

  for scale in (1e4, -1e4):
    for path, leaf in jax.tree.leaves_with_path(run(scale, jax.random.key(0))):
      assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)


# The published recipe.


def test_the_paper_variant_is_the_published_recipe():
  (stage,) = build.build(config.load("experiments/vae/importance_mnist.py:paper")).stages
  epoch, rate = 59_600 // 20, stage.rates[0]
  assert stage.training.steps == 3_280 * epoch
  printed = [1e-3, 7.2e-4, 5.2e-4, 3.7e-4, 2.7e-4, 1.9e-4, 1.4e-4, 1e-4]
  start = 0
  for i, expected in enumerate(printed):
    stop = start + 3**i * epoch
    # The first and the last update of the stage.
    for update in (start, stop - 1):
      assert float(rate(jnp.int32(update))) == pytest.approx(expected, rel=0.02), (i, update)
    start = stop
  assert start == stage.training.steps
  (optimizer,) = stage.optimizers
  assert (optimizer.b1, optimizer.b2, 20 * optimizer.epsilon) == (0.9, 0.999, pytest.approx(1e-4))
  source = stage.source
  assert (source.batch_size, source.validation, source.binarize) == (20, 400, "dynamic")
  assert (stage.model.hidden, stage.model.latents) == ((200,), (50,))
  assert stage.task.nll_samples == 5000
