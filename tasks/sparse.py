"""Sparse autoencoder: every unit is to be on as rarely as `rho` says.

Ng 2011, "Sparse autoencoder", CS294A lecture notes, Stanford. J = 1/2 ||x' - x||^2 per example,
plus beta sum_j KL(rho || rho_j), rho_j being the mean activation of unit j. Weight decay, lambda
times half the squared weights, is the optimizer's `weight_decay`.

Differs from the notes: rho_j is of the batch that a step reads, which is the whole training set, as
in the notes, only where the batch is.
"""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from tasks import reconstruction
from tasks.objective import Call, Examples, Mean, batch_mean
from tasks.views import Images, View, contact_sheet

_FILTERS = 100  # the most that a figure shows
_LEAST = 1e-6  # keeps the logarithms finite where a unit is always off or always on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(reconstruction.Task):
  """Minimises half the squared error, or a cross-entropy, and beta times the units' divergence.

  Attributes:
    rho: the mean activation that every unit should have.
    beta: weight of the divergence; 0 is a plain autoencoder.
  """

  rho: Annotated[float, "(0, 1)", "traced"] = 0.01
  beta: Annotated[float, "[0, inf)", "traced"] = 3.0

  def phases(self, model):
    if model.activation != "logistic":
      raise ValueError(f"a unit is on or off where it is logistic, not {model.activation}")
    return super().phases(model)

  def errors(self, out, batch):
    return {
      **super().errors(out, batch),
      "activation": Mean.over(out.code.mean(-1), batch["mask"]),
    }

  def objective(self, model, params, out, errors, batch):
    error = errors[self.error]
    # The notes' error is of pixels in [margin, 1 - margin], ours is measured in [0, 1].
    weight = 0.5 * (1 - 2 * model.margin) ** 2 if self.error == "squared" else 1.0
    # Both means, since that of a unit that is always on leaves nothing of one less it but rounding.
    on_K, off_K = (batch_mean(code, batch["mask"]) for code in (out.code, 1 - out.code))
    penalty = self.beta * divergence(self.rho, on_K, off_K).sum()
    return Mean(weight * error.total + penalty * error.count, error.count)

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Also the mean activation on the training set, and how far the worst unit is from rho."""
    rho_K = self.features(call, train).astype(np.float64).mean(0)
    return {
      **super().score(call, train, test),
      "rho": float(self.rho),
      "activation_train": float(rho_K.mean()),
      "activation_train_off": float(np.abs(rho_K - self.rho).max()),
    }

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    return {**super().views(call, train, test), "filters": filters(call)}


def divergence(rho: float | jax.Array, on_K: jax.Array, off_K: jax.Array) -> jax.Array:
  """KL(rho || on) [K] of Bernoulli variables that are on, and off, with these shares; in nats."""
  on_K, off_K = (_LEAST + (1 - 2 * _LEAST) * share_K for share_K in (on_K, off_K))
  return rho * jnp.log(rho / on_K) + (1 - rho) * jnp.log((1 - rho) / off_K)


def filters(call: Call) -> Images:
  """The weights of a model with a `kernel_DK`, unit by unit, each stretched to grey levels.

  Of all inputs of one norm, a unit's weights are the one that excites it most.
  """
  kernel_DK = call(method=lambda model: model.kernel_DK)[:, :_FILTERS]
  scaled_DK = 0.5 + 0.5 * kernel_DK / np.maximum(np.abs(kernel_DK).max(0), 1e-12)
  images = scaled_DK.T.reshape(-1, *call.model.data_shape)
  caption = "Weights of units: white excites a unit, black inhibits it, grey is zero."
  return contact_sheet(images, caption, columns=math.isqrt(len(images)))
