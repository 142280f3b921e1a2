"""The experiments that there are, read off their files without running them."""

import ast
import pathlib
from typing import NamedTuple


class Entry(NamedTuple):
  """One experiment file, and how many claims it makes."""

  path: pathlib.Path
  title: str
  claims: int


def entries(root: pathlib.Path = pathlib.Path("experiments")) -> list[Entry]:
  """Every experiments/<family>/<model>_<dataset>.py, in order."""
  found = []
  for path in sorted(root.glob("*/*.py")):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    title = (ast.get_docstring(tree) or "").split("\n", 1)[0]
    claims = [
      node.value
      for node in tree.body
      if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CLAIMS"
    ]
    listed = claims[0].elts if claims and isinstance(claims[0], ast.List) else []
    found.append(Entry(path, title, sum(_asserts(element) for element in listed)))
  return found


def _asserts(element: ast.expr) -> bool:
  """Whether an element of CLAIMS says more than which number is reported."""
  keywords = element.keywords if isinstance(element, ast.Call) else []
  return not any(k.arg == "relation" and ast.unparse(k.value) == "''" for k in keywords)


def show():
  """Prints the experiments, one a line."""
  found = entries()
  width = max(len(str(entry.path)) for entry in found)
  for entry in found:
    claims = f" [{entry.claims} claim{'s' * (entry.claims > 1)}]" if entry.claims else ""
    print(f"{entry.path!s:<{width}}  {entry.title}{claims}")
  first = found[0].path
  print(f"\n{len(found)} experiments, each with the variants paper, small and smoke. Try:")
  print(f"python launch.py train --config={first}:small --workdir=runs/{first.stem}")
