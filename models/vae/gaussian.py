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

from models.layers import batch_axis
from models.vae import Output


class Model(nn.Module):
  """p(z) = N(0, I), p(x|z) Bernoulli with an MLP decoder, q(z|x) = N(mean, exp(log_variance)).

  Attributes:
    data_shape: of one example.
    hidden: units of the one hidden layer on either side.
    latents: dimensions of z.
    init_std: of the weights at the start; 0 for Glorot-uniform.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  hidden: Annotated[int, "[1, inf)"] = 500
  latents: Annotated[int, "[1, inf)"] = 20
  init_std: Annotated[float, "[0, inf)"] = 0.0
  dtype: Any = jnp.float32

  def setup(self):
    normal = nn.initializers.normal(self.init_std)
    kernel_init = normal if self.init_std else nn.initializers.glorot_uniform()
    dense = lambda features: nn.Dense(features, dtype=self.dtype, kernel_init=kernel_init)  # noqa: E731
    self.encoder = dense(self.hidden)
    self.posterior = dense(2 * self.latents)
    self.decoder = dense(self.hidden)
    self.likelihood = dense(math.prod(self.data_shape))

  def encode(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and log variance [B, Z] of q(z|x), in float32."""
    x_BD = image.reshape(image.shape[0], -1)
    h_BH = jnp.tanh(self.encoder(x_BD))
    moments = self.posterior(h_BH).astype(jnp.float32)
    mean_BZ, log_variance_BZ = jnp.split(moments, 2, axis=-1)
    return mean_BZ, log_variance_BZ

  def decode(self, z_BZ: jax.Array) -> jax.Array:
    """Logits [B, *data] of p(x|z), in float32."""
    h_BH = jnp.tanh(self.decoder(z_BZ))
    return self.likelihood(h_BH).astype(jnp.float32).reshape(-1, *self.data_shape)

  def __call__(self, image: jax.Array) -> Output:
    mean_BZ, log_variance_BZ = self.encode(image)
    noise_BZ = batch_axis.normal(self.make_rng("latent"), mean_BZ.shape)
    z_BZ = mean_BZ + jnp.exp(0.5 * log_variance_BZ) * noise_BZ  # reparameterised, eq. 4
    return Output(self.decode(z_BZ), mean_BZ, log_variance_BZ, z_BZ)
