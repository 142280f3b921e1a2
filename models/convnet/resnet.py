"""Residual network for small images.

He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", arXiv:1512.03385,
section 4.2: a 3x3 convolution, three stages of `blocks` residual blocks at full, half and quarter
resolution, global average pooling, 6 * blocks + 2 weight layers. Shortcuts are option A: identity,
strided, new features padded with zeros.

Differs from the paper: nothing; `residual=False` is its plain network.
"""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.convnet import Output
from models.layers.norm import BatchNorm


class Block(nn.Module):
  """Two 3x3 convolutions, each normalised, and a shortcut (figure 2)."""

  features: int
  stride: int
  residual: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    y = _convolution(self.features, self.stride, self.dtype, "conv_0")(x)
    y = nn.relu(BatchNorm(dtype=self.dtype, name="norm_0")(y, train=train))
    y = _convolution(self.features, 1, self.dtype, "conv_1")(y)
    y = BatchNorm(dtype=self.dtype, name="norm_1")(y, train=train)
    if self.residual:
      shortcut = x[:, :: self.stride, :: self.stride]
      added = self.features - x.shape[-1]
      y += jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (added // 2, added - added // 2)))
    return nn.relu(y)


class Model(nn.Module):
  """ResNet-(6 * blocks + 2).

  Attributes:
    data_shape: (height, width, channels).
    classes: of the classifier.
    blocks: residual blocks a stage (the paper's n).
    widths: features of the three stages.
    residual: False removes the shortcuts.
    remat: recompute each block's activations in the backward pass.
    dtype: of activations.
  """

  data_shape: tuple[int, ...]
  classes: Annotated[int, "[2, inf)"]
  blocks: Annotated[int, "[1, 1000]"] = 3
  widths: tuple[Annotated[int, "[1, inf)"], ...] = (16, 32, 64)
  residual: bool = True
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
    x = _convolution(self.widths[0], 1, self.dtype, "stem")(image.astype(self.dtype))
    x = nn.relu(BatchNorm(dtype=self.dtype, name="stem_norm")(x, train=train))
    for stage, features in enumerate(self.widths):
      for i in range(self.blocks):
        stride = 2 if stage > 0 and i == 0 else 1
        x = block(features, stride, self.residual, self.dtype, name=f"stage_{stage}_block_{i}")(
          x, train
        )
    features_BF = x.mean((1, 2))
    logits_BC = nn.Dense(self.classes, dtype=self.dtype, name="top")(features_BF)
    return Output(logits_BC.astype(jnp.float32), features_BF.astype(jnp.float32))


def _convolution(features: int, stride: int, dtype, name: str) -> nn.Conv:
  # He et al. 2015; no bias, since the normalisation that follows has one. Padded by one all round:
  # "SAME" would pad a strided convolution of an even size on one side only.
  return nn.Conv(
    features,
    (3, 3),
    stride,
    padding=((1, 1), (1, 1)),
    use_bias=False,
    dtype=dtype,
    kernel_init=nn.initializers.he_normal(),
    name=name,
  )
