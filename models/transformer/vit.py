"""An image is a sequence of patches: the Transformer's encoder as a classifier.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition at
Scale", arXiv:2010.11929, section 3.1, equations 1 to 4.

Differs from the paper: its code also drops out between the two layers of an MLP, here it is the sum
of the embeddings and what every sub-layer adds; pixels are in [0, 1], where theirs are 2x - 1 of
them, the same network with a patch embedding of twice the kernel and its bias less the kernel's
sum. Initial weights and the resizing of positions follow the code that they published.

Axes: B examples, H x W patches of P x P pixels, K channels, N = H W patches, T = 1 + N tokens,
D features, C classes.
"""

import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.attention import Implementation, Places
from models.layers.dropout import Dropout
from models.layers.placement import constrain
from models.layers.transformer import Block, Stack, norm_layer


class Output(NamedTuple):
  """What an image classifier returns.

  Attributes:
    logits: [B, C] float32.
    features: [B, D] float32, of the class token after the last norm: y of equation 4.
  """

  logits: jax.Array
  features: jax.Array


class Model(nn.Module):
  """p(class | image), from a token that reads all patches.

  Attributes:
    data_shape: (height, width, channels) of an image; its sides are multiples of `patch`.
    classes: C.
    patch: P.
    layers: of the encoder.
    features: D.
    heads: of attention.
    mlp_features: inside the MLP; 0 is 4 D.
    head_hidden: units of a tanh layer below the classifier, which the paper has while pre-training;
      0 is none, as in fine-tuning.
    positions: "none" leaves the patches a set.
    epsilon: of the norms.
    dropout: of the embeddings and of what sub-layers add.
    attention_dropout: of attention weights.
    attention: how it is computed; see models/layers/attention.py.
    unroll: blocks in the compiled loop over layers; 0 lets the device decide.
    dtype: of activations.
    remat: recompute each block's activations in the backward pass.
  """

  data_shape: tuple[int, ...]
  classes: Annotated[int, "[2, inf)"]
  patch: Annotated[int, "[1, inf)"] = 16
  layers: Annotated[int, "[1, inf)"] = 12
  features: Annotated[int, "[1, inf)"] = 768
  heads: Annotated[int, "[1, inf)"] = 12
  mlp_features: Annotated[int, "[0, inf)"] = 0
  head_hidden: Annotated[int, "[0, inf)"] = 0
  positions: Literal["learned", "none"] = "learned"
  epsilon: Annotated[float, "(0, inf)"] = 1e-6
  dropout: Annotated[float, "[0, 1)", "traced"] = 0.0
  attention_dropout: Annotated[float, "[0, 1)", "traced"] = 0.0
  attention: Implementation = "auto"
  unroll: Annotated[int, "[0, inf)"] = 0
  dtype: Any = jnp.float32
  remat: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.features % self.heads:
      raise ValueError(f"features={self.features} do not divide into heads={self.heads}")
    if any(side % self.patch for side in self.data_shape[:2]):
      raise ValueError(f"images of {self.data_shape[:2]} do not divide into patch={self.patch}")

  @property
  def grid(self) -> tuple[int, int]:
    """(H, W), the patches of an image."""
    return self.data_shape[0] // self.patch, self.data_shape[1] // self.patch

  def setup(self):
    self.patch_embedding = nn.DenseGeneral(self.features, axis=(-3, -2, -1), dtype=self.dtype)
    self.class_token = self.param("class_token", nn.initializers.zeros, (self.features,))
    if self.positions == "learned":
      self.position_embedding = self.param(
        "position_embedding",
        nn.initializers.normal(0.02),
        (1 + math.prod(self.grid), self.features),
      )
    self.drop = Dropout(self.dropout)
    block = functools.partial(
      Block,
      self.features,
      self.heads,
      self.mlp_features or 4 * self.features,
      activation="gelu",
      epsilon=self.epsilon,
      dropout=self.dropout,
      attention_dropout=self.attention_dropout,
      implementation=self.attention,
      dtype=self.dtype,
    )
    self.encoder_layers = Stack(block, self.layers, remat=self.remat, unroll=self.unroll)
    self.final_norm = norm_layer("layer", self.epsilon, self.dtype)
    if self.head_hidden:
      self.representation = nn.Dense(self.head_hidden, dtype=self.dtype)
    # From zero (section 3.2): at first every class is as likely, and the layers below are left
    # alone until the head has learnt what to ask of them.
    self.head = nn.Dense(self.classes, kernel_init=nn.initializers.zeros, dtype=self.dtype)

  def encode(self, image: jax.Array, *, train: bool = False) -> jax.Array:
    """Features [B, T, D] of the class token and of every patch, row by row, after the last norm."""
    x_BTD = self._embedded(image, train=train)
    where = Places(jnp.arange(x_BTD.shape[1], dtype=jnp.int32)[None])
    return self.final_norm(self.encoder_layers(x_BTD, queries=where, keys=where, train=train))

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    """The class of images [B, height, width, K]."""
    y_BD = h_BD = self.encode(image, train=train)[:, 0]
    if self.head_hidden:
      h_BD = jnp.tanh(self.representation(h_BD))
    return Output(self.head(h_BD).astype(jnp.float32), y_BD.astype(jnp.float32))

  def _embedded(self, image: jax.Array, *, train: bool) -> jax.Array:
    """z_0 [B, T, D] (equation 1)."""
    (H, W), P = self.grid, self.patch
    x_BHPWPK = image.astype(self.dtype).reshape(len(image), H, P, W, P, -1)
    x_BHWD = self.patch_embedding(x_BHPWPK.transpose(0, 1, 3, 2, 4, 5))
    x_BND = x_BHWD.reshape(len(image), H * W, self.features)
    class_D = self.class_token.astype(self.dtype)
    class_B1D = jnp.broadcast_to(class_D, (len(image), 1, self.features))
    x_BTD = jnp.concatenate([class_B1D, x_BND], axis=1)
    if self.positions == "learned":
      x_BTD += self.position_embedding.astype(self.dtype)
    return constrain(self.drop(x_BTD, train=train), "batch", "sequence", "features")

  def adopt(self, fresh: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """`fresh` parameters with those of a model before it, of another resolution perhaps.

    Positions are resized to the new grid. The head is taken over only if all of it fits: one for
    other classes, or that sat on a hidden layer which is no more, is replaced (section 3.2).
    """
    old = dict(before)
    if "position_embedding" in fresh and "position_embedding" in old:
      old["position_embedding"] = resized(old["position_embedding"], self.grid)
    head = ("representation", "head")
    if any((name in fresh) != (name in old) for name in head) or any(
      _shapes(fresh[name]) != _shapes(old[name]) for name in head if name in fresh
    ):
      old = {name: tree for name, tree in old.items() if name not in head}
    return {
      name: old[name] if name in old and _shapes(old[name]) == _shapes(tree) else tree
      for name, tree in fresh.items()
    }


def resized(table_TD: jax.Array, grid: tuple[int, int]) -> jax.Array:
  """Position embeddings [1 + N, D] for another grid of patches; the class token's is kept.

  Bilinear between the old ones, corners on corners, as the paper's code has it (an image has the
  same extent however many patches it is cut into). Others use other kernels.

  Raises:
    ValueError: the old positions are no grid of the new one's shape.
  """
  (H, W), old = grid, len(table_TD) - 1
  height = round(math.sqrt(old * H / W))
  if height * (old // height) != old or height * W != (old // height) * H:
    raise ValueError(f"{old} positions are no grid of the shape of {H} x {W} patches")
  table_HWD = table_TD[1:].reshape(height, old // height, -1)
  rows_Hh, columns_Ww = _corner_to_corner(height, H), _corner_to_corner(old // height, W)
  new_HWD = jnp.einsum("ih,jw,hwd->ijd", rows_Hh, columns_Ww, table_HWD)
  return jnp.concatenate([table_TD[:1], new_HWD.reshape(H * W, -1)])


def _corner_to_corner(old: int, new: int) -> jax.Array:
  """[new, old] the weights of linear interpolation between `old` points."""
  places_N1 = jnp.linspace(0.0, old - 1.0, new)[:, None]
  return jnp.maximum(0.0, 1.0 - jnp.abs(places_N1 - jnp.arange(old, dtype=jnp.float32)))


def _shapes(tree):
  return jax.tree.map(jnp.shape, tree)
