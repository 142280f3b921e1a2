"""Distillation of a masked language model, with DistilBERT's three losses.

Sanh, Debut, Chaumond & Wolf 2019, "DistilBERT", arXiv:1910.01108, section 3: the student's
distribution is to be the teacher's, both softened by a temperature (Hinton et al. 2015,
arXiv:1503.02531, section 2); it tells the hidden tokens; and its features point where the teacher's
do. The paper does not print the weights of the three.

Hinton's T^2 is in the first loss, so that its gradient does not shrink with the temperature.

Axes: B examples, T positions, V vocabulary, D features.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from tasks import masked_language_model
from tasks.objective import Batch, Phase, applied, weighted
from tasks.similarity import cosine
from tasks.tokens import measured, over_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(masked_language_model.Task):
  """Minimises a KL(teacher | student) + b E[-log p(hidden token)] + c (1 - cos(features)).

  Attributes:
    temperature: of both distributions in the first loss; 1 in use.
    soft_weight: a.
    hard_weight: b.
    cosine_weight: c.
  """

  temperature: Annotated[float, "[1, inf)", "traced"] = 2.0
  soft_weight: Annotated[float, "[0, inf)", "traced"] = 1.0
  hard_weight: Annotated[float, "[0, inf)", "traced"] = 1.0
  cosine_weight: Annotated[float, "[0, inf)", "traced"] = 1.0

  logged = ("nll", "accuracy", "divergence", "cosine")

  def phases(self, model):
    (phase,) = super().phases(model)
    return (Phase("distill", phase.loss, trains=("student",)),)

  def _measured(self, model, params, state, batch: Batch, rng: jax.Array, *, train: bool):
    (tokens_BT,) = self.inputs(batch)
    noise, rng = jax.random.split(rng)
    hidden = self.hide(tokens_BT, noise, model.vocabulary)
    params = {**params, "teacher": jax.lax.stop_gradient(params["teacher"])}
    lesson, state = applied(
      model, params, state, (hidden.tokens,), rng, train=train, method="lesson"
    )
    there_BT = (tokens_BT >= 0) & (batch["mask"][:, None] > 0)
    found = measured(lesson.student.logits, tokens_BT, hidden.chosen & there_BT)
    divergence_BT = divergence(lesson.teacher.logits, lesson.student.logits, self.temperature)
    cosine_BT = cosine(lesson.teacher_features, lesson.student_features)
    found |= {
      "divergence": over_tokens(divergence_BT, there_BT),
      "cosine": over_tokens(cosine_BT, there_BT),
    }
    apart = over_tokens(1 - cosine_BT, there_BT)
    terms = (
      (self.soft_weight * self.temperature**2, found["divergence"]),
      (self.hard_weight, found["nll"]),
      (self.cosine_weight, apart),
    )
    return found | {"loss": weighted(terms, batch["mask"])}, state


def divergence(teacher_BTV: jax.Array, student_BTV: jax.Array, temperature) -> jax.Array:
  """[B, T] KL(teacher | student) in nats, of logits softened by a temperature."""
  theirs_BTV, own_BTV = (_softened(x, temperature) for x in (teacher_BTV, student_BTV))
  return (jnp.exp(theirs_BTV) * (theirs_BTV - own_BTV)).sum(-1)


def _softened(logits_BTV: jax.Array, temperature) -> jax.Array:
  """log softmax(logits / temperature)."""
  # The greatest goes first: divided, logits of 1e4 would lose what tells them apart.
  shifted_BTV = logits_BTV - jax.lax.stop_gradient(logits_BTV.max(-1, keepdims=True))
  return jax.nn.log_softmax(shifted_BTV / temperature)
