"""Reading comprehension: where in a passage the answer to a question begins and ends.

Devlin et al. 2019, "BERT", arXiv:1810.04805, sections 4.2 and 4.3: the probability that a token is
the first of the answer is a softmax over the tokens of the row, that it is the last another; where
a row has no answer, both are the first token, [CLS]. Padding takes no part.

Axes: B rows, T positions, N questions.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import reading
from tasks.objective import Batch, Call, Examples, Mean, Objective, Phase, applied, in_batches
from tasks.views import Lines, Table, View

_SHOWN = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises (-log p(start) - log p(end)) / 2, in nats.

  Attributes:
    answer_length: tokens of an answer at most, when answering.
    unanswerable: whether questions may have no answer (SQuAD 2.0); otherwise all are answered.
    threshold: by how much no answer must score better than the best one to be given.
  """

  answer_length: Annotated[int, "[1, inf)"] = 30
  unanswerable: bool = False
  threshold: float = 0.0

  def inputs(self, batch: Batch):
    return batch["tokens"], None, batch["types"]

  def conditions(self):
    found = {"answers": f"at most {self.answer_length} tokens"}
    if self.unanswerable:
      found["no answer"] = f"where it scores more than {self.threshold:g} above the best"
    return found

  def phases(self, model):
    if model.classes != 2:
      raise ValueError(f"an answer has a start and an end, not classes={model.classes}")

    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      found = _measured(out.logits, batch)
      return found["loss"], (state, {"span_accuracy": found["span_accuracy"]})

    return (Phase("answer_span", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      return _measured(out.logits, batch)

    return measure

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """SQuAD's exact match and F1 over questions; of those without an answer too, if there are."""
    right = test.originals["answers"]
    found = self._answers(call, test)
    exact, f1 = (
      np.array([metric(*pair) for pair in zip(found, right, strict=True)])
      for metric in (reading.exact_match, reading.f1)
    )
    has = np.array([bool(answers) for answers in right])
    scores = {"exact_match": float(exact.mean()), "f1": float(f1.mean())}
    if has.any() and not has.all():
      scores |= {
        "exact_match_answerable": float(exact[has].mean()),
        "f1_answerable": float(f1[has].mean()),
        "exact_match_unanswerable": float(exact[~has].mean()),
      }
    return scores

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    views: dict[str, View] = {"places": self._places(call, test)}
    if "tokens" not in test.tokenizers or "answers" not in test.originals:
      return views
    found, right = self._answers(call, test), test.originals["answers"]
    decode, question_N = test.tokenizers["tokens"].decode, test.originals["question"]
    rows = [
      (
        decode(test.arrays["tokens"][int(np.argmax(question_N == question))]),
        " / ".join(dict.fromkeys(right[question])) or "(none)",
        found[question] or "(none)",
      )
      for question in range(min(_SHOWN, int(question_N[: len(test.arrays["tokens"])].max()) + 1))
    ]
    caption = "The first test questions: question and passage, what is right, what was answered."
    columns = ("question and passage", "right", "answered")
    return {**views, "answers": Table(columns, rows, caption)}

  def _places(self, call: Call, test: Examples) -> Lines:
    """Where the model takes the answer to be, in the first row that holds one."""
    row = int(np.argmax(test.arrays["start"] > 0))
    one = {name: array[row : row + 1] for name, array in test.arrays.items()}
    count = int((one["tokens"] >= 0).sum())
    logits_T2 = np.asarray(call(*self.inputs(one)).logits)[0, :count]
    odds_T2 = np.exp(logits_T2 - logits_T2.max(0))
    start_T, end_T = (odds_T2 / odds_T2.sum(0)).T
    lines = {"an answer starts": start_T, "an answer ends": end_T}
    where = f"tokens {int(one['start'][0])} to {int(one['end'][0])}"
    caption = f"Probabilities of the tokens of a test row whose answer is {where}."
    return Lines(np.arange(count), lines, ("token", "probability"), caption)

  def _answers(self, call: Call, examples: Examples) -> list[str]:
    """What is answered to each question of which there is a row."""
    logits_BT2 = in_batches(call, *self.inputs(examples.arrays)).logits
    originals, count = examples.originals, len(logits_BT2)
    return reading.answers(
      logits_BT2,
      originals["offsets"][:count],
      originals["question"][:count],
      originals["passage"],
      most=self.answer_length,
      nothing=self.threshold if self.unanswerable else None,
    )


def _measured(logits_BT2: jax.Array, batch: Batch) -> dict[str, Mean]:
  there_BT = batch["tokens"] >= 0
  logits_BT2 = jnp.where(there_BT[..., None], logits_BT2, -jnp.inf)
  target_B2 = jnp.stack([batch["start"], batch["end"]], -1)
  log_p_BT2 = jax.nn.log_softmax(logits_BT2, axis=1)
  nll_B2 = -jnp.take_along_axis(log_p_BT2, target_B2[:, None], axis=1)[:, 0]
  right_B2 = logits_BT2.argmax(1) == target_B2
  mask_B = batch["mask"]
  return {
    "loss": Mean.over(nll_B2.mean(-1), mask_B),
    "start_accuracy": Mean.over(right_B2[:, 0], mask_B),
    "end_accuracy": Mean.over(right_B2[:, 1], mask_B),
    "span_accuracy": Mean.over(right_B2.all(-1), mask_B),
  }
