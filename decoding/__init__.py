"""Decoding: tokens out of a model that gives the next one's distribution.

A model is seen through one function, `advance(tokens_BN, cache) -> (logits_BNV, cache)`: it feeds N
tokens an example and says, after each of them, how likely every next token is. -1 is no token: it
is skipped, so prompts of unequal length are padded by -1 on the left. A cache is a tree of arrays
[layers, B, ...] with the examples on axis 1; leaves of fewer than two dimensions belong to all
examples. Everything here is pure and runs inside whatever compiles it.

Axes: B examples, P tokens of the prompt, N new tokens, K beams, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Cache = Any
Advance = Callable[[jax.Array, Cache], tuple[jax.Array, Cache]]


def among(tokens: jax.Array, stop: Sequence[int]) -> jax.Array:
  """Whether each token is one of `stop`."""
  found = jnp.zeros(tokens.shape, bool)
  for token in stop:
    found |= tokens == token
  return found


def reorder(cache: Cache, index: jax.Array) -> Cache:
  """The cache of the examples at `index`, each of which may come more than once or never."""
  return jax.tree.map(lambda x: x[:, index] if x.ndim >= 2 else x, cache)


def example_keys(key: jax.Array, examples: int) -> jax.Array:
  """[examples] keys, an example's being a function of `key` and its row; keys [B] stay as given.

  So an example's noise is its own, whoever else is in the batch.
  """
  if key.ndim:
    return key
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(examples))
