"""Variational autoencoders.

Axes, in every file of this family: B examples, D data dimensions, H hidden units, Z latents.

Besides `__call__`, every model has `encode` (the posterior of the layer of latents next to the
data), `decode` (from a sample of that layer to the parameters of p(x|z)), `prior` (a draw of that
layer, from the top down) and `observation`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Gaussian(NamedTuple):
  """A diagonal Gaussian."""

  mean: jax.Array  # [B, Z]
  log_variance: jax.Array  # [B, Z]


class Layer(NamedTuple):
  """One layer of stochastic units, both distributions given the sample of the layer above."""

  posterior: Gaussian
  prior: Gaussian
  latent: jax.Array  # [B, Z]  one sample of the posterior


class Output(NamedTuple):
  """What every VAE returns, whatever its networks."""

  parameters: jax.Array  # [B, *data, P]  of p(x|z)
  layers: tuple[Layer, ...]  # the one next to the data first


def standard(like: jax.Array) -> Gaussian:
  """N(0, I) of the shape of `like`."""
  return Gaussian(jnp.zeros_like(like), jnp.zeros_like(like))
