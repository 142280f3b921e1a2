"""What VAEs with one layer of latents have in common, whatever their networks.

Kingma & Welling 2013, arXiv:1312.6114: p(z) = N(0, I), q(z|x) = N(mean, exp(log_variance)).
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis, observation
from models.vae import Gaussian, Layer, Output, standard

# Of log variances: nothing that is trained on images comes near, and exp() overflows at 88.
_LARGEST = 30.0


class Single(nn.Module):
  """One layer of latents, whatever the networks.

  A model sets up `encoder`, which maps [B, *data] to [B, 2 Z], and `decoder`, [B, Z] to [B, D P].

  Attributes:
    data_shape: of one example.
    levels: grey levels of the data; 0 where it is continuous.
    latents: dimensions of z.
    likelihood: the observation model p(x|z).
    observation_std: of the Gaussian whose variance is not learned.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  levels: Annotated[int, "[0, inf)"] = 0
  latents: Annotated[int, "[1, inf)"] = 10
  likelihood: observation.Name = "bernoulli"
  observation_std: Annotated[float, "(0, inf)", "traced"] = 1.0
  dtype: Any = jnp.float32

  @property
  def observation(self) -> observation.Observation:
    """p(x|z), given its parameters."""
    return observation.of(self.likelihood, self.levels, self.observation_std)

  def encode(self, image: jax.Array) -> Gaussian:
    """q(z|x)."""
    moments = self.encoder(image).astype(jnp.float32)
    mean_BZ, log_variance_BZ = jnp.split(moments, 2, axis=-1)
    return Gaussian(mean_BZ, jnp.clip(log_variance_BZ, -_LARGEST, _LARGEST))

  def decode(self, z_BZ: jax.Array) -> jax.Array:
    """Parameters [B, *data, P] of p(x|z), in float32."""
    parameters = self.decoder(z_BZ).astype(jnp.float32)
    return parameters.reshape(-1, *self.data_shape, self.observation.size)

  def prior(self, examples: int) -> jax.Array:
    """Draws [examples, Z] of z."""
    return batch_axis.normal(self.make_rng("latent"), (examples, self.latents))

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    mean_BZ, log_variance_BZ = posterior = self.encode(image)
    noise_BZ = batch_axis.normal(self.make_rng("latent"), mean_BZ.shape)
    z_BZ = mean_BZ + jnp.exp(0.5 * log_variance_BZ) * noise_BZ
    return Output(self.decode(z_BZ), (Layer(posterior, standard(mean_BZ), z_BZ),))
