"""Pairs of texts seen one at a time: their vectors are to say how alike they are.

Reimers & Gurevych 2019, "Sentence-BERT", arXiv:1908.10084, section 3: classification by a softmax
over W (u, v, |u - v|), or regression of the label by cos(u, v). What is used afterwards is the
cosine alone, and it is what the correlations are of.

Axes: B examples, D features.
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import glue
from models.layers.numerics import categorical_nll
from tasks.objective import Batch, Call, Examples, Mean, Objective, Phase, applied, in_batches
from tasks.similarity import cosine
from tasks.views import Scatter, Table, View

_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises one of two losses of a pair's vectors u and v.

  Attributes:
    loss: "classification", the cross-entropy of the label in nats; "regression", the square of
      cos(u, v) minus the label divided by `highest`.
    highest: the label of what is the same.
  """

  loss: Literal["classification", "regression"] = "classification"
  highest: Annotated[float, "(0, inf)"] = 1.0

  def inputs(self, batch: Batch):
    return batch["tokens"], None, batch["types"]

  def phases(self, model):
    if (self.loss == "classification") != model.classified:
      raise ValueError(f"loss={self.loss!r}, but model.classified={model.classified}")

    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      found = self._measured(out, batch)
      return found.pop("loss"), (state, found)

    return (Phase("siamese", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      return self._measured(out, batch)

    return measure

  def _measured(self, out, batch: Batch) -> dict[str, Mean]:
    mask_B = batch["mask"]
    if self.loss == "classification":
      nll_B = categorical_nll(out.logits, batch["label"])
      right_B = out.logits.argmax(-1) == batch["label"]
      return {"loss": Mean.over(nll_B, mask_B), "accuracy": Mean.over(right_B, mask_B)}
    wanted_B = batch["label"].astype(jnp.float32) / self.highest
    return {"loss": Mean.over(jnp.square(_cosine(out.vectors) - wanted_B), mask_B)}

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """[N, 2 D] both vectors."""
    vectors_N2D = in_batches(call, *self.inputs(examples.arrays)).vectors
    return vectors_N2D.reshape(len(vectors_N2D), -1)

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Spearman's and Pearson's correlation of the cosine with the label."""
    cosine_N = np.asarray(_cosine(in_batches(call, *self.inputs(test.arrays)).vectors))
    label_N = test.arrays["label"]
    return {
      "spearman": glue.spearman(cosine_N, label_N),
      "pearson": glue.pearson(cosine_N, label_N),
    }

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    cosine_N = np.asarray(_cosine(in_batches(call, *self.inputs(test.arrays)).vectors))
    label_N = test.arrays["label"]
    caption = "Test pairs: their labels, and the cosines of the angles between their vectors."
    points = np.stack([label_N.astype(np.float32), cosine_N], -1)
    found: dict[str, View] = {"cosines": Scatter(points, None, ("label", "cosine"), caption)}
    if "tokens" not in test.tokenizers:
      return found
    order = np.argsort(-cosine_N, kind="stable")
    decode = test.tokenizers["tokens"].decode
    rows = [
      (f"{cosine_N[i]:.2f}", f"{label_N[i]:g}", *map(decode, test.arrays["tokens"][i]))
      for i in (*order[:_SHOWN], *order[-_SHOWN:])
    ]
    caption = "Of the test pairs those whose vectors are nearest, and those furthest apart."
    return found | {"pairs": Table(("cosine", "label", "one text", "the other"), rows, caption)}


def _cosine(vectors_B2D: jax.Array) -> jax.Array:
  return cosine(vectors_B2D[:, 0], vectors_B2D[:, 1])
