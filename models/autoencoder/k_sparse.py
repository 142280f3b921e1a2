"""k-sparse autoencoder.

Makhzani & Frey 2014, "k-Sparse autoencoders", ICLR, arXiv:1312.5663: a linear code of which the k
largest numbers are kept and the others are zero, decoded by the same weights, transposed. No
gradient flows through what was dropped, and that is the only nonlinearity.

Differs from the paper: Glorot-uniform weights.
"""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.autoencoder import Output


class Model(nn.Module):
  """z = W^T x + b, all but the k largest of it zero, reconstruction W z + b'.

  Attributes:
    data_shape: of one example.
    code: units of the hidden layer.
    k: units that are kept.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  code: Annotated[int, "[1, inf)"] = 1000
  k: Annotated[int, "[1, inf)"] = 25
  dtype: Any = jnp.float32

  def setup(self):
    if self.k > self.code:
      raise ValueError(f"k={self.k}, but the code has {self.code} units")
    inputs = math.prod(self.data_shape)
    self.kernel_DK = self.param("kernel", nn.initializers.glorot_uniform(), (inputs, self.code))
    self.bias_K = self.param("bias", nn.initializers.zeros, (self.code,))
    self.decoder_bias_D = self.param("decoder_bias", nn.initializers.zeros, (inputs,))

  def encode(self, image: jax.Array, *, kept: jax.Array | int | None = None) -> jax.Array:
    """The code [B, K], of which `kept` units (one number, or [B, 1]; None for k) are not zero."""
    x_BD = image.reshape(image.shape[0], -1).astype(self.dtype)
    z_BK = x_BD @ self.kernel_DK.astype(self.dtype) + self.bias_K.astype(self.dtype)
    return largest(z_BK.astype(jnp.float32), self.k if kept is None else kept)

  def decode(self, code_BK: jax.Array) -> jax.Array:
    """The reconstruction [B, *data] of codes."""
    x_BD = code_BK.astype(self.dtype) @ self.kernel_DK.T.astype(self.dtype)
    x_BD = x_BD + self.decoder_bias_D.astype(self.dtype)
    return x_BD.astype(jnp.float32).reshape(-1, *self.data_shape)

  def __call__(
    self, image: jax.Array, others_B: jax.Array | None = None, *, train: bool = False
  ) -> Output:
    """Through the k largest units, and the share `others_B` in [0, 1] of all the others."""
    kept = self.k
    if others_B is not None:
      kept = self.k + jnp.round(others_B[:, None] * (self.code - self.k)).astype(jnp.int32)
    code_BK = self.encode(image, kept=kept)
    reconstruction = self.decode(code_BK)
    return Output(reconstruction, reconstruction, code_BK)  # the output is linear


def largest(z_BK: jax.Array, kept: jax.Array | int) -> jax.Array:
  """`z_BK` with all but the `kept` largest of each row zero; of equals, the first ones stay."""
  # The threshold is found bit by bit, greatest first: fourteen times as fast on a CPU as sorting,
  # and `kept` may change from step to step, as top_k's may not. Read as integers, floats keep their
  # order once the negative ones have all bits flipped, and the others their sign.
  bits_BK = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(z_BK), jnp.uint32)
  order_BK = jnp.where(z_BK < 0, ~bits_BK, bits_BK | jnp.uint32(1 << 31))
  least_B1 = jnp.zeros((len(z_BK), 1), jnp.uint32)  # of those that stay
  for bit in reversed(range(32)):
    higher_B1 = least_B1 | jnp.uint32(1 << bit)
    enough_B1 = (order_BK >= higher_B1).sum(-1, keepdims=True) >= kept
    least_B1 = jnp.where(enough_B1, higher_B1, least_B1)
  above_BK, equal_BK = order_BK > least_B1, order_BK == least_B1
  room_B1 = kept - above_BK.sum(-1, keepdims=True)
  return jnp.where(above_BK | (equal_BK & (jnp.cumsum(equal_BK, -1) <= room_B1)), z_BK, 0.0)
