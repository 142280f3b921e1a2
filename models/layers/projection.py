"""Linear layers that may be computed together, as one product.

The parameters are those of `nn.Dense` and `nn.DenseGeneral`, in names, shapes and initial values.
Layers that read the same input are set side by side where that pays: one large product is faster
than several small ones, and its gradient by the input is one sum, hence one sum over devices where
the layers are split (Shoeybi et al. 2019, arXiv:1909.08053, section 3).

Axes: B examples, T positions, D input features.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Projection(nn.Module):
  """The parameters of a linear layer [D, *shape].

  Attributes:
    shape: of the output's features.
    bias: whether there is one.
    kernel_init: of the kernel seen as a matrix.
    dtype: that the layer computes in.
  """

  shape: tuple[int, ...]
  bias: bool = True
  kernel_init: Any = nn.initializers.lecun_normal()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, features: int) -> tuple[jax.Array, jax.Array | None]:
    """(kernel [D, *shape], bias [*shape] or None) for D input features."""

    def init(key, shape, dtype=jnp.float32):
      return self.kernel_init(key, (features, math.prod(self.shape)), dtype).reshape(shape)

    kernel = self.param("kernel", init, (features, *self.shape)).astype(self.dtype)
    if not self.bias:
      return kernel, None
    return kernel, self.param("bias", nn.initializers.zeros, self.shape).astype(self.dtype)


def together(
  x_BTD: jax.Array, parts: Sequence[tuple[jax.Array, jax.Array | None]]
) -> list[jax.Array]:
  """[B, T, ..., n, H] of each (kernel [D, ..., n, H], bias [..., n, H] or None).

  Kernels are set side by side along n. For a single position, as in decoding, that would take
  longer than to read each where it is.
  """
  if len(parts) == 1 or x_BTD.shape[1] == 1:
    return [project(x_BTD, *part) for part in parts]
  kernels, biases = zip(*parts, strict=True)
  bias = None if biases[0] is None else jnp.concatenate(biases, axis=-2)
  whole = project(x_BTD, jnp.concatenate(kernels, axis=-2), bias)
  ends = np.cumsum([kernel.shape[-2] for kernel in kernels])[:-1]
  return jnp.split(whole, ends, axis=-2)


def project(x_BTD: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
  """[B, T, *shape] of a kernel [D, *shape]."""
  # As one matrix of tokens: XLA's CPU backend multiplies and differentiates those faster.
  rows = x_BTD.astype(kernel.dtype).reshape(-1, x_BTD.shape[-1])
  y = rows @ kernel.reshape(len(kernel), -1)
  y = y if bias is None else y + bias.reshape(-1)
  return y.reshape(*x_BTD.shape[:-1], *kernel.shape[1:])
