"""RNNsearch: a decoder that looks up, for every token, where in the source to read.

Bahdanau, Cho & Bengio 2015, "Neural Machine Translation by Jointly Learning to Align and
Translate", arXiv:1409.0473, section 3 and appendices A.1 and B.1.

A bidirectional GRU reads the source into annotations h_s. Before each step the state s_{t-1} scores
every annotation, and their mean under the softmax of the scores, c_t, enters all gates and the
output. The output looks at s_{t-1}, not at s_t (A.2.2).

Differs from the paper: nothing in the network where biases are left out; with them there is one for
each affine map. `attention=False` is our rival for it: the same network, whose c is the same vector
at every step, the last states of both directions.

Beyond the family's axes: N units of the alignment, M maxout units, G three gates * H.
"""

import functools
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import alignment, cells
from models.layers.recurrence import unroll
from models.layers.sequence import Prediction, embed, valid
from models.recurrent import maxout


class Cache(NamedTuple):
  """What generation carries along; without attention the source is one position."""

  state: jax.Array  # [1, B, H]
  annotations: jax.Array  # [1, B, S, 2H]
  keys: jax.Array  # [1, B, S, N]  U_a h_s
  mask: jax.Array  # [1, B, S]


def _step(dot, shared, state, x):
  x_BG, mask_B = x
  keys_BSN, mask_BS, score_N = shared
  (h_BH,) = state
  scores_BS = alignment.additive(dot("query", h_BH), keys_BSN, score_N)
  weights_BS = alignment.softmax(scores_BS, mask_BS)
  context_BC = dot("annotations", weights_BS)
  gates_BG = x_BG + dot("context", context_BC)
  new = cells.gru_bahdanau(dot, gates_BG, state)
  return cells.kept(mask_B, new, state), (h_BH, context_BC, weights_BS)


def _step_without(dot, context_BG, state, x):
  x_BG, mask_B = x
  new = cells.gru_bahdanau(dot, x_BG + context_BG, state)
  return cells.kept(mask_B, new, state), state[0]


class Model(nn.Module):
  """p(y | x) = prod_t p(y_t | y_1, ..., y_{t-1}, c_t), eq. 4.

  Attributes:
    source_vocabulary: V of the source.
    target_vocabulary: V of what is written.
    features: H, n of the paper.
    embedding: D, m of the paper.
    alignment: N, n' of the paper.
    maxout: M, l of the paper.
    attention: whether c is looked up for every token.
    bias: one for each affine map.
    init_std: of weights; recurrent ones are orthogonal, those of the alignment a tenth of it.
    dtype: of activations.
  """

  source_vocabulary: Annotated[int, "[1, inf)"]
  target_vocabulary: Annotated[int, "[1, inf)"]
  features: Annotated[int, "[1, inf)"] = 1000
  embedding: Annotated[int, "[1, inf)"] = 620
  alignment: Annotated[int, "[1, inf)"] = 1000
  maxout: Annotated[int, "[1, inf)"] = 500
  attention: bool = True
  bias: bool = True
  init_std: Annotated[float, "(0, inf)"] = 0.01
  dtype: Any = jnp.float32

  def setup(self):
    normal = nn.initializers.normal(self.init_std)
    small = nn.initializers.normal(self.init_std / 10)
    dense = functools.partial(nn.Dense, kernel_init=normal, dtype=self.dtype)
    table = lambda name, rows: self.param(name, normal, (rows, self.embedding))  # noqa: E731
    self.source_table = table("source_embedding", self.source_vocabulary)
    self.target_table = table("target_embedding", self.target_vocabulary)
    cell = dict(
      kind="gru_bahdanau",
      inputs=self.embedding,
      features=self.features,
      bias=self.bias,
      input_init=normal,
      dtype=self.dtype,
    )
    self.encoder = cells.Bidirectional(cell)
    self.start = dense(self.features, use_bias=self.bias)
    self.decoder = cells.Cell(**cell)
    wide = 3 * self.features
    self.context = self.param("context", normal, (2 * self.features, wide))
    if self.attention:
      self.query = self.param("query", small, (self.features, self.alignment))
      self.key = nn.Dense(self.alignment, use_bias=self.bias, kernel_init=small, dtype=self.dtype)
      self.score = self.param("score", nn.initializers.zeros, (self.alignment,))
    self.readout_state = dense(2 * self.maxout, use_bias=self.bias)
    self.readout_token = dense(2 * self.maxout, use_bias=False)
    self.readout_context = dense(2 * self.maxout, use_bias=False)
    self.output = dense(self.target_vocabulary, use_bias=self.bias)

  def __call__(
    self, source_BS: jax.Array, target_BT: jax.Array, *, train: bool = False
  ) -> Prediction:
    del train
    prediction, _ = self._write(target_BT, self.begin(source_BS, target_BT.shape[1]))
    return prediction

  def begin(self, source_BS: jax.Array, capacity: int) -> Cache:
    """The annotations of the source, and s_0 = tanh(W_s h) of the backward state that read it."""
    del capacity
    tokens_SB = source_BS.T
    x_SBD = embed(self.source_table.astype(self.dtype), tokens_SB)
    h_SBC, ((last_BH,), (first_BH,)) = self.encoder(x_SBD, valid(tokens_SB))
    state_BH = jnp.tanh(self.start(first_BH))
    if not self.attention:
      summary_BC = jnp.concatenate([last_BH, first_BH], axis=-1)
      whole = jnp.ones((1, len(source_BS), 1), bool)
      empty = jnp.zeros((1, len(source_BS), 1, 0), self.dtype)
      return Cache(state_BH[None], summary_BC[None, :, None], empty, whole)
    h_BSC = jnp.swapaxes(h_SBC, 0, 1)
    return Cache(state_BH[None], h_BSC[None], self.key(h_BSC)[None], valid(source_BS)[None])

  def advance(self, tokens_BN: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    """Logits [B, N, V] after each further token, and the cache after the last."""
    prediction, cache = self._write(tokens_BN, cache)
    return prediction.logits, cache

  def _write(self, tokens_BT, cache):
    tokens_TB = tokens_BT.T
    y_TBD = embed(self.target_table.astype(self.dtype), tokens_TB)
    xs = (self.decoder.project(y_TBD), valid(tokens_TB))
    (state_BH,), (before_TBH, context) = self._steps(xs, cache)
    # A.2.2: t~ = U_o s_{t-1} + V_o E y_{t-1} + C_o c_t, and the larger of each pair.
    wide_TBM = self.readout_state(before_TBH) + self.readout_token(y_TBD)
    wide_TBM += self.readout_context(context)
    hidden_BTM = jnp.swapaxes(maxout(wide_TBM), 0, 1)
    logits_BTV = self.output(hidden_BTM).astype(jnp.float32)
    prediction = Prediction(logits_BTV, hidden_BTM.astype(jnp.float32))
    return prediction, cache._replace(state=state_BH[None])

  def _steps(self, xs, cache):
    """(last state, (s_{t-1} [T, B, H], c_t [T, B, 2H] or c [B, 2H]))."""
    context_CG = self.context.astype(self.dtype)
    if not self.attention:
      context_BC = cache.annotations[0, :, 0]
      found = unroll(
        _step_without, self.decoder.weights(), context_BC @ context_CG, (cache.state[0],), xs
      )
      return found[0], (found[1], context_BC)
    weights = {
      "query": self.query.astype(self.dtype),
      "annotations": cache.annotations[0],
      "context": context_CG,
      **self.decoder.weights(),
    }
    shared = (cache.keys[0], cache.mask[0], self.score.astype(self.dtype))
    state, (before_TBH, context_TBC, weights_TBS) = unroll(
      _step, weights, shared, (cache.state[0],), xs
    )
    if self.is_mutable_collection("intermediates"):
      self.sow("intermediates", "attention", jnp.swapaxes(weights_TBS, 0, 1))
    return state, (before_TBH, context_TBC)
