"""N-gram models: the sums of the definition, probabilities that sum to one, English."""

import collections

import numpy as np
import pytest

from data import text
from evaluation import ngram


def by_definition(train, test, order, vocabulary):
  """Witten & Bell's method C with dictionaries."""
  after = collections.defaultdict(collections.Counter)
  for place, token in enumerate(train):
    for length in range(min(order, place) + 1):
      after[tuple(train[place - length : place])][token] += 1
  found = []
  for place, token in enumerate(test):
    p = 1 / vocabulary
    for length in range(min(order, place) + 1):
      if counts := after.get(tuple(test[place - length : place])):
        p = (counts[token] + len(counts) * p) / (sum(counts.values()) + len(counts))
    found.append(p)
  return found


@pytest.mark.parametrize("order", [0, 1, 2, 4])
def test_probabilities_are_those_of_the_definition(order):
  generator = np.random.default_rng(order)
  train, test = generator.integers(0, 5, 300), generator.integers(0, 7, 200)
  found = ngram.probabilities(train, test, order=order, vocabulary=7)
  expected = by_definition(train.tolist(), test.tolist(), order, 7)
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  bits = ngram.bits(train, test, order=order, vocabulary=7)
  assert bits == pytest.approx(-np.log2(expected).sum())


def test_probabilities_after_a_context_sum_to_one():
  train = np.random.default_rng(0).integers(0, 6, 400)
  for context in ([], [1], [1, 2], [5, 5, 5, 5], [7, 1]):
    last = [
      ngram.probabilities(train, np.array([*context, w]), order=3, vocabulary=8)[-1]
      for w in range(8)
    ]
    assert sum(last) == pytest.approx(1.0)
    assert min(last) > 0


def test_a_context_that_only_ends_the_training_stream_says_nothing():
  train = np.array([0, 1, 0, 1, 2])
  found = ngram.probabilities(train, np.array([2, 0]), order=2, vocabulary=3)
  np.testing.assert_allclose(found, by_definition([0, 1, 0, 1, 2], [2, 0], 2, 3), rtol=1e-12)


def test_empty_streams():
  nothing = np.zeros(0, np.int32)
  assert ngram.bits(np.array([0, 1]), nothing, order=2, vocabulary=4) == 0.0
  assert ngram.bits(nothing, np.array([0, 3]), order=2, vocabulary=4) == pytest.approx(4.0)


def test_ids_beyond_the_vocabulary_are_refused():
  with pytest.raises(ValueError, match="not below 3"):
    ngram.bits(np.array([0, 3]), np.array([0]), order=1, vocabulary=3)


def test_longer_contexts_predict_the_bible_better():
  source = text.Source(dataset="kjv", tokenizer="characters")
  try:
    train, test = source.stream("train")[:400_000], source.stream("test")[:40_000]
  except FileNotFoundError as error:
    pytest.skip(str(error))
  found = [ngram.bits(train, test, order=order, vocabulary=66) / 40_000 for order in range(4)]
  assert found == sorted(found, reverse=True)
  assert 4.2 < found[0] < 4.5
  assert 2.0 < found[3] < 2.4
