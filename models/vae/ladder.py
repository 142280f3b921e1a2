"""Ladder variational autoencoder.

Sonderby, Raiko, Maaloe, Sonderby & Winther 2016, "Ladder variational autoencoders",
arXiv:1602.02282, section 2: a deterministic pass upwards, d_l = MLP(d_(l-1)) with d_0 = x, gives an
approximate Gaussian likelihood of every layer; the pass downwards shares the generative model's
conditionals, and its posteriors are the products of the two, weighted by precision (eq. 12 to 14).

Every MLP has two layers of leaky rectifiers with slope 0.1, batch-normalised where `batch_norm`
says so.

Differs from the paper: a variance is softplus + 1e-6, so that its logarithm is finite; batch
normalisation is of hidden layers alone, not of the Gaussians' heads.
"""

import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis, observation
from models.layers.norm import BatchNorm
from models.vae import Gaussian, Layer, Output, standard

_LEAST_VARIANCE = 1e-6


class Hidden(nn.Module):
  """Two layers of leaky rectifiers, each batch-normalised or not.

  Attributes:
    units: of either layer.
    batch_norm: whether to normalise before the rectifiers.
    dtype: of activations.
  """

  units: int
  batch_norm: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    for i in range(2):
      # A bias before a normalisation would do nothing.
      x = nn.Dense(
        self.units,
        use_bias=not self.batch_norm,
        dtype=self.dtype,
        kernel_init=nn.initializers.he_normal(),
        name=f"dense_{i}",
      )(x)
      if self.batch_norm:
        x = BatchNorm(dtype=self.dtype, name=f"norm_{i}")(x, train=train)
      x = nn.leaky_relu(x, 0.1)
    return x


class Heads(nn.Module):
  """A diagonal Gaussian given hidden units: linear mean, softplus variance.

  Attributes:
    latents: dimensions.
    dtype: of activations.
  """

  latents: int
  dtype: Any

  @nn.compact
  def __call__(self, h_BH: jax.Array) -> Gaussian:
    mean_BZ, raw_BZ = (
      nn.Dense(self.latents, dtype=self.dtype, name=name)(h_BH).astype(jnp.float32)
      for name in ("mean", "variance")
    )
    return Gaussian(mean_BZ, jnp.log(jax.nn.softplus(raw_BZ) + _LEAST_VARIANCE))


class Model(nn.Module):
  """p(x, z) = p(z_L) ... p(z_1|z_2) p(x|z_1), q(z|x) = q(z_L|x) ... q(z_1|z_2, x).

  Attributes:
    data_shape: of one example.
    levels: grey levels of the data; 0 where it is continuous.
    hidden: units of the MLPs below each stochastic layer, from the data up.
    latents: dimensions of each stochastic layer, from the data up.
    batch_norm: whether hidden layers are batch-normalised.
    likelihood: the observation model p(x|z).
    observation_std: of the Gaussian whose variance is not learned.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  levels: Annotated[int, "[0, inf)"] = 0
  hidden: tuple[Annotated[int, "[1, inf)"], ...] = (512, 256, 128, 64, 32)
  latents: tuple[Annotated[int, "[1, inf)"], ...] = (64, 32, 16, 8, 4)
  batch_norm: bool = True
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

  def setup(self):
    mlp = lambda units: Hidden(units, self.batch_norm, self.dtype)  # noqa: E731
    self.up = [mlp(units) for units in self.hidden]
    self.up_heads = [Heads(latents, self.dtype) for latents in self.latents]
    # down[0] leads to the data, down[l] to the latents of layer l, counted from 0.
    self.down = [mlp(units) for units in self.hidden]
    self.down_heads = [Heads(latents, self.dtype) for latents in self.latents[:-1]]
    self.output = nn.Dense(math.prod(self.data_shape) * self.observation.size, dtype=self.dtype)

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    layers = self._infer(image, train=train)
    return Output(self.decode(layers[0].latent, train=train), layers)

  def encode(self, image: jax.Array) -> Gaussian:
    """q(z_1|z_2, x) at one sample of the layers above."""
    return self._infer(image, train=False)[0].posterior

  def decode(self, z_BZ: jax.Array, *, train: bool = False) -> jax.Array:
    """Parameters [B, *data, P] of p(x|z_1), in float32."""
    out = self.output(self.down[0](z_BZ, train=train)).astype(jnp.float32)
    return out.reshape(-1, *self.data_shape, self.observation.size)

  def prior(self, examples: int) -> jax.Array:
    """Draws of z_1 [examples, Z] from the top down."""
    z_BZ = batch_axis.normal(self.make_rng("latent"), (examples, self.latents[-1]))
    for i in reversed(range(len(self.latents) - 1)):
      z_BZ = self._draw(self._below(z_BZ, i, train=False))
    return z_BZ

  def _infer(self, image: jax.Array, *, train: bool) -> tuple[Layer, ...]:
    """Up without noise, then down with it."""
    d_BH, found = image.reshape(len(image), -1), []
    for mlp, heads in zip(self.up, self.up_heads, strict=True):
      d_BH = mlp(d_BH, train=train)
      found.append(heads(d_BH))
    # The topmost posterior is the upward pass's own.
    z_BZ = self._draw(found[-1])
    layers = [Layer(found[-1], standard(z_BZ), z_BZ)]
    for i in reversed(range(len(self.latents) - 1)):
      prior = self._below(z_BZ, i, train=train)
      posterior = combined(found[i], prior)
      z_BZ = self._draw(posterior)
      layers.insert(0, Layer(posterior, prior, z_BZ))
    return tuple(layers)

  def _below(self, z_BZ: jax.Array, i: int, *, train: bool) -> Gaussian:
    """p(z_i|z_(i+1)), layers counted from 0."""
    return self.down_heads[i](self.down[i + 1](z_BZ, train=train))

  def _draw(self, distribution: Gaussian) -> jax.Array:
    noise_BZ = batch_axis.normal(self.make_rng("latent"), distribution.mean.shape)
    return distribution.mean + jnp.exp(0.5 * distribution.log_variance) * noise_BZ


def combined(a: Gaussian, b: Gaussian) -> Gaussian:
  """The product of two Gaussian densities, normalised: means weighted by precision (eq. 13, 14)."""
  # Weights from the difference of logarithms: precisions themselves may overflow.
  weight = jax.nn.sigmoid(b.log_variance - a.log_variance)
  mean = weight * a.mean + (1 - weight) * b.mean
  log_variance = -jnp.logaddexp(-a.log_variance, -b.log_variance)
  return Gaussian(mean, log_variance)
