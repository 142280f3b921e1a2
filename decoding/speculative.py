"""Speculative decoding: a small model proposes tokens, the large one accepts or corrects them.

Leviathan, Kalman & Matias 2023, "Fast Inference from Transformers via Speculative Decoding",
arXiv:2211.17192, algorithm 1; Chen et al. 2023, "Accelerating Large Language Model Decoding with
Speculative Sampling", arXiv:2302.01318, the same found independently.

The draft proposes gamma tokens one by one; the target judges all of them in one pass. A token x is
accepted with probability min(1, p(x) / q(x)), p being the target's distribution and q the draft's;
the first that is not is drawn again from max(0, p - q), normalised, and where all are accepted one
more is drawn from p. So every token has the target's distribution exactly, whatever the draft, and
a pass of the target yields between 1 and gamma + 1 of them. Temperature, top-k, nucleus and penalty
change p and q alike before they are compared (section 2.2); greedy decoding is the case in which
both are certain.

Differs from the papers: batched. Examples accept different numbers of tokens, so a rejected token
leaves a hole: it is forgotten by the cache where the model can do that (`forget`), or else the
accepted ones are fed once more, to the caches from before the round, with -1 for the rejected.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from decoding import Advance, Cache, among, example_keys
from decoding.generate import log_probability
from decoding.sampling import PURE, Sampling, adjusted, choose, tokens_seen

# `forget(cache, keep_BN)` is the cache as if of the last N tokens only those kept had been fed.
Forget = Callable[[Cache, jax.Array], Cache]


class Speculated(NamedTuple):
  """What was generated, and how well the draft foresaw it.

  Attributes:
    tokens: [B, N]; a text ends with the stop token, and is -1 from there on.
    log_probabilities: [B, N] of them under the target as it is; 0 where there is no token.
    stopped: [B] whether a stop token ended it.
    examined: [B] proposals that were accepted or rejected; not those behind a rejected one.
    accepted: [B] of these. Over `examined` it estimates the acceptance rate, the papers' alpha.
    rounds: [B] passes of the target after the prompt's.
  """

  tokens: jax.Array
  log_probabilities: jax.Array
  stopped: jax.Array
  examined: jax.Array
  accepted: jax.Array
  rounds: jax.Array


class _Round(NamedTuple):
  number: jax.Array
  pending_B: jax.Array  # the last token, which no cache has seen; -1 where the text is done
  written_B: jax.Array
  seen_BV: jax.Array | None
  text: Speculated
  target: Cache
  draft: Cache


def capacity(prompt: int, steps: int, proposals: int) -> int:
  """Tokens that the caches must have room for: every round may yield a single one."""
  return prompt + steps * (proposals + 1)


def generate(
  target: Advance,
  draft: Advance,
  caches: tuple[Cache, Cache],
  prompt_BP: jax.Array,
  key: jax.Array,
  *,
  steps: int,
  proposals: int,
  sampling: Sampling = PURE,
  stop: Sequence[int] = (),
  forget: tuple[Forget | None, Forget | None] = (None, None),
) -> Speculated:
  """Continues prompts by up to `steps` tokens of the target's distribution.

  Args:
    target: the model whose text it is.
    draft: another of the same vocabulary.
    caches: of target and draft, with room for `capacity(P, steps, proposals)` tokens.
    prompt_BP: padded by -1 on the left. Nothing is generated for an example whose last is -1.
    key: of all examples, or keys [B] of theirs.
    steps: at least one.
    proposals: gamma, of one round.
    sampling: how a token is drawn.
    stop: tokens that end a text.
    forget: of target and draft, where their caches can.
  """
  keys_B = example_keys(key, len(prompt_BP))
  logits_BPV, target_cache = target(prompt_BP, caches[0])
  _, draft_cache = draft(prompt_BP, caches[1])
  logits_B1V = logits_BPV[:, -1:]
  seen_BV = tokens_seen(prompt_BP, logits_B1V.shape[-1]) if sampling.penalises else None
  # The first token is the target's own. It is drawn like the last one of a round.
  first_B = choose(logits_B1V[:, 0], _fold(keys_B, 0), sampling, seen_BV)
  pending_B = jnp.where(prompt_BP[:, -1] < 0, -1, first_B)
  start = _start(prompt_BP, steps, seen_BV, (target_cache, draft_cache))
  state = _written(start, pending_B[:, None], logits_B1V, stop)

  def step(state: _Round) -> _Round:
    draft_B, judge_B, redraw_B = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(
      _fold(keys_B, state.number)
    )
    proposed_BG, q_BGV, seen_NBV, drafted = _proposed(draft, state, draft_B, proposals, sampling)
    fed_BN = jnp.concatenate([state.pending_B[:, None], proposed_BG], axis=1)
    logits_BNV, verified = target(fed_BN, state.target)
    if forget[1] is not None:  # the last proposal is fed, so that both caches hold the same
      _, drafted = draft(proposed_BG[:, -1:], drafted)
    p_BNV = jax.nn.softmax(adjusted(logits_BNV, sampling, _examples_first(seen_NBV)), axis=-1)
    count_B, last_B = _judged(p_BNV, q_BGV, proposed_BG, judge_B, redraw_B)

    active_B = state.pending_B >= 0
    place_N = jnp.arange(proposals + 1)
    keep_BN = active_B[:, None] & (place_N <= count_B[:, None])
    ahead_BN = jnp.pad(proposed_BG, ((0, 0), (0, 1)))  # what follows each token fed
    new_BN = jnp.where(place_N < count_B[:, None], ahead_BN, last_B[:, None])
    text = state.text._replace(
      examined=state.text.examined + jnp.where(active_B, jnp.minimum(count_B + 1, proposals), 0),
      accepted=state.text.accepted + jnp.where(active_B, count_B, 0),
      rounds=state.text.rounds + active_B.astype(jnp.int32),
    )
    state = state._replace(
      number=state.number + 1,
      text=text,
      target=_settled(target, forget[0], state.target, verified, fed_BN, keep_BN),
      draft=_settled(draft, forget[1], state.draft, drafted, fed_BN, keep_BN),
    )
    return _written(state, jnp.where(keep_BN, new_BN, -1), logits_BNV, stop)

  return jax.lax.while_loop(lambda state: (state.pending_B >= 0).any(), step, state).text


def _start(prompt_BP, steps: int, seen_BV, caches: tuple[Cache, Cache]) -> _Round:
  examples = len(prompt_BP)
  none_B = jnp.zeros(examples, jnp.int32)
  text = Speculated(
    jnp.full((examples, steps), -1, jnp.int32),
    jnp.zeros((examples, steps), jnp.float32),
    jnp.zeros(examples, bool),
    none_B,
    none_B,
    none_B,
  )
  return _Round(jnp.int32(1), prompt_BP[:, -1], none_B, seen_BV, text, *caches)


def _proposed(draft: Advance, state: _Round, keys_B, proposals: int, sampling: Sampling):
  """The draft's tokens [B, G], their distributions [B, G, V], what had been seen, its cache."""

  def step(carry, i):
    token_B, seen_BV, cache = carry
    logits_B1V, cache = draft(token_B[:, None], cache)
    logits_BV = adjusted(logits_B1V[:, 0], sampling, seen_BV)
    drawn_B = jax.vmap(jax.random.categorical)(_fold(keys_B, i), logits_BV).astype(jnp.int32)
    drawn_B = jnp.where(token_B < 0, -1, drawn_B)
    after_BV = seen_BV
    if sampling.penalises:
      after_BV |= tokens_seen(drawn_B[:, None], logits_BV.shape[-1])
    return (drawn_B, after_BV, cache), (drawn_B, jax.nn.softmax(logits_BV, axis=-1), seen_BV)

  start = state.pending_B, state.seen_BV, state.draft
  (_, seen_BV, cache), (drawn_GB, q_GBV, seen_GBV) = jax.lax.scan(
    step, start, jnp.arange(proposals)
  )
  if sampling.penalises:
    seen_GBV = jnp.concatenate([seen_GBV, seen_BV[None]])
  return drawn_GB.T, q_GBV.transpose(1, 0, 2), seen_GBV, cache


def _judged(p_BNV, q_BGV, proposed_BG, judge_B, redraw_B):
  """How many proposals [B] are accepted, and the token [B] that follows them."""
  at_BG1 = jnp.maximum(proposed_BG, 0)[..., None]
  p_BG = jnp.take_along_axis(p_BNV[:, :-1], at_BG1, axis=-1)[..., 0]
  q_BG = jnp.take_along_axis(q_BGV, at_BG1, axis=-1)[..., 0]
  uniform_BG = jax.vmap(lambda key: jax.random.uniform(key, q_BG.shape[1:]))(judge_B)
  accepted_BG = uniform_BG * q_BG < p_BG
  count_B = jnp.cumprod(accepted_BG.astype(jnp.int32), axis=1).sum(1)
  # Behind the last proposal q is nothing, so that the residual is p.
  q_BNV = jnp.pad(q_BGV, ((0, 0), (0, 1), (0, 0)))
  rows_B = jnp.arange(len(count_B))
  p_BV = p_BNV[rows_B, count_B]
  residual_BV = jnp.maximum(p_BV - q_BNV[rows_B, count_B], 0.0)
  # Rounding alone can reject a token where p = q.
  residual_BV = jnp.where(residual_BV.sum(-1, keepdims=True) > 0, residual_BV, p_BV)
  last_B = jax.vmap(jax.random.categorical)(redraw_B, jnp.log(residual_BV))
  return count_B, last_B.astype(jnp.int32)


def _settled(advance: Advance, forget: Forget | None, before, after, fed_BN, keep_BN) -> Cache:
  """The cache that has seen the kept tokens of a round only."""
  if forget is not None:
    return forget(after, keep_BN)
  return advance(jnp.where(keep_BN, fed_BN, -1), before)[1]


def _written(
  state: _Round, new_BN: jax.Array, logits_BNV: jax.Array, stop: Sequence[int]
) -> _Round:
  """Appends tokens [B, N], -1 behind the last, drawn after the target's logits [B, N, V]."""
  text, steps = state.text, state.text.tokens.shape[1]
  place_BN = state.written_B[:, None] + jnp.arange(new_BN.shape[1])
  stops_BN = among(new_BN, stop)
  behind_BN = jnp.cumsum(stops_BN, axis=1) > stops_BN.astype(jnp.int32)
  new_BN = jnp.where(behind_BN | (place_BN >= steps), -1, new_BN)
  there_BN = new_BN >= 0
  count_B = there_BN.sum(1)
  rows_B1 = jnp.arange(len(new_BN))[:, None]
  at_BN = jnp.where(there_BN, place_BN, steps)  # outside, and so dropped
  log_p_BN = log_probability(logits_BNV, jnp.maximum(new_BN, 0))
  text = text._replace(
    tokens=text.tokens.at[rows_B1, at_BN].set(new_BN, mode="drop"),
    log_probabilities=text.log_probabilities.at[rows_B1, at_BN].set(log_p_BN, mode="drop"),
    stopped=text.stopped | (stops_BN & there_BN).any(1),
  )
  last_B = new_BN[rows_B1[:, 0], jnp.maximum(count_B - 1, 0)]
  written_B = state.written_B + count_B
  seen_BV = state.seen_BV
  if seen_BV is not None:
    seen_BV |= tokens_seen(new_BN, logits_BNV.shape[-1])
  return state._replace(
    pending_B=jnp.where(text.stopped | (written_B >= steps), -1, last_B),
    written_B=written_B,
    seen_BV=seen_BV,
    text=text,
  )


def _fold(keys_B: jax.Array, number) -> jax.Array:
  return jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)


def _examples_first(seen_NBV: jax.Array | None) -> jax.Array | None:
  return None if seen_NBV is None else seen_NBV.transpose(1, 0, 2)
