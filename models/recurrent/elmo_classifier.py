"""A classifier on ELMo: one mix of all the layers of a language model.

Peters et al. 2018, arXiv:1802.05365, section 3.2, equation 1: what a task reads of a word is
gamma sum_j s_j h_j over the layers, s = softmax(w). A text is the mean over its words, and the
classifier linear, as in the probes of section 5.3.

Differs from the paper: no layer is normalised, and w is not pulled to zero.

Axes: B examples, T words, M characters, E = 2 D features, L layers, C classes.
"""

from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.dropout import Dropout
from models.recurrent import elmo

Layers = Literal["learned", "average", "last"]


class Output(NamedTuple):
  """What the classifier returns.

  Attributes:
    logits: [B, C] float32.
    features: [B, E] float32, before the classifier.
  """

  logits: jax.Array
  features: jax.Array


class Mix(nn.Module):
  """gamma sum_j s_j h_j (equation 1).

  Attributes:
    layers: s: softmax(w) with w learned from zero, all alike, or the last layer's alone.
  """

  layers: Layers

  @nn.compact
  def __call__(self, h_LBTE: jax.Array) -> jax.Array:
    gamma = self.param("gamma", nn.initializers.ones, ())
    if self.layers == "last":
      return gamma.astype(h_LBTE.dtype) * h_LBTE[-1]
    w_L = jnp.zeros(len(h_LBTE))
    if self.layers == "learned":
      w_L = self.param("weights", nn.initializers.zeros, (len(h_LBTE),))
    s_L = gamma * jax.nn.softmax(w_L)
    return jnp.einsum("l,lbte->bte", s_L.astype(h_LBTE.dtype), h_LBTE)


class Model(elmo.BiLM):
  """p(class | text).

  Attributes:
    classes: C.
    mix: how the layers come together, see `Mix`.
    head_dropout: of the mix.
    dtype: of activations.
  """

  classes: Annotated[int, "[2, inf)"] = 2
  mix: Layers = "learned"
  head_dropout: Annotated[float, "[0, 1)", "traced"] = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    self.mixture = Mix(self.mix)
    self.head = nn.Dense(self.classes, dtype=self.dtype)
    self.head_drop = Dropout(self.head_dropout)

  def __call__(self, characters_BTM: jax.Array, *, train: bool = False) -> Output:
    """The class of texts; the language model below never drops out, being what was learnt."""
    there_BT1 = (characters_BTM[:, :, :1] >= 0).astype(self.dtype)
    mixed_BTE = self.head_drop(self.mixture(self.encode(characters_BTM)), train=train)
    text_BE = (mixed_BTE * there_BT1).sum(1) / jnp.maximum(there_BT1.sum(1), 1)
    return Output(self.head(text_BE).astype(jnp.float32), text_BE.astype(jnp.float32))
