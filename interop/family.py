"""What a family of published models is: a table of its config.json, and one of its tensors.

Neither has a direction. `model_of` and `config_of` read the same fields, interop/mapping.py the
same rows. What a config.json holds is called `said`: our own configs are something else.
"""

import dataclasses
import functools
import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from interop.errors import Unreadable
from interop.mapping import Row, Sizes

_MOST = 10**9  # no size in a config.json is larger
_LARGEST = 3e38  # and no number, as float32 has it


class Field(NamedTuple):
  """A key of config.json and a field of our model that say the same.

  Attributes:
    theirs: the key.
    ours: the field.
    default: what the field is where the key is not there; None where the key must be.
    values: (ours, theirs) where the two do not call it the same; the first of equals is written.
    read: ours from the whole config.json, where one key does not say it.
    write: theirs from the whole model, likewise.
  """

  theirs: str
  ours: str
  default: Any = None
  values: tuple[tuple[Any, Any], ...] = ()
  read: Callable[[Mapping[str, Any]], Any] | None = None
  write: Callable[[Mapping[str, Any]], Any] | None = None


class Only(NamedTuple):
  """A key of config.json of which our model knows these values alone; the first is written.

  Attributes:
    theirs: the key.
    values: that our model knows.
    absent: what the key means where it is not there; None for the first.
  """

  theirs: str
  values: tuple[Any, ...]
  absent: Any = None


class Ours(NamedTuple):
  """A field of our model of which their format knows these values alone; the first is read."""

  ours: str
  values: tuple[Any, ...]


Fields = tuple[Field | Only | Ours, ...]


class Head(NamedTuple):
  """One architecture of a family.

  Attributes:
    architecture: as config.json names it.
    model: ours, as a config names it.
    rows: tensors beside the family's.
    fields: settings beside the family's.
    base: whether tensors of the family are named without its prefix.
  """

  architecture: str
  model: str
  rows: tuple[Row, ...] = ()
  fields: Fields = ()
  base: bool = False


@dataclasses.dataclass(frozen=True)
class Family:
  """Models that share a `model_type`.

  Attributes:
    kind: the model_type.
    prefix: with which names of the family's tensors begin, in most architectures.
    sizes: of the letters of axes, from our model's settings.
    fields: of all architectures.
    rows: tensors of all architectures.
    heads: the architectures; where several are one model of ours with the same parameters, the
      first of them is written.
    copies: names of tensors that, where a file has them, repeat another, and that one's.
    buffers: patterns of names of what is no parameter.
    checks: what some of these must be, by pattern: a function of the array and the sizes.
    written: what else config.json says.
  """

  kind: str
  prefix: str
  sizes: Callable[[Mapping[str, Any]], Sizes]
  fields: Fields
  rows: tuple[Row, ...]
  heads: tuple[Head, ...]
  copies: Mapping[str, str] = dataclasses.field(default_factory=dict)
  buffers: tuple[str, ...] = ()
  checks: Mapping[str, Callable[..., bool]] = dataclasses.field(default_factory=dict)
  written: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def table(self, model: Mapping[str, Any], head: Head, *, base: bool) -> tuple[Row, ...]:
    """The rows of a model, by their names with the family's prefix or, where `base`, without."""
    return tuple(
      row._replace(theirs=row.theirs.replace("@", "" if base else self.prefix))
      for row in (*self.rows, *head.rows)
      if row.when(model)
    )

  def model_of(self, said: Mapping[str, Any], head: Head, where: object) -> dict[str, Any]:
    """Our model's settings from a config.json.

    Raises:
      Unreadable: a key is missing, of another type, or says what no setting of ours does.
    """
    model: dict[str, Any] = {"name": head.model}
    for field in (*self.fields, *head.fields):
      if isinstance(field, Ours):
        model[field.ours] = field.values[0]
      elif isinstance(field, Only):
        absent = field.values[0] if field.absent is None else field.absent
        value = said.get(field.theirs, absent)
        if not any(_same(value, allowed) for allowed in field.values):
          known = " or ".join(json_name(allowed) for allowed in field.values)
          raise Unreadable(
            f"{where}: {field.theirs} is {json_name(value)}, and {head.model} knows {known} alone"
          )
      else:
        value = _read(field, said, where)
        if field.ours in model and model[field.ours] != value:
          raise Unreadable(
            f"{where}: {field.theirs} makes {field.ours} {value}, another key {model[field.ours]}"
          )
        model[field.ours] = value
    return model

  def config_of(self, model: Mapping[str, Any], head: Head) -> dict[str, Any]:
    """A config.json that says what our model's settings do.

    Raises:
      Unreadable: there is none.
    """
    said = {"model_type": self.kind, "architectures": [head.architecture], **self.written}
    for field in (*self.fields, *head.fields):
      if isinstance(field, Only):
        said[field.theirs] = field.values[0]
        continue
      if field.ours not in model:
        raise Unreadable(f"{head.model} without {field.ours}: give all of its settings")
      if isinstance(field, Field):
        said[field.theirs] = _write(field, model, self.kind)
      elif not any(_same(model[field.ours], allowed) for allowed in field.values):
        known = " or ".join(repr(allowed) for allowed in field.values)
        raise Unreadable(f"{self.kind} has {field.ours}={known}, not {model[field.ours]!r}")
    return said


def json_name(value: Any) -> str:
  """A value as config.json would show it, not too long."""
  if value is None or isinstance(value, bool):
    return {True: "true", False: "false", None: "null"}[value]
  return repr(value)[:60]


def _same(value: Any, allowed: Any) -> bool:
  """Whether they are equal, and both truths or neither: 1 is not True."""
  return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed


def _read(field: Field, said: Mapping[str, Any], where: object) -> Any:
  wrong = Unreadable(
    f"{where}: {field.theirs} is {json_name(said.get(field.theirs))}, which our model cannot have"
  )
  try:
    value = field.read(said) if field.read else said.get(field.theirs)
  except (KeyError, TypeError, ValueError, AttributeError, IndexError):
    raise wrong from None
  if value is None:
    if field.default is None:
      raise Unreadable(f"{where}: no {field.theirs}")
    return field.default
  if field.values:
    for ours, theirs in field.values:
      if _same(value, theirs):
        return ours
    raise wrong
  if not _is_like(value, field.default):
    raise wrong
  return float(value) if isinstance(field.default, float) else value


def _is_like(value: Any, default: Any) -> bool:
  if isinstance(default, bool | str):
    return isinstance(value, type(default))
  if isinstance(default, float):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= _LARGEST
  if isinstance(value, tuple):
    return all(_is_like(part, 0) for part in value)
  return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _write(field: Field, model: Mapping[str, Any], kind: str) -> Any:
  if field.write:
    return field.write(model)
  value = model[field.ours]
  if not field.values:
    return float(value) if isinstance(field.default, float) else value
  for ours, theirs in field.values:
    if _same(value, ours):
      return theirs
  raise Unreadable(f"{kind} has no {field.ours}={value!r}")


@functools.cache
def families() -> dict[str, Family]:
  """All of them, by `model_type`: the files of interop/families."""
  files = sorted(pathlib.Path(__file__).with_name("families").glob("[a-z]*.py"))
  found = [importlib.import_module(f"interop.families.{path.stem}").FAMILY for path in files]
  return {family.kind: family for family in found}


# What many families have in common.

ACTIVATIONS = (
  ("gelu", "gelu"),
  ("gelu", "gelu_python"),
  ("gelu_tanh", "gelu_new"),
  ("gelu_tanh", "gelu_pytorch_tanh"),
  ("gelu_tanh", "gelu_fast"),
  ("relu", "relu"),
  ("silu", "silu"),
  ("silu", "swish"),
)


def classes(said: Mapping[str, Any]) -> int:
  """How many labels a config.json speaks of: two where it does not."""
  if said.get("id2label") is not None:
    return len(said["id2label"])
  return 2 if said.get("num_labels") is None else said["num_labels"]


def labels(model: Mapping[str, Any]) -> dict[str, str]:
  """Names for them, which we do not keep."""
  return {str(i): f"LABEL_{i}" for i in range(model["classes"])}


CLASSES = (
  Field("id2label", "classes", 2, read=classes, write=labels),
  Field(
    "label2id",
    "classes",
    2,
    read=classes,
    write=lambda model: {name: int(i) for i, name in labels(model).items()},
  ),
)


def of_heads(features: int, heads: int) -> dict[str, int]:
  """The letters of attention: N heads of H features each, of D.

  Raises:
    Unreadable: D is no multiple of N.
  """
  if heads < 1 or features % heads:
    raise Unreadable(f"{features} features do not divide into {heads} heads")
  return {"d": features, "n": heads, "h": features // heads}


def hidden(model: Mapping[str, Any]) -> int:
  """F, inside the MLP."""
  return model["mlp_features"] or 4 * model["features"]
