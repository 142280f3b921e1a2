"""Speculative decoding leaves the target's distribution as it is, and says how often it was right."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_decoding import PROMPTS, V, log_p, run, table, toy, words

from decoding import speculative
from decoding.sampling import GREEDY, PURE, Sampling


def remembering(logits):
  """The toy as a recurrent model: its cache is its last two tokens, and nothing can be unfed."""
  logits, none = jnp.asarray(logits), logits.shape[-1]

  def begin(examples, capacity):
    del capacity
    return jnp.full((1, examples, 2), none, jnp.int32)

  def advance(tokens_BN, cache):
    def step(last_B2, token_B):
      fed_B2 = jnp.stack([last_B2[:, 1], token_B], axis=1)
      last_B2 = jnp.where(token_B[:, None] >= 0, fed_B2, last_B2)
      return last_B2, logits[last_B2[:, 0], last_B2[:, 1]]

    last_B2, found = jax.lax.scan(step, cache[0], tokens_BN.T)
    return found.transpose(1, 0, 2), last_B2[None]

  return begin, advance


def toy_forget(cache, keep_BN):
  start = (0, 0, cache["slot"] - keep_BN.shape[1])
  last = jax.lax.dynamic_slice(cache["history"], start, (1, *keep_BN.shape))
  kept = jnp.where(keep_BN[None], last, -1)
  return {**cache, "history": jax.lax.dynamic_update_slice(cache["history"], kept, start)}


@functools.cache
def speculator(steps, gamma, forgets, **options):
  make = toy if forgets else remembering

  def generate(target, draft, prompts, key):
    made = make(target), make(draft)
    room = speculative.capacity(prompts.shape[1], steps, gamma)
    return speculative.generate(
      made[0][1],
      made[1][1],
      tuple(begin(len(prompts), room) for begin, _ in made),
      prompts,
      key,
      steps=steps,
      proposals=gamma,
      forget=(toy_forget, toy_forget) if forgets else (None, None),
      **options,
    )

  return jax.jit(generate)


def speculate(target, draft, prompts=PROMPTS, key=0, *, steps=6, gamma=3, forgets=True, **options):
  key = jax.random.key(key) if isinstance(key, int) else key
  found = speculator(steps, gamma, forgets, **options)(target, draft, prompts, key)
  return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize(("forgets", "gamma"), [(True, 1), (True, 4), (False, 4)])
def test_greedy_is_greedy_of_the_target(forgets, gamma):
  for seed in range(2):
    alone = run(table(seed), sampling=GREEDY, steps=9, stop=(2,))
    found = speculate(
      table(seed),
      table(seed) + table(seed + 50) / 2,
      sampling=GREEDY,
      steps=9,
      stop=(2,),
      gamma=gamma,
      forgets=forgets,
    )
    np.testing.assert_array_equal(found.tokens, alone.tokens)
    np.testing.assert_allclose(found.log_probabilities, alone.log_probabilities, atol=1e-5)
    np.testing.assert_array_equal(found.stopped, alone.stopped)
    assert (found.accepted <= found.examined).all()
    assert found.rounds.max() < 8  # fewer passes than tokens


ALL = Sampling(temperature=0.7, top_k=3, top_p=0.9, repetition_penalty=1.5)


@pytest.mark.parametrize(("sampling", "forgets"), [(PURE, True), (ALL, True), (ALL, False)])
def test_texts_follow_the_targets_distribution(sampling, forgets):
  """Every text of four tokens as often as the target alone would write it, chi-square."""
  target, draft = table(0, scale=1.0), table(9, scale=1.0)
  prompts = np.full((20_000, 1), 2, np.int32)
  found = speculate(
    target, draft, prompts, steps=4, gamma=2, sampling=sampling, stop=(0,), forgets=forgets
  )
  observed = {}
  for row in found.tokens:
    observed[words(row)] = observed.get(words(row), 0) + 1
  expected = exact(target, 2, 4, sampling, stop=(0,))
  assert observed.keys() <= expected.keys()
  pairs = [(observed.get(text, 0), len(prompts) * p) for text, p in expected.items()]
  often = [pair for pair in pairs if pair[1] >= 5]
  rare = np.sum([pair for pair in pairs if pair[1] < 5] or [(0, 0)], axis=0)
  counts = np.array([*often, rare] if rare[1] >= 5 else often)
  counts[:, 1] *= counts[:, 0].sum() / counts[:, 1].sum()
  assert stats.chisquare(*counts.T).pvalue > 1e-3
  assert 0.2 < found.accepted.sum() / found.examined.sum() < 0.95  # it was put to the test


def exact(logits, prompt, steps, sampling, *, stop):
  """The probability of every text after one token, by an implementation in NumPy."""
  found = {}
  for length in range(1, steps + 1):
    for text in itertools.product(range(V), repeat=length):
      if any(t in stop for t in text[:-1]) or (length < steps and text[-1] not in stop):
        continue
      tokens, p = [V, prompt], 1.0
      for token in text:
        p *= adjusted(logits[tokens[-2], tokens[-1]], tokens, sampling)[token]
        tokens.append(token)
      if p > 0:
        found[text] = p
  assert sum(found.values()) == pytest.approx(1.0)
  return found


def adjusted(row, seen, sampling):
  row = row.astype(np.float64)
  for token in set(seen) - {V}:
    row[token] *= sampling.repetition_penalty ** (1 if row[token] < 0 else -1)
  p = np.exp(row / sampling.temperature)
  ranked = np.argsort(-p)
  if sampling.top_k:
    p[ranked[sampling.top_k :]] = 0
  p /= p.sum()
  before = np.cumsum(p[ranked]) - p[ranked]
  p[ranked[before >= sampling.top_p]] = 0
  return p / p.sum()


def test_log_probabilities_are_the_targets():
  found = speculate(table(1), table(2), steps=8, stop=(3,))
  for prompt, row, log_ps in zip(PROMPTS, found.tokens, found.log_probabilities, strict=True):
    assert log_ps.sum() == pytest.approx(log_p(table(1), prompt, words(row)), abs=1e-4)
    assert (log_ps[len(words(row)) :] == 0).all()


def test_a_perfect_draft_is_always_accepted():
  found = speculate(table(4), table(4), steps=13, gamma=3)
  np.testing.assert_array_equal(found.accepted, found.examined)
  # One token with the prompt, then four a round.
  np.testing.assert_array_equal(found.rounds, [3] * 3)
  assert all(len(words(row)) == 13 for row in found.tokens)


def test_a_useless_draft_costs_rounds_only():
  certain = np.full((V + 1, V + 1, V), -1e4, np.float32)
  target, draft = certain.copy(), certain.copy()
  target[..., 1], draft[..., 2] = 1e4, 1e4
  found = speculate(target, draft, steps=5, gamma=3)
  assert (found.tokens == 1).all()
  assert found.accepted.sum() == 0
  np.testing.assert_array_equal(found.rounds, [4] * 3)
  np.testing.assert_array_equal(found.examined, [4] * 3)  # what lay behind was never looked at


def test_the_acceptance_rate_is_the_overlap():
  """Theorem 3.5: the chance to accept is the sum of min(p, q)."""
  p, q = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.1, 0.3, 0.2, 0.4])
  target, draft = (np.broadcast_to(np.log(x).astype(np.float32), (5, 5, 4)) for x in (p, q))
  prompts = np.full((3000, 1), 0, np.int32)
  found = speculate(target, draft, prompts, steps=10, gamma=2)
  rate = found.accepted.sum() / found.examined.sum()
  alpha = np.minimum(p, q).sum()
  assert rate == pytest.approx(alpha, abs=4 * math.sqrt(alpha * (1 - alpha) / found.examined.sum()))


def test_an_examples_noise_is_its_own():
  keys = jax.random.split(jax.random.key(3), len(PROMPTS))
  together = speculate(table(0), table(1), key=keys)
  for i in range(len(PROMPTS)):
    alone = speculate(table(0), table(1), PROMPTS[i : i + 1], keys[i : i + 1])
    np.testing.assert_array_equal(together.tokens[i], alone.tokens[0])
    assert together.rounds[i] == alone.rounds[0]


def test_nothing_is_promoted():
  with jax.numpy_dtype_promotion("strict"):
    for forgets in (True, False):
      options = dict(sampling=ALL, stop=(1,))
      traced = speculator(6, 3, forgets, **options)
      jax.eval_shape(traced, table(), table(1), PROMPTS, jax.random.key(0))
