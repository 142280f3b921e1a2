"""VQ-VAE with the paper's convolutions.

van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
arXiv:1711.00937, section 4.1: strided 4x4 convolutions, residual blocks, their mirror image. The
defaults are those of the authors' example in Sonnet, which is smaller than the paper's network and
has 3x3 convolutions between the strided ones and the blocks; `features=(256, 256)`,
`residual_features=256`, `code_features=256` and `middle=False` is the paper's.

Differs from the paper: all codes of a position are of one codebook where it has one for each.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import vq
from models.layers import quantize


class Residual(nn.Module):
  """Blocks of ReLU, 3x3, ReLU, 1x1, each added to what came in; a last ReLU.

  Attributes:
    blocks: how many.
    features: inside a block.
    dtype: of activations.
  """

  blocks: int
  features: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for _ in range(self.blocks):
      y = nn.Conv(self.features, (3, 3), dtype=self.dtype)(nn.relu(x))
      x = x + nn.Conv(x.shape[-1], (1, 1), dtype=self.dtype)(nn.relu(y))
    return nn.relu(x)


class Encoder(nn.Module):
  """Halves the sides once for each of `features`, then residual blocks.

  Attributes:
    features: of the strided convolutions.
    middle: whether a 3x3 convolution follows them.
    blocks: residual ones.
    residual_features: inside them.
    dtype: of activations.
  """

  features: tuple[int, ...]
  middle: bool
  blocks: int
  residual_features: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i, features in enumerate(self.features):
      x = nn.Conv(features, (4, 4), (2, 2), dtype=self.dtype)(x)
      # The blocks begin with a ReLU of their own.
      x = nn.relu(x) if self.middle or i < len(self.features) - 1 else x
    if self.middle:
      x = nn.Conv(self.features[-1], (3, 3), dtype=self.dtype)(x)
    return Residual(self.blocks, self.residual_features, self.dtype)(x)


class Decoder(nn.Module):
  """The encoder's mirror image: doubles the sides once for each of `features`.

  Attributes:
    features: of the encoder's strided convolutions.
    outputs: features of the last transposed convolution.
    middle: whether a 3x3 convolution comes first.
    blocks: residual ones.
    residual_features: inside them.
    dtype: of activations.
  """

  features: tuple[int, ...]
  outputs: int
  middle: bool
  blocks: int
  residual_features: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if self.middle:
      x = nn.Conv(self.features[-1], (3, 3), dtype=self.dtype)(x)
    x = Residual(self.blocks, self.residual_features, self.dtype)(x)
    for features in reversed(self.features[:-1]):
      x = nn.relu(nn.ConvTranspose(features, (4, 4), (2, 2), dtype=self.dtype)(x))
    return nn.ConvTranspose(self.outputs, (4, 4), (2, 2), dtype=self.dtype)(x)


class Codec(nn.Module):
  """Encoder, 1x1 to the codes, quantiser, decoder.

  Attributes:
    encoder: to [B, H, W, F].
    decoder: from [B, H, W, G * D].
    quantizer: of the codes.
    each: G.
    features: D.
    dtype: of activations.
  """

  encoder: nn.Module
  decoder: nn.Module
  quantizer: nn.Module
  each: int
  features: int
  dtype: Any

  def setup(self):
    self.to_codes = nn.Conv(self.each * self.features, (1, 1), dtype=self.dtype)

  def encode(self, image: jax.Array, *, train: bool, mask_B: jax.Array):
    """One level of codes [B, H, W, G, D]."""
    # Centred, as the authors' example has it.
    x = self.to_codes(self.encoder(image - 0.5))
    x = x.reshape(*x.shape[:3], self.each, self.features)
    return (self.quantizer(x, train=train, mask_B=mask_B),)

  def lookup(self, maps: vq.Maps):
    """Codes of indices."""
    return [self.quantizer.lookup(maps[0])]

  def decode(self, codes) -> jax.Array:
    """[B, H_x, W_x, C * P] from codes."""
    return self.decoder(codes[0].reshape(*codes[0].shape[:3], -1))


class Model(vq.Coder):
  """A map of codes between convolutions.

  Attributes:
    features: of the strided convolutions; each halves the sides.
    residual_blocks: on either side.
    residual_features: inside a block.
    codes_each: G, codes at a position; the paper has 10 on CIFAR-10.
    middle: the 3x3 convolutions of the authors' example.
    dtype: of activations.
  """

  features: tuple[Annotated[int, "[1, inf)"], ...] = (64, 128)
  residual_blocks: Annotated[int, "[0, 1000]"] = 2
  residual_features: Annotated[int, "[1, inf)"] = 32
  codes_each: Annotated[int, "[1, inf)"] = 1
  middle: bool = True
  dtype: Any = jnp.float32

  @property
  def maps(self) -> tuple[tuple[int, int, int], ...]:
    rows, columns, _ = vq.shrunk(self.data_shape, len(self.features))
    return ((rows, columns, self.codes_each),)

  def setup(self):
    (quantizer,) = self.quantizers()
    code_features = quantize.features(
      self.quantizer, features=self.code_features, levels=self.fsq_levels
    )
    blocks = (self.middle, self.residual_blocks, self.residual_features, self.dtype)
    outputs = self.data_shape[-1] * self.observation.size
    self.codec = Codec(
      Encoder(self.features, *blocks),
      Decoder(self.features, outputs, *blocks),
      quantizer,
      self.codes_each,
      code_features,
      self.dtype,
    )
    self.prior = self.make_prior()
