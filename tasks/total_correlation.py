"""beta-TCVAE: the part of the divergence that ties latents to each other, weighted on its own.

Chen, Li, Grosse & Duvenaud 2018, "Isolating sources of disentanglement in variational
autoencoders", NeurIPS, arXiv:1802.04942, eq. 2 and 4.

Differs from the paper: its minibatch-weighted estimate of log q(z) has 1 / (N M) where this has
1 / M, for a batch of M of N examples. The constant moves the reported terms, no gradient; with it
left out the three terms are those of the batch taken for the whole set, so each has the sign that
it should have. evaluation.json has them for the training set too (tasks/disentangle.py).

Axes: B examples on this device, M examples of the batch, Z latents.
"""

import dataclasses

import jax
import jax.numpy as jnp

from models.layers import batch_axis
from models.layers.numerics import log_sum_exp
from models.vae import Gaussian, Layer
from tasks import elbo
from tasks.objective import Mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(elbo.Task):
  """Minimises reconstruction + mutual information + beta total correlation + dimension-wise KL.

  Of models with one layer of latents. `beta` is the weight of the total correlation alone.
  """

  def __post_init__(self):
    if self.warmup_steps or self.free_bits or self.capacity:
      raise ValueError(
        "total_correlation weighs the divergence by beta alone: leave warmup_steps, free_bits and"
        " capacity at 0"
      )

  def terms(self, model, out, batch):
    (layer,) = out.layers
    parts = decomposed(layer, batch["mask"])
    return {
      **super().terms(model, out, batch),
      **{f"batch_{name}": Mean.over(value_B, batch["mask"]) for name, value_B in parts.items()},
    }

  def objective(self, out, terms, batch):
    nll = terms["reconstruction"]
    divergence = (
      terms["batch_mutual_information"].total
      + self.beta * terms["batch_total_correlation"].total
      + terms["batch_dimension_wise"].total
    )
    return Mean(nll.total + divergence, nll.count)


def decomposed(layer: Layer, mask_B: jax.Array) -> dict[str, jax.Array]:
  """log q(z|x) - log p(z) [B] at the layer's samples, in three parts that add up to it exactly.

  q(z) is estimated by the posteriors of the batch, those of all devices.
  """
  posterior, prior, z_BZ = layer
  mean_MZ, log_variance_MZ, mask_M = (batch_axis.gather(x) for x in (*posterior, mask_B))
  log_q_BMZ = elbo.unit_log_density(z_BZ[:, None], Gaussian(mean_MZ, log_variance_MZ))
  log_M = jnp.log(mask_M.sum())
  # A padded example is no part of the mixture, whatever it holds.
  log_q_BM = jnp.where(mask_M > 0, log_q_BMZ.sum(-1), -jnp.inf)
  log_q_BMZ = jnp.where(mask_M[:, None] > 0, log_q_BMZ, -jnp.inf)
  log_q_z_B = log_sum_exp(log_q_BM, 1) - log_M
  log_product_B = (log_sum_exp(log_q_BMZ, 1) - log_M).sum(-1)
  return {
    "mutual_information": elbo.log_density(z_BZ, posterior) - log_q_z_B,
    "total_correlation": log_q_z_B - log_product_B,
    "dimension_wise": log_product_B - elbo.log_density(z_BZ, prior),
  }
