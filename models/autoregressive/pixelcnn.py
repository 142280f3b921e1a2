"""PixelCNN.

van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural networks",
arXiv:1601.06759, sections 3.1 to 3.6 and table 1: a 7x7 convolution of mask A, residual blocks of
mask B, two 1x1 layers and the output.

Differs from the paper: nothing in the network as we read it; the layout of the last layers follows
the text, which leaves room. What the stack of masks never sees, a wedge above and to the right, is
the paper's own (models/autoregressive/gated_pixelcnn.py mends it).

Beyond the family's axes: F features, twice those inside a block.
"""

from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.autoregressive import Output
from models.layers import observation
from models.layers.pixelcnn import MaskedConv, ancestral


class Block(nn.Module):
  """ReLU, 1x1 to half the features, 3x3, 1x1 back, added to what came in (figure 5, left).

  Attributes:
    features: h, half of those between blocks.
    channels: C.
    dtype: of activations.
  """

  features: int
  channels: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = lambda features, size: MaskedConv(features, size, self.channels, dtype=self.dtype)  # noqa: E731
    y = conv(self.features, 1)(nn.relu(x))
    y = conv(self.features, 3)(nn.relu(y))
    return x + conv(2 * self.features, 1)(nn.relu(y))


class Model(nn.Module):
  """p(x) = prod_i p(x_i | x_1, ..., x_{i-1}), eq. 1, by masked convolutions.

  Attributes:
    data_shape: (H, W, C).
    features: h; between blocks there are 2h.
    blocks: residual ones.
    head: features of the two layers before the output.
    likelihood: "bernoulli" of binary pixels, "categorical" over the grey levels.
    levels: grey levels of the data.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  features: Annotated[int, "[1, inf)"] = 128
  blocks: Annotated[int, "[1, 1000]"] = 15
  head: Annotated[int, "[1, inf)"] = 1024
  likelihood: Literal["bernoulli", "categorical"] = "bernoulli"
  levels: int = 0
  dtype: Any = jnp.float32

  @property
  def observation(self) -> observation.Observation:
    return observation.of(self.likelihood, self.levels)

  def setup(self):
    channels = self.data_shape[-1]
    conv = lambda *args, **kwargs: MaskedConv(*args, channels, dtype=self.dtype, **kwargs)  # noqa: E731
    self.stem = conv(2 * self.features, 7, kind="A")
    self.block = [Block(self.features, channels, self.dtype) for _ in range(self.blocks)]
    self.head_0, self.head_1 = conv(self.head, 1), conv(self.head, 1)
    self.output = conv(channels * self.observation.size, 1)

  def __call__(self, image: jax.Array) -> Output:
    x = self.stem(image)
    for block in self.block:
      x = block(x)
    x = self.head_1(nn.relu(self.head_0(nn.relu(x))))
    x = self.output(nn.relu(x)).astype(jnp.float32)
    return Output(x.reshape(*image.shape, self.observation.size))

  def complete(self, image: jax.Array, *, known: int) -> jax.Array:
    """Images [B, H, W, C] whose first `known` values are those given and the others drawn."""
    net, variables = self.unbind()
    network = lambda x: net.apply(variables, x).parameters  # noqa: E731
    key = self.make_rng("latent")
    return ancestral(network, self.observation.sample, image, key, known=known)

  def sample(self, *, examples: int) -> jax.Array:
    """Draws [B, H, W, C] from the model."""
    return self.complete(jnp.zeros((examples, *self.data_shape)), known=0)
