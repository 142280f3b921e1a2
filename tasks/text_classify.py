"""A class for a text or a pair of texts, by cross-entropy.

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 4.1.

Axes: B examples, T positions, C classes.
"""

import dataclasses

import jax
import numpy as np

from evaluation import glue, naive_bayes
from models.layers.numerics import categorical_nll
from tasks import attention_maps
from tasks.objective import Batch, Call, Examples, Mean, Objective, Phase, applied, in_batches
from tasks.views import Confusion, Table, View

_SHOWN = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises -log p(label | text), in nats.

  Of two classes it measures besides how often class 1 is right, is found, and both, from which F1
  and Matthews' correlation follow; of MNLI the accuracy on either of its parts.
  """

  def inputs(self, batch: Batch):
    return batch["tokens"], None, batch["types"]

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      found = _measured(out.logits, batch)
      return found["loss"], (state, {"accuracy": found["accuracy"]})

    return (Phase("text_classify", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      return _measured(out.logits, batch)

    return measure

  def derive(self, means):
    if "found_positive" not in means:
      return {}
    three = (means[name] for name in ("positive", "found_positive", "true_positive"))
    positive, found, both = three
    return {
      "f1": glue.harmonic(positive, found, both),
      "matthews": glue.binary_correlation(positive, found, both),
    }

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """[N, D] what the head reads."""
    return self._told(call, examples).pooled

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """What is right without a network: the test set's commonest class, and naive Bayes.

    And whether this run failed: it is no better than the commonest class (Mosbach et al. 2021,
    arXiv:2006.04884).
    """
    label, seen = test.arrays["label"], train.arrays["label"]
    tokens = (train.arrays["tokens"], test.arrays["tokens"])
    model = call.model
    found = naive_bayes.classify(
      tokens[0], seen, tokens[1], vocabulary=model.vocabulary, classes=model.classes
    )
    majority = glue.accuracy(np.full_like(label, np.bincount(label).argmax()), label)
    told = glue.accuracy(self._told(call, test).logits.argmax(-1), label)
    return {
      "majority_accuracy": majority,
      "naive_bayes_accuracy": glue.accuracy(found, label),
      "failed": float(told <= majority),
    }

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    logits_NC, label = self._told(call, test).logits, test.arrays["label"]
    guess = logits_NC.argmax(-1)
    names = test.class_names or tuple(str(c) for c in range(logits_NC.shape[1]))
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (label, guess), 1)
    found: dict[str, View] = {
      "confusion": Confusion(counts, names, "Test texts by class and by prediction.")
    }
    if "tokens" in test.tokenizers:
      inputs = self.inputs(test.arrays)
      found |= attention_maps.of_text(
        call, test.tokenizers["tokens"], inputs, "the first test text"
      )
    wrong = np.flatnonzero(guess != label)
    # The most confident mistakes: where the labels or the model are worth a second look.
    wrong = wrong[np.argsort(logits_NC[wrong, label[wrong]] - logits_NC[wrong].max(-1))][:_SHOWN]
    if len(wrong) and "tokens" in test.tokenizers:
      decode = test.tokenizers["tokens"].decode
      rows = [(decode(test.arrays["tokens"][i]), names[label[i]], names[guess[i]]) for i in wrong]
      caption = "The most confident mistakes on the test set."
      found["mistakes"] = Table(("text", "class", "told"), rows, caption)
    return found

  def _told(self, call: Call, examples: Examples):
    return in_batches(call, *self.inputs(examples.arrays))


def _measured(logits_BC: jax.Array, batch: Batch) -> dict[str, Mean]:
  label_B, mask_B = batch["label"], batch["mask"]
  nll_B = categorical_nll(logits_BC, label_B)
  guess_B = logits_BC.argmax(-1)
  right_B = guess_B == label_B
  found = {"loss": Mean.over(nll_B, mask_B), "accuracy": Mean.over(right_B, mask_B)}
  if "mismatched" in batch:
    second_B = batch["mismatched"].astype(mask_B.dtype)
    found["accuracy_matched"] = Mean.over(right_B, mask_B * (1 - second_B))
    found["accuracy_mismatched"] = Mean.over(right_B, mask_B * second_B)
  if logits_BC.shape[-1] == 2:
    is_B, told_B = label_B == 1, guess_B == 1
    found |= {
      "positive": Mean.over(is_B, mask_B),
      "found_positive": Mean.over(told_B, mask_B),
      "true_positive": Mean.over(is_B & told_B, mask_B),
    }
  return found
