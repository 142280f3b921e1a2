"""Convolutional autoencoder of the one-class experiments.

Ruff et al. 2018, "Deep one-class classification", ICML, section 4.2 and the authors' code: two
modules of convolution, batch normalisation, leaky rectifier and max-pooling, a linear code, and a
decoder that mirrors them with upsampling for pooling. No layer has a bias and no normalisation a
scale: with either, the encoder alone could map everything to one point, which is what the authors
then train it to do.

Differs from the paper: nothing in the network. Its images are contrast-normalised and scaled by the
training class's extremes, here pixels are as stored.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.autoencoder import Output
from models.layers.norm import BatchNorm

_CODE = 32
_SIDE = 28


class Model(nn.Module):
  """28x28 -> 8 maps of 14x14 -> 4 maps of 7x7 -> linear code of 32 -> the mirror, logistic output.

  Attributes:
    data_shape: of one example, (28, 28, C).
    dtype: of activations.
  """

  data_shape: tuple[int, int, int]
  dtype: Any = jnp.float32

  def setup(self):
    height, width, channels = self.data_shape
    if (height, width) != (_SIDE, _SIDE):
      raise ValueError(f"images must be {_SIDE}x{_SIDE}, these are {height}x{width}")
    conv = lambda maps, margin=2: nn.Conv(  # noqa: E731
      maps, (5, 5), padding=margin, use_bias=False, dtype=self.dtype
    )
    norm = lambda: BatchNorm(affine=False, epsilon=1e-4, dtype=self.dtype)  # noqa: E731
    self.encoder = [conv(8), conv(4)]
    self.encoder_norm = [norm(), norm()]
    self.to_code = nn.Dense(_CODE, use_bias=False, dtype=self.dtype)
    # At stride 1 a transposed convolution is one with the kernel flipped, its padding 4 - margin.
    self.decoder = [conv(4), conv(8, margin=1), conv(channels)]
    self.decoder_norm = [norm(), norm()]

  def encode(self, image: jax.Array, *, train: bool = False) -> jax.Array:
    """The code [B, 32] of images."""
    x = image
    for conv, norm in zip(self.encoder, self.encoder_norm, strict=True):
      x = nn.leaky_relu(norm(conv(x), train=train))
      x = nn.max_pool(x, (2, 2), strides=(2, 2))
    return self.to_code(x.reshape(len(x), -1)).astype(jnp.float32)

  def decode(self, code_BK: jax.Array, *, train: bool = False) -> jax.Array:
    """Logits [B, *data] of codes."""
    x = _upsampled(nn.leaky_relu(code_BK.reshape(-1, 4, 4, _CODE // 16)))
    for conv, norm in zip(self.decoder[:-1], self.decoder_norm, strict=True):
      x = _upsampled(nn.leaky_relu(norm(conv(x), train=train)))
    return self.decoder[-1](x).astype(jnp.float32)

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    code_BK = self.encode(image, train=train)
    logits = self.decode(code_BK, train=train)
    return Output(logits, nn.sigmoid(logits), code_BK)


def _upsampled(x: jax.Array) -> jax.Array:
  """[B, 2H, 2W, C] every pixel twice in both directions."""
  return x.repeat(2, axis=1).repeat(2, axis=2)
