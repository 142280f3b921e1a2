"""Sequence to sequence with two deep LSTMs: one reads, its last states start the one that writes.

Sutskever, Vinyals & Le 2014, "Sequence to Sequence Learning with Neural Networks",
arXiv:1409.3215, sections 2 and 3.4. Whether the source is reversed (section 3.3) is the data's.

Differs from the paper: biases may be left out, since 384 million is its parameters without them;
the writer's first input is the beginning-of-sequence token, where the paper lets the source's end
play that part.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import cells
from models.layers.sequence import Prediction, embed, valid


class Model(nn.Module):
  """p(y | x) = prod_t p(y_t | v, y_1, ..., y_{t-1}), eq. 1, with v the reader's last states.

  Attributes:
    source_vocabulary: V of the source.
    target_vocabulary: V of what is written.
    layers: L of each LSTM.
    embedding: D.
    features: H.
    bias: of the gates and of the output.
    init_scale: all weights start from U[-init_scale, init_scale].
    dtype: of activations.
  """

  source_vocabulary: Annotated[int, "[1, inf)"]
  target_vocabulary: Annotated[int, "[1, inf)"]
  layers: Annotated[int, "[1, 1000]"] = 4
  embedding: Annotated[int, "[1, inf)"] = 1000
  features: Annotated[int, "[1, inf)"] = 1000
  bias: bool = True
  init_scale: Annotated[float, "(0, inf)"] = 0.08
  dtype: Any = jnp.float32

  def setup(self):
    init = cells.uniform(self.init_scale)
    table = lambda name, rows: self.param(name, init, (rows, self.embedding))  # noqa: E731
    self.source_table = table("source_embedding", self.source_vocabulary)
    self.target_table = table("target_embedding", self.target_vocabulary)
    cell = dict(
      kind="lstm",
      features=self.features,
      bias=self.bias,
      input_init=init,
      recurrent_init=init,
      bias_init=init,
      dtype=self.dtype,
    )
    self.encoder = cells.Stack(self.layers, self.embedding, cell)
    self.decoder = cells.Stack(self.layers, self.embedding, cell)
    self.output = nn.Dense(
      self.target_vocabulary,
      use_bias=self.bias,
      kernel_init=init,
      bias_init=init,
      dtype=self.dtype,
    )

  def __call__(
    self, source_BS: jax.Array, target_BT: jax.Array, *, train: bool = False
  ) -> Prediction:
    del train
    prediction, _ = self._write(target_BT, self.begin(source_BS, target_BT.shape[1]))
    return prediction

  def begin(self, source_BS: jax.Array, capacity: int) -> cells.State:
    """The reader's last states, (h, c) of [L, B, H] each."""
    del capacity
    tokens_SB = source_BS.T
    x_SBD = embed(self.source_table.astype(self.dtype), tokens_SB)
    _, states = self.encoder(x_SBD, valid(tokens_SB))
    return states

  def advance(self, tokens_BN: jax.Array, cache: cells.State) -> tuple[jax.Array, cells.State]:
    """Logits [B, N, V] after each further token, and the states after the last."""
    prediction, cache = self._write(tokens_BN, cache)
    return prediction.logits, cache

  def _write(self, tokens_BT, states):
    tokens_TB = tokens_BT.T
    y_TBD = embed(self.target_table.astype(self.dtype), tokens_TB)
    h_TBH, states = self.decoder(y_TBD, valid(tokens_TB), states)
    h_BTH = jnp.swapaxes(h_TBH, 0, 1)
    logits_BTV = self.output(h_BTH).astype(jnp.float32)
    return Prediction(logits_BTV, h_BTH.astype(jnp.float32)), states
