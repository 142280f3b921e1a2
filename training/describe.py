"""What `launch.py describe` prints: shapes, parameters, FLOPs, and what each device must hold."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from training import cost, parallel, sharding, step
from training.build import MESH, Experiment, Stage, check_shares
from training.checkpoint import leaves
from training.config import UNTOUCHED
from training.errors import ConfigError
from training.initial import stage_shapes

# GiB, as their makers publish them.
ACCELERATORS = {
  "TPU v5e": 16,
  "TPU v4": 32,
  "A100 40 GB": 40,
  "A100 80 GB": 80,
  "H100 80 GB": 80,
  "TPU v5p": 95,
  "H200 141 GB": 141,
}


class Cost(NamedTuple):
  """What one step takes.

  Attributes:
    mesh: devices along each axis.
    parameters: of all devices together, numbers.
    parameter_bytes: on each device.
    optimizer_bytes: on each device.
    state_and_batch_bytes: on each device; the above, averages, statistics and examples.
    temporary_bytes: on each device; activations, gradients and whatever else lives within a step.
    temporary_least: where less is known than that, the least it could be.
    flops: of all devices together.
  """

  mesh: Mapping[str, int]
  parameters: int
  parameter_bytes: int
  optimizer_bytes: int
  state_and_batch_bytes: int
  temporary_bytes: int
  temporary_least: int
  flops: int

  @property
  def devices(self) -> int:
    return math.prod(self.mesh.values())

  def fits(self, gibibytes: float) -> str:
    """Whether a device of so much memory holds it: "yes", "perhaps" or "no"."""
    room = gibibytes * 2**30 - self.state_and_batch_bytes
    if room >= self.temporary_bytes:
      return "yes"
    return "perhaps" if room >= self.temporary_least else "no"


def describe(experiment: Experiment):
  """Prints what an experiment would train. Trains nothing.

  A mesh of more devices than one that the config names whole is described without them.
  """
  meshes = [_described(stage) for stage in experiment.stages]
  if any(meshes):
    # The compiler is told of devices that nothing is ever put on. They are asked for before JAX
    # looks for real ones. What one holds does not depend on how many copies of it there are.
    needed = max(mesh["fsdp"] * mesh["model"] for mesh in meshes if mesh)
    _invent(needed)
  else:
    check_shares(experiment)
  for stage, mesh in zip(experiment.stages, meshes, strict=True):
    _show(stage, mesh)


def _described(stage: Stage) -> dict[str, int] | None:
  """The mesh that a config describes, or None where it takes the devices at hand."""
  mesh = {**MESH, **stage.training.mesh}
  count = math.prod(mesh.values())
  if (mesh["data"] == -1 and mesh["fsdp"] == mesh["model"] == 1) or count == 1:
    return None
  if mesh["data"] == -1:
    mesh["data"] = 1
  if stage.training.parallel != "jit" or min(mesh.values()) < 1:
    raise ConfigError(
      f"config.training.mesh={stage.training.mesh} cannot be described",
      kept=UNTOUCHED,
      do="give each axis at least 1 device, with training.parallel=jit",
    )
  parts = mesh["data"] * mesh["fsdp"] * stage.training.microbatches
  if stage.program.batch_size % parts:
    raise ConfigError(
      f"config.data.batch_size={stage.program.batch_size} does not divide into"
      f" {mesh['data'] * mesh['fsdp']} share(s) x {stage.training.microbatches} microbatch(es)",
      kept=UNTOUCHED,
      do=f"choose a multiple of {parts}",
    )
  return mesh


def _invent(count: int):
  try:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)
  except RuntimeError:
    pass  # JAX has its devices already
  if jax.device_count() < count:
    raise ConfigError(
      f"this process has {jax.device_count()} devices, the mesh {count}",
      kept=UNTOUCHED,
      do="describe it in a process of its own",
    )


def measure(stage: Stage, mesh: Mapping[str, int] | None) -> Cost:
  """The cost of a stage's step, on one device or on each of a mesh."""
  state, stored = stage_shapes(stage)
  flops = cost.flops(lambda s, x: step.train_step(s, x, stage.program), state, stored)
  mesh = dict(mesh or {"data": 1, "fsdp": 1, "model": 1})
  one = {name: _share(leaf, mesh["data"]) for name, leaf in stored.items()}
  way = parallel.Mesh(1, mesh["fsdp"], mesh["model"])
  memory = parallel.memory(stage, state, one, way)
  half = stage.training.dtype == "bfloat16"
  return Cost(
    mesh=mesh,
    parameters=_count(state.params),
    parameter_bytes=_bytes(state.params, mesh),
    optimizer_bytes=_bytes(state.optimizer, mesh),
    state_and_batch_bytes=memory.state_and_batch,
    temporary_bytes=memory.temporary,
    # It is compiled for CPUs, which compute in float32 what others do in half of that.
    temporary_least=memory.temporary // 2 if half else memory.temporary,
    flops=flops,
  )


def _share(leaf, parts: int):
  return jax.ShapeDtypeStruct((leaf.shape[0] // parts, *leaf.shape[1:]), leaf.dtype)


def _show(stage: Stage, mesh: Mapping[str, int] | None):
  """Prints a stage's tables."""
  state, stored = stage_shapes(stage)
  console = Console(soft_wrap=True, highlight=False)
  title = f"{type(stage.model).__module__}" + (f", stage {stage.name}" if stage.name else "")

  table = Table("parameter", "shape", "count", title=title)
  for path, leaf in leaves(state.params):
    table.add_row(path, "x".join(map(str, leaf.shape)) or "scalar", f"{math.prod(leaf.shape):,}")
  console.print(table)

  groups = {name: _count(tree) for name, tree in state.params.items()}
  console.print(f"parameters: {_count(state.params):,}")
  for phase in stage.program.phases:
    trained = sum(groups[name] for name in step.trained(phase, state.params))
    console.print(f"  trained by phase {phase.name}: {trained:,}")
  if state.mutable:
    console.print(f"other collections: {_count(state.mutable):,} numbers")
  for name, leaf in stored.items():
    console.print(f"input {name}: {leaf.dtype}{list(leaf.shape)}")

  found = measure(stage, mesh)
  console.print(f"one step of {stage.program.examples} examples:")
  console.print(f"  FLOPs of matrix products and convolutions: {found.flops:.4g}")
  if found.devices > 1:
    console.print(f"  of each of {found.devices} devices: {found.flops / found.devices:.4g}")
  mesh_line = ", ".join(f"{name} {size}" for name, size in found.mesh.items())
  console.print(f"on each device ({mesh_line}):")
  console.print(f"  parameters: {_size(found.parameter_bytes)}")
  console.print(f"  optimizer state: {_size(found.optimizer_bytes)}")
  console.print(f"  state and batch: {_size(found.state_and_batch_bytes)}")
  bounds = {_size(found.temporary_least): None, _size(found.temporary_bytes): None}
  console.print(f"  temporary memory, as compiled for CPUs: {' to '.join(bounds)}")
  total = found.state_and_batch_bytes + found.temporary_bytes
  console.print(f"  together{', at most' if len(bounds) > 1 else ''}: {_size(total)}")
  if mesh:
    table = Table("device", "GiB", "fits", title="published memory")
    for name, gibibytes in ACCELERATORS.items():
      table.add_row(name, str(gibibytes), found.fits(gibibytes))
    console.print(table)
  console.print(f"steps: {stage.training.steps:,}")


def _count(tree) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree, mesh: Mapping[str, int]) -> int:
  """Of each device's part of the leaves of a state."""
  return sum(
    sharding.shard_size(leaf.shape, sharding.parameter(path, leaf.shape, mesh), mesh)
    * leaf.dtype.itemsize
    for path, leaf in leaves(tree)
  )


def _size(count: float) -> str:
  for unit in ("B", "KiB", "MiB", "GiB"):
    if count < 1024:
      return f"{count:.4g} {unit}"
    count /= 1024
  return f"{count:.4g} TiB"
