"""Losses of tokens: cross-entropy with and without smoothed labels, over what is not padding.

Axes: B examples, T positions, V vocabulary.
"""

import functools
import math
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers.numerics import softmax_terms
from models.layers.transformer import unstacked
from tasks.objective import Mean, on

Smoothing = Literal["uniform", "others"]


def smoothed_nll(
  logits_BTV: jax.Array,
  targets_BT: jax.Array,
  *,
  smoothing: float | jax.Array = 0.0,
  form: Smoothing = "uniform",
) -> tuple[jax.Array, jax.Array]:
  """(loss, -log p(target)), each [B, T] in nats; whatever for padding.

  Args:
    logits_BTV: unnormalised log probabilities.
    targets_BT: -1 for padding.
    smoothing: the probability mass a that is taken from the target.
    form: who gets it: "uniform", all K tokens a / K, the target too (Szegedy et al. 2016,
      arXiv:1512.00567, section 7); "others", all but the target a / (K - 1) (tensor2tensor, with
      which Vaswani et al. 2017 trained).
  """
  K = logits_BTV.shape[-1]
  greatest_BT, total_BT = softmax_terms(logits_BTV)
  # A comparison and not a gather: it stays where the logits are, if the vocabulary is split.
  is_target = jax.lax.broadcasted_iota(jnp.int32, logits_BTV.shape, 2) == targets_BT[..., None]
  nll_BT = total_BT - (jnp.where(is_target, logits_BTV, 0.0).sum(-1) - greatest_BT)
  if not on(smoothing):
    return nll_BT, nll_BT
  # The mean of -log p over those tokens.
  shifted_BTV = logits_BTV - greatest_BT[..., None]
  if form == "uniform":
    flat_BT = total_BT - shifted_BTV.mean(-1)
  else:
    flat_BT = total_BT - jnp.where(is_target, 0.0, shifted_BTV).sum(-1) / (K - 1)
  return (1 - smoothing) * nll_BT + smoothing * flat_BT, nll_BT


def over_tokens(values_BT: jax.Array, scored_BT: jax.Array) -> Mean:
  """The mean of [B, T] over the tokens that are scored, in the making."""
  values_BT = jnp.where(scored_BT, values_BT.astype(jnp.float32), 0.0)
  return Mean(values_BT.sum(), scored_BT.sum().astype(jnp.float32))


def measured(
  logits_BTV: jax.Array,
  targets_BT: jax.Array,
  scored_BT: jax.Array,
  *,
  smoothing: float | jax.Array = 0.0,
  form: Smoothing = "uniform",
) -> dict[str, Mean]:
  """The loss, -log p in nats a token, and how often the likeliest token is the right one."""
  loss_BT, nll_BT = smoothed_nll(logits_BTV, targets_BT, smoothing=smoothing, form=form)
  right_BT = logits_BTV.argmax(-1) == targets_BT
  return {
    "loss": over_tokens(loss_BT, scored_BT),
    "nll": over_tokens(nll_BT, scored_BT),
    "accuracy": over_tokens(right_BT, scored_BT),
  }


def perplexity(means: Mapping[str, float]) -> dict[str, float]:
  """exp(nll), of the mean over all tokens; infinite where a float cannot hold it."""
  return {"perplexity": math.exp(means["nll"]) if means["nll"] < 700 else math.inf}


def advancing(model: nn.Module):
  """(module, variables, `advance(tokens, cache)`) of a bound model, for loops over tokens.

  A bound module may not be called inside a compiled loop; and there its stacked layers, taken
  apart, are not copied at every token.
  """
  module, variables = model.unbind()
  variables = unstacked(variables)
  return module, variables, functools.partial(module.apply, variables, method="advance")
