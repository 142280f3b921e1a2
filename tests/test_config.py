"""Configs and the command line: whatever nothing reads is refused, in one line, before anything runs.

Fields are found by introspection, so a new model, task, source or optimizer is covered when its file
exists.
"""

import copy
import dataclasses
import difflib
import functools
import importlib
import itertools
import json
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import time
import types
import typing
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import jax
import ml_collections
import numpy as np
import pytest

import launch
from training import build, config, initial, optim
from training.errors import ConfigError, DataError, UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("experiments/*/*.py"))
VAE = "experiments/vae/gaussian_digits.py"
STACKED = "experiments/autoencoder/stacked_digits.py"
RESNET = "experiments/convnet/resnet_digits.py"
GAN = "experiments/gan/mlp_digits.py"


@pytest.fixture(autouse=True)
def _root(monkeypatch):
  monkeypatch.chdir(ROOT)
  # In process, nothing may change where the tests compile to.
  monkeypatch.setattr(launch, "_start_jax", lambda **_: None)


@functools.cache
def _loaded(experiment, variant):
  return plain(config.load(f"{ROOT / experiment}:{variant}").to_dict())


def tree_of(experiment, variant="smoke") -> dict:
  """A config as nested dicts and lists that a test may change."""
  return copy.deepcopy(_loaded(experiment, variant))


def plain(value):
  if hasattr(value, "items"):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, tuple | list) and any(hasattr(v, "items") for v in value):
    return [plain(v) for v in value]
  return copy.deepcopy(value)


def put(tree, key, value):
  *parents, last = key.split(".")
  for part in parents:
    tree = tree[int(part)] if isinstance(tree, list) else tree.setdefault(part, {})
  tree[int(last) if isinstance(tree, list) else last] = value


def one_line(error) -> str:
  """The message of a UserError, which a terminal shows in one piece."""
  line = str(error)
  assert "\n" not in line
  assert len(line) <= 500
  assert line.startswith(f"error[{error.code}]: ")
  return line


def checked(tree):
  """Built, and checked against the devices at hand, as `train` does."""
  found = build.build(tree)
  build.check_shares(found)
  return found


def refused(tree) -> str:
  with pytest.raises(ConfigError) as error:
    checked(tree)
  assert error.value.status == 2
  return one_line(error.value)


# Every class that a config can name, and a config in which it is named.


class Site(NamedTuple):
  cls: type
  experiment: str
  where: str  # the block's dotted key; empty for the top
  block: dict[str, Any] | None  # what stands there instead of the experiment's own

  def tree(self, **changes):
    tree = tree_of(self.experiment)
    if self.block is not None:
      put(tree, self.where, dict(self.block))
    for name, value in changes.items():
      put(tree, f"{self.where}.{name}" if self.where else name, value)
    return tree

  def key(self, name):
    return f"{self.where}.{name}" if self.where else name

  @property
  def title(self):
    return f"{self.cls.__module__}.{self.cls.__qualname__}"


def classes(room, attribute):
  for path in sorted((ROOT / room).rglob("*.py")):
    if f"\nclass {attribute}(" in path.read_text():
      name = ".".join(path.relative_to(ROOT / room).with_suffix("").parts)
      cls = getattr(importlib.import_module(f"{room}.{name}"), attribute)
      if cls.__name__ == attribute and not getattr(cls, "__abstractmethods__", None):
        yield name, cls


def _dataset(cls):
  """A data set that a source with a choice of them knows."""
  hints = typing.get_type_hints(cls)
  options = get_args(hints["dataset"]) if "dataset" in hints else ()
  return options[0] if options else "mnist"


def _models_of_rivals(experiment):
  """Whole `model` blocks that a claim puts in the place of the experiment's own."""
  for claim in config.experiment(experiment).CLAIMS:
    for changes in claim.get("rivals", ()):
      if isinstance(changes, dict) and "name" in changes.get("model", {}):
        yield changes["model"]


def sites():
  found = {
    build.Run: Site(build.Run, VAE, "", None),
    build.Training: Site(build.Training, VAE, "training", None),
  }
  for experiment in EXPERIMENTS:
    tree = tree_of(experiment)
    blocks = {key: tree[key] for key in ("model", "task", "data") if key in tree}
    for rival in _models_of_rivals(experiment):
      cls = importlib.import_module(f"models.{rival['name']}").Model
      found.setdefault(cls, Site(cls, experiment, "model", rival))
    for i, stage in enumerate(tree.get("stages", ())):
      blocks |= {
        f"stages.{i}.{key}": stage[key] for key in ("model", "task", "data") if key in stage
      }
    for where, block in blocks.items():
      if "name" not in block:  # a stage's change of the shared block
        continue
      room, attribute = {
        "model": ("models", "Model"),
        "task": ("tasks", "Task"),
        "data": ("data", "Source"),
      }[where.split(".")[-1]]
      name, _, dataset = block["name"].partition(":")
      cls = getattr(importlib.import_module(f"{room}.{name}"), attribute)
      # Spelled out, so that a test may set the data set as it sets any field.
      own = {**block, "name": name, "dataset": dataset} if dataset else None
      found.setdefault(cls, Site(cls, experiment, where, own))
  for name, cls in classes("data", "Source"):  # some have no experiment
    spec = {"name": name} | ({"dataset": _dataset(cls)} if "dataset" in config.fields(cls) else {})
    found.setdefault(cls, Site(cls, VAE, "data", spec))
  for name, cls in optim.NAMES.items():
    found[cls] = Site(cls, VAE, "optimizer", {"name": name})
  return list(found.values())


SITES = sites()
by_class = pytest.mark.parametrize("site", SITES, ids=[site.title for site in SITES])


def settable(site):
  """The fields of a class that are its block's to set, with their annotations."""
  hints = typing.get_type_hints(site.cls, include_extras=True)
  decided = ("dtype", "remat") if site.where.endswith("model") else ()
  return {name: hints[name] for name in config.fields(site.cls) if name not in decided}


def test_every_class_that_a_config_can_name_is_here():
  found = {site.cls for site in SITES}
  for experiment, variant in itertools.product(EXPERIMENTS, config.VARIANTS):
    # Some networks are of a published setting alone.
    try:
      stages = build.build(tree_of(experiment, variant)).stages
    except DataError:
      continue
    found |= {type(part) for stage in stages for part in (stage.model, stage.task, stage.source)}
  for room, attribute in (("models", "Model"), ("tasks", "Task"), ("data", "Source")):
    assert {cls for _, cls in classes(room, attribute)} <= found
  assert len(found) >= 18


# Keys.


def edits(name):
  """Names one edit away: a letter lost, doubled, exchanged with its neighbour, or mistaken."""
  for i in range(len(name)):
    yield name[:i] + name[i + 1 :]
    yield name[:i] + name[i] + name[i:]
    yield name[:i] + "z" + name[i + 1 :]
    if i and len(name) > 2:  # of two letters it is two edits, as near to another name
      yield name[: i - 1] + name[i] + name[i - 1] + name[i + 1 :]


def one_edit_apart(a, b):
  return (
    b in set(edits(a))
    or a in set(edits(b))
    or (len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1)
  )


@by_class
def test_every_typo_of_every_field_is_refused_with_the_right_name(site):
  known = set(config.fields(site.cls)) | {"name", "per_phase", *build.BLOCKS, "stages"}
  for name in settable(site):
    for typo in sorted({edit for edit in edits(name) if edit} - known):
      line = refused(site.tree(**{typo: 1}))
      assert re.search(rf"config\.(stages\.0\.)?{re.escape(site.key(typo))}", line)
      assert site.title in line
      # Of a very short name several are one edit away ("b" is near to "b1" and to "b2").
      suggestion = line.partition("did you mean '")[2].partition("'")[0]
      assert suggestion == name or one_edit_apart(suggestion, typo), f"{typo}: {line}"


@pytest.mark.parametrize(
  ("key", "right"),
  [
    ("modle", "model"),
    ("stage", "stages"),
    ("optimiser", "optimizer"),
    ("trainning", "training"),
    ("stages.0.trainning", "training"),
    ("stages.3.optimiser", "optimizer"),
    ("stages.1.nam", "name"),
  ],
)
def test_typos_of_blocks_are_refused_with_the_right_name(key, right):
  tree = tree_of(STACKED)
  put(tree, key, {})
  line = refused(tree)
  assert f"config.{key}" in line
  assert f"did you mean '{right}'" in line


def test_typos_of_commands_are_refused_with_the_right_name(capsys):
  _, commands = launch._parser()
  assert len(commands) > 8
  for name in commands:
    for typo in sorted({edit for edit in edits(name) if edit} - set(commands)):
      with pytest.raises(SystemExit) as stopped:
        launch.main([typo, "--workdir=w"])
      assert stopped.value.code == 2
      line = capsys.readouterr().err.splitlines()[-1]
      meant = line.partition("; did you mean ")[2].partition("?")[0]
      assert repr(name) in meant, line  # 'eport' is as near to 'export' as to 'report'


def test_a_message_is_one_line_whatever_it_quotes():
  assert "config.se d" in refused(tree_of(VAE) | {"se\n\t d": 1})


@pytest.mark.parametrize("value", ["vae.gausian", "vae", "gaussian", 5, None, ["vae.gaussian"], {}])
@pytest.mark.parametrize("block", ["model", "task", "data", "optimizer"])
def test_names_that_name_nothing_are_refused(block, value):
  tree = tree_of(VAE)
  put(tree, f"{block}.name", value)
  assert f"config.{block}.name" in refused(tree)


@pytest.mark.parametrize(
  ("block", "value", "right"),
  [
    ("model", "vae.gausian", "vae.gaussian"),
    ("task", "elbow", "elbo"),
    ("data", "digit", "digits"),
    ("data", "idxx:mnist", "idx"),
    ("optimizer", "adamm", "adam"),
  ],
)
def test_mistyped_names_are_answered_with_the_right_one(block, value, right):
  tree = tree_of(VAE)
  put(tree, f"{block}.name", value)
  assert f"did you mean '{right}'" in refused(tree)


def test_the_abstract_source_is_no_name():
  tree = tree_of(VAE)
  tree["data"] = {"name": "source"}
  refused(tree)


@pytest.mark.parametrize("block", build.BLOCKS)
@pytest.mark.parametrize("value", [5, "vae.gaussian", None, [], True, 1.5])
def test_a_block_is_a_block(block, value):
  tree = tree_of(VAE)
  tree[block] = value
  assert f"config.{block}" in refused(tree)


@pytest.mark.parametrize("value", [5, "x", {}, [3], ["a"], {"0": {}}, True])
def test_stages_are_blocks(value):
  tree = tree_of(STACKED)
  tree["stages"] = value
  assert "config.stages" in refused(tree)


@pytest.mark.parametrize("value", [5, [1], True, None])
def test_a_stage_has_a_name_of_letters(value):
  tree = tree_of(STACKED)
  tree["stages"][0]["name"] = value
  assert "config.stages.0.name" in refused(tree)


def test_an_override_of_one_stage_leaves_the_others_alone():
  block = dict(features=8)
  both = ml_collections.ConfigDict(dict(stages=[dict(model=block), dict(model=block)]))
  first, second = config.override(both, [["stages.1.model.features", "32"]]).stages
  assert (first["model"]["features"], second["model"]["features"]) == (8, 32)
  assert block == dict(features=8)


def test_a_stage_that_takes_nothing_over_is_refused():
  changed = config.override(
    config.load("experiments/alignment/dpo_kjv.py:smoke"), [["stages.1.model.features", "32"]]
  )
  first, second, _ = build.build(changed).stages
  before = jax.eval_shape(initial.initial_state(first), jax.random.key(0), None)
  with pytest.raises(ConfigError, match="no parameter has a name and a shape"):
    jax.eval_shape(initial.initial_state(second), jax.random.key(0), before)


@pytest.mark.parametrize("missing", ["model", "task", "data"])
def test_a_missing_block_is_named(missing):
  tree = tree_of(VAE)
  del tree[missing]
  assert f"config.{missing}.name is missing" in refused(tree)


def test_a_missing_field_is_named():
  tree = tree_of(VAE)
  tree["data"] = {"name": "idx"}
  assert "config.data.dataset is missing" in refused(tree)


@pytest.mark.parametrize("field", ["dtype", "remat"])
def test_the_models_execution_is_trainings_to_decide(field):
  tree = tree_of(RESNET)
  put(tree, f"model.{field}", "bfloat16" if field == "dtype" else True)
  assert f"config.training.{field}" in refused(tree)


def test_remat_is_refused_where_nothing_can_be_recomputed():
  tree = tree_of(VAE)
  put(tree, "training.remat", True)
  assert "config.training.remat" in refused(tree)


# A key that stands in the config twice, and counts once, would be read by nothing.


@pytest.mark.parametrize("key", ["training.steps", "optimizer.learning_rate", "task.name"])
def test_a_shared_setting_that_every_stage_overrides_is_refused(key):
  assert f"config.{key}" in refused(config.override(config.load(f"{STACKED}:smoke"), [(key, "7")]))


def test_a_shared_block_that_no_stage_uses_is_refused():
  tree = tree_of(STACKED)
  tree["task"] = {"name": "elbo", "bta": 3}
  refused(tree)


def test_a_dataset_named_twice_is_refused():
  tree = tree_of(VAE)
  tree["data"] = {"name": "idx:fashion_mnist", "dataset": "mnist"}
  assert "dataset" in refused(tree)


# Phases.


def test_settings_of_a_phase_lie_over_the_shared_ones():
  tree = tree_of(GAN)
  put(tree, "optimizer.per_phase.generator.learning_rate", 0.5)
  found = build.build(tree)
  rates = [float(rate(0)) for rate in found.stages[0].rates]
  assert rates == pytest.approx([2e-4, 0.5])
  assert found.config["optimizer"]["per_phase"]["generator"]["b1"] == 0.5
  put(tree, "optimizer.per_phase.generator", {"name": "sgd"})
  # Another name is another class: nothing of Adam's is left.
  assert "b1" not in build.build(tree).config["optimizer"]["per_phase"]["generator"]


@pytest.mark.parametrize(
  ("key", "named"),
  [
    ("per_phase.genrator.learning_rate", "generator"),
    ("per_phase.generator.learning_rat", "learning_rate"),
    ("per_phases.generator.learning_rate", ""),
  ],
)
def test_typos_within_phases_are_refused(key, named):
  tree = tree_of(GAN)
  put(tree, f"optimizer.{key}", 0.5)
  line = refused(tree)
  assert f"config.optimizer.{key}".startswith(line.split()[1].rstrip(":"))
  assert not named or f"did you mean '{named}'" in line


@pytest.mark.parametrize("value", [3, "generator", ["generator"], {"generator": 3}, None])
def test_per_phase_is_blocks_by_phase(value):
  tree = tree_of(GAN)
  put(tree, "optimizer.per_phase", value)
  assert "config.optimizer.per_phase" in refused(tree)


# Types.

VALUES = (
  True,
  False,
  3,
  3.0,
  1e3,
  1.5,
  "fast",
  "",
  None,
  math.nan,
  math.inf,
  -math.inf,
  (),
  (2, 3),
  ("a",),
  {},
  {"data": 2},
  10**400,
  {1: 2},
  [[1]],
  b"x",
  {1, 2},
  1j,
)


def core(kind):
  return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def belongs(value, kind) -> bool:
  """Whether a value is of a kind, ranges apart, as a reader of the annotation would say."""
  kind = core(kind)
  origin, inner = get_origin(kind), get_args(kind)
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if kind is int:
    return number and (isinstance(value, int) or value.is_integer())
  if kind is float:
    return number and abs(value) < 1e308
  if kind in (bool, str):
    return type(value) is kind
  if origin is Literal:
    return any(value == option and type(value) is type(option) for option in inner)
  if origin is tuple:
    return isinstance(value, tuple | list) and all(belongs(item, inner[0]) for item in value)
  if origin is dict:
    return isinstance(value, dict) and all(
      belongs(k, inner[0]) and belongs(v, inner[1]) for k, v in value.items()
    )
  raise AssertionError(f"teach this test about {kind}")


@by_class
def test_values_of_another_type_are_refused(site):
  for name, kind in settable(site).items():
    for value in VALUES:
      if not belongs(value, kind):
        line = refused(site.tree(**{name: value}))
        # A setting that stages share is the first stage's, when it is wrong for all.
        key = re.escape(site.key(name))
        assert re.search(rf"config\.(stages\.0\.)?{key}", line), f"{name}={value!r}: {line}"
        if "is read by nothing: every stage has its own" in line:
          continue
        # So long a number leaves no room for more.
        assert site.title in line or len(line) == 500, line


def required(site):
  """Values for the fields without defaults."""
  given = {"data_shape": (8, 8, 1), "classes": 10, "dataset": _dataset(site.cls)}
  for side in ("", "source_", "target_"):
    given |= {f"{side}vocabulary": 20, f"{side}length": 8}
  return {
    name: given[name]
    for name, field in config.fields(site.cls).items()
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
  }


def accepted(site, name, value):
  """What becomes of a value, or ConfigError; ranges and types alone, without building."""
  return config.arguments(site.cls, {**required(site), name: value}, where=site.where)[name]


def intervals(kind, wrap=lambda value: value):
  """(interval, base type, how to put a value where the interval is) of every range in a kind."""
  origin, inner = get_origin(kind), get_args(kind)
  if origin is Annotated:
    for mark in inner[1:]:
      if isinstance(mark, str) and mark != config.TRACED:
        yield mark, inner[0], wrap
  elif origin is tuple:
    count = 1 if inner[-1] is Ellipsis else len(inner)
    yield from intervals(inner[0], lambda value: wrap((value,) * count))
  elif origin is dict:
    yield from intervals(inner[1], lambda value: wrap({get_args(inner[0])[0]: value}))
  elif origin in (typing.Union, types.UnionType):
    for option in inner:
      yield from intervals(option, wrap)


@by_class
def test_ranges_end_where_they_say(site):
  for name, kind in settable(site).items():
    for interval, base, wrap in intervals(kind):
      low, high = (float(end) for end in interval[1:-1].split(","))
      if base is int:
        after, before = (lambda x: int(x) + 1), (lambda x: int(x) - 1)
      else:
        after, before = (
          (lambda x: float(np.nextafter(x, np.inf))),
          (lambda x: float(np.nextafter(x, -np.inf))),
        )
      for end, closed, inward, outward in (
        (low, interval[0] == "[", after, before),
        (high, interval[-1] == "]", before, after),
      ):
        if math.isinf(end):
          assert not closed
          continue
        end = base(end)
        inside, outside = (end, outward(end)) if closed else (inward(end), end)
        assert accepted(site, name, wrap(inside)) == wrap(inside)
        with pytest.raises(ConfigError) as error:
          accepted(site, name, wrap(outside))
        line = one_line(error.value)
        assert f"config.{site.key(name)}" in line
        assert interval in line, f"{line} does not say {interval}"


def test_ranges_are_found():
  count = sum(len(list(intervals(kind))) for site in SITES for kind in settable(site).values())
  assert count >= 60


@by_class
def test_every_default_satisfies_its_own_annotation(site):
  for name, field in config.fields(site.cls).items():
    if name in settable(site) and name not in required(site):
      made = field.default_factory
      default = field.default if made is dataclasses.MISSING else made()
      assert accepted(site, name, default) == default


def test_whole_floats_are_ints_and_ints_are_floats():
  tree = tree_of(VAE)
  put(tree, "training.steps", 1e3)
  put(tree, "optimizer.learning_rate", 1)
  found = build.build(tree).config
  assert found["training"]["steps"] == 1000
  assert type(found["training"]["steps"]) is int
  assert type(found["optimizer"]["learning_rate"]) is float


def test_lists_are_tuples():
  tree = tree_of(RESNET)
  put(tree, "model.widths", [4, 4, 4])
  assert build.build(tree).config["model"]["widths"] == (4, 4, 4)


# What one class cannot see alone.


@pytest.mark.parametrize(("fact", "value"), [("data_shape", (9, 9, 1)), ("classes", 9)])
def test_a_models_fact_that_contradicts_the_data_is_refused(fact, value):
  tree = tree_of(RESNET)
  put(tree, f"model.{fact}", value)
  line = refused(tree)
  assert f"config.model.{fact}" in line
  assert "data" in line
  put(tree, f"model.{fact}", {"data_shape": (8, 8, 1), "classes": 10}[fact])
  build.build(tree)


@pytest.mark.parametrize(
  "settings",
  [
    {"data.batch_size": 18},
    {"data.batch_size": 16, "training.microbatches": 8},
    {"data.batch_size": 9, "training.mesh": {"data": 2}},
    {"data.batch_size": 6, "training.parallel": "pmap"},
  ],
)
def test_a_batch_that_does_not_divide_is_refused(settings):
  tree = tree_of(VAE)
  for key, value in settings.items():
    put(tree, key, value)
  line = refused(tree)
  assert "config.data.batch_size" in line
  assert str(settings["data.batch_size"]) in line


@pytest.mark.parametrize(
  "mesh",
  [{"data": 5}, {"fsdp": 8}, {"data": 3, "fsdp": 2}, {"data": 0}, {"fsdp": 0}, {"fsdp": -1}],
)
def test_a_mesh_that_does_not_fit_is_refused(mesh):
  tree = tree_of(VAE)
  put(tree, "training.mesh", mesh)
  assert "config.training.mesh" in refused(tree)


@pytest.mark.parametrize(
  "mesh", [{}, {"data": 1}, {"data": 2, "fsdp": 2}, {"fsdp": 4}, {"data": -1}]
)
def test_meshes_that_fit(mesh):
  tree = tree_of(VAE)
  put(tree, "training.mesh", mesh)
  put(tree, "data.batch_size", 64)
  # Resolved means resolved: two ways to say the same devices are the same config.
  assert build.build(tree).config["training"]["mesh"] == {
    "data": -1,
    "fsdp": 1,
    "model": 1,
    **mesh,
  }


def test_pmap_has_no_fsdp():
  tree = tree_of(VAE)
  put(tree, "training", {"parallel": "pmap", "mesh": {"data": 2, "fsdp": 2}})
  line = refused(tree)
  assert "fsdp" in line
  assert "pmap" in line


@pytest.mark.parametrize("layer", [3, 99])
def test_a_layer_that_is_not_there_is_refused(layer):
  tree = tree_of(STACKED)
  put(tree, "stages.0.task.layer", layer)
  line = refused(tree)
  assert "config.stages.0.task" in line
  assert str(layer) in line


# Resolved configs.


@pytest.mark.parametrize("variant", config.VARIANTS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_resolved_config_is_json_whole_and_builds_itself(experiment, variant):
  found = build.build(config.load(f"{experiment}:{variant}"))
  text = json.dumps(found.config)
  again = build.build(json.loads(text))
  assert again.config == found.config
  assert [s.name for s in again.stages] == [s.name for s in found.stages]
  for i, stage in enumerate(found.stages):
    blocks = found.config["stages"][i] if len(found.stages) > 1 else found.config
    assert set(blocks["training"]) == set(config.fields(build.Training))
    assert set(blocks["data"]) >= set(config.fields(type(stage.source))) - {"dataset"}
    assert set(blocks["task"]) == {"name", *config.fields(type(stage.task))}


# Overrides.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("false", False), ("True", True), ("None", None), ("3", 3), ("3e-4", 3e-4),
        ("1e3", 1e3), ("fast", "fast"), ("'3'", "3"), ("(1, 2)", (1, 2)), ("[1]", [1]), ("", ""),
        ("a=b", "a=b"), ("idx:mnist", "idx:mnist"), ("/tmp/x y", "/tmp/x y"), ("nan", "nan"),
        ("{[]: 1}", "{[]: 1}"), ("(" * 300, "(" * 300), ("[" * 9999, "[" * 9999), ("\0", "\0"),
    ("1" * 5000, "1" * 5000), ("é", "é"),
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_texts_are_python_values_or_themselves(text, value):
  found = config.literal(text)
  assert found == value
  assert type(found) is type(value)


def overridden(experiment, *assignments):
  return config.override(config.load(f"{experiment}:smoke"), assignments)


def test_overrides_reach_what_the_file_leaves_out():
  found = build.build(overridden(VAE, ("optimizer.clip_norm", "2"), ("seed", "5"))).config
  assert found["optimizer"]["clip_norm"] == 2.0
  assert found["optimizer"]["name"] == "adam"
  assert found["seed"] == 5
  assert build.build(overridden(VAE, ("init_from", "/tmp/a"))).run.init_from == "/tmp/a"


def test_overrides_reach_into_tuples_and_stages():
  found = build.build(
    overridden(STACKED, ("model.widths.1", "50"), ("stages.3.training.steps", "9"))
  )
  assert [stage.model.widths for stage in found.stages] == [(100, 50, 100)] * 4
  assert [stage.training.steps for stage in found.stages] == [2, 2, 2, 9]
  # A block that the stage has not: it lies over the shared one.
  found = build.build(overridden(STACKED, ("stages.1.model.init_std", "0.5")))
  assert [stage.model.init_std for stage in found.stages] == [0, 0.5, 0, 0]


@pytest.mark.parametrize(
  "key", ["stages.0.training.steps", "model.widths.0", "seed", "new.block.x"]
)
def test_an_override_leaves_the_config_it_came_from(key):
  before = config.load(f"{STACKED}:smoke")
  expected = plain(before.to_dict())
  config.override(before, [(key, "1")])
  assert plain(before.to_dict()) == expected


def test_later_overrides_win():
  assert build.build(overridden(VAE, ("seed", "1"), ("seed", "2"))).run.seed == 2


@pytest.mark.parametrize(
    "key",
    [
        "stages.4.training.steps", "stages.-1.training.steps", "stages.x.training.steps", "stages.4",
        "stages.²", "stages.", "model.widths.3", "model.widths.0.x", "model.widths.x", "model.name.x",
        "seed.x", "stages.0", "stages.0.training", "stages.0.training.steps.x",
    ],
)  # fmt: skip
def test_overrides_of_what_is_not_there_are_refused(key):
  with pytest.raises(ConfigError) as error:
    build.build(overridden(STACKED, (key, "1")))
  assert f"config.{key.split('.')[0]}" in one_line(error.value)


@pytest.mark.parametrize(
  "key",
  [
    "stages.0.training.steps",
    "stages.0",
    "",
    "a..b",
    ".seed",
    "seed.",
    "items",
    "model.items",
    "lock",
  ],
)
def test_overrides_of_a_run_without_stages_are_refused(key):
  with pytest.raises(ConfigError) as error:
    build.build(overridden(VAE, (key, "1")))
  one_line(error.value)


@pytest.mark.parametrize("text", ["{1: 2}", "{'a.b': 2}", "{'': 2}", "{None: {}}", "{(1, 2): 3}"])
@pytest.mark.parametrize(
  "key", ["optimizer", "model", "training.mesh", "optimizer.per_phase", "new"]
)
def test_odd_blocks_from_the_command_line_are_refused(key, text):
  with pytest.raises(ConfigError) as error:
    build.build(overridden(VAE, (key, text)))
  one_line(error.value)


# The command line, in process.


@pytest.fixture
def cli(capsys):
  """Runs launch.main and gives (status, standard output, standard error)."""

  def run(*argv):
    try:
      status = launch.main([str(word) for word in argv])
    except SystemExit as stop:
      status = stop.code
    out, err = capsys.readouterr()
    return status, out, err

  return run


@pytest.mark.parametrize(
    ("experiment", "overrides", "named"),
    [
        (VAE, ["--config.sed=1"], ["config.sed", "training.build.Run", "'seed'"]),
        (VAE, ["--config.model.hiden=1"], ["config.model.hiden", "models.vae.gaussian.Model", "'hidden'"]),
        (VAE, ["--config.task.bta=1"], ["config.task.bta", "tasks.elbo.Task", "'beta'"]),
        (VAE, ["--config.data.batchsize=1"], ["config.data.batchsize", "data.digits.Source", "'batch_size'"]),
        (VAE, ["--config.optimizer.lerning_rate=1"], ["optimizer.lerning_rate", "training.optim.Adam", "'learning_rate'"]),
        (GAN, ["--config.optimizer.per_phase.generator.b3=1"], ["per_phase.generator.b3", "training.optim.Adam"]),
        (VAE, ["--config.training.stps=1"], ["config.training.stps", "training.build.Training", "'steps'"]),
        (VAE, ["--config.training.mesh.dta=1"], ["config.training.mesh", "'data'"]),
        (STACKED, ["--config.stages.2.training.stps=1"], ["config.stages.2.training.stps", "'steps'"]),
        (VAE, ["--config.training.steps=fast"], ["config.training.steps='fast'","is not int"]),
        (VAE, ["--config.training.steps=true"], ["config.training.steps=True"]),
        (VAE, ["--config.training.steps=1.5"], ["config.training.steps=1.5"]),
(VAE, ["--config.training.steps=0"], ["config.training.steps=0", "int in [1, "]),
        (VAE, ["--config.training.steps"], []),
        (VAE, ["--config.model.hidden", "none"], ["config.model.hidden='none'"]),
        (VAE, ["--config.data.batch_size=10"], ["config.data.batch_size=10", "multiple of 4"]),
        (VAE, ["--config.training.mesh.data=65"], ["65"]),
        (VAE, ["--config.training.mesh.data=0"], ["config.training.mesh"]),
        (VAE, ["--config.model.hidden.x=1"], ["config.model.hidden"]),
        (RESNET, ["--config.model.residual=1"], ["config.model.residual=1", "bool"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["train", "describe"])
def test_config_errors_end_in_one_line_and_exit_code_2(
  cli, tmp_path, command, experiment, overrides, named
):
  workdir = ["--workdir", tmp_path / "run"] if command == "train" else []
  status, out, err = cli(command, f"--config={experiment}:smoke", *workdir, *overrides)
  assert (status, out) == (2, "")
  if named:
    assert err.startswith("error[CONFIG]: ")
    assert err.count("\n") == 1
    assert len(err.rstrip("\n")) <= 500
    assert "Traceback" not in err
  for part in named:
    assert part in err
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("reference", "named"),
  [
    ("experiments/vae/gaussian_digit.py", "experiments/vae/gaussian_digits.py"),
    ("experiments/vae/gaussian_digits.py:smok", "smoke"),
    ("experiments/vae/gaussian_digits.py:tiny", "paper, small, smoke"),
    ("experiments/vae", "launch.py list"),
    ("pyproject.toml", ""),
    ("training/config.py", "get_config"),
    ("", "launch.py list"),
  ],
)
def test_configs_that_are_not_there_are_answered_with_what_is(cli, tmp_path, reference, named):
  status, out, err = cli("train", f"--config={reference}", f"--workdir={tmp_path / 'run'}")
  assert (status, out, err.count("\n")) == (2, "", 1)
  assert err.startswith("error[CONFIG]: ")
  assert named in err
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "argv",
  [
    [],
    ["tran"],
    ["train"],
    ["train", f"--config={VAE}"],
    ["train", f"--config={VAE}", "--workdir"],
    ["train", f"--config={VAE}", "--workdir=w", "stray"],
    ["train", f"--config={VAE}", "--workdir=w", "--learning_rate=3"],
    ["train", f"--config={VAE}", "--workdir=w", "--config.seed"],
    ["evaluate", "--workdir=w", "--weights=newest"],
    ["evaluate", "--workdir=w", "--config.seed=3"],
    ["sample", "--workdir=w", "--count=many"],
    ["report"],
    ["list", "--config.seed=3"],
  ],
  ids=" ".join,
)
def test_usage_errors_exit_with_2(cli, argv):
  before = set(ROOT.iterdir())
  status, out, err = cli(*argv)
  assert (status, out) == (2, "")
  assert err.startswith("usage: launch.py")
  assert set(ROOT.iterdir()) == before


@pytest.mark.parametrize("command", ["evaluate", "sample", "report"])
def test_commands_of_a_run_refuse_a_directory_that_is_none(cli, tmp_path, command):
  status, out, err = cli(command, f"--workdir={tmp_path}")
  assert (status, out, err.count("\n")) == (2, "", 1)
  assert "config.json" in err


@pytest.mark.parametrize("count", ["0", "-3"])
def test_a_count_below_one_is_refused(cli, tmp_path, count):
  status, _, err = cli("sample", f"--workdir={tmp_path}", f"--count={count}")
  assert status == 2
  assert "--count" in err


def test_debug_shows_the_traceback():
  argv = ["train", f"--config={VAE}:smoke", "--workdir=w", "--config.sed=1", "--debug"]
  with pytest.raises(ConfigError):
    launch.main(argv)


def test_list_prints_every_experiment_with_its_title(cli):
  status, out, err = cli("list")
  assert (status, err) == (0, "")
  for experiment in EXPERIMENTS:
    title = (ROOT / experiment).read_text().split('"""')[1].split("\n")[0]
    assert any(line.startswith(experiment) and title in line for line in out.splitlines())


# The command line, as a process.

_SPY = """
import sys
from importlib.machinery import ModuleSpec
class Spy:
  # What is watched seems to be installed, so that whoever would load it where it is, does.
  def find_spec(self, name, path=None, target=None):
    return ModuleSpec(name, self) if name in {watched!r} else None
  def create_module(self, spec):
    seen.append(spec.name)
    raise ImportError(spec.name)
seen = []
sys.meta_path.insert(0, Spy())
sys.path.insert(0, {root!r})
import launch
for argv in {commands!r}:
  try:
    status = launch.main(argv)
  except SystemExit as stop:
    status = stop.code
  print("STATUS", status)
print("LOADED", sorted(set(seen)))
"""


def spied(commands, watched, timeout=300):
  """(statuses, watched modules that anybody loaded or tried to, everything printed)."""
  code = _SPY.format(root=str(ROOT), commands=commands, watched=watched)
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  found = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=timeout,
    check=False,
  )
  assert found.returncode == 0, found.stderr
  lines = found.stdout.splitlines()
  statuses = [line.split()[1] for line in lines if line.startswith("STATUS")]
  loaded = next(line for line in lines if line.startswith("LOADED"))
  return statuses, loaded.removeprefix("LOADED "), found.stdout + found.stderr


@pytest.mark.parametrize(
  ("argv", "status"),
  [
    (["--help"], "0"),
    (["train", "--help"], "0"),
    (["list"], "None"),
    (["train", f"--config={VAE}:smok", "--workdir=w"], "2"),
    (["train"], "2"),
  ],
  ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_needs_no_jax_imports_none(argv, status):
  statuses, loaded, _ = spied(
    [argv], ("jax", "jaxlib", "flax", "optax", "tensorflow", "matplotlib")
  )
  assert statuses == [status if status != "None" else "0"]
  assert loaded == "[]"


def test_help_answers_within_a_second():
  times = []
  for _ in range(4):
    before = time.perf_counter()
    subprocess.run(
      [sys.executable, "launch.py", "--help"], cwd=ROOT, check=True, capture_output=True
    )
    times.append(time.perf_counter() - before)
  # The least, since a busy machine only ever adds.
  assert min(times) < 1, times


@pytest.mark.parametrize(
  ("arguments", "status"),
  [
    (["train", f"--config={VAE}:smoke", "--config.sed=1"], 2),
    (["train", f"--config={VAE}:smoke", "--config.training.steps=nan"], 2),
    (["train"], 2),
  ],
)
def test_exit_codes_of_the_process(tmp_path, arguments, status):
  workdir = [] if len(arguments) == 1 else [f"--workdir={tmp_path / 'run'}"]
  found = subprocess.run(
    [sys.executable, "launch.py", *arguments, *workdir],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert found.returncode == status
  assert found.stdout == ""
  assert "Traceback" not in found.stderr
  assert not (tmp_path / "run").exists()


def test_no_command_loads_tensorflow(tmp_path):
  workdir = f"--workdir={tmp_path / 'run'}"
  commands = [
    ["train", f"--config={VAE}:smoke", workdir],
    ["evaluate", workdir],
    ["sample", workdir],
    ["report", workdir],
    ["describe", f"--config={VAE}:smoke"],
  ]
  statuses, loaded, printed = spied(commands, ("tensorflow",))
  assert statuses == ["0"] * 5, printed
  assert loaded == "[]"


# Mutations.

POOL = (True, False, 0, 1, -1, 2, 7, 1e3, 0.5, 1.5, -0.1, 1e300, 10**18, 10**400, math.nan, math.inf,
        "", "x", "none", "adam", "sgd", "elbo", "digits", "idx:mnist", "vae.gaussian", "cosine", "step",
        "bfloat16", "pmap", "dynamic", None, (), (1,), (3, 4, 5), (0.5,), ("a",), [[]], {}, {"name": "adam"},
        {"data": 2}, {"x": 1}, {"data": 1, "fsdp": 2}, {"elbo": {"learning_rate": 0.5}}, b"x", {1})  # fmt: skip
TEXTS = ("true", "false", "3", "-1", "0.5", "1e3", "fast", "", "None", "(4, 4)", "[1]", "{}", "{'x': 1}",
         "{1: 2}", "{'a.b': 1}", "{[]: 1}", "nan", "inf", "1e999", "'3'", "9" * 400, "a=b", "((((", "²")  # fmt: skip


def blocks_of(tree, prefix=""):
  """Every dotted path of a config to a block, and to a setting."""
  found_blocks, found_leaves = [prefix], []
  for key, value in tree.items():
    path = f"{prefix}.{key}" if prefix else key
    if isinstance(value, dict):
      more = blocks_of(value, path)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
      parts = [blocks_of(item, f"{path}.{i}") for i, item in enumerate(value)]
      more = [[*itertools.chain(*lists)] for lists in zip(*parts, strict=True)]
    else:
      more = [], [path]
    found_blocks += more[0]
    found_leaves += more[1]
  return found_blocks, found_leaves


def at(tree, path):
  """(whether there is something, what) at a dotted path."""
  for part in path.split("."):
    if isinstance(tree, list | tuple) and part.isdecimal() and int(part) < len(tree):
      tree = tree[int(part)]
    elif isinstance(tree, dict) and part in tree:
      tree = tree[part]
    else:
      return False, None
  return True, tree


def counts(resolved, path, value) -> bool:
  """Whether `value` is what the resolved config has at `path`, or in some stage where it is shared."""
  places = [path]
  if path.split(".")[0] in build.BLOCKS:
    places += [f"stages.{i}.{path}" for i in range(len(resolved.get("stages", ())))]
  for place in places:
    there, found = at(resolved, place)
    if (there and holds(found, value)) or (not there and value == {}):
      return True
  return False


def holds(found, value) -> bool:
  if isinstance(value, dict):
    return isinstance(found, dict) and all(
      k in found and holds(found[k], v) for k, v in value.items()
    )
  if isinstance(value, list | tuple):
    return (
      isinstance(found, list | tuple)
      and len(found) == len(value)
      and all(holds(f, v) for f, v in zip(found, value, strict=True))
    )
  return found == value and isinstance(found, bool) == isinstance(value, bool)


def mutated(generator):
  """(config, what was done, path, value): value is `...` where the key must now be unknown."""
  experiment = generator.choice(EXPERIMENTS)
  tree = tree_of(experiment, generator.choice(config.VARIANTS))
  found_blocks, leaves = blocks_of(tree)
  kind = generator.choice(
    ["set", "set", "set", "field", "field", "block", "delete", "typo", "unknown", "text", "text"]
  )
  if kind == "set":
    path, value = generator.choice(leaves), generator.choice(POOL)
    put(tree, path, value)
  elif kind == "block":
    path, value = generator.choice([b for b in found_blocks if b]), generator.choice(POOL)
    put(tree, path, value)
  elif kind == "field":
    site = generator.choice([site for site in SITES if config.fields(site.cls)])
    name = generator.choice(list(config.fields(site.cls)))
    if site.where and site.where.split(".")[-1] not in tree:
      tree = tree_of(site.experiment)
    path, value = site.key(name), generator.choice(POOL)
    if path.startswith("stages"):
      tree = tree_of(site.experiment)
    put(tree, path, value)
  elif kind == "delete":
    path, value = (
      generator.choice(leaves + [b for b in found_blocks if b and not b[-1].isdigit()]),
      None,
    )
    *parents, last = path.split(".")
    parent = at(tree, ".".join(parents))[1] if parents else tree
    del parent[last]
  elif kind in ("typo", "unknown"):
    value = ...
    if kind == "typo":
      path = generator.choice(leaves)
      old, path = path, path + "q"
      parent = at(tree, old.rpartition(".")[0])[1] if "." in old else tree
      parent[path.rpartition(".")[2]] = parent.pop(old.rpartition(".")[2])
    else:
      block = generator.choice(found_blocks)
      path = f"{block}.unheard_of" if block else "unheard_of"
      put(tree, path, generator.choice(POOL))
  else:
    path, text = generator.choice(leaves + found_blocks[1:]), generator.choice(TEXTS)
    path += generator.choice(["", "", "", ".x", ".0", ".0.x", "."])
    try:
      value = config.literal(text)
    except Exception:  # `outcome` meets it again, and says so
      value = text
    return (
      (lambda: config.override(config.load(f"{experiment}:smoke"), [(path, text)])),
      kind,
      path,
      value,
    )
  return (lambda: tree), kind, path, value


def outcome(make, kind, path, value) -> str:
  """What is wrong with how a mutated config is answered; empty where nothing is."""
  try:
    found = checked(make())
  except UserError as error:
    try:
      one_line(error)
    except AssertionError:
      return "is refused in more than a line"
    return ""
  except Exception as error:  # whatever it is, it is no answer to a user
    return f"raises {type(error).__name__}: {str(error)[:80]}"
  if value is ...:
    return "is an unknown key, and nobody says so"
  if kind != "delete" and not counts(found.config, path, value):
    return "is silently ignored"
  try:
    again = build.build(json.loads(json.dumps(found.config))).config
  except Exception as error:  # a run could not be evaluated
    return f"resolves to what does not build: {error}"[:160]
  return "" if again == found.config else "resolves to what builds something else"


@pytest.mark.parametrize("seed", range(10))
def test_mutated_configs_build_or_are_refused(seed):
  generator = random.Random(seed)
  wrong = []
  for _ in range(100):
    make, kind, path, value = mutated(generator)
    answer = outcome(make, kind, path, value)
    if answer:
      wrong.append(f"{kind} config.{path} = {str(value)[:40]!r} {answer}")
  assert not wrong, "\n".join(sorted(wrong))


def test_suggestions_are_difflibs_where_there_are_any():
  assert config.nearest("stps", ["steps", "seed"]) == "; did you mean 'steps'?"
  assert config.nearest("zzzzzz", ["steps", "seed"]) == ""
  assert difflib.get_close_matches("stps", ["steps"]) == ["steps"]


@pytest.mark.parametrize(
  ("kind", "said"),
  [
    (Annotated[int, "[1, inf)"], "int in [1, inf)"),
    (Literal["a", "b"], "one of 'a', 'b'"),
    (tuple[Annotated[int, "[1, inf)"], ...], "a list of int in [1, inf)"),
    (dict[str, float], "a block of float"),
    (int | None, "int or None"),
    (bool, "bool"),
  ],
)
def test_annotations_are_said_in_words(kind, said):
  assert config.describe(kind) == said


@pytest.mark.parametrize(
  ("value", "kind", "expected"),
  [
    (None, int | None, None),
    (3, int | None, 3),
    ([1, 2], tuple[int, int], (1, 2)),
    ("x", Any, "x"),
    ({"a": 1}, dict[str, float], {"a": 1.0}),
  ],
)
def test_kinds_that_a_class_may_yet_use(value, kind, expected):
  assert config.conform(value, kind, key="k", title="t") == expected


@pytest.mark.parametrize(
  ("value", "kind"),
  [("x", int | None), (True, Literal[1, 2]), ([1], tuple[int, int]), ([1, 2, 3], tuple[int, int])],
)
def test_kinds_that_a_class_may_yet_use_refuse(value, kind):
  with pytest.raises(ConfigError, match="t expects"):
    config.conform(value, kind, key="k", title="t")


def test_an_annotation_without_a_check_is_a_programmers_error():
  with pytest.raises(TypeError, match="no check"):
    config.conform(3, set[int], key="k", title="t")


def test_experiments_and_variants_are_all_covered():
  pairs = list(itertools.product(EXPERIMENTS, config.VARIANTS))
  assert len(pairs) >= 21


def test_an_element_that_the_data_does_not_have_is_named(capsys):
  command = [
    "describe",
    "--config=experiments/autoencoder/deep_digits.py:smoke",
    "--config.task.of=window",
  ]
  assert launch.main(command) == 2
  error = capsys.readouterr().err
  assert "wants 'window' of an example" in error
  assert "an example has image, label" in error
