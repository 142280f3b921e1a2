"""A class, or a number, for a text or a pair of texts, from an encoder's first token.

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 4.1 and figure 4 (a), (b): logits = C W^T, C
being the first token's features through the pooler, a layer with tanh that pre-training leaves (its
next-sentence head reads it too). DistilBERT (Sanh et al. 2019, arXiv:1910.01108) has relu there,
and pre-trains no pooler.

Axes: B examples, T positions, D features, C classes.
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from models.transformer.fine_tuned import FineTuned


class Classification(NamedTuple):
  """What is made of a text.

  Attributes:
    logits: [B, C] float32; of a regression C is 1.
    pooled: [B, D] float32, what they are read from.
  """

  logits: jax.Array
  pooled: jax.Array


class Model(FineTuned):
  """p(class | text).

  Attributes:
    classes: C; 1 for regression.
    dtype: of activations.
  """

  classes: Annotated[int, "[1, inf)"] = 2
  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    self.pooler = self.dense(self.features)
    self.before_head = self.head_drop()
    self.head = self.dense(self.classes)

  def __call__(
    self,
    tokens_BT: jax.Array,
    segments_BT: jax.Array | None = None,
    types_BT: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> Classification:
    """The arguments are those of the encoder."""
    pooled_BD = self.pooled(self.encode(tokens_BT, segments_BT, types_BT, train=train))
    logits_BC = self.head(self.before_head(pooled_BD, train=train))
    return Classification(logits_BC.astype(jnp.float32), pooled_BD.astype(jnp.float32))
