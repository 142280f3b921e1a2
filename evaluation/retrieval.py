"""Retrieval of documents by the cosine of their codes, and latent semantic indexing, the rival.

Deerwester, Dumais, Furnas, Landauer & Harshman 1990, "Indexing by latent semantic analysis".

Axes: Q queries, P documents to retrieve from, V words, K numbers of a code.
"""

import numpy as np

from evaluation.checks import checked


def ranked(queries_QK: np.ndarray, codes_PK: np.ndarray) -> np.ndarray:
  """[Q, P] documents by falling cosine with each query; equal ones in their order.

  A code of zeros is at a cosine of 0 with all.

  Raises:
    ValueError: there are no documents, or a code is not finite.
  """
  checked("a ranking of documents", codes_PK)
  checked("a ranking of documents", queries_QK, least=0)
  query, code = _unit(queries_QK), _unit(codes_PK)
  return np.argsort(-(query @ code.T), axis=1, kind="stable")


def relevance(
  queries: np.ndarray, codes: np.ndarray, query_labels: np.ndarray, labels: np.ndarray
) -> np.ndarray:
  """[Q', P] whether each retrieved document, best first, has the query's label.

  Queries whose label no document has are left out: there is nothing to retrieve for them.
  """
  answerable = np.isin(query_labels, labels)
  order = ranked(queries[answerable], codes)
  return labels[order] == query_labels[answerable][:, None]


def average_precision(relevant_QP: np.ndarray) -> float:
  """The mean over queries of the precision at each relevant document, averaged over those.

  Raises:
    ValueError: there is no query, or one that no document is relevant to.
  """
  _answerable(relevant_QP)
  rank_P = np.arange(1, relevant_QP.shape[1] + 1)
  precision_QP = np.cumsum(relevant_QP, axis=1) / rank_P
  return float(((precision_QP * relevant_QP).sum(1) / relevant_QP.sum(1)).mean())


def precision_at(relevant_QP: np.ndarray, count: int) -> float:
  """The share of the first `count` documents that are relevant, over queries.

  Raises:
    ValueError: there is no query, or one that no document is relevant to.
  """
  _answerable(relevant_QP)
  return float(relevant_QP[:, :count].mean())


def precision_curve(relevant_QP: np.ndarray, recall: np.ndarray) -> np.ndarray:
  """Mean precision where a share `recall` of the relevant documents has been retrieved."""
  total = relevant_QP.sum(1)
  wanted = np.ceil(np.outer(recall, total)).clip(1)  # documents, for every recall and query
  found_QP = np.cumsum(relevant_QP, axis=1)
  # The rank at which what has been found first reaches what is wanted.
  rank = np.stack([np.searchsorted(*pair) for pair in zip(found_QP, wanted.T, strict=True)], 1) + 1
  return (wanted / rank).mean(1)


def tf_idf(counts_NV: np.ndarray, train_PV: np.ndarray) -> np.ndarray:
  """Counts weighted by log inverse document frequency in `train_PV`, each document of length 1."""
  frequency_V = (train_PV > 0).sum(0)
  idf_V = np.log((1 + len(train_PV)) / (1 + frequency_V)) + 1  # smoothed, as scikit-learn's
  return _unit(counts_NV * idf_V)


def latent_semantic_codes(
  train_PV: np.ndarray, test_QV: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Projections on the first `count` right singular vectors of the training documents."""
  train_PV = train_PV.astype(np.float64)
  # The left singular vectors are the eigenvectors of the documents' products; where documents are
  # fewer than words, this is the smaller problem.
  values, left = np.linalg.eigh(train_PV @ train_PV.T)
  values, left_PK = values[::-1][:count], left[:, ::-1][:, :count]
  right_VK = train_PV.T @ left_PK / np.sqrt(np.maximum(values, 1e-12))
  return train_PV @ right_VK, test_QV @ right_VK


def _answerable(relevant_QP: np.ndarray) -> None:
  if not len(relevant_QP) or not relevant_QP.any(1).all():
    asked, left = len(relevant_QP), int((~relevant_QP.any(1)).sum())
    raise ValueError(f"of {asked} queries {left} have no relevant document: no precision")


def _unit(x_NK: np.ndarray) -> np.ndarray:
  x_NK = np.asarray(x_NK, np.float64)
  return x_NK / np.maximum(np.linalg.norm(x_NK, axis=1, keepdims=True), 1e-12)
