"""What representations are good for: simple classifiers trained on them."""

import warnings

import numpy as np

from evaluation.checks import checked


def classify(
  train_NF: np.ndarray,
  test_NF: np.ndarray,
  train_label_N: np.ndarray,
  test_label_N: np.ndarray,
  *,
  neighbours: int = 5,
) -> dict[str, float]:
  """Test accuracy of logistic regression and of a nearest-neighbour vote.

  Features are standardised by the training set's mean and deviation; the neighbours are the
  Euclidean ones among the features as they are. The regression's L2 penalty is scikit-learn's
  default, fitted by L-BFGS in at most 1,000 steps.

  Returns:
    `linear_accuracy` and `neighbour_accuracy`.

  Raises:
    ValueError: a set is empty, a feature is not finite, or all training labels are one class.
  """
  checked("a probe", train_NF, test_NF)
  if (train_label_N == train_label_N[0]).all():
    raise ValueError(f"a probe: all {len(train_label_N)} training labels are {train_label_N[0]}")
  # Imported here: a second that nothing else need pay.
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.linear_model import LogisticRegression
  from sklearn.neighbors import KNeighborsClassifier
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler

  linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
  nearest = KNeighborsClassifier(min(neighbours, len(train_NF)))
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # a probe, whose budget is said above
    linear.fit(train_NF, train_label_N)
  nearest.fit(train_NF, train_label_N)
  return {
    "linear_accuracy": float(linear.score(test_NF, test_label_N)),
    "neighbour_accuracy": float(nearest.score(test_NF, test_label_N)),
  }
