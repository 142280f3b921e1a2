"""A sentence's vector from an encoder, for comparing sentences by the angle between theirs.

Reimers & Gurevych 2019, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
arXiv:1908.10084, section 3: the mean of the tokens' features, or those of the first token, or the
largest of each. Fine-tuning sees pairs through the same encoder, with a softmax over
W (u, v, |u - v|). all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957, fine-tuned) takes the mean
and divides it by its length.

Axes: B examples, P texts of an example (2 of a pair), T positions, D features, C classes.
"""

from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis
from models.layers.sequence import valid
from models.transformer.fine_tuned import FineTuned


class Sentences(NamedTuple):
  """What is made of texts.

  Attributes:
    vectors: [B, D] float32, or [B, 2, D] of pairs.
    logits: [B, C] float32 of a pair's classes; None where there are none.
  """

  vectors: jax.Array
  logits: jax.Array | None = None


class Model(FineTuned):
  """Vectors of texts, and the class of a pair of them.

  Attributes:
    pooling: which vector is a text's: the mean of its tokens', the first's, or the largest of each
      feature.
    normalised: whether vectors have the length 1.
    classified: whether pairs get a class.
    classes: C.
    pooler: whether the layer is there that BERT's other heads read through. No vector depends on
      it; published sentence encoders bring it along.
    dtype: of activations.
  """

  pooling: Literal["mean", "first", "max"] = "mean"
  normalised: bool = False
  classified: bool = False
  classes: Annotated[int, "[1, inf)"] = 2
  pooler: bool = False
  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    if self.pooler:
      self.pooler_layer = nn.Dense(
        self.features, kernel_init=self.normal, dtype=self.dtype, name="pooler"
      )
    if self.classified:
      self.head = self.dense(self.classes)

  def __call__(
    self,
    tokens: jax.Array,
    segments_BT: jax.Array | None = None,
    types: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> Sentences:
    """Vectors of texts [B, T], or of pairs of them [B, 2, T]; so are their types, if any."""
    if tokens.ndim == 2:
      return Sentences(self.vectors(tokens, segments_BT, types, train=train))
    rows = lambda x: x.reshape(-1, x.shape[-1])  # noqa: E731
    with batch_axis.several(tokens.shape[1]):
      kinds = None if types is None else rows(types)
      vectors_BD = self.vectors(rows(tokens), None, kinds, train=train)
    pairs_B2D = vectors_BD.reshape(len(tokens), tokens.shape[1], -1)
    if not self.classified:
      return Sentences(pairs_B2D)
    u_BD, v_BD = pairs_B2D[:, 0], pairs_B2D[:, 1]
    joined = jnp.concatenate([u_BD, v_BD, jnp.abs(u_BD - v_BD)], axis=-1)
    return Sentences(pairs_B2D, self.head(joined).astype(jnp.float32))

  def vectors(self, tokens_BT, segments_BT=None, types_BT=None, *, train: bool = False):
    """[B, D] float32; zeros for a text without tokens."""
    h_BTD = self.encode(tokens_BT, segments_BT, types_BT, train=train).astype(jnp.float32)
    if self.pooler and self.is_initializing():
      self.pooler_layer(h_BTD[:, 0])
    there_BT1 = valid(tokens_BT)[..., None]
    if self.pooling == "mean":
      total_BD = jnp.where(there_BT1, h_BTD, 0.0).sum(1)
      vectors_BD = total_BD / jnp.maximum(there_BT1.sum(1).astype(jnp.float32), 1.0)
    elif self.pooling == "first":
      vectors_BD = h_BTD[:, 0]
    else:
      largest_BD = jnp.where(there_BT1, h_BTD, -jnp.inf).max(1)
      vectors_BD = jnp.where(there_BT1.any(1), largest_BD, 0.0)
    if not self.normalised:
      return vectors_BD
    squares_B1 = jnp.square(vectors_BD).sum(-1, keepdims=True)
    return vectors_BD * jax.lax.rsqrt(jnp.maximum(squares_B1, 1e-24))
