"""GPT: a Transformer's decoder alone, which predicts the next token.

Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training" (GPT-1: norms
after the sub-layers); Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"
(GPT-2: norms before them, one more at the end, smaller initial weights where the residual stream
is added to); Brown et al. 2020, arXiv:2005.14165 (GPT-3: every other layer sees a band only).
Megatron-LM and Turing-NLG are GPT-2 in other sizes (models/transformer/published.py).

The width of GPT-3's bands was never published: `window` is ours. Positions are learned, as in all
of them; sinusoids, rotations and none are there to compare.

Axes: B examples, T positions, V vocabulary, D features.
"""

import functools
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.attention import (
  Cache,
  Implementation,
  Places,
  empty_cache,
  place_in,
  places,
  residual_std,
)
from models.layers.dropout import Dropout
from models.layers.placement import constrain
from models.layers.positions import sinusoids
from models.layers.sequence import Prediction, embed
from models.layers.transformer import Activation, Block, Stack, norm_layer

_EVERYTHING = 2**30  # a window that leaves nothing out


class Model(nn.Module):
  """p(token | tokens before it).

  Attributes:
    vocabulary: V; padding needs no token of its own.
    length: positions that can be told apart.
    layers: of the decoder.
    features: D.
    heads: of attention.
    head_features: of each head; 0 is D / heads.
    mlp_features: inside the MLP; 0 is 4 D.
    norm_place: "pre" as GPT-2 and 3, "post" as GPT-1.
    epsilon: of the norms.
    activation: of the MLP.
    positions: how tokens know their place.
    window: tokens that every other layer, from the second on, sees; 0 is all of them.
    tied: whether logits are read by the embedding itself.
    init_std: of initial weights; learned positions have half of it.
    dropout: of the embeddings and of what sub-layers add.
    attention_dropout: of attention weights.
    attention: how it is computed; see models/layers/attention.py.
    unroll: blocks in the compiled loop over layers; 0 lets the device decide.
    dtype: of activations.
    remat: recompute each block's activations in the backward pass.
  """

  vocabulary: Annotated[int, "[1, inf)"]
  length: Annotated[int, "[1, inf)"]
  layers: Annotated[int, "[1, inf)"] = 12
  features: Annotated[int, "[1, inf)"] = 768
  heads: Annotated[int, "[1, inf)"] = 12
  head_features: Annotated[int, "[0, inf)"] = 0
  mlp_features: Annotated[int, "[0, inf)"] = 0
  norm_place: Literal["pre", "post"] = "pre"
  epsilon: Annotated[float, "(0, inf)"] = 1e-5
  activation: Activation = "gelu_tanh"
  positions: Literal["learned", "sinusoidal", "rotary", "none"] = "learned"
  window: Annotated[int, "[0, inf)"] = 0
  tied: bool = True
  init_std: Annotated[float, "(0, inf)"] = 0.02
  dropout: Annotated[float, "[0, 1)", "traced"] = 0.1
  attention_dropout: Annotated[float, "[0, 1)", "traced"] = 0.1
  attention: Implementation = "auto"
  unroll: Annotated[int, "[0, inf)"] = 0
  dtype: Any = jnp.float32
  remat: bool = False

  def __post_init__(self):
    super().__post_init__()
    if not self.head_features and self.features % self.heads:
      raise ValueError(f"features={self.features} do not divide into heads={self.heads}")

  def setup(self):
    normal = nn.initializers.normal
    self.embedding = self.param(
      "embedding", normal(self.init_std), (self.vocabulary, self.features)
    )
    if self.positions == "learned":
      self.position_embedding = self.param(
        "position_embedding", normal(self.init_std / 2), (self.length, self.features)
      )
    self.drop = Dropout(self.dropout)
    block = functools.partial(
      Block,
      self.features,
      self.heads,
      self.mlp_features or 4 * self.features,
      head_features=self.head_features,
      activation=self.activation,
      causal=True,
      norm_place=self.norm_place,
      epsilon=self.epsilon,
      rotary="pairs" if self.positions == "rotary" else "none",
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      implementation=self.attention,
      kernel_init=normal(self.init_std),
      output_init=normal(residual_std(self.init_std, self.layers)),
      dtype=self.dtype,
    )
    self.decoder_layers = Stack(block, self.layers, remat=self.remat, unroll=self.unroll)
    if self.norm_place == "pre":
      self.final_norm = norm_layer("layer", self.epsilon, self.dtype)
    if not self.tied:
      self.unembedding = self.param(
        "unembedding", normal(self.init_std), (self.vocabulary, self.features)
      )

  def __call__(
    self, tokens_BT: jax.Array, segments_BT: jax.Array | None = None, *, train: bool = False
  ) -> Prediction:
    """What follows every token.

    Args:
      tokens_BT: padded by -1 behind the tokens.
      segments_BT: which document each token belongs to, where several are packed into a row.
      train: whether to drop out.
    """
    where = places(tokens_BT, segments_BT, plain=True)
    hidden_BTD = self.decoder_layers(
      self._embedded(tokens_BT, where, train=train),
      queries=where,
      keys=where,
      per_layer=self._windows(),
      train=train,
    )
    return self._predicted(hidden_BTD)

  def begin(self, examples: int, capacity: int) -> Cache:
    """The cache of `examples` texts of which nothing is read, with room for `capacity` tokens."""
    width = self.head_features or self.features // self.heads
    return empty_cache(self.layers, examples, self.heads, capacity, width, self.dtype)

  def advance(self, tokens_BT: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    """(logits [B, T, V] of what follows further tokens, the cache with them); -1 is skipped."""
    cache, where = place_in(cache, tokens_BT)
    hidden_BTD, cache = self.decoder_layers(
      self._embedded(tokens_BT, where, train=False),
      cache=cache,
      queries=where,
      keys=Places(cache.positions[0]),
      per_layer=self._windows(),
    )
    return self._predicted(hidden_BTD).logits, cache

  def _embedded(self, tokens_BT, where: Places, *, train: bool) -> jax.Array:
    x_BTD = embed(self.embedding, tokens_BT)
    if self.positions == "learned":
      x_BTD += embed(self.position_embedding, where.positions)
    elif self.positions == "sinusoidal":
      # As loud as the embedding at the start, instead of the embedding made as loud as they are.
      x_BTD += self.init_std * sinusoids(where.positions, self.features)
    x_BTD = self.drop(x_BTD.astype(self.dtype), train=train)
    return constrain(x_BTD, "batch", "sequence", "features")

  def _windows(self) -> dict[str, jax.Array]:
    if not self.window:
      return {}
    banded = [self.window if i % 2 else _EVERYTHING for i in range(self.layers)]
    return {"window": jnp.array(banded, jnp.int32)}

  def _predicted(self, hidden_BTD: jax.Array) -> Prediction:
    if self.norm_place == "pre":
      hidden_BTD = self.final_norm(hidden_BTD)
    table_VD = (self.embedding if self.tied else self.unembedding).astype(self.dtype)
    logits_BTV = jnp.einsum("btd,vd->btv", hidden_BTD, table_VD, preferred_element_type=jnp.float32)
    logits_BTV = constrain(logits_BTV, "batch", "sequence", "vocabulary")
    return Prediction(logits_BTV, hidden_BTD.astype(jnp.float32))
