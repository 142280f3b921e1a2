"""Transformer blocks, and stacks of equal ones.

Axes: B examples, T positions, S positions of a memory, D features, F features of the MLP, L layers.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.attention import Attention, Cache, KeysValues, Places, Slots
from models.layers.dropout import Dropout
from models.layers.placement import constrain
from models.layers.projection import Projection, project, together

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
Norm = Literal["layer", "rms"]
_FEW = 12  # layers
ACTIVATIONS = {
  "relu": jax.nn.relu,
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "silu": jax.nn.silu,
}


def norm_layer(kind: Norm, epsilon: float, dtype: Any, **options) -> nn.Module:
  """Layer normalisation (Ba et al. 2016), or RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467)."""
  make = nn.LayerNorm if kind == "layer" else nn.RMSNorm
  return make(epsilon=epsilon, dtype=dtype, **options)


class MLP(nn.Module):
  """W2 act(W1 x), or gated: W2 (act(W1 x) * W3 x) (Shazeer 2020, arXiv:2002.05202).

  Attributes:
    features: D, of the output.
    hidden: F.
    activation: act; "gelu" is exact, "gelu_tanh" its approximation.
    gated: whether W3 is there.
    bias: whether the layers have biases.
    kernel_init: of W1 and W3.
    output_init: of W2.
    dtype: of activations.
  """

  features: Annotated[int, "[1, inf)"]
  hidden: Annotated[int, "[1, inf)"]
  activation: Activation = "relu"
  gated: bool = False
  bias: bool = True
  kernel_init: Any = nn.initializers.xavier_uniform()
  output_init: Any = nn.initializers.xavier_uniform()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    wide = ["up", "gate"] if self.gated else ["up"]
    layers = [
      Projection((self.hidden,), self.bias, self.kernel_init, self.dtype, name=name)
      for name in wide
    ]
    parts = [
      jax.tree.map(lambda leaf: leaf[..., None, :], layer(x_BTD.shape[-1])) for layer in layers
    ]
    up_BTF, *gate_BTF = (y[..., 0, :] for y in together(x_BTD, parts))
    wide_BTF = ACTIVATIONS[self.activation](up_BTF)
    for gate in gate_BTF:
      wide_BTF *= gate
    down = Projection((self.features,), self.bias, self.output_init, self.dtype, name="down")
    return project(wide_BTF, *down(self.hidden))


class Block(nn.Module):
  """Attention to itself, perhaps to a memory, then an MLP, each added to what came in.

  Attributes:
    features: D.
    heads: see `Attention`; likewise kv_heads, head_features, rotary, rotary_base, scaled,
      attention_dropout and implementation.
    mlp_features: F.
    activation: of the MLP.
    gated: whether the MLP has a gate.
    causal: whether positions see no later ones.
    cross: whether there is attention to a memory.
    norm: its kind.
    norm_place: "post" is x <- norm(x + f(x)) (Vaswani et al. 2017, section 3.1), "pre" is
      x <- x + f(norm(x)), which needs no warm-up (Xiong et al. 2020, arXiv:2002.04745).
    epsilon: of the norms.
    bias: whether linear layers have biases.
    dropout: of what each sub-layer adds.
    kernel_init: of linear layers.
    output_init: of those whose output is added to the residual stream.
    dtype: of activations.
  """

  features: int
  heads: int
  mlp_features: int
  kv_heads: int = 0
  head_features: int = 0
  activation: Activation = "relu"
  gated: bool = False
  causal: bool = False
  cross: bool = False
  norm: Norm = "layer"
  norm_place: Literal["pre", "post"] = "pre"
  epsilon: float = 1e-6
  bias: bool = True
  scaled: bool = True
  rotary: str = "none"
  rotary_base: float = 10_000.0
  dropout: float = 0.0
  attention_dropout: float = 0.0
  implementation: str = "auto"
  kernel_init: Any = nn.initializers.xavier_uniform()
  output_init: Any = nn.initializers.xavier_uniform()
  dtype: Any = jnp.float32

  def setup(self):
    linear = dict(
      bias=self.bias,
      kernel_init=self.kernel_init,
      output_init=self.output_init,
      dtype=self.dtype,
    )
    attention = functools.partial(
      Attention,
      self.features,
      self.heads,
      self.kv_heads,
      self.head_features,
      scaled=self.scaled,
      dropout=self.attention_dropout,
      implementation=self.implementation,
      **linear,
    )
    norm = functools.partial(norm_layer, self.norm, self.epsilon, self.dtype)
    self.attention = attention(rotary=self.rotary, rotary_base=self.rotary_base)
    self.attention_norm = norm()
    if self.cross:
      self.cross_attention = attention()
      self.cross_norm = norm()
    self.mlp = MLP(
      self.features,
      self.mlp_features,
      activation=self.activation,
      gated=self.gated,
      **linear,
    )
    self.mlp_norm = norm()
    self.drop = Dropout(self.dropout)

  def memory(self, memory_BSD: jax.Array, positions_BS: jax.Array) -> KeysValues:
    """Keys and values of a memory, for `__call__`."""
    return self.cross_attention.keys_values(memory_BSD, positions_BS)

  def __call__(
    self,
    x_BTD: jax.Array,
    *,
    queries: Places,
    keys: Places,
    memory: jax.Array | KeysValues | None = None,
    memory_places: Places | None = None,
    window: jax.Array | None = None,
    bias_BNTS: jax.Array | None = None,
    slots: Slots | None = None,
    train: bool = False,
  ) -> jax.Array:
    """[B, T, D]; the arguments are those of `Attention`."""

    def added(x, norm, layer):
      if self.norm_place == "pre":
        x = x + self.drop(layer(norm(x)), train=train)
      else:
        x = norm(x + self.drop(layer(x), train=train))
      return constrain(x, "batch", "sequence", "features")

    x_BTD = added(
      x_BTD,
      self.attention_norm,
      lambda x: self.attention(
        x,
        queries=queries,
        keys=keys,
        causal=self.causal,
        window=window,
        bias_BNTS=bias_BNTS,
        slots=slots,
        train=train,
      ),
    )
    if self.cross:
      x_BTD = added(
        x_BTD,
        self.cross_norm,
        lambda x: self.cross_attention(
          x, memory, queries=queries, keys=memory_places, causal=False, train=train
        ),
      )
    return added(x_BTD, self.mlp_norm, self.mlp)


class Stack(nn.Module):
  """Equal blocks one after another, their parameters stacked along a first axis [L].

  One block is traced and compiled, whatever the depth. For decoding, where a step should read each
  weight once and copy none, `unstacked` gives the parameters layer by layer.

  Attributes:
    block: makes a block.
    layers: L.
    remat: whether the backward pass recomputes a block's activations.
    unroll: how many blocks the compiled loop holds; 0 is all of a dozen or fewer on CPUs, where
      XLA runs loops slowly (benchmarks/gpt_step.py), and one elsewhere.
    shared: names of the block's parts whose parameters are the same in every layer (Lan et al.
      2020, arXiv:1909.11942); there is one of each, its first axis [1].
  """

  block: Callable[..., nn.Module]
  layers: Annotated[int, "[1, inf)"]
  remat: bool = False
  unroll: Annotated[int, "[0, inf)"] = 0
  shared: tuple[str, ...] = ()

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    cache: Cache | None = None,
    train: bool = False,
    per_layer: Mapping[str, Any] | None = None,
    **shared,
  ) -> jax.Array | tuple[jax.Array, Cache]:
    """The output of the last block, and the cache where there is one.

    Args:
      x: what goes in.
      cache: of a decoder, `place_in` done.
      train: whether to drop out.
      per_layer: arguments of the block with a leading axis [L].
      **shared: arguments that all blocks get.
    """
    block = self.block(parent=None)
    per_layer = dict(per_layer or {})
    if self.is_initializing():
      self._create(
        block, x, {k: jax.tree.map(lambda v: v[0], v) for k, v in per_layer.items()}, shared
      )
    watched = self.is_mutable_collection("intermediates") and not self.is_initializing()
    # A model asks for streams of randomness by name; the step gives one key for all of them.
    drops = train and (self.has_rng("dropout") or self.has_rng("params"))
    key = self.make_rng("dropout") if drops else None

    def apply(params, x, cache, layer, own):
      slots = None if cache is None else Slots(cache, layer)
      options = {**shared, **own, "train": train}
      options |= {} if slots is None else {"slots": slots}
      rngs = {"dropout": jax.random.fold_in(key, layer)} if drops else {}
      found = block.apply(
        {"params": params}, x, rngs=rngs, mutable=["intermediates"] if watched else False, **options
      )
      x, seen = found if watched else (found, {})
      return x, None if slots is None else slots.cache, seen

    if self.remat and cache is None:
      apply = jax.checkpoint(apply, prevent_cse=False)
    tree = self.variables["params"]
    if "0" in tree:
      seen = []
      for layer in range(self.layers):
        own = jax.tree.map(lambda v: v[layer], per_layer)
        x, cache, one = apply(tree[str(layer)], x, cache, layer, own)
        seen.append(one)
      seen = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)
    else:
      common = {name: jax.tree.map(lambda v: v[0], tree[name]) for name in self.shared}

      def body(carry, part):
        x, cache, seen = apply({**part[0], **common}, *carry, *part[1:])
        return (x, cache), seen

      own = {name: value for name, value in tree.items() if name not in common}
      parts = (own, jnp.arange(self.layers), per_layer)
      (x, cache), seen = jax.lax.scan(body, (x, cache), parts, unroll=self._unrolled())
    for name, value in (seen["intermediates"] if seen else {}).items():
      self.put_variable("intermediates", name, value)
    return x if cache is None else (x, cache)

  def _unrolled(self) -> int:
    if self.unroll:
      return self.unroll
    return self.layers if jax.default_backend() == "cpu" and self.layers <= _FEW else 1

  def _create(self, block, x, own, shared):
    def one(key):
      return block.init({"params": key}, x, **shared, **own)["params"]

    # Of every layer its own, as if the blocks were created one after another.
    tree = jax.vmap(one)(jax.random.split(self.make_rng("params"), self.layers))
    for name, value in tree.items():
      if name in self.shared:
        value = jax.tree.map(lambda leaf: leaf[:1], value)
      self.put_variable("params", name, value)

  def memories(self, memory_BSD: jax.Array, positions_BS: jax.Array) -> KeysValues:
    """Every layer's keys and values [L, B, K, S, H] of a memory."""
    block = self.block(parent=None)
    tree = self.variables["params"]
    if "0" in tree:
      each = [
        block.apply({"params": tree[str(i)]}, memory_BSD, positions_BS, method="memory")
        for i in range(self.layers)
      ]
      return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    return jax.vmap(
      lambda params: block.apply({"params": params}, memory_BSD, positions_BS, method="memory")
    )(tree)


def unstacked(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Variables whose stacks are taken apart, for decoding: {"layers": {"0": ..., "1": ...}}.

  A loop over tokens that slices a stack would copy every weight at every token.
  """

  def walk(tree):
    if not isinstance(tree, Mapping):
      return tree
    found = {}
    for name, value in tree.items():
      if name.endswith("layers") and isinstance(value, Mapping) and "0" not in value:
        count = len(jax.tree.leaves(value)[0])
        value = {str(i): jax.tree.map(lambda leaf: leaf[i], value) for i in range(count)}
        found[name] = value
      else:
        found[name] = walk(value)
    return found

  return {**variables, "params": walk(variables["params"])}
