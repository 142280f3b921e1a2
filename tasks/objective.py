"""The seam between models and the spine: objectives made of phases, figures made of sums.

An objective is a frozen dataclass of hyperparameters. It owns an ordered tuple of phases; a
training step runs them one after another. Ordinary training is one phase over all parameters, a GAN
is two, five critic steps are `repeats=5`.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models.layers import batch_axis
from tasks.views import Images, View

Params = dict[str, Any]
State = dict[str, Any]  # mutable collections of the model: "batch_stats", ...
# Arrays [B, ...] by name; besides the data's own, `mask` [B] (0 where padded) and, in training,
# `step` [B], the stage's step that the batch belongs to.
Batch = dict[str, jax.Array]


class Mean(NamedTuple):
  """A mean in the making: sums of values and of weights, which add over parts of any size."""

  total: jax.Array
  count: jax.Array

  @classmethod
  def over(cls, values_B: jax.Array, mask_B: jax.Array) -> Self:
    """The mean of [B] values over the examples whose mask is one."""
    # where(), not a product: a padded example may hold inf or nan, and 0 * nan is nan.
    values_B = jnp.where(mask_B > 0, values_B.astype(jnp.float32), 0.0)
    return cls(values_B.sum(), mask_B.sum())

  def __add__(self, other: "Mean") -> "Mean":
    return Mean(self.total + other.total, self.count + other.count)


Metrics = dict[str, Mean]
Loss = Callable[[Params, State, Batch, jax.Array], tuple[Mean, tuple[State, Metrics]]]


class Phase(NamedTuple):
  """One kind of update within a step.

  Attributes:
    name: prefixes the phase's metrics where a task has several.
    loss: `(params, state, batch, rng) -> (loss, (new state, metrics))`, all sums over counts.
    trains: top-level parameter groups that this phase updates; empty means all of them.
    repeats: updates per step, each on a fresh sub-batch of `data.batch_size` examples. A phase with
      fewer repeats than another uses the first sub-batches.
  """

  name: str
  loss: Loss
  trains: tuple[str, ...] = ()
  repeats: int = 1


class Call(Protocol):
  """A trained model, compiled: `call(*inputs, method="decode", seed=0)` runs one of its methods.

  A method may also be a function of the bound model and the inputs. `fixed` are keyword arguments
  that are not arrays; every choice of them is compiled once. With `intermediates`, the result is
  (result, what the model sowed, attention weights for instance).
  """

  model: nn.Module

  def __call__(
    self,
    *inputs: Any,
    method: str | Callable[..., Any] = "__call__",
    seed: int = 0,
    intermediates: bool = False,
    **fixed: Any,
  ) -> Any: ...


def applied(
  model: nn.Module,
  params: Params,
  state: State,
  inputs: tuple,
  rng: jax.Array,
  *,
  train: bool,
  method: str = "__call__",
) -> tuple[Any, State]:
  """What a model makes of a batch, and its other collections after it (as before, unless `train`).

  One key serves all the streams of randomness that the model asks for by name.
  """
  return model.apply(
    {"params": params, **state},
    *inputs,
    train=train,
    method=method,
    mutable=list(state) if train else [],
    rngs={"params": rng},
  )


def batch_mean(values: jax.Array, mask_B: jax.Array) -> jax.Array:
  """[...] the mean of [B, ...] over the examples of the whole batch, the same on every device.

  For losses that are no mean over examples but a function of one: such a loss counts as often as
  the device has examples, so that the sum over devices is that of the whole batch.
  """
  weight = mask_B.reshape(-1, *[1] * (values.ndim - 1))
  values = jnp.where(weight > 0, values.astype(jnp.float32), 0.0)
  total, count = batch_axis.total((values.sum(0), mask_B.sum()))
  return total / jnp.maximum(count, 1e-8)


def weighted(terms: Sequence[tuple[float | jax.Array, Mean]], mask_B: jax.Array) -> Mean:
  """A weighted sum of means of unlike counts (over tokens, over examples), as one over examples.

  Like `batch_mean` a function of the whole batch; with gradient accumulation, of the microbatch.
  """
  whole = batch_axis.total([mean for _, mean in terms])
  value = sum(
    weight * mean.total / jnp.maximum(mean.count, 1e-8)
    for (weight, _), mean in zip(terms, whole, strict=True)
  )
  return Mean(value * mask_B.sum(), mask_B.sum())


def on(number: float | jax.Array) -> bool:
  """Whether a setting that 0 switches off is on. One that is traced is: a zero stays a constant."""
  return not isinstance(number, float) or number != 0.0


def in_batches(
  call: Call, *inputs: np.ndarray | None, size: int = 500, seed: int = 0, **options
) -> Any:
  """`call` on inputs [N, ...] a batch at a time, its results [N, ...] put together again.

  For sets that would not fit at once; each batch has its own seed.
  """
  count = len(inputs[0])
  parts = [
    call(*jax.tree.map(lambda x: x[start : start + size], inputs), seed=seed + start, **options)
    for start in range(0, count, size)
  ]
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


class Tokenizer(Protocol):
  """What a task may ask of the tokenizer that made an element of its examples."""

  size: int
  bos: int | None
  eos: int | None

  def encode(self, text: str) -> list[int]: ...

  def decode(self, ids: Any) -> str: ...

  def token(self, index: int) -> str: ...


class Examples(NamedTuple):
  """Some of a split on the host, transformed as the model sees them, with its class names.

  Attributes:
    arrays: [N, ...] by name.
    class_names: in the order of the labels.
    tokenizers: of the elements that are text, by name.
    originals: what a score needs of the whole split that is no array, by name: the texts that
      answers are compared with.
  """

  arrays: Mapping[str, np.ndarray]
  class_names: tuple[str, ...] = ()
  tokenizers: Mapping[str, Tokenizer] = {}
  originals: Mapping[str, Sequence[Any]] = {}


class Sentinel(NamedTuple):
  """A way in which training fails silently, watched for in the rows of training metrics.

  Attributes:
    name: in a word or two.
    holds: whether a row of means shows it.
    remedy: what to try first.
  """

  name: str
  holds: Callable[[Mapping[str, float]], bool]
  remedy: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(abc.ABC):
  """What is minimised, what is measured per batch, what is worth looking at."""

  def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
    """What the model is called with, of a batch; its parameters are created from these shapes."""
    return (batch["image"],)

  @abc.abstractmethod
  def phases(self, model: nn.Module) -> tuple[Phase, ...]:
    """The updates of one step, in order."""

  @abc.abstractmethod
  def measure(self, model: nn.Module) -> Callable[[Params, State, Batch, jax.Array], Metrics]:
    """Metrics of one evaluation batch; its `mask` is zero where the batch was padded."""

  def conditions(self) -> Mapping[str, str]:
    """Settings without which a measured number says nothing: how text was decoded and scored."""
    return {}

  def derive(self, means: Mapping[str, float]) -> dict[str, float]:
    """Figures that are functions of means, such as a perplexity; they stand beside them."""
    return {}

  def sentinels(self) -> tuple[Sentinel, ...]:
    """What to warn of while training."""
    return ()

  def features(self, call: Call, examples: Examples) -> np.ndarray | None:
    """Representations [N, F] of examples, or None where the model has none to offer."""
    return None

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """What needs a whole set at once: a distribution, the fit of a rival. On the host."""
    return {}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    """Figures of the finished run, by file name."""
    return {}

  def sample(self, call: Call, count: int, seed: int) -> Images | None:
    """New examples from the model, or None where the model generates nothing."""
    return None
