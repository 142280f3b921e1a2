"""The rooms and the arrows between them, read off the code."""

import ast
import pathlib

import pytest

ROOMS = {
  "models": {"models.layers", "models.<family>"},
  "models.layers": {"models.layers"},
  "tasks": {"tasks", "models.layers", "evaluation", "decoding", "models.<family>.__init__"},
  "data": {"data"},
  "evaluation": {"evaluation"},
  "decoding": {"decoding"},
  "interop": {"interop"},  # files of others; of ours it knows names alone
  "experiments": {"sweeps.space"},  # the words in which it says what to run; standard library only
  "report": {"report", "tasks.views"},
  "training": {
    "training",
    "models.layers",
    "tasks",
    "data",
    "evaluation",
    "decoding",
    "interop",
    "report",
  },
  "sweeps": {"sweeps", "training", "report"},
  "reproduction": {"reproduction", "sweeps", "training", "report"},
  "launch": {"training", "sweeps", "reproduction"},
}
DEVICES = pathlib.Path("training/parallel.py")
# Whatever names devices or compiles for them.
FORBIDDEN = {
  "jit",
  "pmap",
  "shard_map",
  "pjit",
  "psum",
  "pmean",
  "pmax",
  "pmin",
  "all_gather",
  "all_to_all",
  "ppermute",
  "psum_scatter",
  "axis_index",
  "NamedSharding",
  "PartitionSpec",
  "make_mesh",
}


def files():
  rooms = {name.split(".")[0] for name in ROOMS} - {"launch"}
  return [
    pathlib.Path("launch.py"),
    *sorted(p for r in rooms for p in pathlib.Path(r).rglob("*.py")),
  ]


def tree(path):
  return ast.parse(path.read_text(encoding="utf-8"))


def room(path):
  parts = path.with_suffix("").parts
  return "models.layers" if parts[:2] == ("models", "layers") else parts[0]


def imports(path):
  """Modules of ours that a file imports, as paths."""
  found = []
  for node in ast.walk(tree(path)):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
      continue
    for name in names:
      parts = name.split(".")
      # `from models.vae import Output` imports the package, `from evaluation import pca` a module.
      while parts:
        place = pathlib.Path(*parts)
        if place.with_suffix(".py").exists():
          found.append(place.with_suffix(".py"))
          break
        if (place / "__init__.py").exists():
          found.append(place / "__init__.py")
          break
        parts.pop()
  return found


def allowed(path, target):
  rights, own = ROOMS[room(path)], room(path)
  if own == "models" and target.parts[:2] == path.parts[:2]:
    return True  # its own family's page
  if room(target) == "models":
    return target.name == "__init__.py" and "models.<family>.__init__" in rights
  if ".".join(target.with_suffix("").parts) in rights:
    return True  # one file of a room
  return room(target) in rights


@pytest.mark.parametrize("path", files(), ids=str)
def test_imports_run_one_way(path):
  for target in imports(path):
    assert allowed(path, target), f"{path} must not import {target}"


def test_no_import_cycle():
  graph = {path: set(imports(path)) - {path} for path in files()}
  while graph:
    leaves = {path for path, targets in graph.items() if not targets & graph.keys()}
    assert leaves, f"a cycle among {sorted(map(str, graph))}"
    graph = {path: targets for path, targets in graph.items() if path not in leaves}


@pytest.mark.parametrize("path", [p for p in files() if p != DEVICES], ids=str)
def test_only_one_room_knows_devices(path):
  for node in ast.walk(tree(path)):
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
    assert name not in FORBIDDEN, f"{path}:{getattr(node, 'lineno', 0)} says {name}"


@pytest.mark.parametrize("path", files(), ids=str)
def test_no_default_hides_in_a_get(path):
  """A default lives in a dataclass field; `.get(` on a config would be a second place."""
  for node in ast.walk(tree(path)):
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute) and called.attr in ("get", "get_ref", "setdefault"):
      owner = ast.unparse(called.value)
      assert not any(
        word in owner for word in ("config", "spec", "blocks", "training", "overrides")
      ), f"{path}:{node.lineno} reads {owner}.{node.func.attr}"


@pytest.mark.parametrize("path", files(), ids=str)
def test_files_and_functions_stay_readable(path):
  assert path.stem not in ("utils", "util", "helpers", "common", "misc")
  assert ast.get_docstring(tree(path)), f"{path} has no docstring"
  for node in ast.walk(tree(path)):
    if isinstance(node, ast.FunctionDef):
      length = node.end_lineno - node.lineno + 1
      assert length <= 110, f"{path}:{node.lineno} {node.name} is {length} lines"


@pytest.mark.parametrize("path", sorted(pathlib.Path("models").glob("*/*.py")), ids=str)
def test_every_model_names_its_activations_type(path):
  """`training.dtype` reaches every model, so each declares the field."""
  found = [n for n in tree(path).body if isinstance(n, ast.ClassDef) and n.name == "Model"]
  if found:
    fields = {n.target.id for n in found[0].body if isinstance(n, ast.AnnAssign)}
    assert "dtype" in fields


@pytest.mark.parametrize(
  "path",
  [
    p
    for p in files()
    if p.parts[0] in ("models", "tasks", "data", "interop", "training", "sweeps", "reproduction")
  ],
  ids=str,
)
def test_public_things_are_documented(path):
  for node in tree(path).body:
    if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
      assert ast.get_docstring(node), f"{path}:{node.lineno} {node.name} has no docstring"
