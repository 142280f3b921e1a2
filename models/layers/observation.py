"""Observation models p(x|z): distributions of data x in [0, 1] given a decoder's numbers.

Bernoulli and Gaussian: Kingma & Welling 2013, appendix C. Categorical: van den Oord et al. 2016,
arXiv:1601.06759, section 3.1. Discretised logistic: Salimans et al. 2017, arXiv:1701.05517, eq. 2,
with one component.

Differs from the papers: a learned standard deviation stays above 0.01, since on a pixel that never
changes the likelihood would have no bound; the Gaussian's mean is not squashed to [0, 1].

Axes: B examples, ... dimensions of the data, P parameters of each dimension, L grey levels.
"""

import abc
import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from models.layers import numerics

Name = Literal["bernoulli", "gaussian", "gaussian_fixed", "categorical", "logistic"]

_LEAST_LOG_VARIANCE = 2 * math.log(0.01)


@dataclasses.dataclass(frozen=True)
class Observation(abc.ABC):
  """A distribution of each dimension of x, independent of the others given z.

  Attributes:
    levels: values that x can take, equally spaced from 0 to 1; 0 where it is continuous.
    std: of the Gaussian whose variance is not learned.
  """

  levels: int
  std: float

  @property
  @abc.abstractmethod
  def size(self) -> int:
    """Parameters of one dimension."""

  @property
  def discrete(self) -> bool:
    """Whether -log p(x) is of a probability, so that bits make sense, and not of a density."""
    return False

  @abc.abstractmethod
  def log_prob(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
    """log p(x|z) [B, ...] of every dimension, from parameters [B, ..., P]."""

  @abc.abstractmethod
  def mean(self, parameters: jax.Array) -> jax.Array:
    """E[x|z] [B, ...]."""

  @abc.abstractmethod
  def sample(self, key: jax.Array, parameters: jax.Array) -> jax.Array:
    """One draw [B, ...] of x."""

  def nll(self, parameters: jax.Array, x: jax.Array) -> jax.Array:
    """-log p(x|z) [B] in nats, a sum over dimensions."""
    # As rows: XLA's CPU backend vectorises along the last axis, which for grey images is of one.
    rows = parameters.reshape(len(x), -1, self.size)
    return -self.log_prob(rows, x.reshape(len(x), -1)).sum(-1)


class Bernoulli(Observation):
  """Pixels in {0, 1}; a grey pixel counts as its expectation, a cross-entropy and no likelihood."""

  size = 1

  @property
  def discrete(self) -> bool:
    return self.levels == 2

  def log_prob(self, parameters, x):
    return -numerics.bernoulli_nll(parameters[..., 0], x)

  def mean(self, parameters):
    return jax.nn.sigmoid(parameters[..., 0])

  def sample(self, key, parameters):
    return jax.random.bernoulli(key, self.mean(parameters)).astype(parameters.dtype)


class Gaussian(Observation):
  """N(mean, exp(log variance)), both the decoder's."""

  size = 2

  def _moments(self, parameters):
    mean, raw = parameters[..., 0], parameters[..., 1]
    # A floor without a kink: the gradient fades where a variance would go below it.
    return mean, _LEAST_LOG_VARIANCE + jax.nn.softplus(raw - _LEAST_LOG_VARIANCE)

  def log_prob(self, parameters, x):
    mean, log_variance = self._moments(parameters)
    scaled = jnp.square(x - mean) * jnp.exp(-log_variance)
    return -0.5 * (math.log(2 * math.pi) + log_variance + scaled)

  def mean(self, parameters):
    return parameters[..., 0]

  def sample(self, key, parameters):
    mean, log_variance = self._moments(parameters)
    return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)


class FixedGaussian(Observation):
  """N(mean, std^2) with the decoder's mean."""

  size = 1

  def log_prob(self, parameters, x):
    variance = jnp.square(jnp.asarray(self.std, parameters.dtype))
    scaled = jnp.square(x - parameters[..., 0]) / variance
    return -0.5 * (jnp.log(2 * math.pi * variance) + scaled)

  def mean(self, parameters):
    return parameters[..., 0]

  def sample(self, key, parameters):
    mean = parameters[..., 0]
    return mean + self.std * jax.random.normal(key, mean.shape)


class Categorical(Observation):
  """A softmax over the grey levels."""

  discrete = True

  @property
  def size(self) -> int:
    return self.levels

  def log_prob(self, parameters, x):
    level = jnp.round(x * (self.levels - 1)).astype(jnp.int32)
    return -numerics.categorical_nll(parameters, level)

  def mean(self, parameters):
    return jax.nn.softmax(parameters) @ jnp.linspace(0, 1, self.levels, dtype=parameters.dtype)

  def sample(self, key, parameters):
    return jax.random.categorical(key, parameters).astype(parameters.dtype) / (self.levels - 1)


class Logistic(Observation):
  """A logistic distribution's mass between the middles of neighbouring grey levels."""

  size = 2
  discrete = True

  def _moments(self, parameters):
    return parameters[..., 0], jnp.exp(jnp.clip(parameters[..., 1], -7.0, 7.0))

  def log_prob(self, parameters, x):
    mean, scale = self._moments(parameters)
    half = 0.5 / (self.levels - 1)
    # The difference first, which is exact where mean and x are near: a small scale magnifies it.
    above, below = (x - mean + half) / scale, (x - mean - half) / scale
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)), whose logarithm is finite.
    width = jnp.log(-jnp.expm1(-2 * half / scale))
    inside = -jax.nn.softplus(-above) - jax.nn.softplus(below) + width
    # The first and the last level take the tails.
    inside = jnp.where(x < half, -jax.nn.softplus(-above), inside)
    return jnp.where(x > 1 - half, -jax.nn.softplus(below), inside)

  def mean(self, parameters):
    return jnp.clip(parameters[..., 0], 0.0, 1.0)

  def sample(self, key, parameters):
    mean, scale = self._moments(parameters)
    drawn = mean + scale * jax.random.logistic(key, mean.shape)
    return jnp.round(jnp.clip(drawn, 0, 1) * (self.levels - 1)) / (self.levels - 1)


_KINDS = {
  "bernoulli": Bernoulli,
  "gaussian": Gaussian,
  "gaussian_fixed": FixedGaussian,
  "categorical": Categorical,
  "logistic": Logistic,
}


def of(name: Name, levels: int, std: float = 1.0) -> Observation:
  """The observation model of that name.

  Raises:
    ValueError: it needs discrete data, and `levels` says that the data is not.
  """
  if name in ("categorical", "logistic") and levels < 2:
    raise ValueError(f"likelihood={name!r} is of discrete data, but the data is continuous")
  return _KINDS[name](levels, std)
