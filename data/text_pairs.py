"""Pairs of texts, each in a row of its own, for encoders that see one text at a time.

The sets are those of data/labelled_text.py that have two texts: GLUE's, one's own tables, and what
is made of the Bible.

Axes: T tokens of a row.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from data import labelled_text, marked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(labelled_text.Source):
  """`tokens` int32 [2, T], each `[CLS] text [SEP]` and -1 behind; `types` int32 [2, T], all 0;
  `label` as of data/labelled_text.py.
  """

  def spec(self):
    rows = jax.ShapeDtypeStruct((2, self.length), np.int32)
    return {**super().spec(), "tokens": rows, "types": rows}

  def laid_out(self, *texts: Sequence[int]) -> marked.Paired:
    if len(texts) != 2:
      raise ValueError(f"{self.dataset} has single texts, and no pairs")
    alone = [self.paired(text) for text in texts]
    tokens = np.stack([row.tokens for row in alone])
    return marked.Paired(tokens, np.zeros_like(tokens), any(row.cut for row in alone))
