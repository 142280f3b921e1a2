"""Naive Bayes on bags of tokens: what a text's class is without the order of its words.

Maron 1961; with counts and add-one smoothing as in McCallum & Nigam 1998, "A Comparison of Event
Models for Naive Bayes Text Classification", the multinomial model. It is fitted in one pass, and is
what a model of sequences has to beat.

Axes: N texts, T tokens, V vocabulary, C classes.
"""

import numpy as np


def classify(
  train_NT: np.ndarray, label_N: np.ndarray, test_NT: np.ndarray, *, vocabulary: int, classes: int
) -> np.ndarray:
  """[N] the likeliest class of each text of the test set; tokens are -1 where padded."""
  counts_CV = np.ones((classes, vocabulary))
  where = np.broadcast_to(label_N[:, None], train_NT.shape)[train_NT >= 0]
  np.add.at(counts_CV, (where, train_NT[train_NT >= 0]), 1)
  odds_CV = np.log(counts_CV / counts_CV.sum(1, keepdims=True))
  prior_C = np.log(np.bincount(label_N, minlength=classes) + 1.0)
  each_CNT = np.where(test_NT >= 0, odds_CV[:, np.maximum(test_NT, 0)], 0.0)
  return (prior_C[:, None] + each_CNT.sum(-1)).argmax(0)
