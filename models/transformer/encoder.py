"""A Transformer's encoder alone, which sees both sides of every token.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv:1810.04805, section 3; algorithm 9 of Phuong & Hutter 2022, arXiv:2207.09238.

Norms stand after the sub-layers as in Vaswani et al. 2017. The last layer's features go through
one more layer and norm before the embedding reads logits from them, with a bias for each token
(BERT's masked language model). Algorithm 9 is this without `embedding_norm`, without `types` and
with a bias of zero. Which tokens are hidden from the model is the objective's affair.

Its family are settings. RoBERTa (Liu et al. 2019, arXiv:1907.11692) has no types, and two rows of
positions that no token stands at. ALBERT (Lan et al. 2020, arXiv:1909.11942, section 3.1) embeds
tokens in E < D features and shares the parameters of its layers. DistilBERT (Sanh et al. 2019,
arXiv:1910.01108) has half the layers and no types. Heads for what comes after pre-training are
models of their own, beside this file.

Axes: B examples, T positions, V vocabulary, E features of an embedding, D features.
"""

import functools
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.attention import Implementation, Places, places
from models.layers.dropout import Dropout
from models.layers.placement import constrain
from models.layers.sequence import Prediction, embed
from models.layers.transformer import ACTIVATIONS, Activation, Block, Stack, norm_layer

# Parts of a block whose parameters all layers share (Lan et al. 2020, Table 4).
_SHARED = {
  "none": (),
  "attention": ("attention", "attention_norm"),
  "mlp": ("mlp", "mlp_norm"),
  "all": ("attention", "attention_norm", "mlp", "mlp_norm"),
}


class Encoder(nn.Module):
  """Features of every token among the others.

  Attributes:
    vocabulary: V; padding needs no token of its own.
    length: positions that can be told apart.
    layers: of the encoder.
    features: D.
    embedding_features: E; 0 is D, and no projection of the embeddings.
    shared: the parts of a layer whose parameters are those of all layers.
    position_offset: rows of the table of positions before the first token's.
    heads: of attention.
    mlp_features: inside the MLP; 0 is 4 D.
    types: kinds of tokens that have an embedding, BERT's first and second sentence; 0 is none.
    embedding_norm: whether the sum of the embeddings is normalised.
    epsilon: of the norms.
    activation: of the MLP and of the last layer.
    init_std: of initial weights.
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
  embedding_features: Annotated[int, "[0, inf)"] = 0
  shared: Literal["none", "attention", "mlp", "all"] = "none"
  position_offset: Annotated[int, "[0, inf)"] = 0
  heads: Annotated[int, "[1, inf)"] = 12
  mlp_features: Annotated[int, "[0, inf)"] = 0
  types: Annotated[int, "[0, inf)"] = 0
  embedding_norm: bool = True
  epsilon: Annotated[float, "(0, inf)"] = 1e-12
  activation: Activation = "gelu"
  init_std: Annotated[float, "(0, inf)"] = 0.02
  dropout: Annotated[float, "[0, 1)", "traced"] = 0.1
  attention_dropout: Annotated[float, "[0, 1)", "traced"] = 0.1
  attention: Implementation = "auto"
  unroll: Annotated[int, "[0, inf)"] = 0
  dtype: Any = jnp.float32
  remat: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.features % self.heads:
      raise ValueError(f"features={self.features} do not divide into heads={self.heads}")

  def setup(self):
    width = self.embedding_features or self.features
    table = lambda name, rows: self.param(name, self.normal, (rows, width))  # noqa: E731
    self.embedding = table("embedding", self.vocabulary)
    self.position_embedding = table("position_embedding", self.position_offset + self.length)
    if self.types:
      self.type_embedding = table("type_embedding", self.types)
    if self.embedding_norm:
      self.first_norm = self.norm()
    if self.embedding_features:
      self.embedding_projection = self.dense(self.features)
    self.drop = Dropout(self.dropout)
    block = functools.partial(
      Block,
      self.features,
      self.heads,
      self.mlp_features or 4 * self.features,
      activation=self.activation,
      causal=False,
      norm_place="post",
      epsilon=self.epsilon,
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      implementation=self.attention,
      kernel_init=self.normal,
      output_init=self.normal,
      dtype=self.dtype,
    )
    self.encoder_layers = Stack(
      block, self.layers, remat=self.remat, unroll=self.unroll, shared=_SHARED[self.shared]
    )

  @property
  def normal(self) -> nn.initializers.Initializer:
    """Of all kernels and tables."""
    return nn.initializers.normal(self.init_std)

  def dense(self, features: int) -> nn.Dense:
    """A linear layer as the encoder's and its heads' are."""
    return nn.Dense(features, kernel_init=self.normal, dtype=self.dtype)

  def norm(self) -> nn.Module:
    """A norm as the encoder's are."""
    return norm_layer("layer", self.epsilon, self.dtype)

  def encode(
    self,
    tokens_BT: jax.Array,
    segments_BT: jax.Array | None = None,
    types_BT: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> jax.Array:
    """Features [B, T, D] of every token among the others; the arguments are `__call__`'s."""
    where = places(tokens_BT, segments_BT)
    return self.encoder_layers(
      self._embedded(tokens_BT, types_BT, where, train=train),
      queries=where,
      keys=where,
      train=train,
    )

  def _embedded(self, tokens_BT, types_BT, where: Places, *, train: bool) -> jax.Array:
    places_BT = jnp.where(where.positions < 0, -1, where.positions + self.position_offset)
    x_BTE = embed(self.embedding, tokens_BT) + embed(self.position_embedding, places_BT)
    if self.types:
      kinds_BT = jnp.zeros_like(tokens_BT) if types_BT is None else types_BT
      x_BTE += embed(self.type_embedding, jnp.where(tokens_BT < 0, -1, kinds_BT))
    x_BTE = x_BTE.astype(self.dtype)
    if self.embedding_norm:
      x_BTE = self.first_norm(x_BTE)
    x_BTD = self.drop(x_BTE, train=train)
    if self.embedding_features:
      x_BTD = self.embedding_projection(x_BTD)
    return constrain(x_BTD, "batch", "sequence", "features")


class Model(Encoder):
  """p(token | the other tokens), for every position.

  Attributes:
    dtype: of activations.
  """

  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    width = self.embedding_features or self.features
    self.projection = self.dense(width)
    self.final_norm = self.norm()
    self.output_bias = self.param("output_bias", nn.initializers.zeros, (self.vocabulary,))

  def __call__(
    self,
    tokens_BT: jax.Array,
    segments_BT: jax.Array | None = None,
    types_BT: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> Prediction:
    """What stands at every position, as far as the others tell.

    Args:
      tokens_BT: padded by -1 anywhere.
      segments_BT: which document each token belongs to, where several are packed into a row.
      types_BT: in [0, types), of which kind each token is; None is 0 for all.
      train: whether to drop out.
    """
    return self.told(self.encode(tokens_BT, segments_BT, types_BT, train=train))

  def told(self, hidden_BTD: jax.Array) -> Prediction:
    """The prediction that is read from the last layer's features."""
    h_BTE = self.final_norm(ACTIVATIONS[self.activation](self.projection(hidden_BTD)))
    table_VE = self.embedding.astype(self.dtype)
    logits_BTV = jnp.einsum("bte,ve->btv", h_BTE, table_VE, preferred_element_type=jnp.float32)
    logits_BTV = constrain(logits_BTV + self.output_bias, "batch", "sequence", "vocabulary")
    return Prediction(logits_BTV, h_BTE.astype(jnp.float32))
