"""Stacked autoencoder with a classifier, or a regression, on top.

Bengio, Lamblin, Popovici & Larochelle 2006, "Greedy layer-wise training of deep networks": each
layer is trained as the encoder of an autoencoder on the codes of the layer below, then the stack
is fine-tuned with a logistic top layer, or with a linear one for a regression. Vincent et al. 2010,
"Stacked denoising autoencoders", JMLR 11:3371-3408: the same, each layer trained to restore a
corrupted input.

Every layer with its decoder is one top-level parameter group, `layer_0` ..., and what is on top is
the group `top`, so a stage trains what it names.

Axes: B examples, C classes, or dimensions of a regression's target.
"""

import math
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Output(NamedTuple):
  """The whole stack: what is on top, and the codes of every layer from the bottom."""

  logits: jax.Array  # [B, C]  of classes, or the regression's prediction
  codes: tuple[jax.Array, ...]


class Layer(nn.Module):
  """One logistic autoencoder of the stack.

  Attributes:
    inputs: dimensions of what it encodes.
    units: of its code.
    tied: whether the decoder's weights are the encoder's, transposed.
    init_std: of the weights at the start; 0 for 4x Glorot, made for logistic units.
    dtype: of activations.
  """

  inputs: int
  units: int
  tied: bool
  init_std: float
  dtype: Any

  def setup(self):
    # Glorot & Bengio 2010: a sigmoid's slope at zero is a quarter of tanh's, so four times as wide.
    four_glorot = nn.initializers.variance_scaling(16.0, "fan_avg", "uniform")
    init = nn.initializers.normal(self.init_std) if self.init_std else four_glorot
    self.encoder = nn.Dense(self.units, dtype=self.dtype, kernel_init=init)
    if self.tied:
      self.decoder_bias = self.param("decoder_bias", nn.initializers.zeros_init(), (self.inputs,))
    else:
      self.decoder = nn.Dense(self.inputs, dtype=self.dtype, kernel_init=init)

  def encode(self, x: jax.Array) -> jax.Array:
    return nn.sigmoid(self.encoder(x))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Logits of the reconstruction of `x` [B, inputs]."""
    code = self.encode(x)
    if not self.tied:
      return self.decoder(code).astype(jnp.float32)
    kernel = self.encoder.variables["params"]["kernel"].astype(self.dtype)
    return (code @ kernel.T).astype(jnp.float32) + self.decoder_bias


class Model(nn.Module):
  """A stack of logistic layers under a linear one.

  Attributes:
    data_shape: of one example.
    classes: of the classifier on top; 0 where there is a regression.
    widths: units of the layers from the bottom.
    targets: dimensions of the regression on top; 0 where there is a classifier.
    tied: whether a layer decodes with the transpose of the weights that it encodes with.
    init_std: of all weights at the start; 0 for 4x Glorot.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  classes: Annotated[int, "[0, inf)"] = 0
  widths: tuple[Annotated[int, "[1, inf)"], ...] = (1000, 1000, 1000)
  targets: Annotated[int, "[0, inf)"] = 0
  tied: bool = False
  init_std: Annotated[float, "[0, inf)"] = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    sizes = (math.prod(self.data_shape), *self.widths)
    self.layer = [
      Layer(below, units, self.tied, self.init_std, self.dtype)
      for below, units in zip(sizes[:-1], self.widths, strict=True)
    ]
    self.top = nn.Dense(self.targets or self.classes, dtype=self.dtype)

  def below(self, image: jax.Array, *, layer: int) -> jax.Array:
    """Layer `layer`'s input [B, inputs]: the codes of the layers below it."""
    x = image.reshape(image.shape[0], -1)
    for below in self.layer[:layer]:
      x = below.encode(x)
    return x.astype(jnp.float32)

  def restore(self, x: jax.Array, *, layer: int) -> jax.Array:
    """Logits [B, inputs] of layer `layer`'s reconstruction from `x` [B, inputs]."""
    return self.layer[layer](x)

  def reconstruct(self, image: jax.Array, *, layer: int) -> tuple[jax.Array, jax.Array]:
    """Layer `layer`'s input [B, inputs], and the logits of its reconstruction."""
    x = self.below(image, layer=layer)
    return x, self.restore(x, layer=layer)

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    x, codes = image.reshape(image.shape[0], -1), []
    for layer in self.layer:
      if self.is_initializing():
        layer(x)  # creates the decoder too
      x = layer.encode(x)
      codes.append(x)
    return Output(self.top(x).astype(jnp.float32), tuple(codes))
