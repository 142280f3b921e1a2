"""A stack of restricted Boltzmann machines, from which a deep autoencoder starts.

Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks", Science
313:504-507, and its supporting text; Hinton 2002, "Training products of experts by minimizing
contrastive divergence", Neural Computation 14:1771-1800. Each machine models the mean hidden units
of the machine below; `models/autoencoder/deep.py` unrolls the stack. Softmax visible units, which
see a document of N words as N draws from one distribution, are those of Salakhutdinov & Hinton
2009, "Replicated softmax", of which a single draw is the case N = 1.

Every machine is one top-level parameter group, `rbm_0` ..., so a stage trains what it names.

Axes: B examples, D visible units of a machine, K its hidden units.
"""

import itertools
import math
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.autoencoder import Output
from models.layers import batch_axis

Units = Literal["logistic", "softmax", "linear"]
_MEAN = {"logistic": nn.sigmoid, "softmax": nn.softmax, "linear": lambda x: x}


class Machine(nn.Module):
  """E(v, h) = -b v - c h - v W h, and the quadratic terms of whichever units are linear.

  Attributes:
    inputs: visible units.
    units: hidden units.
    visible: kind of the visible units; linear ones are Gaussian of variance one.
    hidden: kind of the hidden units.
    init_std: of W at the start.
    dtype: of the products with W.
  """

  inputs: int
  units: int
  visible: Units
  hidden: Literal["logistic", "linear"]
  init_std: float
  dtype: Any

  def setup(self):
    normal, zeros = nn.initializers.normal(self.init_std), nn.initializers.zeros_init()
    self.kernel = self.param("kernel", normal, (self.inputs, self.units))
    self.visible_bias = self.param("visible_bias", zeros, (self.inputs,))
    self.hidden_bias = self.param("hidden_bias", zeros, (self.units,))

  def up(self, v_BD: jax.Array) -> jax.Array:
    """Total input [B, K] of the hidden units."""
    product_BK = v_BD.astype(self.dtype) @ self.kernel.astype(self.dtype)
    return product_BK.astype(jnp.float32) + self.hidden_bias

  def down(self, h_BK: jax.Array) -> jax.Array:
    """Total input [B, D] of the visible units."""
    product_BD = h_BK.astype(self.dtype) @ self.kernel.astype(self.dtype).T
    return product_BD.astype(jnp.float32) + self.visible_bias

  def hidden_mean(self, v_BD: jax.Array) -> jax.Array:
    return _MEAN[self.hidden](self.up(v_BD))

  def hidden_sample(self, key: jax.Array, v_BD: jax.Array) -> jax.Array:
    mean_BK = self.hidden_mean(v_BD)
    if self.hidden == "linear":
      return mean_BK + batch_axis.normal(key, mean_BK.shape)
    keys = batch_axis.keys(key, len(mean_BK))
    return jax.vmap(jax.random.bernoulli)(keys, mean_BK).astype(jnp.float32)

  def visible_mean(self, h_BK: jax.Array, like_BD: jax.Array) -> jax.Array:
    """Mean of p(v|h) [B, D]; of softmax units for as many draws as `like_BD` counts."""
    mean_BD = _MEAN[self.visible](self.down(h_BK))
    return mean_BD * like_BD.sum(-1, keepdims=True) if self.visible == "softmax" else mean_BD

  def free_energy(self, v_BD: jax.Array) -> jax.Array:
    """F(v) = -log of the sum, or integral, over h of exp(-E(v, h)) [B], up to a constant."""
    total_BK = self.up(v_BD)
    if self.hidden == "linear":
      hidden_B = 0.5 * jnp.square(total_BK).sum(-1)
    else:
      hidden_B = nn.softplus(total_BK).sum(-1)
    if self.visible == "linear":
      visible_B = -0.5 * jnp.square(v_BD - self.visible_bias).sum(-1)
    else:
      visible_B = (v_BD * self.visible_bias).sum(-1)
    return -visible_B - hidden_B


class Model(nn.Module):
  """Machines over x, widths and code; the code's units are linear, those between are logistic.

  Attributes:
    data_shape: of one example.
    widths: hidden units of the machines below the top.
    code: hidden units of the top machine.
    visible: what x is: "logistic" in [0, 1], "softmax" counts or proportions, "linear" any number.
    init_std: of the weights at the start.
    dtype: of the products with the weights.
  """

  data_shape: tuple[int, ...]
  widths: tuple[Annotated[int, "[1, inf)"], ...] = (1000, 500, 250)
  code: Annotated[int, "[1, inf)"] = 30
  visible: Units = "logistic"
  init_std: Annotated[float, "[0, inf)"] = 0.1
  dtype: Any = jnp.float32

  def setup(self):
    sizes = (math.prod(self.data_shape), *self.widths, self.code)
    top = len(self.widths)
    self.rbm = [
      Machine(
        below,
        units,
        self.visible if i == 0 else "logistic",
        "linear" if i == top else "logistic",
        self.init_std,
        self.dtype,
      )
      for i, (below, units) in enumerate(itertools.pairwise(sizes))
    ]

  def data(self, image: jax.Array, *, layer: int) -> jax.Array:
    """What machine `layer` models [B, D]: the mean hidden units of the machine below it."""
    x = image.reshape(image.shape[0], -1)
    for machine in self.rbm[:layer]:
      x = machine.hidden_mean(x)
    return x

  def free_energy(self, v_BD: jax.Array, *, layer: int) -> jax.Array:
    return self.rbm[layer].free_energy(v_BD)

  def gibbs(self, v_BD: jax.Array, *, layer: int) -> jax.Array:
    """A reconstruction [B, D]: the mean of v given a sample of h given `v_BD`."""
    machine = self.rbm[layer]
    # Sampled hidden units are a bottleneck of a bit each; the visible ones would add only noise.
    h_BK = machine.hidden_sample(self.make_rng("latent"), v_BD)
    return machine.visible_mean(h_BK, v_BD)

  def __call__(self, image: jax.Array, *, train: bool = False) -> Output:
    """Means all the way up and down: the autoencoder that the unrolled stack starts as."""
    code_BK = x = self.data(image, layer=len(self.rbm))
    for machine in self.rbm[:0:-1]:
      x = nn.sigmoid(machine.down(x))
    lowest, shaped = self.rbm[0], lambda y_BD: y_BD.reshape(image.shape)
    mean_BD = lowest.visible_mean(x, image.reshape(len(image), -1))
    return Output(shaped(lowest.down(x)), shaped(mean_BD), code_BK)
