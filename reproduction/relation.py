"""The language of a claim's relation: arithmetic over the numbers of one run, compared by < or >.

    squared < 0.75 * pca_squared
    accuracy > rival.accuracy + 0.5
    0.91 < accuracy < 0.95
    frechet < 0.3 and frechet < frechet_gaussian + 0.05

A name is a metric of the run, `rival.NAME` the metric of a rival's run with the same seed; beside
them there are numbers, + - * /, parentheses, abs(), log() and sqrt(). `deviation(x)` is how far
each run's x is from the median of all seeds: `deviation(accuracy) < deviation(rival.accuracy)` says
that runs differ less among themselves (Brown & Forsythe 1974). Nothing of it is executed: what is
no such arithmetic is refused.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from training.config import UNTOUCHED
from training.errors import ConfigError

_OPERATORS = {
  ast.Add: operator.add,
  ast.Sub: operator.sub,
  ast.Mult: operator.mul,
  ast.Div: operator.truediv,
}
_FUNCTIONS = {
  "abs": np.abs,
  "log": np.log,
  "sqrt": np.sqrt,
  "deviation": lambda x: np.abs(x - np.median(x)),
}


class Comparison(NamedTuple):
  """One `a < b` of a relation.

  Attributes:
    text: as it was written.
    names: of the metrics in it; a rival's begin with "rival.".
    difference: from values [N] by name to `b - a` [N], which is above 0 where it holds.
  """

  text: str
  names: tuple[str, ...]
  difference: Callable[[Mapping[str, np.ndarray]], np.ndarray]

  @property
  def with_rival(self) -> bool:
    return any(name.startswith("rival.") for name in self.names)


def parse(relation: str) -> tuple[Comparison, ...]:
  """The comparisons of a relation; none of an empty one.

  Raises:
    ConfigError: it is no such arithmetic.
  """
  if not relation.strip():
    return ()
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("error")  # what Python's parser doubts is refused like what it rejects
      return tuple(_comparisons(ast.parse(relation.strip(), mode="eval").body))
  except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
    what = error.msg if isinstance(error, SyntaxError) else str(error)
    raise ConfigError(
      f"relation {relation!r}: {what}", kept=UNTOUCHED, do="write it as in reproduction/relation.py"
    ) from None


def _comparisons(node: ast.expr) -> Iterator[Comparison]:
  match node:
    case ast.BoolOp(op=ast.And(), values=parts):
      for part in parts:
        yield from _comparisons(part)
    case ast.Compare(left=left, ops=ops, comparators=rights):
      for sign, right in zip(ops, rights, strict=True):
        yield _comparison(left, sign, right)
        left = right
    case _:
      raise ValueError(f"{ast.unparse(node)!r} is no comparison")


def _comparison(left: ast.expr, sign: ast.cmpop, right: ast.expr) -> Comparison:
  if not isinstance(sign, ast.Lt | ast.Gt):
    raise ValueError("only < and > compare measurements")
  below = isinstance(sign, ast.Lt)
  text = f"{ast.unparse(left)} {'<' if below else '>'} {ast.unparse(right)}"
  names: dict[str, None] = {}
  less, greater = (_term(side, names) for side in ((left, right) if below else (right, left)))
  if not names:
    raise ValueError(f"{text!r} compares no metric")
  return Comparison(text, tuple(names), lambda values: greater(values) - less(values))


def _term(node: ast.expr, names: dict[str, None]) -> Callable:
  """An expression as a function of the metrics' values; adds the metrics it reads to `names`."""
  match node:
    case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
      number = float(number)
      return lambda values: number
    case ast.Name(id=name) if name != "rival":
      names[name] = None
      return lambda values: values[name]
    case ast.Attribute(value=ast.Name(id="rival"), attr=attribute):
      name = f"rival.{attribute}"
      names[name] = None
      return lambda values: values[name]
    case ast.UnaryOp(op=ast.USub(), operand=operand):
      inner = _term(operand, names)
      return lambda values: -inner(values)
    case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
      apply, a, b = _OPERATORS[type(sign)], _term(left, names), _term(right, names)
      # As arrays: Python's own division raises where a measurement should fail its claim.
      return lambda values: apply(np.asarray(a(values)), np.asarray(b(values)))
    case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
      function, inner = _FUNCTIONS[name], _term(argument, names)
      return lambda values: function(inner(values))
  raise ValueError(f"{ast.unparse(node)!r} is neither a metric, nor a number, nor + - * / of them")
