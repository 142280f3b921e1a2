"""Classification by a Transformer of image patches, with where it looks and what pixels alone tell.

Dosovitskiy et al. 2021, arXiv:2010.11929: figure 6 and appendix D.7 for attention maps, by the
rollout of Abnar & Zuidema 2020, arXiv:2005.00928.

Axes: L layers, N examples, H heads, T tokens, the class token first.
"""

import dataclasses

import jax
import numpy as np

from evaluation import probing
from tasks import classify
from tasks.objective import Call, Examples
from tasks.views import Images, View

_COLUMNS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(classify.Task):
  """Minimises the cross-entropy of the labels, in nats.

  Attributes:
    pixels: whether logistic regression on the pixels of the same training images stands beside the
      network, as `linear_accuracy`.
  """

  pixels: bool = False

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    if not self.pixels:
      return {}
    rows = [x.arrays["image"].reshape(len(x.arrays["image"]), -1) for x in (train, test)]
    labels = [x.arrays["label"] for x in (train, test)]
    return {"linear_accuracy": probing.classify(*rows, *labels)["linear_accuracy"]}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    image = test.arrays["image"][:_COLUMNS]
    _, seen = call(image, intermediates=True)
    (maps_LNHTT,) = jax.tree.leaves(seen)
    grid = call.model.grid
    share_N = rollout(maps_LNHTT)[:, 0, 1:].reshape(-1, *grid)
    share_N /= share_N.max((1, 2), keepdims=True)
    patch = (image.shape[1] // grid[0], image.shape[2] // grid[1])
    mask = share_N.repeat(patch[0], 1).repeat(patch[1], 2)[..., None]
    rows = {"image": image, "attention": np.broadcast_to(mask, image.shape)}
    caption = "Test images, and how much of each patch reaches the class token (rollout)."
    return {**super().views(call, train, test), "attention": Images(rows, caption)}


def rollout(maps_LNHTT: np.ndarray) -> np.ndarray:
  """[N, T, T] how much of each token's input every token of the last layer holds.

  Heads are averaged and half of what a layer puts out is taken to be its own input.
  """
  mixed_LNTT = 0.5 * np.asarray(maps_LNHTT, np.float64).mean(2) + 0.5 * np.eye(maps_LNHTT.shape[-1])
  found_NTT = mixed_LNTT[0]
  for layer_NTT in mixed_LNTT[1:]:
    found_NTT = layer_NTT @ found_NTT
  return found_NTT
