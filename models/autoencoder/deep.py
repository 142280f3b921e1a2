"""Deep autoencoder.

Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks", Science
313:504-507, figure 1: an encoder of halving widths, a linear code, the mirrored decoder.

Differs from the paper: nothing where it follows stages of `autoencoder.boltzmann`, the restricted
Boltzmann machines, which it unrolls. Alone it starts from a modern initialisation, or from
N(0, init_std), from which deep logistic networks do not train.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.autoencoder import Output

_ACTIVATIONS = {"logistic": nn.sigmoid, "tanh": jnp.tanh, "relu": nn.relu}
_OUTPUTS = {"logistic": nn.sigmoid, "softmax": nn.softmax, "linear": lambda x: x}


class Model(nn.Module):
  """x -> widths -> linear code -> mirrored widths -> output.

  Attributes:
    data_shape: of one example.
    widths: units of the encoder's layers; the decoder's mirror them.
    code: units of the code.
    activation: of all layers but the code and the output.
    output: "logistic" for pixels in [0, 1], "softmax" for a document's counts of words or
      their proportions, "linear" for any numbers.
    init_std: of the weights at the start; 0 for Glorot-uniform.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  widths: tuple[Annotated[int, "[1, inf)"], ...] = (1000, 500, 250)
  code: Annotated[int, "[1, inf)"] = 30
  activation: Literal["logistic", "tanh", "relu"] = "logistic"
  output: Literal["logistic", "softmax", "linear"] = "logistic"
  init_std: Annotated[float, "[0, inf)"] = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    normal = nn.initializers.normal(self.init_std)
    kernel_init = normal if self.init_std else nn.initializers.glorot_uniform()
    dense = lambda units: nn.Dense(units, dtype=self.dtype, kernel_init=kernel_init)  # noqa: E731
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

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    code_BK = self.encode(image)
    logits = self.decode(code_BK)
    rows_BD = logits.reshape(len(logits), -1)  # a softmax is over all of an example
    mean_BD = _OUTPUTS[self.output](rows_BD)
    if self.output == "softmax":
      # Of as many words as there are.
      mean_BD *= image.reshape(len(image), -1).sum(-1, keepdims=True)
    return Output(logits, mean_BD.reshape(logits.shape), code_BK)

  def adopt(self, fresh: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """`fresh` parameters with those of an earlier stage, whose Boltzmann machines are unrolled."""
    given = unrolled(before) if "rbm_0" in before else before
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    return {
      name: given[name] if name in given and shapes(given[name]) == shapes(tree) else tree
      for name, tree in fresh.items()
    }


def unrolled(machines: Mapping[str, Any]) -> dict[str, Any]:
  """Layers of the autoencoder that a stack of machines `rbm_0` ... is (figure 1, "unrolling").

  Weights go up as W and down as its transpose; from here on they are trained apart.
  """
  layers, top = {}, len(machines) - 1
  for i in range(len(machines)):
    machine = machines[f"rbm_{i}"]
    layers[f"encoder_{i}"] = {"kernel": machine["kernel"], "bias": machine["hidden_bias"]}
    layers[f"decoder_{top - i}"] = {"kernel": machine["kernel"].T, "bias": machine["visible_bias"]}
  return layers
