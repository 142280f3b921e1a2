"""How one pure step runs on many devices: the only room that knows of devices and compilation.

`Mesh` compiles the step with `jit` over a mesh of axes `data`, `fsdp` and `model`: the batch is
split over the first two; parameters and optimizer states are copied along `data`, split along
`fsdp`, and layers are split along `model`. `Pmap` runs the same step under `pmap` and sums over
devices by name. Both keep the state in the same global
shapes, so a checkpoint of one is a checkpoint of the other. `Population` runs the step of many runs
at once under `vmap`, each run whole on one device.

Hyperparameters that are numbers are arguments of what is compiled here, never constants in it, so
runs that differ in nothing else run the same program, to the same bits.
"""

import abc
import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from models.layers import placement
from models.layers.batch_axis import WHOLE, Shards
from training import processes, sharding
from training.step import Program, State, measure_step, train_step

_FUSED_STEPS = 64  # the most steps of one dispatch
_PATIENCE = 0.25  # seconds that one dispatch may take, so that an interrupt is soon heard


class Parallel(abc.ABC):
  """Devices that share one batch, or one population.

  Attributes:
    devices: all of them.
    members: how many runs are trained at once.
  """

  members = 1

  def __init__(self, devices: Sequence[jax.Device]):
    self.devices = tuple(devices)
    self._initialisers = {}

  @property
  def shares(self) -> int:
    """How many parts a batch is split into."""
    return len(self.devices)

  def join(self, trees: Sequence[Any]) -> Any:
    """What belongs to each member, as one tree."""
    (tree,) = trees
    return tree

  def member(self, tree: Any, i: int) -> Any:
    """The part of member `i` of what `join` joined or a step returned."""
    return tree

  def on_host(self, tree: Any) -> list[Any]:
    """Every member's part, as host arrays."""
    return [to_host(tree)]

  def member_shapes(self, tree: Any) -> Any:
    """Shapes and types of one member's part."""
    return jax.eval_shape(lambda tree: self.member(tree, 0), tree)

  @abc.abstractmethod
  def placement(self, tree) -> Any:
    """The sharding of every leaf of a state or of parameters."""

  @abc.abstractmethod
  def _compile_step(self, step, state, *, resident: bool, fused: bool):
    """Compiles `step(state, numbers, *feed, offset, shards)`; its state's memory is used again.

    The feed is (batch,), or (arrays, rows [B]) where the split is resident, or (arrays,
    rows [K, B], count) where steps are fused.
    """

  @abc.abstractmethod
  def _compile_measure(self, measure):
    """`measure(params, mutable, numbers, stored, rng, first)` compiled."""

  def initialise(self, init: Callable[..., Any], *args):
    """`init(*args)` with its results born where they live; nothing is ever whole on one device."""
    if init not in self._initialisers:
      placement = self.placement(jax.eval_shape(init, *args))
      options = _compiled_quickly() if self.devices[0].platform == "cpu" else None
      self._initialisers[init] = jax.jit(init, out_shardings=placement, compiler_options=options)
    return self._initialisers[init](*args)

  def abstract(self, init: Callable[..., Any], *args):
    """Shapes, types and placement of what `init(*args)` returns, for a restore."""
    shapes = jax.eval_shape(init, *args)
    return jax.tree.map(
      lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      shapes,
      self.placement(shapes),
    )

  def place(self, tree):
    """A joined state, wherever it lies, moved to where it is trained."""
    return jax.device_put(tree, self.placement(tree))

  def replicate(self, tree):
    """Host arrays copied to every device."""
    return _put(tree, NamedSharding(self._mesh, PartitionSpec()))

  def trainer(self, stage, state, *, resident: Mapping[str, np.ndarray] | None):
    """Compiles `advance(state, feeds, numbers) -> state`.

    Args:
      stage: a `training.build.Stage`, whose step it is.
      state: an example of the state, or its shapes.
      resident: the whole training split where it fits on the device; the feeds then are rows [B] of
        it, otherwise stored batches.
    """
    return Trainer(self, stage, state, resident)

  def measurer(self, stage) -> Callable:
    """Compiles `(params, mutable, numbers, stored, rng, first) -> metrics` of a global batch."""

    def local(params, mutable, numbers, stored, rng, first, *, offset, shards):
      own = stage.at(numbers)
      return measure_step(
        params,
        mutable,
        stored,
        rng,
        measure=own.task.measure(own.model),
        transform=lambda batch, keys: stage.source.transform(dict(batch), keys, train=False),
        first=first + offset,
        shards=shards,
      )

    return self._compile_measure(local)


class Mesh(Parallel):
  """`jit` over a mesh; XLA inserts the communication.

  Args:
    data: devices along which the batch is split and parameters are copied; -1 for all that are
      left.
    fsdp: devices along which the batch and the parameters are split.
    model: devices along which layers are split, as training/sharding.py says.
    devices: all of them by default.
  """

  def __init__(
    self,
    data: int = -1,
    fsdp: int = 1,
    model: int = 1,
    devices: Sequence[jax.Device] | None = None,
  ):
    devices = list(jax.devices() if devices is None else devices)
    data = len(devices) // (fsdp * model) if data == -1 else data
    super().__init__(devices[: data * fsdp * model])
    self.mesh_shape = {"data": data, "fsdp": fsdp, "model": model}
    self._mesh = jax.sharding.Mesh(
      np.asarray(self.devices).reshape(data, fsdp, model),
      tuple(self.mesh_shape),
      # Explicit axes, the default of jax.make_mesh, put shardings into types; Linen has none.
      axis_types=(AxisType.Auto,) * 3,
    )
    self._batch = ("data", "fsdp")

  @property
  def shares(self) -> int:
    return self.mesh_shape["data"] * self.mesh_shape["fsdp"]

  def placement(self, tree):
    def leaf(path, x):
      path = jax.tree_util.keystr(path, simple=True, separator="/")
      axes = sharding.parameter(path, x.shape, self.mesh_shape)
      return NamedSharding(self._mesh, PartitionSpec(*axes))

    return jax.tree_util.tree_map_with_path(leaf, tree)

  def _constrain(self, x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    axes = sharding.activation(names, x.shape, self.mesh_shape)
    return jax.lax.with_sharding_constraint(x, NamedSharding(self._mesh, PartitionSpec(*axes)))

  def _traced(self, function):
    """`function` of the whole batch, its activations laid out where layers name their axes."""

    def placed(*args):
      with placement.scope(self._constrain) if len(self.devices) > 1 else contextlib.nullcontext():
        return function(*args, offset=0, shards=WHOLE)

    return placed

  def _compile_step(self, step, state, *, resident, fused):
    everywhere = NamedSharding(self._mesh, PartitionSpec())
    across = NamedSharding(self._mesh, PartitionSpec(self._batch))
    rows = NamedSharding(self._mesh, PartitionSpec(None, self._batch))
    feed = (everywhere, rows, everywhere) if fused else (everywhere, across)[not resident :]
    where = self.placement(state)
    compiled = jax.jit(
      self._traced(step),
      in_shardings=(where, everywhere, *feed),
      out_shardings=where,
      donate_argnums=0,
    )
    if jax.process_count() == 1:
      return compiled
    # Of several processes each hands over what its own devices take of a batch.
    return lambda state, numbers, *parts: compiled(state, numbers, *map(_put, parts, feed))

  def _compile_measure(self, measure):
    across = NamedSharding(self._mesh, PartitionSpec(self._batch))
    compiled = jax.jit(self._traced(measure))

    def run(params, mutable, numbers, stored, rng, first):
      return compiled(params, mutable, numbers, _put(stored, across), rng, first)

    return run


class Pmap(Parallel):
  """`pmap` over all devices, with the state copied to each; sums are by the axis's name."""

  _AXIS = "batch"

  def __init__(self, data: int = -1, devices: Sequence[jax.Device] | None = None):
    devices = list(jax.devices() if devices is None else devices)
    super().__init__(devices if data == -1 else devices[:data])
    self._mesh = jax.sharding.Mesh(
      np.asarray(self.devices), (self._AXIS,), axis_types=(AxisType.Auto,)
    )

  def placement(self, tree):
    return jax.tree.map(lambda _: NamedSharding(self._mesh, PartitionSpec()), tree)

  @property
  def _shards(self) -> Shards:
    return Shards(
      total=lambda tree: jax.lax.psum(tree, self._AXIS),
      gather=lambda x: jax.lax.all_gather(x, self._AXIS, tiled=True),
    )

  def _split(self, tree, axis: int):
    """The batch axis of every leaf as [devices, share]; each device takes consecutive examples."""

    def leaf(x):
      shape = (*x.shape[:axis], self.shares, x.shape[axis] // self.shares, *x.shape[axis + 1 :])
      return np.asarray(x).reshape(shape)

    return jax.tree.map(leaf, tree)

  def _compile_step(self, step, state, *, resident, fused):
    in_axes = (None, 1, None) if fused else (None, 0)[not resident :]
    at = in_axes.index(1 if fused else 0)  # which part of the feed the batch is

    def local(state, numbers, *feed):
      share = jax.tree.leaves(feed[at])[0].shape[in_axes[at]]
      offset = jax.lax.axis_index(self._AXIS) * share
      return step(state, numbers, *feed, offset=offset, shards=self._shards)

    compiled = jax.pmap(
      local,
      axis_name=self._AXIS,
      in_axes=(None, None, *in_axes),
      out_axes=None,
      donate_argnums=0,
      devices=self.devices,
    )

    def run(state, numbers, *feed):
      feed = list(feed)
      feed[at] = self._split(feed[at], in_axes[at])
      return compiled(state, numbers, *feed)

    return run

  def _compile_measure(self, measure):
    def local(params, mutable, numbers, stored, rng, first):
      share = len(jax.tree.leaves(stored)[0])
      offset = jax.lax.axis_index(self._AXIS) * share
      return measure(
        params, mutable, numbers, stored, rng, first, offset=offset, shards=self._shards
      )

    compiled = jax.pmap(
      local,
      axis_name=self._AXIS,
      in_axes=(None, None, None, 0, None, None),
      out_axes=None,
      devices=self.devices,
    )

    def run(params, mutable, numbers, stored, rng, first):
      return compiled(params, mutable, numbers, self._split(stored, 0), rng, first)

    return run


class Population(Parallel):
  """Runs of one structure trained at once: their states stacked, the step under `vmap`.

  The first axis of everything that belongs to a run is split over the devices; a run is never
  split, so nothing is communicated between devices.
  """

  _AXIS = "population"

  def __init__(self, members: int, devices: Sequence[jax.Device] | None = None):
    devices = list(jax.devices() if devices is None else devices)
    used = max(n for n in range(1, len(devices) + 1) if members % n == 0)
    super().__init__(devices[:used])
    self.members = members
    self._mesh = jax.sharding.Mesh(
      np.asarray(self.devices), (self._AXIS,), axis_types=(AxisType.Auto,)
    )
    self._own = NamedSharding(self._mesh, PartitionSpec(self._AXIS))
    self._shared = NamedSharding(self._mesh, PartitionSpec())
    self._pick = jax.jit(lambda tree, i: jax.tree.map(lambda x: x[i], tree))

  @property
  def shares(self) -> int:
    return 1

  def join(self, trees):
    def stack(*leaves):
      on_host = isinstance(leaves[0], np.ndarray | np.generic)
      return np.stack(leaves) if on_host else jnp.stack(leaves)

    return jax.tree.map(stack, *trees)

  def member(self, tree, i):
    return self._pick(tree, np.int32(i))

  def on_host(self, tree):
    whole = to_host(tree)
    return [jax.tree.map(lambda x: x[i], whole) for i in range(self.members)]

  def placement(self, tree):
    return jax.tree.map(lambda _: self._own, tree)

  def initialise(self, init, *args):
    return super().initialise(_vmapped(init), *args)

  def abstract(self, init, *args):
    return super().abstract(_vmapped(init), *args)

  def _compile_step(self, step, state, *, resident, fused):
    # Rows are the members' own; the resident arrays and the count are everybody's.
    own, shared = self._own, self._shared
    axes = (None, 1, None) if fused else (None, 0)[not resident :]
    rows = NamedSharding(self._mesh, PartitionSpec(None, self._AXIS))
    feed = (shared, rows, shared) if fused else (shared, own)[not resident :]
    return jax.jit(
      jax.vmap(functools.partial(step, offset=0, shards=WHOLE), in_axes=(0, 0, *axes)),
      in_shardings=(own, own, *feed),
      out_shardings=own,
      donate_argnums=0,
    )

  def _compile_measure(self, measure):
    compiled = jax.jit(
      jax.vmap(
        functools.partial(measure, offset=0, shards=WHOLE),
        in_axes=(0, 0, 0, None, None, None),
      )
    )

    def run(params, mutable, numbers, stored, rng, first):
      return compiled(params, mutable, numbers, _put(stored, self._shared), rng, first)

    return run


@functools.cache
def _vmapped(init):
  return jax.vmap(init)


class Trainer:
  """The compiled step of a stage: `trainer(state, feeds, numbers)` takes one step a feed.

  A feed and the numbers are those of all members joined; without numbers, the program's own.

  Attributes:
    fused: whether many steps share one dispatch. A small network's step costs less than its
      dispatch, so steps are fused wherever the data is on the device; except that XLA's CPU
      backend runs a convolution inside a loop more than ten times slower than outside
      (benchmarks/fused_steps.py), so there a program that contains one is never put in a loop.
    group: how many feeds the next call may have.
  """

  def __init__(self, parallel: Parallel, stage, state, resident):
    program = stage.program
    loops = parallel.devices[0].platform != "cpu" or not _convolves(
      program, parallel.member_shapes(state), resident
    )
    self.fused = resident is not None and loops
    self.group = 1
    self._resident = () if resident is None else (parallel.replicate(dict(resident)),)

    self._numbers = parallel.join([stage.numbers] * parallel.members)

    def one(state, numbers, *feed, offset, shards):
      stored = feed[0] if resident is None else _take(*feed)
      program = stage.at(numbers).program
      return train_step(state, stored, program, first=offset, shards=shards, unroll=not loops)

    def many(state, numbers, arrays, rows_KB, count, *, offset, shards):
      def body(i, state):
        return one(state, numbers, arrays, rows_KB[i], offset=offset, shards=shards)

      # A trip count that is an argument: any number of steps runs the same program, so how steps
      # were grouped, or where a run was interrupted, cannot change a bit of its result.
      return jax.lax.fori_loop(0, count, body, state)

    self._step = parallel._compile_step(
      many if self.fused else one, state, resident=resident is not None, fused=self.fused
    )
    self._calls = 0

  def __call__(self, state: State, feeds: Sequence[Any], numbers: Any = None) -> State:
    numbers = self._numbers if numbers is None else numbers
    if not self.fused:
      for feed in feeds:
        state = self._step(state, numbers, *self._resident, feed)
      return state
    rows_KB = np.stack([*feeds, *[feeds[-1]] * (_FUSED_STEPS - len(feeds))])
    before = time.perf_counter()
    state = self._step(state, numbers, *self._resident, rows_KB, np.int32(len(feeds)))
    self._calls += 1
    # The first call compiles; the next few are timed, and the group grows to what patience allows.
    # Processes would time differently, but have to take the same steps.
    if jax.process_count() == 1 and self._calls > 1 and len(feeds) == self.group < _FUSED_STEPS:
      jax.block_until_ready(state.step)
      if 2 * (time.perf_counter() - before) < _PATIENCE:
        self.group *= 2
    return state


class Caller:
  """Methods of a trained model, each compiled once a shape: a `tasks.objective.Call`.

  Args:
    stage: a `training.build.Stage`, whose model it is.
    numbers: the hyperparameters that the model was trained with.
    params: its parameters.
    mutable: its other collections.
    compiled: programs compiled so far, for all runs that share them.
  """

  def __init__(self, stage, numbers, params, mutable, *, compiled: dict):
    self.model = stage.model
    self._stage, self._numbers = stage, numbers
    self._variables = {"params": params, **mutable}
    self._compiled = compiled

  def __call__(self, *inputs, seed: int = 0, **options):
    return jax.tree.map(np.asarray, self.on_device(*inputs, seed=seed, **options))

  def on_device(
    self, *inputs, method="__call__", seed: int = 0, intermediates: bool = False, **fixed
  ):
    """The same, with the result where it was computed: for what goes in again, such as a cache."""
    key = (method, intermediates, tuple(sorted(fixed.items())))
    if key not in self._compiled:
      stage = self._stage
      kept = ["intermediates"] if intermediates else False

      # A model asks for streams of randomness by name; one key under "params" serves them all.
      def run(numbers, variables, rng, *inputs):
        found = stage.at(numbers).model.apply(
          variables, *inputs, method=method, rngs={"params": rng}, mutable=kept, **fixed
        )
        if not intermediates:
          return found
        return found[0], found[1]["intermediates"] if "intermediates" in found[1] else {}

      self._compiled[key] = jax.jit(run)
    return self._compiled[key](self._numbers, self._variables, jax.random.key(seed), *inputs)


def to_host(tree):
  """Every leaf whole, as a NumPy array; keys as their bits. All processes ask together."""

  def leaf(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x = jax.random.key_data(x)
    if not getattr(x, "is_fully_addressable", True) and not x.is_fully_replicated:
      x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)

  return jax.tree.map(leaf, tree)


def cleared(tree):
  """Zeros where `tree` lies: to what was compiled for it, those of the host are of another type."""
  return jax.tree.map(lambda x: _put(np.zeros(x.shape, x.dtype), x.sharding), tree)


def local(tree):
  """A state that this process can compute with alone: as it is, or whole on the host."""
  return tree if jax.process_count() == 1 else to_host(tree)


def anywhere(flag: bool) -> bool:
  """Whether `flag` is true in any of the processes, which ask together."""
  if processes.alone():
    return flag
  return bool(np.any(multihost_utils.process_allgather(np.bool_(flag))))


class Memory(NamedTuple):
  """Bytes on each device."""

  state_and_batch: int
  temporary: int


def memory(stage, state, stored, way: Mesh) -> Memory:
  """What a step needs on each device of a mesh, from the program that is compiled and not run.

  Args:
    stage: a `training.build.Stage`, whose step it is.
    state: shapes of its state.
    stored: shapes of a step's examples.
    way: the mesh. Its devices may be ones that only the compiler sees.
  """

  def step(state, numbers, stored, *, offset, shards):
    program = stage.at(numbers).program
    return train_step(state, stored, program, first=offset, shards=shards)

  compiled = way._compile_step(step, state, resident=False, fused=False)
  numbers = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), stage.numbers)
  found = compiled.lower(state, numbers, stored).compile().memory_analysis()
  return Memory(found.argument_size_in_bytes, found.temp_size_in_bytes)


def _put(tree, sharding):
  """Host arrays onto devices; each process hands over only the shards it holds."""

  def leaf(x):
    if isinstance(x, jax.Array) and x.sharding == sharding:
      return x
    x = np.asarray(x)
    if jax.process_count() == 1:
      return jax.device_put(x, sharding)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

  return jax.tree.map(leaf, tree)


def _take(arrays, rows):
  return {name: array[rows] for name, array in arrays.items()}


def _compiled_quickly() -> dict[str, int] | None:
  """XLA's options for what runs on CPUs once, unless XLA_FLAGS has a say in it.

  At LLVM's highest level initial weights take about twice as long to compile, for the same bits
  (benchmarks/initial_weights.py).
  """
  level = "xla_backend_optimization_level"
  return None if level in os.environ.get("XLA_FLAGS", "") else {level: 1}


def _convolves(program: Program, state, resident) -> bool:
  """Whether the step contains a convolution, read off its trace."""

  def inside(jaxpr) -> bool:
    for equation in jaxpr.eqns:
      if equation.primitive.name == "conv_general_dilated":
        return True
      for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
        value = getattr(value, "jaxpr", value)
        if hasattr(value, "eqns") and inside(value):
          return True
    return False

  if resident is None:
    return True
  stored = {
    name: jax.ShapeDtypeStruct((program.examples, *array.shape[1:]), array.dtype)
    for name, array in resident.items()
  }
  traced = jax.jit(lambda s, x: train_step(s, x, program)).trace(state, stored)
  return inside(traced.jaxpr.jaxpr)
