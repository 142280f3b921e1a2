"""A linear autoencoder beside principal component analysis, which is its optimum.

Baldi & Hornik 1989, "Neural networks and principal component analysis: learning from examples
without local minima", Neural Networks 2:53-58. The squared error of a linear autoencoder has no
local minimum but the global ones, in which the decoder spans the principal subspace. Which basis of
it the units take is arbitrary, so subspaces are compared, not weights.
"""

import dataclasses

import numpy as np

from evaluation import pca, subspace
from tasks import reconstruction
from tasks.objective import Call, Examples, in_batches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(reconstruction.Task):
  """Minimises the squared error per example; scores how near it came to PCA on the training set."""

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """PCA's test error, and of the training set, on which the theorem is.

    `pca_gap` is the relative excess of the autoencoder's squared error over PCA's, `pca_cosine` the
    least cosine of the principal angles between the decoder's span and PCA's.
    """
    x = train.arrays[self.of]
    out = in_batches(call, *self.inputs(train.arrays))
    squared = np.square(out.reconstruction.astype(np.float64) - x).reshape(len(x), -1).sum(1).mean()
    units = out.code.shape[1]
    optimum = pca.squared_error(x, x, units)
    # The decoder is affine: what a unit adds is a row of its kernel.
    ends = call(np.eye(units, dtype=np.float32), method="decode")
    origin = call(np.zeros((1, units), np.float32), method="decode")
    directions = (ends.astype(np.float64) - origin).reshape(units, -1)
    _, principal = pca.components(x, units)
    return {
      **super().score(call, train, test),
      "pca_gap": float(squared / optimum - 1),
      "pca_cosine": float(subspace.cosines(directions, principal)[-1]),
    }
