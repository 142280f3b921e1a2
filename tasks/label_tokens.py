"""A class for every word of a text, by cross-entropy at its first token.

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 5.3. Class 0 is that of words which are
nothing in particular; precision, recall and F1 are of the words that are something, each word by
itself, not of names of several words (CoNLL's own F1 counts those).

Axes: B examples, T positions, C classes.
"""

import dataclasses

import jax
import numpy as np

from evaluation import glue
from tasks.objective import Batch, Call, Examples, Mean, Objective, Phase, applied, in_batches
from tasks.tokens import measured, over_tokens
from tasks.views import Confusion, Table, View

_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the mean -log p(label | text) over the tokens that have a label."""

  def inputs(self, batch: Batch):
    return (batch["tokens"],)

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      found = _measured(out.logits, batch)
      return found["loss"], (state, {"accuracy": found["accuracy"]})

    return (Phase("label_tokens", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      return _measured(out.logits, batch)

    return measure

  def derive(self, means):
    if "precision" not in means:
      return {}
    precision, recall = means["precision"], means["recall"]
    total = precision + recall
    return {"f1": 2 * precision * recall / total if total else 0.0}

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """The accuracy of each token's commonest class in training, whatever stands around it."""
    tokens, label = (train.arrays[name] for name in ("tokens", "labels"))
    counts_VC = np.zeros((call.model.vocabulary, call.model.classes), np.int64)
    np.add.at(counts_VC, (tokens[label >= 0], label[label >= 0]), 1)
    # A token that was never seen is of the class that most are of.
    guess_V = np.where(counts_VC.any(1), counts_VC.argmax(1), counts_VC.sum(0).argmax())
    asked = test.arrays["labels"] >= 0
    found = guess_V[test.arrays["tokens"][asked]]
    return {"token_alone_accuracy": glue.accuracy(found, test.arrays["labels"][asked])}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    label_NT = test.arrays["labels"]
    guess_NT = in_batches(call, test.arrays["tokens"]).logits.argmax(-1)
    names = test.class_names or tuple(str(c) for c in range(call.model.classes))
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (label_NT[label_NT >= 0], guess_NT[label_NT >= 0]), 1)
    caption = "Test words by class and by prediction."
    found: dict[str, View] = {"confusion": Confusion(counts, names, caption)}
    if "tokens" in test.tokenizers:
      tokenizer = test.tokenizers["tokens"]
      rows = []
      for token_T, label_T, guess_T in zip(test.arrays["tokens"], label_NT, guess_NT, strict=True):
        (wrong,) = np.nonzero((label_T >= 0) & (label_T != guess_T))
        about = ", ".join(f"{tokenizer.token(int(token_T[t]))}: {names[guess_T[t]]}" for t in wrong)
        rows.append((tokenizer.decode(token_T), about))
      caption = "Test texts, and the words of them that were taken for something else."
      found["mistakes"] = Table(("text", "taken for"), rows[:_SHOWN], caption)
    return found


def _measured(logits_BTC: jax.Array, batch: Batch) -> dict[str, Mean]:
  label_BT = batch["labels"]
  scored_BT = (label_BT >= 0) & (batch["mask"][:, None] > 0)
  found = measured(logits_BTC, label_BT, scored_BT)
  guess_BT = logits_BTC.argmax(-1)
  right_BT = guess_BT == label_BT
  return {
    "loss": found["loss"],
    "accuracy": found["accuracy"],
    "precision": over_tokens(right_BT, scored_BT & (guess_BT > 0)),
    "recall": over_tokens(right_BT, scored_BT & (label_BT > 0)),
  }
