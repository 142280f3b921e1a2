"""Deep autoencoder.

Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks", Science
313:504-507, figure 1: an encoder of halving widths, a linear code, the mirrored decoder.

Differs from the paper: trained from a modern initialisation by default, without the restricted
Boltzmann machines that it needed; `activation="tanh"` where logistic units would need them too.
"""

import math
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.autoencoder import Output

_ACTIVATIONS = {"logistic": nn.sigmoid, "tanh": jnp.tanh, "relu": nn.relu}


class Model(nn.Module):
  """x -> widths -> linear code -> mirrored widths -> logistic output.

  Attributes:
    data_shape: of one example.
    widths: units of the encoder's layers; the decoder's mirror them.
    code: units of the code.
    activation: of all layers but the code and the output.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  widths: tuple[Annotated[int, "[1, inf)"], ...] = (1000, 500, 250)
  code: Annotated[int, "[1, inf)"] = 30
  activation: Literal["logistic", "tanh", "relu"] = "logistic"
  dtype: Any = jnp.float32

  def setup(self):
    dense = lambda units: nn.Dense(  # noqa: E731
      units, dtype=self.dtype, kernel_init=nn.initializers.glorot_uniform()
    )
    self.encoder = [dense(units) for units in (*self.widths, self.code)]
    self.decoder = [dense(u) for u in (*reversed(self.widths), math.prod(self.data_shape))]

  def encode(self, image: jax.Array) -> jax.Array:
    """The code [B, K] of images."""
    x = image.reshape(image.shape[0], -1)
    for layer in self.encoder[:-1]:
      x = _ACTIVATIONS[self.activation](layer(x))
    return self.encoder[-1](x).astype(jnp.float32)

  def decode(self, code_BK: jax.Array) -> jax.Array:
    """Logits [B, *data] of codes."""
    x = code_BK
    for layer in self.decoder[:-1]:
      x = _ACTIVATIONS[self.activation](layer(x))
    return self.decoder[-1](x).astype(jnp.float32).reshape(-1, *self.data_shape)

  def __call__(self, image: jax.Array) -> Output:
    code_BK = self.encode(image)
    logits = self.decode(code_BK)
    return Output(logits, nn.sigmoid(logits), code_BK)
