"""How a stage's first state comes about: fresh, or with parameters handed on by name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from training import lora
from training import step as steps
from training.build import Stage, reading, tracing
from training.config import UNTOUCHED
from training.errors import ConfigError

_MODEL, _STEPS, _ORDER = range(3)  # streams of randomness of a stage


def order_seed(key: jax.Array) -> int:
  """The seed of a stage's order of examples, for `data.source.rows`."""
  high, low = np.asarray(jax.random.key_data(jax.random.fold_in(key, _ORDER)))
  return (int(high) << 32) + int(low)


class Before(NamedTuple):
  """What an earlier stage, or another run, hands on."""

  params: Mapping[str, Any]
  mutable: Mapping[str, Any]


def handed_on(stage: Stage, state: steps.State) -> Before:
  """A trained state's weights, averaged where an average was kept, adapters added to them."""
  return Before(lora.merged(stage.model, state.weights), state.mutable)


def initial_state(stage: Stage) -> Callable[[jax.Array, Before | None], steps.State]:
  """A pure function `(key, before) -> state at step 0`, to be compiled with its placement."""
  stored = _stored(stage)
  drawn = _drawn(stage)
  # A model may take an earlier stage's parameters over in a way of its own.
  adopt = stage.model.adopt if hasattr(stage.model, "adopt") else _by_name
  row = {}

  def init(key, before):
    model_key, rng = jax.random.fold_in(key, _MODEL), jax.random.fold_in(key, _STEPS)
    params, mutable = drawn(model_key)
    if before is not None:
      params, mutable = _adopted(adopt, params, before.params), _take_over(mutable, before.mutable)
    state = steps.initial(stage.program, params, mutable, rng)
    if not row:  # a whole step is traced for it, which takes seconds: once, however often this is
      row.update(steps.row(stage.program, state, stored))
    return state.replace(metrics=dict(row))

  return init


def _drawn(stage: Stage) -> Callable[[jax.Array], tuple[dict[str, Any], dict[str, Any]]]:
  """A pure function `key -> (parameters, other collections)` of the model's fresh variables."""
  inputs = model_inputs(stage)

  def drawn(key):
    blank = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), inputs)  # may have None
    variables = dict(stage.model.init({"params": key}, *blank))
    return variables.pop("params"), variables

  return drawn


def _adopted(adopt, fresh, before):
  """`fresh` with what a model takes over; its adapters are no affair of the model's.

  Raises:
    ConfigError: what came before is of another model.
  """
  own, theirs = (
    {name: tree for name, tree in params.items() if name != lora.GROUP}
    for params in (fresh, before)
  )
  try:
    found = adopt(own, theirs)
  except ValueError as error:
    raise ConfigError(
      f"config.model: {error}",
      kept="what came before",
      do="give this stage the sizes of what it goes on from",
    ) from None
  if lora.GROUP not in fresh:
    return found
  known = {lora.GROUP: before[lora.GROUP]} if lora.GROUP in before else {}
  return {**found, **_take_over({lora.GROUP: fresh[lora.GROUP]}, known)}


def model_inputs(stage: Stage) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Shapes of what the model is called with for a training batch, without reading the data.

  Raises:
    ConfigError: the task wants an element that the data does not have.
  """
  batch = _seen(stage)
  try:
    return jax.eval_shape(stage.task.inputs, batch)
  except KeyError as missing:
    elements = [name for name in batch if name != "mask"]
    raise ConfigError(
      f"config.task: {type(stage.task).__module__} wants {missing} of an example, which"
      f" {type(stage.source).__module__} does not have",
      kept=UNTOUCHED,
      do=f"an example has {', '.join(elements)}",
    ) from None


def stage_shapes(stage: Stage):
  """(shapes of the stage's state, shapes of a step's stored examples), by tracing alone."""
  with tracing(stage):
    return jax.eval_shape(initial_state(stage), jax.random.key(0), None), _stored(stage)


def measured(stage: Stage) -> set[str]:
  """The names of the metrics of an evaluation, by tracing alone."""
  key = jax.random.key(0)
  with tracing(stage):
    params, mutable = jax.eval_shape(_drawn(stage), key)
    return set(jax.eval_shape(stage.task.measure(stage.model), params, mutable, _seen(stage), key))


def _seen(stage: Stage):
  """Shapes of a batch as the model sees it."""
  count = stage.program.examples
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count))
  batch = jax.eval_shape(stage.program.transform, _stored(stage), keys)
  return {**batch, "mask": jax.ShapeDtypeStruct((count,), jnp.float32)}


def _stored(stage: Stage):
  """Shapes of a step's examples as the source stores them."""
  with reading(stage.source):
    spec = stage.source.spec()
  count = stage.program.examples
  return {k: jax.ShapeDtypeStruct((count, *v.shape), v.dtype) for k, v in spec.items()}


def _by_name(fresh, before):
  """How a model adopts that has no way of its own.

  Raises:
    ValueError: there is nothing to take over.
  """
  if not _any_taken(fresh, before):
    raise ValueError("no parameter has a name and a shape of the stage's before")
  return _take_over(fresh, before)


def _take_over(fresh, before):
  """`fresh` with every leaf of `before` that has its name and shape."""
  if not isinstance(fresh, Mapping):
    return before if before.shape == fresh.shape else fresh
  return {
    name: _take_over(tree, before[name]) if name in before else tree for name, tree in fresh.items()
  }


def _any_taken(fresh, before) -> bool:
  if not isinstance(fresh, Mapping):
    return before.shape == fresh.shape
  return any(name in before and _any_taken(tree, before[name]) for name, tree in fresh.items())
