"""FactorVAE: a penalty on the total correlation, which a discriminator estimates.

Kim & Mnih 2018, "Disentangling by factorising", ICML, arXiv:1802.05983, algorithm 2: the
discriminator tells samples of q(z) from samples whose dimensions were permuted over a batch, each
on its own, which are samples of the product of q's marginals.

Differs from the paper: one batch serves both updates where the paper draws a second one for the
permuted samples. Half of its examples, chosen at random, are permuted among themselves and the
other half are left as they are, so the discriminator compares different examples as in the paper;
the VAE learns from all of them.

Axes: B examples on this device, M examples of the batch, Z latents.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from models.layers import batch_axis
from tasks import elbo
from tasks.objective import Mean, Phase, Sentinel, applied

_SATURATED = 0.99  # accuracy at which the log of the density ratio is no longer learned


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(elbo.Task):
  """Minimises the negative bound + gamma TC(z), TC(z) = E[log D(z) - log(1 - D(z))] (eq. 2, 3).

  Of models with one layer of latents that also `discriminate`.

  Attributes:
    gamma: weight of the total correlation.
  """

  gamma: Annotated[float, "[0, inf)", "traced"] = 10.0

  def phases(self, model):
    if not hasattr(model, "discriminate"):
      raise ValueError("factor needs a model with a discriminator: vae.factor or vae.factor_mlp")
    model.observation  # noqa: B018 - raises where data and likelihood do not go together

    def vae(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      terms = self.terms(model, out, batch)
      correlation = _correlation(model, params, out, batch)
      loss = self._with_penalty(self.objective(out, terms, batch), correlation)
      return loss, (state, {**terms, "discriminated_correlation": correlation})

    def discriminator(params, state, batch, rng):
      encode_rng, order_rng = jax.random.split(rng)
      out, _ = applied(model, params, state, self.inputs(batch), encode_rng, train=True)
      z_BZ, whole_B = permuted(out.layers[0].latent, batch["mask"], order_rng)
      logit_B = model.apply({"params": params}, z_BZ, method="discriminate")
      # softplus(-l) = -log sigmoid(l), finite for any logit.
      loss_B = jax.nn.softplus(jnp.where(whole_B, -logit_B, logit_B))
      metrics = {"accuracy": Mean.over((logit_B > 0) == whole_B, batch["mask"])}
      return Mean.over(loss_B, batch["mask"]), (state, metrics)

    return (
      Phase("vae", vae, ("encoder", "decoder")),
      Phase("discriminator", discriminator, ("discriminator",)),
    )

  def measure(self, model):
    bound = super().measure(model)

    def measure(params, state, batch, rng):
      found = bound(params, state, batch, rng)
      # The same key, so the same sample of q(z|x), which XLA computes once.
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      correlation = _correlation(model, params, out, batch)
      loss = self._with_penalty(found["loss"], correlation)
      return {**found, "loss": loss, "discriminated_correlation": correlation}

    return measure

  def _with_penalty(self, loss: Mean, correlation: Mean) -> Mean:
    return Mean(loss.total + self.gamma * correlation.total, loss.count)

  def sentinels(self):
    accuracy = "discriminator/accuracy"
    return (
      *super().sentinels(),
      Sentinel(
        "saturated discriminator",
        lambda row: accuracy in row and row[accuracy] > _SATURATED,
        "its estimate of the total correlation is worth nothing: lower the discriminator's learning"
        " rate, or raise task.gamma",
      ),
    )


def _correlation(model, params, out, batch) -> Mean:
  logit_B = model.apply({"params": params}, out.layers[0].latent, method="discriminate")
  return Mean.over(logit_B, batch["mask"])


def permuted(z_BZ: jax.Array, mask_B: jax.Array, rng: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Latents of which half are permuted over the batch, every dimension on its own.

  Returns:
    [B, Z] latents, and [B] which of them were left whole.
  """
  half_rng, order_rng = jax.random.split(rng)
  z_MZ, mask_M = batch_axis.gather(z_BZ), batch_axis.gather(mask_B) > 0
  # An example's rank among random numbers, one an example: a random permutation of the batch that
  # needs no more of the other devices than what is gathered.
  toss_B = batch_axis.normal(half_rng, (len(z_BZ), 1))
  whole_B, whole_M = (
    _rank(toss, batch_axis.gather(toss_B), mask_M)[:, 0] * 2 < mask_M.sum()
    for toss in (toss_B, batch_axis.gather(toss_B))
  )
  others_M = mask_M & ~whole_M
  order_BZ = batch_axis.normal(order_rng, z_BZ.shape)
  rank_BZ = _rank(order_BZ, batch_axis.gather(order_BZ), others_M)
  # The example of rank r takes the r-th of those that are permuted.
  pool_MZ = z_MZ[jnp.argsort(~others_M, stable=True)]
  return jnp.where(whole_B[:, None], z_BZ, jnp.take_along_axis(pool_MZ, rank_BZ, axis=0)), whole_B


def _rank(x_BZ: jax.Array, x_MZ: jax.Array, among_M: jax.Array) -> jax.Array:
  """How many of the batch, among those chosen, come before each example: [B, Z]."""
  before_BMZ = (x_MZ < x_BZ[:, None]) & among_M[:, None]
  return before_BMZ.sum(1)
