"""The tables of `launch.py describe`."""

import math

import jax
from rich.console import Console
from rich.table import Table

from training import parallel, step
from training.build import Stage
from training.checkpoint import leaves


def tables(stage: Stage, shapes):
  """Prints a stage's shapes, parameters, and the cost of one step on one device."""
  state, stored = shapes
  console = Console(soft_wrap=True)
  title = f"{type(stage.model).__module__}" + (f", stage {stage.name}" if stage.name else "")

  table = Table("parameter", "shape", "count", title=title)
  for path, leaf in leaves(state.params):
    table.add_row(path, "x".join(map(str, leaf.shape)) or "scalar", f"{math.prod(leaf.shape):,}")
  console.print(table)

  groups = {name: _count(tree) for name, tree in state.params.items()}
  console.print(f"parameters: {_count(state.params):,}", highlight=False)
  for phase in stage.program.phases:
    trained = sum(groups[name] for name in step.trained(phase, state.params))
    console.print(f"  trained by phase {phase.name}: {trained:,}", highlight=False)
  if state.mutable:
    console.print(f"other collections: {_count(state.mutable):,} numbers", highlight=False)
  console.print(f"optimizer state: {_bytes(state.optimizer)}", highlight=False)

  cost = parallel.cost(stage.program, state, stored)
  for name, leaf in stored.items():
    console.print(f"input {name}: {leaf.dtype}{list(leaf.shape)}", highlight=False)
  console.print(f"one step of {stage.program.examples} examples:", highlight=False)
  console.print(f"  FLOPs: {cost['flops']:.4g}", highlight=False)
  console.print(f"  state and batch: {_size(cost['state_and_batch_bytes'])}", highlight=False)
  console.print(f"  temporary memory: {_size(cost['temporary_bytes'])}", highlight=False)
  total = cost["state_and_batch_bytes"] + cost["temporary_bytes"]
  console.print(f"  together: {_size(total)}", highlight=False)
  console.print(f"steps: {stage.training.steps:,}", highlight=False)


def _count(tree) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree) -> str:
  return _size(sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree)))


def _size(count: float) -> str:
  for unit in ("B", "KiB", "MiB", "GiB"):
    if count < 1024:
      return f"{count:.4g} {unit}"
    count /= 1024
  return f"{count:.4g} TiB"
