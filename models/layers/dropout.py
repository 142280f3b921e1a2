"""Dropout whose mask belongs to the example, not to the device that happens to hold it."""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis


class Dropout(nn.Module):
  """Inverted dropout (Srivastava et al. 2014) of [B, ...].

  Attributes:
    rate: probability of setting an element to zero.
  """

  rate: Annotated[float, "[0, 1)"]

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    if not train or self.rate == 0.0:
      return x
    kept = batch_axis.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, x.shape)
    return jnp.where(kept, x / (1.0 - self.rate), jnp.zeros_like(x))
