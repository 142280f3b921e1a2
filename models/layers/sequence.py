"""What models of token sequences share: their output, and how padding is told from tokens.

-1 stands for padding, everywhere: it is never an id, so no vocabulary needs a token for it.

Axes: B examples, T positions, V vocabulary, D features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Prediction(NamedTuple):
  """What a model makes of a sequence.

  Attributes:
    logits: [B, T, V] float32, of the token that follows each position.
    hidden: [B, T, D] float32, the features that the logits are read from.
  """

  logits: jax.Array
  hidden: jax.Array


def valid(tokens: jax.Array) -> jax.Array:
  """Whether each of `tokens` is a token and not padding."""
  return tokens >= 0


def positions_of(tokens_BT: jax.Array, segments_BT: jax.Array | None = None) -> jax.Array:
  """[B, T] the place of each token among the tokens of its segment, -1 for padding."""
  there_BT = valid(tokens_BT)
  count_BT = jnp.cumsum(there_BT, axis=1, dtype=jnp.int32)
  if segments_BT is not None:
    fresh_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)))
    # Tokens before the segment's first: the count does not fall, so a running maximum carries it.
    count_BT -= jax.lax.cummax(jnp.where(fresh_BT, count_BT - 1, 0), axis=1)
  return jnp.where(there_BT, count_BT - 1, -1)


def embed(table_VD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
  """Rows of an embedding [B, T, D]; zeros for padding."""
  rows_BTD = table_VD[jnp.maximum(tokens_BT, 0)]
  return jnp.where(valid(tokens_BT)[..., None], rows_BTD, jnp.zeros((), rows_BTD.dtype))
