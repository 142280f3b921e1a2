"""Optimizers and learning-rate schedules: the settings are ours, the arithmetic is Optax's.

`optimizer.name` picks a class of this file by its name in lower case.
"""

import abc
import collections
import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import optax

from tasks.objective import on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer(abc.ABC):
  """What every optimizer of a phase has.

  Attributes:
    learning_rate: the peak of the schedule.
    schedule: what happens after warm-up; "cosine" and "linear" end at `final_fraction` of the peak
      at the last step, "exponential" reaches it geometrically, "step" multiplies by `step_factor`
      at each of `step_at`, "inverse_sqrt" falls as 1 / sqrt(update) after warm-up (Vaswani et al.
      2017, equation 3, whose rate peaks at (D * warmup_steps)^-0.5).
    warmup_steps: updates of linear warm-up from zero.
    step_at: fractions of the run at which "step" drops the rate.
    clip_norm: the gradient's global norm is scaled down to this; 0 is off.
    weight_decay: decoupled (Loshchilov & Hutter 2019) for AdamW; for the others the L2 penalty's
      gradient, added before the update.
    decay: which parameters weight decay touches; "kernels" leaves out vectors (biases, norms).
  """

  learning_rate: Annotated[float, "[0, inf)", "traced"] = 1e-3
  schedule: Literal["constant", "cosine", "linear", "exponential", "step", "inverse_sqrt"] = (
    "constant"
  )
  warmup_steps: Annotated[int, "[0, 2147483647]"] = 0
  final_fraction: Annotated[float, "(0, 1]"] = 0.01
  step_at: tuple[Annotated[float, "(0, 1)"], ...] = (0.5, 0.75)
  step_factor: Annotated[float, "(0, 1]"] = 0.1
  clip_norm: Annotated[float, "[0, inf)", "traced"] = 0.0
  weight_decay: Annotated[float, "[0, inf)", "traced"] = 0.0
  decay: Literal["kernels", "all"] = "kernels"

  @abc.abstractmethod
  def scale(self) -> optax.GradientTransformation:
    """Gradient to direction, before the learning rate."""

  def rate(self, updates: int) -> optax.Schedule:
    """The learning rate as a function of the update's number, for a run of `updates` updates."""
    peak, after = self.learning_rate, max(updates - self.warmup_steps, 1)
    match self.schedule:
      case "constant":
        body = optax.constant_schedule(peak)
      case "cosine":
        body = optax.cosine_decay_schedule(peak, after, self.final_fraction)
      case "linear":
        body = optax.linear_schedule(peak, peak * self.final_fraction, after)
      case "exponential":
        body = optax.exponential_decay(peak, after, self.final_fraction)
      case "step":
        drops = collections.defaultdict(lambda: 1.0)
        for at in self.step_at:
          drops[round(at * updates) - self.warmup_steps] *= self.step_factor
        body = optax.piecewise_constant_schedule(peak, drops)
      case "inverse_sqrt":
        reach = max(self.warmup_steps, 1)  # the formula is whole, its warm-up included
        step = lambda update: jnp.asarray(update + 1, jnp.float32)  # noqa: E731
        return lambda i: peak * jnp.minimum(step(i) / reach, jnp.sqrt(reach / step(i)))
    if not self.warmup_steps:
      return body
    # From peak / (w + 1), not from zero: a first update of size zero would be a wasted batch.
    first = peak / (self.warmup_steps + 1)
    warmup = optax.linear_schedule(first, peak, self.warmup_steps)
    return optax.join_schedules([warmup, body], [self.warmup_steps])

  def transformation(self, updates: int) -> optax.GradientTransformation:
    """The whole update rule. Gradients arrive as means over the global batch."""
    chain = []
    if on(self.clip_norm):
      chain.append(optax.clip_by_global_norm(self.clip_norm))
    decay = optax.add_decayed_weights(self.weight_decay, mask=self._decayed)
    if on(self.weight_decay) and not isinstance(self, AdamW):
      chain.append(decay)
    chain.append(self.scale())
    if on(self.weight_decay) and isinstance(self, AdamW):
      chain.append(decay)
    return optax.chain(*chain, optax.scale_by_learning_rate(self.rate(updates)))

  def _decayed(self, params):
    return jax.tree.map(lambda leaf: self.decay == "all" or leaf.ndim > 1, params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
  """Stochastic gradient descent with (Nesterov) momentum."""

  momentum: Annotated[float, "[0, 1)", "traced"] = 0.0
  nesterov: bool = False

  def scale(self):
    if not on(self.momentum):
      return optax.identity()
    return optax.trace(self.momentum, self.nesterov)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
  """Kingma & Ba 2015, arXiv:1412.6980."""

  b1: Annotated[float, "[0, 1)", "traced"] = 0.9
  b2: Annotated[float, "[0, 1)", "traced"] = 0.999
  epsilon: Annotated[float, "(0, inf)", "traced"] = 1e-8

  def scale(self):
    return optax.scale_by_adam(self.b1, self.b2, self.epsilon)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
  """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adagrad(Optimizer):
  """Duchi, Hazan & Singer 2011."""

  initial: Annotated[float, "[0, inf)"] = 0.0  # of the sums of squares; Optax's default is 0.1
  epsilon: Annotated[float, "(0, inf)", "traced"] = 1e-7

  def scale(self):
    return optax.scale_by_rss(self.initial, self.epsilon)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RmsProp(Optimizer):
  """Tieleman & Hinton 2012."""

  rho: Annotated[float, "[0, 1)", "traced"] = 0.9
  epsilon: Annotated[float, "(0, inf)", "traced"] = 1e-8
  momentum: Annotated[float, "[0, 1)", "traced"] = 0.0

  def scale(self):
    rms = optax.scale_by_rms(self.rho, self.epsilon)
    return optax.chain(rms, optax.trace(self.momentum)) if on(self.momentum) else rms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adadelta(Optimizer):
  """Zeiler 2012, arXiv:1212.5701, whose own steps want a learning rate of 1."""

  rho: Annotated[float, "[0, 1)", "traced"] = 0.95
  epsilon: Annotated[float, "(0, inf)", "traced"] = 1e-6

  def scale(self):
    return optax.scale_by_adadelta(self.rho, self.epsilon)


NAMES = {cls.__name__.lower(): cls for cls in (Sgd, Adam, AdamW, Adagrad, RmsProp, Adadelta)}
