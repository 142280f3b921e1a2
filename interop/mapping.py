"""Tables that say where another's tensors belong in our parameters, read in both directions.

A row has a name of theirs, a path of ours, and how the axes of the one become those of the other,
in letters: `(n h) d -> d n h` is a matrix of N heads times H features by D inputs, that we keep as
[D, N, H]. A letter is a size; which sizes a model has, its family says. A number in braces, `{l}`,
in a name counts layers up to that size, and ours are stacked along a first axis. A row of several
paths, after a letter of their count, is one tensor that holds them all side by side.
"""

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from interop.errors import Unreadable, listed
from interop.tensors import Stored

_LAYER = re.compile(r"\{(\w)\}")
_GROUP = re.compile(r"\(([^)]*)\)|(\S+)")
# Names of which the nearest is looked for, among how many, and how long: it takes their product.
_COMPARED, _AMONG, _SHORT = 10, 200, 200

Sizes = Mapping[str, int]


def always(model: Mapping[str, Any]) -> bool:
  """Of rows that no setting leaves out."""
  del model
  return True


class Row(NamedTuple):
  """A tensor of theirs and the parameters of ours that it holds.

  Attributes:
    theirs: its name; `@` stands for what the names of the family's base begin with.
    ours: the path of our parameter, or of several; None where it is of zeros and we have none.
    axes: letters of their axes, and of ours where those differ.
    when: whether a model with these settings has it.
    free: whether what stands in a tensor that we have no parameter for changes nothing.
  """

  theirs: str
  ours: str | tuple[str, ...] | None
  axes: str
  when: Callable[[Mapping[str, Any]], bool] = always
  free: bool = False

  @property
  def paths(self) -> tuple[str, ...]:
    """Of ours."""
    return (self.ours,) if isinstance(self.ours, str) else self.ours or ()

  def names(self, sizes: Sizes) -> list[str]:
    """Theirs, one for each layer."""
    layer = _LAYER.search(self.theirs)
    if not layer:
      return [self.theirs]
    return [self.theirs.replace(layer[0], str(i)) for i in range(sizes[layer[1]])]

  def shapes(self, sizes: Sizes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(of a tensor of theirs, of a parameter of ours)."""
    left, right = sides(self.axes)
    ours = [math.prod(sizes[a] for a in group) for group in right]
    ours = ours[1:] if len(self.paths) > 1 else ours
    layer = _LAYER.search(self.theirs)
    first = [sizes[layer[1]]] if layer else []
    return tuple(math.prod(sizes[a] for a in group) for group in left), (*first, *ours)


def linear(theirs: str, ours: str, axes: str, bias: str, **options) -> tuple[Row, Row]:
  """A linear layer of PyTorch; `bias` has the letters of its bias."""
  return (
    Row(f"{theirs}.weight", f"{ours}/kernel", axes, **options),
    Row(f"{theirs}.bias", f"{ours}/bias", bias, **options),
  )


def norm(theirs: str, ours: str, axes: str = "d", **options) -> tuple[Row, Row]:
  """A layer normalisation."""
  return (
    Row(f"{theirs}.weight", f"{ours}/scale", axes, **options),
    Row(f"{theirs}.bias", f"{ours}/bias", axes, **options),
  )


def attention(projections: Mapping[str, str], ours: str, *, first: str = "") -> tuple[Row, ...]:
  """The four linear layers of attention with biases; `first` is an axis of ours before theirs."""
  turn = {"output": ("d (n h)", "n h d", "d", "d")}
  rows: list[Row] = []
  for name, theirs in projections.items():
    left, right, bias, own = turn[name] if name in turn else ("(n h) d", "d n h", "(n h)", "n h")
    axes = f"{left} -> {first}{right}", f"{bias} -> {first}{own}"
    rows += linear(theirs, f"{ours}/{name}", *axes)
  return tuple(rows)


@functools.cache
def sides(axes: str) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
  """The axes of theirs and of ours, each the letters that it is a product of; "1" is of none."""
  left, _, right = axes.partition("->")
  return tuple(
    tuple(tuple(c for c in (a or b).split() if c != "1") for a, b in _GROUP.findall(side))
    for side in (left, right or left)
  )


def _turned(array: np.ndarray, axes: str, sizes: Sizes, *, back: bool) -> np.ndarray:
  """`array` with the axes of the other side."""
  before, after = sides(axes)[:: -1 if back else 1]
  letters = [a for group in before for a in group]
  order = [letters.index(a) for group in after for a in group]
  spread = array.reshape([sizes[a] for a in letters]).transpose(order)
  return spread.reshape([math.prod(sizes[a] for a in group) for group in after])


def to_ours(row: Row, tensors: Sequence[np.ndarray], sizes: Sizes) -> list[np.ndarray]:
  """The parameters of a row, one a path, from the tensors of its names."""
  turned = [_turned(array, row.axes, sizes, back=False) for array in tensors]
  several = len(row.paths) > 1
  parts = list(zip(*turned, strict=True)) if several else [turned]
  stacked = _LAYER.search(row.theirs)
  return [np.stack(part) if stacked else np.array(part[0]) for part in parts]


def to_theirs(row: Row, params: Sequence[np.ndarray], sizes: Sizes) -> list[np.ndarray]:
  """The tensors of a row, one a name, from the parameters of its paths."""
  stacked = _LAYER.search(row.theirs)
  each = list(zip(*params, strict=True)) if stacked else [tuple(params)]
  return [
    _turned(np.stack(parts) if len(parts) > 1 else parts[0], row.axes, sizes, back=True)
    for parts in each
  ]


def expected(rows: Iterable[Row], sizes: Sizes) -> dict[str, tuple[int, ...]]:
  """Shapes of theirs by name."""
  return {name: row.shapes(sizes)[0] for row in rows for name in row.names(sizes)}


def read(
  rows: Sequence[Row], tensors: Mapping[str, Stored], sizes: Sizes, where: object
) -> dict[str, np.ndarray]:
  """Our parameters by path, from all `tensors`.

  Raises:
    Unreadable: tensors are missing, left over or in another shape; it lists them all.
  """
  wanted = expected(rows, sizes)
  compare(wanted, {name: stored.shape for name, stored in tensors.items()}, where)
  found = {}
  for row in rows:
    try:
      arrays = [tensors[name].array() for name in row.names(sizes)]
    except Unreadable as error:
      raise Unreadable(f"{where}: {row.theirs}: {error}") from error
    if row.ours is None:
      if not row.free and any(array.any() for array in arrays):
        raise Unreadable(f"{where}: {row.theirs} is not zero, and no parameter of ours is like it")
      continue
    found |= dict(zip(row.paths, to_ours(row, arrays, sizes), strict=True))
  return found


def write(
  rows: Sequence[Row], params: Mapping[str, np.ndarray], sizes: Sizes, where: object
) -> dict[str, np.ndarray]:
  """Their tensors by name, from all our parameters by path.

  Raises:
    Unreadable: parameters are missing, left over or in another shape; it lists them all.
  """
  wanted = {path: row.shapes(sizes)[1] for row in rows for path in row.paths}
  compare(wanted, {path: array.shape for path, array in params.items()}, where)
  found = {}
  for row in rows:
    if row.ours is None:
      shape = row.shapes(sizes)[0]
      tensors = [np.zeros(shape, np.float32) for _ in row.names(sizes)]
    else:
      arrays = [np.asarray(params[path], np.float32) for path in row.paths]
      tensors = to_theirs(row, arrays, sizes)
    found |= dict(zip(row.names(sizes), tensors, strict=True))
  return found


def compare(
  wanted: Mapping[str, tuple[int, ...]], there: Mapping[str, tuple[int, ...]], where: object
) -> None:
  """Raises Unreadable, with lists of what is different, where names or shapes do not agree."""
  missing = [name for name in wanted if name not in there]
  unused = [name for name in there if name not in wanted]
  shapes = [
    f"{name} {list(there[name])}, not {list(shape)}"
    for name, shape in wanted.items()
    if name in there and tuple(there[name]) != tuple(shape)
  ]
  if missing or unused or shapes:
    faults = {
      "missing": _with_nearest(missing, unused),
      "unused": _with_nearest(unused, missing),
      "of another shape": shapes,
    }
    raise listed(where, faults)


def _with_nearest(names: Sequence[str], others: Sequence[str]) -> list[str]:
  """The names, the first of them with the one among the others that is most like it."""
  lines, others = [], [other for other in others[:_AMONG] if len(other) <= _SHORT]
  for index, name in enumerate(names):
    like = difflib.get_close_matches(name[:_SHORT], others, 1) if index < _COMPARED else []
    lines.append(f"{name} (like {like[0]})" if like else name)
  return lines


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
  """Leaves of a tree by their path."""
  found = {}
  for name, part in tree.items():
    path = f"{before}{name}"
    found |= flat(part, f"{path}/") if isinstance(part, Mapping) else {path: part}
  return found


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """The tree of leaves by path."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *before, last = path.split("/")
    branch = tree
    for name in before:
      branch = branch.setdefault(name, {})
    branch[last] = leaf
  return tree
