"""ELMo's language model: words read as characters, left to right and right to left.

Peters et al. 2018, "Deep contextualized word representations", arXiv:1802.05365, sections 3.1 and
3.3: a convolution over characters with highways (Kim et al. 2016, arXiv:1508.06615; Srivastava et
al. 2015, arXiv:1505.00387), two LSTMs with projections each way (Sak et al. 2014,
arXiv:1402.1128), the second of which adds to what it reads. The two directions share the words'
encoder and the softmax and nothing else.

Differs from the paper: the softmax is whole, where theirs is sampled while training; the cells'
state starts from zero with every text. Nothing in the network.

Axes: B examples, T words, M characters of a word, D features of a direction (the projection), H
cells, L layers, V words of the vocabulary.
"""

import functools
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import cells
from models.layers.dropout import Dropout
from models.layers.recurrence import Dot, unroll

# Rows of the table of characters: the 256 bytes, the begin and end of a text, those of a word, what
# fills up a word, what fills up a text.
TEXT_BEGIN, TEXT_END, WORD_BEGIN, WORD_END, _FILL, _NOTHING = range(256, 262)
ROWS = 262
FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))


class Output(NamedTuple):
  """What the language model makes of texts.

  Attributes:
    ahead: [B, T, V] float32 logits of the word after each, from those up to it.
    back: [B, T, V] float32 logits of the word before each, from those down to it.
    layers: [L + 1, B, T, 2 D] float32: the words alone, twice, then each layer's two directions.
  """

  ahead: jax.Array
  back: jax.Array
  layers: jax.Array


class CharacterEncoder(nn.Module):
  """A word from its characters: convolutions, their maxima, highways, a projection.

  Attributes:
    features: D.
    character_features: of the table of characters.
    filters: (width, how many) of each convolution.
    highways: layers y = g relu(W x) + (1 - g) x.
    dtype: of activations.
  """

  features: int
  character_features: int
  filters: tuple[tuple[int, int], ...]
  highways: int
  dtype: Any

  @nn.compact
  def __call__(self, characters: jax.Array) -> jax.Array:
    """[..., D] of words [..., M], padded by -1 at the end or altogether."""
    table = self.param("table", nn.initializers.normal(1.0), (ROWS, self.character_features))
    rows = jnp.where(characters < 0, _FILL, characters)
    rows = jnp.where(characters[..., :1] < 0, _NOTHING, rows)
    x = table.astype(self.dtype)[rows]
    # ReLU and maximum commute; the maximum first leaves less to do.
    x = jnp.concatenate(
      [
        nn.relu(nn.Conv(n, (w,), padding="VALID", dtype=self.dtype, name=f"width_{w}")(x).max(-2))
        for w, n in self.filters
      ],
      axis=-1,
    )
    for i in range(self.highways):
      y = nn.Dense(2 * x.shape[-1], dtype=self.dtype, bias_init=_shut, name=f"highway_{i}")(x)
      new, gate = jnp.split(y, 2, axis=-1)
      gate = nn.sigmoid(gate)
      x = gate * nn.relu(new) + (1 - gate) * x
    return nn.Dense(self.features, dtype=self.dtype, name="projection")(x)


class ProjectedLstm(nn.Module):
  """An LSTM whose output is a projection of its cells, which it also reads back.

  Attributes:
    inputs: of a step.
    cells: H.
    features: D, of the projection.
    clip: the most that cells and output may be, either way.
    dtype: of activations.
  """

  inputs: int
  cells: int
  features: int
  clip: float
  dtype: Any

  @nn.compact
  def __call__(self, x_TBD: jax.Array, mask_TB: jax.Array, *, reverse: bool = False) -> jax.Array:
    """[T, B, D], from zeros; steps that the mask leaves out change nothing."""
    init, wide = cells.gate_by_gate(nn.initializers.glorot_uniform(), 4), 4 * self.cells
    input_DG = self.param("input", init, (self.inputs, wide)).astype(self.dtype)
    recurrent_DG = self.param("recurrent", init, (self.features, wide)).astype(self.dtype)
    bias_G = self.param("bias", _remember, (wide,)).astype(self.dtype)
    projection_HD = self.param(
      "projection", nn.initializers.glorot_uniform(), (self.cells, self.features)
    ).astype(self.dtype)
    weights = {"recurrent": recurrent_DG, "projection": projection_HD}
    step = functools.partial(_step, self.clip)
    zeros = lambda width: jnp.zeros((x_TBD.shape[1], width), self.dtype)  # noqa: E731
    state = (zeros(self.features), zeros(self.cells))
    xs = (x_TBD @ input_DG + bias_G, mask_TB)
    return unroll(step, weights, None, state, xs, reverse=reverse)[1]


class BiLM(nn.Module):
  """Contextual features of words, from both sides.

  Attributes:
    features: D.
    cells: H.
    layers: L, of either direction.
    character_features: of the table of characters.
    filters: (width, how many) of the convolutions; a word has at least as many characters as the
      widest.
    highways: above them.
    clip: of cells and projections, either way.
    dropout: of what a layer reads, and of what the softmax does.
    dtype: of activations.
  """

  features: Annotated[int, "[1, inf)"] = 512
  cells: Annotated[int, "[1, inf)"] = 4096
  layers: Annotated[int, "[1, 1000]"] = 2
  character_features: Annotated[int, "[1, inf)"] = 16
  filters: tuple[tuple[int, ...], ...] = FILTERS
  highways: Annotated[int, "[0, 1000]"] = 2
  clip: Annotated[float, "(0, inf)"] = 3.0
  dropout: Annotated[float, "[0, 1)", "traced"] = 0.1
  dtype: Any = jnp.float32

  def setup(self):
    self.words = CharacterEncoder(
      self.features, self.character_features, self.filters, self.highways, self.dtype
    )
    lstm = lambda: ProjectedLstm(  # noqa: E731
      self.features, self.cells, self.features, self.clip, self.dtype
    )
    self.ahead = [lstm() for _ in range(self.layers)]
    self.back = [lstm() for _ in range(self.layers)]
    self.drop = Dropout(self.dropout)

  def encode(self, characters_BTM: jax.Array, *, train: bool = False) -> jax.Array:
    """h [L + 1, B, T, 2 D] of words, characters padded by -1, as all are of a word that is none."""
    mask_TB = characters_BTM[:, :, 0].T >= 0
    x_TBD = jnp.swapaxes(self.words(characters_BTM), 0, 1)
    ahead = self._direction(self.ahead, x_TBD, mask_TB, reverse=False, train=train)
    back = self._direction(self.back, x_TBD, mask_TB, reverse=True, train=train)
    both = [jnp.concatenate(pair, axis=-1) for pair in zip(ahead, back, strict=True)]
    return jnp.stack(both).swapaxes(1, 2)

  def _direction(self, layers, x_TBD, mask_TB, *, reverse: bool, train: bool) -> list[jax.Array]:
    """[T, B, D] below the first layer and above every one."""
    found = [x_TBD]
    for i, layer in enumerate(layers):
      read_TBD = cells.time_major(self.drop, x_TBD, train=train)
      y_TBD = layer(read_TBD, mask_TB, reverse=reverse)
      x_TBD = y_TBD + read_TBD if i else y_TBD  # words themselves are not added
      found.append(x_TBD)
    return found


class Model(BiLM):
  """p(word | those before it) and p(word | those after it), of equation 1 in section 3.1.

  Attributes:
    vocabulary: V, of the words that are told; any can be read.
    dtype: of activations.
  """

  vocabulary: Annotated[int, "[1, inf)"] = 793_471
  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    init = nn.initializers.normal(self.features**-0.5)
    self.softmax = self.param("softmax", init, (self.vocabulary, self.features))
    self.softmax_bias = self.param("softmax_bias", nn.initializers.zeros, (self.vocabulary,))

  def __call__(self, characters_BTM: jax.Array, *, train: bool = False) -> Output:
    """What comes after and before every word of texts [B, T, M], see `encode`."""
    h_LBTE = self.encode(characters_BTM, train=train)
    top_BTE = self.drop(h_LBTE[-1], train=train)
    ahead, back = (
      jnp.einsum(
        "btd,vd->btv", x, self.softmax.astype(self.dtype), preferred_element_type=jnp.float32
      )
      + self.softmax_bias
      for x in jnp.split(top_BTE, 2, axis=-1)
    )
    return Output(ahead, back, h_LBTE.astype(jnp.float32))


def _step(clip: float, dot: Dot, shared, state: cells.State, x) -> tuple[cells.State, jax.Array]:
  """A step of Sak et al.'s LSTM, without peepholes."""
  del shared
  (x_BG, mask_B), (_, c_BH) = x, state
  i, f, g, o = jnp.split(x_BG + dot("recurrent", state[0]), 4, axis=-1)
  c_BH = jax.nn.sigmoid(f) * c_BH + jax.nn.sigmoid(i) * jnp.tanh(g)
  c_BH = jnp.clip(c_BH, -clip, clip)
  r_BD = jnp.clip(dot("projection", jax.nn.sigmoid(o) * jnp.tanh(c_BH)), -clip, clip)
  state = cells.kept(mask_B, (r_BD, c_BH), state)
  return state, state[0]


def _shut(key, shape, dtype=jnp.float32):
  """Biases of a highway whose gate lets little through at first (Srivastava et al. 2015)."""
  del key
  return jnp.zeros(shape, dtype).at[shape[0] // 2 :].set(-2.0)


def _remember(key, shape, dtype=jnp.float32):
  """Biases of an LSTM's gates (input, forget, cell, output), 1 of the forget gate."""
  del key
  quarter = shape[0] // 4
  return jnp.zeros(shape, dtype).at[quarter : 2 * quarter].set(1.0)
