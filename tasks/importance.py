"""Importance-weighted bound of a variational autoencoder, in nats per example.

Burda, Grosse & Salakhutdinov 2015, "Importance weighted autoencoders", arXiv:1509.00519:
L_k = E[log (1/k) sum_i w_i], w_i = p(x, z_i) / q(z_i|x), z_1 ... z_k independent draws of q
(eq. 8).
L_1 is the evidence lower bound, and L_k rises to log p(x) with k.

Axes: B examples, K samples.
"""

import dataclasses
import math
from typing import Annotated, Literal

import jax

from evaluation import importance
from models.layers.numerics import log_sum_exp
from models.vae import Output
from tasks import elbo
from tasks.objective import Call, Examples, Mean, Phase, applied

_BOUNDS = (1, 5, 50, 1000)  # the k of the L_k that are reported


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(elbo.Task):
  """Maximises L_k, or the average of k samples of L_1, which is the VAE to compare it with.

  The divergence is sampled with the weights, so `beta` and `warmup_steps` weigh
  log q(z|x) - log p(z), and what needs its closed form is refused.

  Attributes:
    samples: k.
    bound: "importance" for L_k, "evidence" for L_1 from k samples.
  """

  samples: Annotated[int, "[1, inf)"] = 50
  bound: Literal["importance", "evidence"] = "importance"

  def __post_init__(self):
    if self.free_bits or self.capacity:
      raise ValueError("free_bits and capacity need the divergence in closed form: task.name=elbo")

  def phases(self, model):
    model.observation  # noqa: B018 - raises where data and likelihood do not go together

    def loss(params, state, batch, rng):
      terms_KB, state = self.draws(model, params, state, batch, rng, train=True)
      return self._loss(terms_KB, batch), (state, _means(terms_KB, batch))

    return (Phase("importance", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      terms_KB, _ = self.draws(model, params, state, batch, rng, train=False)
      return self.measured(model, self._loss(terms_KB, batch), _means(terms_KB, batch), batch)

    return measure

  def draws(self, model, params, state, batch, rng, *, train: bool):
    """-log p(x|z) and log q(z|x) - log p(z) [K, B] at K draws of z, and the state after them."""

    def draw(key):
      out, after = applied(model, params, state, self.inputs(batch), key, train=train)
      nll_B = model.observation.nll(out.parameters, self.observed(batch))
      return {"reconstruction": nll_B, "kl": sampled_divergence(out)}, after

    terms_KB, states = jax.vmap(draw)(jax.random.split(rng, self.samples))
    # Draws are normalised apart, each over its own batch; running statistics take their mean.
    return terms_KB, jax.tree.map(lambda x: x.mean(0), states)

  def _loss(self, terms_KB, batch) -> Mean:
    weight = self.beta * elbo.grown(batch, self.warmup_steps)
    log_w_KB = -terms_KB["reconstruction"] - weight * terms_KB["kl"]
    if self.bound == "evidence":
      return Mean.over(-log_w_KB.mean(0), batch["mask"])
    # Differentiated as it is: its gradient is the sum of softmax(log w) times the gradients of
    # log w (eq. 13 and 14), with the softmax constant.
    bound_B = log_sum_exp(log_w_KB, 0) - math.log(self.samples)
    return Mean.over(-bound_B, batch["mask"])

  def likelihood(self, call: Call, log_weights_KN, test: Examples) -> dict[str, float]:
    """Also L_k for a few k, each from samples of its own.

    From the same samples they would be in order by Jensen's inequality, whatever the weights.
    """
    found = super().likelihood(call, log_weights_KN, test)
    wanted = [k for k in _BOUNDS if k <= len(log_weights_KN)]
    size = wanted[-1]
    more_KN = self.log_weights(call, test, size * len(wanted))
    for i, k in enumerate(reversed(wanted)):
      found[f"bound_{k}"] = importance.bound(more_KN[i * size : (i + 1) * size], k)
    return found


def sampled_divergence(out: Output) -> jax.Array:
  """log q(z|x) - log p(z) [B] at the output's sample, over all layers."""
  return sum(
    elbo.log_density(layer.latent, layer.posterior) - elbo.log_density(layer.latent, layer.prior)
    for layer in out.layers
  )


def _means(terms_KB, batch) -> dict[str, Mean]:
  return {name: Mean.over(x.mean(0), batch["mask"]) for name, x in terms_KB.items()}
