"""A recurrent language model: Elman's network, LSTM or GRU.

Mikolov et al. 2010, "Recurrent neural network based language model", Interspeech (Elman's network);
Zaremba, Sutskever & Vinyals 2014, "Recurrent neural network regularization", arXiv:1409.2329
(stacked LSTMs, dropout on what goes up and out and never on what goes from step to step).

Differs from the papers: the embedding is dropped out as Zaremba et al. have it, in all kinds; the
GRU is cuDNN's; the state starts from zero with every window instead of being carried over from the
last batch, since a batch is a function of (seed, step) here.
"""

from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import cells
from models.layers.dropout import Dropout
from models.layers.sequence import Prediction, embed, valid

_KINDS = {"elman": "elman", "lstm": "lstm", "gru": "gru_cudnn"}


class Model(nn.Module):
  """p(x) = prod_t p(x_t | x_1, ..., x_{t-1}), the past in a state of fixed size.

  Attributes:
    vocabulary: V; padding needs no token of its own.
    cell: of the recurrent layers.
    layers: L.
    embedding: D; 0 is H.
    features: H.
    tied: whether the embedding is the output matrix too; needs D = H.
    dropout: of the embedding, between layers and of the output.
    init_scale: all weights start from U[-init_scale, init_scale].
    dtype: of activations.
  """

  vocabulary: Annotated[int, "[1, inf)"]
  cell: Literal["elman", "lstm", "gru"] = "lstm"
  layers: Annotated[int, "[1, 1000]"] = 2
  embedding: Annotated[int, "[0, inf)"] = 0
  features: Annotated[int, "[1, inf)"] = 650
  tied: bool = False
  dropout: Annotated[float, "[0, 1)", "traced"] = 0.5
  init_scale: Annotated[float, "(0, inf)"] = 0.05
  dtype: Any = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    if self.tied and self.embedding not in (0, self.features):
      raise ValueError(f"tied needs embedding={self.embedding} to be features={self.features}")

  def setup(self):
    init = cells.uniform(self.init_scale)
    width = self.embedding or self.features
    self.table = self.param("embedding", init, (self.vocabulary, width))
    self.stack = cells.Stack(
      self.layers,
      width,
      dict(
        kind=_KINDS[self.cell],
        features=self.features,
        input_init=init,
        recurrent_init=init,
        bias_init=init,
        dtype=self.dtype,
      ),
      self.dropout,
    )
    self.drop = Dropout(self.dropout)
    if not self.tied:
      self.output = self.param("output", init, (self.features, self.vocabulary))
    self.bias = self.param("bias", init, (self.vocabulary,))

  def __call__(
    self, tokens_BT: jax.Array, segments_BT: jax.Array | None = None, *, train: bool = False
  ) -> Prediction:
    start_TB = None
    if segments_BT is not None:
      fresh_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)))
      start_TB = fresh_BT.T
    prediction, _ = self._read(tokens_BT, None, start_TB, train=train)
    return prediction

  def begin(self, examples: int, capacity: int) -> cells.State:
    """The states of zeros, [L, B, H]."""
    del capacity
    zeros = jnp.zeros((self.layers, examples, self.features), self.dtype)
    return (zeros, zeros) if self.cell == "lstm" else (zeros,)

  def advance(self, tokens_BN: jax.Array, cache: cells.State) -> tuple[jax.Array, cells.State]:
    """Logits [B, N, V] after each further token, and the states after the last."""
    prediction, cache = self._read(tokens_BN, cache, None, train=False)
    return prediction.logits, cache

  def _read(self, tokens_BT, states, start_TB, *, train):
    tokens_TB = tokens_BT.T
    x_TBD = embed(self.table.astype(self.dtype), tokens_TB)
    x_TBD = cells.time_major(self.drop, x_TBD, train=train)
    h_TBH, states = self.stack(x_TBD, valid(tokens_TB), states, start_TB=start_TB, train=train)
    h_BTH = jnp.swapaxes(h_TBH, 0, 1)
    output_HV = (self.table.T if self.tied else self.output).astype(self.dtype)
    logits_BTV = self.drop(h_BTH, train=train) @ output_HV + self.bias.astype(self.dtype)
    return Prediction(logits_BTV.astype(jnp.float32), h_BTH.astype(jnp.float32)), states
