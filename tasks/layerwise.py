"""Greedy pretraining of one layer of a stacked autoencoder, denoising or not.

Bengio et al. 2006, "Greedy layer-wise training of deep networks"; with corruption, Vincent et al.
2008 and 2010 (tasks/corruption.py).
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp

from models.layers import numerics
from tasks.corruption import Kind, corrupt
from tasks.likelihood import bernoulli_nll
from tasks.objective import Mean, Objective, Phase, on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the cross-entropy of layer `layer`'s reconstruction of the codes below it.

  The layer sees its input corrupted and must give it back clean. The codes below are always those
  of clean examples, and so is what is measured.

  Attributes:
    layer: counted from the bottom; the layers below it are left as they are.
    of: the element of a batch at the bottom.
    corruption: kind of the noise.
    level: the fraction of components corrupted, or the Gaussian's standard deviation; 0 is a plain
      autoencoder.
    corrupted_weight: of corrupted components in the loss (alpha of Vincent et al. 2010).
    clean_weight: of the others (beta); 0 is their "full emphasis". Gaussian noise leaves none.
  """

  layer: Annotated[int, "[0, inf)"] = 0
  of: str = "image"
  corruption: Kind = "masking"
  level: Annotated[float, "[0, 1]", "traced"] = 0.0
  corrupted_weight: Annotated[float, "[0, inf)", "traced"] = 1.0
  clean_weight: Annotated[float, "[0, inf)", "traced"] = 1.0

  def inputs(self, batch):
    return (batch[self.of],)

  def phases(self, model):
    if self.layer >= len(model.widths):
      raise ValueError(f"layer={self.layer}, but the model has {len(model.widths)} layers")

    def loss(params, state, batch, rng):
      if not on(self.level):
        return self._clean(model, params, batch), (state, {})
      return self._denoising(model, params, batch, rng), (state, {})

    return (Phase("layerwise", loss, trains=(f"layer_{self.layer}",)),)

  def measure(self, model):
    return lambda params, state, batch, rng: {"loss": self._clean(model, params, batch)}

  def _clean(self, model, params, batch) -> Mean:
    x_BD, logits_BD = model.apply(
      {"params": params}, batch[self.of], layer=self.layer, method="reconstruct"
    )
    # The layers below are no parameters of this phase, so x_BD is data to it.
    return Mean.over(bernoulli_nll(logits_BD, x_BD), batch["mask"])

  def _denoising(self, model, params, batch, rng) -> Mean:
    run = lambda method, x: model.apply({"params": params}, x, layer=self.layer, method=method)  # noqa: E731
    x_BD = run("below", batch[self.of])
    corrupted_BD, touched_BD = corrupt(self.corruption, rng, x_BD, self.level)
    logits_BD = run("restore", corrupted_BD)
    nll_BD = numerics.bernoulli_nll(logits_BD, x_BD)
    # Sums of either kind, so that weights of one are the plain cross-entropy.
    on_B = jnp.where(touched_BD, nll_BD, 0.0).sum(-1)
    off_B = jnp.where(touched_BD, 0.0, nll_BD).sum(-1)
    loss_B = self.corrupted_weight * on_B + self.clean_weight * off_B
    return Mean.over(loss_B, batch["mask"])
