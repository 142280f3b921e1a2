"""Recurrent networks of sequences: language models, encoders with decoders, attention.

Axes, in every file of this family: B examples, T positions of what is written, S positions of the
source, D features, H hidden units, L layers, V vocabulary. Inside, time comes first ([T, B, ...]).

All return `models.layers.sequence.Prediction` and generate by `begin` and `advance`. A cache holds
the recurrent states, [L, B, H], and of a model with attention what it attends to; its size does not
grow, so `capacity` is not looked at.
"""

import jax


def maxout(x: jax.Array) -> jax.Array:
  """The larger of each pair of neighbours, [..., 2M] to [..., M] (Goodfellow et al. 2013)."""
  return x.reshape(*x.shape[:-1], -1, 2).max(-1)
