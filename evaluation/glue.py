"""GLUE's metrics, and its score.

Wang et al. 2019, arXiv:1804.07461, table 1 and section 3: Matthews' correlation for CoLA, Pearson's
and Spearman's for STS-B, F1 beside accuracy for the paraphrase tasks MRPC and QQP, accuracy for the
rest; a task with two metrics counts with their mean, and the score is the mean over tasks.

Where a metric divides by zero, predictions being constant for instance, it is 0: nothing was told.

Axes: N examples.
"""

import math
from collections.abc import Mapping

import numpy as np
import scipy.stats

from evaluation.checks import checked

METRICS = {
  "cola": ("matthews",),
  "sst2": ("accuracy",),
  "mrpc": ("accuracy", "f1"),
  "stsb": ("pearson", "spearman"),
  "qqp": ("accuracy", "f1"),
  "mnli": ("accuracy_matched", "accuracy_mismatched"),
  "qnli": ("accuracy",),
  "rte": ("accuracy",),
  "wnli": ("accuracy",),
}


def accuracy(found_N: np.ndarray, label_N: np.ndarray) -> float:
  """The share of labels that were found; 0 of none."""
  return float((np.asarray(found_N) == np.asarray(label_N)).mean()) if len(label_N) else 0.0


def f1(found_N: np.ndarray, label_N: np.ndarray) -> float:
  """The harmonic mean of precision and recall of class 1."""
  return harmonic(*shares(found_N, label_N))


def matthews(found_N: np.ndarray, label_N: np.ndarray) -> float:
  """Matthews 1975: the correlation of two binary variables."""
  return binary_correlation(*shares(found_N, label_N))


def shares(found_N: np.ndarray, label_N: np.ndarray) -> tuple[float, float, float]:
  """The shares of examples that are of class 1, that were found to be, and of which both hold."""
  found_N, label_N = np.asarray(found_N) == 1, np.asarray(label_N) == 1
  if not len(label_N):
    return 0.0, 0.0, 0.0
  return float(label_N.mean()), float(found_N.mean()), float((found_N & label_N).mean())


def harmonic(positive: float, found: float, both: float) -> float:
  """F1 from `shares`: 2 / (1 / precision + 1 / recall)."""
  return 2 * both / (positive + found) if positive + found else 0.0


def binary_correlation(positive: float, found: float, both: float) -> float:
  """Matthews' correlation from `shares`: the covariance over the root of the variances."""
  spread = positive * (1 - positive) * found * (1 - found)
  return (both - positive * found) / math.sqrt(spread) if spread > 0 else 0.0


def pearson(found_N: np.ndarray, label_N: np.ndarray) -> float:
  """The correlation of two lists of numbers; 0 where one is constant or empty.

  Raises:
    ValueError: a number is not finite.
  """
  checked("a correlation", found_N, label_N, least=0)
  found_N, label_N = (np.asarray(x, np.float64) for x in (found_N, label_N))
  # Shifted and scaled first: what is constant but for rounding is constant.
  found_N, label_N = (x - x.mean() if len(x) else x for x in (found_N, label_N))
  norms = [np.sqrt(np.square(x).sum()) for x in (found_N, label_N)]
  return float(np.clip(found_N @ label_N / math.prod(norms), -1, 1)) if all(norms) else 0.0


def spearman(found_N: np.ndarray, label_N: np.ndarray) -> float:
  """The correlation of their ranks, equal ones sharing their mean rank.

  Raises:
    ValueError: a number is not finite.
  """
  checked("a correlation of ranks", found_N, label_N, least=0)
  if not len(label_N):
    return 0.0
  return pearson(scipy.stats.rankdata(found_N), scipy.stats.rankdata(label_N))


def score(metrics: Mapping[str, Mapping[str, float]]) -> float:
  """GLUE's score: the mean over tasks of the mean of a task's metrics, in percent.

  Args:
    metrics: by task, what an evaluation of it measured.

  Raises:
    ValueError: no tasks, or one that is none of GLUE's, or lacks a metric.
  """
  found = []
  for task, measured in metrics.items():
    if task not in METRICS:
      raise ValueError(f"{task} is no task of GLUE: those are {', '.join(METRICS)}")
    missing = [name for name in METRICS[task] if name not in measured]
    if missing:
      raise ValueError(f"{task}: no {', '.join(missing)}")
    found.append(np.mean([measured[name] for name in METRICS[task]]))
  if not found:
    raise ValueError("no tasks to score")
  return float(100 * np.mean(found))
