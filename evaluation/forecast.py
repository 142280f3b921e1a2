"""Forecasts by ridge regression, and their errors.

Axes: N windows in the order of time, F features, H steps ahead.
"""

from typing import NamedTuple

import numpy as np

from evaluation.checks import checked

_PENALTIES = 10.0 ** np.arange(-8, 3)


class Ridge(NamedTuple):
  """A fitted regression of H numbers on F features.

  Attributes:
    centre: [F] mean of the features.
    scale: [F] their standard deviation.
    weights: [F, H] of the standardised features.
    bias: [H].
  """

  centre: np.ndarray
  scale: np.ndarray
  weights: np.ndarray
  bias: np.ndarray

  def __call__(self, features_NF: np.ndarray) -> np.ndarray:
    return (features_NF - self.centre) / self.scale @ self.weights + self.bias


def ridge(features_NF: np.ndarray, targets_NH: np.ndarray, penalty: float) -> Ridge:
  """Least squares with `penalty` * N on the squared weights of standardised features.

  Hoerl & Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems", eq. 2.1.
  The bias is not penalised.

  Raises:
    ValueError: there is no window, or a number is not finite.
  """
  checked("a ridge regression", features_NF, targets_NH)
  x_NF, y_NH = features_NF.astype(np.float64), targets_NH.astype(np.float64)
  centre, bias = x_NF.mean(0), y_NH.mean(0)
  scale = x_NF.std(0)
  scale = np.where(scale > 0, scale, 1.0)  # a feature that never changes has no weight to find
  x_NF = (x_NF - centre) / scale
  gram = x_NF.T @ x_NF + penalty * len(x_NF) * np.eye(x_NF.shape[1])
  return Ridge(centre, scale, np.linalg.solve(gram, x_NF.T @ (y_NH - bias)), bias)


def chronological_ridge(features_NF: np.ndarray, targets_NH: np.ndarray, gap: int) -> Ridge:
  """A ridge whose penalty is chosen on the last quarter of the windows, then fitted on all.

  Args:
    features_NF: in the order of time.
    targets_NH: what is to be forecast from each.
    gap: windows left out before the last quarter, so that none shares a moment with it.

  Raises:
    ValueError: too few windows for a part before the gap.
  """
  middle = len(features_NF) * 3 // 4
  early = middle - gap
  if early < 2:
    raise ValueError(f"{len(features_NF)} windows are too few for a gap of {gap}")

  def error(penalty: float) -> float:
    fitted = ridge(features_NF[:early], targets_NH[:early], penalty)
    return float(np.abs(fitted(features_NF[middle:]) - targets_NH[middle:]).mean())

  return ridge(features_NF, targets_NH, min(_PENALTIES, key=error))


def mae(actual: np.ndarray, forecast: np.ndarray) -> float:
  """Mean absolute error, in the data's unit; of no forecast or one not finite a ValueError."""
  checked("a mean absolute error", actual, forecast)
  return float(np.abs(actual - forecast).mean())


def smape(actual: np.ndarray, forecast: np.ndarray) -> float:
  """Symmetric mean absolute percentage error, 0 to 200 (Makridakis 1993).

  Where actual value and forecast are both 0 it is 0; of no forecast or one not finite a ValueError.
  """
  checked("an sMAPE", actual, forecast)
  size = np.abs(actual) + np.abs(forecast)
  return float((200 * np.abs(actual - forecast) / np.maximum(size, 1e-12)).mean())
