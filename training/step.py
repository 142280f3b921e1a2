"""One pure training step, written for the global batch."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from models.layers import batch_axis
from models.layers.batch_axis import WHOLE
from tasks.objective import Mean, Phase

_DATA, _PHASE = 0, 1  # streams of randomness within a step


class Rejected(NamedTuple):
  """How many steps changed nothing, int32.

  Attributes:
    running: in a row, up to this step.
    total: in the whole stage.
  """

  running: jax.Array
  total: jax.Array


class State(struct.PyTreeNode):
  """Everything that a run is at one step; the checkpoint holds all of it.

  Attributes:
    step: steps taken in this stage, int32.
    params: parameters, float32, by top-level group.
    mutable: the model's other collections ("batch_stats", ...).
    optimizer: one optimizer state a phase.
    ema: exponential moving average of `params`, or None.
    metrics: sums since the last logged row, over the steps that were not rejected.
    rejected: steps whose loss or gradient was not finite.
    rng: the stage's key; a step folds its number in, so nothing here ever needs to advance.
  """

  step: jax.Array
  params: dict[str, Any]
  mutable: dict[str, Any]
  optimizer: tuple[Any, ...]
  ema: dict[str, Any] | None
  metrics: dict[str, Mean]
  rejected: Rejected
  rng: jax.Array

  @property
  def weights(self) -> dict[str, Any]:
    """What is evaluated and handed on: the average where one is kept, else the parameters."""
    return self.params if self.ema is None else self.ema


class Program(NamedTuple):
  """What a step does, fixed before compilation.

  Attributes:
    phases: the objective's updates, in order.
    optimizers: one a phase.
    transform: `(stored batch, keys [B]) -> batch`, the source's.
    batch_size: examples of one update; a step reads `batch_size * sub_batches` of them.
    microbatches: parts of a batch whose gradients are summed one after another.
    ema_decay: 0 keeps no average.
    most_rejected: that many rejected steps in a row end the run.
    largest_gradient: a gradient with a larger norm is rejected too; 0 is no such limit.
  """

  phases: tuple[Phase, ...]
  optimizers: tuple[optax.GradientTransformation, ...]
  transform: Any
  batch_size: int
  microbatches: int = 1
  ema_decay: float = 0.0
  most_rejected: int = 10
  largest_gradient: float = 0.0

  @property
  def sub_batches(self) -> int:
    return max(phase.repeats for phase in self.phases)

  @property
  def examples(self) -> int:
    return self.batch_size * self.sub_batches

  @property
  def updates(self) -> int:
    return sum(phase.repeats for phase in self.phases)


def trained(phase: Phase, params):
  """The part of `params` that a phase updates."""
  return {group: params[group] for group in phase.trains or params}


def frozen(phases: tuple[Phase, ...], params) -> frozenset[str]:
  """The groups of `params` that no phase updates."""
  return frozenset(params).difference(*(trained(phase, params) for phase in phases))


def label(phases: tuple[Phase, ...], phase: Phase, name: str) -> str:
  """A metric's name; the phase's name goes before it where there are several phases."""
  return name if len(phases) == 1 else f"{phase.name}/{name}"


def split(tree, parts: int):
  """[B, ...] leaves as [B / parts, parts, ...]: each device keeps its examples in every part."""
  return jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), tree)


def part(tree, i):
  """The `i`-th part of what `split` made."""
  return jax.tree.map(lambda x: x[:, i], tree)


def gradients(
  phase, params, mutable, batch, index, rng, *, microbatches=1, shards=WHOLE, unroll=False
):
  """The gradient of a phase's mean loss over the global batch.

  Args:
    phase: which loss, against which parameters.
    params: all parameters.
    mutable: the model's other collections.
    batch: leaves [B, ...] of this device's share.
    index: [B] places of these examples in the global batch.
    rng: the key of this update.
    microbatches: the share is read in so many parts; the result does not depend on it, except
      through layers whose statistics are of the microbatch (batch normalisation).
    shards: how the devices that share the batch come together.
    unroll: a Python loop over microbatches instead of a compiled one.

  Returns:
    (gradients of the trained groups, loss, new mutable collections, metrics) of all devices.
  """

  def objective(part_of_params, mutable, batch, index):
    with batch_axis.scope(index, shards):
      loss, (mutable, metrics) = phase.loss({**params, **part_of_params}, mutable, batch, rng)
    # The gradient of the sum: shares of unequal count add up exactly, means of means would not.
    return loss.total, (loss, mutable, metrics)

  def microbatch(i, mutable):
    share, places = part((batches, indices), i)
    grads, (loss, mutable, metrics) = jax.grad(objective, has_aux=True)(
      trained(phase, params), mutable, share, places
    )
    return (grads, loss, metrics), mutable

  def add(carry, i):
    sums, mutable = carry
    more, mutable = microbatch(i, mutable)
    return (jax.tree.map(jnp.add, sums, more), mutable), None

  batches, indices = split((batch, index), microbatches)
  carry = microbatch(0, mutable)
  if microbatches > 1:
    others = jnp.arange(1, microbatches)
    carry, _ = jax.lax.scan(add, carry, others, unroll=len(others) if unroll else 1)
  (grads, loss, metrics), mutable = carry
  grads, loss, metrics = shards.total((grads, loss, metrics))
  grads = jax.tree.map(lambda g: g / jnp.maximum(loss.count, 1e-8), grads)
  return grads, loss, mutable, metrics


def _sound(loss: Mean, grads, mutable, largest_gradient: float) -> jax.Array:
  """Whether nothing that an update is made of is infinite or not a number.

  A gradient whose squares are more than float32 holds is none to go by either: Adam's second moment
  would be infinite from then on, and its steps zero.
  """
  norm = optax.tree.norm(grads)
  sound = jnp.isfinite(loss.total) & jnp.isfinite(norm)
  if largest_gradient:
    sound &= norm <= largest_gradient
  for leaf in jax.tree.leaves(mutable):
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
      sound &= jnp.isfinite(leaf).all()
  return sound


def train_step(
  state: State, stored, program: Program, *, first=0, shards=WHOLE, unroll=False
) -> State:
  """The state after one step.

  A step that meets a loss, a gradient or a statistic that is not finite is rejected: it is counted,
  and changes nothing else, as if its batch had not been there. After `program.most_rejected` of
  them in a row no step is taken at all, so the state still says where that was.

  Args:
    state: before the step.
    stored: this device's share of the step's examples, as the source stores them.
    program: what to do with them.
    first: place of the share's first example in the global batch.
    shards: how the devices that share the batch come together.
    unroll: see `gradients`.
  """
  rng = jax.random.fold_in(state.rng, state.step)
  index = first + jnp.arange(len(jax.tree.leaves(stored)[0]))
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(rng, _DATA), index)
  batch = program.transform(stored, keys)
  batch.setdefault("mask", jnp.ones(index.shape, jnp.float32))
  # Of each example, as everything in a batch is, so that a batch can be split whatever it holds.
  batch["step"] = jnp.full(index.shape, state.step, jnp.int32)
  batches, indices = split((batch, index), program.sub_batches)

  params, mutable, metrics = state.params, state.mutable, dict(state.metrics)
  optimizer = list(state.optimizer)
  going_on = state.rejected.running < program.most_rejected
  sound = going_on
  for p, phase in enumerate(program.phases):
    for r in range(phase.repeats):
      key = jax.random.fold_in(jax.random.fold_in(rng, _PHASE + p), r)
      grads, loss, mutable, measured = gradients(
        phase,
        params,
        mutable,
        *part((batches, indices), r),
        key,
        microbatches=program.microbatches,
        shards=shards,
        unroll=unroll,
      )
      sound &= _sound(loss, grads, mutable, program.largest_gradient)
      update = functools.partial(_updated, program.optimizers[p], grads)
      before = trained(phase, params), optimizer[p]
      changed, optimizer[p] = _if(sound, update, before)
      params = {**params, **changed}
      for name, value in {"loss": loss, **measured}.items():
        name = label(program.phases, phase, name)
        metrics[name] = metrics[name] + value if name in metrics else value
  if program.updates > 1:  # the earlier ones may have been made
    held = state.params, list(state.optimizer)
    params, optimizer = _where(sound, (params, optimizer), held)
  ema = state.ema
  if ema is not None:
    still = frozen(program.phases, params)
    moving = {group: tree for group, tree in params.items() if group not in still}
    average = functools.partial(optax.incremental_update, step_size=1.0 - program.ema_decay)
    before = {group: ema[group] for group in moving}
    ema = {**ema, **_if(sound, lambda old: average(moving, old), before)}
  more = Rejected(*(count + going_on for count in state.rejected))
  none = state.rejected._replace(running=jnp.zeros_like(state.rejected.running))
  mutable, metrics, rejected = _where(
    sound,
    (mutable, metrics, none),
    (state.mutable, zeros(metrics) | state.metrics, more),
  )
  return State(
    step=state.step + going_on,
    params=params,
    mutable=mutable,
    optimizer=tuple(optimizer),
    ema=ema,
    metrics=metrics,
    rejected=rejected,
    rng=state.rng,
  )


def _updated(optimizer: optax.GradientTransformation, grads, before):
  """(parameters, optimizer's state) after an update."""
  params, state = before
  updates, state = optimizer.update(grads, state, params)
  return optax.apply_updates(params, updates), state


def _if(condition: jax.Array, change, before):
  """`change(before)` where the condition holds, otherwise `before`.

  A select of both makes XLA's CPU backend copy what it reads and overwrites: a sixth of the step of
  benchmarks/vae_step.py. A branch does not, but would make an accelerator's host wait for the
  condition.
  """
  if jax.default_backend() == "cpu":
    return jax.lax.cond(condition, change, lambda kept: kept, before)
  return _where(condition, change(before), before)


def _where(condition: jax.Array, one, other):
  """One of two trees."""
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def initial(program: Program, params, mutable, rng) -> State:
  """The state before the first step, with no metrics yet. Pure."""
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    mutable=mutable,
    optimizer=tuple(
      optimizer.init(trained(phase, params))
      for phase, optimizer in zip(program.phases, program.optimizers, strict=True)
    ),
    ema=params if program.ema_decay else None,
    metrics={},
    rejected=Rejected(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)),
    rng=rng,
  )


def row(program: Program, state: State, stored) -> dict[str, Mean]:
  """Host zeros like the metrics of steps on examples shaped like `stored`, by tracing alone."""
  after = jax.eval_shape(lambda s, x: train_step(s, x, program), state, stored)
  return zeros(after.metrics)


def zeros(tree):
  """Host zeros shaped like `tree`."""
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)


def measure_step(
  params, mutable, stored, rng, *, measure, transform, first=0, shards=WHOLE
) -> dict[str, Mean]:
  """Metrics of one evaluation batch, summed over devices.

  The randomness of an example depends on its place in the split, so neither the batch size nor the
  number of devices changes what is measured.
  """
  index = first + jnp.arange(len(jax.tree.leaves(stored)[0]))
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(rng, _DATA), index)
  batch = transform(stored, keys)
  with batch_axis.scope(index, shards):
    metrics = measure(params, mutable, batch, jax.random.fold_in(rng, _PHASE))
  return shards.total(metrics)
