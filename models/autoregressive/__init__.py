"""Autoregressive models of images: every pixel given the pixels before it.

Axes, in every file of this family: B examples, H rows, W columns, C channels of the data, P
parameters of one value's distribution.

Besides `__call__`, every model has `complete` (draws what is missing of an image), `sample` and
`observation`, the distribution of one value.
"""

from typing import NamedTuple

import jax


class Output(NamedTuple):
  """What every model returns, whatever its network."""

  parameters: jax.Array  # [B, H, W, C, P]  of p(x_i | x_1, ..., x_{i-1})
