"""Which of several ways a text goes on, by a softmax over them.

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 4.4.

Axes: B examples, C choices, T positions.
"""

import dataclasses

import jax
import numpy as np

from models.layers.numerics import categorical_nll
from tasks.objective import Batch, Call, Examples, Mean, Objective, Phase, applied, in_batches
from tasks.views import Confusion, Table, View

_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises -log p(label | choices), in nats."""

  def inputs(self, batch: Batch):
    return batch["tokens"], None, batch["types"]

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      found = _measured(out.logits, batch)
      return found.pop("loss"), (state, found)

    return (Phase("choose", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      return _measured(out.logits, batch)

    return measure

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """What is right by chance."""
    return {"chance_accuracy": 1 / test.arrays["tokens"].shape[1]}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    label, guess = test.arrays["label"], self._told(call, test)
    names = [str(place + 1) for place in range(test.arrays["tokens"].shape[1])]
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (label, guess), 1)
    caption = "Test examples by the place of the right choice and of the one that was chosen."
    found: dict[str, View] = {"confusion": Confusion(counts, names, caption)}
    if "tokens" in test.tokenizers:
      decode = test.tokenizers["tokens"].decode
      rows = [
        (decode(choices[right]), "right" if right == told else decode(choices[told]))
        for choices, right, told in zip(
          test.arrays["tokens"][:_SHOWN], label[:_SHOWN], guess[:_SHOWN], strict=True
        )
      ]
      caption = "The first test examples: the right choice, and what was chosen."
      found["choices"] = Table(("text", "chosen"), rows, caption)
    return found

  def _told(self, call: Call, examples: Examples) -> np.ndarray:
    """[N] which choice the model takes."""
    return in_batches(call, *self.inputs(examples.arrays), size=100).logits.argmax(-1)


def _measured(logits_BC: jax.Array, batch: Batch) -> dict[str, Mean]:
  nll_B = categorical_nll(logits_BC, batch["label"])
  right_B = logits_BC.argmax(-1) == batch["label"]
  return {
    "loss": Mean.over(nll_B, batch["mask"]),
    "accuracy": Mean.over(right_B, batch["mask"]),
  }
