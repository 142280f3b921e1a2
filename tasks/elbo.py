"""Evidence lower bound of a variational autoencoder, in nats per example."""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import importance, independent, latents, pca
from models.layers.numerics import exp_then_line
from models.vae import Gaussian, Layer, Output
from tasks import disentangle
from tasks.objective import (
  Call,
  Examples,
  Mean,
  Objective,
  Phase,
  Sentinel,
  applied,
  batch_mean,
  in_batches,
  on,
)
from tasks.views import Bars, Images, Scatter, View, contact_sheet

_COLUMNS = 12  # images in a row of a figure
_SAMPLES_AT_ONCE = 50  # of the posterior, when a likelihood is estimated
_SMALL_KL = 0.05  # nats: what a decoder that ignores its latents leaves


def divergence(layer: Layer) -> jax.Array:
  """KL(q || p) [B, Z] of each unit, the layer above given (Kingma & Welling 2013, appendix B).

  Where a log-variance of the posterior is more than 30 above the prior's, or the prior's below -30,
  it grows on as a straight line (`models.layers.numerics.exp_then_line`).
  """
  (mean_q, log_q), (mean_p, log_p), _ = layer
  ratio = exp_then_line(log_q - log_p) + jnp.square(mean_q - mean_p) * exp_then_line(-log_p)
  return 0.5 * (log_p - log_q + ratio - 1)


def log_density(z_BZ: jax.Array, gaussian: Gaussian) -> jax.Array:
  """log N(z; mean, variance) [B], a sum over units."""
  return unit_log_density(z_BZ, gaussian).sum(-1)


def unit_log_density(z: jax.Array, gaussian: Gaussian) -> jax.Array:
  """Of each unit.

  Where a log-variance is below -30, the weight of the square grows on as a straight line
  (`models.layers.numerics.exp_then_line`).
  """
  mean, log_variance = gaussian
  scaled = jnp.square(z - mean) * exp_then_line(-log_variance)
  return -0.5 * (math.log(2 * math.pi) + log_variance + scaled)


def log_weight(model, out: Output, x: jax.Array) -> jax.Array:
  """log p(x, z) - log q(z|x) [B] at the output's sample (Burda et al. 2016, eq. 7)."""
  found_B = -model.observation.nll(out.parameters, x)
  for layer in out.layers:
    found_B += log_density(layer.latent, layer.prior) - log_density(layer.latent, layer.posterior)
  return found_B


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Maximises E_q[log p(x|z)] - beta KL(q(z|x) || p(z)) (Kingma & Welling 2013, eq. 10).

  Attributes:
    beta: 1 is the paper's bound; above 1 is beta-VAE (Higgins et al. 2017).
    warmup_steps: over which the divergence's weight grows linearly from 0 to beta (Bowman et al.
      2016; Sonderby et al. 2016).
    free_bits: nats of divergence that each unit may have for free, on the average over the batch
      (Kingma et al. 2016, arXiv:1606.04934, appendix C.8).
    capacity: nats that the divergence is held to: the loss has beta |KL - C| in its place, and C
      grows linearly from 0 to this (Burgess et al. 2018, eq. 8); 0 for the bound.
    capacity_steps: over which it grows.
    nll_samples: of the importance-sampled log-likelihood of the finished run; 0 leaves it out.
  """

  beta: Annotated[float, "[0, inf)", "traced"] = 1.0
  warmup_steps: Annotated[int, "[0, 2147483647]"] = 0
  free_bits: Annotated[float, "[0, inf)", "traced"] = 0.0
  capacity: Annotated[float, "[0, inf)", "traced"] = 0.0
  capacity_steps: Annotated[int, "[0, 2147483647]"] = 0
  nll_samples: Annotated[int, "[0, inf)"] = 0

  def __post_init__(self):
    if self.capacity and (self.free_bits or self.warmup_steps):
      raise ValueError("capacity has a schedule of its own: leave free_bits and warmup_steps at 0")

  def observed(self, batch) -> jax.Array:
    """What p(x|z) is of."""
    return batch["image"]

  def phases(self, model):
    model.observation  # noqa: B018 - raises where data and likelihood do not go together
    if hasattr(model, "upward") and model.upward:
      raise ValueError(
        "the model infers its layers upwards, so their divergences have no closed form:"
        " task.name=importance samples them"
      )

    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      terms = self.terms(model, out, batch)
      return self.objective(out, terms, batch), (state, terms)

    return (Phase("elbo", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      terms = self.terms(model, out, batch)
      return self.measured(model, self.objective(out, terms, batch), terms, batch)

    return measure

  def measured(self, model, loss: Mean, terms: dict[str, Mean], batch) -> dict[str, Mean]:
    """The metrics of an evaluation: the bound, whatever the loss, beside its terms."""
    nll, kl = terms["reconstruction"], terms["kl"]
    elbo = Mean(-nll.total - kl.total, nll.count)
    found = {"loss": loss, "elbo": elbo, **terms}
    if model.observation.discrete:
      nats_a_bit = math.log(2) * math.prod(self.observed(batch).shape[1:])
      found["bits_per_dim"] = Mean(-elbo.total / nats_a_bit, elbo.count)
    return found

  def terms(self, model, out: Output, batch) -> dict[str, Mean]:
    """-log p(x|z) at one sample of q(z|x), and the divergence of q."""
    # Sums over pixels and latents, never means: a mean would reweight the KL by the pixel count.
    nll_B = model.observation.nll(out.parameters, self.observed(batch))
    kl_B = sum(divergence(layer).sum(-1) for layer in out.layers)
    return {
      "reconstruction": Mean.over(nll_B, batch["mask"]),
      "kl": Mean.over(kl_B, batch["mask"]),
    }

  def objective(self, out: Output, terms: dict[str, Mean], batch) -> Mean:
    """What is minimised; outside training, as at the end of every schedule."""
    nll, kl = terms["reconstruction"], terms["kl"]
    penalty = kl.total
    if on(self.free_bits):
      units = jnp.concatenate(
        [batch_mean(divergence(layer), batch["mask"]) for layer in out.layers], axis=-1
      )
      penalty = jnp.maximum(units, self.free_bits).sum() * kl.count
    if on(self.capacity):
      mean = batch_mean(sum(divergence(layer).sum(-1) for layer in out.layers), batch["mask"])
      target = self.capacity * grown(batch, self.capacity_steps)
      penalty = jnp.abs(mean - target) * kl.count
    weight = self.beta * grown(batch, self.warmup_steps)
    return Mean(nll.total + weight * penalty, nll.count)

  def sentinels(self):
    return (
      Sentinel(
        "posterior collapse",
        lambda row: "kl" in row and row["kl"] < _SMALL_KL,
        "the decoder ignores its latents: set task.warmup_steps or task.free_bits, or lower"
        " task.beta",
      ),
    )

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """Posterior means [N, Z] of the latents next to the data."""
    return in_batches(call, *self.inputs(examples.arrays), method="encode").mean

  def log_weights(self, call: Call, examples: Examples, samples: int) -> np.ndarray:
    """log p(x, z) - log q(z|x) [samples, N] at as many samples of q for each example."""
    arrays = (*self.inputs(examples.arrays), self.observed(examples.arrays))
    found = []
    for start in range(0, samples, _SAMPLES_AT_ONCE):
      count = min(_SAMPLES_AT_ONCE, samples - start)
      # Seeds of one block must not be another's: in_batches adds an example's place to them.
      seed = (1 + start) * len(arrays[0])
      found.append(in_batches(call, *arrays, method=_log_weights, seed=seed, samples=count))
    return np.concatenate(found, axis=1).T

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Active units, squared error, the importance-sampled log-likelihood, a rival's, factors."""
    means = in_batches(call, *self.inputs(test.arrays), method=_posterior_means)
    counts = [latents.active(mean_NZ) for mean_NZ in means]
    found = {"active_units": float(sum(counts)), "squared": self._squared(call, test)}
    if len(counts) > 1:
      found |= {f"active_units_{i + 1}": float(count) for i, count in enumerate(counts)}
    if self.nll_samples:
      found |= self.likelihood(call, self.log_weights(call, test, self.nll_samples), test)
    if call.model.observation.discrete:
      sets = [self.observed(part.arrays) for part in (train, test)]
      found["independent_nll"] = independent.nll(*sets, call.model.observation.levels)
    if "factors" in test.arrays:
      found |= disentangle.scores(self, call, train, test)
    return found

  def _squared(self, call: Call, test: Examples) -> float:
    """Squared error of E[x|z] per example, a sum over dimensions, at one sample of q(z|x)."""
    out = in_batches(call, *self.inputs(test.arrays))
    mean = np.asarray(call.model.observation.mean(jnp.asarray(out.parameters)))
    return float(np.square(mean - self.observed(test.arrays)).sum() / len(mean))

  def likelihood(self, call: Call, log_weights_KN: np.ndarray, test: Examples) -> dict[str, float]:
    """-log p(x) estimated from the weights of K samples: an upper bound, tight as K grows."""
    found = importance.nll(log_weights_KN)
    if call.model.observation.discrete:
      dimensions = math.prod(self.observed(test.arrays).shape[1:])
      found["nll_bits_per_dim"] = found["nll"] / (math.log(2) * dimensions)
    return found

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    image, label = test.arrays["image"], test.arrays["label"]
    out = in_batches(call, *self.inputs(test.arrays))
    mean_NZ = out.layers[0].posterior.mean
    if mean_NZ.shape[1] == 2:
      plane_N2, axes = mean_NZ, ("latent 1", "latent 2")
    else:
      plane_N2, axes = pca.project(mean_NZ, 2), ("first component", "second component")
    # From one example to one of another class, where the way is worth seeing.
    other = int(np.argmax(label != label[0]))
    weights = np.linspace(0, 1, _COLUMNS, dtype=np.float32)[:, None]
    between_NZ = (1 - weights) * mean_NZ[0] + weights * mean_NZ[other]
    found = {}
    if "factors" in test.arrays:
      found["information"] = disentangle.information(self, call, test)
    return found | {
      "reconstructions": Images(
        {"input": image[:_COLUMNS], "decoder mean": decoded(call, mean_NZ[:_COLUMNS])},
        "Test images, and the decoder's mean at the mean of their posterior.",
      ),
      "prior_samples": self.sample(call, 4 * _COLUMNS, seed=0),
      "latents": Scatter(
        plane_N2, label, axes, "Posterior means of the test set by class.", test.class_names
      ),
      "interpolation": Images(
        {"": decoded(call, between_NZ)},
        "On the straight line between the posterior means of two test images.",
      ),
      "traversals": _traversals(call, mean_NZ),
      "divergences": _divergences(out),
    }

  def sample(self, call: Call, count: int, seed: int) -> Images:
    z_NZ = call(method="prior", examples=count, seed=seed)
    caption = "Decoder means at draws from the prior."
    return contact_sheet(decoded(call, z_NZ), caption, columns=_COLUMNS)


def decoded(call: Call, z_NZ: np.ndarray) -> np.ndarray:
  """Means [N, *data] of p(x|z), as pixels."""
  parameters = in_batches(call, z_NZ.astype(np.float32), method="decode")
  return np.clip(np.asarray(call.model.observation.mean(jnp.asarray(parameters))), 0, 1)


def grown(batch, steps: int) -> jax.Array | float:
  """How far a linear schedule of so many steps is, in [0, 1]; 1 outside training."""
  if not steps or "step" not in batch:
    return 1.0
  return jnp.minimum(batch["step"][0].astype(jnp.float32) / steps, 1.0)


def _log_weights(model, *arrays, samples: int):
  """[B, samples] log weights of a bound model; the last array is what is observed."""
  *inputs, x = arrays
  keys = jax.random.split(model.make_rng("latent"), samples)
  module, variables = model.unbind()

  def one(key):
    out, _ = module.apply(variables, *inputs, rngs={"params": key}, mutable=[])
    return log_weight(module, out, x)

  return jax.vmap(one)(keys).T


def _posterior_means(model, *inputs) -> tuple[jax.Array, ...]:
  """E_q[z_l|x] [B, Z] of every layer, over samples of the layers that it hangs on."""
  keys = jax.random.split(model.make_rng("latent"), _SAMPLES_AT_ONCE)
  module, variables = model.unbind()

  def one(key):
    out, _ = module.apply(variables, *inputs, rngs={"params": key}, mutable=[])
    return tuple(layer.posterior.mean for layer in out.layers)

  return jax.tree.map(lambda mean: mean.mean(0), jax.vmap(one)(keys))


def _traversals(call: Call, mean_NZ: np.ndarray) -> Images:
  """One latent at a time from -3 to 3 around one example; the latents that vary most, first."""
  values = np.linspace(-3, 3, _COLUMNS, dtype=np.float32)
  rows = {}
  for latent in np.argsort(-mean_NZ.var(axis=0))[:6]:
    z_NZ = np.repeat(mean_NZ[:1], _COLUMNS, axis=0)
    z_NZ[:, latent] = values
    rows[f"latent {latent + 1}"] = decoded(call, z_NZ)
  return Images(rows, "One latent from -3 to 3, the others as for the first test image.")


def _divergences(out: Output) -> Bars:
  """KL of every unit, the most telling first."""
  values = {}
  for depth, layer in enumerate(out.layers):
    kl_Z = np.asarray(divergence(jax.tree.map(jnp.asarray, layer))).mean(0)
    prefix = f"{depth + 1}." if len(out.layers) > 1 else ""
    values |= {f"{prefix}{unit + 1}": float(kl_Z[unit]) for unit in np.argsort(-kl_Z)}
  return Bars(values, ("latent", "nats"), "Divergence from the prior, mean over the test set.")
