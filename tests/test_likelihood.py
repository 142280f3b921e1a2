"""Likelihoods of VAEs where the truth is known, and the figures that are read off them.

The model: p(z) = N(0, I), p(x|z) = N(W z + b, s^2 I), so p(x) = N(b, W W^T + s^2 I), and the
posterior is a Gaussian of covariance C = (I + W^T W / s^2)^-1 and mean C W^T (x - b) / s^2. Columns
of W are orthogonal, so C is diagonal and a diagonal q can be exact.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data import source as sources
from evaluation import importance, latents
from models.layers import batch_axis, observation
from models.vae import Gaussian, Layer, Output, standard
from tasks import elbo
from tasks.objective import Examples
from training import build, config
from training.evaluate import examples
from training.initial import order_seed
from training.look import measure
from training.machine import Machine

X, Z, STD = 6, 3, 0.7
_generator = np.random.default_rng(0)
W = np.linalg.qr(_generator.normal(size=(X, Z)))[0] * np.array([2.0, 1.0, 0.3])
B = _generator.normal(size=X)
COVARIANCE = 1 / (1 + (W**2).sum(0) / STD**2)


class Linear(nn.Module):
  """The model above; q is off the exact posterior by `shift` standard deviations, `wider` times."""

  shift: float = 0.0
  wider: float = 1.0

  @property
  def observation(self):
    return observation.of("gaussian_fixed", 0, STD)

  def encode(self, x_BX):
    exact = (x_BX - B.astype(np.float32)) @ (W * COVARIANCE / STD**2).astype(np.float32)
    std = np.sqrt(COVARIANCE).astype(np.float32)
    log_variance = jnp.broadcast_to(2 * jnp.log(std * self.wider), exact.shape)
    return Gaussian(exact + self.shift * std, log_variance)

  def __call__(self, x_BX, *, train=False):
    mean, log_variance = posterior = self.encode(x_BX)
    z_BZ = mean + jnp.exp(log_variance / 2) * batch_axis.normal(self.make_rng("latent"), mean.shape)
    parameters = (z_BZ @ W.T.astype(np.float32) + B.astype(np.float32))[..., None]
    return Output(parameters, (Layer(posterior, standard(mean), z_BZ),))


def data(count, seed=1):
  generator = np.random.default_rng(seed)
  z = generator.normal(size=(count, Z))
  x = z @ W.T + B + STD * generator.normal(size=(count, X))
  return x.astype(np.float32)


def evidence(x):
  """log p(x) [N] in float64."""
  covariance = W @ W.T + STD**2 * np.eye(X)
  gap = x.astype(np.float64) - B
  quadratic = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(covariance), gap)
  return -0.5 * (X * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + quadratic)


class Call:
  """A model without parameters, called as `tasks.objective.Call` says."""

  def __init__(self, model):
    self.model, self._compiled = model, {}

  def __call__(self, *inputs, method="__call__", seed=0, **fixed):
    key = (method, *fixed.items())
    if key not in self._compiled:
      self._compiled[key] = jax.jit(
        lambda key, *inputs: self.model.apply(
          {}, *inputs, method=method, rngs={"params": key}, **fixed
        )
      )
    return jax.tree.map(np.asarray, self._compiled[key](jax.random.key(seed), *inputs))


def weights(model, x, samples):
  """Log weights [samples, N], by the task's own way to them."""
  return elbo.Task().log_weights(Call(model), Examples({"image": x}), samples)


# The evidence of the linear Gaussian model.


def test_with_the_exact_posterior_one_sample_is_the_evidence():
  x = data(40)
  log_w = weights(Linear(), x, 3)
  # p(x, z) / p(z|x) is p(x) whatever z.
  np.testing.assert_allclose(log_w, np.broadcast_to(evidence(x), log_w.shape), atol=2e-4)
  found = importance.nll(log_w)
  assert found["nll"] == pytest.approx(-evidence(x).mean(), abs=1e-4)
  assert found["nll_monte_carlo_se"] < 1e-4
  assert found["nll_se"] == pytest.approx(evidence(x).std(ddof=1) / math.sqrt(40), rel=1e-3)


WRONG = {"shifted": dict(shift=0.5), "wide": dict(wider=1.5), "both": dict(shift=0.3, wider=1.2)}


def divergence_from_the_posterior(shift=0.0, wider=1.0):
  """KL(q || p(z|x)) in nats, the same for every x."""
  return 0.5 * Z * (wider**2 + shift**2 - 1 - 2 * math.log(wider))


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_bound_is_the_evidence_less_the_divergence_from_the_posterior(wrong):
  x, model = data(200), Linear(**wrong)
  batch = {"image": jnp.asarray(x), "mask": jnp.ones(len(x))}
  measure = elbo.Task().measure(model)

  @jax.jit
  def bound(key):
    found = measure({}, {}, batch, key)["elbo"]
    return found.total / found.count

  found = np.asarray(jax.lax.map(bound, jax.random.split(jax.random.key(0), 400)))
  expected = evidence(x).mean() - divergence_from_the_posterior(**wrong)
  margin = 5 * found.std(ddof=1) / math.sqrt(len(found))
  assert margin < 0.05 < divergence_from_the_posterior(**wrong)
  assert abs(found.mean() - expected) < margin


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_estimate_comes_down_to_the_evidence(wrong):
  x, model = data(50), Linear(**wrong)
  log_w = weights(model, x, 20_000)
  truth = evidence(x).mean()
  bounds = [importance.bound(log_w, k) for k in (1, 10, 100, 10_000)]
  # From below, and nearer with every sample.
  assert bounds[0] < bounds[1] < bounds[2] < truth + 1e-3
  assert bounds[0] == pytest.approx(truth - divergence_from_the_posterior(**wrong), abs=0.02)
  assert bounds[3] == pytest.approx(truth, abs=5e-3)
  assert importance.nll(log_w)["nll"] == pytest.approx(-truth, abs=5e-3)


def test_bounds_of_samples_of_their_own_rise_with_k():
  x, model = data(100), Linear(shift=0.5, wider=1.3)
  log_w = weights(model, x, 4000)
  found = [
    importance.bound(log_w[i * 1000 : (i + 1) * 1000], k) for i, k in enumerate((1, 4, 16, 64))
  ]
  assert found == sorted(found)
  assert found[-1] - found[0] > 0.5 * divergence_from_the_posterior(0.5, 1.3)


def test_the_standard_error_of_sampling_is_that_of_repeats():
  x, model, samples = data(20), Linear(shift=0.3, wider=1.2), 200
  log_w = weights(model, x, 200 * samples).reshape(200, samples, -1)
  found = [importance.nll(repeat) for repeat in log_w]
  estimates = np.array([f["nll"] for f in found])
  errors = np.array([f["nll_monte_carlo_se"] for f in found])
  # The z-scores of 200 repeats around the truth have a deviation of 1, known to 5 %.
  z = (estimates + evidence(x).mean()) / errors
  assert 0.8 < z.std() < 1.2
  assert abs(z.mean()) < 0.35
  # Averaged over many examples, the bias of a logarithm is within sight; it is upward, as it must.
  assert estimates.mean() > -evidence(x).mean() - 3 * errors.mean() / math.sqrt(200)


def test_the_error_over_examples_is_that_of_the_mean():
  generator = np.random.default_rng(0)
  found = []
  for _ in range(400):
    x = data(50, seed=generator.integers(1 << 30))
    found.append(importance.nll(evidence(x)[None] + np.zeros((2, 1))))
  z = [(f["nll"] - _entropy()) / f["nll_se"] for f in found]
  assert 0.85 < np.std(z) < 1.2


def _entropy():
  """E[-log p(x)] in nats."""
  covariance = W @ W.T + STD**2 * np.eye(X)
  return 0.5 * (X * (1 + math.log(2 * math.pi)) + np.linalg.slogdet(covariance)[1])


def test_a_bound_of_more_samples_than_there_are_is_refused():
  with pytest.raises(ValueError, match="3 samples cannot give a bound of 5"):
    importance.bound(np.zeros((3, 2)), 5)


# Figures read off the latents.


def layer(mean, log_variance, prior=None):
  mean, log_variance = jnp.asarray(mean, jnp.float32), jnp.asarray(log_variance, jnp.float32)
  return Layer(Gaussian(mean, log_variance), prior or standard(mean), mean)


def test_the_divergence_of_units_is_scipys_and_sums_to_the_whole():
  generator = np.random.default_rng(0)
  q_mean, q_log, p_mean, p_log = generator.normal(size=(4, 5, 3)).astype(np.float32)
  found = elbo.divergence(layer(q_mean, q_log, Gaussian(p_mean, p_log)))
  expected = (
    0.5 * (p_log - q_log) + (np.exp(q_log) + (q_mean - p_mean) ** 2) / (2 * np.exp(p_log)) - 0.5
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  image = jnp.zeros((5, 2, 2, 1))
  out = Output(image[..., None], (layer(q_mean, q_log, Gaussian(p_mean, p_log)),) * 2)
  terms = elbo.Task().terms(Linear(), out, {"image": image, "mask": jnp.ones(5)})
  # Two layers alike: twice the sum over units.
  assert float(terms["kl"].total) == pytest.approx(2 * expected.sum(), rel=1e-5)


def test_active_units_are_counted():
  generator = np.random.default_rng(0)
  n = 20_000
  std = np.sqrt([0.5, 0.02, 0.008, 0.0, 1e-6])
  mean = 7.0 + std * generator.normal(size=(n, 5))
  # Variance above 0.01 counts, wherever the mean lies.
  assert latents.active(mean.astype(np.float32)) == 2
  assert latents.active(mean, threshold=0.001) == 3


def test_active_units_of_a_layer_below_ignore_the_noise_of_the_one_above():
  """E_q[z_1|x] is over the layers that z_1's posterior hangs on, not at one draw of them."""

  class Noisy(nn.Module):
    observation = observation.of("bernoulli", 0)

    def __call__(self, image, *, train=False):
      above = batch_axis.normal(self.make_rng("latent"), (len(image), 2))
      zero = jnp.zeros_like(above)
      # The first unit of the lower layer tells of the image, the second repeats the noise above.
      below = jnp.stack([image[:, 0, 0, 0], 0.3 * above[:, 0]], axis=-1)
      layers = (
        Layer(Gaussian(below, zero), standard(zero), below),
        Layer(standard(zero), standard(zero), above),
      )
      return Output(jnp.zeros((*image.shape, 1)), layers)

  image = np.random.default_rng(0).random((300, 2, 2, 1), np.float32)
  found = elbo.Task().score(Call(Noisy()), Examples({}), Examples({"image": image}))
  active = {name: value for name, value in found.items() if name.startswith("active")}
  assert active == {"active_units": 1.0, "active_units_1": 1.0, "active_units_2": 0.0}


def test_a_uniform_categorical_takes_log2_of_the_levels_in_bits():
  class Uniform(nn.Module):
    observation = observation.of("categorical", 17)

    def __call__(self, image, *, train=False):
      z = jnp.zeros((len(image), 2))
      return Output(jnp.zeros((*image.shape, 17)), (Layer(standard(z), standard(z), z),))

  image = np.random.default_rng(0).integers(0, 17, (10, 4, 4, 1)).astype(np.float32) / 16
  batch = {"image": jnp.asarray(image), "mask": jnp.ones(10)}
  task = elbo.Task(nll_samples=3)
  found = task.measure(Uniform())({}, {}, batch, jax.random.key(0))
  assert float(found["bits_per_dim"].total / 10) == pytest.approx(math.log2(17), rel=1e-5)
  examples = Examples({"image": image})
  scored = task.score(Call(Uniform()), examples, examples)
  assert scored["nll_bits_per_dim"] == pytest.approx(math.log2(17), rel=1e-5)
  assert scored["nll"] == pytest.approx(16 * math.log(17), rel=1e-5)
  assert scored["nll_se"] == pytest.approx(0, abs=1e-4)


# Schedules and free bits.


def objective(task, output, batch):
  return float(task.objective(output, task.terms(Linear(), output, batch), batch).total)


def linear_batch(**more):
  return {"image": jnp.asarray(data(4)), "mask": jnp.ones(4), **more}


def linear_output(batch, mean, log_variance):
  return Output(batch["image"][..., None], (layer(mean, log_variance),))


def test_the_weight_of_the_divergence_is_linear_in_the_step():
  mean = np.random.default_rng(0).normal(size=(4, Z))
  task = elbo.Task(beta=3.0, warmup_steps=10)

  def weight(**more):
    batch = linear_batch(**more)
    output = linear_output(batch, mean, mean)
    terms = task.terms(Linear(), output, batch)
    rest = float(terms["reconstruction"].total)
    return (objective(task, output, batch) - rest) / float(terms["kl"].total)

  found = [weight(step=jnp.full(4, i, jnp.int32)) for i in (0, 1, 5, 10, 400)]
  assert found == pytest.approx([0, 0.3, 1.5, 3, 3], abs=1e-4)
  # An evaluation has no step: it is at the end of the schedule.
  assert weight() == pytest.approx(3, rel=1e-4)


def test_free_bits_are_of_each_unit_on_the_average_over_the_batch():
  # Unit 0: 2 nats in one example of four, 0.5 on the average; unit 1: 0.1 in each; unit 2: 1 in each.
  mean = np.zeros((4, Z))
  mean[0, 0], mean[:, 1], mean[:, 2] = 2.0, math.sqrt(0.2), math.sqrt(2.0)
  batch = linear_batch()
  output = linear_output(batch, mean, np.zeros((4, Z)))
  plain = objective(elbo.Task(), output, batch)
  free = objective(elbo.Task(free_bits=0.4), output, batch)
  # The largest of the average and 0.4: only unit 1 pays more than its 0.1.
  assert free - plain == pytest.approx(4 * 0.3, rel=1e-3)
  # By example it would also have paid for the three in which unit 0 is silent.

  def gradient(free_bits):
    def loss(mean):
      output = linear_output(batch, mean, np.zeros((4, Z)))
      task = elbo.Task(free_bits=free_bits)
      return task.objective(output, task.terms(Linear(), output, batch), batch).total

    return jax.grad(loss)(jnp.asarray(mean, jnp.float32))

  # A unit below the threshold feels no pull towards the prior; the others their own.
  np.testing.assert_allclose(gradient(0.4)[:, 1], 0.0)
  np.testing.assert_allclose(gradient(0.4)[:, [0, 2]], mean[:, [0, 2]], rtol=1e-5)
  np.testing.assert_allclose(gradient(0.0), mean, rtol=1e-5, atol=1e-7)


def test_padded_rows_take_no_free_bits():
  mean = np.full((4, Z), 0.3)
  batch = linear_batch()
  padded = {"image": batch["image"].at[2:].set(jnp.nan), "mask": jnp.asarray([1.0, 1, 0, 0])}
  half = {"image": batch["image"][:2], "mask": jnp.ones(2)}
  task = elbo.Task(free_bits=0.2)
  whole = linear_output(padded, np.where(np.arange(4)[:, None] < 2, mean, np.nan), np.zeros((4, Z)))
  part = linear_output(half, mean[:2], np.zeros((2, Z)))
  assert objective(task, whole, padded) == pytest.approx(objective(task, part, half), rel=1e-6)


# Which data a number is of.


def test_binarisations_are_different_data():
  def fingerprint(binarize):
    found = config.load("experiments/vae/gaussian_digits.py:smoke")
    found = config.override(found, [("data.binarize", binarize)])
    return build.build(found).stages[0].source.fingerprint()

  assert len({fingerprint(kind) for kind in ("none", "fixed", "dynamic")}) == 3


# The commonest mistake: a mean over pixels beside a sum over latents, an effective beta of D.


@functools.cache
def trained(beta):
  """Test-set figures of a small VAE on binarised digits, by the whole of our machinery."""
  found = config.load("experiments/vae/gaussian_digits.py:small")
  settings = {
    "task.beta": beta,
    "model.hidden": 64,
    "task.nll_samples": 100,
    "training.steps": 1500,
    "training.mesh.data": 1,
    "optimizer.learning_rate": 3e-3,
  }
  found = config.override(found, [(k, str(v)) for k, v in settings.items()])
  (stage,) = build.build(found).stages
  return train(stage)


def train(stage):
  machine = Machine(stage, build.devices(stage.training))
  key = jax.random.key(0)
  state = machine.initial([key], None)
  train_split = stage.source.split("train")
  for i in range(stage.training.steps):
    rows = sources.rows(
      order_seed(key), i, examples=len(train_split), batch_size=stage.program.examples
    )
    state = machine.trainer(state, [rows], stage.numbers)
  (found,) = measure(machine, state, [stage])
  return found["test"]


def test_a_mean_over_pixels_collapses_the_posterior():
  # 64 pixels: dividing the reconstruction by them is a beta of 64.
  found = trained(64.0)
  assert found["kl"] < 0.05
  assert found["active_units"] == 0
  # Nothing is left but one probability for each pixel: 27.27 nats on this test set.
  assert found["nll"] == pytest.approx(independent_pixels(), abs=0.5)
  assert independent_pixels() == pytest.approx(27.27, abs=0.3)


def independent_pixels():
  """Nats of the test images under one Bernoulli a pixel, fitted to the training images."""
  (stage,) = build.build(config.load("experiments/vae/gaussian_digits.py:small")).stages
  train_images, test_images = (
    examples(stage.source, name).arrays["image"].reshape(-1, 64) for name in ("train", "test")
  )
  p = np.clip(train_images.mean(0, dtype=np.float64), 1e-3, 1 - 1e-3)
  return -(test_images * np.log(p) + (1 - test_images) * np.log1p(-p)).sum(1).mean()


def test_a_sum_over_pixels_does_not():
  found = trained(1.0)
  assert found["kl"] > 2
  assert found["active_units"] >= 4
  assert found["nll"] < independent_pixels() - 2
