"""VQ-VAE-2: codes on two scales, the coarse ones first.

Razavi, van den Oord & Vinyals 2019, "Generating diverse high-fidelity images with VQ-VAE-2",
arXiv:1906.00446, section 3 and figure 2a: the top codes see the whole of what the bottom encoder
found at half its size; decoded again, they help to choose the bottom codes; the decoder has both.

Differs from the paper: the priors have no self-attention, and both are the Gated PixelCNN of this
family, the bottom one given the top map.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import vq
from models.layers import quantize
from models.vq.convolutional import Decoder, Encoder


class Codec(nn.Module):
  """Two encoders one on the other, two quantisers, two decoders.

  Attributes:
    features: of the bottom encoder's strided convolutions.
    outputs: C * P.
    code_features: D.
    blocks: residual ones of each network.
    residual_features: inside them.
    quantizers: bottom and top.
    dtype: of activations.
  """

  features: tuple[int, ...]
  outputs: int
  code_features: int
  blocks: int
  residual_features: int
  quantizers: tuple[nn.Module, nn.Module]
  dtype: Any

  def setup(self):
    rest = (True, self.blocks, self.residual_features, self.dtype)
    width, code = self.features[-1:], self.code_features
    convolution = lambda: nn.Conv(code, (1, 1), dtype=self.dtype)  # noqa: E731
    self.encoder_bottom, self.encoder_top = Encoder(self.features, *rest), Encoder(width, *rest)
    self.to_bottom, self.to_top = convolution(), convolution()
    self.decoder_top = Decoder(width, code, *rest)
    self.upsample = nn.ConvTranspose(code, (4, 4), (2, 2), dtype=self.dtype)
    self.decoder = Decoder(self.features, self.outputs, *rest)

  def encode(self, image: jax.Array, *, train: bool, mask_B: jax.Array):
    """Two levels of codes [B, H, W, 1, D], bottom and top."""
    quantize_bottom, quantize_top = self.quantizers
    h_bottom = self.encoder_bottom(image - 0.5)
    h_top = self.to_top(self.encoder_top(h_bottom))
    top = quantize_top(h_top[..., None, :], train=train, mask_B=mask_B)
    seen = jnp.concatenate([h_bottom, self.decoder_top(top.straight[..., 0, :])], axis=-1)
    bottom = quantize_bottom(self.to_bottom(seen)[..., None, :], train=train, mask_B=mask_B)
    return bottom, top

  def lookup(self, maps: vq.Maps):
    """Codes of indices, bottom and top."""
    return [quantizer.lookup(map_) for quantizer, map_ in zip(self.quantizers, maps, strict=True)]

  def decode(self, codes) -> jax.Array:
    """[B, H_x, W_x, C * P] from codes, bottom and top."""
    bottom, top = (code[..., 0, :] for code in codes)
    return self.decoder(jnp.concatenate([bottom, self.upsample(top)], axis=-1))


class Model(vq.Coder):
  """A map of codes, and one of half its sides above it.

  Attributes:
    features: of the bottom encoder's strided convolutions; each halves the sides.
    residual_blocks: of every encoder and decoder.
    residual_features: inside a block.
    dtype: of activations.
  """

  features: tuple[Annotated[int, "[1, inf)"], ...] = (64, 128)
  residual_blocks: Annotated[int, "[0, 1000]"] = 2
  residual_features: Annotated[int, "[1, inf)"] = 64
  dtype: Any = jnp.float32

  @property
  def maps(self) -> tuple[tuple[int, int, int], ...]:
    halvings = len(self.features)
    return tuple((*vq.shrunk(self.data_shape, n)[:2], 1) for n in (halvings, halvings + 1))

  def setup(self):
    code_features = quantize.features(
      self.quantizer, features=self.code_features, levels=self.fsq_levels
    )
    self.codec = Codec(
      self.features,
      self.data_shape[-1] * self.observation.size,
      code_features,
      self.residual_blocks,
      self.residual_features,
      tuple(self.quantizers()),
      self.dtype,
    )
    self.prior = self.make_prior()
