"""N-gram language models on token ids, the baseline of any neural one.

Witten & Bell 1991, "The zero-frequency problem", IEEE Transactions on Information Theory 37(4),
method C, interpolated: after a context h of n tokens that was seen c(h) times with T(h) different
tokens after it,

  p(w | h) = (c(h w) + T(h) p(w | h')) / (c(h) + T(h)),

h' being h without its oldest token; after no context at all, p(w | h') is 1 / vocabulary. A context
never seen leaves it to the shorter one.
"""

import numpy as np


def bits(train_N: np.ndarray, test_N: np.ndarray, *, order: int, vocabulary: int) -> float:
  """The bits that the whole of a test stream takes, its first token included."""
  return float(-np.log2(probabilities(train_N, test_N, order=order, vocabulary=vocabulary)).sum())


def probabilities(
  train_N: np.ndarray, test_N: np.ndarray, *, order: int, vocabulary: int
) -> np.ndarray:
  """[N] the probability of each token of a test stream after the `order` tokens before it.

  Args:
    train_N: ids counted in, below `vocabulary`.
    test_N: ids to predict; the first ones from as many as there are before them.
    order: how many tokens a context has at most; 0 for frequencies alone.
    vocabulary: how many ids there are, seen or not.

  Raises:
    ValueError: an id is not in the vocabulary.
  """
  streams = [np.asarray(stream, np.int64) for stream in (train_N, test_N)]
  for stream in streams:
    if stream.size and not 0 <= stream.min() <= stream.max() < vocabulary:
      raise ValueError(f"found ids from {stream.min()} to {stream.max()}, not below {vocabulary}")
  p_N = np.full(len(streams[1]), 1 / vocabulary)
  if not len(streams[0]):
    return p_N
  # The number of the context at each place, the same in both streams where the same; -1 where a
  # test context was never counted, or there is none as long.
  contexts = [np.zeros_like(stream) for stream in streams]
  for length in range(order + 1):
    (train_H, test_H), (train_W, test_W) = contexts, streams
    grams, train_G, count_G = np.unique(
      np.where(train_H < 0, -1, train_H * vocabulary + train_W),
      return_inverse=True,
      return_counts=True,
    )
    history_G = np.where(grams < 0, -1, grams // vocabulary)
    known = history_G >= 0
    seen = np.bincount(history_G[known], count_G[known])  # c(h)
    kinds = np.bincount(history_G[known])  # T(h)
    test_G = _find(grams, np.where(test_H < 0, -1, test_H * vocabulary + test_W))
    count_N = np.where(test_G < 0, 0, count_G[test_G])
    has = test_H >= 0
    h = test_H[has]
    p_N[has] = (count_N[has] + kinds[h] * p_N[has]) / (seen[h] + kinds[h])
    if length < order:
      train_G = np.where(train_H < 0, -1, train_G)
      contexts = [_before(train_G), _before(test_G)]
      # A gram that is the last of the training stream is no context of anything in it.
      contexts[1] = np.where(np.isin(contexts[1], contexts[0]), contexts[1], -1)
  return p_N


def _find(sorted_G: np.ndarray, wanted_N: np.ndarray) -> np.ndarray:
  """[N] where each is among the sorted, -1 where it is not or is itself negative."""
  place_N = np.minimum(np.searchsorted(sorted_G, wanted_N), len(sorted_G) - 1)
  return np.where((wanted_N >= 0) & (sorted_G[place_N] == wanted_N), place_N, -1)


def _before(grams_N: np.ndarray) -> np.ndarray:
  """The gram that ends just before each place, which is the context of that place."""
  return np.concatenate([np.full(min(1, len(grams_N)), -1), grams_N[:-1]])
