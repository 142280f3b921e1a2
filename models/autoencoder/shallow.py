"""Autoencoder with one hidden layer.

One network serves several papers, which differ in its units and in the objective:

  Baldi & Hornik 1989, Neural Networks 2:53-58: linear units, untied, squared error.
  Ng 2011, "Sparse autoencoder", CS294A lecture notes: logistic, untied, `tasks.sparse`.
  Rifai et al. 2011, "Contractive auto-encoders", ICML: logistic, tied, `tasks.contractive`.

Differs from the papers: Glorot-uniform weights, +-sqrt(6 / (D + K)), where Ng's notes have one more
in the denominator and Baldi & Hornik, who prove and do not train, have none.
"""

import math
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.autoencoder import Output

_ACTIVATIONS = {
  "linear": lambda x: x,
  "logistic": nn.sigmoid,
  "tanh": jnp.tanh,
  "relu": nn.relu,
}
# ds/da of each as a function of its value h = s(a).
_SLOPES = {
  "linear": jnp.ones_like,
  "logistic": lambda h: h * (1 - h),
  "tanh": lambda h: 1 - h**2,
  "relu": lambda h: (h > 0).astype(h.dtype),
}


class Model(nn.Module):
  """x -> s(x W + b) -> reconstruction.

  Attributes:
    data_shape: of one example.
    code: units of the hidden layer.
    activation: of the hidden layer, s.
    output: "logistic" for pixels in [0, 1], or "linear".
    tied: whether the decoder's weights are the encoder's, transposed.
    margin: pixels are taken into [margin, 1 - margin] on the way in, and back on the way out, since
      logistic units reach neither 0 nor 1 (Ng 2011: 0.1).
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  code: Annotated[int, "[1, inf)"] = 1000
  activation: Literal["linear", "logistic", "tanh", "relu"] = "logistic"
  output: Literal["linear", "logistic"] = "logistic"
  tied: bool = True
  margin: Annotated[float, "[0, 0.5)"] = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    inputs, glorot = math.prod(self.data_shape), nn.initializers.glorot_uniform()
    self.kernel_DK = self.param("kernel", glorot, (inputs, self.code))
    self.bias_K = self.param("bias", nn.initializers.zeros, (self.code,))
    if not self.tied:
      self.decoder_kernel_KD = self.param("decoder_kernel", glorot, (self.code, inputs))
    self.decoder_bias_D = self.param("decoder_bias", nn.initializers.zeros, (inputs,))

  def encode(self, image: jax.Array) -> jax.Array:
    """The code [B, K] of images."""
    x_BD = image.reshape(image.shape[0], -1)
    x_BD = self.margin + (1 - 2 * self.margin) * x_BD
    a_BK = _affine(x_BD, self.kernel_DK, self.bias_K, self.dtype)
    return _ACTIVATIONS[self.activation](a_BK).astype(jnp.float32)

  def decode(self, code_BK: jax.Array) -> jax.Array:
    """The output [B, *data] before its nonlinearity."""
    kernel_KD = self.kernel_DK.T if self.tied else self.decoder_kernel_KD
    a_BD = _affine(code_BK, kernel_KD, self.decoder_bias_D, self.dtype)
    return a_BD.astype(jnp.float32).reshape(-1, *self.data_shape)

  def contraction(self, image: jax.Array) -> jax.Array:
    """||J_f(x)||_F^2 [B] of the encoder f, in closed form (Rifai et al. 2011)."""
    slope_BK = _SLOPES[self.activation](self.encode(image))
    kernel_DK = (1 - 2 * self.margin) * self.kernel_DK
    return jnp.square(slope_BK) @ jnp.square(kernel_DK).sum(0)

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    code_BK = self.encode(image)
    logits = self.decode(code_BK)
    found = _ACTIVATIONS[self.output](logits)
    return Output(logits, (found - self.margin) / (1 - 2 * self.margin), code_BK)


def _affine(x_BD: jax.Array, kernel_DK: jax.Array, bias_K: jax.Array, dtype) -> jax.Array:
  return x_BD.astype(dtype) @ kernel_DK.astype(dtype) + bias_K.astype(dtype)
