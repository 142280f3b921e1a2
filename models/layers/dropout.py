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
    # A rate that is traced is not zero: a zero stays a constant, since it is another program.
    if not train or (isinstance(self.rate, float) and self.rate == 0.0):
      return x
    keep = 1.0 - self.rate
    kept = batch_axis.bernoulli(self.make_rng("dropout"), keep, x.shape)
    return jnp.where(kept, x / jnp.asarray(keep, x.dtype), jnp.zeros_like(x))
