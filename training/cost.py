"""What a training step costs, read off its trace: nothing is compiled and nothing is allocated.

XLA's own count takes the body of a loop once; here a loop over layers counts as many times as it
runs. A multiply and an add are two FLOPs. Only matrix products and convolutions count, as in model
FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B), which takes what a step
requires; here it is what a step computes, with what `training.remat` computes twice.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax


def flops(function: Callable[..., Any], *shapes: Any) -> int:
  """FLOPs of the matrix products and convolutions of `function` of arguments of these shapes."""
  return _inside(jax.make_jaxpr(function)(*shapes).jaxpr)


def _inside(jaxpr) -> int:
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation) -> int:
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    out = equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[i] for i in contracted)
  if name == "conv_general_dilated":
    kernel = equation.invars[1].aval.shape
    out_features = kernel[params["dimension_numbers"].rhs_spec[0]]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // out_features
  inner = [_inside(jaxpr) for jaxpr in _jaxprs(params.values())]
  if name == "scan":
    return params["length"] * sum(inner)
  if name == "cond":
    return max(inner)
  return sum(inner)  # of a while loop whose end is not known, one turn


def _jaxprs(values: Sequence[Any]):
  for value in values:
    if isinstance(value, tuple | list):
      yield from _jaxprs(value)
    else:
      jaxpr = getattr(value, "jaxpr", value)
      if hasattr(jaxpr, "eqns"):
        yield jaxpr
