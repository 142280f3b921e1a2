"""FactorVAE: a convolutional VAE beside a discriminator of its latents.

Kim & Mnih 2018, "Disentangling by factorising", ICML, arXiv:1802.05983, appendix A: the VAE has
convolutions of 32, 32, 64 and 64 channels and 128 fully connected units; the discriminator has six
layers of 1000 leaky ReLUs (slope 0.2) and two logits.

Differs from the paper: one logit, the difference of its two, since only that enters the losses.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.vae import Output, convolutional


class Discriminator(nn.Module):
  """z [B, Z] -> logit [B] that its dimensions belong together."""

  widths: tuple[int, ...]
  dtype: Any

  @nn.compact
  def __call__(self, z_BZ: jax.Array) -> jax.Array:
    x = z_BZ
    for units in self.widths:
      x = nn.leaky_relu(nn.Dense(units, dtype=self.dtype)(x), 0.2)
    return nn.Dense(1, dtype=self.dtype)(x)[:, 0].astype(jnp.float32)


class Model(convolutional.Model):
  """A convolutional VAE, groups `encoder` and `decoder`, and the group `discriminator`.

  Attributes:
    hidden: units of the fully connected layer on either side of the latents.
    discriminator_widths: units of the discriminator's layers.
  """

  hidden: Annotated[int, "[1, inf)"] = 128
  discriminator_widths: tuple[Annotated[int, "[1, inf)"], ...] = (1000,) * 6
  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    self.discriminator = Discriminator(self.discriminator_widths, self.dtype)

  def discriminate(self, z_BZ: jax.Array) -> jax.Array:
    """log D(z) / (1 - D(z)) [B]: which of q(z) and the product of its marginals z is from."""
    return self.discriminator(z_BZ)

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    out = super().__call__(image, train=train)
    if self.is_initializing():
      self.discriminate(out.layers[0].latent)  # creates it too
    return out
