"""Mutated configs, and what must become of each: the generator and the oracle of the fuzz tests.

A mutation is one mistake in a config that builds. What a reader of the dataclasses would say of it
is decided here, without the code under test: `admits` reads annotations by itself.
"""

import ast
import copy
import dataclasses
import functools
import importlib
import math
import pathlib
import random
import string
import types
import typing
import warnings
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import numpy as np

from data import tokenizers
from training import build, config, lora, optim
from training.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("experiments/*/*.py"))
LETTERS = string.ascii_lowercase + "_" + string.digits
PLACES = {
  "model": ("models", "Model"),
  "task": ("tasks", "Task"),
  "data": ("data", "Source"),
}
CANARY = "config_canary"  # no file of this name may ever come to be


class Block(NamedTuple):
  """A block of a config.

  Attributes:
    where: its dotted key; empty for the top.
    cls: what reads it; None for a stage, which holds blocks alone.
    spec: what stands in it.
    beside: keys that it may have besides the fields of `cls`.
    name: which is that class's, written here or in the shared block.
    facts: fields that the data gives where the block leaves them out.
  """

  where: str
  cls: type | None
  spec: dict[str, Any]
  beside: tuple[str, ...]
  name: str = ""
  facts: tuple[str, ...] = ()

  def key(self, name: str) -> str:
    return f"{self.where}.{name}" if self.where else name

  @property
  def kinds(self) -> dict[str, Any]:
    """The settings of the block, with their annotations."""
    if self.cls is None:
      return {}
    hints = hints_of(self.cls)
    decided = ("dtype", "remat") if self.where.split(".")[-1] == "model" else ()
    return {name: hints[name] for name in config.fields(self.cls) if name not in decided}

  @property
  def known(self) -> set[str]:
    """Every key that something reads here, or says who reads it."""
    return {*self.beside, *(config.fields(self.cls) if self.cls else ())}


class Mutation(NamedTuple):
  """One mistake.

  Attributes:
    base: FILE:variant.
    kind: of the mistake.
    path: the dotted key that it is about.
    value: what stands there now; `...` where that says nothing.
    verdict: "invalid" must be refused; "judged" may be accepted where `value` is then what counts.
    right: the name that must be suggested; empty for none.
    tree: the config, or None where `texts` are overrides of the base.
    texts: (dotted key, text) of a command line.
  """

  base: str
  kind: str
  path: str
  value: Any
  verdict: str
  right: str = ""
  tree: dict[str, Any] | None = None
  texts: tuple[tuple[str, str], ...] = ()

  def made(self):
    """The config, as `build` gets it."""
    if self.tree is not None:
      return self.tree
    return config.override(loaded(self.base), self.texts)

  def __str__(self) -> str:
    return f"{self.kind} {self.base} {self.path[:80]} = {config.shown(self.value)}"


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
  return typing.get_type_hints(cls, include_extras=True)


@functools.cache
def loaded(base: str):
  return config.load(str(ROOT / base))


def plain(value):
  """Nested dicts and lists that a mutation may change."""
  if hasattr(value, "items"):
    return {key: plain(item) for key, item in value.items()}
  if isinstance(value, tuple | list):
    return [plain(item) for item in value]
  return copy.deepcopy(value)


class Base(NamedTuple):
  tree: dict[str, Any]
  blocks: tuple[Block, ...]
  shares: bool  # whether its batch divides into the devices at hand


@functools.cache
def base_of(reference: str) -> Base | None:
  """A config that builds here, or None: its data may be elsewhere."""
  tree = plain(loaded(reference).to_dict())
  try:
    found = build.build(tree)
  except UserError:
    return None
  try:
    build.check_shares(found)
  except UserError:
    return Base(tree, tuple(blocks_of(tree)), False)
  return Base(tree, tuple(blocks_of(tree)), True)


@functools.cache
def bases(variants: tuple[str, ...] = config.VARIANTS) -> tuple[str, ...]:
  every = [f"{experiment}:{variant}" for experiment in EXPERIMENTS for variant in variants]
  return tuple(reference for reference in every if base_of(reference) is not None)


def class_of(block: str, name: str) -> type:
  """What a block's name means."""
  if block == "optimizer":
    return optim.NAMES[name]
  room, attribute = PLACES[block]
  return getattr(importlib.import_module(f"{room}.{name.partition(':')[0]}"), attribute)


def blocks_of(tree) -> list[Block]:
  """Every block of a config whose class is certain."""
  found = [Block("", build.Run, tree, (*build.BLOCKS, "stages"))]
  found += _blocks_in(tree, "", {}, "stages" not in tree)
  for i, stage in enumerate(tree.get("stages", ())):
    where = f"stages.{i}"
    found.append(Block(where, None, stage, (*build.BLOCKS, "name")))
    found += _blocks_in(stage, f"{where}.", tree, False)
  return found


def _blocks_in(scope, prefix: str, shared, alone: bool) -> list[Block]:
  found = []
  for name in build.BLOCKS:
    if name not in scope:
      continue
    spec, where = scope[name], f"{prefix}{name}"
    if name == "training":
      found.append(Block(where, build.Training, spec, ()))
      continue
    under = shared[name] if name in shared else {}
    named = spec["name"] if "name" in spec else under["name"] if "name" in under else None
    if name == "optimizer" and named is None and (prefix or alone):
      named = "adam"
    if named is None:
      continue
    cls = class_of(name, named)
    facts = ("data_shape", "classes", "vocabulary", "length") if name == "model" else ()
    more = {"model": ("lora",), "optimizer": ("per_phase",)}.get(name, ())
    found.append(Block(where, cls, spec, ("name", *more), named, facts))
    if name == "model" and "lora" in spec:
      found.append(Block(f"{where}.lora", lora.Lora, spec["lora"], ()))
    for phase, own in spec.get("per_phase", {}).items() if name == "optimizer" else ():
      own_cls = class_of(name, own.get("name", named))
      found.append(Block(f"{where}.per_phase.{phase}", own_cls, own, ("name",)))
  return found


# The oracle.


def admits(value: Any, kind: Any) -> bool:
  """Whether a value is what an annotation says, range and all."""
  origin, inner = get_origin(kind), get_args(kind)
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if origin is Annotated:
    marks = [mark for mark in inner[1:] if isinstance(mark, str) and mark != config.TRACED]
    return admits(value, inner[0]) and all(within(value, mark) for mark in marks)
  if origin is Literal:
    return any(type(value) is type(option) and value == option for option in inner)
  if origin in (typing.Union, types.UnionType):
    return any(admits(value, option) for option in inner)
  if kind is type(None):
    return value is None
  if kind is Any:
    return True
  if kind is int:
    return number and _finite(value) and value == math.floor(value) and -(2**63) <= value < 2**63
  if kind is float:
    return number and _finite(value) and abs(value) < 2**1024
  if kind in (bool, str):
    return type(value) is kind
  if origin is tuple:
    if not isinstance(value, tuple | list):
      return False
    if inner[-1] is not Ellipsis:
      return len(value) == len(inner) and all(map(admits, value, inner))
    return all(admits(item, inner[0]) for item in value)
  if origin is dict:
    return isinstance(value, dict) and all(
      admits(k, inner[0]) and admits(v, inner[1]) for k, v in value.items()
    )
  raise AssertionError(f"teach this oracle about {kind}")


def _finite(value) -> bool:
  return isinstance(value, int) or math.isfinite(value)


def within(value, interval: str) -> bool:
  low, high = (float(end) for end in interval[1:-1].split(","))
  return not (
    value < low
    or value > high
    or (value == low and interval[0] == "(")
    or (value == high and interval[-1] == ")")
  )


def intervals(kind: Any, wrap=lambda value: value):
  """(interval, base type, how to put a value where the interval is) of every range in a kind."""
  origin, inner = get_origin(kind), get_args(kind)
  if origin is Annotated:
    for mark in inner[1:]:
      if isinstance(mark, str) and mark != config.TRACED:
        yield mark, inner[0], wrap
  elif origin is tuple:
    count = 1 if inner[-1] is Ellipsis else len(inner)
    yield from intervals(inner[0], lambda value: wrap([value] * count))
  elif origin is dict:
    yield from intervals(inner[1], lambda value: wrap({get_args(inner[0])[0]: value}))
  elif origin in (typing.Union, types.UnionType):
    for option in inner:
      yield from intervals(option, wrap)


def options_of(kind: Any) -> list[str]:
  """The names among which an annotation lets choose."""
  origin, inner = get_origin(kind), get_args(kind)
  if origin is Literal:
    return [option for option in inner if isinstance(option, str)]
  if origin in (Annotated, typing.Union, types.UnionType, tuple):
    return [name for option in inner for name in options_of(option)]
  return []


def default_of(cls: type, name: str):
  """A field's default, or `...`."""
  field = config.fields(cls)[name]
  if field.default is not dataclasses.MISSING:
    return field.default
  return ... if field.default_factory is dataclasses.MISSING else field.default_factory()


# Values.

NESTED = functools.reduce(lambda inner, _: [inner], range(60), 1)
TANGLED = functools.reduce(lambda inner, _: {"x": inner}, range(60), 1)
VALUES = (
  True, False, None, 0, 1, -1, 3, 7, 1.5, 0.5, -0.5, 3.0, 1e300, -1e300, 1e-320, math.nan, math.inf,
  -math.inf, "fast", "", "3", "nan", "True", [], [1], [0.5], ["a"], [[]], {}, {"a": 1}, {"name": 3},
  2**31, 2**32, 2**40, 2**63, 10**18, 10**400, -(10**400), 16**5000, "\0", "é", "\u202e", "\n",
  "x" * 2000, b"x", {1, 2}, 1j, {1: 2}, {None: 1}, (), (3, 4), NESTED, TANGLED,
  f"__import__('os').system('touch {CANARY}')", "os.system", "../x",
)  # fmt: skip
TEXTS = (
  "nan", "inf", "-inf", "1e999", "True", "true", "None", "3.5", "3", "-1", "[", "(((", "{", "[1, 2",
  "'", '"', "{'x': 1}", "{'a.b': 1}", "{[]: 1}", "__class__", "1" * 5000, "0x" + "f" * 5000,
  "[" * 5000, "(" * 150 + ")" * 150, "-" * 3000 + "1", "\\x", "'\\d'", "1if 2else 3", "1_000", "1e3",
  "²", "٣", "\0", "\udc80", "lambda: 0", f"__import__('os').system('touch {CANARY}')",
  f"open('{CANARY}', 'w')", f"!!python/object/apply:os.system ['touch {CANARY}']",
  "{'_target_': 'os.system'}", "{'name': {'name': 1}}", "[1,]", "()", "{}", "[]", "''",
)  # fmt: skip
SUFFIXES = (
  ".x",
  ".0",
  ".0.x",
  ".",
  "..x",
  ".__class__",
  ".-1",
  ".items",
  "." + ".".join("a" * 1200),
)


def literal(text: str):
  """What a text of a command line says."""
  if text in ("true", "false"):
    return text == "true"
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
    return text


def edited(generator: random.Random, name: str) -> str:
  """`name` with one letter lost, added, mistaken, or exchanged with its neighbour."""
  at = generator.randrange(len(name))
  letter = generator.choice(LETTERS)
  match generator.choice(["insert", "delete", "substitute", "transpose"]):
    case "insert":
      at = generator.randrange(len(name) + 1)
      return name[:at] + letter + name[at:]
    case "delete":
      return name[:at] + name[at + 1 :]
    case "substitute":
      return name[:at] + letter + name[at + 1 :]
  return name[:at] + name[at : at + 2][::-1] + name[at + 2 :]


def boundaries(kind: Any) -> list[Any]:
  """Values at, and on both sides of, the ends of every range of a kind."""
  found = []
  for interval, base, wrap in intervals(kind):
    for end in (float(end) for end in interval[1:-1].split(",")):
      if math.isinf(end):
        continue
      if base is int:
        near = [int(end) - 1, int(end), int(end) + 1, int(end) + 0.5]
      else:
        near = [end, float(np.nextafter(end, -np.inf)), float(np.nextafter(end, np.inf))]
      found += [wrap(value) for value in (*near, -end, math.nan, math.inf, -math.inf, True)]
  return found


def at(tree, path: str):
  """What stands at a dotted path, or `...`."""
  for part in path.split(".") if path else ():
    if isinstance(tree, list | tuple) and part.isdecimal() and int(part) < len(tree):
      tree = tree[int(part)]
    elif isinstance(tree, dict) and part in tree:
      tree = tree[part]
    else:
      return ...
  return tree


# The mistakes. Each takes (generator, base) and gives a Mutation, or None where it finds no place.


class _Making:
  """A generator of one mutation of one base."""

  def __init__(self, generator: random.Random, reference: str):
    self.generator, self.reference = generator, reference
    self.base = base_of(reference)
    self.tree = copy.deepcopy(self.base.tree)

  def block(self, wanted=lambda block: True) -> Block | None:
    found = [block for block in self.base.blocks if wanted(block)]
    return self.generator.choice(found) if found else None

  def put(self, block: Block, name, value, without: str = "") -> None:
    place = at(self.tree, block.where)
    if without:
      place.pop(without, None)
    place[name] = copy.deepcopy(value)

  def set(self, kind: str, block: Block, name: str, value, verdict: str, right: str = ""):
    """`block.name = value`, in the config or on the command line."""
    path = block.key(name)
    spoken = type(name) is str and "." not in name and name and self.generator.random() < 0.25
    if spoken:
      try:
        text = value if type(value) is str else repr(value)
      except ValueError:
        spoken = False
    if spoken and _same(literal(text), value):
      return Mutation(self.reference, kind, path, value, verdict, right, texts=((path, text),))
    self.put(block, name, value)
    return Mutation(self.reference, kind, path, value, verdict, right, tree=self.tree)

  def typo_of_a_key(self):
    block = self.block()
    names = sorted({*block.kinds, *block.beside} - {""})
    present = [name for name in names if name in block.spec]
    name = self.generator.choice(present if present and self.generator.random() < 0.5 else names)
    wrong = edited(self.generator, name)
    if wrong in block.known:
      return None
    value = block.spec[name] if name in block.spec else 1
    if block.cls and name in block.kinds and name not in block.spec:
      value = default_of(block.cls, name)
      value = 1 if value is ... else value
    if self.generator.random() < 0.25 and wrong and type(value) is not str:
      return self.set("typo_of_a_key", block, wrong, value, "invalid", name)
    self.put(block, wrong, value, without=name)
    return Mutation(
      self.reference, "typo_of_a_key", block.key(wrong), value, "invalid", name, tree=self.tree
    )

  def typo_of_a_name(self):
    block = self.block(lambda block: "name" in block.spec and block.cls)
    if block is None:
      return None
    name = block.spec["name"]
    wrong = edited(self.generator, name)
    room = block.where.split(".")[-1]
    room = "optimizer" if "per_phase" in block.where else room
    file, colon, dataset = name.partition(":")
    own, own_colon, own_dataset = wrong.partition(":")
    if wrong == name or (not own_colon and own in names_of(room)):
      return None
    if own_colon and own == file and own_dataset != dataset:
      choices = options_of(hints_of(block.cls)["dataset"])
      if own_dataset in choices:
        return None
      if file == "tfds" or dataset.startswith("tfds:"):  # any name may be one
        return self.set("typo_of_a_dataset", block, "name", wrong, "judged")
      return self.set("typo_of_a_name", block, "name", wrong, "invalid", dataset)
    if own_colon and own in names_of(room):  # another file of data, which may have that data set
      return self.set("typo_of_a_name", block, "name", wrong, "judged")
    return self.set("typo_of_a_name", block, "name", wrong, "invalid", file)

  def typo_of_a_choice(self):
    block = self.block(lambda block: any(options_of(kind) for kind in block.kinds.values()))
    fields = {name: kind for name, kind in block.kinds.items() if options_of(kind)}
    name = self.generator.choice(sorted(fields))
    right = self.generator.choice(options_of(fields[name]))
    wrong = edited(self.generator, right) if right else "x"
    if wrong in options_of(fields[name]) or not right:
      return None
    value = [wrong] if get_origin(fields[name]) is tuple else wrong
    if admits(value, fields[name]):
      return None  # it may be any text as well
    if name == "dataset" and ":" in block.name:
      return None  # said twice
    if "stages" in self.tree and name not in block.spec and not block.where.startswith("stages"):
      return None  # every stage may have its own
    return self.set("typo_of_a_choice", block, name, value, "invalid", right)

  def typo_of_a_tokenizer(self):
    block = self.block(lambda block: block.kinds.get("tokenizer") is str)
    if block is None or ("stages" in self.tree and not block.where.startswith("stages")):
      return None
    right = self.generator.choice(tokenizers.KINDS)
    wrong = edited(self.generator, right)
    if wrong in tokenizers.KINDS:
      return None
    return self.set("typo_of_a_tokenizer", block, "tokenizer", wrong, "invalid", right)

  def typo_of_an_axis(self):
    where = self.block(lambda block: block.cls is build.Training)
    if where is None:
      return None
    right = self.generator.choice(sorted(build.MESH))
    wrong = edited(self.generator, right)
    if wrong in build.MESH:
      return None
    return self.set("typo_of_an_axis", where, "mesh", {wrong: 1}, "invalid", right)

  def typo_of_a_phase(self):
    block = self.block(lambda block: "per_phase" in block.spec)
    if block is None:
      return None
    right = self.generator.choice(sorted(block.spec["per_phase"]))
    wrong = edited(self.generator, right)
    if wrong in block.spec["per_phase"]:
      return None
    phases = dict(block.spec["per_phase"])
    phases[wrong] = phases.pop(right)
    return self.set("typo_of_a_phase", block, "per_phase", phases, "invalid", right)

  def unknown_key(self):
    block = self.block()
    size = self.generator.randrange(1, 30)
    name = "".join(self.generator.choices(LETTERS, k=size))
    odd = ["", "unheard of", "__class__", "_target_", "é", "\0", "items", "get", "x" * 600, 3, None]
    if self.generator.random() < 0.4:
      name = self.generator.choice(odd)
    if block.where.endswith("model") and self.generator.random() < 0.1:
      name = self.generator.choice(["dtype", "remat", "parent"])
    elif name in block.known:
      return None
    value = self.generator.choice(VALUES)
    return self.set("unknown_key", block, name, value, "invalid")

  def value(self):
    block = self.block(lambda block: block.kinds)
    name = self.generator.choice(sorted(block.kinds))
    return self._judged(block, name, self.generator.choice(VALUES))

  def boundary(self):
    block = self.block(lambda block: any(boundaries(kind) for kind in block.kinds.values()))
    name = self.generator.choice(sorted(n for n, kind in block.kinds.items() if boundaries(kind)))
    return self._judged(block, name, self.generator.choice(boundaries(block.kinds[name])))

  def element(self):
    """An element of a list that is right otherwise."""
    lists = lambda block: {  # noqa: E731
      name: kind
      for name, kind in block.kinds.items()
      if get_origin(kind) is tuple and isinstance(block.spec.get(name), list) and block.spec[name]
    }
    block = self.block(lists)
    if block is None:
      return None
    name = self.generator.choice(sorted(lists(block)))
    whole = copy.deepcopy(block.spec[name])
    whole[self.generator.randrange(len(whole))] = self.generator.choice(VALUES)
    return self._judged(block, name, whole)

  def _judged(self, block: Block, name: str, value):
    verdict = "judged" if admits(value, block.kinds[name]) else "invalid"
    return self.set("value", block, name, value, verdict)

  def no_such_name(self):
    block = self.block(lambda block: "name" in block.spec and block.cls)
    if block is None:
      return None
    name = block.spec["name"]
    value = self.generator.choice(
      [
        "../x", "os.system", f"{name}.Model", "__import__", f"{name}\0", name.upper(), f"é{name}", ".",
        "..", f"{name}.", f".{name}", f"models.{name}", name.replace(".", "/") + ".py", "/etc/passwd",
        "__init__", "vae.__init__", "vae", "vae.*", "", 5, None, True, [name], {"name": name}, 1.5,
        f"__import__('os').system('touch {CANARY}')", "x" * 3000, name + "\n", " " + name, "layers",
        "layers.attention", "source", "objective", "views", name + "​", ":", f":{name}", "Optimizer",
        "abc.ABC", "builtins.eval", "training.optim.Adam",
      ]
    )  # fmt: skip
    return self.set("no_such_name", block, "name", value, "invalid")

  def no_block(self):
    """A block, or the list of stages, that is something else, or not there."""
    scopes = [block for block in self.base.blocks if block.cls in (None, build.Run)]
    scope = self.generator.choice(scopes)
    names = [name for name in (*build.BLOCKS, "stages") if name in scope.spec]
    names += [name for name in ("model", "task", "data") if name not in scope.spec and not names]
    if not names:
      return None
    name = self.generator.choice(names)
    odd = [5, 1.5, True, None, "vae.gaussian", "", [], [{}], [1], math.nan, "\0", NESTED, 16**5000]
    value = self.generator.choice([*odd, {}] if name == "stages" else odd)
    if name == "stages" and value == [{}]:
      return None
    return self.set("no_block", scope, name, value, "invalid")

  def odd_stages(self):
    """A list of stages that is not one, or has one too many."""
    stages = self.tree.get("stages")
    if not stages:
      value = self.generator.choice([[], {}, None, 5, "x", True, [5], [None], ["x"], [[]]])
      return self.set("odd_stages", self.base.blocks[0], "stages", value, "invalid")
    i = self.generator.randrange(len(stages))
    name = self.generator.choice(["twice", "inner", "element", "name", "extra"])
    match name:
      case "twice":
        stages.append(copy.deepcopy({**stages[i], "name": stages[i].get("name", "x")}))
        if "name" not in stages[i]:
          return None
      case "inner":
        stages[i]["stages"] = [{}]
      case "element":
        stages[i] = self.generator.choice([None, 3, "x", [], True, [{}]])
      case "name":
        stages[i]["name"] = self.generator.choice([None, 3, True, [], {}, 1.5, ["a"]])
      case "extra":
        stages[i][self.generator.choice(["seed", "init_from", "steps", "", "x"])] = 1
    return Mutation(
      self.reference, f"odd_stages_{name}", f"stages.{i}", ..., "invalid", tree=self.tree
    )

  def deleted(self):
    """A key that is not there any more: right only where something else says it."""
    block = self.block(lambda block: block.cls and block.spec)
    names = [name for name in block.spec if name in block.known]
    if not names:
      return None
    name = self.generator.choice(sorted(names))
    del at(self.tree, block.where)[name]
    verdict = "judged"
    alone = "stages" not in self.tree
    if alone and name == "name" and "optimizer" not in block.where:
      verdict = "invalid"
    if alone and name in block.kinds and default_of(block.cls, name) is ...:
      verdict = "judged" if name in block.facts else "invalid"
    if alone and not block.where and name in ("model", "task", "data"):
      verdict = "invalid"
    return Mutation(self.reference, "deleted", block.key(name), ..., verdict, tree=self.tree)

  def text(self):
    """Whatever a command line may say."""
    leaves = [(block, name) for block in self.base.blocks for name in block.kinds]
    block, name = self.generator.choice(leaves)
    path, text = block.key(name), self.generator.choice(TEXTS)
    value, kind = literal(text), block.kinds[name]
    if self.generator.random() < 0.3:
      path += self.generator.choice(SUFFIXES)
      there = block.spec[name] if name in block.spec else ...
      verdict = "invalid"
      if path.endswith(".0") and isinstance(there, list) and there:
        verdict = "judged" if admits([value, *there[1:]], kind) else "invalid"
      elif get_origin(kind) is dict:
        verdict = "judged" if path.count(".") == 1 + block.key(name).count(".") else "invalid"
      value = value if verdict == "invalid" else ...
    else:
      verdict = "judged" if admits(value, kind) else "invalid"
    return Mutation(self.reference, "text", path, value, verdict, texts=((path, text),))

  def heads(self):
    """Heads that do not divide the width."""
    block = self.block(lambda block: {"heads", "features"} <= set(block.kinds))
    if block is None:
      return None
    spec = {**{n: default_of(block.cls, n) for n in ("heads", "features")}, **block.spec}
    heads = self.generator.randrange(2, 3 * spec["features"])
    if spec["features"] % heads == 0:
      return None
    # T5 and its like give heads a width of their own.
    own = {"width", "head_width", "head_features"} & set(block.kinds)
    return self.set("heads", block, "heads", heads, "judged" if own else "invalid")

  def microbatches(self):
    block = self.block(lambda block: block.cls is build.Training)
    if block is None or not self.base.shares or "stages" in self.tree:
      return None
    return self.set("microbatches", block, "microbatches", 10**9 + 7, "invalid")


KINDS = {
  "typo_of_a_key": 6,
  "typo_of_a_name": 3,
  "typo_of_a_choice": 3,
  "typo_of_a_tokenizer": 1,
  "typo_of_an_axis": 1,
  "typo_of_a_phase": 1,
  "unknown_key": 2,
  "value": 5,
  "boundary": 4,
  "element": 1,
  "no_such_name": 2,
  "no_block": 1,
  "odd_stages": 1,
  "deleted": 2,
  "text": 3,
  "heads": 1,
  "microbatches": 1,
}


@functools.cache
def names_of(block: str) -> frozenset[str]:
  """Every name that a block may have."""
  if block == "optimizer":
    return frozenset(optim.NAMES)
  room, attribute = PLACES[block]
  return frozenset(
    ".".join(path.relative_to(ROOT / room).with_suffix("").parts)
    for path in (ROOT / room).rglob("*.py")
    if f"\nclass {attribute}(" in path.read_text()
    and (room, path.stem) not in (("data", "source"), ("tasks", "objective"), ("tasks", "views"))
  )


def mutations(seed: int, count: int, *, kinds=tuple(KINDS), variants=config.VARIANTS):
  """`count` mutations, the same for the same seed."""
  generator = random.Random(seed)
  every, weights = bases(variants), [KINDS[kind] for kind in kinds]
  made = 0
  while made < count:
    kind = generator.choices(kinds, weights)[0]
    mutation = getattr(_Making(generator, generator.choice(every)), kind)()
    if mutation is not None:
      made += 1
      yield mutation


def _same(a, b) -> bool:
  return type(a) is type(b) and (a == b or repr(a) == repr(b))


def suggested(line: str) -> list[str]:
  """The names that a message asks whether one meant."""
  _, asked, rest = line.partition("did you mean ")
  said = rest.partition("?")[0]
  return [part for part in said.split("'")[1::2]] if asked else []


def counts(resolved, path: str, value) -> bool:
  """Whether a value is what a resolved config has at a path, or some stage where it is shared."""
  places = [path]
  if path.split(".")[0] in build.BLOCKS:
    places += [f"stages.{i}.{path}" for i in range(len(resolved.get("stages", ())))]
  return any(holds(at(resolved, place), value) for place in places)


def holds(found, value) -> bool:
  if isinstance(value, dict):
    return isinstance(found, dict) and all(
      key in found and holds(found[key], item) for key, item in value.items()
    )
  if isinstance(value, list | tuple):
    return (
      isinstance(found, list | tuple) and len(found) == len(value) and all(map(holds, found, value))
    )
  return found == value and isinstance(found, bool) == isinstance(value, bool)
