"""What a layer may ask about the global batch: sums over it, all of it, and an example's own noise.

A model is written for the global batch. Where the batch is split (over devices by `pmap`, or over
microbatches), the step opens a `scope` that says how the parts come together and which examples
this part holds. Then batch normalisation uses global statistics and an example's noise depends on
the example alone, so every way of splitting a batch computes the same thing. Outside a scope the
batch is whole. Models and tasks never see an axis name.
"""

import contextlib
import contextvars
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Shards(NamedTuple):
  """How the parts of a batch that are computed at the same time come together.

  Attributes:
    total: sums a tree over them.
    gather: the examples [B, ...] of an array of all of them, one part after another.
  """

  total: Callable[[Any], Any]
  gather: Callable[[jax.Array], jax.Array]


WHOLE = Shards(lambda tree: tree, lambda x: x)


class _Scope(NamedTuple):
  index: jax.Array | None  # [B] positions of the local examples in the global batch
  shards: Shards


_scope: contextvars.ContextVar[_Scope] = contextvars.ContextVar(
  "batch_axis", default=_Scope(None, WHOLE)
)


@contextlib.contextmanager
def scope(index: jax.Array, shards: Shards = WHOLE):
  """While a loss is traced: `index` [B] of its examples, and how the other devices' come in."""
  token = _scope.set(_Scope(index, shards))
  try:
    yield
  finally:
    _scope.reset(token)


@contextlib.contextmanager
def several(count: int):
  """While a model has `count` rows of each example, one after another, where the batch has one."""
  index, shards = _scope.get()
  if index is not None:
    index = (index[:, None] * count + jnp.arange(count)).reshape(-1)
  token = _scope.set(_Scope(index, shards))
  try:
    yield
  finally:
    _scope.reset(token)


def total(tree):
  """`tree` of local sums, summed over the devices that share the batch."""
  return _scope.get().shards.total(tree)


def gather(x: jax.Array) -> jax.Array:
  """Every example [B, ...] of the batch that the devices share, on each of them.

  With gradient accumulation the batch is the microbatch.
  """
  return _scope.get().shards.gather(x)


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
