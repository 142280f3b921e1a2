"""Reconstruction by an autoencoder: cross-entropy or squared error, measured by squared error."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from evaluation import pca
from tasks.likelihood import bernoulli_nll
from tasks.objective import Call, Examples, Mean, Objective, Phase
from tasks.views import Images, Scatter, View

_COLUMNS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the reconstruction error per image, a sum over pixels.

  Attributes:
    error: "squared", or "cross_entropy" of pixels in [0, 1] (Hinton & Salakhutdinov 2006, note 10).
  """

  error: Literal["squared", "cross_entropy"] = "squared"

  def phases(self, model):
    def loss(params, state, batch, rng):
      metrics = self._errors(model, params, batch)
      return metrics[self.error], (state, metrics)

    return (Phase("reconstruction", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      metrics = self._errors(model, params, batch)
      return {"loss": metrics[self.error], **metrics}

    return measure

  def _errors(self, model, params, batch) -> dict[str, Mean]:
    out = model.apply({"params": params}, batch["image"])
    found_BD, x_BD = (x.reshape(len(x), -1) for x in (out.reconstruction, batch["image"]))
    # Sums over pixels, as in the paper's "squared error per image".
    squared_B = jnp.square(found_BD - x_BD).sum(-1)
    entropy_B = bernoulli_nll(out.logits, batch["image"])
    return {
      "squared": Mean.over(squared_B, batch["mask"]),
      "cross_entropy": Mean.over(entropy_B, batch["mask"]),
    }

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """PCA's squared error per test image at the same code size, for the claim."""
    images = train.arrays["image"], test.arrays["image"]
    return {"pca_squared": pca.squared_error(*images, call.model.code)}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    image, label = test.arrays["image"], test.arrays["label"]
    out = call(image)
    mean_D, directions = pca.components(train.arrays["image"], call.model.code)
    flat_ND = image[:_COLUMNS].reshape(min(_COLUMNS, len(image)), -1) - mean_D
    linear = (flat_ND @ directions.T @ directions + mean_D).reshape(image[:_COLUMNS].shape)
    two = out.code.shape[1] == 2
    return {
      "reconstructions": Images(
        {
          "input": image[:_COLUMNS],
          "autoencoder": out.reconstruction[:_COLUMNS],
          f"PCA, {call.model.code}": np.clip(linear, 0, 1),
        },
        f"Test images through a code of {call.model.code} numbers.",
      ),
      "codes": Scatter(
        out.code if two else pca.project(out.code, 2),
        label,
        ("code 1", "code 2") if two else ("first component", "second component"),
        "Codes of the test set by class.",
        test.class_names,
      ),
    }
