"""Angles between linear subspaces (Bjorck & Golub 1973), which no choice of basis changes."""

import numpy as np

from evaluation.checks import checked


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Cosines of the principal angles between the spans of rows [K, D] and [L, D], greatest first.

  There are min(K, L) of them; the last one is 1 only where one span holds the other.

  Raises:
    ValueError: there is no row, or a number is not finite.
  """
  checked("angles between subspaces", a, b)
  bases = [np.linalg.qr(np.asarray(rows, np.float64).T)[0] for rows in (a, b)]
  # Rounding may take a cosine a little beyond one.
  return np.minimum(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False), 1.0)
