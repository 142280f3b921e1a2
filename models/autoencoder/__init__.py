"""Autoencoders.

Axes, in every file of this family: B examples, D data dimensions, K units of the code.
"""

from typing import NamedTuple

import jax


class Output(NamedTuple):
  """What every autoencoder returns."""

  logits: jax.Array  # [B, *data]  before the output's sigmoid
  reconstruction: jax.Array  # [B, *data]
  code: jax.Array  # [B, K]
