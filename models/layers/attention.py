"""Multi-head attention for every family: self or source-target, causal or not, grouped, cached.

Who may see whom follows from positions: a query sees the keys of its own segment that are not
padding, where `causal` none that come later, and where there is a `window` only that many of the
last ones.

Axes: B examples, T queries, S keys, N heads, K heads of keys and values, G = N / K queries a group,
H features of a head, D features, L layers, C slots of a cache.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.dropout import Dropout
from models.layers.long_attention import blocked
from models.layers.positions import Pairing, rotate
from models.layers.projection import Projection, together
from models.layers.sequence import positions_of

Implementation = Literal["auto", "naive", "fused", "blocked"]
_LONG = 256  # keys from which blocks pay on CPUs: docs/log.md


class Places(NamedTuple):
  """Where the tokens of a sequence stand.

  Attributes:
    positions: [B or 1, T] int32, -1 for padding.
    segments: [B, T] int32 which document each belongs to, or None where there is one.
    plain: every row is 0, 1, ..., T-1, with padding nowhere but behind the tokens of a causal
      model, which then never see it.
  """

  positions: jax.Array
  segments: jax.Array | None = None
  plain: bool = False


def places(
  tokens_BT: jax.Array, segments_BT: jax.Array | None = None, *, plain: bool = False
) -> Places:
  """The places of whole sequences. `plain` where padding, if any, is behind the tokens."""
  if plain and segments_BT is None:
    return Places(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None], plain=True)
  return Places(positions_of(tokens_BT, segments_BT), segments_BT)


def visible(
  queries: Places, keys: Places, *, causal: bool, window: jax.Array | int | None = None
) -> jax.Array:
  """[B or 1, T, S] which keys a query sees.

  Args:
    queries: where they stand.
    keys: where they stand.
    causal: none that come later.
    window: how many of the last ones, the query's own among them; None for all.
  """
  q_BT1, k_B1S = queries.positions[:, :, None], keys.positions[:, None, :]
  seen = k_B1S >= 0
  if causal:
    seen &= k_B1S <= q_BT1
  if window is not None:
    seen &= q_BT1 - k_B1S < window
  if queries.segments is not None:
    seen &= queries.segments[:, :, None] == keys.segments[:, None, :]
  return jnp.broadcast_to(seen, (seen.shape[0], q_BT1.shape[1], k_B1S.shape[2]))


def attend(
  q_BTNH: jax.Array,
  k_BKSH: jax.Array,
  v_BKSH: jax.Array,
  seen_BTS: jax.Array,
  *,
  scale: float,
  bias_BNTS: jax.Array | None = None,
  drop: Callable[[jax.Array], jax.Array] = lambda weights: weights,
  lonely: bool = True,
) -> tuple[jax.Array, jax.Array]:
  """softmax(QK^T scale + bias) V (Vaswani et al. 2017, equation 1), every weight laid out.

  Args:
    q_BTNH: queries.
    k_BKSH: keys.
    v_BKSH: values.
    seen_BTS: which keys a query sees.
    scale: of the dot products.
    bias_BNTS: added to the scaled dot products.
    drop: what the weights go through before they are used.
    lonely: whether there may be queries that see nothing.

  Returns:
    (values [B, T, N, H], weights [B, N, T, S] float32, before `drop`). A query that sees nothing
    gets zeros.
  """
  (B, T, N, H), (K, S) = q_BTNH.shape, k_BKSH.shape[1:3]
  # The queries of a group are rows of one matrix product with their shared keys. Examples and heads
  # stay two axes: on a mesh both may be split.
  q = (q_BTNH * jnp.asarray(scale, q_BTNH.dtype)).transpose(0, 2, 1, 3)
  q = q.reshape(B, K, N // K * T, H)
  scores = jnp.einsum("bkth,bksh->bkts", q, k_BKSH, preferred_element_type=jnp.float32)
  scores = scores.reshape(B, N, T, S)
  if bias_BNTS is not None:
    scores += bias_BNTS
  seen = seen_BTS[:, None]
  weights = jax.nn.softmax(jnp.where(seen, scores, -1e30), axis=-1)
  if lonely:
    weights = jnp.where(seen.any(-1, keepdims=True), weights, 0.0)
  used = drop(weights).astype(v_BKSH.dtype).reshape(B, K, N // K * T, S)
  mixed = jnp.einsum("bkts,bksh->bkth", used, v_BKSH)
  return mixed.reshape(B, N, T, H).transpose(0, 2, 1, 3), weights


class Cache(NamedTuple):
  """Keys and values of the tokens that a decoder has read, for all its layers.

  Attributes:
    keys: [L, B, K, C, H].
    values: [L, B, K, C, H].
    positions: [1, B, C] int32 of the token in each slot; -1 where there is none to see.
    slot: [] int32, slots in use. All examples fill theirs at the same pace; one that has no token
      to add leaves a hole.
  """

  keys: jax.Array
  values: jax.Array
  positions: jax.Array
  slot: jax.Array


def empty_cache(
  layers: int, examples: int, heads: int, capacity: int, features: int, dtype=jnp.float32
) -> Cache:
  """A cache that nothing has been read into."""
  shape = (layers, examples, heads, capacity, features)
  return Cache(
    jnp.zeros(shape, dtype),
    jnp.zeros(shape, dtype),
    jnp.full((1, examples, capacity), -1, jnp.int32),
    jnp.zeros((), jnp.int32),
  )


def place_in(cache: Cache, tokens_BT: jax.Array) -> tuple[Cache, Places]:
  """The cache with the positions of further tokens, and those positions; -1 leaves a hole."""
  own_BT = positions_of(tokens_BT)
  before_B1 = cache.positions[0].max(-1, keepdims=True) + 1
  own_BT = jnp.where(own_BT >= 0, own_BT + before_B1, -1)
  filled = jax.lax.dynamic_update_slice(cache.positions, own_BT[None], (0, 0, cache.slot))
  return cache._replace(positions=filled, slot=cache.slot + tokens_BT.shape[1]), Places(own_BT)


def forget(cache: Cache, keep_BT: jax.Array) -> Cache:
  """The cache without those of its last T tokens that `keep` [B, T] does not hold on to."""
  start = (0, 0, cache.slot - keep_BT.shape[1])
  last = jax.lax.dynamic_slice(cache.positions, start, (1, *keep_BT.shape))
  kept = jnp.where(keep_BT[None], last, -1)
  return cache._replace(positions=jax.lax.dynamic_update_slice(cache.positions, kept, start))


class Slots:
  """The part of a cache that one layer reads and writes while the decoder is traced.

  Attributes:
    cache: with what has been written so far; its slots count the tokens being written already.
    layer: which one is at work.
  """

  def __init__(self, cache: Cache, layer: jax.Array | int):
    self.cache, self.layer = cache, layer

  def write(self, k_BKTH: jax.Array, v_BKTH: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Adds keys and values; returns all [B, K, C, H] of the layer."""
    at = (self.layer, 0, 0, self.cache.slot - k_BKTH.shape[2], 0)
    keys, values = (
      jax.lax.dynamic_update_slice(whole, part[None].astype(whole.dtype), at)
      for whole, part in ((self.cache.keys, k_BKTH), (self.cache.values, v_BKTH))
    )
    self.cache = self.cache._replace(keys=keys, values=values)
    return keys[self.layer], values[self.layer]


class KeysValues(NamedTuple):
  """Keys and values [B, K, S, H] of a memory, computed once for all queries."""

  keys: jax.Array
  values: jax.Array


class Attention(nn.Module):
  """Queries of one sequence to the keys of itself or of another (section 3.2.2).

  Attributes:
    features: D, of the output.
    heads: N.
    kv_heads: K; fewer than `heads` are shared by groups of queries (Ainslie et al. 2023,
      arXiv:2305.13245), one by all (Shazeer 2019, arXiv:1911.02150). 0 is as many as `heads`.
    head_features: H; 0 is D / N.
    bias: whether projections have biases.
    scaled: whether dot products are divided by sqrt(H); if not, the initial queries are (T5).
    rotary: how queries and keys are rotated by their positions; "none" is not at all.
    rotary_base: of the angles.
    dropout: of attention weights.
    implementation: "naive" lays out all T x S weights, "fused" is `jax.nn.dot_product_attention`,
      "blocked" never holds more than a block of them; "auto" chooses by device and length.
    kernel_init: of the projections to queries, keys and values.
    output_init: of the last projection.
    dtype: of activations.
  """

  features: Annotated[int, "[1, inf)"]
  heads: Annotated[int, "[1, inf)"]
  kv_heads: Annotated[int, "[0, inf)"] = 0
  head_features: Annotated[int, "[0, inf)"] = 0
  bias: bool = True
  scaled: bool = True
  rotary: Literal["none"] | Pairing = "none"
  rotary_base: Annotated[float, "(0, inf)"] = 10_000.0
  dropout: Annotated[float, "[0, 1)"] = 0.0
  implementation: Implementation = "auto"
  kernel_init: Any = nn.initializers.xavier_uniform()
  output_init: Any = nn.initializers.xavier_uniform()
  dtype: Any = jnp.float32

  def setup(self):
    width = self.head_features or self.features // self.heads
    projection = functools.partial(
      Projection, bias=self.bias, kernel_init=self.kernel_init, dtype=self.dtype
    )

    def query_init(*args):
      return self.kernel_init(*args) * (1.0 if self.scaled else width**-0.5)

    self.query = projection((self.heads, width), kernel_init=query_init)
    self.key = projection((self.kv_heads or self.heads, width))
    self.value = projection((self.kv_heads or self.heads, width))
    self.output = nn.DenseGeneral(
      self.features,
      axis=(-2, -1),
      use_bias=self.bias,
      kernel_init=self.output_init,
      dtype=self.dtype,
    )
    self.drop = Dropout(self.dropout)

  def keys_values(self, memory_BSD: jax.Array, positions_BS: jax.Array) -> KeysValues:
    """What is attended to: keys, rotated where they are, and values."""
    k_BSKH, v_BSKH = self._projected(memory_BSD, self.key, self.value)
    return self._kept(k_BSKH, v_BSKH, positions_BS)

  def _kept(self, k_BSKH, v_BSKH, positions_BS) -> KeysValues:
    if self.rotary != "none":
      k_BSKH = rotate(k_BSKH, positions_BS, base=self.rotary_base, pairing=self.rotary)
    return KeysValues(k_BSKH.transpose(0, 2, 1, 3), v_BSKH.transpose(0, 2, 1, 3))

  def _projected(self, x_BTD, *layers: Projection) -> list[jax.Array]:
    """[B, T, heads, H] of each layer, the queries of a group beside its key and value."""
    groups = self.kv_heads or self.heads

    def grouped(leaf):
      return leaf.reshape(*leaf.shape[:-2], groups, -1, leaf.shape[-1])

    parts = [jax.tree.map(grouped, layer(x_BTD.shape[-1])) for layer in layers]
    return [y.reshape(*y.shape[:2], -1, y.shape[-1]) for y in together(x_BTD, parts)]

  def __call__(
    self,
    x_BTD: jax.Array,
    memory: jax.Array | KeysValues | None = None,
    *,
    queries: Places,
    keys: Places,
    causal: bool,
    window: jax.Array | int | None = None,
    bias_BNTS: jax.Array | None = None,
    slots: Slots | None = None,
    train: bool = False,
  ) -> jax.Array:
    """[B, T, D].

    Args:
      x_BTD: what asks.
      memory: what is asked, [B, S, D] or its keys and values; None is `x_BTD` itself.
      queries: where the queries stand.
      keys: where the keys stand; with `slots`, all those of the cache.
      causal: see `visible`.
      window: see `visible`.
      bias_BNTS: added to the logits.
      slots: where keys and values of earlier tokens are, and those of `x_BTD` go.
      train: whether weights drop out.
    """
    if memory is None:
      q_BTNH, *kv_BTKH = self._projected(x_BTD, self.query, self.key, self.value)
      memory = self._kept(*kv_BTKH, queries.positions)
    else:
      (q_BTNH,) = self._projected(x_BTD, self.query)
    if self.rotary != "none":
      q_BTNH = rotate(q_BTNH, queries.positions, base=self.rotary_base, pairing=self.rotary)
    if not isinstance(memory, KeysValues):
      memory = self.keys_values(memory, keys.positions)
    k_BKSH, v_BKSH = memory if slots is None else slots.write(*memory)
    scale = q_BTNH.shape[-1] ** -0.5 if self.scaled else 1.0
    drops = train and not (isinstance(self.dropout, float) and self.dropout == 0.0)
    watched = self.is_mutable_collection("intermediates")
    kind = self._kind(k_BKSH.shape[2], q_BTNH.shape[1])
    if kind == "naive" or bias_BNTS is not None or drops or watched:
      mixed_BTNH, weights_BNTS = attend(
        q_BTNH,
        k_BKSH,
        v_BKSH,
        visible(queries, keys, causal=causal, window=window),
        scale=scale,
        bias_BNTS=bias_BNTS,
        drop=functools.partial(self.drop, train=train),
        lonely=not (causal and queries.plain and keys.plain),
      )
      self.sow("intermediates", "attention", weights_BNTS)
    elif kind == "blocked":
      mixed_BTNH = blocked(
        q_BTNH, k_BKSH, v_BKSH, queries, keys, causal=causal, window=window, scale=scale
      )
    else:
      mixed_BTNH = _fused(
        q_BTNH, k_BKSH, v_BKSH, queries, keys, causal=causal, window=window, scale=scale
      )
    return self.output(mixed_BTNH.astype(self.dtype))

  def _kind(self, keys: int, queries: int) -> str:
    if self.implementation != "auto":
      return self.implementation
    if jax.default_backend() == "gpu" and jnp.dtype(self.dtype).itemsize == 2:
      return "fused"  # cuDNN's kernel
    return "blocked" if min(keys, queries) >= _LONG else "naive"


def _fused(q_BTNH, k_BKSH, v_BKSH, queries: Places, keys: Places, *, causal, window, scale):
  """The backend's kernel, where it has one; on CPUs XLA's, which lays out the weights."""
  half = jax.default_backend() == "gpu" and q_BTNH.dtype.itemsize == 2
  plain = causal and queries.plain and keys.plain and window is None
  seen = None if plain else visible(queries, keys, causal=causal, window=window)[:, None]
  return jax.nn.dot_product_attention(
    q_BTNH,
    k_BKSH.transpose(0, 2, 1, 3),
    v_BKSH.transpose(0, 2, 1, 3),
    mask=seen,
    scale=scale,
    is_causal=plain,
    implementation="cudnn" if half else "xla",
  )


def residual_std(std: float, layers: int, *, branches: int = 2) -> float:
  """GPT-2's initial deviation of what is added to the residual stream of so many layers."""
  return std / math.sqrt(branches * layers)
