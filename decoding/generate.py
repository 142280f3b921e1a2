"""Text token by token: one pass over the prompt, then a step for each new token.

What a step feeds has keys and values in the cache, so that it costs one token's computation and
not the whole text's. Generation goes on from where it stopped by feeding its last token:

  text = generate(advance, cache, prompt, key, steps=8)
  more = generate(advance, text.cache, text.tokens[:, -1:], key, steps=8, after=text)

gives the same as 16 steps at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from decoding import Advance, Cache, among, example_keys
from decoding.sampling import PURE, Sampling, choose, tokens_seen


class Generated(NamedTuple):
  """What was generated.

  Attributes:
    tokens: [B, N]; a text ends with the stop token, and is -1 from there on.
    log_probabilities: [B, N] of them under the model as it is, neither tempered nor cut; 0 where
      there is no token.
    cache: which has seen every token but the last.
    stopped: [B] whether a stop token ended it.
    seen: [B, V] the tokens of prompt and text, where the sampling penalises them.
    steps: how many there have been, from the first on.
  """

  tokens: jax.Array
  log_probabilities: jax.Array
  cache: Cache
  stopped: jax.Array
  seen: jax.Array | None
  steps: jax.Array


class _Text(NamedTuple):
  count: jax.Array
  token_B: jax.Array  # the last one
  stopped_B: jax.Array
  seen_BV: jax.Array | None
  tokens_BN: jax.Array
  log_probabilities_BN: jax.Array
  cache: Cache


def generate(
  advance: Advance,
  cache: Cache,
  prompt_BP: jax.Array,
  key: jax.Array,
  *,
  steps: int,
  sampling: Sampling = PURE,
  stop: Sequence[int] = (),
  after: Generated | None = None,
) -> Generated:
  """Continues prompts by up to `steps` tokens; ends early where all have stopped.

  Args:
    advance: the model, see `decoding`.
    cache: room for P + steps - 1 tokens.
    prompt_BP: padded by -1 on the left. Nothing is generated for an example whose last is -1.
    key: of all examples, or keys [B] of theirs. An example's noise depends on its own and the step.
    steps: at least one.
    sampling: how a token is drawn.
    stop: tokens that end a text.
    after: what is gone on from, where `prompt_BP` is its last token.
  """
  examples = len(prompt_BP)
  keys_B = example_keys(key, examples)
  before = jnp.int32(0) if after is None else after.steps
  logits_BPV, cache = advance(prompt_BP, cache)
  stopped_B = prompt_BP[:, -1] < 0
  if after is not None:
    stopped_B |= after.stopped
    seen_BV = after.seen
  else:
    vocabulary = logits_BPV.shape[-1]
    seen_BV = tokens_seen(prompt_BP, vocabulary) if sampling.penalises else None

  def append(text: _Text, logits_BV: jax.Array, cache: Cache) -> _Text:
    at_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, before + text.count)
    token_B = choose(logits_BV, at_B, sampling, text.seen_BV)
    log_probability_B = log_probability(logits_BV, token_B)
    token_B = jnp.where(text.stopped_B, -1, token_B)
    log_probability_B = jnp.where(text.stopped_B, 0.0, log_probability_B)
    seen_BV = text.seen_BV
    if sampling.penalises:
      seen_BV |= tokens_seen(token_B[:, None], logits_BV.shape[-1])
    return _Text(
      text.count + 1,
      token_B,
      text.stopped_B | among(token_B, stop),
      seen_BV,
      text.tokens_BN.at[:, text.count].set(token_B),
      text.log_probabilities_BN.at[:, text.count].set(log_probability_B),
      cache,
    )

  def step(text: _Text) -> _Text:
    logits_B1V, cache = advance(text.token_B[:, None], text.cache)
    return append(text, logits_B1V[:, 0], cache)

  empty = _Text(
    jnp.int32(0),
    prompt_BP[:, -1],
    stopped_B,
    seen_BV,
    jnp.full((examples, steps), -1, jnp.int32),
    jnp.zeros((examples, steps), jnp.float32),
    cache,
  )
  text = jax.lax.while_loop(
    lambda text: (text.count < steps) & ~text.stopped_B.all(),
    step,
    append(empty, logits_BPV[:, -1], cache),
  )
  return Generated(
    text.tokens_BN,
    text.log_probabilities_BN,
    text.cache,
    text.stopped_B,
    text.seen_BV,
    before + text.count,
  )


def log_probability(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """[...] of tokens under logits [..., V]."""
  # The greatest off first: a log-probability near 0 would be lost beside logits of 1e4.
  logits = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
  chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
  return chosen - jnp.log(jnp.exp(logits).sum(-1))
