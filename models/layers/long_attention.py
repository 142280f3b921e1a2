"""Exact attention a block at a time, in memory that grows with the length and not with its square.

Dao, Fu, Ermon, Rudra & Ré 2022, "FlashAttention", arXiv:2205.14135, algorithms 1 and 4; the running
softmax is that of Milakov & Gimelshein 2018, arXiv:1805.02867. Rabe & Staats 2021,
arXiv:2112.05682, give the same form without a kernel.

Differs from the paper: the blocks are matrix products of XLA in one compiled loop instead of a
kernel, so it runs on any backend; pairs of blocks of which no query sees a key are left out, those
known beforehand from the program and others by a branch.

Axes: B examples, T queries, S keys, N heads, K heads of keys and values, G = N / K queries a group,
H features of a head; M blocks of queries of Q each, J blocks of keys of C each, R = G Q.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_NOTHING = -1e30  # below every score, and finite, so that a difference of two is a number


def blocked(
  q_BTNH: jax.Array,
  k_BKSH: jax.Array,
  v_BKSH: jax.Array,
  queries: Any,
  keys: Any,
  *,
  causal: bool,
  window: jax.Array | int | None = None,
  scale: float,
  block: int = 128,
) -> jax.Array:
  """softmax(QK^T scale) V [B, T, N, H], never more than a block of its weights at a time.

  The backward pass computes the weights anew from the logarithms of their sums. A query that sees
  nothing gets zeros.

  Args:
    q_BTNH: queries.
    k_BKSH: keys.
    v_BKSH: values.
    queries: `models.layers.attention.Places` of the queries.
    keys: those of the keys.
    causal: whether a query sees none that come later.
    window: how many of the last keys a query sees, its own among them; None for all.
    scale: of the dot products.
    block: queries and keys in a block.
  """
  (B, T, N, H), (K, S) = q_BTNH.shape, k_BKSH.shape[1:3]
  Q, C = min(block, T), min(block, S)
  q = _cut(q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4), Q)
  k, v = _cut(k_BKSH, C), _cut(v_BKSH, C)
  rows = _Marks(_cut_marks(queries.positions, Q, -1), _cut_marks(queries.segments, Q, -1))
  columns = _Marks(_cut_marks(keys.positions, C, -1), _cut_marks(keys.segments, C, -2))
  plain = queries.plain and keys.plain and T == S
  pairs = _pairs(
    (len(q), len(k)), (Q, C), causal=causal and plain, window=window if plain else None
  )
  known = plain and (window is None or isinstance(window, int))
  how = _How(causal, window is not None, scale, pairs, branch=not known)
  out = _attend(how, q, k, v, rows, columns, 0 if window is None else window)
  out = out.transpose(1, 0, 4, 2, 3, 5).reshape(B, -1, N, H)  # MBKGQH, queries in order
  return out[:, :T]


class _Marks(NamedTuple):
  """Positions and segments of blocks, [blocks, B or 1, block] each; segments may be None."""

  positions: jax.Array
  segments: jax.Array | None


@dataclasses.dataclass(frozen=True)
class _How:
  """What is known before anything is computed."""

  causal: bool
  windowed: bool
  scale: float
  pairs: tuple[tuple[int, int], ...]  # (block of queries, block of keys), in order
  branch: bool  # whether a pair may turn out to hold nothing to see


def _pairs(counts, sizes, *, causal: bool, window) -> tuple[tuple[int, int], ...]:
  """The pairs of blocks that have something to see, so far as that does not depend on values."""
  (M, J), (Q, C) = counts, sizes
  return tuple(
    (i, j)
    for i in range(M)
    for j in range(J)
    if not (causal and j * C > i * Q + Q - 1)
    and not (isinstance(window, int) and i * Q - (j * C + C - 1) >= window)
  )


def _cut(x: jax.Array, size: int) -> jax.Array:
  """[..., length, H] as [blocks, ..., size, H], zeros where the last block ends."""
  padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, -x.shape[-2] % size), (0, 0)])
  return jnp.moveaxis(padded.reshape(*x.shape[:-2], -1, size, x.shape[-1]), -3, 0)


def _cut_marks(x: jax.Array | None, size: int, fill: int) -> jax.Array | None:
  """[B, length] as [blocks, B, size]."""
  if x is None:
    return None
  padded = jnp.pad(x, [(0, 0), (0, -x.shape[1] % size)], constant_values=fill)
  return jnp.moveaxis(padded.reshape(x.shape[0], -1, size), 1, 0)


def _seen(how: _How, rows: _Marks, columns: _Marks, window) -> jax.Array:
  """[B or 1, 1, 1, Q, C] which keys of one block the queries of another see."""
  q, k = rows.positions[:, :, None], columns.positions[:, None, :]
  seen = k >= 0
  if how.causal:
    seen &= k <= q
  if how.windowed:
    seen &= q - k < window
  if rows.segments is not None:
    seen &= rows.segments[:, :, None] == columns.segments[:, None, :]
  return seen[:, None, None]


def _possible(how: _How, rows: _Marks, columns: _Marks, window) -> jax.Array:
  """Whether any query of a block could see any key of another, from their extremes."""
  q, k = rows.positions, columns.positions
  found = k.max() >= 0
  if how.causal:
    found &= jnp.where(k >= 0, k, np.iinfo(np.int32).max).min() <= q.max()
  if how.windowed:
    found &= q.min() - k.max() < window
  if rows.segments is not None:
    q, k = rows.segments, columns.segments
    found &= (q.min() <= k.max()) & (k.min() <= q.max())
  return found


def _block(tree, i):
  return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), tree)


def _put(whole, part, i):
  return jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0), whole, part)


def _when(how: _How, rows, columns, window, update, carry):
  """`update(carry)`, or `carry` as it is where the pair holds nothing to see."""
  if not how.branch:
    return update(carry)
  possible = _possible(how, rows, columns, window)
  return jax.lax.cond(possible, update, lambda carry: carry, carry)


def _scores(how: _How, q, k, rows, columns, window) -> jax.Array:
  """[B, K, G, Q, C] scaled dot products, -inf where a key is not seen."""
  B, K, G, Q, H = q.shape
  scores = _product("bkrh,bkch->bkrc", q.reshape(B, K, G * Q, H), k) * how.scale
  return jnp.where(_seen(how, rows, columns, window), scores.reshape(B, K, G, Q, -1), -jnp.inf)


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """An einsum that sums in float32 or better."""
  return jnp.einsum(equation, a, b, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how: _How, q, k, v, rows: _Marks, columns: _Marks, window) -> jax.Array:
  return _forward(how, q, k, v, rows, columns, window)[0]


def _forward(how: _How, q_MBKGQH, k_JBKCH, v_JBKCH, rows, columns, window):
  """Algorithm 1: the output so far is rescaled whenever a larger score turns up."""
  M, B, K, G, Q, H = q_MBKGQH.shape
  kind = jnp.promote_types(q_MBKGQH.dtype, jnp.float32)

  def pair(carry, ij):
    i, j = ij
    q, k, v = _block(q_MBKGQH, i), _block(k_JBKCH, j), _block(v_JBKCH, j)
    row, column = _block(rows, i), _block(columns, j)

    def update(own):
      most, total, mixed = own
      scores = _scores(how, q, k, row, column, window)
      higher = jnp.maximum(most, scores.max(-1))
      weights = jnp.exp(scores - higher[..., None])
      shrink = jnp.exp(most - higher)
      add = _product("bkrc,bkch->bkrh", weights.astype(v.dtype).reshape(B, K, G * Q, -1), v)
      return (
        higher,
        total * shrink + weights.sum(-1),
        mixed * shrink[..., None] + add.reshape(B, K, G, Q, H),
      )

    own = _when(how, row, column, window, update, _block(carry, i))
    return _put(carry, own, i), None

  start = (
    jnp.full((M, B, K, G, Q), _NOTHING, kind),
    jnp.zeros((M, B, K, G, Q), kind),
    jnp.zeros(q_MBKGQH.shape, kind),
  )
  (most, total, mixed), _ = jax.lax.scan(pair, start, _steps(how))
  out = mixed / jnp.where(total > 0, total, 1.0)[..., None]
  log_total = jnp.where(total > 0, most + jnp.log(jnp.where(total > 0, total, 1.0)), -_NOTHING)
  out = out.astype(q_MBKGQH.dtype)
  return out, (q_MBKGQH, k_JBKCH, v_JBKCH, rows, columns, window, out, log_total)


def _steps(how: _How):
  return tuple(jnp.asarray(x, jnp.int32) for x in zip(*how.pairs, strict=True))


def _backward(how: _How, kept, out_bar):
  """Algorithm 4: the softmax's derivative from its output alone, a pair of blocks at a time."""
  q_MBKGQH, k_JBKCH, v_JBKCH, rows, columns, window, out, log_total = kept
  B, K, G, Q, H = q_MBKGQH.shape[1:]
  kind = jnp.promote_types(q_MBKGQH.dtype, jnp.float32)
  dot_MBKGQ = jnp.sum(out.astype(kind) * out_bar.astype(kind), axis=-1)

  def pair(carry, ij):
    i, j = ij
    q, o_bar, log_sum, dot = _block((q_MBKGQH, out_bar, log_total, dot_MBKGQ), i)
    k, v = _block(k_JBKCH, j), _block(v_JBKCH, j)
    row, column = _block(rows, i), _block(columns, j)
    q_bars, k_bars, v_bars = carry

    def update(own):
      q_bar, k_bar, v_bar = own
      q_R, o_R = q.reshape(B, K, G * Q, H), o_bar.reshape(B, K, G * Q, H)
      weights = jnp.exp(_scores(how, q, k, row, column, window) - log_sum[..., None])
      w_bar = _product("bkrh,bkch->bkrc", o_R, v).reshape(weights.shape)
      s_bar = (weights * (w_bar - dot[..., None])).astype(q.dtype).reshape(B, K, G * Q, -1)
      weights = weights.astype(q.dtype).reshape(s_bar.shape)
      return (
        q_bar + _product("bkrc,bkch->bkrh", s_bar, k).reshape(q.shape),
        k_bar + _product("bkrc,bkrh->bkch", s_bar, q_R),
        v_bar + _product("bkrc,bkrh->bkch", weights, o_R),
      )

    own = _block(q_bars, i), _block(k_bars, j), _block(v_bars, j)
    q_bar, k_bar, v_bar = _when(how, row, column, window, update, own)
    return (_put(q_bars, q_bar, i), _put(k_bars, k_bar, j), _put(v_bars, v_bar, j)), None

  start = tuple(jnp.zeros(x.shape, kind) for x in (q_MBKGQH, k_JBKCH, v_JBKCH))
  (q_bar, k_bar, v_bar), _ = jax.lax.scan(pair, start, _steps(how))
  bars = (q_bar * how.scale).astype(q_MBKGQH.dtype), (k_bar * how.scale).astype(k_JBKCH.dtype)
  return *bars, v_bar.astype(v_JBKCH.dtype), None, None, None


_attend.defvjp(_forward, _backward)
