"""The compiled programs of a stage, shared by every run that differs only in seed and numbers."""

import functools
import time
from collections.abc import Sequence
from typing import Any

import jax

from data import source as sources
from training import step as steps
from training.build import Stage, devices
from training.evaluate import evaluator
from training.initial import Before, initial_state
from training.parallel import Caller, Parallel, Population, Trainer, local

_PROBES = 5  # dispatches that are timed


class Machine:
  """What a stage's runs execute; compiled once, when it is first needed.

  Args:
    stage: any stage of the structure. Its data is what all of them read.
    parallel: the devices.
  """

  def __init__(self, stage: Stage, parallel: Parallel):
    self.stage, self.parallel = stage, parallel
    self._init = initial_state(stage)
    self._called = {}

  def initial(self, keys: Sequence[jax.Array], before: Sequence[Before] | None) -> steps.State:
    """The joined state before the first step, from every member's key and what it takes over."""
    join = self.parallel.join
    return self.parallel.initialise(
      self._init, join(keys), join(before) if before is not None else None
    )

  @functools.cached_property
  def abstract(self) -> Any:
    """Shapes, types and placement of the state."""
    keys = self.parallel.join([jax.random.key(0)] * self.parallel.members)
    return self.parallel.abstract(self._init, keys, None)

  @functools.cached_property
  def trainer(self) -> Trainer:
    """Takes steps."""
    arrays = self.stage.source.split("train").arrays
    return self.parallel.trainer(self.stage, self.abstract, resident=arrays)

  @functools.cached_property
  def evaluate(self):
    """`(params, mutable, split name, numbers) -> one Measured a member`."""
    return evaluator(self.stage, self.parallel)

  def call(self, state: steps.State, numbers) -> Caller:
    """The trained model of one run; its state lies anywhere, on its own."""
    weights, mutable = local((state.weights, state.mutable))
    return Caller(self.stage, numbers, weights, mutable, compiled=self._called)

  def seconds(self, stages: Sequence[Stage]) -> float:
    """Seconds of one step of all members, the least of a few, after compilation."""
    join, source = self.parallel.join, self.stage.source
    train, size = source.split("train"), self.stage.program.examples
    rows = sources.batch_rows(train, 0, 0, size)
    feed = join([rows if train.arrays is not None else train.take(rows)] * len(stages))
    numbers = join([stage.numbers for stage in stages])
    state = self.initial([jax.random.key(0)] * len(stages), None)
    found = []
    for _ in range(_PROBES + 1):
      before = time.perf_counter()
      state = jax.block_until_ready(self.trainer(state, [feed], numbers))
      found.append(time.perf_counter() - before)
    return min(found[1:])


class Machines:
  """The machines of a process, one for every structure of a stage.

  Args:
    members: how many runs are trained at once under `vmap`; 0 trains one on all devices.
  """

  def __init__(self, members: int = 0):
    self._members = members
    self._machines = {}

  def of(self, stage: Stage) -> Machine:
    if stage.structure not in self._machines:
      parallel = Population(self._members) if self._members else devices(stage.training)
      self._machines[stage.structure] = Machine(stage, parallel)
    return self._machines[stage.structure]

  def __len__(self) -> int:
    return len(self._machines)
