"""Attention in blocks is attention: same values, same gradients, less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers import long_attention
from models.layers.attention import Places, attend, visible
from models.layers.long_attention import blocked

CASES = {
  "causal": dict(causal=True),
  "both ways": dict(causal=False),
  "window": dict(causal=True, window=5),
  "traced window": dict(causal=True, window=jnp.int32(5)),
  "padded, both ways": dict(causal=False, padded=True),
  "packed and padded": dict(causal=False, packed=True, padded=True),
  "grouped": dict(causal=True, heads=4, kv_heads=2),
  "one key head": dict(causal=True, window=7, heads=4, kv_heads=1),
  "source and target": dict(causal=False, T=13, S=29, padded=True),
}


def arrays(*, T=27, S=None, heads=2, kv_heads=2, padded=False, packed=False, seed=0, width=8):
  """(q, k, v, places of the queries, places of the keys) of two examples."""
  S = S or T
  generator = np.random.default_rng(seed)
  q, k, v = (
    jnp.asarray(generator.normal(size=shape), jnp.float32)
    for shape in ((2, T, heads, width), (2, kv_heads, S, width), (2, kv_heads, S, width))
  )
  places = []
  for length in (T, S):
    positions = np.tile(np.arange(length, dtype=np.int32), (2, 1))
    if padded:  # one example on either side, the other within
      positions[0, :5], positions[0, 5:], positions[1, -3:] = -1, np.arange(length - 5), -1
    segments = None
    if packed:
      segments = np.repeat([[1, 2, 3]], -(-length // 3), axis=1)[:, :length].astype(np.int32)
      segments = jnp.asarray(np.sort(np.tile(segments, (2, 1)), axis=1))
    plain = not padded and not packed
    places.append(Places(jnp.asarray(positions[:1] if plain else positions), segments, plain))
  return q, k, v, *places


def both(case, *, block=8, seed=0):
  """((values, gradients) laid out, the same in blocks) of one case."""
  case = dict(case)
  how = dict(causal=case.pop("causal"), window=case.pop("window", None))
  q, k, v, queries, keys = arrays(seed=seed, **case)
  weigh = jnp.asarray(np.random.default_rng(9).normal(size=q.shape), jnp.float32)

  def whole(q, k, v):
    return attend(q, k, v, visible(queries, keys, **how), scale=0.3)[0]

  def parts(q, k, v):
    return blocked(q, k, v, queries, keys, **how, scale=0.3, block=block)

  def run(function):
    value, pull = jax.vjp(jax.jit(function), q, k, v)
    return value, pull(weigh)

  return run(whole), run(parts)


@pytest.mark.parametrize("case", CASES)
def test_blocks_compute_attention(case):
  wanted, found = both(CASES[case])
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, wanted)


@pytest.mark.parametrize("block", [5, 128])
def test_the_size_of_a_block_does_not_matter(block):
  wanted, found = both(CASES["packed and padded"], block=block)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found, wanted)


def test_a_query_that_sees_nothing_gets_zeros_and_no_gradient():
  q, k, v, queries, _ = arrays()
  nothing = Places(jnp.full((2, 27), -1, jnp.int32))

  def total(q, k, v):
    return blocked(q, k, v, queries, nothing, causal=True, scale=1.0, block=8)

  value, pull = jax.vjp(total, q, k, v)
  assert not np.any(value)
  for bar in pull(jnp.ones_like(value)):
    assert not np.any(bar)


def test_large_scores_stay_finite():
  q, k, v, queries, keys = arrays()
  bars = jax.grad(
    lambda q, k, v: blocked(
      1e4 * q, 1e4 * k, v, queries, keys, causal=True, scale=1.0, block=8
    ).sum(),
    argnums=(0, 1, 2),
  )(q, k, v)
  assert all(np.isfinite(bar).all() for bar in bars)


def test_half_precision_sums_in_float32():
  q, k, v, queries, keys = arrays(T=256, width=32)
  exact = blocked(q, k, v, queries, keys, causal=True, scale=0.2, block=64)
  half = blocked(
    *(x.astype(jnp.bfloat16) for x in (q, k, v)), queries, keys, causal=True, scale=0.2, block=64
  )
  assert half.dtype == jnp.bfloat16
  # Its inputs have eight bits; sums in bfloat16 would lose more than their rounding.
  np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.03)


def test_what_no_query_sees_is_not_computed():
  """Causal: half the pairs of blocks; a window: a band; documents: blocks on the diagonal."""

  def pairs(T, causal, window):
    return len(long_attention._pairs((T // 8, T // 8), (8, 8), causal=causal, window=window))

  assert pairs(64, False, None) == 64
  assert pairs(64, True, None) == 36
  assert pairs(64, True, 8) == 15

  # What is known only when it runs: a block of values that would poison every sum it entered.
  q, k, v, queries, keys = arrays(T=32, packed=True)
  segments = jnp.repeat(jnp.array([[1, 2]]), 16, axis=1)
  where = Places(queries.positions, jnp.tile(segments, (2, 1)))
  k, v = k.at[:, :, 16:].set(jnp.nan), v.at[:, :, 16:].set(jnp.nan)
  found = blocked(q, k, v, where, where, causal=False, scale=1.0, block=8)
  assert np.isfinite(found[:, :16]).all()
  assert np.isnan(found[:, 16:]).all()


def temporary(function, *args):
  compiled = jax.jit(jax.grad(function, argnums=(0, 1, 2))).lower(*args).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_length():
  def total(q, k, v):
    where = Places(jnp.arange(q.shape[1], dtype=jnp.int32)[None], plain=True)
    return blocked(q, k, v, where, where, causal=True, scale=1.0, block=64).sum()

  def shapes(T):
    q = jax.ShapeDtypeStruct((1, T, 2, 16), jnp.float32)
    k = jax.ShapeDtypeStruct((1, 2, T, 16), jnp.float32)
    return q, k, k

  short, long = (temporary(total, *shapes(T)) for T in (1024, 4096))
  assert long < 5 * short  # the weights alone would be sixteen times as many
  assert long < 4096 * 4096 * 4 / 4
