"""Normalisation layers."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis


class BatchNorm(nn.Module):
  """Batch normalisation over the global batch (Ioffe & Szegedy 2015, arXiv:1502.03167, alg. 1).

  Statistics are sums over counts in float32, over all devices that share the batch, so one device
  and many agree. Running statistics live in the collection "batch_stats"; the running variance is
  the unbiased estimate, as in the paper (alg. 2) and in PyTorch.

  Attributes:
    momentum: weight of the old running statistics.
    epsilon: added to the variance.
    affine: whether a learned scale and bias follow.
    dtype: of the output; statistics and parameters stay float32.
  """

  momentum: Annotated[float, "[0, 1)"] = 0.9
  epsilon: Annotated[float, "(0, inf)"] = 1e-5
  affine: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Normalises [B, ..., C] over all but the last axis."""
    features = x.shape[-1]
    scale_C, bias_C = 1.0, 0.0
    if self.affine:
      scale_C = self.param("scale", nn.initializers.ones, (features,))
      bias_C = self.param("bias", nn.initializers.zeros, (features,))
    mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
    variance = self.variable("batch_stats", "variance", jnp.ones, (features,))

    if train:
      x32 = x.astype(jnp.float32)
      axes = tuple(range(x.ndim - 1))
      count = jnp.float32(x.size // features)
      sum_C, count = batch_axis.total((x32.sum(axes), count))
      mean_C = sum_C / count
      # Two passes: E[x^2] - E[x]^2 loses all digits where the mean is large.
      variance_C = batch_axis.total(jnp.square(x32 - mean_C).sum(axes)) / count
      if not self.is_initializing():
        unbiased_C = variance_C * count / jnp.maximum(count - 1.0, 1.0)
        mean.value = self.momentum * mean.value + (1 - self.momentum) * mean_C
        variance.value = self.momentum * variance.value + (1 - self.momentum) * unbiased_C
    else:
      mean_C, variance_C = mean.value, variance.value

    y = (x.astype(jnp.float32) - mean_C) * jax.lax.rsqrt(variance_C + self.epsilon)
    return (y * scale_C + bias_C).astype(self.dtype)
