"""Contractive autoencoder: the code should hardly change where the input does.

Rifai, Vincent, Muller, Glorot & Bengio 2011, "Contractive auto-encoders: explicit invariance during
feature extraction", ICML: the reconstruction error plus lambda ||J_f(x)||_F^2, J_f being the
encoder's Jacobian. With weights that are tied: else the encoder could shrink while the decoder
grows, and the penalty would say nothing.
"""

import dataclasses
from typing import Annotated, Literal

import numpy as np

from tasks import reconstruction
from tasks.objective import Call, Examples, Mean, in_batches
from tasks.sparse import filters
from tasks.views import View


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(reconstruction.Task):
  """Minimises the reconstruction error and `contraction` times the squared norm of the Jacobian.

  Attributes:
    contraction: the paper's lambda; 0 is a plain autoencoder.
  """

  error: Literal["squared", "cross_entropy"] = "cross_entropy"
  contraction: Annotated[float, "[0, inf)", "traced"] = 0.1

  def phases(self, model):
    if not model.tied:
      raise ValueError("a contraction says something of tied weights alone: model.tied=True")
    return super().phases(model)

  def objective(self, model, params, out, errors, batch):
    error = errors[self.error]
    squared_B = model.apply({"params": params}, *self.inputs(batch), method="contraction")
    penalty = Mean.over(squared_B, batch["mask"])
    return Mean(error.total + self.contraction * penalty.total, error.count)

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Also the mean norm ||J_f(x)||_F of test examples, and the share of units that saturate."""
    inputs = self.inputs(test.arrays)
    squared_N = in_batches(call, *inputs, method="contraction").astype(np.float64)
    code_NK = in_batches(call, *inputs, method="encode")
    return {
      **super().score(call, train, test),
      "jacobian_norm": float(np.sqrt(squared_N).mean()),
      # Table 1's SAT, here of units below 0.05 or above 0.95.
      "saturated": float((np.abs(code_NK - 0.5) > 0.45).mean()),
    }

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    return {**super().views(call, train, test), "filters": filters(call)}
