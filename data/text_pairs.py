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
from data.verses import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(labelled_text.Source):
  """`tokens` int32 [2, T], each `[CLS] text [SEP]` and -1 behind; `types` int32 [2, T], all 0;
  `label` as of data/labelled_text.py.
  """

  def spec(self):
    rows = jax.ShapeDtypeStruct((2, self.length), np.int32)
    return {**super().spec(), "tokens": rows, "types": rows}

  def rows(self, examples: Sequence[Example]) -> marked.Rows:
    if any(len(example.texts) != 2 for example in examples):
      raise ValueError(f"{self.dataset} has single texts, and no pairs")
    found = super().rows(examples)
    tokenizer = self.tokenizers()["tokens"]
    sides = [tokenizer.encode_all([e.texts[i] for e in examples]) for i in range(2)]
    alone = [[self.paired(one.ids.tolist()) for one in side] for side in sides]
    shape = (len(examples), 2, self.length)
    tokens = np.stack([[row.tokens for row in side] for side in alone], 1) if examples else None
    arrays = {
      **found.arrays,
      "tokens": np.zeros(shape, np.int32) if tokens is None else tokens,
      "types": np.zeros(shape, np.int32),
    }
    cut = sum(any(row.cut for row in pair) for pair in zip(*alone, strict=True))
    return found._replace(arrays=arrays, cut=cut)
