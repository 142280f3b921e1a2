"""Replies that a model draws, how likely they are, and how a reader likes them.

What objectives of preferences share (tasks/reward_model.py, ppo.py, dpo.py). Replies are drawn
inside the compiled step, and nothing is differentiated through the drawing.

Axes: B examples, P tokens of a prompt, R of a reply, K replies to a prompt, V vocabulary.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from decoding.generate import generate, log_probability
from decoding.sampling import tokens_seen
from models.layers import batch_axis
from models.layers.transformer import unstacked
from tasks.objective import Batch, Call, Examples, Mean, Objective, in_batches
from tasks.views import Lines, Table, View

_SHOWN = 8  # conversations in the table


def drawn(model, params, prompt_BP: jax.Array, keys_B: jax.Array) -> jax.Array:
  """[B, R] what the policy replies, -1 behind its end.

  Args:
    model: a models/transformer/aligned.py.
    params: its own.
    prompt_BP: padded by -1 in front.
    keys_B: of each reply.
  """
  variables = unstacked({"params": jax.lax.stop_gradient(params)})
  advance = functools.partial(model.apply, variables, method="advance")
  capacity = prompt_BP.shape[1] + model.reply_length
  cache = model.apply(variables, len(prompt_BP), capacity, method="begin")
  stop = (model.eos,)
  return generate(advance, cache, prompt_BP, keys_B, steps=model.reply_length, stop=stop).tokens


def as_policy(params, group: str):
  """Parameters with which the model speaks as another of its groups does."""
  return {**params, "policy": params[group]}


def log_probabilities(
  model, params, prompt_BP: jax.Array, reply_BR: jax.Array, *, method: str = "__call__"
) -> jax.Array:
  """[B, R] of a reply's tokens given all before them, 0 where there are none."""
  tokens_BT = jnp.concatenate([prompt_BP, reply_BR], axis=1)[:, :-1]
  out = model.apply({"params": params}, tokens_BT, _there(tokens_BT), method=method)
  logits_BRV = out.logits[:, prompt_BP.shape[1] - 1 :]
  found_BR = log_probability(logits_BRV, jnp.maximum(reply_BR, 0))
  return jnp.where(reply_BR >= 0, found_BR, 0.0)


def rewards(model, params, prompt_BP: jax.Array, reply_BR: jax.Array) -> jax.Array:
  """[B] what the reward model gives for a reply: its number at the last token."""
  tokens_BT = jnp.concatenate([prompt_BP, reply_BR], axis=1)
  number_BT = model.apply({"params": params}, tokens_BT, _there(tokens_BT), method="rewards")
  last_B1 = prompt_BP.shape[1] + (reply_BR >= 0).sum(1, keepdims=True) - 1
  return jnp.take_along_axis(number_BT, last_B1, axis=1)[:, 0]


def values(model, params, prompt_BP: jax.Array, reply_BR: jax.Array) -> jax.Array:
  """[B, R] what the value model expects before each token of a reply, 0 where there is none."""
  tokens_BT = jnp.concatenate([prompt_BP, reply_BR], axis=1)[:, :-1]
  number_BT = model.apply({"params": params}, tokens_BT, _there(tokens_BT), method="values")
  return jnp.where(reply_BR >= 0, number_BT[:, prompt_BP.shape[1] - 1 :], 0.0)


def liking(reply_BR: jax.Array, taste_BV: jax.Array) -> jax.Array:
  """[B] how a reader likes a reply: the sum of what it gives for each token that occurs."""
  return jnp.where(tokens_seen(reply_BR, taste_BV.shape[1]), taste_BV, 0.0).sum(1)


def streams(rng: jax.Array, examples: int, count: int) -> jax.Array:
  """[count, examples] keys, each example's own."""
  keys_B = batch_axis.keys(rng, examples)
  each = lambda i: jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, i)  # noqa: E731
  return jax.vmap(each)(jnp.arange(count))


def several(model, params, prompt_BP, rng: jax.Array, count: int) -> jax.Array:
  """[count, B, R] replies to each prompt."""
  examples = len(prompt_BP)
  keys_KB = streams(rng, examples, count)
  reply = drawn(model, params, jnp.tile(prompt_BP, (count, 1)), keys_KB.reshape(-1))
  return reply.reshape(count, examples, -1)


class Pair(NamedTuple):
  """Two replies [B, R] to each prompt.

  Attributes:
    chosen: the one that the reader likes better.
    rejected: the other.
    differs: [B] whether the reader likes one better at all.
  """

  chosen: jax.Array
  rejected: jax.Array
  differs: jax.Array


def preferred(reply_2BR: jax.Array, taste_BV: jax.Array) -> Pair:
  """Two replies in the reader's order."""
  first, second = reply_2BR
  a_B, b_B = liking(first, taste_BV), liking(second, taste_BV)
  better_B1 = (a_B > b_B)[:, None]
  chosen, rejected = (jnp.where(better_B1, *order) for order in ((first, second), (second, first)))
  return Pair(chosen, rejected, a_B != b_B)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aligned(Objective):
  """An objective that changes a policy; measured against the reference it started from."""

  def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
    return (batch["tokens"][:, :-1],)

  def compared(
    self, model, params, batch: Batch, rng: jax.Array
  ) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
    """(figures [B] of one reply of the policy, that reply, two replies of the reference)."""
    prompt, taste = batch["prompt"], batch["taste"]
    own, other = jax.random.split(rng)
    (reply,) = several(model, params, prompt, own, 1)
    before = several(model, as_policy(params, "reference"), prompt, other, 2)
    log_ratio_BR = log_probabilities(model, params, prompt, reply) - log_probabilities(
      model, params, prompt, reply, method="before"
    )
    liked, liked_before = liking(reply, taste), liking(before[0], taste)
    won = (liked > liked_before).astype(jnp.float32)
    return (
      {
        "reward": liked,
        "reward_sft": liked_before,
        "win_rate": jnp.where(liked == liked_before, 0.5, won),
        "kl": log_ratio_BR.sum(1),  # its mean over replies of the policy is KL(policy, reference)
        "length": (reply >= 0).sum(1).astype(jnp.float32),
        "length_sft": (before[0] >= 0).sum(1).astype(jnp.float32),
      },
      reply,
      before,
    )

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """How many of the replies to different prompts are different ones."""
    found = {}
    for name, group in (("distinct", "policy"), ("distinct_sft", "reference")):
      replies = in_batches(call, test.arrays["prompt"], method=replied, group=group)
      found[name] = len(np.unique(replies, axis=0)) / len(replies)
    return found

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    prompt, taste = test.arrays["prompt"], test.arrays["taste"]
    target = test.arrays["tokens"][:, 1:]
    replies = {
      "the book": np.where(test.arrays["scored"] > 0, target, -1),
      "before": in_batches(call, prompt, method=replied, group="reference"),
      "aligned": in_batches(call, prompt, method=replied, group="policy"),
    }
    share = np.linspace(0, 1, len(prompt))
    liked = {
      name: np.sort(np.asarray(liking(jnp.asarray(reply), jnp.asarray(taste))))
      for name, reply in replies.items()
    }
    caption = "How the reader likes replies to held-out prompts, from the worst to the best."
    found: dict[str, View] = {
      "rewards": Lines(share, liked, ("share of the replies", "reward"), caption)
    }
    if "prompt" in test.tokenizers:
      decode = test.tokenizers["prompt"].decode
      shown = np.linspace(0, len(prompt) - 1, min(_SHOWN, len(prompt))).astype(int)
      rows = [[decode(x[i]) for x in (prompt, *replies.values())] for i in shown]
      caption = "Replies to held-out prompts, drawn at temperature 1."
      found["replies"] = Table(("prompt", *replies), rows, caption)
    return found


def replied(model, prompt_BP: jax.Array, *, group: str) -> jax.Array:
  """[B, R] what a group of a bound model replies."""
  module, variables = model.unbind()
  keys_B = batch_axis.keys(model.make_rng("sample"), len(prompt_BP))
  return drawn(module, as_policy(variables["params"], group), prompt_BP, keys_B)


def means(figures: dict[str, jax.Array], batch: Batch) -> dict[str, Mean]:
  """Figures [B] as means over the examples that are there."""
  return {name: Mean.over(values_B, batch["mask"]) for name, values_B in figures.items()}


def _there(tokens_BT: jax.Array) -> jax.Array:
  """Segments that keep padding in front of the tokens, or behind, out of sight."""
  return (tokens_BT >= 0).astype(jnp.int32)
