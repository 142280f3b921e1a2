"""Proximal policy optimisation of a language model against a reward model.

Schulman et al. 2017, arXiv:1707.06347, equation 7; Ouyang et al. 2022, arXiv:2203.02155, equation 2
and appendix C.4: an episode is one reply, the reward model's number comes at its last token,
-beta log(policy / reference) at every token, nothing is discounted, and advantages are those of
Schulman et al. 2016, arXiv:1506.02438 (GAE). PPO-ptx adds the likelihood of text that was
pre-trained on.

A step reads `minibatches` batches and takes an update on each, one pass over the replies as in the
paper. All its replies are drawn by the policy as the step found it, which the model keeps as
`behaviour`; so each batch's can be drawn when its turn comes, and are what they would be had they
been drawn together.

Differs from the paper: whitened advantages and the weight of the value's loss are those of the code
of Ziegler et al. 2019, arXiv:1909.08593; policy and value share a learning rate.

Axes: B examples, R tokens of a reply.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from models.layers import batch_axis
from models.layers.numerics import centred, exp_then_line
from tasks import replies
from tasks.language_model import scored
from tasks.objective import Batch, Mean, Phase, on
from tasks.reward_model import compared
from tasks.tokens import over_tokens, smoothed_nll


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(replies.Aligned):
  """Maximises E[reward - beta log(policy / reference)], and the likelihood of text where asked to.

  Attributes:
    kl_weight: beta, how dear it is to leave the reference.
    clip: how far the ratio of new to old probability may go before its gradient ends.
    gae_decay: lambda of GAE.
    value_weight: of the value's loss.
    pretraining_weight: gamma of equation 2, for each token of text against each of replies; 0 is
      plain PPO, 27.8 the paper's PPO-ptx.
    minibatches: updates of a step, each on replies of its own.
  """

  kl_weight: Annotated[float, "[0, inf)", "traced"] = 0.02
  clip: Annotated[float, "(0, inf)", "traced"] = 0.2
  gae_decay: Annotated[float, "[0, 1]", "traced"] = 0.95
  value_weight: Annotated[float, "[0, inf)", "traced"] = 0.1
  pretraining_weight: Annotated[float, "[0, inf)", "traced"] = 0.0
  minibatches: Annotated[int, "[1, inf)"] = 8

  def phases(self, model):
    def loss(params, state, batch, rng):
      state = _behaviour(params, state, batch["step"][0])
      return self._loss(model, params, state, batch, rng)

    return (Phase("ppo", loss, trains=("policy", "value"), repeats=self.minibatches),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      figures, reply, before = self.compared(model, params, batch, rng)
      prompt = batch["prompt"]
      reward_3B = jnp.stack([replies.rewards(model, params, prompt, r) for r in (reply, *before)])
      liking_2B = jnp.stack([replies.liking(r, batch["taste"]) for r in before])
      _, right_B, differs_B = compared(reward_3B[1:], liking_2B)
      figures |= {"reward_model": reward_3B[0], "reward_model_sft": reward_3B[1]}
      figures["loss"] = self.kl_weight * figures["kl"] - figures["reward_model"]
      there_B = jnp.where(differs_B, batch["mask"], 0.0)
      accuracy = Mean.over(right_B, there_B)
      return {**replies.means(figures, batch), "reward_model_accuracy": accuracy}

    return measure

  def _loss(self, model, params, state, batch: Batch, rng: jax.Array):
    prompt = batch["prompt"]
    old = {**params, **{name: state["behaviour"][name] for name in ("policy", "value")}}
    (reply,) = replies.several(model, old, prompt, rng, 1)
    there_BR = (reply >= 0) & (batch["mask"][:, None] > 0)

    # Not the numbers that the drawing found: those of bfloat16 round otherwise with a cache.
    old_BR = replies.log_probabilities(model, old, prompt, reply)
    reference_BR = replies.log_probabilities(model, params, prompt, reply, method="before")
    reward_B = replies.rewards(model, params, prompt, reply)
    value_BR = replies.values(model, old, prompt, reply)
    last_BR = there_BR & (jnp.pad(reply[:, 1:], ((0, 0), (0, 1)), constant_values=-1) < 0)
    reward_BR = self.kl_weight * (reference_BR - old_BR)
    reward_BR += jnp.where(last_BR, reward_B[:, None], 0.0)
    advantage_BR = gae(reward_BR, value_BR, decay=self.gae_decay)
    return_BR = advantage_BR + value_BR
    advantage_BR, return_BR = jax.lax.stop_gradient((whitened(advantage_BR, there_BR), return_BR))

    log_ratio_BR = replies.log_probabilities(model, params, prompt, reply) - old_BR
    surrogate_BR, clipped_BR = clipped(log_ratio_BR, advantage_BR, self.clip)
    error_BR = jnp.square(replies.values(model, params, prompt, reply) - return_BR)
    metrics = {
      "policy_loss": over_tokens(surrogate_BR, there_BR),
      "value_loss": over_tokens(0.5 * error_BR, there_BR),
      "clipped": over_tokens(clipped_BR, there_BR),
      "reward_model": Mean.over(reward_B, batch["mask"]),
      "reward": Mean.over(replies.liking(reply, batch["taste"]), batch["mask"]),
      "kl": Mean.over((old_BR - reference_BR).sum(1), batch["mask"]),
    }
    loss = over_tokens(surrogate_BR + self.value_weight * 0.5 * error_BR, there_BR)
    if on(self.pretraining_weight):
      metrics["text_nll"] = text = _text_nll(model, params, batch)
      # Both are means, over counts of their own.
      counts = batch_axis.total((loss.count, text.count))
      scale = self.pretraining_weight * counts[0] / jnp.maximum(counts[1], 1.0)
      loss = Mean(loss.total + scale * text.total, loss.count)
    return loss, (state, metrics)


def _behaviour(params, state, step: jax.Array):
  """The model's state with policy and value as this step found them."""
  kept = state["behaviour"]
  now = {name: jax.lax.stop_gradient(params[name]) for name in ("policy", "value")}
  # The first update of a step is the one whose number is not yet that of what is kept.
  fresh = {
    name: jax.tree.map(lambda new, old: jnp.where(kept["step"] == step, old, new), tree, kept[name])
    for name, tree in now.items()
  }
  return {**state, "behaviour": {**fresh, "step": step}}


def _text_nll(model, params, batch: Batch) -> Mean:
  """-log p of text that was pre-trained on, in nats a token."""
  tokens = batch["text"]
  out = model.apply({"params": params}, tokens[:, :-1])
  nll_BT, _ = smoothed_nll(out.logits, tokens[:, 1:])
  return over_tokens(nll_BT, scored({"tokens": tokens, "mask": batch["mask"]}))


def clipped(
  log_ratio: jax.Array, advantage: jax.Array, clip: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(-min(ratio A, clip(ratio) A), whether the clipped one is less) of PPO's equation 7."""
  ratio = exp_then_line(log_ratio)
  free, bounded = ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage
  return -jnp.minimum(free, bounded), bounded < free


def gae(reward_BR: jax.Array, value_BR: jax.Array, *, decay: float | jax.Array) -> jax.Array:
  """[B, R] generalised advantages without discount: sums of decay^l (r + V(next) - V).

  Behind the end of an episode rewards and values are 0.
  """
  next_BR = jnp.pad(value_BR[:, 1:], ((0, 0), (0, 1)))
  error_RB = (reward_BR + next_BR - value_BR).T

  def back(later_B, error_B):
    now_B = error_B + decay * later_B
    return now_B, now_B

  _, advantage_RB = jax.lax.scan(back, jnp.zeros_like(error_RB[0]), error_RB, reverse=True)
  return advantage_RB.T


def whitened(values_BR: jax.Array, there_BR: jax.Array) -> jax.Array:
  """Values with mean 0 and variance 1 over all tokens of the batch that are there."""
  count = jnp.maximum(batch_axis.total(there_BR.sum().astype(jnp.float32)), 1.0)
  centred_BR = centred(values_BR, there_BR, batch_axis.total)
  variance = batch_axis.total(jnp.square(centred_BR).sum()) / count
  return centred_BR * jax.lax.rsqrt(variance + 1e-8)
