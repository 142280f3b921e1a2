"""Convolutional classifiers.

Axes, in every file of this family: B examples, H height, W width, F features, C classes.
"""

from typing import NamedTuple

import jax


class Output(NamedTuple):
  """What every classifier returns."""

  logits: jax.Array  # [B, C]
  features: jax.Array  # [B, F]  before the classifier
