"""The compiled programs of a stage, shared by every run that differs only in seed and numbers."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from training import step as steps
from training.build import Stage, devices
from training.evaluate import evaluator
from training.initial import Before, initial_state
from training.parallel import Caller, Parallel, Population, Trainer


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
    return Caller(self.stage, numbers, state.weights, state.mutable, compiled=self._called)


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
