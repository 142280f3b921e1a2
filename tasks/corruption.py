"""Corruptions of an input, from which a denoising autoencoder must find the input again.

Vincent, Larochelle, Bengio & Manzagol 2008, "Extracting and composing robust features with
denoising autoencoders", and Vincent, Larochelle, Lajoie, Bengio & Manzagol 2010, "Stacked denoising
autoencoders", JMLR 11:3371-3408.

Axes: B examples, D components.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from models.layers import batch_axis

Kind = Literal["masking", "salt_and_pepper", "gaussian"]


def corrupt(
  kind: Kind, key: jax.Array, x_BD: jax.Array, level: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
  """`x_BD` corrupted, and which components were touched [B, D].

  Args:
    kind: "masking" sets components to 0, "salt_and_pepper" to 0 or 1 by a fair coin, "gaussian"
      adds noise to all.
    key: of the whole batch; each example has noise of its own.
    x_BD: clean, in [0, 1]. What is left of it is not rescaled, unlike in dropout.
    level: the fraction of components touched, exactly round(level * D) of each example; of
      Gaussian noise the standard deviation.
  """
  if kind == "gaussian":
    noise_BD = batch_axis.normal(key, x_BD.shape, x_BD.dtype)
    return x_BD + level * noise_BD, jnp.ones(x_BD.shape, bool)
  where, coin = jax.random.split(key)
  dimensions = x_BD.shape[1]
  count = jnp.round(level * dimensions)
  # A random permutation is a rank for every component: exactly `count` lie below `count`, whether
  # or not `count` is known when compiling.
  ranks = lambda k: jax.random.permutation(k, dimensions)  # noqa: E731
  touched_BD = jax.vmap(ranks)(batch_axis.keys(where, len(x_BD))) < count.astype(jnp.int32)
  value_BD = jnp.zeros_like(x_BD)
  if kind == "salt_and_pepper":
    value_BD = batch_axis.bernoulli(coin, 0.5, x_BD.shape).astype(x_BD.dtype)
  return jnp.where(touched_BD, value_BD, x_BD), touched_BD
