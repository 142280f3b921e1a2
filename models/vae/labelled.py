"""Variational autoencoder given the label: the generative model M2 of Kingma et al.

Kingma, Rezende, Mohamed & Welling 2014, "Semi-supervised learning with deep generative models",
arXiv:1406.5298, eq. 2: p(x|y, z) with y a class and z ~ N(0, I) independent of it. The label,
one-hot, is an input of the encoder and of the decoder, so z is left with what it does not say.

Differs from the paper: every label is known, so there is no classifier q(y|x); one hidden layer of
tanh on either side, as in models/vae/gaussian.py.
"""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis, observation
from models.layers.numerics import exp_then_line
from models.vae import Gaussian, Layer, Output, standard


class Model(nn.Module):
  """p(z) = N(0, I), p(x|y, z) by an MLP, q(z|x, y) by an MLP.

  Attributes:
    data_shape: of one example.
    classes: of the data.
    levels: grey levels of the data; 0 where it is continuous.
    hidden: units of the one hidden layer on either side.
    latents: dimensions of z.
    likelihood: the observation model p(x|y, z).
    observation_std: of the Gaussian whose variance is not learned.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  classes: Annotated[int, "[1, inf)"]
  levels: Annotated[int, "[0, inf)"] = 0
  hidden: Annotated[int, "[1, inf)"] = 500
  latents: Annotated[int, "[1, inf)"] = 50
  likelihood: observation.Name = "bernoulli"
  observation_std: Annotated[float, "(0, inf)", "traced"] = 1.0
  dtype: Any = jnp.float32

  @property
  def observation(self) -> observation.Observation:
    """p(x|y, z), given its parameters."""
    return observation.of(self.likelihood, self.levels, self.observation_std)

  def setup(self):
    dense = lambda units: nn.Dense(  # noqa: E731
      units, dtype=self.dtype, kernel_init=nn.initializers.glorot_uniform()
    )
    self.encoder = dense(self.hidden)
    self.posterior = dense(2 * self.latents)
    self.decoder = dense(self.hidden)
    self.output = dense(math.prod(self.data_shape) * self.observation.size)

  def encode(self, image: jax.Array, label: jax.Array) -> Gaussian:
    """q(z|x, y)."""
    h_BH = jnp.tanh(self.encoder(self._given(image.reshape(len(image), -1), label)))
    moments = self.posterior(h_BH).astype(jnp.float32)
    return Gaussian(*jnp.split(moments, 2, axis=-1))

  def decode(self, z_BZ: jax.Array, label: jax.Array) -> jax.Array:
    """Parameters [B, *data, P] of p(x|y, z), in float32."""
    h_BH = jnp.tanh(self.decoder(self._given(z_BZ, label)))
    parameters = self.output(h_BH).astype(jnp.float32)
    return parameters.reshape(-1, *self.data_shape, self.observation.size)

  def prior(self, examples: int) -> jax.Array:
    """Draws [examples, Z] of z, whatever the label."""
    return batch_axis.normal(self.make_rng("latent"), (examples, self.latents))

  def __call__(self, image: jax.Array, label: jax.Array, *, train: bool = False) -> Output:
    mean_BZ, log_variance_BZ = posterior = self.encode(image, label)
    noise_BZ = batch_axis.normal(self.make_rng("latent"), mean_BZ.shape)
    z_BZ = mean_BZ + exp_then_line(0.5 * log_variance_BZ) * noise_BZ
    return Output(self.decode(z_BZ, label), (Layer(posterior, standard(mean_BZ), z_BZ),))

  def _given(self, x_BD: jax.Array, label: jax.Array) -> jax.Array:
    """`x_BD` with the one-hot label beside it."""
    return jnp.concatenate([x_BD, jax.nn.one_hot(label, self.classes, dtype=x_BD.dtype)], axis=-1)
