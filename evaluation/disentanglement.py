"""How far each latent speaks of one known factor of the data, and each factor through one latent.

Mutual information gap: Chen, Li, Grosse & Duvenaud 2018, arXiv:1802.04942, section 4.1, with the
mean codes in 20 bins of equal width, as is usual since Locatello et al. 2019, arXiv:1811.12359.
Linear classifier of differences: Higgins et al. 2017, "beta-VAE", section 3. Majority vote on the
latent of least variance: Kim & Mnih 2018, arXiv:1802.05983, section 4. The decomposition of the
divergence from the prior: Chen et al., eq. 2, over a whole set where they estimate from a batch.

The papers draw examples from a renderer; here they are drawn, with replacement, from the examples
of a split. Axes: N examples, K factors, Z latents, V votes (or values of a factor), L examples
of a vote, D draws, Q posteriors.
"""

from typing import NamedTuple

import numpy as np

_BINS = 20
_COLLAPSED = 0.05  # the variance under which Kim & Mnih leave a latent out
_LARGEST = 100.0  # log-variance
_CHUNK = 64  # codes compared with all posteriors at once


def scores(codes_NZ: np.ndarray, factors_NK: np.ndarray, seed: int = 0) -> dict[str, float]:
  """All three metrics, of mean codes and their true factors; 1 is perfect.

  Codes that are not finite, as of a run that diverged, have no metrics: nan.

  Args:
    codes_NZ: one representation an example.
    factors_NK: indices of the values of each factor.
    seed: of the examples that two of the metrics draw.
  """
  if not np.isfinite(codes_NZ).all():
    return dict.fromkeys(("mig", "higgins", "factor_vae"), float("nan"))
  higgins_rng, vote_rng = np.random.default_rng(seed).spawn(2)
  return {
    "mig": mutual_information_gap(codes_NZ, factors_NK),
    "higgins": higgins(codes_NZ, factors_NK, higgins_rng),
    "factor_vae": factor_vae(codes_NZ, factors_NK, vote_rng),
  }


def mutual_information_gap(codes_NZ, factors_NK, bins: int = _BINS) -> float:
  """The mean over factors of (I of the best latent - I of the second) / H of the factor.

  A factor with only one value has no information to share and is left out.

  Raises:
    ValueError: all of them are such, or there is no example.
  """
  _varying(factors_NK, 1)
  shares_ZK = shares(codes_NZ, factors_NK, bins)
  # A single latent is ahead of none.
  second_K, best_K = np.sort(np.pad(shares_ZK, ((1, 0), (0, 0))), axis=0)[-2:]
  return float((best_K - second_K)[(factors_NK != factors_NK[0]).any(0)].mean())


def shares(codes_NZ: np.ndarray, factors_NK: np.ndarray, bins: int = _BINS) -> np.ndarray:
  """Mutual information [Z, K] of latents with factors, as shares of the factors' entropies."""
  entropy_K = np.array([_entropy(np.bincount(column)) for column in factors_NK.T])
  return information(codes_NZ, factors_NK, bins) / np.maximum(entropy_K, 1e-12)


def information(codes_NZ: np.ndarray, factors_NK: np.ndarray, bins: int = _BINS) -> np.ndarray:
  """Mutual information [Z, K] in nats of every latent, in `bins` bins, with every factor."""
  result = np.empty((codes_NZ.shape[1], factors_NK.shape[1]))
  for z, code_N in enumerate(codes_NZ.T):
    edges = np.histogram_bin_edges(code_N, bins)
    bin_N = np.clip(np.searchsorted(edges, code_N, side="right") - 1, 0, bins - 1)
    for k, factor_N in enumerate(factors_NK.T):
      values = factor_N.max() + 1
      joint = np.bincount(bin_N * values + factor_N, minlength=bins * values)
      joint = joint.reshape(bins, values)
      # I(a; b) = H(a) + H(b) - H(a, b).
      result[z, k] = _entropy(joint.sum(1)) + _entropy(joint.sum(0)) - _entropy(joint.ravel())
  return np.maximum(result, 0)


def _entropy(counts: np.ndarray) -> float:
  """Entropy in nats of a distribution given as counts."""
  p = counts[counts > 0] / counts.sum()
  return float(-(p * np.log(p)).sum())


def higgins(codes_NZ, factors_NK, rng: np.random.Generator, *, votes=1500, examples=64) -> float:
  """Accuracy of a linear classifier that is to tell which factor the two of a pair share.

  What it sees is the mean of |z_1 - z_2| over `examples` such pairs. A third of `votes` tests it.

  Raises:
    ValueError: less than two factors vary, so there is nothing to tell.
  """
  from sklearn.linear_model import LogisticRegression  # a second to import

  _varying(factors_NK, 2)
  sharing = _Sharing(factors_NK)
  factor_V = rng.choice(sharing.varying, votes)
  first_VL = rng.integers(len(codes_NZ), size=(votes, examples))
  values_VL = factors_NK[first_VL, factor_V[:, None]]
  second_VL = sharing.draw(factor_V[:, None], values_VL, rng)
  differences_VZ = np.abs(codes_NZ[first_VL] - codes_NZ[second_VL]).mean(1)
  # In comparable units, or the classifier's penalty would depend on the scale of the codes.
  differences_VZ /= np.maximum(differences_VZ.std(0), 1e-12)
  cut = 2 * votes // 3
  linear = LogisticRegression(max_iter=1000).fit(differences_VZ[:cut], factor_V[:cut])
  return float(linear.score(differences_VZ[cut:], factor_V[cut:]))


def factor_vae(codes_NZ, factors_NK, rng: np.random.Generator, *, votes=1500, examples=64) -> float:
  """Accuracy of telling a fixed factor by the latent that varies least, by majority vote.

  In each vote `examples` examples have one factor in common, and the latent with the least variance
  relative to its variance over all examples votes. Latents that hardly vary over all examples have
  no vote. A third of `votes` tests what the others elected.

  Raises:
    ValueError: no factor varies.
  """
  _varying(factors_NK, 1)
  variance_Z = codes_NZ.var(0)
  alive_Z = variance_Z >= _COLLAPSED
  sharing = _Sharing(factors_NK)
  factor_V = rng.choice(sharing.varying, votes)
  values_V = factors_NK[rng.integers(len(codes_NZ), size=votes), factor_V]
  shape = (votes, examples)
  rows_VL = sharing.draw(
    np.broadcast_to(factor_V[:, None], shape), np.broadcast_to(values_V[:, None], shape), rng
  )
  relative_VZ = codes_NZ[rows_VL].var(1) / np.maximum(variance_Z, 1e-12)
  latent_V = np.where(alive_Z, relative_VZ, np.inf).argmin(1)
  cut = 2 * votes // 3
  counts_ZK = np.zeros((codes_NZ.shape[1], factors_NK.shape[1]), int)
  np.add.at(counts_ZK, (latent_V[:cut], factor_V[:cut]), 1)
  return float((counts_ZK.argmax(1)[latent_V[cut:]] == factor_V[cut:]).mean())


def _varying(factors_NK: np.ndarray, least: int) -> None:
  found = int((factors_NK != factors_NK[:1]).any(0).sum())
  if found < least:
    raise ValueError(
      f"{found} factors take more than one value in {len(factors_NK)} examples: disentanglement is"
      f" measured of {least} or more"
    )


class _Sharing:
  """Draws examples that have a given value of a given factor.

  Attributes:
    varying: the factors that take more than one value.
  """

  def __init__(self, factors_NK: np.ndarray):
    self._order_KN = np.argsort(factors_NK, axis=0, kind="stable").T
    counts = [np.bincount(column) for column in factors_NK.T]
    self._counts_KV = np.zeros((len(counts), max(map(len, counts))), int)
    for k, count in enumerate(counts):
      self._counts_KV[k, : len(count)] = count
    self._starts_KV = np.cumsum(self._counts_KV, axis=1) - self._counts_KV
    self.varying = np.flatnonzero((self._counts_KV > 0).sum(1) > 1)

  def draw(self, factor, value, rng: np.random.Generator) -> np.ndarray:
    """Rows of examples, uniformly among those whose `factor` has `value` (arrays of one shape)."""
    factor = np.broadcast_to(factor, value.shape)
    place = rng.integers(self._counts_KV[factor, value])
    return self._order_KN[factor, self._starts_KV[factor, value] + place]


class Divergence(NamedTuple):
  """E_x KL(q(z|x) || N(0, I)) in nats, as three parts that add up to it (Chen et al., eq. 2)."""

  mutual_information: float  # KL(q(z, x) || q(z) p(x))
  total_correlation: float  # KL(q(z) || prod_j q(z_j))
  dimension_wise: float  # sum_j KL(q(z_j) || p(z_j))


def decomposition(mean_QZ, log_variance_QZ, rng: np.random.Generator, draws=2000) -> Divergence:
  """The parts for the mixture q(z) of all given posteriors, by `draws` draws from it.

  q(z) is summed over all Q of them exactly; the mean over draws is the only estimate. The mutual
  information cannot exceed log Q. Log-variances count as within [-100, 100], where all is finite.
  Posteriors that are not finite, as of a run that diverged, have no parts: nan.
  """
  if not (np.isfinite(mean_QZ).all() and np.isfinite(log_variance_QZ).all()):
    return Divergence(*3 * [float("nan")])
  log_variance_QZ = np.clip(log_variance_QZ, -_LARGEST, _LARGEST)
  mean_QZ, log_variance_QZ = mean_QZ.astype(np.float64), log_variance_QZ.astype(np.float64)
  rows_D = rng.integers(len(mean_QZ), size=draws)
  noise_DZ = rng.standard_normal((draws, mean_QZ.shape[1]))
  z_DZ = mean_QZ[rows_D] + np.exp(0.5 * log_variance_QZ[rows_D]) * noise_DZ
  log_q_x = _log_normal(z_DZ, mean_QZ[rows_D], log_variance_QZ[rows_D]).sum(-1)
  log_q_z, log_product = np.empty(draws), np.empty(draws)
  for start in range(0, draws, _CHUNK):
    part = slice(start, start + _CHUNK)
    log_q_DQZ = _log_normal(z_DZ[part, None], mean_QZ, log_variance_QZ)
    log_q_z[part] = _log_mean_exp(log_q_DQZ.sum(-1))
    log_product[part] = _log_mean_exp(log_q_DQZ).sum(-1)
  log_p = _log_normal(z_DZ, 0.0, 0.0).sum(-1)
  return Divergence(
    float(np.mean(log_q_x - log_q_z)),
    float(np.mean(log_q_z - log_product)),
    float(np.mean(log_product - log_p)),
  )


def _log_normal(x, mean, log_variance):
  return -0.5 * (np.log(2 * np.pi) + log_variance + (x - mean) ** 2 * np.exp(-log_variance))


def _log_mean_exp(x: np.ndarray) -> np.ndarray:
  """Over axis 1."""
  largest = x.max(1, keepdims=True)
  return np.log(np.exp(x - largest).mean(1)) + largest[:, 0]
