"""Convolutions that see only the past of a raster scan, and drawing from what is built of them.

Masked convolutions: van den Oord, Kalchbrenner & Kavukcuoglu 2016, "Pixel recurrent neural
networks", arXiv:1601.06759, section 3.4. Gated layers in two stacks: van den Oord et al. 2016,
"Conditional image generation with PixelCNN decoders", arXiv:1606.05328, equation 2 and figure 2.

Differs from the papers: a convolution is written as one product with the visible neighbours of each
position, since what a mask hides need not be computed; a condition is a map of its own at every
position, of which a vector is the case of one position.

Order: rows from the top, columns from the left, and the channels of a position one after another;
features belong to channels in equal runs, so feature f of F is of channel f * C // F.

Axes: B examples, H rows, W columns, C channels of the data, P parameters of one of them, I features
in, O features out, T visible neighbours ("taps").
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.layers import batch_axis

Taps = tuple[tuple[int, int], ...]  # (row, column) offsets


def channel_mask(inputs: int, outputs: int, channels: int, kind: Literal["A", "B"]) -> np.ndarray:
  """Which features [I, O] of the same position may be seen: of earlier channels, with B the own."""
  of_I, of_O = (np.arange(n) * channels // n for n in (inputs, outputs))
  return (of_I[:, None] < of_O if kind == "A" else of_I[:, None] <= of_O).astype(np.float32)


def convolve(x_BHWI: jax.Array, kernel_TIO: jax.Array, taps: Taps) -> jax.Array:
  """[B, H, W, O]: a convolution with zeros around the map, as one product over the taps."""
  high, wide = (max(abs(tap[axis]) for tap in taps) for axis in (0, 1))
  _, rows, columns, _ = x_BHWI.shape
  padded = jnp.pad(x_BHWI, ((0, 0), (high, high), (wide, wide), (0, 0)))
  seen_BHWTI = jnp.stack(
    [padded[:, high + r : high + r + rows, wide + c : wide + c + columns] for r, c in taps], axis=3
  )
  return jnp.einsum("bhwti,tio->bhwo", seen_BHWTI, kernel_TIO.astype(x_BHWI.dtype))


def _scaled(fan_in: float):
  """Normal weights of variance 1 / fan_in, whatever the shape that hides some of them."""
  return nn.initializers.normal(max(fan_in, 1.0) ** -0.5)


class MaskedConv(nn.Module):
  """A square convolution that sees the rows above and, in its own row, what lies to the left.

  The kernel is stored whole, masked weights included, as the paper counts them.

  Attributes:
    features: O.
    size: of the kernel, odd.
    channels: C.
    kind: A hides the position's own channel too, B shows it.
    dtype: of activations.
  """

  features: int
  size: int
  channels: int
  kind: Literal["A", "B"] = "B"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inputs, half = x.shape[-1], self.size // 2
    grid = [(r, c) for r in range(-half, half + 1) for c in range(-half, half + 1)]
    own = channel_mask(inputs, self.features, self.channels, self.kind)
    # Mask A of a single channel leaves nothing of the centre.
    seen = [tap for tap in grid if tap < (0, 0) or (tap == (0, 0) and own.any())]
    fan_in = inputs * sum(tap < (0, 0) for tap in seen) + own.sum(0).mean()
    shape = (self.size, self.size, inputs, self.features)
    kernel = self.param("kernel", _scaled(fan_in), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    kernel_TIO = kernel.reshape(-1, inputs, self.features)[: len(seen)]
    if own.any():
      kernel_TIO = kernel_TIO.at[-1].multiply(own)
    return convolve(x.astype(self.dtype), kernel_TIO, tuple(seen)) + bias.astype(self.dtype)


class GatedLayer(nn.Module):
  """One layer of the two stacks: y = tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h), eq. 2.

  The vertical stack sees all rows above and nothing else, so it needs no mask among channels and
  leaves no blind spot; the horizontal one sees its own row to the left, and what the vertical one
  found.

  Attributes:
    features: of either stack.
    size: of the vertical kernel, odd.
    channels: C.
    first: the layer that reads the data, which may not see the position itself.
    dtype: of activations.
  """

  features: int
  size: int
  channels: int
  first: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, vertical: jax.Array, horizontal: jax.Array, condition: jax.Array | None
  ) -> tuple[jax.Array, jax.Array]:
    """Both stacks [B, H, W, O], from [B, H, W, I] and a condition [B or 1, H or 1, W or 1, F]."""
    half, twice = self.size // 2, 2 * self.features
    dense = lambda name, bias: nn.Dense(twice, use_bias=bias, dtype=self.dtype, name=name)  # noqa: E731
    # After the first layer a row's vertical features know the rows above it, so it may be seen.
    rows = range(-half, 0 if self.first else 1)
    above = self._taps("vertical", vertical, [(r, c) for r in rows for c in range(-half, half + 1)])
    left = self._row(horizontal)
    if condition is not None:
      condition = condition.astype(self.dtype)
      above = above + dense("condition_vertical", False)(condition)
      left = left + dense("condition_horizontal", False)(condition)
    left = left + dense("across", True)(above)
    mixed = MaskedConv(self.features, 1, self.channels, dtype=self.dtype, name="out")(_gate(left))
    # The data is no feature to add to: it would show the position to itself.
    return _gate(above), mixed if self.first else mixed + horizontal

  def _row(self, x: jax.Array) -> jax.Array:
    """The horizontal stack's own convolution."""
    kind = "A" if self.first else "B"
    own = channel_mask(x.shape[-1], self.features, self.channels, kind)
    own = np.concatenate([own, own], axis=1)  # of tanh and of sigmoid
    taps = [(0, c) for c in range(-(self.size // 2), 1 if own.any() else 0)]
    return self._taps("horizontal", x, taps, own if own.any() else None)

  def _taps(self, name: str, x: jax.Array, taps, own=None) -> jax.Array:
    inputs, outputs = x.shape[-1], 2 * self.features
    kernel_TIO = self.param(
      f"{name}_kernel", _scaled(inputs * len(taps)), (len(taps), inputs, outputs)
    )
    bias = self.param(f"{name}_bias", nn.initializers.zeros, (outputs,))
    if own is not None:
      kernel_TIO = kernel_TIO.at[-1].multiply(own)
    return convolve(x.astype(self.dtype), kernel_TIO, tuple(taps)) + bias.astype(self.dtype)


def _gate(x: jax.Array) -> jax.Array:
  filtered, gate = jnp.split(x, 2, axis=-1)
  return jnp.tanh(filtered) * nn.sigmoid(gate)


class GatedPixelCNN(nn.Module):
  """Gated layers and a head of two masked 1x1 convolutions.

  Attributes:
    channels: C.
    parameters: P.
    features: of either stack.
    layers: gated ones.
    first_size: of the first layer's kernel.
    size: of the others'.
    head: features of the layer before the output.
    dtype: of activations.
  """

  channels: int
  parameters: int
  features: int
  layers: int
  first_size: int
  size: int
  head: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
    """Parameters [B, H, W, C, P] from the data's features [B, H, W, I], in float32."""
    vertical = horizontal = x
    for i in range(self.layers):
      vertical, horizontal = GatedLayer(
        self.features,
        self.size if i else self.first_size,
        self.channels,
        first=i == 0,
        dtype=self.dtype,
        name=f"layer_{i}",
      )(vertical, horizontal, condition)
    one = lambda n, name: MaskedConv(n, 1, self.channels, dtype=self.dtype, name=name)  # noqa: E731
    y = one(self.head, "head")(nn.relu(horizontal))
    y = one(self.channels * self.parameters, "output")(nn.relu(y)).astype(jnp.float32)
    return y.reshape(*x.shape[:3], self.channels, self.parameters)


def ancestral(
  network: Callable[[jax.Array], jax.Array],
  draw: Callable[[jax.Array, jax.Array], jax.Array],
  start: jax.Array,
  key: jax.Array,
  *,
  known: int = 0,
) -> jax.Array:
  """Draws [B, H, W, C] position by position, each given those before it.

  Every position runs the whole network: as many runs as there are positions, whatever the batch.

  Args:
    network: parameters [B, H, W, C, P] of maps.
    draw: one value from a key and parameters [P].
    start: [B, H, W, C], of which the first `known` positions are kept.
    key: an example's draws are a function of it and of the example's place.
    known: in raster order, channels counted.
  """
  keys_B = batch_axis.keys(key, len(start))

  def put(i, x_BN):
    parameters = network(x_BN.reshape(start.shape)).reshape(*x_BN.shape, -1)[:, i]
    own_B = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, i)
    return x_BN.at[:, i].set(jax.vmap(draw)(own_B, parameters).astype(x_BN.dtype))

  flat = start.reshape(len(start), -1)
  return jax.lax.fori_loop(known, flat.shape[1], put, flat).reshape(start.shape)
