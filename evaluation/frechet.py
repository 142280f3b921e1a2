"""Distance between the distributions of two sets of images.

Heusel et al. 2017, arXiv:1706.08500, but in the space of the training set's principal components,
not of an Inception network: call it a Frechet distance, never FID.
"""

import numpy as np

from evaluation import pca
from evaluation.checks import checked


def distance(a: np.ndarray, b: np.ndarray) -> float:
  """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features [N, F] and [M, F].

  Raises:
    ValueError: a set has less than two rows and so no covariance, or a number is not finite.
  """
  checked("a Frechet distance", a, b, least=2)
  c_a, c_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
  # The trace of the root is the sum of the roots of C_a C_b's eigenvalues, all at least zero up to
  # rounding; unlike the root itself, they are well defined where a covariance is singular.
  root = np.sqrt(np.maximum(np.real(np.linalg.eigvals(c_a @ c_b)), 0)).sum()
  trace = np.trace(c_a + c_b) - 2 * root
  return float(np.square(a.mean(0) - b.mean(0)).sum() + trace)


def principal_distance(train: np.ndarray, a: np.ndarray, b: np.ndarray, count: int = 16) -> float:
  """The distance of image sets `a` and `b` in the first `count` components of `train`."""
  mean_D, directions = pca.components(train, count)
  a_NF, b_NF = ((x.reshape(len(x), -1) - mean_D) @ directions.T for x in (a, b))
  return distance(a_NF, b_NF)
