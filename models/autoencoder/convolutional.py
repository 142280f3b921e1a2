"""Convolutional autoencoder with a small dense code.

After Masci, Meier, Ciresan & Schmidhuber 2011, "Stacked convolutional auto-encoders for
hierarchical feature extraction", ICANN, whose own network is `stacked_convolutional`.

Differs from the paper: trained whole instead of layer by layer; strides in the place of
max-pooling, rectified in the place of tanh units, a dense code between the maps, and a decoder with
weights of its own.
"""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.autoencoder import Output


class Model(nn.Module):
  """Convolutions of stride 2 -> dense code -> dense -> transposed convolutions -> logistic output.

  Attributes:
    data_shape: of one example, (H, W, C).
    features: maps of the convolutions; the decoder's mirror them. Each halves H and W.
    kernel: pixels on a side of every kernel.
    code: units of the code, which is linear.
    dtype: of activations.
  """

  data_shape: tuple[int, int, int]
  features: tuple[Annotated[int, "[1, inf)"], ...] = (16, 32)
  kernel: Annotated[int, "[1, inf)"] = 3
  code: Annotated[int, "[1, inf)"] = 32
  dtype: Any = jnp.float32

  def setup(self):
    *sides, channels = self.data_shape
    shrink = 2 ** len(self.features)
    if any(side % shrink for side in sides):
      raise ValueError(f"features={self.features} halve {sides} to no whole number of pixels")
    self.top = (*(side // shrink for side in sides), self.features[-1])
    options = dict(
      kernel_size=(self.kernel, self.kernel),
      strides=(2, 2),
      padding="SAME",
      dtype=self.dtype,
      kernel_init=nn.initializers.glorot_uniform(),
    )
    dense = lambda units: nn.Dense(  # noqa: E731
      units, dtype=self.dtype, kernel_init=nn.initializers.glorot_uniform()
    )
    self.encoder = [nn.Conv(maps, **options) for maps in self.features]
    self.to_code = dense(self.code)
    self.from_code = dense(math.prod(self.top))
    down = (*reversed(self.features[:-1]), channels)
    self.decoder = [nn.ConvTranspose(maps, **options) for maps in down]

  def encode(self, image: jax.Array) -> jax.Array:
    """The code [B, K] of images."""
    x = image
    for layer in self.encoder:
      x = nn.relu(layer(x))
    return self.to_code(x.reshape(len(x), -1)).astype(jnp.float32)

  def decode(self, code_BK: jax.Array) -> jax.Array:
    """Logits [B, *data] of codes."""
    x = nn.relu(self.from_code(code_BK)).reshape(-1, *self.top)
    for layer in self.decoder[:-1]:
      x = nn.relu(layer(x))
    return self.decoder[-1](x).astype(jnp.float32)

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    code_BK = self.encode(image)
    logits = self.decode(code_BK)
    return Output(logits, nn.sigmoid(logits), code_BK)
