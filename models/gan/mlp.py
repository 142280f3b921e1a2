"""The first generative adversarial network.

Goodfellow et al. 2014, "Generative adversarial nets", arXiv:1406.2661, with the sizes of its
released MNIST configuration: ReLU generator, maxout discriminator with dropout, Gaussian noise.

Differs from that configuration: the generator's output bias starts at zero, not at the data's
marginals; `pieces=1` turns maxout into leaky ReLU (Radford et al. 2016), for small runs.
"""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.dropout import Dropout


def _uniform(limit: float):
  """U(-limit, limit), or Glorot's where the limit is 0."""
  if not limit:
    return nn.initializers.glorot_uniform()
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


class Generator(nn.Module):
  """z [B, Z] -> image [B, *data] in [0, 1]."""

  data_shape: tuple[int, ...]
  widths: tuple[int, ...]
  init_limit: float
  dtype: Any

  @nn.compact
  def __call__(self, z_BZ: jax.Array) -> jax.Array:
    x = z_BZ
    for units in self.widths:
      x = nn.relu(nn.Dense(units, dtype=self.dtype, kernel_init=_uniform(self.init_limit))(x))
    x_BD = nn.Dense(
      math.prod(self.data_shape), dtype=self.dtype, kernel_init=_uniform(self.init_limit)
    )(x)
    return nn.sigmoid(x_BD.astype(jnp.float32)).reshape(-1, *self.data_shape)


class Discriminator(nn.Module):
  """image [B, *data] -> logit [B] that it is real."""

  widths: tuple[int, ...]
  pieces: int
  input_dropout: float
  hidden_dropout: float
  init_limit: float
  dtype: Any

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
    x = Dropout(self.input_dropout)(image.reshape(image.shape[0], -1), train=train)
    for units in self.widths:
      x = nn.Dense(units * self.pieces, dtype=self.dtype, kernel_init=_uniform(self.init_limit))(x)
      if self.pieces > 1:
        x = x.reshape(-1, units, self.pieces).max(-1)  # maxout, Goodfellow et al. 2013
      else:
        x = nn.leaky_relu(x, 0.2)
      x = Dropout(self.hidden_dropout)(x, train=train)
    logit = nn.Dense(1, dtype=self.dtype, kernel_init=_uniform(self.init_limit))(x)
    return logit[:, 0].astype(jnp.float32)


class Model(nn.Module):
  """A generator and a discriminator.

  Attributes:
    data_shape: of one example.
    noise: dimensions Z of the Gaussian noise.
    generator_widths: units of the generator's ReLU layers.
    discriminator_widths: units of the discriminator's layers.
    pieces: linear pieces of each maxout unit; 1 for leaky ReLU.
    input_dropout: rate on the discriminator's input.
    hidden_dropout: rate on its hidden layers.
    generator_init: weights start in U(-limit, limit); 0 for Glorot's.
    discriminator_init: likewise.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  noise: Annotated[int, "[1, inf)"] = 100
  generator_widths: tuple[Annotated[int, "[1, inf)"], ...] = (1200, 1200)
  discriminator_widths: tuple[Annotated[int, "[1, inf)"], ...] = (240, 240)
  pieces: Annotated[int, "[1, inf)"] = 5
  input_dropout: Annotated[float, "[0, 1)", "traced"] = 0.2
  hidden_dropout: Annotated[float, "[0, 1)", "traced"] = 0.5
  generator_init: Annotated[float, "[0, inf)"] = 0.05
  discriminator_init: Annotated[float, "[0, inf)"] = 0.005
  dtype: Any = jnp.float32

  def setup(self):
    self.generator = Generator(
      self.data_shape, self.generator_widths, self.generator_init, self.dtype
    )
    self.discriminator = Discriminator(
      self.discriminator_widths,
      self.pieces,
      self.input_dropout,
      self.hidden_dropout,
      self.discriminator_init,
      self.dtype,
    )

  def generate(self, z_BZ: jax.Array) -> jax.Array:
    """Images [B, *data] in [0, 1]."""
    return self.generator(z_BZ)

  def discriminate(self, image: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B] that the images are real."""
    return self.discriminator(image, train=train)

  def __call__(self, image: jax.Array) -> jax.Array:
    """Passes noise through both, which creates all parameters."""
    z_BZ = jnp.zeros((image.shape[0], self.noise))
    return self.discriminate(self.generate(z_BZ), train=False)
