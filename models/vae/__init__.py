"""Variational autoencoders.

Axes, in every file of this family: B examples, D data dimensions, H hidden units, Z latents.
"""

from typing import NamedTuple

import jax


class Output(NamedTuple):
  """What every VAE returns, whatever its networks."""

  logits: jax.Array  # [B, *data]  of p(x|z)
  mean: jax.Array  # [B, Z]  of q(z|x)
  log_variance: jax.Array  # [B, Z]  of q(z|x)
  latent: jax.Array  # [B, Z]  one sample of q(z|x)
