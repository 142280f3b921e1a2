"""Config files and command-line overrides, checked against the dataclasses that read them.

Every default lives in a dataclass field. A field's annotation is its type; a string beside it, as
in `Annotated[float, "(0, 1]"]`, is its range in interval notation. A second string, "traced", says
that the number is an argument of the compiled step, so that runs which differ in it share a
program. A config names only what differs from the defaults, and `arguments` refuses, in one line,
whatever no field reads.
"""

import ast
import dataclasses
import functools
import importlib.util
import pathlib
import sys
import types
import typing
import warnings
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import ml_collections

from training.errors import ConfigError

VARIANTS = ("paper", "small", "smoke")
TRACED = "traced"
UNTOUCHED = "no run was started and no file changed"
_SHOWN = 80  # letters of a value, or of a name, that a message quotes
_LISTED = 100  # keys that are looked at for the likeliest mistake
_MOST = 2**63  # an int of a config fits in 64 bits


def load(reference: str) -> ml_collections.ConfigDict:
  """The config of `FILE` or `FILE:variant`, by calling the file's `get_config(variant)`.

  A file may name variants besides the three that all have, as its VARIANTS.
  """
  path, _, variant = reference.partition(":")
  module = experiment(path)
  known = (*VARIANTS, *(module.VARIANTS if hasattr(module, "VARIANTS") else ()))
  if variant and variant not in known:
    raise ConfigError(
      f"{path} has no variant {variant!r}{nearest(variant, known)}",
      kept=UNTOUCHED,
      do=f"choose one of {', '.join(known)}",
    )
  config = module.get_config(variant) if variant else module.get_config()
  return config.lock()


def experiment(path: str) -> types.ModuleType:
  """The experiment file at `path`, imported. An experiment file is code, and trusted as such."""
  file = pathlib.Path(path)
  if not (file.is_file() and file.suffix == ".py"):
    known = [str(p) for p in pathlib.Path("experiments").glob("*/*.py")]
    raise ConfigError(
      f"there is no experiment file {path!r}{nearest(path, known)}",
      kept=UNTOUCHED,
      do="`python launch.py list` prints what there is",
    )
  spec = importlib.util.spec_from_file_location(f"experiment_{file.stem}", file)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ConfigError(
      f"{path} defines no get_config(variant)", kept=UNTOUCHED, do="see CONTRIBUTING.md"
    )
  return module


def literal(text: str) -> Any:
  """The Python value that `text` spells on a command line; text that spells none stays text."""
  if text in ("true", "false"):
    return text == "true"
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # what Python has to say of quotes such as '\\d'
      return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
    return text


def override(config: ml_collections.ConfigDict, assignments: Iterable[tuple[str, str]]):
  """`config` with dotted keys set, e.g. ("optimizer.learning_rate", "3e-4").

  A key need not stand in the file, since defaults live elsewhere: whether any class reads it is
  for `arguments` to say. An integer picks an element of a tuple ("stages.0.training.steps").
  """
  tree = _copied(config)
  for key, text in assignments:
    *parents, last = key.split(".")
    node = tree
    for depth, part in enumerate(parents):
      node = _descend(node, part, ".".join(parents[: depth + 1]))
    if isinstance(node, list):
      node[_position(node, last, key)] = literal(text)
    else:
      node[last] = literal(text)
  try:
    return ml_collections.ConfigDict(tree).lock()
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
    raise ConfigError(
      f"no config: {error}", kept=UNTOUCHED, do="write a block's settings one by one"
    ) from None


def _copied(value):
  """Blocks, lists and tuples anew, each of its own: a file may write one dict into two stages."""
  if isinstance(value, dict | ml_collections.ConfigDict):
    return {key: _copied(child) for key, child in value.items()}
  if isinstance(value, list | tuple):
    return type(value)(_copied(child) for child in value)
  return value


def _descend(node, part: str, key: str):
  if isinstance(node, list):
    part = _position(node, part, key)
  else:
    node.setdefault(part, {})
  child = node[part]
  if isinstance(child, tuple):
    child = node[part] = list(child)
  if not isinstance(child, dict | list):
    raise ConfigError(
      f"config.{key} is {shown(child)}, not a block of settings",
      kept=UNTOUCHED,
      do=f"write --config.{key}=VALUE",
    )
  return child


def _position(node: list, part: str, key: str) -> int:
  if not (part.isdecimal() and int(part) < len(node)):
    raise ConfigError(
      f"config.{key} has no element {part!r}", kept=UNTOUCHED, do=f"choose 0 to {len(node) - 1}"
    )
  return int(part)


def shown(value: Any) -> str:
  """A value for a message, cut where it is long."""
  try:
    text = repr(value)
  except (ValueError, RecursionError):  # of thousands of digits, or nested as deep
    text = f"{type(value).__name__} too large to print"
  return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def nearest(name: str, known: Iterable[str]) -> str:
  """A question with the nearest of `known`, three where they are equally near; or nothing."""
  edits = _distances(name, known)
  fewest = min(edits.values(), default=_SHOWN)
  if fewest > max(1, len(str(name)[:_SHOWN]) // 2):
    return ""
  close = [candidate for candidate, count in edits.items() if count == fewest]
  return f"; did you mean {' or '.join(map(repr, close[:3]))}?"


def _distances(name: Any, known: Iterable[str]) -> dict[str, int]:
  """The edits between a name and each of those `known`, in their order."""
  name = str(name)[:_SHOWN].casefold()  # what is longer is near to none of them
  return {candidate: _edits(candidate.casefold(), name) for candidate in sorted(set(known))}


def _edits(a: str, b: str) -> int:
  """Letters to insert, delete, replace, or exchange with their neighbour, each letter once."""
  above, row = [], list(range(len(b) + 1))
  for i, x in enumerate(a, 1):
    before, above, row = above, row, [i]
    for j, y in enumerate(b, 1):
      row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
      if i > 1 and j > 1 and (x, y) == (b[j - 2], a[i - 2]):
        row[-1] = min(row[-1], before[j - 2] + 1)
  return row[-1]


def fields(cls: type) -> dict[str, dataclasses.Field]:
  """The settings of a dataclass or Flax module, without what Flax itself adds."""
  hidden = {"parent", "name"} if _is_module(cls) else set()
  return {f.name: f for f in dataclasses.fields(cls) if f.init and f.name not in hidden}


@functools.cache
def hints(cls: type) -> dict[str, Any]:
  """The annotations of a class's fields."""
  return typing.get_type_hints(cls, include_extras=True)


def _is_module(cls: type) -> bool:
  return any(base.__module__ == "flax.linen.module" for base in cls.__mro__)


def arguments(
  cls: type,
  spec: Mapping[str, Any],
  *,
  where: str,
  given: Mapping[str, Any] = types.MappingProxyType({}),
  beside: Iterable[str] = (),
) -> dict[str, Any]:
  """The keyword arguments of `cls` that `spec` describes, every default filled in.

  Args:
    cls: a dataclass or Flax module.
    spec: a block of the config, without its `name`.
    where: the block's dotted key, for messages; empty for the top of a config.
    beside: keys that others read, worth suggesting to who mistypes one.
    given: values for fields that `spec` leaves out (facts of the data), where `cls` has them.

  Returns:
    dict of checked values, one for every field.

  Raises:
    ConfigError: an unknown key, a missing one, a wrong type, a value out of range.
  """
  title = f"{cls.__module__}.{cls.__qualname__}"
  known, kinds = fields(cls), hints(cls)
  prefix = f"{where}." if where else ""
  if unknown := [key for key in spec if key not in known]:
    # A mistyped name leaves other keys unread too; what is nearest to a name is the mistake.
    every = (*known, *beside)
    key = min(unknown[:_LISTED], key=lambda key: min(_distances(key, every).values(), default=0))
    said = str(key)[:_SHOWN]
    raise ConfigError(
      f"config.{prefix}{said}: {title} has no field {said!r}{nearest(key, every)}",
      kept=UNTOUCHED,
      do=f"its fields are {', '.join(every) or 'none'}",
    )
  values = {}
  for name, field in known.items():
    if name in spec:
      values[name] = conform(spec[name], kinds[name], key=f"{prefix}{name}", title=title)
    elif name in given:
      values[name] = given[name]
    elif field.default is not dataclasses.MISSING:
      values[name] = field.default
    elif field.default_factory is not dataclasses.MISSING:
      values[name] = field.default_factory()
    else:
      raise ConfigError(
        f"config.{prefix}{name} is missing: {title} has no default for it",
        kept=UNTOUCHED,
        do=f"set --config.{prefix}{name}=VALUE ({describe(kinds[name])})",
      )
  return values


def conform(value: Any, kind: Any, *, key: str, title: str) -> Any:
  """`value` as the annotation `kind` wants it, or ConfigError naming `key` and `title`."""

  def refuse():
    meant = nearest(value, choices(kind)) if isinstance(value, str) else ""
    raise ConfigError(
      f"config.{key}={shown(value)} is not {describe(kind)}, which {title} expects{meant}",
      kept=UNTOUCHED,
      do=f"set --config.{key}=VALUE",
    )

  origin, inner = get_origin(kind), get_args(kind)
  if origin is Annotated:
    try:
      result = conform(value, inner[0], key=key, title=title)
    except ConfigError:
      refuse()  # which names the range too
    if not all(_inside(result, mark) for mark in _ranges(inner[1:])):
      refuse()
    return result
  if kind is Any:
    return value
  if origin is Literal:
    # `1 == True` in Python; a literal must match in type too.
    return value if any(value == x and type(value) is type(x) for x in inner) else refuse()
  if origin in (typing.Union, types.UnionType):
    for option in inner:
      try:
        return conform(value, option, key=key, title=title)
      except ConfigError:
        continue
    refuse()
  if kind is type(None):
    return None if value is None else refuse()
  if kind is bool or kind is str:
    return value if isinstance(value, kind) else refuse()
  if kind is int:
    # Not by float(value): an int may be too large to become one.
    whole = _is_number(value) and (isinstance(value, int) or value.is_integer())
    return int(value) if whole and -_MOST <= value < _MOST else refuse()
  if kind is float:
    finite = _is_number(value) and abs(value) <= sys.float_info.max
    return float(value) if finite else refuse()
  if origin is tuple:
    if not isinstance(value, tuple | list):
      refuse()
    if len(inner) == 2 and inner[1] is Ellipsis:
      inner = (inner[0],) * len(value)
    if len(value) != len(inner):
      refuse()
    return tuple(
      conform(item, k, key=f"{key}.{i}", title=title)
      for i, (item, k) in enumerate(zip(value, inner, strict=True))
    )
  if origin is dict:
    if not isinstance(value, Mapping):
      refuse()
    return {
      conform(k, inner[0], key=key, title=title): conform(
        v, inner[1], key=f"{key}.{k}", title=title
      )
      for k, v in value.items()
    }
  raise TypeError(f"{title}.{key}: annotation {kind} has no check; add one to training/config.py")


def choices(kind: Any) -> list[str]:
  """The words that an annotation lets one choose from."""
  inner = get_args(kind)
  if get_origin(kind) is Literal:
    return [option for option in inner if isinstance(option, str)]
  if get_origin(kind) in (Annotated, typing.Union, types.UnionType):
    return [word for option in inner for word in choices(option)]
  return []


def traced(cls: type) -> tuple[str, ...]:
  """The fields of a class that a compiled step takes as arguments."""
  kinds = hints(cls)
  return tuple(
    name
    for name in fields(cls)
    if get_origin(kinds[name]) is Annotated and TRACED in get_args(kinds[name])[1:]
  )


def _ranges(marks) -> list[str]:
  return [mark for mark in marks if isinstance(mark, str) and mark != TRACED]


def _is_number(value: Any) -> bool:
  # True is an int to Python, but nobody means a count by it.
  return isinstance(value, int | float) and not isinstance(value, bool)


def _inside(value: Any, interval: str) -> bool:
  """Whether `value` lies in an interval such as "[0, 1)"."""
  low, high = (float(end) for end in interval[1:-1].split(","))
  above = value >= low if interval[0] == "[" else value > low
  below = value <= high if interval[-1] == "]" else value < high
  return above and below


def describe(kind: Any) -> str:
  """An annotation in words, for messages: "int in [1, inf)"."""
  origin, inner = get_origin(kind), get_args(kind)
  if origin is Annotated:
    marks = " and ".join(_ranges(inner[1:]))
    return f"{describe(inner[0])} in {marks}" if marks else describe(inner[0])
  if origin is Literal:
    return "one of " + ", ".join(repr(x) for x in inner)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(describe(x) for x in inner)
  if origin is tuple:
    return f"a list of {describe(inner[0])}"
  if origin is dict:
    return f"a block of {describe(inner[1])}"
  return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))
