"""The convolutional VAE of the disentanglement literature.

Higgins et al. 2017, "beta-VAE", ICLR, appendix A.1 (CelebA) and Kim & Mnih 2018, "Disentangling by
factorising", arXiv:1802.05983, appendix A (2D shapes): convolutions of 4x4 with stride 2, one
fully connected layer, the mirrored decoder with transposed convolutions, ReLU everywhere.

Differs from the papers: any size of image. A side is halved and rounded up by each convolution, and
what a transposed convolution adds beyond the mirrored side is cut off; at 64x64 nothing is. Log
variances stay within +-30, where no training on images takes them.

Axes: B examples, H, W sides, C channels, Z latents.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.vae.single import Single


class Encoder(nn.Module):
  """image [B, H, W, C] -> [B, outputs]."""

  channels: tuple[int, ...]
  hidden: int
  outputs: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for channels in self.channels:
      x = nn.relu(nn.Conv(channels, (4, 4), strides=2, dtype=self.dtype)(x))
    x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(x.reshape(x.shape[0], -1)))
    return nn.Dense(self.outputs, dtype=self.dtype)(x)


class Decoder(nn.Module):
  """z [B, Z] -> [B, H, W, outputs], the encoder's mirror image."""

  data_shape: tuple[int, int, int]
  channels: tuple[int, ...]  # the encoder's
  hidden: int
  outputs: int
  dtype: Any

  @nn.compact
  def __call__(self, z_BZ: jax.Array) -> jax.Array:
    # The sides of the encoder's input and of every layer of it.
    sides = [self.data_shape[:2]]
    for _ in self.channels:
      sides.append(tuple((side + 1) // 2 for side in sides[-1]))
    height, width = sides.pop()
    x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(z_BZ))
    x = nn.relu(nn.Dense(height * width * self.channels[-1], dtype=self.dtype)(x))
    x = x.reshape(-1, height, width, self.channels[-1])
    for channels in reversed((self.outputs, *self.channels[:-1])):
      x = nn.ConvTranspose(channels, (4, 4), strides=(2, 2), dtype=self.dtype)(x)
      height, width = sides.pop()
      x = x[:, :height, :width]
      if sides:
        x = nn.relu(x)
    return x


class Model(Single):
  """The VAE of `models.vae.single` with convolutional networks, for images [H, W, C].

  Attributes:
    channels: of the encoder's convolutions; the decoder's mirror them.
    hidden: units of the fully connected layer on either side.
  """

  channels: tuple[Annotated[int, "[1, inf)"], ...] = (32, 32, 64, 64)
  hidden: Annotated[int, "[1, inf)"] = 256
  dtype: Any = jnp.float32

  def setup(self):
    numbers = self.data_shape[-1] * self.observation.size
    self.encoder = Encoder(self.channels, self.hidden, 2 * self.latents, self.dtype)
    self.decoder = Decoder(self.data_shape, self.channels, self.hidden, numbers, self.dtype)
