"""Observation models p(x|z): PyTorch's numbers, sums to one, finite at the extremes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_models import batch_of, close, created, gradients, needs_torch

from evaluation import independent
from models.layers import observation
from models.vae import convolutional, gaussian, mlp
from tasks import elbo

NAMES = ("bernoulli", "gaussian", "gaussian_fixed", "categorical", "logistic")
SHAPE = (5, 3, 2, 1)  # [B, H, W, C]


def drawn(name, levels=17, std=0.7, seed=0, scale=1.0):
  """(observation model, parameters [B, H, W, C, P], x [B, H, W, C] on the grey levels)."""
  generator = np.random.default_rng(seed)
  model = observation.of(name, levels, std)
  parameters = scale * generator.normal(size=(*SHAPE, model.size)).astype(np.float32)
  x = generator.integers(0, levels, SHAPE).astype(np.float32) / (levels - 1)
  return model, jnp.asarray(parameters), jnp.asarray(x)


def torch_nll(name, p, x, levels=17, std=0.7):
  """-log p(x) [B] by torch.distributions, or by the formula of the paper in float64."""
  import torch

  D = torch.distributions
  if name == "bernoulli":
    # The cross-entropy of grey pixels too.
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    return bce(p[..., 0], x, reduction="none").flatten(1).sum(1)
  if name == "categorical":
    level = (x * (levels - 1)).round().long()
    return -D.Categorical(logits=p).log_prob(level).flatten(1).sum(1)
  if name == "gaussian_fixed":
    return -D.Normal(p[..., 0], std).log_prob(x).flatten(1).sum(1)
  if name == "gaussian":
    least = 2 * math.log(0.01)
    deviation = torch.exp(0.5 * (least + torch.nn.functional.softplus(p[..., 1] - least)))
    return -D.Normal(p[..., 0], deviation).log_prob(x).flatten(1).sum(1)
  # Salimans et al. 2017, eq. 2: the difference of two cumulative distributions.
  scale, half = torch.exp(p[..., 1]), 0.5 / (levels - 1)
  upper = torch.sigmoid((x + half - p[..., 0]) / scale)
  lower = torch.sigmoid((x - half - p[..., 0]) / scale)
  upper = torch.where(x > 1 - half, torch.ones_like(x), upper)
  lower = torch.where(x < half, torch.zeros_like(x), lower)
  return -torch.log(upper - lower).flatten(1).sum(1)


@needs_torch
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_and_their_gradients_are_pytorchs(name, levels):
  import torch

  model, parameters, x = drawn(name, levels)
  p = torch.tensor(np.asarray(parameters, np.float64), requires_grad=True)
  expected = torch_nll(name, p, torch.tensor(np.asarray(x, np.float64)), levels)
  expected.sum().backward()
  nll, gradient = jax.vmap(jax.value_and_grad(lambda p, x: model.nll(p[None], x[None])[0]))(
    parameters, x
  )
  close(nll, expected.detach(), rtol=1e-5)
  # A level of 256 is a difference of cumulative distributions that float32 hardly tells apart.
  close(gradient, p.grad, rtol=1e-4 if name == "logistic" else 1e-5)


@needs_torch
@pytest.mark.parametrize("name", NAMES)
def test_the_bound_of_a_vae_is_pytorchs(name, monkeypatch):
  """The whole objective: how the decoder's numbers reach the observation model."""
  import torch
  from test_models import to_torch, torch_dense, torch_gradients

  from models.layers import batch_axis

  shape, examples = (4, 3, 1), 5
  model = gaussian.Model(shape, 17, hidden=7, latents=3, likelihood=name, observation_std=0.7)
  params, mutable = created(model, shape)
  batch = batch_of(shape, examples)
  batch["image"] = jnp.round(batch["image"] * 16) / 16
  noise = np.random.default_rng(1).normal(size=(examples, 3)).astype(np.float32)
  monkeypatch.setattr(batch_axis, "normal", lambda key, shape, dtype=jnp.float32: noise)
  (phase,) = elbo.Task().phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  x = torch.tensor(np.asarray(batch["image"], np.float64))
  moments = torch_dense(p["posterior"], torch.tanh(torch_dense(p["encoder"], x.flatten(1))))
  mean, log_variance = moments.chunk(2, dim=1)
  z = mean + torch.exp(log_variance / 2) * torch.tensor(noise, dtype=torch.float64)
  out = torch_dense(p["output"], torch.tanh(torch_dense(p["decoder"], z)))
  kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(1)
  nll = torch_nll(name, out.reshape(*x.shape, model.observation.size), x)
  expected = (nll + kl).mean()
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p), rtol=2e-5)


@pytest.mark.parametrize(
  ("name", "levels"),
  [("bernoulli", 2), *((n, k) for n in ("categorical", "logistic") for k in (2, 17, 256))],
)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_discrete_likelihoods_sum_to_one_over_the_levels(name, levels, scale):
  model, parameters, _ = drawn(name, levels, scale=scale)
  assert model.discrete
  every = jnp.linspace(0, 1, levels)[:, None, None, None, None] * jnp.ones((1, *SHAPE))
  log_p = model.log_prob(jnp.broadcast_to(parameters, (levels, *parameters.shape)), every)
  assert float(log_p.max()) <= 1e-6
  np.testing.assert_allclose(jnp.exp(log_p).sum(0), 1, rtol=2e-4)


@pytest.mark.parametrize("name", ["gaussian", "gaussian_fixed"])
def test_densities_integrate_to_one_and_are_no_probabilities(name):
  model, parameters, _ = drawn(name)
  assert not model.discrete
  x = np.linspace(-12, 12, 4001, dtype=np.float32)
  some = parameters.reshape(-1, model.size)[:6]
  grid = jnp.broadcast_to(some, (len(x), *some.shape))
  density = jnp.exp(model.log_prob(grid, jnp.asarray(x)[:, None] * jnp.ones((1, 6))))
  np.testing.assert_allclose(np.trapezoid(density, x, axis=0), 1, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_mean_and_the_levels(name):
  """The mean of many draws is the mean that figures show."""
  model, parameters, _ = drawn(name, scale=0.5, seed=3)
  if name == "logistic":
    # Narrow and within [0, 1], where little is cut off: the mean shown is the location.
    parameters = parameters.at[..., 0].set(0.4).at[..., 1].set(-3.5)
  many = jnp.broadcast_to(parameters, (4000, *parameters.shape))
  x = np.asarray(model.sample(jax.random.key(0), many))
  error = x.std(0) / math.sqrt(4000)
  assert (np.abs(x.mean(0) - np.asarray(model.mean(parameters))) < 5 * error + 1e-3).all()
  assert x.std(0).min() > 0  # not the mean itself
  if name == "gaussian_fixed":
    np.testing.assert_allclose(x.std(0), 0.7, rtol=0.07)
  if name == "gaussian":
    # The entropy of N(., s^2) is what the draws' own likelihood is on average.
    nll = -np.asarray(model.log_prob(many, jnp.asarray(x))).mean(0)
    np.testing.assert_allclose(nll, 0.5 * np.log(2 * math.pi * math.e) + np.log(x.std(0)), atol=0.1)
  if model.discrete and name != "bernoulli":
    np.testing.assert_allclose(x * 16, np.round(x * 16), atol=1e-4)
    assert x.min() >= 0
    assert x.max() <= 1


def test_samples_have_the_likelihood():
  """How often each level is drawn is what log_prob says of it."""
  for name in ("categorical", "logistic"):
    model, parameters, _ = drawn(name, levels=5, scale=0.7, seed=1)
    one = parameters[0, 0, 0, 0]
    x = model.sample(jax.random.key(1), jnp.broadcast_to(one, (20_000, len(one))))
    counts = np.bincount(np.round(np.asarray(x) * 4).astype(int), minlength=5)
    p = np.exp(
      np.asarray(model.log_prob(jnp.broadcast_to(one, (5, len(one))), jnp.linspace(0, 1, 5)))
    ).astype(np.float64)
    assert stats.chisquare(counts, 20_000 * p / p.sum()).pvalue > 1e-3, name


@pytest.mark.parametrize("value", [-1e4, 1e4])
@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_are_finite_at_extreme_parameters(name, value, x):
  model, parameters, _ = drawn(name)
  image = jnp.full(SHAPE, x)
  # Alone in each place, and everywhere at once.
  for i in (*range(model.size), slice(None)):
    extreme = parameters.at[..., i].set(value)
    nll, gradient = jax.value_and_grad(lambda p: model.nll(p, image).sum())(extreme)
    assert np.isfinite(nll)
    assert np.isfinite(gradient).all()


def test_a_constant_pixel_has_a_bounded_density():
  """Where a pixel never varies, the learned deviation goes to 0.01 and no further."""
  model = observation.of("gaussian", 0)
  x = jnp.zeros((1, 1))
  densest = math.log(1 / (0.01 * math.sqrt(2 * math.pi)))
  # In float32 the last digits of so dense a place are noise.
  nll = lambda raw: float(model.nll(jnp.array([[[0.0, raw]]]), x)[0])  # noqa: E731
  assert nll(-1e4) == pytest.approx(-densest, rel=1e-5)
  found = [nll(raw) for raw in (0.0, -5.0, -20.0, -100.0)]
  assert found == sorted(found, reverse=True)
  assert min(found) >= -densest - 1e-4
  # And where it would not be followed, a gradient leads back.
  away = jax.grad(lambda raw: model.nll(jnp.stack([jnp.zeros(()), raw])[None, None], x + 0.5)[0])
  assert float(away(jnp.asarray(-8.0))) < -0.1


def test_continuous_data_have_no_grey_levels():
  for name in ("categorical", "logistic"):
    with pytest.raises(ValueError, match="continuous"):
      observation.of(name, 0)
  assert not observation.of("bernoulli", 0).discrete
  assert not observation.of("bernoulli", 256).discrete  # a cross-entropy, no likelihood


@pytest.mark.parametrize("name", NAMES)
def test_every_network_speaks_every_observation_model(name):
  shape = (4, 4, 2)
  size = observation.of(name, 5).size
  for model in (
    gaussian.Model(shape, 5, hidden=6, latents=3, likelihood=name),
    mlp.Model(shape, 5, latents=3, encoder_widths=(6,), decoder_widths=(6,), likelihood=name),
    convolutional.Model(shape, 5, latents=3, channels=(3,), hidden=6, likelihood=name),
  ):
    out = jax.eval_shape(
      lambda model=model: model.init_with_output(
        {"params": jax.random.key(0)}, jnp.zeros((2, *shape))
      )[0]
    )
    assert out.parameters.shape == (2, *shape, size)


def test_independent_histograms_are_counted():
  """One pixel, three levels: two of four training examples show the first, two the last."""
  train = np.array([0, 0, 1, 1], np.float32)[:, None]
  # (count + 1) / (4 + 3): 3/7, 1/7, 3/7.
  test = np.array([0, 0.5, 1], np.float32)[:, None]
  expected = -(2 * math.log(3 / 7) + math.log(1 / 7)) / 3
  assert independent.nll(train, test, 3) == pytest.approx(expected)
  # Pixels add up.
  both = [np.repeat(x, 2, axis=1) for x in (train, test)]
  assert independent.nll(*both, 3) == pytest.approx(2 * expected)


def test_no_vae_beats_the_histograms_of_independent_noise():
  """Levels drawn at random have nothing to learn: their entropy is the bound for everyone."""
  generator = np.random.default_rng(0)
  train, test = (generator.integers(0, 4, (n, 6)) / 3 for n in (20_000, 5000))
  assert independent.nll(train, test, 4) == pytest.approx(6 * math.log(4), rel=1e-3)
