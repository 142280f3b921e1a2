"""Functions that stay finite, and exact, where their textbook form overflows or cancels."""

import jax
import jax.numpy as jnp

LARGEST_EXPONENT = 30.0  # e^30 is 1e13: beyond any variance or ratio of a run that goes well


def exp_then_line(x: jax.Array) -> jax.Array:
  """e^x up to x = 30, and from there on its tangent, e^30 (x - 29).

  Value and slope are continuous, and finite in float32 for x up to 1e25, where e^x ends at 88. The
  slope does not vanish as that of a clipped exponent would: a log-variance or a log-ratio that has
  run away is still pulled back.
  """
  # Factors and not a where(): neither branch has a gradient that could overflow.
  return jnp.exp(jnp.minimum(x, LARGEST_EXPONENT)) * (1 + jnp.maximum(x - LARGEST_EXPONENT, 0))


def log_sum_exp(values: jax.Array, axis: int) -> jax.Array:
  """log(sum(exp(values))) along `axis`, of values as large as float32 has; some may be -inf.

  XLA may compute the values anew in each loop that reads them, rounded otherwise. Those of 1e12
  then differ from the greatest, which is one of them, by 1e5 either way, and the exponential of
  that, as in `jax.nn.logsumexp`, is infinite or leaves nothing to take the logarithm of.
  """
  greatest = jax.lax.stop_gradient(values.max(axis, keepdims=True))
  known = jnp.isfinite(greatest)
  greatest = jnp.where(known, greatest, 0.0)
  below = values - greatest
  # What rounding has lost is put back as a constant, so that no slope changes.
  below -= jax.lax.stop_gradient(jnp.maximum(below, 0.0))
  total = jnp.exp(below).sum(axis, keepdims=True)
  total += jax.lax.stop_gradient(jnp.where(known, jnp.maximum(1 - total, 0.0), 0.0))
  return (jnp.log(total) + greatest).squeeze(axis)


def softmax_terms(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(the greatest of logits [..., K], the log of the sum of exp(logits - greatest)), each [...].

  -log softmax(logits)_k is the second less (logits_k - greatest), in this order: both are small
  where it is. With logits around 1e4, whose normaliser is too, three decimals of it would be left.
  """
  greatest = jax.lax.stop_gradient(logits.max(-1))
  return greatest, jax.nn.logsumexp(logits - greatest[..., None], axis=-1)


def categorical_nll(logits: jax.Array, index: jax.Array) -> jax.Array:
  """-log softmax(logits)_index [...] in nats, of logits [..., K]."""
  greatest, log_total = softmax_terms(logits)
  return log_total - (jnp.take_along_axis(logits, index[..., None], axis=-1)[..., 0] - greatest)


def bernoulli_nll(logits: jax.Array, x: jax.Array) -> jax.Array:
  """-log p(x) of each element of x in [0, 1], in nats: a cross-entropy where x is not 0 or 1."""
  # max(l, 0) - l x would cancel where l is large and x near to the 0 or 1 that it says. The sign is
  # 0 at l = 0, so that the slope there is 1/2 - x as it should be; that of abs() is 1 there. One
  # exponential and one logarithm an element, where two log-sigmoids would take two of each.
  sign = jnp.sign(logits)
  return logits * (0.5 + 0.5 * sign - x) + jnp.log1p(jnp.exp(-logits * sign))


def centred(values: jax.Array, kept: jax.Array, total) -> jax.Array:
  """Values less their mean over those that are kept; 0 for the others.

  Args:
    values: of any shape.
    kept: which of them there are, of the same shape.
    total: sums over the parts of the batch: `models.layers.batch_axis.total`.
  """
  count = jnp.maximum(total(kept.sum().astype(values.dtype)), 1.0)
  values = jnp.where(kept, values, 0.0)
  # Twice: of equal values of 1e4 the mean is off by 1e-3, which is then all that is left.
  for _ in range(2):
    values = jnp.where(kept, values - total(values.sum()) / count, 0.0)
  return values
