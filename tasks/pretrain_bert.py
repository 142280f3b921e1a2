"""BERT's pre-training: masked language modelling, and how the two halves of a row are related.

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 3.1 and appendix A.2: the loss is the mean
-log p of the tokens that are to be told plus the mean -log p of the pairs' relation. With pairs in
the wrong order instead of foreign ones it is ALBERT's (Lan et al. 2020, arXiv:1909.11942, section
3.1); which it is, the data says (data/sentence_pairs.py).

Axes: B examples, T positions.
"""

import dataclasses
from typing import Annotated

import jax

from models.layers.numerics import categorical_nll
from tasks import masked_language_model
from tasks.objective import Batch, Mean, on, weighted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(masked_language_model.Task):
  """Minimises E[-log p(token | rest)] + weight E[-log p(relation)].

  Attributes:
    relation_weight: of the second term; 0 leaves the relation unlearnt.
  """

  relation_weight: Annotated[float, "[0, inf)", "traced"] = 1.0

  logged = ("nll", "accuracy", "relation_accuracy")

  def inputs(self, batch: Batch):
    return batch["tokens"], None, batch["types"]

  def text(self, batch: Batch):
    return batch["special"] == 0

  def _measured(self, model, params, state, batch: Batch, rng: jax.Array, *, train: bool):
    out, found, state = self._told(model, params, state, batch, rng, train=train)
    relation_B = categorical_nll(out.relation, batch["relation"])
    right_B = out.relation.argmax(-1) == batch["relation"]
    found |= {
      "relation_nll": Mean.over(relation_B, batch["mask"]),
      "relation_accuracy": Mean.over(right_B, batch["mask"]),
    }
    if on(self.relation_weight):
      terms = (1.0, found["nll"]), (self.relation_weight, found["relation_nll"])
      found["loss"] = weighted(terms, batch["mask"])
    return found, state
