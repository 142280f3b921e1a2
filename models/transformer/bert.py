"""BERT as it is pre-trained: hidden tokens told, and what two sentences are to one another.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv:1810.04805, section 3.1: whether the second sentence follows the first. Lan et
al. 2020, "ALBERT", arXiv:1909.11942, section 3.1: whether the two are in their order. Which of the
two questions the classes answer is the data's affair.

The pooler is a layer with tanh on the first token's features, as in the code that came with the
paper; classifiers take it over (models/transformer/classifier.py).

Axes: B examples, T positions, V vocabulary, D features.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from models.transformer import encoder


class Pretraining(NamedTuple):
  """What is told of a pair of sentences.

  Attributes:
    logits: [B, T, V] float32, of the token at each position.
    hidden: [B, T, E] float32, the features that those are read from.
    relation: [B, 2] float32 logits of the sentences' relation.
  """

  logits: jax.Array
  hidden: jax.Array
  relation: jax.Array


class Model(encoder.Model):
  """p(token | the other tokens), and p(relation | both sentences).

  Attributes:
    dtype: of activations.
  """

  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    self.pooler = self.dense(self.features)
    self.relation = self.dense(2)

  def __call__(
    self,
    tokens_BT: jax.Array,
    segments_BT: jax.Array | None = None,
    types_BT: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> Pretraining:
    """Both predictions; the arguments are those of models/transformer/encoder.py."""
    hidden_BTD = self.encode(tokens_BT, segments_BT, types_BT, train=train)
    pooled_BD = self.drop(jnp.tanh(self.pooler(hidden_BTD[:, 0])), train=train)
    relation_BC = self.relation(pooled_BD).astype(jnp.float32)
    return Pretraining(*self.told(hidden_BTD), relation_BC)
