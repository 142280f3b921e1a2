"""Where activations lie when a model is split over devices.

A layer names the axes of an activation; the step that is compiled for a mesh opens a `scope` that
knows which of them are split there. Outside a scope nothing is said, and the compiler decides.
Models never see an axis of the mesh.
"""

import contextlib
import contextvars
from collections.abc import Callable
from typing import Literal

import jax

Axis = Literal["batch", "sequence", "features", "heads", "hidden", "vocabulary"]
Constrain = Callable[[jax.Array, tuple[Axis, ...]], jax.Array]

_scope: contextvars.ContextVar[Constrain | None] = contextvars.ContextVar("placement", default=None)


@contextlib.contextmanager
def scope(constrain: Constrain):
  """While a step is traced: what `constrain(x, axes)` below does."""
  token = _scope.set(constrain)
  try:
    yield
  finally:
    _scope.reset(token)


def constrain(x: jax.Array, *axes: Axis) -> jax.Array:
  """`x`, whose axes are named one by one, laid out over the devices as their names say."""
  rule = _scope.get()
  if rule is None or len(axes) != x.ndim:
    return x
  return rule(x, axes)
