"""Classification of texts by what a language model, which stays as it is, makes of their words.

Peters et al. 2018, arXiv:1802.05365, section 3.3: "we first freeze the weights of the biLM"; the
task learns how to mix its layers, and what is above them.
"""

import dataclasses

import jax
import numpy as np

from tasks import classify
from tasks.objective import Batch, Call, Examples, Phase, applied, in_batches
from tasks.views import Bars, Confusion, View


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(classify.Task):
  """Minimises the cross-entropy of the labels, in nats.

  Attributes:
    trains: groups of parameters that are; the others stay as an earlier stage left them.
  """

  trains: tuple[str, ...] = ("mixture", "head")

  def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
    return (batch["characters"],)

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      metrics = self._metrics(out.logits, batch)
      return metrics.pop("loss"), (state, metrics)

    return (Phase("classify", loss, self.trains),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      return self._metrics(out.logits, batch)

    return measure

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """[N, E] what the classifier reads."""
    return in_batches(call, examples.arrays["characters"], size=100).features

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """The shares of the layers in the mix, where they are learned."""
    return {f"share_{i}": float(s) for i, s in enumerate(_shares(call))}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    label = test.arrays["label"]
    guess = in_batches(call, test.arrays["characters"], size=100).logits.argmax(-1)
    counts = np.zeros((len(test.class_names),) * 2, np.int64)
    np.add.at(counts, (label, guess), 1)
    caption = "Test texts by class and by prediction."
    found: dict[str, View] = {"confusion": Confusion(counts, test.class_names, caption)}
    if shares := _shares(call):
      names = ["words", *(f"layer {i}" for i in range(1, len(shares)))]
      found["layers"] = Bars(
        dict(zip(names, shares, strict=True)),
        ("layer of the language model", "share s in the mix"),
        "What the classifier reads: softmax(w) of equation 1.",
      )
    return found


def _shares(call: Call) -> list[float]:
  """s of the mix; empty where none is learned."""
  if call.model.mix != "learned":
    return []
  return [float(s) for s in call(method=_softmax_of_weights)]


def _softmax_of_weights(model) -> jax.Array:
  return jax.nn.softmax(model.variables["params"]["mixture"]["weights"])
