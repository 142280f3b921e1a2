"""Reconstruction by an autoencoder: squared error or a cross-entropy."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from evaluation import pca
from tasks.likelihood import bernoulli_nll, multinomial_nll
from tasks.objective import Call, Examples, Mean, Objective, Phase, applied, in_batches
from tasks.views import Images, Scatter, View

_COLUMNS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the reconstruction error per example, a sum over its dimensions.

  Attributes:
    of: the element of a batch that is reconstructed.
    error: "squared"; "cross_entropy" of pixels in [0, 1] (Hinton & Salakhutdinov 2006, note 10); or
      "multinomial", of counts or frequencies of words (the same, note 11).
  """

  of: str = "image"
  error: Literal["squared", "cross_entropy", "multinomial"] = "squared"

  def inputs(self, batch):
    return (batch[self.of],)

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      metrics = self.errors(out, batch)
      return self.objective(model, params, out, metrics, batch), (state, metrics)

    return (Phase("reconstruction", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      metrics = self.errors(out, batch)
      return {"loss": self.objective(model, params, out, metrics, batch), **metrics}

    return measure

  def errors(self, out, batch) -> dict[str, Mean]:
    """The errors of the model's output that make sense for what is reconstructed."""
    x = batch[self.of]
    found_BD, x_BD = (a.reshape(len(a), -1) for a in (out.reconstruction, x))
    # Sums over dimensions, as in the paper's "squared error per image".
    found = {"squared": Mean.over(jnp.square(found_BD - x_BD).sum(-1), batch["mask"])}
    if self.error != "squared":
      nll = {"cross_entropy": bernoulli_nll, "multinomial": multinomial_nll}[self.error]
      found[self.error] = Mean.over(nll(out.logits, x), batch["mask"])
    return found

  def objective(self, model, params, out, errors: dict[str, Mean], batch) -> Mean:
    """What is minimised: the error, and in subclasses what else a code should be."""
    return errors[self.error]

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """Codes [N, K]."""
    code = in_batches(call, *self.inputs(examples.arrays)).code
    return code.reshape(len(code), -1)

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """PCA's squared error per test example at the same code size, where that is no identity."""
    data, held_out = train.arrays[self.of], test.arrays[self.of]
    size = _code_size(call, self.inputs(test.arrays))
    if size >= data[0].size:
      return {}
    return {"pca_squared": pca.squared_error(data, held_out, size)}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    x = test.arrays[self.of]
    out = in_batches(call, *self.inputs(test.arrays))
    code_NK = out.code.reshape(len(out.code), -1)
    two = code_NK.shape[1] == 2
    found = {
      "codes": Scatter(
        code_NK if two else pca.project(code_NK, 2),
        test.arrays["label"] if "label" in test.arrays else None,
        ("code 1", "code 2") if two else ("first component", "second component"),
        "Codes of the test set by class.",
        test.class_names,
      ),
    }
    if x.ndim >= 3:  # pictures
      rows = {"input": x[:_COLUMNS], "autoencoder": np.clip(out.reconstruction[:_COLUMNS], 0, 1)}
      size = code_NK.shape[1]
      if size < x[0].size:
        rows[f"PCA, {size}"] = _by_pca(train.arrays[self.of], x[:_COLUMNS], size)
      found["reconstructions"] = Images(rows, f"Test images through a code of {size} numbers.")
    return found


def _code_size(call: Call, inputs) -> int:
  return call(*(x[:1] for x in inputs)).code[0].size


def _by_pca(train: np.ndarray, x: np.ndarray, count: int) -> np.ndarray:
  """Images [N, ...] through `count` principal components of the training set."""
  mean_D, directions = pca.components(train, count)
  flat_ND = x.reshape(len(x), -1) - mean_D
  return np.clip((flat_ND @ directions.T @ directions + mean_D).reshape(x.shape), 0, 1)
