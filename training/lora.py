"""LoRA: a trained model's matrices stay, and what is learnt beside them is of low rank.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, section 4.1:
h = W x + (alpha / r) B A x, A drawn at random, B zero, so that at first nothing has changed. Any
model's kernels can be adapted, by their paths: no model knows of it. Adapters are a group of
parameters beside the model's own, `lora`, of the same paths; before the model is used they are
added to its kernels (a merge costs no latency: section 4.1), and the kernels themselves are kept as
they were.

Adapters lie as they act here, on rows: x (W + (alpha / r) a b) with a [in, r] and b [r, out], the
paper's A and B transposed. Those of a stack of layers have its first axis [L].
"""

import dataclasses
import fnmatch
import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from tasks.objective import Phase
from training.errors import ConfigError

GROUP = "lora"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
  """What is adapted, and how.

  Attributes:
    rank: r.
    alpha: the adapters' product counts alpha / r times.
    targets: paths of parameters, with * for anything; the paper adapts queries and values.
    trains: top-level groups of parameters that are trained themselves, a new head for instance.
  """

  rank: Annotated[int, "[1, inf)"] = 8
  alpha: Annotated[float, "(0, inf)"] = 8.0
  targets: tuple[str, ...] = ("*/query/kernel", "*/value/kernel")
  trains: tuple[str, ...] = ()

  @property
  def scale(self) -> float:
    return self.alpha / self.rank

  def adapters(self, params: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
    """Adapters of all targets among `params`, which change nothing yet.

    Raises:
      ConfigError: a target is nowhere, or is no matrix; a group to be trained is none.
    """
    leaves = {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}
    found: dict[str, Any] = {}
    for target in self.targets:
      named = fnmatch.filter(leaves, target)
      flat = [name for name in named if len(_matrix(name, leaves[name].shape)) < 2]
      if not named or flat:
        raise ConfigError(
          f"config.model.lora.targets: {target!r} names "
          + (f"{flat[0]}, which is no matrix" if flat else "no parameter"),
          do=f"choose among {', '.join([n for n in leaves if n.endswith('kernel')][:6])}, ...",
        )
      for name in named:
        *stack, rows, columns = _matrix(name, leaves[name].shape)
        own = jax.random.fold_in(key, len(found))
        a = jax.random.normal(own, (*stack, rows, self.rank)) / math.sqrt(rows)
        found[name] = {"a": a, "b": jnp.zeros((*stack, self.rank, columns))}
    for group in self.trains:
      if group not in params:
        raise ConfigError(
          f"config.model.lora.trains: {group!r} is no group of parameters",
          do=f"choose among {', '.join(params)}",
        )
    return traverse_util.unflatten_dict(found, sep="/")

  def merged(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own parameters with their adapters, where there are any, added to them."""
    own = {name: tree for name, tree in params.items() if name != GROUP}
    return _added(own, params[GROUP], self.scale) if GROUP in params else own


def adapted(model: nn.Module, lora: Lora) -> nn.Module:
  """The model, whose parameters have adapters beside them."""
  twin = _adapted(type(model), lora)
  fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.init}
  return twin(**{name: value for name, value in fields.items() if name not in ("parent", "name")})


@functools.lru_cache(maxsize=64)
def _adapted(cls: type[nn.Module], lora: Lora) -> type[nn.Module]:
  class Adapted(cls):
    """A model whose `init` adds adapters, and whose `apply` adds them to the kernels."""

    @nn.nowrap
    def init(self, rngs, *args, **options):
      variables = super().init(rngs, *args, **options)
      key = rngs["params"] if isinstance(rngs, Mapping) else rngs
      own = lora.adapters(variables["params"], jax.random.fold_in(key, 1))
      return {**variables, "params": {**variables["params"], GROUP: own}}

    @nn.nowrap
    def apply(self, variables, *args, **options):
      return super().apply(
        {**variables, "params": merged(self, variables["params"])}, *args, **options
      )

  Adapted.lora = lora
  Adapted.__name__, Adapted.__qualname__ = cls.__name__, cls.__qualname__
  Adapted.__module__ = cls.__module__
  return Adapted


def merged(model: nn.Module, params: Mapping[str, Any]) -> Mapping[str, Any]:
  """A model's parameters as it uses them, without adapters."""
  return model.lora.merged(params) if hasattr(model, "lora") else params


def phases(model: nn.Module, own: tuple[Phase, ...]) -> tuple[Phase, ...]:
  """A task's phases, which train the adapters alone where the model has any.

  Raises:
    ValueError: the task trains parts of the model in turn.
  """
  if not hasattr(model, "lora"):
    return own
  if any(phase.trains for phase in own):
    raise ValueError("it trains parts of the model of its own choice, so model.lora cannot be")
  return tuple(phase._replace(trains=(GROUP, *model.lora.trains)) for phase in own)


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _matrix(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape of a parameter as one matrix [in, out], or a stack of them [L, in, out]."""
  *folders, layer, _ = ("", *path.split("/"))
  stack = shape[:1] if any(part.endswith("layers") for part in folders) else ()
  rest = shape[len(stack) :]
  if len(rest) < 2:
    return (*stack, *rest)
  # Of attention, queries, keys and values have two axes of outputs [D, N, H]; others have one.
  outputs = 2 if layer in ("query", "key", "value") and len(rest) == 3 else 1
  return (*stack, math.prod(rest[:-outputs]), math.prod(rest[-outputs:]))


def _added(tree, adapters, scale: float):
  if not isinstance(tree, Mapping):
    product = jnp.einsum("...ir,...ro->...io", adapters["a"], adapters["b"])
    return tree + scale * product.reshape(tree.shape)
  return {
    name: _added(leaf, adapters[name], scale) if name in adapters else leaf
    for name, leaf in tree.items()
  }
