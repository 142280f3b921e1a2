"""Retrieval of documents by the codes of an autoencoder.

Hinton & Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks", Science
313:504-507, figure 4: an autoencoder of word proportions with a softmax output, trained by the
multinomial cross-entropy -sum_i p_i log q_i; documents are retrieved by the cosine between codes,
and a retrieved one is right where it has the query's topic. The rival is latent semantic indexing
with codes of the same size, of three representations: counts, tf-idf, and what the network sees.
The best of the three by its average precision on the test queries stands as `lsi_`, which favours
the rival.

Axes: B documents of a batch, V words, Q queries (test), P documents to retrieve from (train).
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from evaluation import pca, retrieval
from tasks import reconstruction
from tasks.likelihood import multinomial_nll
from tasks.objective import Call, Examples, Mean
from tasks.views import Lines, Scatter, View

_FIRST = 10  # documents, of which the precision is measured
_TOPICS = 10  # that a figure shows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(reconstruction.Task):
  """Reconstruction of the words of `counts` from `document`, measured by what codes retrieve."""

  of: str = "counts"
  error: Literal["multinomial"] = "multinomial"

  def inputs(self, batch):
    return (batch["document"],)

  def errors(self, out, batch) -> dict[str, Mean]:
    """Nats per word, each document counting once whatever its length."""
    counts_BV = batch[self.of]
    proportions_BV = counts_BV / jnp.maximum(counts_BV.sum(-1, keepdims=True), 1.0)
    nll_B = multinomial_nll(out.logits, proportions_BV)
    return {"multinomial": Mean.over(nll_B, batch["mask"])}

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Average precision, and precision of the first ten, of test queries among train documents."""
    found = {}
    for name, relevant_QP in self._relevance(call, train, test).items():
      found[f"{name}average_precision"] = retrieval.average_precision(relevant_QP)
      found[f"{name}precision_at_{_FIRST}"] = retrieval.precision_at(relevant_QP, _FIRST)
    return found

  def _relevance(self, call: Call, train: Examples, test: Examples) -> dict[str, np.ndarray]:
    """[Q, P] whether each retrieved document is relevant, by the prefix of its metrics."""
    labels = test.arrays["label"], train.arrays["label"]
    queries, documents = (self.features(call, examples) for examples in (test, train))
    size = documents.shape[1]
    found = {"": retrieval.relevance(queries, documents, *labels)}
    counts = train.arrays["counts"], test.arrays["counts"]
    representations = {
      "counts": counts,
      "tf_idf": tuple(retrieval.tf_idf(x, counts[0]) for x in counts),
      "roots": (train.arrays["document"], test.arrays["document"]),
    }
    for name, (known, new) in representations.items():
      codes, asked = retrieval.latent_semantic_codes(known, new, size)
      found[f"lsi_{name}_"] = retrieval.relevance(asked, codes, *labels)
    rivals = [name for name in found if name]
    found["lsi_"] = found[max(rivals, key=lambda name: retrieval.average_precision(found[name]))]
    return found

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    relevance = self._relevance(call, train, test)
    recall = np.linspace(0.02, 1, 50)
    names = {"": "autoencoder", "lsi_counts_": "LSI, counts", "lsi_tf_idf_": "LSI, tf-idf"}
    names["lsi_roots_"] = "LSI, roots of proportions"
    code_QK, label_Q = self.features(call, test), test.arrays["label"]
    largest = np.argsort(-np.bincount(label_Q), kind="stable")[:_TOPICS]
    shown = np.isin(label_Q, largest)
    index = {label: i for i, label in enumerate(largest)}
    plane = code_QK if code_QK.shape[1] == 2 else pca.project(code_QK, 2)
    return {
      "precision_recall": Lines(
        recall,
        {
          label: retrieval.precision_curve(relevance[name], recall) for name, label in names.items()
        },
        ("recall", "precision"),
        f"Retrieval with codes of {code_QK.shape[1]} numbers: the higher, the better.",
      ),
      "codes": Scatter(
        plane[shown],
        np.array([index[label] for label in label_Q[shown]]),
        ("first component", "second component"),
        f"Codes of the test documents of the {len(largest)} largest topics.",
        tuple(test.class_names[label] for label in largest),
      ),
    }
