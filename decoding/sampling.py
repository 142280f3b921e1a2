"""Which token comes next, given the logits: greedy, tempered, top-k, nucleus, penalised.

Fan, Lewis & Dauphin 2018, "Hierarchical Neural Story Generation", arXiv:1805.04833 (top-k).
Holtzman, Buys, Du, Forbes & Choi 2019, "The Curious Case of Neural Text Degeneration",
arXiv:1904.09751 (nucleus).
Keskar, McCann, Varshney, Xiong & Socher 2019, "CTRL", arXiv:1909.05858 (repetition penalty).

They apply in this order: penalty, temperature, top-k, nucleus of what top-k left. The cut is found
by bisection and not by sorting the vocabulary, which is several times as fast; tokens exactly as
likely as the last one kept are kept with it.

Differs from CTRL: a negative logit is multiplied by the penalty where a positive one is divided by
it, so that it is a penalty either way (the paper divides both).
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """How the next token is drawn.

  Attributes:
    temperature: divides the logits; 0 takes the likeliest token.
    top_k: only the k likeliest tokens are drawn; 0 for all.
    top_p: only the fewest likeliest tokens of at least this probability are drawn, among them the
      one that reaches it; 1 for all.
    repetition_penalty: above 1, tokens that the prompt or the text so far contains are less likely.
  """

  temperature: Annotated[float, "[0, inf)"] = 1.0
  top_k: Annotated[int, "[0, inf)"] = 0
  top_p: Annotated[float, "(0, 1]"] = 1.0
  repetition_penalty: Annotated[float, "(0, inf)"] = 1.0

  def __post_init__(self):
    if not 0.0 <= self.temperature < float("inf"):
      raise ValueError(f"temperature={self.temperature} is not in [0, inf)")
    if self.top_k < 0:
      raise ValueError(f"top_k={self.top_k} is not in [0, inf)")
    if not 0.0 < self.top_p <= 1.0:
      raise ValueError(f"top_p={self.top_p} is not in (0, 1]")
    if not 0.0 < self.repetition_penalty < float("inf"):
      raise ValueError(f"repetition_penalty={self.repetition_penalty} is not in (0, inf)")

  @property
  def penalises(self) -> bool:
    """Whether what has been seen matters."""
    return self.repetition_penalty != 1.0


PURE = Sampling()  # from the model's distribution as it is
GREEDY = Sampling(temperature=0.0)


def adjusted(logits: jax.Array, sampling: Sampling, seen: jax.Array | None = None) -> jax.Array:
  """Logits [..., V] of the distribution that is drawn from, -inf where a token cannot be.

  Args:
    logits: [..., V] the model's.
    sampling: what to do with them.
    seen: [..., V] which tokens there have been; for the penalty.
  """
  if sampling.penalises:
    penalty = sampling.repetition_penalty
    penalised = jnp.where(logits < 0, logits * penalty, logits / penalty)
    logits = jnp.where(seen, penalised, logits)
  if sampling.temperature == 0.0:
    likeliest = jnp.argmax(logits, axis=-1, keepdims=True)
    return jnp.where(jnp.arange(logits.shape[-1]) == likeliest, 0.0, -jnp.inf)
  logits = logits / sampling.temperature
  if 0 < sampling.top_k < logits.shape[-1]:
    enough = lambda kept: kept.sum(-1, keepdims=True) >= sampling.top_k  # noqa: E731
    logits = _cut(logits, enough)
  if sampling.top_p < 1.0:
    probability = jax.nn.softmax(logits, axis=-1)
    mass = lambda kept: jnp.where(kept, probability, 0.0).sum(-1, keepdims=True)  # noqa: E731
    logits = _cut(logits, lambda kept: mass(kept) >= sampling.top_p)
  return logits


def choose(
  logits_BV: jax.Array, keys_B: jax.Array, sampling: Sampling, seen_BV: jax.Array | None = None
) -> jax.Array:
  """[B] the next tokens, each drawn with its example's key."""
  logits_BV = adjusted(logits_BV, sampling, seen_BV)
  if sampling.temperature == 0.0:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
  return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def tokens_seen(tokens_BP: jax.Array, vocabulary: int) -> jax.Array:
  """[B, V] which tokens occur in [B, P]."""
  rows_B1 = jnp.arange(len(tokens_BP))[:, None]
  places_BP = jnp.where(tokens_BP < 0, vocabulary, tokens_BP)  # -1 would be the last token
  seen_BV = jnp.zeros((len(tokens_BP), vocabulary), bool)
  return seen_BV.at[rows_B1, places_BP].set(True, mode="drop")


def _cut(logits: jax.Array, enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
  """Keeps the fewest largest logits that are `enough`, a monotone predicate [..., 1] of a mask.

  Builds the greatest threshold above which enough remain, a bit at a time from the top: the bits
  of floats, negative ones flipped, are in the order of the floats.
  """
  bits = jax.lax.bitcast_convert_type(logits.astype(jnp.float32), jnp.uint32)
  top = jnp.uint32(1 << 31)
  ordered = jnp.where(bits < top, bits | top, ~bits)

  def narrow(i, threshold):
    higher = threshold | (top >> i.astype(jnp.uint32))
    return jnp.where(enough(ordered >= higher), higher, threshold)

  lowest = jnp.zeros((*logits.shape[:-1], 1), jnp.uint32)
  threshold = jax.lax.fori_loop(0, 32, narrow, lowest)
  return jnp.where(ordered >= threshold, logits, -jnp.inf)
