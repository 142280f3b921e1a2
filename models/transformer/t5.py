"""T5: an encoder and a decoder that turn every task into text from text.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", JMLR 21(140), arXiv:1910.10683, section 2.1. Norms stand before the sub-layers and
only scale, nothing has a bias, and positions are told by a number for each bucket of distances and
head, which all layers of a stack share. Dot products are not divided by sqrt(H): the initial
queries are. Logits are read by the embedding and multiplied by D^-0.5. T5 1.1 has a gated MLP
instead (Shazeer 2020, arXiv:2002.05202) and reads logits by a matrix of its own:
`activation="gelu_tanh"`, `gated=True`, `tied=False`.

Initial weights, which the paper does not give, are those of the released code: N(0, 1) for the
embedding, N(0, 1 / inputs) elsewhere. Differs: nothing is dropped out within the MLP.

Distances are counted in places of a row, so padding stands before or behind the tokens of a source,
and behind those of a target.

Axes: B examples, S source and T target positions, V vocabulary, D features, H features of a head.
"""

import functools
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.attention import Implementation, Places, empty_cache, place_in, places
from models.layers.dropout import Dropout
from models.layers.placement import constrain
from models.layers.positions import RelativeBias
from models.layers.sequence import Prediction, embed
from models.layers.transformer import Activation, Block, Stack, norm_layer
from models.transformer.encoder_decoder import Decoded


class Model(nn.Module):
  """p(target token | target tokens before it, source).

  Data of one text says how many ids it has by `vocabulary`, data of pairs by `source_vocabulary`
  and `target_vocabulary`: one embedding has room for them all, so that a model may read the one
  after the other.

  Attributes:
    vocabulary: ids of a text.
    source_vocabulary: ids of sources.
    target_vocabulary: ids of targets.
    extra_ids: ids above those of the data, for sentinels (tasks/span_corruption.py).
    encoder_layers: of the encoder.
    decoder_layers: of the decoder.
    features: D.
    heads: of attention.
    head_features: H; 0 is D / heads.
    mlp_features: inside the MLPs.
    activation: of the MLPs.
    gated: whether the MLPs have a gate.
    tied: whether logits are read by the embedding.
    buckets: of distances.
    furthest: the distance at which the last bucket begins.
    epsilon: of the norms.
    dropout: of the embeddings, of what sub-layers add, and of the output of either stack.
    attention_dropout: of attention weights.
    attention: how it is computed where there is no bias, between decoder and encoder; see
      models/layers/attention.py.
    unroll: blocks in the compiled loop over layers; 0 lets the device decide.
    dtype: of activations.
    remat: recompute each block's activations in the backward pass.
  """

  vocabulary: Annotated[int, "[0, inf)"] = 0
  source_vocabulary: Annotated[int, "[0, inf)"] = 0
  target_vocabulary: Annotated[int, "[0, inf)"] = 0
  extra_ids: Annotated[int, "[0, inf)"] = 0
  encoder_layers: Annotated[int, "[1, inf)"] = 12
  decoder_layers: Annotated[int, "[1, inf)"] = 12
  features: Annotated[int, "[1, inf)"] = 768
  heads: Annotated[int, "[1, inf)"] = 12
  head_features: Annotated[int, "[0, inf)"] = 0
  mlp_features: Annotated[int, "[1, inf)"] = 3072
  activation: Activation = "relu"
  gated: bool = False
  tied: bool = True
  buckets: Annotated[int, "[4, inf)"] = 32
  furthest: Annotated[int, "[8, inf)"] = 128
  epsilon: Annotated[float, "(0, inf)"] = 1e-6
  dropout: Annotated[float, "[0, 1)", "traced"] = 0.1
  attention_dropout: Annotated[float, "[0, 1)", "traced"] = 0.1
  attention: Implementation = "auto"
  unroll: Annotated[int, "[0, inf)"] = 0
  dtype: Any = jnp.float32
  remat: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.ids == self.extra_ids:
      raise ValueError("vocabulary=0, and the data says of no other: give one")
    if not self.head_features and self.features % self.heads:
      raise ValueError(f"features={self.features} do not divide into heads={self.heads}")

  @property
  def ids(self) -> int:
    """V, sentinels included."""
    return self.extra_ids + max(self.vocabulary, self.source_vocabulary, self.target_vocabulary)

  def setup(self):
    normal, narrow = nn.initializers.normal, self.features**-0.5
    self.embedding = self.param("embedding", normal(1.0), (self.ids, self.features))
    if not self.tied:
      # As loud as the embedding is that reads logits times D^-0.5.
      self.unembedding = self.param("unembedding", normal(narrow), (self.ids, self.features))
    bias = functools.partial(
      RelativeBias, self.heads, buckets=self.buckets, furthest=self.furthest, init_std=narrow
    )
    self.encoder_bias = bias(bidirectional=True)
    self.decoder_bias = bias(bidirectional=False)
    self.drop = Dropout(self.dropout)
    by_inputs = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    block = functools.partial(
      Block,
      self.features,
      self.heads,
      self.mlp_features,
      head_features=self.head_features,
      activation=self.activation,
      gated=self.gated,
      norm="rms",
      epsilon=self.epsilon,
      bias=False,
      scaled=False,
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      implementation=self.attention,
      kernel_init=by_inputs,
      output_init=by_inputs,
      dtype=self.dtype,
    )
    stack = functools.partial(Stack, remat=self.remat, unroll=self.unroll)
    self.encoder = stack(block, self.encoder_layers, name="encoder_layers")
    decoder_block = functools.partial(block, causal=True, cross=True)
    self.decoder = stack(decoder_block, self.decoder_layers, name="decoder_layers")
    self.encoder_norm = norm_layer("rms", self.epsilon, self.dtype)
    self.decoder_norm = norm_layer("rms", self.epsilon, self.dtype)

  def __call__(
    self, source_BS: jax.Array, target_BT: jax.Array, *, train: bool = False
  ) -> Prediction:
    """What follows every token of the target, whose first token only begins it."""
    memory_BSD, source = self.encode(source_BS, train=train)
    where = places(target_BT, plain=True)
    hidden_BTD = self.decoder(
      self._embedded(target_BT, train=train),
      queries=where,
      keys=where,
      memory=memory_BSD,
      memory_places=source,
      bias_BNTS=self.decoder_bias(where.positions, where.positions),
      train=train,
    )
    return self._predicted(hidden_BTD, train=train)

  def encode(self, source_BS: jax.Array, *, train: bool = False) -> tuple[jax.Array, Places]:
    """([B, S, D] what the decoder attends to, where its tokens stand)."""
    where = places(source_BS)
    # Of all rows at once: what padding has for a distance is nobody's affair.
    row_1S = jnp.arange(source_BS.shape[1], dtype=jnp.int32)[None]
    memory_BSD = self.encoder(
      self._embedded(source_BS, train=train),
      queries=where,
      keys=where,
      bias_BNTS=self.encoder_bias(row_1S, row_1S),
      train=train,
    )
    return self.drop(self.encoder_norm(memory_BSD), train=train), where

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
      self._embedded(tokens_BT, train=False),
      cache=target,
      queries=where,
      keys=keys,
      memory_places=Places(cache.source[0]),
      bias_BNTS=self.decoder_bias(where.positions, keys.positions),
      per_layer={"memory": cache.memory},
    )
    return self._predicted(hidden_BTD, train=False).logits, cache._replace(target=target)

  def _embedded(self, tokens_BT: jax.Array, *, train: bool) -> jax.Array:
    x_BTD = embed(self.embedding, tokens_BT).astype(self.dtype)
    return constrain(self.drop(x_BTD, train=train), "batch", "sequence", "features")

  def _predicted(self, hidden_BTD: jax.Array, *, train: bool) -> Prediction:
    hidden_BTD = self.drop(self.decoder_norm(hidden_BTD), train=train)
    if self.tied:
      hidden_BTD *= self.features**-0.5
    table_VD = (self.embedding if self.tied else self.unembedding).astype(self.dtype)
    logits_BTV = jnp.einsum("btd,vd->btv", hidden_BTD, table_VD, preferred_element_type=jnp.float32)
    logits_BTV = constrain(logits_BTV, "batch", "sequence", "vocabulary")
    return Prediction(logits_BTV, hidden_BTD.astype(jnp.float32))
