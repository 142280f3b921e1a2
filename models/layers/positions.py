"""How a Transformer knows where a token stands: sinusoids, rotations, biases by distance.

Axes: B examples, T queries, S keys, H heads, D features.
"""

from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Pairing = Literal["pairs", "halves"]


def sinusoids(
  positions_BT: jax.Array,
  features: int,
  *,
  layout: Literal["interleaved", "concatenated"] = "interleaved",
) -> jax.Array:
  """[B, T, features] of Vaswani et al. 2017, section 3.5: wavelengths from 2 pi to 10000 * 2 pi.

  Args:
    positions_BT: the places; padding (-1) gets some place, which nothing looks at.
    features: how many, an even number.
    layout: sines and cosines in turn as in the paper, or all sines and then all cosines as in
      tensor2tensor, fairseq and Marian.
  """
  frequency = 10_000.0 ** (-np.arange(0, features, 2) / features)
  angle = positions_BT[..., None].astype(jnp.float32) * jnp.asarray(frequency, jnp.float32)
  waves = jnp.sin(angle), jnp.cos(angle)
  if layout == "concatenated":
    return jnp.concatenate(waves, axis=-1)
  return jnp.stack(waves, axis=-1).reshape(*positions_BT.shape, features)


def rotate(
  x_BTHD: jax.Array, positions_BT: jax.Array, *, base: float = 10_000.0, pairing: Pairing = "pairs"
) -> jax.Array:
  """Rotary position embedding (Su et al. 2021, arXiv:2104.09864, equations 14 and 15).

  The dot product of a rotated query and a rotated key depends on the distance of their positions.

  Args:
    x_BTHD: queries or keys, D even.
    positions_BT: their places.
    base: of the geometric sequence of angles.
    pairing: which features are the two coordinates of a rotation: neighbours (2i, 2i+1) as in the
      paper and in Meta's LLaMA, or (i, i + D/2) as in GPT-NeoX and Hugging Face's LLaMA.
  """
  features = x_BTHD.shape[-1]
  frequency = jnp.asarray(base ** (-np.arange(0, features, 2) / features), jnp.float32)
  angle_BT1D = positions_BT[..., None, None].astype(jnp.float32) * frequency
  cosine, sine = jnp.cos(angle_BT1D), jnp.sin(angle_BT1D)
  x = x_BTHD.astype(jnp.float32)
  if pairing == "pairs":
    a, b = x[..., 0::2], x[..., 1::2]
    turned = jnp.stack([a * cosine - b * sine, a * sine + b * cosine], axis=-1).reshape(x.shape)
  else:
    a, b = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([a * cosine - b * sine, a * sine + b * cosine], axis=-1)
  return turned.astype(x_BTHD.dtype)


def buckets(
  distance: jax.Array, *, bidirectional: bool, count: int = 32, furthest: int = 128
) -> jax.Array:
  """T5's buckets of distances (Raffel et al. 2020, section 2.1), int32 in [0, count).

  Half of a direction's buckets hold one distance each, the others grow geometrically up to
  `furthest`, beyond which all share the last.

  Args:
    distance: position of the key minus position of the query.
    bidirectional: keys behind and ahead have buckets of their own; else keys ahead count as near.
    count: of buckets, of both directions together.
    furthest: the distance at which the last bucket begins.
  """
  first = jnp.zeros_like(distance)
  if bidirectional:
    count //= 2
    first = jnp.where(distance > 0, count, 0)
    distance = jnp.abs(distance)
  else:
    distance = jnp.maximum(-distance, 0)
  exact = count // 2
  ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / np.log(furthest / exact)
  far = exact + (ratio * (count - exact)).astype(jnp.int32)
  return first + jnp.where(distance < exact, distance, jnp.minimum(far, count - 1))


class RelativeBias(nn.Module):
  """A learned number for each bucket and head, added to attention logits (T5).

  Attributes:
    heads: of the attention.
    bidirectional: whether queries see keys ahead of them.
    buckets: see `buckets`.
    furthest: see `buckets`.
    init_std: of the numbers at the start.
    dtype: of the result.
  """

  heads: Annotated[int, "[1, inf)"]
  bidirectional: bool
  buckets: Annotated[int, "[4, inf)"] = 32
  furthest: Annotated[int, "[8, inf)"] = 128
  init_std: Annotated[float, "(0, inf)"] = 0.02
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, queries_BT: jax.Array, keys_BS: jax.Array) -> jax.Array:
    """[B, H, T, S] from positions."""
    table_NH = self.param("bias", nn.initializers.normal(self.init_std), (self.buckets, self.heads))
    found_BTS = buckets(
      keys_BS[:, None, :] - queries_BT[:, :, None],
      bidirectional=self.bidirectional,
      count=self.buckets,
      furthest=self.furthest,
    )
    return jnp.moveaxis(table_NH[found_BTS], -1, 1).astype(self.dtype)
