"""FactorVAE with the fully connected networks of beta-VAE.

Kim & Mnih 2018, arXiv:1802.05983, with the encoder and decoder of Higgins et al. 2017 for the same
images: dense layers are quick on a CPU, where convolutions are not.

Differs from the paper: those networks; one logit, as in models/vae/factor.py.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from models.vae import Output, mlp
from models.vae.factor import Discriminator


class Model(mlp.Model):
  """A fully connected VAE, groups `encoder` and `decoder`, and the group `discriminator`.

  Attributes:
    discriminator_widths: units of the discriminator's layers.
  """

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
