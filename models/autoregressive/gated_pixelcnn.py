"""Gated PixelCNN.

van den Oord et al. 2016, "Conditional image generation with PixelCNN decoders", arXiv:1606.05328,
section 2: a vertical stack that sees all rows above, a horizontal one that sees its own row, and
gates of tanh and sigmoid.

Differs from the paper: unconditional; the widths are the experiment's, since the paper's appendix
gives few of them.
"""

from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.autoregressive import Output
from models.layers import observation, pixelcnn


class Model(nn.Module):
  """p(x) = prod_i p(x_i | x_1, ..., x_{i-1}) without a blind spot.

  Attributes:
    data_shape: (H, W, C).
    features: of either stack.
    layers: gated ones.
    first_size: of the first layer's kernel.
    size: of the other layers'.
    head: features of the layer before the output.
    likelihood: "bernoulli" of binary pixels, "categorical" over the grey levels.
    levels: grey levels of the data.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  features: Annotated[int, "[1, inf)"] = 128
  layers: Annotated[int, "[1, 1000]"] = 15
  first_size: Literal[3, 5, 7, 9] = 7
  size: Literal[3, 5, 7, 9] = 5
  head: Annotated[int, "[1, inf)"] = 512
  likelihood: Literal["bernoulli", "categorical"] = "bernoulli"
  levels: int = 0
  dtype: Any = jnp.float32

  @property
  def observation(self) -> observation.Observation:
    return observation.of(self.likelihood, self.levels)

  def setup(self):
    self.stacks = pixelcnn.GatedPixelCNN(
      self.data_shape[-1],
      self.observation.size,
      self.features,
      self.layers,
      first_size=self.first_size,
      size=self.size,
      head=self.head,
      dtype=self.dtype,
    )

  def __call__(self, image: jax.Array) -> Output:
    return Output(self.stacks(image))

  def complete(self, image: jax.Array, *, known: int) -> jax.Array:
    """Images [B, H, W, C] whose first `known` values are those given and the others drawn."""
    net, variables = self.unbind()
    network = lambda x: net.apply(variables, x).parameters  # noqa: E731
    key = self.make_rng("latent")
    return pixelcnn.ancestral(network, self.observation.sample, image, key, known=known)

  def sample(self, *, examples: int) -> jax.Array:
    """Draws [B, H, W, C] from the model."""
    return self.complete(jnp.zeros((examples, *self.data_shape)), known=0)
