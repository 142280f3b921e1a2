"""k-sparse autoencoder's training: the number of units kept falls to k.

Makhzani & Frey 2014, "k-Sparse autoencoders", ICLR, arXiv:1312.5663: with a small k from the start,
units that are not chosen early never learn, so k falls linearly over the first half of the epochs.
Features for a classifier keep alpha k units.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
import numpy as np

from evaluation import probing
from tasks import reconstruction
from tasks.objective import Call, Examples, Mean, in_batches
from tasks.sparse import filters
from tasks.views import View

_PROBED = 10_000  # training examples of the classifiers, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(reconstruction.Task):
  """Minimises the squared error through the units that are kept.

  Attributes:
    falling_steps: over which the number kept falls from all units to k; 0 keeps k from the start.
    alpha: features keep alpha times as many units as training.
  """

  falling_steps: Annotated[int, "[0, 2147483647]"] = 0
  alpha: Annotated[float, "[1, inf)"] = 1.0

  def inputs(self, batch):
    if not self.falling_steps or "step" not in batch:
      return super().inputs(batch)
    gone_B = batch["step"].astype(jnp.float32) / self.falling_steps
    return (*super().inputs(batch), 1 - jnp.minimum(gone_B, 1))

  def errors(self, out, batch):
    active_B = (out.code != 0).astype(jnp.float32).sum(-1)
    return {**super().errors(out, batch), "active": Mean.over(active_B, batch["mask"])}

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    kept = min(round(self.alpha * call.model.k), call.model.code)
    return in_batches(call, *self.inputs(examples.arrays), method="encode", kept=kept)

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Also k, the share of units that no training example chooses, and what a classifier makes of
    the features and of the pixels.
    """
    code_NK = in_batches(call, *self.inputs(train.arrays), method="encode")
    found = {
      **super().score(call, train, test),
      "k": float(call.model.k),
      "dead": float((code_NK == 0).all(0).mean()),
    }
    if "label" in train.arrays:
      found |= self._probed(call, train, test)
    return found

  def _probed(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    train = Examples({name: x[:_PROBED] for name, x in train.arrays.items()})
    labels = train.arrays["label"], test.arrays["label"]
    features = [self.features(call, part) for part in (train, test)]
    pixels = [part.arrays[self.of].reshape(len(part.arrays[self.of]), -1) for part in (train, test)]
    return {
      "linear_accuracy": probing.classify(*features, *labels)["linear_accuracy"],
      "pixels_linear_accuracy": probing.classify(*pixels, *labels)["linear_accuracy"],
    }

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    return {**super().views(call, train, test), "filters": filters(call)}
