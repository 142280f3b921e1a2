"""Evidence lower bound of log p(x|y), y the label (Kingma et al. 2014, arXiv:1406.5298, eq. 6).

With the label given, H(y) - H(y|x) nats of an image need not be said: log 10 at most for ten
classes that are alike in number. Of two models that are not perfect, the difference may be more.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from tasks import elbo
from tasks.objective import Call, Examples, in_batches
from tasks.views import Images, View, contact_sheet

_COLUMNS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(elbo.Task):
  """Maximises E_q(z|x,y)[log p(x|y, z)] - beta KL(q(z|x, y) || p(z))."""

  def inputs(self, batch):
    return batch["image"], batch["label"]

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    image, label = test.arrays["image"][:_COLUMNS], test.arrays["label"][:_COLUMNS]
    mean_NZ = call(image, label, method="encode").mean
    classes = np.arange(call.model.classes, dtype=np.int32)
    z_NZ = call(method="prior", examples=_COLUMNS, seed=0)
    names = test.class_names or tuple(map(str, classes))
    by_class = {names[c]: _decoded(call, z_NZ, np.full(len(z_NZ), c, np.int32)) for c in classes}
    # Whatever the label does not say: the first test image's z under every label.
    analogies = {
      f"image {i + 1}": _decoded(call, np.repeat(mean_NZ[i : i + 1], len(classes), 0), classes)
      for i in range(min(6, len(image)))
    }
    return {
      "reconstructions": Images(
        {"input": image, "decoder mean": _decoded(call, mean_NZ, label)},
        "Test images, and the decoder's mean at the mean of their posterior.",
      ),
      "samples_by_class": Images(
        by_class, "A class in each row, the same draw of z from the prior in each column."
      ),
      "analogies": Images(
        analogies, "The z of one test image in each row, decoded as every class in turn."
      ),
    }

  def sample(self, call: Call, count: int, seed: int) -> Images:
    """Draws from the prior, a class after the other in each row."""
    classes = call.model.classes
    z_NZ = call(method="prior", examples=count, seed=seed)
    label = (np.arange(count) % classes).astype(np.int32)
    caption = "Decoder means at draws from the prior, a class in each column."
    return contact_sheet(_decoded(call, z_NZ, label), caption, columns=classes)


def _decoded(call: Call, z_NZ: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Means [N, *data] of p(x|y, z), as pixels."""
  parameters = in_batches(call, z_NZ.astype(np.float32), label, method="decode")
  return np.clip(np.asarray(call.model.observation.mean(jnp.asarray(parameters))), 0, 1)
