"""Stacked convolutional autoencoder with a classifier on top.

Masci, Meier, Ciresan & Schmidhuber 2011, "Stacked convolutional auto-encoders for hierarchical
feature extraction", ICANN: each layer is trained as a convolutional autoencoder of the pooled maps
below it, h = s(x * W + b) and y = s(h * flip(W) + c), then the stack is fine-tuned as a
convolutional network. Max-pooling is what keeps a code sparse: all that is not the largest of its
block is erased before decoding.

Differs from the paper: logistic units, where it scales a tanh, so that the maps of a layer can be
reconstructed by cross-entropy like those of `stacked`. The sizes are recalled, not checked.

Every layer is one top-level parameter group, `layer_0` ..., and the classifier is the group `top`,
so a stage trains what it names.

Axes: B examples, H and W pixels, C channels below, K maps.
"""

from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Output(NamedTuple):
  """The whole stack: class logits, and the pooled maps of every layer from the bottom."""

  logits: jax.Array  # [B, C]
  codes: tuple[jax.Array, ...]


class Layer(nn.Module):
  """One convolutional autoencoder of the stack, with tied weights.

  Attributes:
    channels: of what it encodes.
    maps: of its code.
    side: of its kernels, in pixels.
    pool: side of the blocks of which the maximum is kept; 1 keeps everything.
    dtype: of activations.
  """

  channels: int
  maps: int
  side: int
  pool: int
  dtype: Any

  def setup(self):
    # Glorot & Bengio 2010: a sigmoid's slope at zero is a quarter of tanh's, so four times as wide.
    init = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")
    shape = (self.side, self.side, self.channels, self.maps)
    self.kernel_HWCK = self.param("kernel", init, shape)
    self.bias_K = self.param("bias", nn.initializers.zeros, (self.maps,))
    self.decoder_bias_C = self.param("decoder_bias", nn.initializers.zeros, (self.channels,))

  def _hidden(self, x_BHWC: jax.Array) -> jax.Array:
    a = jax.lax.conv_general_dilated(
      x_BHWC.astype(self.dtype),
      self.kernel_HWCK.astype(self.dtype),
      window_strides=(1, 1),
      padding="VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return nn.sigmoid(a + self.bias_K.astype(self.dtype))

  def encode(self, x_BHWC: jax.Array) -> jax.Array:
    """The pooled maps, which the layer above encodes."""
    window = (self.pool, self.pool)
    return nn.max_pool(self._hidden(x_BHWC), window, strides=window)

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    """Logits of the reconstruction of `x_BHWC`."""
    sparse = erased(self._hidden(x_BHWC), self.pool)
    logits = jax.lax.conv_transpose(
      sparse,
      self.kernel_HWCK.astype(self.dtype),
      strides=(1, 1),
      padding="VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      transpose_kernel=True,  # flipped, and from maps to channels
    )
    return (logits + self.decoder_bias_C.astype(self.dtype)).astype(jnp.float32)


def erased(h_BHWK: jax.Array, pool: int) -> jax.Array:
  """Maps with all but the largest value of each block of pool x pool set to zero."""
  examples, height, width, maps = h_BHWK.shape
  if height % pool or width % pool:
    raise ValueError(f"maps of {height} x {width} are no whole blocks of {pool} x {pool}")
  blocks = h_BHWK.reshape(examples, height // pool, pool, width // pool, pool, maps)
  largest = blocks.max((2, 4), keepdims=True)
  return jnp.where(blocks == largest, blocks, 0).reshape(h_BHWK.shape)


class Model(nn.Module):
  """A stack of convolutional layers under a network of one hidden layer.

  Attributes:
    data_shape: of one example, (H, W, C).
    classes: of the classifier.
    widths: maps of the layers from the bottom.
    sides: of the layers' kernels, in pixels.
    pools: of the layers, sides of the blocks that are pooled.
    hidden: units between the maps and the classes.
    dtype: of activations.
  """

  data_shape: tuple[int, int, int]
  classes: Annotated[int, "[2, inf)"]
  widths: tuple[Annotated[int, "[1, inf)"], ...] = (100, 150, 200)
  sides: tuple[Annotated[int, "[1, inf)"], ...] = (5, 5, 3)
  pools: tuple[Annotated[int, "[1, inf)"], ...] = (2, 2, 1)
  hidden: Annotated[int, "[1, inf)"] = 300
  dtype: Any = jnp.float32

  def setup(self):
    if not len(self.widths) == len(self.sides) == len(self.pools):
      raise ValueError(f"widths={self.widths}, sides={self.sides} and pools={self.pools} differ")
    below = (self.data_shape[-1], *self.widths[:-1])
    sizes = zip(below, self.widths, self.sides, self.pools, strict=True)
    self.layer = [Layer(*size, self.dtype) for size in sizes]
    self.top = Top(self.hidden, self.classes, self.dtype)

  def reconstruct(self, image: jax.Array, *, layer: int) -> tuple[jax.Array, jax.Array]:
    """Layer `layer`'s input [B, H, W, C], and the logits of its reconstruction."""
    x = image
    for below in self.layer[:layer]:
      x = below.encode(x)
    return x.astype(jnp.float32), self.layer[layer](x)

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    x, codes = image, []
    for layer in self.layer:
      if self.is_initializing():
        layer(x)  # creates the decoder's bias too
      x = layer.encode(x)
      codes.append(x)
    return Output(self.top(x.reshape(len(x), -1)), tuple(codes))


class Top(nn.Module):
  """The classifier: one hidden layer of logistic units, then logits.

  Attributes:
    hidden: units of the hidden layer.
    classes: of the output.
    dtype: of activations.
  """

  hidden: int
  classes: int
  dtype: Any

  @nn.compact
  def __call__(self, x_BD: jax.Array) -> jax.Array:
    h_BH = nn.sigmoid(nn.Dense(self.hidden, dtype=self.dtype)(x_BD))
    return nn.Dense(self.classes, dtype=self.dtype)(h_BH).astype(jnp.float32)
