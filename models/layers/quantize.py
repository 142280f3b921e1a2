"""Quantisers: a vector becomes one of finitely many, and gradients pass as if it had not.

Vector quantisation: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural discrete representation
learning", arXiv:1711.00937: equation 2, and appendix A.1 for the codebook of moving averages, which
that paper describes and did not use. Finite scalar quantisation: Mentzer et al. 2023, "Finite
scalar quantization: VQ-VAE made simple", arXiv:2309.15505, section 3 and appendix A.

Differs from the papers: a code of the moving averages that is hardly ever chosen may start again at
an encoder output of the batch, as in Dhariwal et al. 2020, arXiv:2005.00341, section 3.1.

Axes: B examples, ... positions, D dimensions of a code, K codes, N vectors of a batch.
"""

import math
from typing import Annotated, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import batch_axis

Kind = Literal["ema", "gradient", "fsq", "none"]


class Quantized(NamedTuple):
  """What a quantiser makes of vectors."""

  encoded: jax.Array  # [B, ..., D]  what came in
  codes: jax.Array  # [B, ..., D]  the nearest codes; their gradient is the codebook's alone
  straight: jax.Array  # [B, ..., D]  the codes, with the gradient of what came in
  indices: jax.Array | None  # [B, ...] int32; None where nothing was quantised


def straight_through(x: jax.Array, y: jax.Array) -> jax.Array:
  """The value of `y` with the gradient of `x`."""
  # Not x + (y - x), which has the rounding of x: of a code of 0.01, none of it where x is 1e4.
  return jax.lax.stop_gradient(y) + (x - jax.lax.stop_gradient(x))


def nearest(x: jax.Array, codebook_KD: jax.Array) -> jax.Array:
  """int32 indices [B, ...] of the codes nearest to [B, ..., D], in float32."""
  # |x - e|^2 without |x|^2, which is the same for every code. Half precision would tie codes.
  x, codebook_KD = x.astype(jnp.float32), codebook_KD.astype(jnp.float32)
  distance = jnp.square(codebook_KD).sum(-1) - 2 * jnp.einsum("...d,kd->...k", x, codebook_KD)
  return jnp.argmin(distance, axis=-1).astype(jnp.int32)


def counts(indices: jax.Array, mask_B: jax.Array, codes: int) -> jax.Array:
  """How often [codes] each code was chosen in the global batch, by examples whose mask is one."""
  mask = jnp.broadcast_to(mask_B.reshape(-1, *[1] * (indices.ndim - 1)), indices.shape)
  own_K = jnp.zeros(codes, jnp.float32).at[indices.ravel()].add(mask.ravel().astype(jnp.float32))
  return batch_axis.total(own_K)


def perplexity(counts_K: jax.Array) -> jax.Array:
  """exp of the entropy of the codes: as many codes, chosen equally often, would say as much."""
  p_K = counts_K / jnp.maximum(counts_K.sum(), 1.0)
  return jnp.exp(jax.scipy.special.entr(p_K).sum())


class VectorQuantizer(nn.Module):
  """The nearest of K codes, learned by gradient or as moving averages of what chose them.

  The moving averages live in the collection "codebook" and change only while training, by sums over
  the global batch, so that one device and many agree.

  Attributes:
    codes: K.
    features: D.
    kind: how the codebook is learned.
    decay: of the moving averages.
    epsilon: of their Laplace smoothing.
    revive: a code that is chosen less often than so many times a batch on average starts again at
      an encoder output drawn from the batch; 0 for never. Of the moving averages only.
  """

  codes: int
  features: int
  kind: Literal["ema", "gradient"] = "ema"
  decay: Annotated[float, "[0, 1)"] = 0.99
  epsilon: float = 1e-5
  revive: float = 0.0

  def setup(self):
    def uniform(key, shape):
      return jax.random.uniform(key, shape, jnp.float32, -1 / self.codes, 1 / self.codes)

    shape = (self.codes, self.features)
    if self.kind == "gradient":
      self.codebook = self.param("codebook", uniform, shape)
      return
    key = lambda: self.make_rng("params")  # noqa: E731
    self.means = self.variable("codebook", "means", lambda: uniform(key(), shape))
    self.sizes = self.variable("codebook", "sizes", jnp.ones, (self.codes,))  # N_i
    self.sums = self.variable("codebook", "sums", lambda: self.means.value)  # m_i

  def lookup(self, indices: jax.Array) -> jax.Array:
    """Codes [B, ..., D] of indices."""
    return (self.codebook if self.kind == "gradient" else self.means.value)[indices]

  def __call__(self, x: jax.Array, *, train: bool, mask_B: jax.Array) -> Quantized:
    """Quantises [B, ..., D]; examples whose mask is zero leave no trace in the averages."""
    x = x.astype(jnp.float32)
    codebook_KD = self.codebook if self.kind == "gradient" else self.means.value
    indices = nearest(jax.lax.stop_gradient(x), codebook_KD)
    codes = codebook_KD[indices]
    if self.kind == "ema" and train and not self.is_initializing():
      self._follow(jax.lax.stop_gradient(x), indices, mask_B)
    return Quantized(x, codes, straight_through(x, codes), indices)

  def _follow(self, x, indices, mask_B):
    """Appendix A.1, with Laplace smoothing: no code's mean is divided by nothing."""
    mask = jnp.broadcast_to(mask_B.reshape(-1, *[1] * (indices.ndim - 1)), indices.shape)
    x_ND, index_N, mask_N = x.reshape(-1, self.features), indices.ravel(), mask.ravel()
    # where(), not a product: a padded example may hold nan.
    x_ND = jnp.where(mask_N[:, None] > 0, x_ND, 0.0)
    chosen_NK = jax.nn.one_hot(index_N, self.codes) * mask_N[:, None]
    n_K, sum_KD = batch_axis.total((chosen_NK.sum(0), chosen_NK.T @ x_ND))
    sizes_K = self.decay * self.sizes.value + (1 - self.decay) * n_K
    sums_KD = self.decay * self.sums.value + (1 - self.decay) * sum_KD
    if self.revive:
      dead_K = sizes_K < self.revive
      x_ND, mask_N = batch_axis.gather(x_ND), batch_axis.gather(mask_N)
      # The same draw on every device, since all of them have the key and all of the batch.
      rows_K = jax.random.categorical(
        self.make_rng("revive"), jnp.where(mask_N > 0, 0.0, -jnp.inf), shape=(self.codes,)
      )
      sizes_K = jnp.where(dead_K, 1.0, sizes_K)
      sums_KD = jnp.where(dead_K[:, None], x_ND[rows_K], sums_KD)
    total = sizes_K.sum()
    smooth_K = (sizes_K + self.epsilon) / (total + self.codes * self.epsilon) * total
    self.sizes.value, self.sums.value = sizes_K, sums_KD
    self.means.value = sums_KD / smooth_K[:, None]


class FSQ(nn.Module):
  """Finite scalar quantisation: every dimension is rounded to one of a few levels.

  No codebook, no auxiliary loss, no moving average: the codes are the points of a grid.

  Attributes:
    levels: of each dimension; there are prod(levels) codes.
    epsilon: how far the bound stays from the outermost half-levels.
  """

  levels: tuple[int, ...]
  epsilon: float = 1e-3

  @property
  def codes(self) -> int:
    return math.prod(self.levels)

  def bound(self, x: jax.Array) -> jax.Array:
    """[..., D] squashed so that rounding gives exactly `levels` integers in each dimension."""
    levels_D = jnp.asarray(self.levels, jnp.float32)
    half_D = (levels_D - 1) * (1 - self.epsilon) / 2
    # An even number of integers is not symmetric about 0.
    offset_D = jnp.where(levels_D % 2 == 0, 0.5, 0.0)
    return jnp.tanh(x + jnp.tan(offset_D / half_D)) * half_D - offset_D

  def _halves(self) -> jax.Array:
    return jnp.asarray([n // 2 for n in self.levels], jnp.float32)

  def _basis(self) -> jax.Array:
    return jnp.asarray([math.prod(self.levels[:i]) for i in range(len(self.levels))], jnp.int32)

  def lookup(self, indices: jax.Array) -> jax.Array:
    """Codes [B, ..., D] in [-1, 1] of indices, their digits in the mixed radix of the levels."""
    digits = indices[..., None] // self._basis() % jnp.asarray(self.levels, jnp.int32)
    return digits.astype(jnp.float32) / self._halves() - 1

  def __call__(self, x: jax.Array, *, train: bool, mask_B: jax.Array) -> Quantized:
    """Quantises [B, ..., D]."""
    x = x.astype(jnp.float32)
    bounded = self.bound(x)
    rounded = jnp.round(bounded)
    digits = (rounded + self._halves()).astype(jnp.int32)
    indices = (digits * self._basis()).sum(-1)
    straight = straight_through(bounded, rounded) / self._halves()
    return Quantized(x, jax.lax.stop_gradient(straight), straight, indices)


class Identity(nn.Module):
  """No quantiser: the rival that loses nothing."""

  def __call__(self, x: jax.Array, *, train: bool, mask_B: jax.Array) -> Quantized:
    x = x.astype(jnp.float32)
    return Quantized(x, x, x, None)


def features(kind: Kind, *, features: int, levels: tuple[int, ...]) -> int:
  """Dimensions of a code: of the grid of "fsq", else as many as asked for."""
  return len(levels) if kind == "fsq" else features


def size(kind: Kind, *, codes: int, levels: tuple[int, ...]) -> int:
  """How many codes there are: points of the grid of "fsq", else as many as asked for."""
  return math.prod(levels) if kind == "fsq" else codes


def of(
  kind: Kind, *, codes: int, features: int, levels: tuple[int, ...], decay: float, revive: float
) -> nn.Module:
  """The quantiser of that kind; "none" leaves vectors as they are.

  Args:
    kind: "ema" and "gradient" have a codebook, "fsq" has a grid.
    codes: of a codebook.
    features: of its codes.
    levels: of the grid.
    decay: of the moving averages of "ema".
    revive: of "ema", see `VectorQuantizer`.
  """
  if kind == "fsq":
    return FSQ(tuple(levels))
  if kind == "none":
    return Identity()
  return VectorQuantizer(codes, features, kind, decay=decay, revive=revive)
