"""What a layer may ask about the global batch: sums over it, and noise that belongs to an example.

A model is written for the global batch. Where the batch is split (over devices by `pmap`, or over
microbatches), the step opens a `scope` that says how to sum over all parts and which examples this
part holds. Then batch normalisation uses global statistics and an example's noise depends on the
example alone, so every way of splitting a batch computes the same thing. Outside a scope the batch
is whole. Models and tasks never see an axis name.
"""

import contextlib
import contextvars
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class _Scope(NamedTuple):
  index: jax.Array | None  # [B] positions of the local examples in the global batch
  total: Callable[[Any], Any]  # sums a tree over the parts that run at the same time


_scope: contextvars.ContextVar[_Scope] = contextvars.ContextVar(
  "batch_axis", default=_Scope(None, lambda tree: tree)
)


@contextlib.contextmanager
def scope(index: jax.Array, total: Callable[[Any], Any]):
  """While a loss is traced: `index` [B] of its examples, and how to sum over the other devices."""
  token = _scope.set(_Scope(index, total))
  try:
    yield
  finally:
    _scope.reset(token)


def total(tree):
  """`tree` of local sums, summed over the devices that share the batch."""
  return _scope.get().total(tree)


def keys(key: jax.Array, examples: int) -> jax.Array:
  """[examples] keys, each a function of `key` and the example's place in the global batch."""
  index = _scope.get().index
  if index is None or index.shape[0] != examples:
    index = jnp.arange(examples)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def normal(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
  """Standard normal noise [B, ...], drawn example by example."""
  return jax.vmap(lambda k: jax.random.normal(k, shape[1:], dtype))(keys(key, shape[0]))


def bernoulli(key: jax.Array, probability: float, shape: tuple[int, ...]) -> jax.Array:
  """Booleans [B, ...] that are True with `probability`, drawn example by example."""
  return jax.vmap(lambda k: jax.random.bernoulli(k, probability, shape[1:]))(keys(key, shape[0]))
