"""Greedy pretraining of one layer of a stacked autoencoder (Bengio et al. 2006)."""

import dataclasses
from typing import Annotated

from tasks.likelihood import bernoulli_nll
from tasks.objective import Mean, Objective, Phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the cross-entropy of layer `layer`'s reconstruction of the codes below it.

  Attributes:
    layer: counted from the bottom; the layers below it are left as they are.
  """

  layer: Annotated[int, "[0, inf)"] = 0

  def phases(self, model):
    if self.layer >= len(model.widths):
      raise ValueError(f"layer={self.layer}, but the model has {len(model.widths)} layers")

    def loss(params, state, batch, rng):
      error = self._error(model, params, batch)
      return error, (state, {})

    return (Phase("layerwise", loss, trains=(f"layer_{self.layer}",)),)

  def measure(self, model):
    return lambda params, state, batch, rng: {"loss": self._error(model, params, batch)}

  def _error(self, model, params, batch) -> Mean:
    x_BD, logits_BD = model.apply(
      {"params": params}, batch["image"], layer=self.layer, method="reconstruct"
    )
    # The layers below are no parameters of this phase, so x_BD is data to it.
    return Mean.over(bernoulli_nll(logits_BD, x_BD), batch["mask"])
