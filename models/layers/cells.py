"""Recurrent cells, and layers of them over time.

Elman 1990, "Finding structure in time"; the LSTM of Hochreiter & Schmidhuber 1997 with the forget
gate of Gers et al. 2000; the gated recurrent unit in its three published forms, which are not the
same network:

  gru           Cho et al. 2014, arXiv:1406.1078: the reset gate acts on the state before the
                product, U (r * h), and z keeps the old state, h' = z h + (1 - z) h~
  gru_bahdanau  Bahdanau et al. 2015, arXiv:1409.0473: the same, but z lets the new state in,
                h' = (1 - z) h + z h~
  gru_cudnn     cuDNN's and PyTorch's: the reset gate acts after the product, r * (U h + b)

Layers are time-major, [T, B, D]: a step of the loop then reads one piece of memory. The inputs of
all steps are projected by one product before the loop, and the weights get their gradient by one
product after it (models/layers/recurrence.py). Where the mask is false (padding), the state stays
as it is, so sequences of unequal length may be padded on either side.

Axes: T steps, B examples, D input features, H hidden units, G gates * H, L layers. Gates stand in
PyTorch's order: input, forget, cell, output of an LSTM; reset, update, new of a GRU.
"""

import functools
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.dropout import Dropout
from models.layers.recurrence import Dot, unroll

Kind = Literal["elman", "lstm", "gru", "gru_bahdanau", "gru_cudnn"]
State = tuple[jax.Array, ...]  # (h,) or, of an LSTM, (h, c); h comes first


def uniform(limit: float) -> nn.initializers.Initializer:
  """Initial weights from U[-limit, limit]."""
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


def gate_by_gate(init: nn.initializers.Initializer, gates: int) -> nn.initializers.Initializer:
  """`init` for the matrix [rows, H] of each gate, side by side in [rows, gates * H]."""

  def initial(key, shape, dtype=jnp.float32):
    own = (shape[0], shape[1] // gates)
    return jnp.concatenate([init(k, own, dtype) for k in jax.random.split(key, gates)], axis=1)

  return initial


# Steps: from the projected input [B, G] and the state to the state. `dot` is the loop's; `inner`
# [B, H] or [H] is added to the product that gru_cudnn's reset gate acts on.


def elman(dot: Dot, x_BG: jax.Array, state: State, inner=None) -> State:
  """h' = tanh(x + U h)."""
  del inner
  return (jnp.tanh(x_BG + dot("recurrent", state[0])),)


def lstm(dot: Dot, x_BG: jax.Array, state: State, inner=None) -> State:
  """c' = f c + i g and h' = o tanh(c')."""
  del inner
  h_BH, c_BH = state
  i, f, g, o = jnp.split(x_BG + dot("recurrent", h_BH), 4, axis=-1)
  c_BH = jax.nn.sigmoid(f) * c_BH + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(c_BH), c_BH


def _reset_before(dot: Dot, x_BG: jax.Array, h_BH: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(z, h~) of a GRU whose reset gate acts before the product."""
  split = 2 * h_BH.shape[-1]
  gates_BG = jax.nn.sigmoid(x_BG[..., :split] + dot("recurrent_gates", h_BH))
  r_BH, z_BH = jnp.split(gates_BG, 2, axis=-1)
  return z_BH, jnp.tanh(x_BG[..., split:] + dot("recurrent_new", r_BH * h_BH))


def gru(dot: Dot, x_BG: jax.Array, state: State, inner=None) -> State:
  """Cho et al. 2014, equations 5 to 8."""
  del inner
  (h_BH,) = state
  z_BH, new_BH = _reset_before(dot, x_BG, h_BH)
  return (z_BH * h_BH + (1 - z_BH) * new_BH,)


def gru_bahdanau(dot: Dot, x_BG: jax.Array, state: State, inner=None) -> State:
  """Bahdanau et al. 2015, appendix A.1.1."""
  del inner
  (h_BH,) = state
  z_BH, new_BH = _reset_before(dot, x_BG, h_BH)
  return ((1 - z_BH) * h_BH + z_BH * new_BH,)


def gru_cudnn(dot: Dot, x_BG: jax.Array, state: State, inner=None) -> State:
  """The reset gate scales U h + inner."""
  (h_BH,) = state
  split = 2 * h_BH.shape[-1]
  product_BG = dot("recurrent", h_BH)
  gates_BG = jax.nn.sigmoid(x_BG[..., :split] + product_BG[..., :split])
  r_BH, z_BH = jnp.split(gates_BG, 2, axis=-1)
  inner_BH = product_BG[..., split:] if inner is None else product_BG[..., split:] + inner
  new_BH = jnp.tanh(x_BG[..., split:] + r_BH * inner_BH)
  return (z_BH * h_BH + (1 - z_BH) * new_BH,)


STEPS = {
  "elman": elman,
  "lstm": lstm,
  "gru": gru,
  "gru_bahdanau": gru_bahdanau,
  "gru_cudnn": gru_cudnn,
}
_GATES = {"elman": 1, "lstm": 4, "gru": 3, "gru_bahdanau": 3, "gru_cudnn": 3}


def kept(mask_B: jax.Array, new: Any, old: Any) -> Any:
  """`new` where the mask holds, else `old`, leaf by leaf."""
  return jax.tree.map(lambda a, b: jnp.where(mask_B[:, None], a, b), new, old)


def _layer_step(kind: Kind, dot: Dot, inner, state: State, x):
  x_BG, mask_B, start_B = x
  if start_B is not None:
    state = jax.tree.map(lambda s: jnp.where(start_B[:, None], jnp.zeros_like(s), s), state)
  state = kept(mask_B, STEPS[kind](dot, x_BG, state, inner), state)
  return state, state[0]


class Cell(nn.Module):
  """One layer of a recurrent network.

  Attributes:
    kind: of the cell.
    inputs: D.
    features: H.
    bias: whether there are any; one a gate, and gru_cudnn's inner one.
    input_init: of the matrix [D, H] of each gate.
    recurrent_init: of the matrix [H, H] of each gate.
    bias_init: of biases.
    dtype: of activations.
  """

  kind: Kind
  inputs: Annotated[int, "[1, inf)"]
  features: Annotated[int, "[1, inf)"]
  bias: bool = True
  input_init: Any = nn.initializers.glorot_uniform()
  recurrent_init: Any = nn.initializers.orthogonal()
  bias_init: Any = nn.initializers.zeros
  dtype: Any = jnp.float32

  def setup(self):
    gates, wide = _GATES[self.kind], _GATES[self.kind] * self.features
    input_init = gate_by_gate(self.input_init, gates)
    recurrent_init = gate_by_gate(self.recurrent_init, gates)
    self.input = self.param("input", input_init, (self.inputs, wide))
    self.recurrent = self.param("recurrent", recurrent_init, (self.features, wide))
    if self.bias:
      self.biases = self.param("bias", self.bias_init, (wide,))
      if self.kind == "gru_cudnn":
        self.inner_bias = self.param("recurrent_bias", self.bias_init, (self.features,))

  def project(self, x: jax.Array) -> jax.Array:
    """[..., G] what inputs [..., D] bring to the gates."""
    y = x.astype(self.dtype) @ self.input.astype(self.dtype)
    return y + self.biases.astype(self.dtype) if self.bias else y

  def weights(self) -> dict[str, jax.Array]:
    """Of the products that the cell's step makes in the loop."""
    matrix_HG = self.recurrent.astype(self.dtype)
    if self.kind not in ("gru", "gru_bahdanau"):
      return {"recurrent": matrix_HG}
    split = 2 * self.features
    return {"recurrent_gates": matrix_HG[:, :split], "recurrent_new": matrix_HG[:, split:]}

  def initial(self, examples: int) -> State:
    """The state of zeros."""
    zeros_BH = jnp.zeros((examples, self.features), self.dtype)
    return (zeros_BH, zeros_BH) if self.kind == "lstm" else (zeros_BH,)

  def __call__(
    self,
    x_TBD: jax.Array,
    mask_TB: jax.Array,
    state: State | None = None,
    *,
    start_TB: jax.Array | None = None,
    reverse: bool = False,
  ) -> tuple[jax.Array, State]:
    """The layer over time.

    Args:
      x_TBD: inputs.
      mask_TB: true where there is one.
      state: to begin with; zeros by default.
      start_TB: true where the state begins again from zero.
      reverse: from the last step to the first.

    Returns:
      h [T, B, H] after every step, and the state after the last.
    """
    state = self.initial(x_TBD.shape[1]) if state is None else state
    inner = None
    if self.bias and self.kind == "gru_cudnn":
      inner = self.inner_bias.astype(self.dtype)
    step = functools.partial(_layer_step, self.kind)
    xs = (self.project(x_TBD), mask_TB, start_TB)
    state, h_TBH = unroll(step, self.weights(), inner, state, xs, reverse=reverse)
    return h_TBH, state


class Bidirectional(nn.Module):
  """One layer read in both directions, with weights of their own (Schuster & Paliwal 1997).

  Attributes:
    cell: arguments of both cells.
  """

  cell: Any

  def setup(self):
    self.forward, self.backward = Cell(**self.cell), Cell(**self.cell)

  def __call__(self, x_TBD: jax.Array, mask_TB: jax.Array) -> tuple[jax.Array, tuple[State, State]]:
    """[h forward; h backward] [T, B, 2H], and both states where their reading ended."""
    ahead_TBH, last = self.forward(x_TBD, mask_TB)
    back_TBH, first = self.backward(x_TBD, mask_TB, reverse=True)
    return jnp.concatenate([ahead_TBH, back_TBH], axis=-1), (last, first)


class Stack(nn.Module):
  """Layers one above the other, each reading the states of the one below.

  Attributes:
    layers: L.
    inputs: of the lowest.
    cell: arguments of all cells, besides `inputs`.
    dropout: of what a layer reads from the one below, never of its own state (Zaremba et al. 2014,
      arXiv:1409.2329).
  """

  layers: Annotated[int, "[1, 1000]"]
  inputs: Annotated[int, "[1, inf)"]
  cell: Any
  dropout: Annotated[float, "[0, 1)", "traced"] = 0.0

  def setup(self):
    features = self.cell["features"]
    widths = [self.inputs, *[features] * (self.layers - 1)]
    self.layer = [Cell(inputs=width, **self.cell) for width in widths]
    self.drop = Dropout(self.dropout)

  def __call__(
    self,
    x_TBD: jax.Array,
    mask_TB: jax.Array,
    states: State | None = None,
    *,
    start_TB: jax.Array | None = None,
    train: bool = False,
  ) -> tuple[jax.Array, State]:
    """h [T, B, H] of the top layer, and the last states [L, B, H] of all; see `Cell`."""
    lasts = []
    for i, layer in enumerate(self.layer):
      state = None if states is None else jax.tree.map(lambda s, i=i: s[i], states)
      x_TBD, last = layer(
        time_major(self.drop, x_TBD, train=train) if i else x_TBD, mask_TB, state, start_TB=start_TB
      )
      lasts.append(last)
    return x_TBD, jax.tree.map(lambda *s: jnp.stack(s), *lasts)


def time_major(drop: Dropout, x_TBD: jax.Array, *, train: bool) -> jax.Array:
  """Dropout, which goes by the example, of what has the examples on its second axis."""
  return jnp.swapaxes(drop(jnp.swapaxes(x_TBD, 0, 1), train=train), 0, 1)
