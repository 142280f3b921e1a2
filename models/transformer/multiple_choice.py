"""Which of several texts is the right one: a number for each, and a softmax over them.

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 4.4: every choice is a row of its own, the
question and one answer; its score is the dot product of a vector with the first token's features
through the pooler (section 4.1). The vector's bias, which the softmax cannot see, is left out.

Axes: B examples, C choices, T positions, D features.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis
from models.transformer.classifier import Classification
from models.transformer.fine_tuned import FineTuned


class Model(FineTuned):
  """p(choice | question, choices).

  Attributes:
    dtype: of activations.
  """

  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    self.pooler = self.dense(self.features)
    self.before_head = self.head_drop()
    self.head = nn.Dense(1, use_bias=False, kernel_init=self.normal, dtype=self.dtype)

  def __call__(
    self,
    tokens_BCT: jax.Array,
    segments_BCT: jax.Array | None = None,
    types_BCT: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> Classification:
    """Logits [B, C] of the choices and what they are read from [B, C, D].

    The arguments are those of the encoder, for each choice.
    """
    B, C, T = tokens_BCT.shape
    rows = jax.tree.map(lambda x: x.reshape(B * C, T), (tokens_BCT, segments_BCT, types_BCT))
    with batch_axis.several(C):
      pooled = self.pooled(self.encode(*rows, train=train))
      logits = self.head(self.before_head(pooled, train=train))
    return Classification(
      logits.reshape(B, C).astype(jnp.float32), pooled.reshape(B, C, -1).astype(jnp.float32)
    )
