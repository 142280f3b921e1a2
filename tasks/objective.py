"""The seam between models and the spine: objectives made of phases, figures made of sums.

An objective is a frozen dataclass of hyperparameters. It owns an ordered tuple of phases; a
training step runs them one after another. Ordinary training is one phase over all parameters, a GAN
is two, five critic steps are `repeats=5`.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tasks.views import Images, View

Params = dict[str, Any]
State = dict[str, Any]  # mutable collections of the model: "batch_stats", ...
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
  """A trained model, compiled: `call(*inputs, method="decode", seed=0)` runs one of its methods."""

  model: nn.Module

  def __call__(
    self, *inputs: Any, method: str = "__call__", seed: int = 0, **fixed: Any
  ) -> Any: ...


class Examples(NamedTuple):
  """Some of a split on the host, transformed as the model sees them, with its class names."""

  arrays: Mapping[str, np.ndarray]
  class_names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(abc.ABC):
  """What is minimised, what is measured per batch, what is worth looking at."""

  @abc.abstractmethod
  def phases(self, model: nn.Module) -> tuple[Phase, ...]:
    """The updates of one step, in order."""

  @abc.abstractmethod
  def measure(self, model: nn.Module) -> Callable[[Params, State, Batch, jax.Array], Metrics]:
    """Metrics of one evaluation batch; its `mask` is zero where the batch was padded."""

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """What needs a whole set at once: a distribution, the fit of a rival. On the host."""
    return {}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    """Figures of the finished run, by file name."""
    return {}

  def sample(self, call: Call, count: int, seed: int) -> Images | None:
    """New examples from the model, or None where the model generates nothing."""
    return None
