"""Classification by cross-entropy."""

import dataclasses
from typing import Annotated

import numpy as np
import optax

from tasks.objective import Call, Examples, Mean, Objective, Phase, in_batches
from tasks.views import Confusion, Images, View

_COLUMNS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the cross-entropy of the labels, in nats.

  Attributes:
    label_smoothing: weight of the uniform distribution in the target (Szegedy et al. 2016).
  """

  label_smoothing: Annotated[float, "[0, 1)", "traced"] = 0.0

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = model.apply(
        {"params": params, **state},
        batch["image"],
        train=True,
        mutable=list(state),
        rngs={"dropout": rng},
      )
      metrics = self._metrics(out.logits, batch)
      return metrics.pop("loss"), (state, metrics)

    return (Phase("classify", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out = model.apply({"params": params, **state}, batch["image"], train=False)
      return self._metrics(out.logits, batch)

    return measure

  def _metrics(self, logits_BC, batch) -> dict[str, Mean]:
    target_BC = optax.smooth_labels(
      (batch["label"][:, None] == np.arange(logits_BC.shape[-1])).astype(logits_BC.dtype),
      self.label_smoothing,
    )
    loss_B = optax.softmax_cross_entropy(logits_BC, target_BC)
    correct_B = logits_BC.argmax(-1) == batch["label"]
    return {
      "loss": Mean.over(loss_B, batch["mask"]),
      "accuracy": Mean.over(correct_B, batch["mask"]),
    }

  def features(self, call: Call, examples: Examples) -> np.ndarray | None:
    """The codes [N, K] below the classifier, of models that have codes."""
    out = in_batches(call, *self.inputs(examples.arrays), train=False)
    return out.codes[-1] if hasattr(out, "codes") else None

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    image, label = test.arrays["image"], test.arrays["label"]
    logits_NC = call(image, train=False).logits
    guess = logits_NC.argmax(-1)
    names = test.class_names or tuple(str(c) for c in range(logits_NC.shape[1]))
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (label, guess), 1)
    found = {"confusion": Confusion(counts, names, "Test examples by class and by prediction.")}
    wrong = np.flatnonzero(guess != label)
    # The most confident mistakes: where the labels or the model are worth a second look.
    wrong = wrong[np.argsort(logits_NC[wrong, label[wrong]] - logits_NC[wrong].max(-1))][:_COLUMNS]
    if len(wrong):
      taken = ", ".join(f"{names[label[i]]} for {names[guess[i]]}" for i in wrong)
      found["mistakes"] = Images({"": image[wrong]}, f"The most confident mistakes: {taken}.")
    return found
