"""How well scores rank what is sought before what is not.

Axes: N examples, Q queries, P candidates.
"""

import numpy as np


def auroc(score_N: np.ndarray, positive_N: np.ndarray) -> float:
  """The probability that a positive scores above a negative, ties counting half.

  That is the area under the ROC curve, by ranks (Hanley & McNeil 1982, "The meaning and use of the
  area under a receiver operating characteristic curve").

  Raises:
    ValueError: there are no positives or no negatives, or a score is not finite.
  """
  score_N, positive_N = _checked(score_N, positive_N)
  positives, negatives = int(positive_N.sum()), int((~positive_N).sum())
  _, level, counts = np.unique(score_N, return_inverse=True, return_counts=True)
  rank_N = (np.cumsum(counts) - (counts - 1) / 2)[level]  # equal scores share their mean rank
  above = rank_N[positive_N].sum() - positives * (positives + 1) / 2
  return float(above / (positives * negatives))


def roc(score_N: np.ndarray, positive_N: np.ndarray, false_alarms: np.ndarray) -> np.ndarray:
  """The share of positives found at each share of negatives that raise a false alarm.

  Raises:
    ValueError: as `auroc`.
  """
  score_N, positive_N = _checked(score_N, positive_N)
  order = np.argsort(-score_N, kind="stable")
  found, alarms = np.cumsum(positive_N[order]), np.cumsum(~positive_N[order])
  # Equal scores are crossed in one stride, as a threshold would.
  last = np.append(np.diff(score_N[order]) != 0, True)
  x, y = alarms[last] / alarms[-1], found[last] / found[-1]
  return np.interp(false_alarms, np.concatenate([[0], x]), np.concatenate([[0], y]))


def _checked(score_N, positive_N) -> tuple[np.ndarray, np.ndarray]:
  score_N, positive_N = np.asarray(score_N, np.float64), np.asarray(positive_N, bool)
  positives, negatives = int(positive_N.sum()), int((~positive_N).sum())
  if not positives or not negatives:
    raise ValueError(f"a ranking of {positives} positives and {negatives} negatives has no area")
  if not np.isfinite(score_N).all():
    raise ValueError("scores that are not finite have no ranks")
  return score_N, positive_N
