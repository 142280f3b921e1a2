"""Stacked autoencoder with a classifier on top.

Bengio, Lamblin, Popovici & Larochelle 2006, "Greedy layer-wise training of deep networks": each
layer is trained as the encoder of an autoencoder on the codes of the layer below, then the stack
is fine-tuned with a logistic top layer.

Every layer with its decoder is one top-level parameter group, `layer_0` ..., and the classifier is
the group `top`, so a stage trains what it names. Decoders are untied from encoders.

Axes: B examples, C classes.
"""

import math
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Output(NamedTuple):
  """The whole stack: class logits, and the codes of every layer from the bottom."""

  logits: jax.Array  # [B, C]
  codes: tuple[jax.Array, ...]


class Layer(nn.Module):
  """One logistic autoencoder of the stack.

  Attributes:
    inputs: dimensions of what it encodes.
    units: of its code.
    init_std: of the weights at the start; 0 for 4x Glorot, made for logistic units.
    dtype: of activations.
  """

  inputs: int
  units: int
  init_std: float
  dtype: Any

  def setup(self):
    # Glorot & Bengio 2010: a sigmoid's slope at zero is a quarter of tanh's, so four times as wide.
    four_glorot = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")
    init = nn.initializers.normal(self.init_std) if self.init_std else four_glorot
    self.encoder = nn.Dense(self.units, dtype=self.dtype, kernel_init=init)
    self.decoder = nn.Dense(self.inputs, dtype=self.dtype, kernel_init=init)

  def encode(self, x: jax.Array) -> jax.Array:
    return nn.sigmoid(self.encoder(x))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits of the reconstruction of `x` [B, inputs]."""
    return self.decoder(self.encode(x)).astype(jnp.float32)


class Model(nn.Module):
  """A stack of logistic layers under a linear classifier.

  Attributes:
    data_shape: of one example.
    classes: of the classifier.
    widths: units of the layers from the bottom.
    init_std: of all weights at the start; 0 for 4x Glorot.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  classes: Annotated[int, "[2, inf)"]
  widths: tuple[Annotated[int, "[1, inf)"], ...] = (1000, 1000, 1000)
  init_std: Annotated[float, "[0, inf)"] = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    sizes = (math.prod(self.data_shape), *self.widths)
    self.layer = [
      Layer(below, units, self.init_std, self.dtype)
      for below, units in zip(sizes[:-1], self.widths, strict=True)
    ]
    self.top = nn.Dense(self.classes, dtype=self.dtype)

  def reconstruct(self, image: jax.Array, *, layer: int) -> tuple[jax.Array, jax.Array]:
    """Layer `layer`'s input [B, inputs], and the logits of its reconstruction."""
    x = image.reshape(image.shape[0], -1)
    for below in self.layer[:layer]:
      x = below.encode(x)
    return x.astype(jnp.float32), self.layer[layer](x)

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    x, codes = image.reshape(image.shape[0], -1), []
    for layer in self.layer:
      if self.is_initializing():
        layer(x)  # creates the decoder too
      x = layer.encode(x)
      codes.append(x)
    return Output(self.top(x).astype(jnp.float32), tuple(codes))
