"""The likelihood of data whose dimensions are modelled each on its own, which any model must beat.

D dimensions, L grey levels.
"""

import numpy as np

from evaluation.checks import checked


def nll(train: np.ndarray, test: np.ndarray, levels: int) -> float:
  """-log p in nats per example of `test`, under a histogram of every dimension of `train`.

  One more example of each level is added to the counts (Laplace's rule), so that a level that a
  pixel never showed is possible.

  Args:
    train: [N, ...] grey levels as fractions from 0 to 1.
    test: [M, ...] likewise.
    levels: how many grey levels there are.

  Raises:
    ValueError: there is nothing to train on or to test, or a pixel is no number.
  """
  checked("the likelihood of independent pixels", train, test)
  train_ND, test_ND = (
    np.round(x.reshape(len(x), -1) * (levels - 1)).astype(np.int64) for x in (train, test)
  )
  counts_LD = np.stack([(train_ND == level).sum(0) for level in range(levels)]) + 1
  log_p_LD = np.log(counts_LD / (len(train_ND) + levels))
  return float(-np.take_along_axis(log_p_LD, test_ND, axis=0).sum(1).mean())
