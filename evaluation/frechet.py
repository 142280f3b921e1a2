"""Distance between the distributions of two sets of images.

Heusel et al. 2017, arXiv:1706.08500, but in the space of the training set's principal components,
not of an Inception network: call it a Frechet distance, never FID.
"""

import numpy as np
import scipy.linalg

from evaluation import pca


def distance(a: np.ndarray, b: np.ndarray) -> float:
  """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features [N, F] and [M, F]."""
  covariances = [np.cov(x, rowvar=False) for x in (a, b)]
  root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
  # Rounding leaves a tiny imaginary part on a matrix that has none.
  trace = np.trace(covariances[0] + covariances[1] - 2 * np.real(root))
  return float(np.square(a.mean(0) - b.mean(0)).sum() + trace)


def principal_distance(train: np.ndarray, a: np.ndarray, b: np.ndarray, count: int = 16) -> float:
  """The distance of image sets `a` and `b` in the first `count` components of `train`."""
  mean_D, directions = pca.components(train, count)
  a_NF, b_NF = ((x.reshape(len(x), -1) - mean_D) @ directions.T for x in (a, b))
  return distance(a_NF, b_NF)
