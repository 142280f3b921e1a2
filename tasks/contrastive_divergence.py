"""Contrastive divergence: one machine of a stack learns the data that the machines below make.

Hinton 2002, "Training products of experts by minimizing contrastive divergence", Neural Computation
14:1771-1800; as Hinton & Salakhutdinov 2006 use it.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from tasks.objective import Mean, Objective, Phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Follows <v h> of the data minus <v h> of its reconstructions, for machine `layer`.

  That is the gradient of F(data) - F(reconstruction), F the free energy, where the reconstruction
  counts as given. The difference is no bound of anything and has no least value worth reaching: the
  squared error of the reconstruction is what to watch.

  Attributes:
    layer: the machine, counted from the bottom; those below it are left as they are.
    steps: Gibbs steps from the data to its reconstruction.
    of: the element of a batch at the bottom.
  """

  layer: Annotated[int, "[0, inf)"] = 0
  steps: Annotated[int, "[1, inf)"] = 1
  of: str = "image"

  def inputs(self, batch):
    return (batch[self.of],)

  def phases(self, model):
    machines = len(model.widths) + 1
    if self.layer >= machines:
      raise ValueError(f"layer={self.layer}, but the model has {machines} machines")

    def loss(params, state, batch, rng):
      metrics = self._metrics(model, params, batch, rng)
      return metrics.pop("loss"), (state, metrics)

    return (Phase("contrastive_divergence", loss, trains=(f"rbm_{self.layer}",)),)

  def measure(self, model):
    return lambda params, state, batch, rng: self._metrics(model, params, batch, rng)

  def _metrics(self, model, params, batch, rng) -> dict[str, Mean]:
    def run(method, x, **rngs):
      return model.apply({"params": params}, x, layer=self.layer, method=method, rngs=rngs)

    data_BD = found_BD = run("data", batch[self.of])
    for key in jax.random.split(rng, self.steps):
      found_BD = run("gibbs", found_BD, latent=key)
    found_BD = jax.lax.stop_gradient(found_BD)
    difference_B = run("free_energy", data_BD) - run("free_energy", found_BD)
    squared_B = jnp.square(data_BD - found_BD).sum(-1)
    return {
      "loss": Mean.over(difference_B, batch["mask"]),
      "squared": Mean.over(squared_B, batch["mask"]),
    }
