"""Conditional variational autoencoder for structured prediction.

Sohn, Lee & Yan 2015, "Learning structured output representation using deep conditional generative
models", NIPS, section 4: the hidden pixels y of an image given its observed pixels x, with a prior
p(z|x) that is learned. A baseline network predicts y from x alone; what it says is an input of the
other three networks.

All networks are MLPs of rectifiers, as for the paper's MNIST; the groups of parameters are
`baseline`, `recognition`, `conditional_prior` and `generation`.

Differs from the paper: networks see the observed pixels alone and not an image with a hole; the
generation network sees them and the baseline's guess beside z, where the paper adds the guess at
its end; logarithms of variances are cut off at -20 and 20.

Axes, besides the family's: X observed pixels, Y hidden ones.
"""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis, observation
from models.vae import Gaussian, Layer, Output

_LARGEST_LOG_VARIANCE = 20.0


class Mlp(nn.Module):
  """Layers of rectifiers under a linear one, in float32.

  Attributes:
    hidden: units of each layer of rectifiers.
    dtype: of activations.
  """

  hidden: tuple[int, ...]
  dtype: Any

  @nn.compact
  def __call__(self, *inputs: jax.Array, outputs: int) -> jax.Array:
    x = jnp.concatenate(inputs, axis=-1)
    for units in self.hidden:
      x = nn.relu(nn.Dense(units, dtype=self.dtype, kernel_init=nn.initializers.he_normal())(x))
    return nn.Dense(outputs, dtype=self.dtype)(x).astype(jnp.float32)


class Model(nn.Module):
  """p(y|x) = integral of p(y|x, z) p(z|x) over z, q(z|x, y).

  Attributes:
    data_shape: of one whole image.
    levels: grey levels of the data; 0 where it is continuous.
    hidden: units of the layers of rectifiers in every network.
    latents: dimensions of z.
    likelihood: the observation model p(y|x, z).
    observation_std: of the Gaussian whose variance is not learned.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  levels: Annotated[int, "[0, inf)"] = 0
  hidden: tuple[Annotated[int, "[1, inf)"], ...] = (500, 500)
  latents: Annotated[int, "[1, inf)"] = 200
  likelihood: observation.Name = "bernoulli"
  observation_std: Annotated[float, "(0, inf)", "traced"] = 1.0
  dtype: Any = jnp.float32

  @property
  def observation(self) -> observation.Observation:
    """p(y|x, z), given its parameters."""
    return observation.of(self.likelihood, self.levels, self.observation_std)

  def setup(self):
    mlp = lambda: Mlp(self.hidden, self.dtype)  # noqa: E731
    self.baseline, self.recognition = mlp(), mlp()
    self.conditional_prior, self.generation = mlp(), mlp()

  def __call__(self, x_BX: jax.Array, y_BY: jax.Array, *, train: bool = False) -> Output:
    posterior, prior = self.encode(x_BX, y_BY), self.prior(x_BX)
    z_BZ = self._draw(posterior)
    return Output(self.decode(x_BX, z_BZ), (Layer(posterior, prior, z_BZ),))

  def guess(self, x_BX: jax.Array) -> jax.Array:
    """The baseline's parameters [B, Y, P] of p(y|x), in float32."""
    return self._parameters(self.baseline, x_BX)

  def encode(self, x_BX: jax.Array, y_BY: jax.Array) -> Gaussian:
    """q(z|x, y)."""
    return self._gaussian(self.recognition, x_BX, y_BY, self._guessed(x_BX))

  def prior(self, x_BX: jax.Array) -> Gaussian:
    """p(z|x)."""
    return self._gaussian(self.conditional_prior, x_BX, self._guessed(x_BX))

  def decode(self, x_BX: jax.Array, z_BZ: jax.Array) -> jax.Array:
    """Parameters [B, Y, P] of p(y|x, z), in float32."""
    return self._parameters(self.generation, x_BX, self._guessed(x_BX), z_BZ)

  def predict(self, x_BX: jax.Array) -> jax.Array:
    """Parameters [B, Y, P] of p(y|x, z) at a draw of z from p(z|x)."""
    return self.decode(x_BX, self._draw(self.prior(x_BX)))

  def _guessed(self, x_BX: jax.Array) -> jax.Array:
    return self.observation.mean(self.guess(x_BX))

  def _parameters(self, network: Mlp, x_BX: jax.Array, *more: jax.Array) -> jax.Array:
    hidden = math.prod(self.data_shape) - x_BX.shape[1]
    out = network(x_BX, *more, outputs=hidden * self.observation.size)
    return out.reshape(-1, hidden, self.observation.size)

  def _gaussian(self, network: Mlp, *inputs: jax.Array) -> Gaussian:
    mean, log_variance = jnp.split(network(*inputs, outputs=2 * self.latents), 2, axis=-1)
    # Rectifiers have no bound: an outlier's variance would outgrow float32.
    return Gaussian(mean, jnp.clip(log_variance, -_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE))

  def _draw(self, distribution: Gaussian) -> jax.Array:
    noise_BZ = batch_axis.normal(self.make_rng("latent"), distribution.mean.shape)
    return distribution.mean + jnp.exp(0.5 * distribution.log_variance) * noise_BZ
