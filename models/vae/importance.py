"""Variational autoencoder with one or more stochastic layers, of the importance-weighted paper.

Burda, Grosse & Salakhutdinov 2015, "Importance weighted autoencoders", arXiv:1509.00519, section 5
and figure 1 (there called VAE or IWAE by the bound that trains it; the network is the same).

Recognition goes up, x -> z_1 -> z_2, generation down, z_2 -> z_1 -> x. Every arrow is two tanh
layers; every conditional is a diagonal Gaussian whose two heads give its mean and the logarithm of
its standard deviation.

Differs from the paper: the bias of the last layer starts at zero, not at the logits of the mean
training image, since a model here is made without reading data.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis, observation
from models.layers.numerics import exp_then_line
from models.vae import Gaussian, Layer, Output, standard


class Conditional(nn.Module):
  """A diagonal Gaussian given its parent: two tanh layers under a linear mean and log deviation.

  Attributes:
    hidden: units of either tanh layer.
    latents: dimensions of the Gaussian.
    dtype: of activations.
  """

  hidden: int
  latents: int
  dtype: Any

  @nn.compact
  def __call__(self, parent: jax.Array) -> Gaussian:
    dense = _dense(self.dtype)
    h_BH = jnp.tanh(dense(self.hidden, name="hidden_0")(parent))
    h_BH = jnp.tanh(dense(self.hidden, name="hidden_1")(h_BH))
    mean_BZ = dense(self.latents, name="mean")(h_BH).astype(jnp.float32)
    log_std_BZ = dense(self.latents, name="log_std")(h_BH).astype(jnp.float32)
    return Gaussian(mean_BZ, 2 * log_std_BZ)


class Model(nn.Module):
  """p(x, z) = p(z_L) ... p(z_1|z_2) p(x|z_1), q(z|x) = q(z_1|x) q(z_2|z_1) ...

  Attributes:
    data_shape: of one example.
    levels: grey levels of the data; 0 where it is continuous.
    hidden: units of the tanh layers, a number for each stochastic layer from the data up.
    latents: dimensions of each stochastic layer from the data up.
    likelihood: the observation model p(x|z).
    observation_std: of the Gaussian whose variance is not learned.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  levels: Annotated[int, "[0, inf)"] = 0
  hidden: tuple[Annotated[int, "[1, inf)"], ...] = (200,)
  latents: tuple[Annotated[int, "[1, inf)"], ...] = (50,)
  likelihood: observation.Name = "bernoulli"
  observation_std: Annotated[float, "(0, inf)", "traced"] = 1.0
  dtype: Any = jnp.float32

  def __post_init__(self):
    if len(self.hidden) != len(self.latents) or not self.latents:
      raise ValueError(f"hidden={self.hidden} and latents={self.latents}: one each a layer")
    super().__post_init__()

  @property
  def observation(self) -> observation.Observation:
    """p(x|z), given its parameters."""
    return observation.of(self.likelihood, self.levels, self.observation_std)

  @property
  def upward(self) -> bool:
    """Whether a layer is inferred from the one below, whose divergence then has no closed form."""
    return len(self.latents) > 1

  def setup(self):
    pairs = list(zip(self.hidden, self.latents, strict=True))
    below = zip(self.hidden[1:], self.latents[:-1], strict=True)
    self.recognition = [Conditional(hidden, z, self.dtype) for hidden, z in pairs]
    self.generation = [Conditional(hidden, z, self.dtype) for hidden, z in below]
    dense = _dense(self.dtype)
    self.decoder = [dense(self.hidden[0]), dense(self.hidden[0])]
    self.output = dense(math.prod(self.data_shape) * self.observation.size)

  def encode(self, image: jax.Array) -> Gaussian:
    """q(z_1|x)."""
    return self.recognition[0](image.reshape(len(image), -1))

  def decode(self, z_BZ: jax.Array) -> jax.Array:
    """Parameters [B, *data, P] of p(x|z_1), in float32."""
    h_BH = z_BZ
    for layer in self.decoder:
      h_BH = jnp.tanh(layer(h_BH))
    out = self.output(h_BH).astype(jnp.float32)
    return out.reshape(-1, *self.data_shape, self.observation.size)

  def prior(self, examples: int) -> jax.Array:
    """Draws of z_1 [examples, Z] from the top down."""
    z_BZ = batch_axis.normal(self.make_rng("latent"), (examples, self.latents[-1]))
    for conditional in reversed(self.generation):
      z_BZ = self._draw(conditional(z_BZ))
    return z_BZ

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    posteriors, latents = [], []
    parent = image.reshape(len(image), -1)
    for conditional in self.recognition:
      posteriors.append(conditional(parent))
      parent = self._draw(posteriors[-1])
      latents.append(parent)
    priors = [p(z) for p, z in zip(self.generation, latents[1:], strict=True)]
    layers = zip(posteriors, [*priors, standard(parent)], latents, strict=True)
    return Output(self.decode(latents[0]), tuple(Layer(*layer) for layer in layers))

  def _draw(self, distribution: Gaussian) -> jax.Array:
    noise_BZ = batch_axis.normal(self.make_rng("latent"), distribution.mean.shape)
    return distribution.mean + exp_then_line(0.5 * distribution.log_variance) * noise_BZ


def _dense(dtype) -> Callable[..., nn.Dense]:
  # Glorot's uniform weights and zero biases, as in the paper's code.
  return lambda units, **named: nn.Dense(
    units, dtype=dtype, kernel_init=nn.initializers.glorot_uniform(), **named
  )
