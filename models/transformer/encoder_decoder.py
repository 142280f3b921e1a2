"""The Transformer: an encoder of the source, a decoder of the target that attends to it.

Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762. Base is 6 layers of 512, big is
6 of 1024. One matrix embeds source and target and reads the logits (section 3.4), embeddings are
multiplied by sqrt(D), and norms follow the sub-layers. Norms before them (Xiong et al. 2020,
arXiv:2002.04745) add one at the end of either stack. Besides sinusoids, positions may be learned
(Table 3, row E), rotary (Su et al. 2021), or relative: T5's buckets, one bias for all layers of a
stack (Raffel et al. 2020).

Initial weights, which the paper does not give, are Glorot's for matrices, as in tensor2tensor, and
N(0, 1/D) for the embedding.

Axes: B examples, S source and T target positions, V vocabulary, D features.
"""

import functools
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.attention import (
  Cache,
  Implementation,
  KeysValues,
  Places,
  empty_cache,
  place_in,
  places,
)
from models.layers.dropout import Dropout
from models.layers.placement import constrain
from models.layers.positions import RelativeBias, sinusoids
from models.layers.sequence import Prediction, embed
from models.layers.transformer import Activation, Block, Stack, norm_layer


class Decoded(NamedTuple):
  """What a decoder has read: the source, and the target so far.

  Attributes:
    target: its own cache.
    memory: every decoder layer's keys and values of the encoded source, [L, B, K, S, H].
    source: [1, B, S] positions of the source's tokens, -1 for padding.
  """

  target: Cache
  memory: KeysValues
  source: jax.Array


class Model(nn.Module):
  """p(target token | target tokens before it, source).

  Attributes:
    source_vocabulary: tokens of the source.
    target_vocabulary: tokens of the target.
    source_length: positions of the source that learned positions tell apart.
    target_length: likewise of the target.
    shared: whether one embedding serves source and target, whose vocabularies are then one.
    tied: whether logits are read by the target's embedding.
    encoder_layers: of the encoder.
    decoder_layers: of the decoder.
    features: D.
    heads: of attention.
    head_features: of each head; 0 is D / heads (Table 3, rows B).
    mlp_features: inside the MLPs.
    norm_place: "post" as in the paper, or "pre".
    epsilon: of the norms.
    activation: of the MLPs.
    positions: how tokens know their place.
    layout: of the sinusoids' features.
    dropout: of the embeddings and of what sub-layers add.
    attention_dropout: of attention weights.
    attention: how it is computed; see models/layers/attention.py.
    unroll: blocks in the compiled loop over layers; 0 lets the device decide.
    dtype: of activations.
    remat: recompute each block's activations in the backward pass.
  """

  source_vocabulary: Annotated[int, "[1, inf)"]
  target_vocabulary: Annotated[int, "[1, inf)"]
  source_length: Annotated[int, "[1, inf)"] = 512
  target_length: Annotated[int, "[1, inf)"] = 512
  shared: bool = True
  tied: bool = True
  encoder_layers: Annotated[int, "[1, inf)"] = 6
  decoder_layers: Annotated[int, "[1, inf)"] = 6
  features: Annotated[int, "[2, inf)"] = 512
  heads: Annotated[int, "[1, inf)"] = 8
  head_features: Annotated[int, "[0, inf)"] = 0
  mlp_features: Annotated[int, "[1, inf)"] = 2048
  norm_place: Literal["pre", "post"] = "post"
  epsilon: Annotated[float, "(0, inf)"] = 1e-6
  activation: Activation = "relu"
  positions: Literal["sinusoidal", "learned", "rotary", "relative", "none"] = "sinusoidal"
  layout: Literal["interleaved", "concatenated"] = "interleaved"
  dropout: Annotated[float, "[0, 1)", "traced"] = 0.1
  attention_dropout: Annotated[float, "[0, 1)", "traced"] = 0.0
  attention: Implementation = "auto"
  unroll: Annotated[int, "[0, inf)"] = 0
  dtype: Any = jnp.float32
  remat: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.shared and self.source_vocabulary != self.target_vocabulary:
      raise ValueError(
        f"a shared embedding needs one vocabulary, not {self.source_vocabulary} and"
        f" {self.target_vocabulary} tokens: share the data's tokenizer, or set shared=False"
      )
    if not self.head_features and self.features % self.heads:
      raise ValueError(f"features={self.features} do not divide into heads={self.heads}")

  def setup(self):
    normal = nn.initializers.normal(self.features**-0.5)
    table = lambda name, rows: self.param(name, normal, (rows, self.features))  # noqa: E731
    self.target_embedding = table("target_embedding", self.target_vocabulary)
    if not self.shared:
      self.source_embedding = table("source_embedding", self.source_vocabulary)
    if not self.tied:
      self.unembedding = table("unembedding", self.target_vocabulary)
    if self.positions == "learned":
      self.source_positions = table("source_positions", self.source_length)
      self.target_positions = table("target_positions", self.target_length)
    if self.positions == "relative":
      self.encoder_bias = RelativeBias(self.heads, bidirectional=True)
      self.decoder_bias = RelativeBias(self.heads, bidirectional=False)
    self.drop = Dropout(self.dropout)
    block = functools.partial(
      Block,
      self.features,
      self.heads,
      self.mlp_features,
      head_features=self.head_features,
      activation=self.activation,
      norm_place=self.norm_place,
      epsilon=self.epsilon,
      rotary="pairs" if self.positions == "rotary" else "none",
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      implementation=self.attention,
      dtype=self.dtype,
    )
    stack = functools.partial(Stack, remat=self.remat, unroll=self.unroll)
    self.encoder = stack(block, self.encoder_layers, name="encoder_layers")
    decoder_block = functools.partial(block, causal=True, cross=True)
    self.decoder = stack(decoder_block, self.decoder_layers, name="decoder_layers")
    if self.norm_place == "pre":
      self.encoder_norm = norm_layer("layer", self.epsilon, self.dtype)
      self.decoder_norm = norm_layer("layer", self.epsilon, self.dtype)

  def __call__(
    self, source_BS: jax.Array, target_BT: jax.Array, *, train: bool = False
  ) -> Prediction:
    """What follows every token of the target, which begins with <bos>; padding is behind."""
    memory_BSD, source = self.encode(source_BS, train=train)
    where = places(target_BT, plain=True)
    hidden_BTD = self.decoder(
      self._embedded(target_BT, where, self._target(), train=train),
      queries=where,
      keys=where,
      memory=memory_BSD,
      memory_places=source,
      bias_BNTS=self._bias("decoder", where, where),
      train=train,
    )
    return self._predicted(hidden_BTD)

  def encode(self, source_BS: jax.Array, *, train: bool = False) -> tuple[jax.Array, Places]:
    """([B, S, D] what the decoder attends to, where its tokens stand)."""
    where = places(source_BS)
    memory_BSD = self.encoder(
      self._embedded(source_BS, where, self._source(), train=train),
      queries=where,
      keys=where,
      bias_BNTS=self._bias("encoder", where, where),
      train=train,
    )
    return (self.encoder_norm(memory_BSD) if self.norm_place == "pre" else memory_BSD), where

  def begin(self, source_BS: jax.Array, capacity: int) -> Decoded:
    """The cache of targets of which nothing is read, with room for `capacity` tokens each."""
    memory_BSD, source = self.encode(source_BS)
    examples, width = len(source_BS), self.head_features or self.features // self.heads
    return Decoded(
      empty_cache(self.decoder_layers, examples, self.heads, capacity, width, self.dtype),
      self.decoder.memories(memory_BSD, source.positions),
      source.positions[None],
    )

  def advance(self, tokens_BT: jax.Array, cache: Decoded) -> tuple[jax.Array, Decoded]:
    """(logits [B, T, V] of what follows further target tokens, the cache with them)."""
    target, where = place_in(cache.target, tokens_BT)
    keys = Places(target.positions[0])
    hidden_BTD, target = self.decoder(
      self._embedded(tokens_BT, where, self._target(), train=False),
      cache=target,
      queries=where,
      keys=keys,
      memory_places=Places(cache.source[0]),
      bias_BNTS=self._bias("decoder", where, keys),
      per_layer={"memory": cache.memory},
    )
    return self._predicted(hidden_BTD).logits, cache._replace(target=target)

  def _source(self):
    table = self.target_embedding if self.shared else self.source_embedding
    return table, self.source_positions if self.positions == "learned" else None

  def _target(self):
    return self.target_embedding, self.target_positions if self.positions == "learned" else None

  def _embedded(self, tokens_BT, where: Places, tables, *, train: bool) -> jax.Array:
    table_VD, learned_TD = tables
    x_BTD = embed(table_VD, tokens_BT) * self.features**0.5
    if learned_TD is not None:
      x_BTD += embed(learned_TD, where.positions)
    elif self.positions == "sinusoidal":
      x_BTD += sinusoids(where.positions, self.features, layout=self.layout)
    x_BTD = self.drop(x_BTD.astype(self.dtype), train=train)
    return constrain(x_BTD, "batch", "sequence", "features")

  def _bias(self, stack: str, queries: Places, keys: Places) -> jax.Array | None:
    if self.positions != "relative":
      return None
    bias = self.encoder_bias if stack == "encoder" else self.decoder_bias
    return bias(queries.positions, keys.positions)

  def _predicted(self, hidden_BTD: jax.Array) -> Prediction:
    if self.norm_place == "pre":
      hidden_BTD = self.decoder_norm(hidden_BTD)
    table_VD = (self.target_embedding if self.tied else self.unembedding).astype(self.dtype)
    logits_BTV = jnp.einsum("btd,vd->btv", hidden_BTD, table_VD, preferred_element_type=jnp.float32)
    logits_BTV = constrain(logits_BTV, "batch", "sequence", "vocabulary")
    return Prediction(logits_BTV, hidden_BTD.astype(jnp.float32))
