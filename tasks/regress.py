"""Regression by squared error."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from evaluation.checks import checked
from tasks.objective import Call, Examples, Mean, Objective, Phase, applied
from tasks.views import Scatter, View


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the squared error of a prediction of `target` [B, C], a sum over its dimensions.

  Attributes:
    of: the element of a batch that is predicted from.
  """

  of: str = "features"

  def inputs(self, batch):
    return (batch[self.of],)

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      return _squared(out.logits, batch), (state, {})

    return (Phase("regress", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      error = _squared(out.logits, batch)
      return {"loss": error, "squared": error}

    return measure

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """R^2 on the test set: the share of its variance explained; and least squares', the rival."""
    found_NC = call(test.arrays[self.of], train=False).logits
    linear_NC = _least_squares(train.arrays, test.arrays, self.of)
    target_NC = test.arrays["target"]
    return {"r2": _r2(found_NC, target_NC), "linear_r2": _r2(linear_NC, target_NC)}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    found_NC = call(test.arrays[self.of], train=False).logits
    points_N2 = np.stack([test.arrays["target"][:, 0], found_NC[:, 0]], -1)
    caption = "Test examples; a perfect prediction lies on the diagonal."
    return {"predictions": Scatter(points_N2, None, ("target", "prediction"), caption)}


def _squared(found_BC, batch) -> Mean:
  return Mean.over(jnp.square(found_BC - batch["target"]).sum(-1), batch["mask"])


def _least_squares(train, test, of: str) -> np.ndarray:
  """The prediction [N, C] of a linear model with a constant, fitted on `train`."""

  def design(x):
    flat_ND = x.reshape(len(x), -1).astype(np.float64)
    return np.concatenate([flat_ND, np.ones((len(x), 1))], 1)

  weights, *_ = np.linalg.lstsq(design(train[of]), train["target"], rcond=None)
  return design(test[of]) @ weights


def _r2(found_NC: np.ndarray, target_NC: np.ndarray) -> float:
  """1 less the share of the variance that is left; of a target without any 0, or 1 if it is met."""
  checked("the variance explained", found_NC, target_NC)
  left = np.square(found_NC - target_NC, dtype=np.float64).sum()
  whole = np.square(target_NC - target_NC.mean(0), dtype=np.float64).sum()
  return float(1 - left / whole) if whole > 0 else float(left == 0)
