"""Beam search: the K likeliest beginnings kept at every step, finished texts apart.

Wu et al. 2016, "Google's Neural Machine Translation System", arXiv:1609.08144, section 7: texts of
unequal length are compared by log p(Y) / lp(Y), lp(Y) = ((5 + |Y|) / 6)^alpha (equation 14, without
its coverage term, which needs one attention over the source). |Y| counts the stop token.

Differs from the paper: nothing is pruned by score. Finished texts leave the beam, which stays K
wide, and the search ends as soon as no beginning can end better than the K that finished: log p
only falls with every token, so log p so far over the penalty of the longest text is a bound.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from decoding import Advance, Cache, among, reorder


class Hypotheses(NamedTuple):
  """The best K texts of each example, the best first.

  Attributes:
    tokens: [B, K, N]; a text ends with the stop token, and is -1 from there on.
    scores: [B, K] log p over the length penalty; -inf where there are fewer than K texts.
    log_probabilities: [B, K] log p of the texts.
    finished: [B, K] whether a stop token ended it, and not the limit of steps.
  """

  tokens: jax.Array
  scores: jax.Array
  log_probabilities: jax.Array
  finished: jax.Array


class _Search(NamedTuple):
  count: jax.Array
  tokens_BKN: jax.Array  # of the beam, which is sorted
  log_p_BK: jax.Array
  best: Hypotheses
  done_B: jax.Array
  cache: Cache


def penalty(length: jax.Array | int, alpha: float, form: str = "gnmt") -> jax.Array:
  """What the log probability of a text of this length is divided by."""
  length = jnp.asarray(length, jnp.float32)
  return ((5.0 + length) / 6.0 if form == "gnmt" else length) ** alpha


def search(
  advance: Advance,
  cache: Cache,
  prompt_BP: jax.Array,
  *,
  beams: int,
  steps: int,
  length_penalty: float = 0.0,
  stop: Sequence[int] = (),
  form: Literal["gnmt", "power"] = "gnmt",
  early_stopping: bool = False,
) -> Hypotheses:
  """The likeliest continuations of prompts by up to `steps` tokens.

  Args:
    advance: the model, see `decoding`.
    cache: of B examples, with room for P + steps - 1 tokens.
    prompt_BP: padded by -1 on the left, the last token never.
    beams: K. One of them is greedy decoding, with `early_stopping` or without a length penalty.
    steps: at least one; texts that reach it count as they are.
    length_penalty: alpha >= 0; 0 compares log probabilities.
    stop: tokens that end a text.
    form: of the penalty, "gnmt" or |Y|^alpha.
    early_stopping: ends with the first K finished texts, although others may yet score better.
  """
  if length_penalty < 0:
    raise ValueError(f"length_penalty={length_penalty} is not in [0, inf)")
  examples = len(prompt_BP)
  logits_BPV, cache = advance(prompt_BP, cache)
  log_p_BV = jax.nn.log_softmax(logits_BPV[:, -1])
  vocabulary = log_p_BV.shape[-1]
  rows_B1 = jnp.arange(examples)[:, None]

  def step(state: _Search) -> _Search:
    last_B = jax.lax.dynamic_index_in_dim(state.tokens_BKN, state.count - 1, 2, keepdims=False)
    logits, cache = advance(last_B.reshape(-1, 1), state.cache)
    log_p_BKV = jax.nn.log_softmax(logits[:, 0]).reshape(examples, beams, vocabulary)
    return extend(state, log_p_BKV, cache)

  def extend(state: _Search, log_p_BKV: jax.Array, cache: Cache) -> _Search:
    length = state.count + 1
    # At most `beams` of these per stop token end a text, so enough are left that go on.
    wanted = min((1 + len(stop)) * beams, beams * vocabulary)
    log_p_BKV = state.log_p_BK[..., None] + log_p_BKV
    log_p_BC, flat_BC = jax.lax.top_k(log_p_BKV.reshape(examples, -1), wanted)
    beam_BC, token_BC = flat_BC // vocabulary, (flat_BC % vocabulary).astype(jnp.int32)
    tokens_BCN = state.tokens_BKN[rows_B1, beam_BC].at[:, :, state.count].set(token_BC)
    stopped_BC = among(token_BC, stop)

    # Only a text among the K best candidates is taken as finished, or one beam were not greedy.
    ends_BC = (
      (stopped_BC | (length == steps)) & (jnp.arange(wanted) < beams) & ~state.done_B[:, None]
    )
    ended = Hypotheses(
      tokens_BCN,
      jnp.where(ends_BC, log_p_BC / penalty(length, length_penalty, form), -jnp.inf),
      log_p_BC,
      stopped_BC,
    )
    best = _best(state.best, ended, beams)

    log_p_BC = jnp.where(stopped_BC, -jnp.inf, log_p_BC)
    log_p_BK, kept_BK = _top(log_p_BC, beams)
    parent_BK = beam_BC[rows_B1, kept_BK]
    bound_B = log_p_BK[:, 0] / penalty(steps, length_penalty, form)
    full_B = best.scores[:, -1] > -jnp.inf
    done_B = (full_B & early_stopping) | (bound_B <= best.scores[:, -1])
    return _Search(
      length,
      tokens_BCN[rows_B1, kept_BK],
      log_p_BK,
      best,
      state.done_B | done_B,
      reorder(cache, (rows_B1 * beams + parent_BK).reshape(-1)),
    )

  shape = (examples, beams)
  start = _Search(
    jnp.int32(0),
    jnp.full((*shape, steps), -1, jnp.int32),
    jnp.where(jnp.arange(beams) == 0, 0.0, jnp.full(shape, -jnp.inf)),  # one beginning, not K
    Hypotheses(
      jnp.full((*shape, steps), -1, jnp.int32),
      jnp.full(shape, -jnp.inf),
      jnp.full(shape, -jnp.inf),
      jnp.zeros(shape, bool),
    ),
    jnp.zeros(examples, bool),
    None,
  )
  log_p_BKV = jnp.broadcast_to(log_p_BV[:, None], (*shape, vocabulary))
  state = jax.lax.while_loop(
    lambda state: (state.count < steps) & ~state.done_B.all(),
    step,
    extend(start, log_p_BKV, reorder(cache, jnp.repeat(jnp.arange(examples), beams))),
  )
  return state.best


def _best(one: Hypotheses, other: Hypotheses, count: int) -> Hypotheses:
  """The `count` best of both, the earlier one where they are equal."""
  both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), one, other)
  _, order_BK = _top(both.scores, count)
  rows_B1 = jnp.arange(len(order_BK))[:, None]
  found = jax.tree.map(lambda x: x[rows_B1, order_BK], both)
  none_BK = found.scores == -jnp.inf
  return Hypotheses(
    jnp.where(none_BK[..., None], -1, found.tokens),
    found.scores,
    jnp.where(none_BK, -jnp.inf, found.log_probabilities),
    found.finished & ~none_BK,
  )


def _top(scores_BC: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """The `count` greatest of each row and their places, -inf where there are fewer."""
  missing = max(count - scores_BC.shape[1], 0)
  values_BK, places_BK = jax.lax.top_k(scores_BC, count - missing)
  pad = ((0, 0), (0, missing))
  return jnp.pad(values_BK, pad, constant_values=-jnp.inf), jnp.pad(places_BK, pad)
