"""The fully connected VAE of the 2D shapes.

Higgins et al. 2017, "beta-VAE: learning basic visual concepts with a constrained variational
framework", ICLR, appendix A.1: encoder 4096-1200-1200 with ReLU, 10 latents, decoder
10-1200-1200-1200-4096 with tanh, Bernoulli pixels.

Differs from the paper: weights start Glorot-uniform, which it does not say; log variances stay
within +-30, where no training on images takes them.
"""

import math
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.vae.single import Single

_ACTIVATIONS = {"relu": nn.relu, "tanh": jnp.tanh}


class Network(nn.Module):
  """x [B, ...] -> widths -> [B, outputs]."""

  widths: tuple[int, ...]
  outputs: int
  activation: Literal["relu", "tanh"]
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.reshape(x.shape[0], -1)
    init = nn.initializers.glorot_uniform()
    for units in self.widths:
      x = _ACTIVATIONS[self.activation](nn.Dense(units, dtype=self.dtype, kernel_init=init)(x))
    return nn.Dense(self.outputs, dtype=self.dtype, kernel_init=init)(x)


class Model(Single):
  """The VAE of `models.vae.single` with fully connected networks.

  Attributes:
    encoder_widths: units of the encoder's ReLU layers.
    decoder_widths: units of the decoder's tanh layers.
  """

  encoder_widths: tuple[Annotated[int, "[1, inf)"], ...] = (1200, 1200)
  decoder_widths: tuple[Annotated[int, "[1, inf)"], ...] = (1200, 1200, 1200)
  dtype: Any = jnp.float32

  def setup(self):
    numbers = math.prod(self.data_shape) * self.observation.size
    self.encoder = Network(self.encoder_widths, 2 * self.latents, "relu", self.dtype)
    self.decoder = Network(self.decoder_widths, numbers, "tanh", self.dtype)
