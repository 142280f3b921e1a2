"""A reward model from comparisons of replies.

Ouyang et al. 2022, arXiv:2203.02155, equation 1; Bradley & Terry 1952. The reference replies K
times to every prompt, the reader orders the replies, and all pairs of a prompt are learnt from
together, as one element of the batch.

Differs from the paper: every step has fresh prompts and replies, since the reader is a program (see
data/conversations.py); pairs it likes alike are left out. Rewards are not shifted so that
demonstrations have mean 0: a constant makes no difference to what tasks/ppo.py does with them, but
for what its value has to learn.

Axes: B examples, K replies to a prompt, R tokens of a reply.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from tasks import replies
from tasks.objective import Batch, Mean, Objective, Phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises -log sigmoid(reward of the preferred - reward of the other), the mean over pairs.

  Attributes:
    replies: K; the paper has 4 to 9.
  """

  replies: Annotated[int, "[2, inf)"] = 4

  def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
    return (batch["tokens"][:, :-1],)

  def phases(self, model):
    def loss(params, state, batch, rng):
      found = self._measured(model, params, batch, rng)
      return found.pop("loss"), (state, found)

    return (Phase("reward_model", loss, trains=("reward",)),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      return self._measured(model, params, batch, rng)

    return measure

  def _measured(self, model, params, batch: Batch, rng: jax.Array) -> dict[str, Mean]:
    prompt = batch["prompt"]
    frozen = replies.as_policy(params, "reference")
    reply_KBR = replies.several(model, frozen, prompt, rng, self.replies)
    liking_KB = jnp.stack([replies.liking(reply, batch["taste"]) for reply in reply_KBR])
    flat = reply_KBR.reshape(-1, reply_KBR.shape[-1])
    reward = replies.rewards(model, params, jnp.tile(prompt, (self.replies, 1)), flat)
    loss_B, right_B, any_B = compared(reward.reshape(self.replies, -1), liking_KB)
    there_B = jnp.where(any_B, batch["mask"], 0.0)
    return {"loss": Mean.over(loss_B, there_B), "accuracy": Mean.over(right_B, there_B)}


def compared(reward_KB: jax.Array, liking_KB: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Equation 1 for each prompt: all pairs of its K replies.

  Returns:
    (loss [B], share of the pairs that the reward orders rightly [B], whether any pair counts [B]).
  """
  first, second = jnp.triu_indices(len(reward_KB), k=1)
  margin = reward_KB[first] - reward_KB[second]
  order = jnp.sign(liking_KB[first] - liking_KB[second])
  counts = order != 0
  number_B = jnp.maximum(counts.sum(0), 1).astype(jnp.float32)
  loss_B = jnp.where(counts, jax.nn.softplus(-order * margin), 0.0).sum(0) / number_B
  right_B = jnp.where(counts, order * margin > 0, False).sum(0).astype(jnp.float32) / number_B
  return loss_B, right_B, counts.any(0)
