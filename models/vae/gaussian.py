"""Variational autoencoder with a diagonal Gaussian posterior.

Kingma & Welling 2013, "Auto-Encoding Variational Bayes", arXiv:1312.6114, appendix C.

Differs from the paper: nothing in the network, whose weights start from N(0, 0.01) as there where
`init_std` says so (Glorot's initialisation where it is 0); optimizer and data are the experiment's.
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
  """p(z) = N(0, I), p(x|z) by an MLP, q(z|x) = N(mean, exp(log_variance)) by an MLP.

  Attributes:
    data_shape: of one example.
    levels: grey levels of the data; 0 where it is continuous.
    hidden: units of the one hidden layer on either side.
    latents: dimensions of z.
    likelihood: the observation model p(x|z).
    observation_std: of the Gaussian whose variance is not learned.
    init_std: of the weights at the start; 0 for Glorot-uniform.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  levels: Annotated[int, "[0, inf)"] = 0
  hidden: Annotated[int, "[1, inf)"] = 500
  latents: Annotated[int, "[1, inf)"] = 20
  likelihood: observation.Name = "bernoulli"
  observation_std: Annotated[float, "(0, inf)", "traced"] = 1.0
  init_std: Annotated[float, "[0, inf)"] = 0.0
  dtype: Any = jnp.float32

  @property
  def observation(self) -> observation.Observation:
    """p(x|z), given its parameters."""
    return observation.of(self.likelihood, self.levels, self.observation_std)

  def setup(self):
    normal = nn.initializers.normal(self.init_std)
    kernel_init = normal if self.init_std else nn.initializers.glorot_uniform()
    dense = lambda features: nn.Dense(features, dtype=self.dtype, kernel_init=kernel_init)  # noqa: E731
    self.encoder = dense(self.hidden)
    self.posterior = dense(2 * self.latents)
    self.decoder = dense(self.hidden)
    self.output = dense(math.prod(self.data_shape) * self.observation.size)

  def encode(self, image: jax.Array) -> Gaussian:
    """q(z|x)."""
    x_BD = image.reshape(image.shape[0], -1)
    h_BH = jnp.tanh(self.encoder(x_BD))
    moments = self.posterior(h_BH).astype(jnp.float32)
    return Gaussian(*jnp.split(moments, 2, axis=-1))

  def decode(self, z_BZ: jax.Array) -> jax.Array:
    """Parameters [B, *data, P] of p(x|z), in float32."""
    h_BH = jnp.tanh(self.decoder(z_BZ))
    parameters = self.output(h_BH).astype(jnp.float32)
    return parameters.reshape(-1, *self.data_shape, self.observation.size)

  def prior(self, examples: int) -> jax.Array:
    """Draws [examples, Z] of z."""
    return batch_axis.normal(self.make_rng("latent"), (examples, self.latents))

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    mean_BZ, log_variance_BZ = posterior = self.encode(image)
    noise_BZ = batch_axis.normal(self.make_rng("latent"), mean_BZ.shape)
    z_BZ = mean_BZ + exp_then_line(0.5 * log_variance_BZ) * noise_BZ  # reparameterised, eq. 4
    return Output(self.decode(z_BZ), (Layer(posterior, standard(mean_BZ), z_BZ),))
