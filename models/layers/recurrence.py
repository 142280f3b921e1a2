"""A loop over time steps whose weights get their gradient from one product after it.

Differentiating `jax.lax.scan` adds up the gradient of a weight matrix step by step: each of them
reads and writes all of it. Here a step says which products it makes, their factors and gradients
are kept for all steps, and sum_t a_t^T g_t becomes a single matrix product. Values and gradients
are those of the plain loop up to rounding (tests/test_recurrent.py).

Axes: T steps, B examples, I features into a product, O out of it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Arrays = Any  # a pytree of arrays
# `dot(name, a_BI)` is a_BI @ weights[name] and may be said once a step for each name.
Dot = Callable[[str, jax.Array], jax.Array]
# `step(dot, shared, carry, x) -> (carry, y)`; it must not close over arrays.
Step = Callable[[Dot, Arrays, Arrays, Arrays], tuple[Arrays, Arrays]]


def unroll(
  step: Step,
  weights: Mapping[str, jax.Array],
  shared: Arrays,
  carry: Arrays,
  xs: Arrays,
  *,
  reverse: bool = False,
) -> tuple[Arrays, Arrays]:
  """`carry, y_t = step(dot, shared, carry, x_t)` for every t.

  Args:
    step: of the loop.
    weights: [I, O], or [B, I, O] where every example has its own, as encoder states are.
    shared: whatever else every step reads.
    carry: leaves [B, ...].
    xs: leaves [T, ...].
    reverse: from the last step to the first.

  Returns:
    The last carry, and every y_t stacked along a leading axis T.
  """
  return _unroll(step, reverse, dict(weights), shared, carry, xs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _unroll(step, reverse, weights, shared, carry, xs):
  def body(carry, x):
    return step(lambda name, a: _dot(a, weights[name]), shared, carry, x)

  return jax.lax.scan(body, carry, xs, reverse=reverse)


def _forward(step, reverse, weights, shared, carry, xs):
  steps = jax.tree.leaves(xs)[0].shape[0]
  examples = jax.tree.leaves(carry)[0].shape[0]

  def run(shared, carry, xs, slots):
    def body(carry, at):
      x, slot = at
      factors = {}

      def dot(name, a):
        factors[name] = a
        return _observed(a, weights[name], slot[name])

      carry, y = step(dot, shared, carry, x)
      return carry, (y, factors)

    carry, (ys, factors) = jax.lax.scan(body, carry, (xs, slots), reverse=reverse)
    return (carry, ys), factors

  slots = {k: jnp.zeros((steps, examples, w.shape[-1]), w.dtype) for k, w in weights.items()}
  out, pull, factors = jax.vjp(run, shared, carry, xs, slots, has_aux=True)
  return out, (pull, factors, weights)


def _backward(step, reverse, residuals, cotangent):
  del step, reverse
  pull, factors, weights = residuals
  shared, carry, xs, slots = pull(cotangent)
  sums = {2: "tbi,tbo->io", 3: "tbi,tbo->bio"}
  found = {k: jnp.einsum(sums[w.ndim], factors[k], slots[k]) for k, w in weights.items()}
  return found, shared, carry, xs


_unroll.defvjp(_forward, _backward)


def _dot(a, weight):
  return a @ weight if weight.ndim == 2 else jnp.einsum("bi,bio->bo", a, weight)


@jax.custom_vjp
def _observed(a, weight, slot):
  """The product, whose gradient comes out as that of `slot`, and not as that of `weight`."""
  del slot
  return _dot(a, weight)


def _observed_forward(a, weight, slot):
  del slot
  return _dot(a, weight), weight


def _observed_backward(weight, gradient):
  if weight.ndim == 2:
    return gradient @ weight.T, None, gradient
  return jnp.einsum("bo,bio->bi", gradient, weight), None, gradient


_observed.defvjp(_observed_forward, _observed_backward)
