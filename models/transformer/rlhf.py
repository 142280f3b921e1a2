"""Reinforcement learning from human feedback: a policy, its reference, a reward and a value.

Ouyang et al. 2022, "Training language models to follow instructions with human feedback",
arXiv:2203.02155, sections 3.5 and appendix C. Reward and value are GPTs whose features a linear
layer turns into a number, in the place of the unembedding; the reward starts from the policy, the
value from the reward. `behaviour`, a collection that is not trained, holds policy and value as they
were when the step's replies were drawn.

Differs from the paper: all four are of one size (there the policy is up to 175B, reward and value
6B). The head starts from N(0, 1/(D+1)), as in Ziegler et al. 2019, arXiv:1909.08593.

Axes: B examples, T positions, D features.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.sequence import Prediction
from models.transformer import aligned, gpt


class Scorer(nn.Module):
  """A number for every position.

  Attributes:
    body: a GPT.
  """

  body: gpt.Model

  def setup(self):
    std = (self.body.features + 1) ** -0.5
    self.head = nn.Dense(1, kernel_init=nn.initializers.normal(std))

  def __call__(
    self, tokens_BT: jax.Array, segments_BT: jax.Array | None = None, *, train: bool = False
  ) -> jax.Array:
    """[B, T] float32."""
    return self.head(self.body(tokens_BT, segments_BT, train=train).hidden)[..., 0]


class Model(aligned.Model):
  """Policy and reference, with a reward that learns from comparisons and a value.

  Attributes:
    dtype: of activations.
  """

  dtype: Any = jnp.float32

  def setup(self):
    super().setup()
    self.reward = Scorer(self.gpt())
    self.value = Scorer(self.gpt())

  def __call__(
    self, tokens_BT: jax.Array, segments_BT: jax.Array | None = None, *, train: bool = False
  ) -> Prediction:
    """The policy's prediction; the arguments are those of models/transformer/gpt.py."""
    out = super().__call__(tokens_BT, segments_BT, train=train)
    if self.is_initializing():
      self.reward(tokens_BT)
      self.value(tokens_BT)
      # No step has drawn replies yet.
      self.put_variable("behaviour", "step", jnp.int32(-1))
      for name in ("policy", "value"):
        self.put_variable("behaviour", name, getattr(self, name).variables["params"])
    return out

  def rewards(
    self, tokens_BT: jax.Array, segments_BT: jax.Array | None = None, *, train: bool = False
  ) -> jax.Array:
    """[B, T] what the text up to each position is worth to a reader."""
    return self.reward(tokens_BT, segments_BT, train=train)

  def values(
    self, tokens_BT: jax.Array, segments_BT: jax.Array | None = None, *, train: bool = False
  ) -> jax.Array:
    """[B, T] what is expected to be earned from each position on."""
    return self.value(tokens_BT, segments_BT, train=train)

  def adopt(self, fresh: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """From a GPT all four; from this model policy and reward, the value being the reward."""
    found = super().adopt(fresh, before)
    if "reward" in before:
      reward = aligned.taken_over(fresh["reward"], before["reward"])
      return {**found, "reward": reward, "value": reward}
    body = found["policy"]
    return {**found, **{name: {**fresh[name], "body": body} for name in ("reward", "value")}}
