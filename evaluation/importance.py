"""Log-likelihoods from importance weights: Burda et al. 2016, arXiv:1509.00519, eq. 8.

Axes: K samples of the proposal, N examples.
"""

import numpy as np
from scipy.special import logsumexp


def bound(log_weights_KN: np.ndarray, samples: int) -> float:
  """L_samples, the mean over examples of log of the mean weight of so many samples.

  Averaged over the disjoint groups of samples that there are.

  Raises:
    ValueError: there are fewer samples than that, no examples, or weights that are no numbers.
  """
  _check(log_weights_KN)
  groups = len(log_weights_KN) // samples
  if not groups:
    raise ValueError(f"{len(log_weights_KN)} samples cannot give a bound of {samples}")
  grouped = log_weights_KN[: groups * samples].astype(np.float64)
  grouped = grouped.reshape(groups, samples, -1)
  return float((logsumexp(grouped, axis=1) - np.log(samples)).mean())


def nll(log_weights_KN: np.ndarray) -> dict[str, float]:
  """-log p(x) in nats per example, from all samples.

  Returns:
    `nll`; `nll_se`, its standard error over examples, which includes that of the sampling; and
    `nll_monte_carlo_se`, what the sampling alone contributes on this set of examples (by the delta
    method; too small where a few samples carry all the weight). An example all of whose weights
    are zero has an infinite `nll`, and so has the mean. Errors are nan where they cannot be told:
    of one example, of one sample, of what is infinite.

  Raises:
    ValueError: there are no samples or no examples, or a weight is no number.
  """
  _check(log_weights_KN)
  log_w = log_weights_KN.astype(np.float64)
  samples, examples = log_w.shape
  estimate_N = logsumexp(log_w, axis=0) - np.log(samples)
  found = {"nll": float(-estimate_N.mean()), "nll_se": np.nan, "nll_monte_carlo_se": np.nan}
  if not np.isfinite(estimate_N).all():
    return found
  if examples > 1:
    found["nll_se"] = float(estimate_N.std(ddof=1) / np.sqrt(examples))
  if samples > 1:
    relative_N = np.exp(log_w - estimate_N).var(axis=0, ddof=1)
    found["nll_monte_carlo_se"] = float(np.sqrt(np.sum(relative_N / samples)) / examples)
  return found


def _check(log_weights_KN: np.ndarray) -> None:
  if not log_weights_KN.size:
    raise ValueError(f"importance weights of shape {log_weights_KN.shape} say nothing")
  # -inf is a weight of zero.
  bad = int((np.isnan(log_weights_KN) | (log_weights_KN == np.inf)).sum())
  if bad:
    raise ValueError(f"{bad} of {log_weights_KN.size} importance weights are no numbers")
