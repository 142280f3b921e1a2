"""A class for every token, from an encoder's features of it.

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 5.3 and figure 4 (d): tags of words. With two
classes it is the reader of section 4.2 and figure 4 (c), whose logits say how well an answer starts
and ends at each token: S . T_i and E . T_i.

Axes: B examples, T positions, D features, C classes.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from models.layers.sequence import Prediction
from models.transformer.fine_tuned import FineTuned


class Model(FineTuned):
  """p(class | text), for every token.

  Attributes:
    classes: C.
    dtype: of activations.
  """

  classes: Annotated[int, "[1, inf)"] = 2
  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    self.before_head = self.head_drop()
    self.head = self.dense(self.classes)

  def __call__(
    self,
    tokens_BT: jax.Array,
    segments_BT: jax.Array | None = None,
    types_BT: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> Prediction:
    """Logits [B, T, C], and the features that they are read from; arguments as of the encoder."""
    h_BTD = self.encode(tokens_BT, segments_BT, types_BT, train=train)
    logits_BTC = self.head(self.before_head(h_BTD, train=train))
    return Prediction(logits_BTC.astype(jnp.float32), h_BTD.astype(jnp.float32))
