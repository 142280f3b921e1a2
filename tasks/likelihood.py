"""Cross-entropies of what an autoencoder reconstructs, as sums over its dimensions."""

import jax

from models.layers import numerics


def bernoulli_nll(logits: jax.Array, x: jax.Array) -> jax.Array:
  """-log p(x) [B] of pixels x [B, ...] in [0, 1] under independent Bernoulli logits, in nats.

  Grey pixels count as their expectation: a cross-entropy, which is no likelihood. Finite for any
  finite logit.
  """
  # As rows: XLA's CPU backend vectorises along the last axis, which for grey images is of one.
  l_BD, x_BD = (a.reshape(len(a), -1) for a in (logits, x))
  return numerics.bernoulli_nll(l_BD, x_BD).sum(-1)


def multinomial_nll(logits: jax.Array, counts: jax.Array) -> jax.Array:
  """-sum_d counts_d log softmax(logits)_d [B] in nats, without the multinomial coefficient.

  Finite for any finite logit, and 0 for an empty document.
  """
  greatest, log_total = (x[..., None] for x in numerics.softmax_terms(logits))
  return (counts * (log_total - (logits - greatest))).sum(-1)
