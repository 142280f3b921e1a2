"""LLaMA: a decoder with RMSNorm, gated MLPs and rotated queries and keys.

Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", arXiv:2302.13971,
section 2.2; Touvron et al. 2023, "Llama 2", arXiv:2307.09288, whose 34B and 70B share keys and
values among groups of queries (Ainslie et al. 2023, arXiv:2305.13245) and whose epsilon is 1e-5.

Against GPT-2's block: RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467) for layer normalisation,
SwiGLU (Shazeer 2020, arXiv:2002.05202) for an MLP of GELUs, rotations in every layer (Su et al.
2021, arXiv:2104.09864) for an embedding of positions, no biases, an unembedding of its own, no
dropout. The papers do not print their initial weights; these are GPT-2's.

Axes: B examples, T positions, V vocabulary, D features, F features of the MLP.
"""

import functools
from typing import Annotated, Any

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
from models.layers.placement import constrain
from models.layers.positions import Pairing
from models.layers.sequence import Prediction, embed
from models.layers.transformer import Block, Stack, norm_layer

_MULTIPLE = 256  # of which the MLP's width is one


def mlp_width(features: int) -> int:
  """F: two thirds of 4 D, so that three matrices weigh what two do, up to a multiple of 256."""
  return -(-(8 * features // 3) // _MULTIPLE) * _MULTIPLE


class Model(nn.Module):
  """p(token | tokens before it).

  Attributes:
    vocabulary: V; padding needs no token of its own.
    length: tokens that it is trained to read; rotations know no bound.
    layers: of the decoder.
    features: D.
    heads: of attention.
    kv_heads: of keys and values, each shared by a group of queries; 0 is as many as `heads`.
    mlp_features: F; 0 is `mlp_width(D)`.
    epsilon: of the norms.
    rotary: which features rotate together, as in Meta's weights or as in Hugging Face's.
    rotary_base: of the angles.
    init_std: of initial weights.
    attention: how it is computed; see models/layers/attention.py.
    unroll: blocks in the compiled loop over layers; 0 lets the device decide.
    dtype: of activations.
    remat: recompute each block's activations in the backward pass.
  """

  vocabulary: Annotated[int, "[1, inf)"]
  length: Annotated[int, "[1, inf)"] = 2048
  layers: Annotated[int, "[1, inf)"] = 32
  features: Annotated[int, "[1, inf)"] = 4096
  heads: Annotated[int, "[1, inf)"] = 32
  kv_heads: Annotated[int, "[0, inf)"] = 0
  mlp_features: Annotated[int, "[0, inf)"] = 0
  epsilon: Annotated[float, "(0, inf)"] = 1e-6
  rotary: Pairing = "pairs"
  rotary_base: Annotated[float, "(0, inf)"] = 10_000.0
  init_std: Annotated[float, "(0, inf)"] = 0.02
  attention: Implementation = "auto"
  unroll: Annotated[int, "[0, inf)"] = 0
  dtype: Any = jnp.float32
  remat: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.features % (2 * self.heads):
      raise ValueError(
        f"features={self.features} do not divide into heads={self.heads} of an even width"
      )
    if self.kv_heads and self.heads % self.kv_heads:
      raise ValueError(f"heads={self.heads} do not divide into kv_heads={self.kv_heads} groups")

  def setup(self):
    normal = nn.initializers.normal
    table = (self.vocabulary, self.features)
    self.embedding = self.param("embedding", normal(self.init_std), table)
    block = functools.partial(
      Block,
      self.features,
      self.heads,
      self.mlp_features or mlp_width(self.features),
      self.kv_heads,
      activation="silu",
      gated=True,
      causal=True,
      norm="rms",
      epsilon=self.epsilon,
      bias=False,
      rotary=self.rotary,
      rotary_base=self.rotary_base,
      implementation=self.attention,
      kernel_init=normal(self.init_std),
      output_init=normal(residual_std(self.init_std, self.layers)),
      dtype=self.dtype,
    )
    self.decoder_layers = Stack(block, self.layers, remat=self.remat, unroll=self.unroll)
    self.final_norm = norm_layer("rms", self.epsilon, self.dtype)
    self.unembedding = self.param("unembedding", normal(self.init_std), table)

  def __call__(
    self, tokens_BT: jax.Array, segments_BT: jax.Array | None = None, *, train: bool = False
  ) -> Prediction:
    """What follows every token.

    Args:
      tokens_BT: padded by -1 behind the tokens.
      segments_BT: which document each token belongs to, where several are packed into a row.
      train: changes nothing, since nothing drops out.
    """
    where = places(tokens_BT, segments_BT, plain=True)
    hidden_BTD = self.decoder_layers(
      self._embedded(tokens_BT), queries=where, keys=where, train=train
    )
    return self._predicted(hidden_BTD)

  def begin(self, examples: int, capacity: int) -> Cache:
    """The cache of `examples` texts of which nothing is read, with room for `capacity` tokens."""
    width = self.features // self.heads
    kv_heads = self.kv_heads or self.heads
    return empty_cache(self.layers, examples, kv_heads, capacity, width, self.dtype)

  def advance(self, tokens_BT: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    """(logits [B, T, V] of what follows further tokens, the cache with them); -1 is skipped."""
    cache, where = place_in(cache, tokens_BT)
    hidden_BTD, cache = self.decoder_layers(
      self._embedded(tokens_BT), cache=cache, queries=where, keys=Places(cache.positions[0])
    )
    return self._predicted(hidden_BTD).logits, cache

  def _embedded(self, tokens_BT: jax.Array) -> jax.Array:
    x_BTD = embed(self.embedding, tokens_BT).astype(self.dtype)
    return constrain(x_BTD, "batch", "sequence", "features")

  def _predicted(self, hidden_BTD: jax.Array) -> Prediction:
    hidden_BTD = self.final_norm(hidden_BTD)
    table_VD = self.unembedding.astype(self.dtype)
    logits_BTV = jnp.einsum("btd,vd->btv", hidden_BTD, table_VD, preferred_element_type=jnp.float32)
    logits_BTV = constrain(logits_BTV, "batch", "sequence", "vocabulary")
    return Prediction(logits_BTV, hidden_BTD.astype(jnp.float32))
