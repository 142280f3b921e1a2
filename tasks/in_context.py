"""Learning within a context: each answer after more examples of the same function.

Brown et al. 2020, "Language Models are Few-Shot Learners", arXiv:2005.14165, section 1: a model
learns from what it reads, its weights as they were. Garg et al. 2022, arXiv:2208.01066, train for
it on functions drawn anew for each sequence; a sequence's loss is that of its values only.

Axes: B examples, T positions, K pairs of a sequence.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from tasks import language_model
from tasks.objective import Batch, Call, Examples, Mean, in_batches
from tasks.tokens import over_tokens
from tasks.views import Lines, View


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(language_model.Task):
  """Language modelling of values, measured by how many examples came before.

  `accuracy_first` is that of the first value, before which there was no example, `accuracy_last`
  that of the last; `accuracy_new` of those in the later half whose argument had not occurred yet,
  where copying does not help, and `accuracy_repeated` of those whose had.
  """

  def _measured(self, out, batch: Batch) -> dict[str, Mean]:
    found = super()._measured(out, batch)
    right_BK = out.logits[:, ::2].argmax(-1) == batch["tokens"][:, 1::2]
    there_BK = jnp.broadcast_to(batch["mask"][:, None] > 0, right_BK.shape)
    repeated_BK = batch["repeated"] > 0
    K = right_BK.shape[1]
    late_BK = there_BK & (jnp.arange(K) >= K // 2)
    return {
      **found,
      "accuracy_first": Mean.over(right_BK[:, 0], batch["mask"]),
      "accuracy_last": Mean.over(right_BK[:, -1], batch["mask"]),
      "accuracy_new": over_tokens(right_BK, late_BK & ~repeated_BK),
      "accuracy_repeated": over_tokens(right_BK, late_BK & repeated_BK),
    }

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    lines = {
      f"functions {what}": _right(call, part).mean(0)
      for what, part in (("held out", test), ("trained on", train))
    }
    examples = np.arange(len(lines["functions held out"]))
    lines["argument has occurred"] = test.arrays["repeated"].mean(0)
    caption = "How often a value is right, by how many examples came before it; weights are frozen."
    return {"by_examples": Lines(examples, lines, ("examples before", "accuracy"), caption)}


def _right(call: Call, part: Examples) -> np.ndarray:
  """[N, K] whether each value was the likeliest."""
  tokens = part.arrays["tokens"]
  likeliest = in_batches(call, tokens[:, :-1]).logits[:, ::2].argmax(-1)
  return (likeliest == tokens[:, 1::2]).astype(float)
