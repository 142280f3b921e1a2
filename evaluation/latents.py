"""Whether latent units are in use."""

import numpy as np

from evaluation.checks import checked


def active(mean_NZ: np.ndarray, threshold: float = 0.01) -> int:
  """Units whose posterior mean varies over the data by more than `threshold`.

  Burda et al. 2016, arXiv:1509.00519, section 5.1.

  Raises:
    ValueError: there are no means, or some are not finite.
  """
  checked("the number of active units", mean_NZ)
  return int((mean_NZ.astype(np.float64).var(axis=0) > threshold).sum())
