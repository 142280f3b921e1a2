"""How alike two vectors are."""

import jax
import jax.numpy as jnp

_SMALLEST = 1e-24  # of the product of squared lengths


def cosine(u: jax.Array, v: jax.Array) -> jax.Array:
  """[...] the cosine of the angle between vectors [..., D]; 0 where either is zero."""
  squares = jnp.square(u).sum(-1) * jnp.square(v).sum(-1)
  return (u * v).sum(-1) * jax.lax.rsqrt(jnp.maximum(squares, _SMALLEST))
