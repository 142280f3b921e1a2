"""Attention after the state: global or local, by dot, general or concat scores, with input feeding.

Luong, Pham & Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation",
arXiv:1508.04025, section 3.

Stacked LSTMs read and write. The top state h_t scores the source states, c_t is their mean under
the softmax, and h~_t = tanh(W_c [c_t; h_t]) goes to the output (h_t, a_t, c_t, h~_t in this order;
Bahdanau et al. score with h_{t-1}). With input feeding h~_{t-1} joins the next input. Local-p
attention predicts a place and looks at a window around it.

Differs from the paper: the location-based score, whose weights know one source length, is left out;
predicted places count source tokens from zero. Whether the source is reversed is the data's.

Beyond the family's axes: G four gates * H.
"""

import functools
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import alignment, cells
from models.layers.dropout import Dropout
from models.layers.recurrence import unroll
from models.layers.sequence import Prediction, embed, valid

Score = Literal["dot", "general", "concat"]


class Cache(NamedTuple):
  """What generation carries along."""

  h: jax.Array  # [L, B, H]
  c: jax.Array  # [L, B, H]
  attended: jax.Array  # [1, B, H]  h~ of the step before
  memory: jax.Array  # [1, B, S, H]  the source states
  keys: jax.Array  # [1, B, S, H]  what scores compare with
  mask: jax.Array  # [1, B, S]


class Settings(NamedTuple):
  """What a step of the loop must know."""

  layers: int
  score: Score
  feeding: bool
  window: int


def _step(settings: Settings, dot, shared, carry, x):
  x_BG, mask_B, keep_LBH = x
  states, attended_BH = carry
  bias_LG, keys, mask_BS, score_H, place_H = shared
  below_BG = x_BG + dot("feed", attended_BH) if settings.feeding else x_BG
  new = []
  for i, state in enumerate(states):
    if i:
      h_BH = new[-1][0] if keep_LBH is None else new[-1][0] * keep_LBH[i - 1]
      below_BG = dot(f"input_{i}", h_BH) + bias_LG[i - 1]
    new.append(cells.lstm(lambda _, a, i=i: dot(f"recurrent_{i}", a), below_BG, state))
  top_BH = new[-1][0] if keep_LBH is None else new[-1][0] * keep_LBH[-1]
  if settings.score == "concat":
    scores_BS = alignment.additive(dot("query", top_BH), keys, score_H)
  else:
    scores_BS = dot("keys", top_BH)
  weights_BS = _weights(settings.window, scores_BS, mask_BS, dot, top_BH, place_H)
  both_BC = jnp.concatenate([dot("memory", weights_BS), top_BH], axis=-1)
  out_BH = jnp.tanh(dot("combine", both_BC))  # eq. 5
  carry = cells.kept(mask_B, (tuple(new), out_BH), carry)
  return carry, (out_BH, weights_BS)


def _weights(window: int, scores_BS, mask_BS, dot, top_BH, place_H):
  if not window:
    return alignment.softmax(scores_BS, mask_BS)
  # Equations 9 and 10; the source may be padded on either side.
  place_B = jnp.tanh(dot("place", top_BH)) @ place_H
  length_B = mask_BS.sum(1).astype(scores_BS.dtype)
  centre_B = length_B * jax.nn.sigmoid(place_B)
  position_BS = (jnp.cumsum(mask_BS, axis=1) - 1).astype(scores_BS.dtype)
  away_BS = position_BS - centre_B[:, None]
  near_BS = mask_BS & (jnp.abs(away_BS) <= window)
  deviation = window / 2
  return alignment.softmax(scores_BS, near_BS) * jnp.exp(-(away_BS**2) / (2 * deviation**2))


class Model(nn.Module):
  """p(y_t | y_1, ..., y_{t-1}, x) = softmax(W_s h~_t), eq. 6.

  Attributes:
    source_vocabulary: V of the source.
    target_vocabulary: V of what is written.
    layers: L of each LSTM.
    embedding: D.
    features: H.
    score: of a state and a source state, eq. 8.
    feeding: whether h~_{t-1} joins the input.
    window: D of local-p attention, on either side of the predicted place; 0 looks everywhere.
    dropout: of what a layer reads from the one below and of the top one's output.
    init_scale: all weights start from U[-init_scale, init_scale].
    dtype: of activations.
  """

  source_vocabulary: Annotated[int, "[1, inf)"]
  target_vocabulary: Annotated[int, "[1, inf)"]
  layers: Annotated[int, "[1, 1000]"] = 4
  embedding: Annotated[int, "[1, inf)"] = 1000
  features: Annotated[int, "[1, inf)"] = 1000
  score: Score = "general"
  feeding: bool = True
  window: Annotated[int, "[0, inf)"] = 0
  dropout: Annotated[float, "[0, 1)", "traced"] = 0.2
  init_scale: Annotated[float, "(0, inf)"] = 0.1
  dtype: Any = jnp.float32

  def setup(self):
    init = cells.uniform(self.init_scale)
    features = self.features
    table = lambda name, rows: self.param(name, init, (rows, self.embedding))  # noqa: E731
    square = lambda name, rows=features: self.param(name, init, (rows, features))  # noqa: E731
    self.source_table = table("source_embedding", self.source_vocabulary)
    self.target_table = table("target_embedding", self.target_vocabulary)
    cell = dict(
      kind="lstm",
      features=features,
      input_init=init,
      recurrent_init=init,
      bias_init=init,
      dtype=self.dtype,
    )
    self.encoder = cells.Stack(self.layers, self.embedding, cell, self.dropout)
    widths = [self.embedding, *[features] * (self.layers - 1)]
    self.decoder = [cells.Cell(inputs=width, **cell) for width in widths]
    if self.feeding:
      self.feed = self.param("feed", cells.gate_by_gate(init, 4), (features, 4 * features))
    if self.score == "general":
      self.key = square("key")
    if self.score == "concat":
      self.query, self.key = square("query"), square("key")
      self.score_vector = self.param("score_vector", init, (features,))
    if self.window:
      self.place = square("place")
      self.place_vector = self.param("place_vector", init, (features,))
    self.combine = square("combine", 2 * features)
    self.output = nn.Dense(
      self.target_vocabulary, use_bias=False, kernel_init=init, dtype=self.dtype
    )
    self.drop = Dropout(self.dropout)

  def __call__(
    self, source_BS: jax.Array, target_BT: jax.Array, *, train: bool = False
  ) -> Prediction:
    prediction, _ = self._write(target_BT, self._read(source_BS, train=train), train=train)
    return prediction

  def begin(self, source_BS: jax.Array, capacity: int) -> Cache:
    """The source states, and the last of them to write from."""
    del capacity
    return self._read(source_BS, train=False)

  def advance(self, tokens_BN: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    """Logits [B, N, V] after each further token, and the cache after the last."""
    prediction, cache = self._write(tokens_BN, cache, train=False)
    return prediction.logits, cache

  def _read(self, source_BS, *, train):
    tokens_SB = source_BS.T
    x_SBD = embed(self.source_table.astype(self.dtype), tokens_SB)
    h_SBH, (h, c) = self.encoder(x_SBD, valid(tokens_SB), train=train)
    memory_BSH = jnp.swapaxes(h_SBH, 0, 1)
    keys = memory_BSH if self.score == "dot" else memory_BSH @ self.key.astype(self.dtype)
    attended_BH = jnp.zeros_like(h[-1])
    mask_BS = valid(source_BS)
    return Cache(h, c, attended_BH[None], memory_BSH[None], keys[None], mask_BS[None])

  def _weights(self, cache):
    """Of the products in the loop."""
    weights = {"memory": cache.memory[0], "combine": self.combine}
    for i, layer in enumerate(self.decoder):
      weights[f"recurrent_{i}"] = layer.recurrent
      if i:
        weights[f"input_{i}"] = layer.input
    if self.feeding:
      weights["feed"] = self.feed
    if self.window:
      weights["place"] = self.place
    if self.score == "concat":
      weights["query"] = self.query
    else:
      weights["keys"] = jnp.swapaxes(cache.keys[0], 1, 2)
    return {name: w.astype(self.dtype) for name, w in weights.items()}

  def _keep(self, examples: int, steps: int, *, train: bool):
    """Dropout's factors [T, L, B, H], drawn before the loop; None where it is off."""
    ones = jnp.ones((examples, steps, self.layers, self.features), self.dtype)
    dropped = self.drop(ones, train=train)
    return None if dropped is ones else jnp.transpose(dropped, (1, 2, 0, 3))

  def _write(self, tokens_BT, cache, *, train):
    tokens_TB = tokens_BT.T
    y_TBD = embed(self.target_table.astype(self.dtype), tokens_TB)
    keep_TLBH = self._keep(*tokens_BT.shape, train=train)
    xs = (self.decoder[0].project(y_TBD), valid(tokens_TB), keep_TLBH)
    bias_LG = [layer.biases.astype(self.dtype) for layer in self.decoder[1:]]
    concat = self.score == "concat"
    shared = (
      bias_LG,
      cache.keys[0] if concat else None,
      cache.mask[0],
      self.score_vector.astype(self.dtype) if concat else None,
      self.place_vector.astype(self.dtype) if self.window else None,
    )
    states = tuple(zip(cache.h, cache.c, strict=True))
    step = functools.partial(_step, Settings(self.layers, self.score, self.feeding, self.window))
    (states, attended_BH), (out_TBH, weights_TBS) = unroll(
      step, self._weights(cache), shared, (states, cache.attended[0]), xs
    )
    if self.is_mutable_collection("intermediates"):
      self.sow("intermediates", "attention", jnp.swapaxes(weights_TBS, 0, 1))
    hidden_BTH = jnp.swapaxes(out_TBH, 0, 1)
    logits_BTV = self.output(hidden_BTH).astype(jnp.float32)
    h, c = (jnp.stack(s) for s in zip(*states, strict=True))
    prediction = Prediction(logits_BTV, hidden_BTH.astype(jnp.float32))
    return prediction, cache._replace(h=h, c=c, attended=attended_BH[None])
