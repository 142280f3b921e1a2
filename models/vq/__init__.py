"""Autoencoders with discrete codes, and priors over the codes.

Every model has two groups of parameters: `codec` (encoder, codebooks, decoder), which is trained
first, and `prior`, trained on the codes of the finished codec, absent where `prior_layers` is 0.

Axes, in every file of this family: B examples, H rows and W columns of a map of codes, G codes at
one position of it, D dimensions of a code, K codes of a codebook, F features, P parameters of one
dimension of p(x|z). Maps of codes are [B, H, W, G], the one next to the data first.
"""

from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import observation, quantize
from models.layers.pixelcnn import GatedPixelCNN, ancestral

Maps = tuple[jax.Array, ...]  # [B, H, W, G] int32 each, the one next to the data first


class Output(NamedTuple):
  """What every model returns, whatever its networks."""

  parameters: jax.Array  # [B, *data, P]  of p(x|z)
  levels: tuple[quantize.Quantized, ...]  # the one next to the data first


def shrunk(data_shape: tuple[int, ...], halvings: int) -> tuple[int, ...]:
  """(H, W, C) with both sides halved so many times.

  Raises:
    ValueError: a side that is odd would come back from the decoder one larger.
  """
  rows, columns, channels = data_shape
  if rows % 2**halvings or columns % 2**halvings:
    raise ValueError(f"{rows}x{columns} pixels cannot be halved {halvings} times")
  return rows >> halvings, columns >> halvings, channels


class MapPrior(nn.Module):
  """p(codes of one map | codes of the map above it): a Gated PixelCNN over the map.

  Attributes:
    shape: (H, W, G).
    codes: K.
    features: F.
    layers: gated ones.
    dtype: of activations.
  """

  shape: tuple[int, int, int]
  codes: int
  features: int
  layers: int
  dtype: Any

  @nn.compact
  def __call__(self, map_: jax.Array, above: jax.Array | None) -> jax.Array:
    """Logits [B, H, W, G, K] of every code given those before it and all of the map above."""
    embed = lambda name: nn.Embed(self.codes, self.features, dtype=self.dtype, name=name)  # noqa: E731
    flat = lambda x: x.reshape(*x.shape[:3], -1)  # noqa: E731
    # A code map need not be stationary, least of all one that an MLP made.
    place = self.param("place", nn.initializers.normal(0.1), (*self.shape[:2], self.features))
    condition = place[None].astype(self.dtype)
    if above is not None:
      x = flat(embed("embed_above")(above))
      x = nn.Conv(self.features, (3, 3), dtype=self.dtype, name="above_0")(x)
      x = nn.Conv(self.features, (3, 3), dtype=self.dtype, name="above_1")(nn.relu(x))
      for axis in (1, 2):
        x = jnp.repeat(x, self.shape[axis - 1] // x.shape[axis], axis)
      condition = condition + x
    stacks = GatedPixelCNN(
      self.shape[2],
      self.codes,
      self.features,
      self.layers,
      first_size=5,
      size=3,
      head=self.features,
      dtype=self.dtype,
      name="stacks",
    )
    return stacks(flat(embed("embed")(map_)), condition)


class Prior(nn.Module):
  """p(codes) = p(top map) p(next map | top map) ...

  Attributes:
    maps: shapes (H, W, G), the one next to the data first.
    codes: K.
    features: F.
    layers: gated ones of each map.
    dtype: of activations.
  """

  maps: tuple[tuple[int, int, int], ...]
  codes: int
  features: int
  layers: int
  dtype: Any

  def setup(self):
    self.map = [
      MapPrior(shape, self.codes, self.features, self.layers, self.dtype) for shape in self.maps
    ]

  def __call__(self, maps: Maps) -> tuple[jax.Array, ...]:
    """Logits [B, H, W, G, K] of every map."""
    above = (*maps[1:], None)
    return tuple(prior(x, y) for prior, x, y in zip(self.map, maps, above, strict=True))

  def sample(self, examples: int, key: jax.Array) -> Maps:
    """Draws of all maps, from the top down."""
    drawn, above = [], None
    for i in reversed(range(len(self.maps))):
      net, variables = self.map[i].unbind()
      start = jnp.zeros((examples, *self.maps[i]), jnp.int32)
      above = ancestral(
        lambda x, net=net, variables=variables, above=above: net.apply(variables, x, above),
        jax.random.categorical,
        start,
        jax.random.fold_in(key, i),
      )
      drawn.append(above)
    return tuple(reversed(drawn))


class Coder(nn.Module):
  """What a model of this family does with its `codec` and its `prior`, which `setup` makes.

  Attributes:
    data_shape: of one example.
    quantizer: a codebook of moving averages ("ema"), one learned by gradient, a grid ("fsq"), none.
    codes: K of a codebook.
    code_features: D of a codebook.
    fsq_levels: the grid of "fsq", with prod(fsq_levels) codes of len(fsq_levels) dimensions.
    decay: of the moving averages.
    revive: see `models.layers.quantize.VectorQuantizer`.
    prior_layers: gated layers of the prior of each map; 0 for no prior.
    prior_features: F of the prior.
    likelihood: p(x|z).
    levels: grey levels of the data.
    observation_std: of "gaussian_fixed".
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  quantizer: quantize.Kind = "ema"
  codes: Annotated[int, "[2, inf)"] = 512
  code_features: Annotated[int, "[1, inf)"] = 64
  fsq_levels: tuple[Annotated[int, "[2, inf)"], ...] = (8, 5, 5, 5)
  decay: Annotated[float, "[0, 1)"] = 0.99
  revive: Annotated[float, "[0, inf)"] = 0.0
  prior_layers: Annotated[int, "[0, 1000]"] = 0
  prior_features: Annotated[int, "[1, inf)"] = 64
  likelihood: observation.Name = "gaussian_fixed"
  levels: int = 0
  observation_std: Annotated[float, "(0, inf)"] = 1.0
  dtype: Any = jnp.float32

  @property
  def observation(self) -> observation.Observation:
    return observation.of(self.likelihood, self.levels, self.observation_std)

  @property
  def size(self) -> int:
    """How many codes there are, K of a codebook or of the grid."""
    return quantize.size(self.quantizer, codes=self.codes, levels=self.fsq_levels)

  @property
  def maps(self) -> tuple[tuple[int, int, int], ...]:
    """Shapes (H, W, G) of the code maps, the one next to the data first."""
    raise NotImplementedError

  def quantizers(self) -> list[nn.Module]:
    """A quantiser for each map."""
    return [
      quantize.of(
        self.quantizer,
        codes=self.codes,
        features=self.code_features,
        levels=self.fsq_levels,
        decay=self.decay,
        revive=self.revive,
      )
      for _ in self.maps
    ]

  def make_prior(self) -> nn.Module | None:
    """The prior, where there is one."""
    if not self.prior_layers:
      return None
    return Prior(self.maps, self.size, self.prior_features, self.prior_layers, self.dtype)

  def __call__(self, image: jax.Array, *, train: bool = False, mask=None) -> Output:
    mask_B = jnp.ones(len(image)) if mask is None else mask
    levels = self.codec.encode(image, train=train, mask_B=mask_B)
    if self.is_initializing() and self.prior is not None:
      self.prior(tuple(level.indices for level in levels))
    return Output(self._parameters([level.straight for level in levels]), levels)

  def _parameters(self, codes) -> jax.Array:
    flat = self.codec.decode(codes).astype(jnp.float32)
    return flat.reshape(-1, *self.data_shape, self.observation.size)

  def indices(self, image: jax.Array) -> Maps:
    """The codes of images."""
    mask_B = jnp.ones(len(image))
    return tuple(q.indices for q in self.codec.encode(image, train=False, mask_B=mask_B))

  def decode(self, maps: Maps) -> jax.Array:
    """Parameters [B, *data, P] of p(x|z) of codes."""
    return self._parameters(self.codec.lookup(maps))

  def reconstruct(self, image: jax.Array) -> jax.Array:
    """E[x|z] [B, *data] of the codes of images."""
    return self.observation.mean(self(image).parameters)

  def log_prior(self, image: jax.Array) -> tuple[jax.Array, ...]:
    """log p(codes) [B] of each map of images' codes, the codes taken as they are."""
    maps = jax.lax.stop_gradient(self.indices(image))
    found = []
    for map_, logits in zip(maps, self.prior(maps), strict=True):
      log_p = jax.nn.log_softmax(logits)
      own = jnp.take_along_axis(log_p, map_[..., None], axis=-1)[..., 0]
      found.append(own.reshape(len(image), -1).sum(-1))
    return tuple(found)

  def sample(self, *, examples: int, uniform: bool = False) -> jax.Array:
    """E[x|z] [B, *data] of codes drawn from the prior, or uniformly."""
    key = self.make_rng("latent")
    if uniform:
      maps = tuple(
        jax.random.randint(jax.random.fold_in(key, i), (examples, *shape), 0, self.size)
        for i, shape in enumerate(self.maps)
      )
    else:
      maps = self.prior.sample(examples, key)
    return self.observation.mean(self.decode(maps))
