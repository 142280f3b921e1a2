"""VQ-VAE with fully connected networks.

van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation learning",
arXiv:1711.00937, sections 3.1 and 3.2; models/vq/convolutional.py has the paper's network.

Differs from the paper: one hidden layer on either side instead of convolutions, so the codes have
no place in the image; they stand in a map all the same, in whose raster order the prior reads them.
"""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models import vq
from models.layers import quantize


class Codec(nn.Module):
  """image -> hidden -> H * W codes -> hidden -> parameters.

  Attributes:
    shape: (H, W) of the map.
    features: D.
    hidden: units.
    outputs: numbers that the decoder gives, D_x * P.
    quantizer: of the codes.
    dtype: of activations.
  """

  shape: tuple[int, int]
  features: int
  hidden: int
  outputs: int
  quantizer: nn.Module
  dtype: Any

  def setup(self):
    dense = lambda units: nn.Dense(units, dtype=self.dtype)  # noqa: E731
    self.encoder = [dense(self.hidden), dense(math.prod(self.shape) * self.features)]
    self.decoder = [dense(self.hidden), dense(self.outputs)]

  def encode(self, image: jax.Array, *, train: bool, mask_B: jax.Array):
    """One level of codes [B, H, W, 1, D]."""
    x = nn.relu(self.encoder[0](image.reshape(len(image), -1)))
    x = self.encoder[1](x).reshape(-1, *self.shape, 1, self.features)
    return (self.quantizer(x, train=train, mask_B=mask_B),)

  def lookup(self, maps: vq.Maps):
    """Codes of indices."""
    return [self.quantizer.lookup(maps[0])]

  def decode(self, codes) -> jax.Array:
    """[B, outputs] from codes."""
    x = codes[0].reshape(len(codes[0]), -1)
    return self.decoder[1](nn.relu(self.decoder[0](x)))


class Model(vq.Coder):
  """A map of codes between two small MLPs.

  Attributes:
    grid: (H, W) of the map of codes.
    hidden: units of the one hidden layer on either side.
    dtype: of activations.
  """

  grid: tuple[Annotated[int, "[1, inf)"], Annotated[int, "[1, inf)"]] = (2, 4)
  hidden: Annotated[int, "[1, inf)"] = 128
  dtype: Any = jnp.float32

  @property
  def maps(self) -> tuple[tuple[int, int, int], ...]:
    return ((*self.grid, 1),)

  def setup(self):
    (quantizer,) = self.quantizers()
    self.codec = Codec(
      self.grid,
      quantize.features(self.quantizer, features=self.code_features, levels=self.fsq_levels),
      self.hidden,
      math.prod(self.data_shape) * self.observation.size,
      quantizer,
      self.dtype,
    )
    self.prior = self.make_prior()
