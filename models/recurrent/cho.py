"""The RNN encoder-decoder: a phrase in one vector, and a phrase out of it, by gated units.

Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", arXiv:1406.1078, section 2 and appendix A.

The summary c = tanh(V h_S) starts the decoder, h_0 = tanh(V' c), and enters its gates, its
candidate and its output at every step. In the decoder's candidate the reset gate scales U' h + C c
together, after the products: the step of cuDNN's cell, with C c for its inner bias. Inputs and
outputs are of low rank: embeddings, and an output matrix in two factors.

Differs from the paper: the output's first factor reads the maxout units directly, as we understand
"rank-100"; biases may be left out.
"""

import functools
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import cells
from models.layers.recurrence import unroll
from models.layers.sequence import Prediction, embed, valid
from models.recurrent import maxout


class Cache(NamedTuple):
  """What generation carries along."""

  state: jax.Array  # [1, B, H]
  summary: jax.Array  # [1, B, H]  c


def _step(dot, inner_BH, state, x):
  x_BG, mask_B = x
  state = cells.kept(mask_B, cells.gru_cudnn(dot, x_BG, state, inner_BH), state)
  return state, state[0]


class Model(nn.Module):
  """p(y | x) = prod_t p(y_t | c, y_1, ..., y_{t-1}), with one vector c of the source.

  Attributes:
    source_vocabulary: V of the source.
    target_vocabulary: V of what is written.
    features: H.
    embedding: D, the rank of input and output matrices.
    maxout: units between the decoder and the output, each the larger of two.
    bias: one for each affine map.
    init_std: of weights that are not recurrent; those are orthogonal.
    dtype: of activations.
  """

  source_vocabulary: Annotated[int, "[1, inf)"]
  target_vocabulary: Annotated[int, "[1, inf)"]
  features: Annotated[int, "[1, inf)"] = 1000
  embedding: Annotated[int, "[1, inf)"] = 100
  maxout: Annotated[int, "[1, inf)"] = 500
  bias: bool = True
  init_std: Annotated[float, "(0, inf)"] = 0.01
  dtype: Any = jnp.float32

  def setup(self):
    normal = nn.initializers.normal(self.init_std)
    dense = functools.partial(nn.Dense, kernel_init=normal, dtype=self.dtype)
    table = lambda name, rows: self.param(name, normal, (rows, self.embedding))  # noqa: E731
    self.source_table = table("source_embedding", self.source_vocabulary)
    self.target_table = table("target_embedding", self.target_vocabulary)
    cell = dict(
      inputs=self.embedding,
      features=self.features,
      bias=self.bias,
      input_init=normal,
      dtype=self.dtype,
    )
    self.encoder = cells.Cell("gru", **cell)
    self.summarise = dense(self.features, use_bias=self.bias)
    self.start = dense(self.features, use_bias=self.bias)
    # Reset before or after the product: the same matrices, so the decoder's are a Cell's too.
    self.decoder = cells.Cell("gru", **cell)
    self.context = dense(3 * self.features, use_bias=False)
    self.readout_state = dense(2 * self.maxout, use_bias=self.bias)
    self.readout_token = dense(2 * self.maxout, use_bias=False)
    self.readout_context = dense(2 * self.maxout, use_bias=False)
    self.output_in = dense(self.embedding, use_bias=False)
    self.output = dense(self.target_vocabulary, use_bias=self.bias)

  def __call__(
    self, source_BS: jax.Array, target_BT: jax.Array, *, train: bool = False
  ) -> Prediction:
    del train
    prediction, _ = self._write(target_BT, self.begin(source_BS, target_BT.shape[1]))
    return prediction

  def begin(self, source_BS: jax.Array, capacity: int) -> Cache:
    """The summary of the source, and the state that it starts."""
    del capacity
    tokens_SB = source_BS.T
    x_SBD = embed(self.source_table.astype(self.dtype), tokens_SB)
    _, (h_BH,) = self.encoder(x_SBD, valid(tokens_SB))
    summary_BH = jnp.tanh(self.summarise(h_BH))
    return Cache(jnp.tanh(self.start(summary_BH))[None], summary_BH[None])

  def advance(self, tokens_BN: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    """Logits [B, N, V] after each further token, and the cache after the last."""
    prediction, cache = self._write(tokens_BN, cache)
    return prediction.logits, cache

  def _write(self, tokens_BT, cache):
    tokens_TB = tokens_BT.T
    y_TBD = embed(self.target_table.astype(self.dtype), tokens_TB)
    summary_BH = cache.summary[0]
    context_BG = self.context(summary_BH)
    split = 2 * self.features
    gates_BG = jnp.pad(context_BG[:, :split], ((0, 0), (0, self.features)))
    weights = {"recurrent": self.decoder.recurrent.astype(self.dtype)}
    xs = (self.decoder.project(y_TBD) + gates_BG, valid(tokens_TB))
    (state_BH,), h_TBH = unroll(_step, weights, context_BG[:, split:], (cache.state[0],), xs)
    # Appendix A.1.2: s' = O_h h_t + O_y y_{t-1} + O_c c, and the larger of each pair.
    wide_TBM = self.readout_state(h_TBH) + self.readout_token(y_TBD)
    wide_TBM += self.readout_context(summary_BH)
    hidden_BTM = jnp.swapaxes(maxout(wide_TBM), 0, 1)
    logits_BTV = self.output(self.output_in(hidden_BTM)).astype(jnp.float32)
    prediction = Prediction(logits_BTV, hidden_BTM.astype(jnp.float32))
    return prediction, cache._replace(state=state_BH[None])
