"""The experiments that there are, read off their files without running them."""

import ast
import pathlib
from typing import NamedTuple


class Entry(NamedTuple):
  """One experiment file."""

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
    count = len(claims[0].elts) if claims and isinstance(claims[0], ast.List) else 0
    found.append(Entry(path, title, count))
  return found


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
