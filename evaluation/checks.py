"""What a score may refuse: nothing to score, or numbers that are none."""

import numpy as np


def checked(what: str, *arrays: np.ndarray, least: int = 1) -> None:
  """Refuses arrays of too few rows, or that hold what is not finite.

  A mean over nothing, or over one nan, would be a nan that says not where it came from.

  Args:
    what: is computed of them, for the message.
    arrays: [N, ...].
    least: rows that it needs.

  Raises:
    ValueError: it cannot be computed.
  """
  for array in arrays:
    if len(array) < least:
      raise ValueError(f"{what} needs {least} or more of each, found {len(array)}")
    bad = int((~np.isfinite(array)).sum())
    if bad:
      raise ValueError(f"{what}: {bad} of {np.size(array)} numbers are not finite")
