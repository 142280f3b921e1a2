"""Direct preference optimisation: a policy from comparisons, without a reward model.

Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward
Model", arXiv:2305.18290, equation 7. The policy that maximises E[r] - beta KL(policy, reference) is
proportional to reference * exp(r / beta), so beta log(policy / reference) is a reward, and is
fitted to comparisons as one.

Differs from the paper: every step has fresh prompts and pairs, drawn from the reference, since the
reader is a program (see data/conversations.py).

Axes: B examples, R tokens of a reply.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from tasks import replies
from tasks.objective import Batch, Mean, Phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(replies.Aligned):
  """Minimises -log sigmoid(beta (log ratio of the preferred - log ratio of the other)).

  Attributes:
    beta: how dear it is to leave the reference.
  """

  beta: Annotated[float, "(0, inf)", "traced"] = 0.1

  def phases(self, model):
    def loss(params, state, batch, rng):
      frozen = replies.as_policy(params, "reference")
      pair = replies.several(model, frozen, batch["prompt"], rng, 2)
      found = self._measured(model, params, batch, pair)
      return found.pop("loss"), (state, found)

    return (Phase("dpo", loss, trains=("policy",)),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      figures, _, pair = self.compared(model, params, batch, rng)
      return self._measured(model, params, batch, pair) | replies.means(figures, batch)

    return measure

  def _measured(self, model, params, batch: Batch, reply_2BR: jax.Array) -> dict[str, Mean]:
    pair = replies.preferred(reply_2BR, batch["taste"])
    prompt = jnp.tile(batch["prompt"], (2, 1))
    both = jnp.concatenate([pair.chosen, pair.rejected])
    policy, reference = (
      replies.log_probabilities(model, params, prompt, both, method=method).sum(1)
      for method in ("__call__", "before")
    )
    chosen_B, rejected_B = jnp.split(policy - reference, 2)
    there_B = jnp.where(pair.differs, batch["mask"], 0.0)
    margin_B = self.beta * (chosen_B - rejected_B)
    return {
      "loss": Mean.over(dpo_loss(chosen_B, rejected_B, self.beta), there_B),
      "accuracy": Mean.over(margin_B > 0, there_B),
      "margin": Mean.over(margin_B, there_B),
    }


def dpo_loss(chosen: jax.Array, rejected: jax.Array, beta: float | jax.Array) -> jax.Array:
  """Equation 7, from log(policy / reference) of the preferred reply and of the other."""
  return jax.nn.softplus(-beta * (chosen - rejected))
