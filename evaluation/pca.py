"""Principal component analysis, the linear autoencoder's optimum (Baldi & Hornik 1989)."""

import numpy as np

from evaluation.checks import checked


def components(data: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Mean [D] and the first `count` principal directions [count, D] of [N, ...] data.

  Raises:
    ValueError: there is no data, or a number is not finite; as in all of this file.
  """
  checked("principal components", data)
  flat_ND = data.reshape(len(data), -1).astype(np.float64)
  mean_D = flat_ND.mean(0)
  _, vectors = np.linalg.eigh((flat_ND - mean_D).T @ (flat_ND - mean_D))
  return mean_D, vectors[:, ::-1][:, :count].T


def project(data: np.ndarray, count: int) -> np.ndarray:
  """[N, count] coordinates of the data along its own first principal directions."""
  mean_D, directions = components(data, count)
  return (data.reshape(len(data), -1) - mean_D) @ directions.T


def errors(train: np.ndarray, test: np.ndarray, count: int) -> np.ndarray:
  """[N] squared errors of test examples, sums over dimensions, of components fitted on `train`."""
  mean_D, directions = components(train, count)
  checked("an error of principal components", test)
  centred_ND = test.reshape(len(test), -1).astype(np.float64) - mean_D
  left_out = centred_ND - centred_ND @ directions.T @ directions
  return np.square(left_out).sum(1)


def squared_error(train: np.ndarray, test: np.ndarray, count: int) -> float:
  """Their mean over the test examples."""
  return float(errors(train, test, count).mean())
