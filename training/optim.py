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
    # By name too: the biases of stacked layers are matrices, a row a layer.
    def kernel(path, leaf):
      return leaf.ndim > 1 and not path[-1].key.endswith(("bias", "scale"))

    return jax.tree.map_with_path(
      lambda path, leaf: self.decay == "all" or kernel(path, leaf), params
    )


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
  """Kingma & Ba 2015, arXiv:1412.6980.

  Attributes:
    b1: decay of the mean of gradients.
    b2: decay of the mean of their squares.
    epsilon: added to the root of the latter.
    bias_correction: whether the means, which start from zero, are divided by what that costs them.
      Without it, as BERT was trained (Devlin et al. 2019, the code), update t is about
      (1 - b1^t) / sqrt(1 - b2^t) times as large (Mosbach et al. 2021, arXiv:2006.04884, section 5).
  """

  b1: Annotated[float, "[0, 1)", "traced"] = 0.9
  b2: Annotated[float, "[0, 1)", "traced"] = 0.999
  epsilon: Annotated[float, "(0, inf)", "traced"] = 1e-8
  bias_correction: bool = True

  def scale(self):
    adam = optax.scale_by_adam(self.b1, self.b2, self.epsilon)
    if self.bias_correction:
      return adam

    def update(grads, state, params=None):
      _, state = adam.update(grads, state, params)
      direction = lambda mean, square: mean / (jnp.sqrt(square) + self.epsilon)  # noqa: E731
      return jax.tree.map(direction, state.mu, state.nu), state

    return optax.GradientTransformation(adam.init, update)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor(Optimizer):
  """Shazeer & Stern 2018, arXiv:1804.04235, algorithms 4 to 6, with which T5 was trained.

  The mean of squares of a matrix is kept by rows and columns where both are 128 or more. There is
  no mean of gradients, and a rate is relative to the root mean square of the parameter. A stack of
  equal layers is one parameter here, as are the matrices of all heads.

  Attributes:
    exponent: the mean of squares decays by 1 - t^-exponent at update t.
    threshold: the root mean square that an update is scaled down to.
    smallest: of a parameter's root mean square, so that one that starts from zero moves.
  """

  exponent: Annotated[float, "(0, 1]"] = 0.8
  threshold: Annotated[float, "(0, inf)"] = 1.0
  smallest: Annotated[float, "(0, inf)"] = 1e-3

  def scale(self):
    return optax.chain(
      optax.scale_by_factored_rms(decay_rate=self.exponent),
      optax.clip_by_block_rms(self.threshold),
      optax.scale_by_param_block_rms(self.smallest),
    )


_CLASSES = (Sgd, Adam, AdamW, Adagrad, RmsProp, Adadelta, Adafactor)
NAMES = {cls.__name__.lower(): cls for cls in _CLASSES}
