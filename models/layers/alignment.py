"""Attention of a recurrent decoder over what its encoder read, one step at a time.

Axes: B examples, S source positions, N features of a score.
"""

import jax
import jax.numpy as jnp


def additive(query_BN: jax.Array, keys_BSN: jax.Array, score_N: jax.Array) -> jax.Array:
  """[B, S] e_s = v^T tanh(query + key_s) (Bahdanau et al. 2015, appendix A.1.2)."""
  return jnp.einsum("bsn,n->bs", jnp.tanh(query_BN[:, None] + keys_BSN), score_N)


def softmax(score_BS: jax.Array, mask_BS: jax.Array) -> jax.Array:
  """[B, S] weights that sum to one, zero where the mask is false; taken in float32."""
  # A large number and not infinity: of an example that is all padding nothing may become nan.
  score = jnp.where(mask_BS, score_BS.astype(jnp.float32), -1e30)
  return jax.nn.softmax(score, axis=-1).astype(score_BS.dtype)
