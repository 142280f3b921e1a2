"""A number for a text or a pair of texts, by squared error.

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 4.1, whose code learns STS-B so.

Axes: B examples, T positions.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import glue
from tasks.objective import Batch, Call, Examples, Mean, Objective, Phase, applied, in_batches
from tasks.views import Scatter, Table, View

_SHOWN = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises (prediction - label)^2, whose unit is the labels' own."""

  def inputs(self, batch: Batch):
    return batch["tokens"], None, batch["types"]

  def phases(self, model):
    if model.classes != 1:
      raise ValueError(f"a regression has one number, not classes={model.classes}")

    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      return _squared(out.logits, batch), (state, {})

    return (Phase("text_regress", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      return {"loss": _squared(out.logits, batch)}

    return measure

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """[N, D] what the head reads."""
    return self._told(call, examples).pooled

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Pearson's and Spearman's correlation, and the squared error of the mean label."""
    found_N, label_N = self._told(call, test).logits[:, 0], test.arrays["label"]
    mean = train.arrays["label"].mean(dtype=np.float64)
    return {
      "pearson": glue.pearson(found_N, label_N),
      "spearman": glue.spearman(found_N, label_N),
      "mean_loss": float(np.square(label_N - mean).mean()),
    }

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    found_N, label_N = self._told(call, test).logits[:, 0], test.arrays["label"]
    caption = "Test texts; a perfect prediction lies on the diagonal."
    axes = ("label", "prediction")
    views: dict[str, View] = {
      "predictions": Scatter(np.stack([label_N, found_N], -1), None, axes, caption)
    }
    if "tokens" in test.tokenizers:
      worst = np.argsort(-np.abs(found_N - label_N))[:_SHOWN]
      decode = test.tokenizers["tokens"].decode
      rows = [
        (decode(test.arrays["tokens"][i]), f"{label_N[i]:.2f}", f"{found_N[i]:.2f}") for i in worst
      ]
      caption = "The largest mistakes on the test set."
      views["mistakes"] = Table(("text", "label", "prediction"), rows, caption)
    return views

  def _told(self, call: Call, examples: Examples):
    return in_batches(call, *self.inputs(examples.arrays))


def _squared(logits_B1: jax.Array, batch: Batch) -> Mean:
  return Mean.over(jnp.square(logits_B1[:, 0] - batch["label"]), batch["mask"])
