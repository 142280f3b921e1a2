"""Anomaly detection by an autoencoder that has learnt what is normal: the one-class protocol.

Ruff, Vandermeulen, Goernitz, Deecke, Siddiqui, Binder, Mueller & Kloft 2018, "Deep one-class
classification", ICML, PMLR 80:4393-4402: trained on one class alone and without labels, tested on
all of the test split, where every other class is an anomaly; an example's score is its
reconstruction error. What is normal is read off the labels of the training split, which nothing
else reads. Beside it stand two rivals that need no training: the squared error of PCA with a code
of the same size, and the squared distance to the mean of the training examples.

Axes: N examples, D dimensions.
"""

import dataclasses

import numpy as np

from evaluation import pca, ranking
from tasks import reconstruction
from tasks.objective import Call, Examples, in_batches
from tasks.views import Images, Lines, View

_COLUMNS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(reconstruction.Task):
  """Reconstruction of normal examples, measured by how the error ranks anomalies above them."""

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """AUROC of the autoencoder, of PCA and of the distance to the mean, on the whole test split."""
    anomalous_N = anomalies(train, test)
    return {
      name: ranking.auroc(score_N, anomalous_N)
      for name, score_N in self._scores(call, train, test).items()
    }

  def _scores(self, call: Call, train: Examples, test: Examples) -> dict[str, np.ndarray]:
    """What each detector finds of every test example; the more, the more of an anomaly."""
    normal_MD, x_ND = (_rows(examples.arrays[self.of]) for examples in (train, test))
    out = in_batches(call, *self.inputs(test.arrays))
    size = out.code[0].size
    scores = {
      "auroc": np.square(_rows(out.reconstruction) - x_ND).sum(1),
      "centroid_auroc": np.square(x_ND - normal_MD.mean(0)).sum(1),
    }
    if size < normal_MD.shape[1]:
      scores["pca_auroc"] = pca.errors(normal_MD, x_ND, size)
    return scores

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    anomalous_N = anomalies(train, test)
    scores = self._scores(call, train, test)
    names = {"auroc": "autoencoder", "pca_auroc": "PCA", "centroid_auroc": "distance to the mean"}
    found: dict[str, View] = {}
    if anomalous_N.any() and not anomalous_N.all():
      share = np.linspace(0, 1, 201)
      found["roc"] = Lines(
        share,
        {names[k]: ranking.roc(score_N, anomalous_N, share) for k, score_N in scores.items()},
        ("share of normal examples that raise an alarm", "share of anomalies found"),
        "Anomalies found against false alarms, test split: the higher, the better.",
      )
    x = test.arrays[self.of]
    if x.ndim >= 3:  # pictures
      found["extremes"] = self._extremes(call, test, scores["auroc"])
    else:
      found["error"] = Lines(
        np.arange(len(x)),
        {
          "reconstruction error": scores["auroc"],
          "of anomalies": np.where(anomalous_N, scores["auroc"], np.nan),
        },
        ("window, in the order of time", "squared error"),
        "Squared reconstruction error along the test series.",
      )
    return found

  def _extremes(self, call: Call, test: Examples, score_N: np.ndarray) -> Images:
    order = np.argsort(score_N, kind="stable")
    rows = {}
    for label, chosen in (("least", order[:_COLUMNS]), ("most", order[-_COLUMNS:][::-1])):
      image = test.arrays[self.of][chosen]
      out = call(*(x[chosen] for x in self.inputs(test.arrays)))
      rows[f"{label} error"] = image
      rows[f"reconstructed, {label}"] = np.clip(out.reconstruction, 0, 1)
    return Images(rows, "Test images with the least and the most reconstruction error.")


def anomalies(train: Examples, test: Examples) -> np.ndarray:
  """[N] whether each test example is of a class that was not trained on."""
  return ~np.isin(test.arrays["label"], np.unique(train.arrays["label"]))


def _rows(x: np.ndarray) -> np.ndarray:
  return np.asarray(x, np.float64).reshape(len(x), -1)
