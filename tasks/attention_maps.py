"""What an encoder's tokens look at, of one text.

Axes: L layers, N heads, T tokens.
"""

from typing import Any

import jax
import numpy as np

from tasks.objective import Call, Tokenizer
from tasks.views import View, every_head, first_and_last

_MOST = 32  # tokens


def of_text(
  call: Call, tokenizer: Tokenizer, inputs: tuple[Any, ...], what: str
) -> dict[str, View]:
  """Figures of the attention in the first text of a batch; none where the model has no maps.

  Args:
    call: the model.
    tokenizer: of the tokens.
    inputs: of the model, tokens [B, T] padded behind first, and others like them or None.
    what: which text that is, for the caption.
  """
  length = min(int((inputs[0][0] >= 0).sum()), _MOST)
  own = jax.tree.map(lambda x: np.asarray(x)[:1, :length], inputs)
  maps = jax.tree.leaves(call(*own, intermediates=True)[1])
  if not maps or length < 2:
    return {}
  maps_LNTT = maps[-1][:, 0]
  names = [tokenizer.token(int(token)) for token in own[0][0]]
  return {
    "attention": first_and_last(
      maps_LNTT, names, f"Where each token (row) of {what} looks, to either side."
    ),
    "attention_heads": every_head(
      maps_LNTT, "The same text: a row of each map is a token that looks, a column one looked at."
    ),
  }
