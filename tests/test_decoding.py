"""Decoding on toy models whose every text can be counted, and against Hugging Face's."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoding import beam, reorder
from decoding.generate import generate
from decoding.sampling import GREEDY, PURE, Sampling, adjusted, choose, tokens_seen

V = 4  # of the toys' vocabulary


def table(seed=0, vocabulary=V, scale=1.5):
  """Logits [V + 1, V + 1, V] of the next token by the last two; row V where there is none."""
  shape = (vocabulary + 1, vocabulary + 1, vocabulary)
  return scale * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def toy(logits):
  """(begin, advance) of a second-order Markov chain whose cache is all that was fed."""
  logits, none = jnp.asarray(logits), logits.shape[-1]

  def begin(examples, capacity):
    history = jnp.full((1, examples, capacity), -1, jnp.int32)
    return {"history": history, "slot": jnp.int32(0)}

  def advance(tokens_BN, cache):
    slot = cache["slot"]
    history = jax.lax.dynamic_update_slice(cache["history"], tokens_BN[None], (0, 0, slot))
    slots = jnp.arange(history.shape[2])

    def read(end):
      there = (history[0] >= 0) & (slots <= end)
      last = jnp.where(there, slots, -1).max(-1)
      former = jnp.where(there & (slots < last[:, None]), slots, -1).max(-1)
      token = lambda at: jnp.where(at < 0, none, history[0, jnp.arange(len(at)), at])  # noqa: E731
      return logits[token(former), token(last)]

    found = jax.vmap(read, out_axes=1)(slot + jnp.arange(tokens_BN.shape[1]))
    return found, {"history": history, "slot": slot + tokens_BN.shape[1]}

  return begin, advance


def log_p(logits, prompt, text):
  """Of a text after a prompt, token by token, in double precision."""
  tokens = [logits.shape[-1]] * 2 + [t for t in prompt if t >= 0]
  total = 0.0
  for token in text:
    row = logits[tokens[-2], tokens[-1]].astype(np.float64)
    total += row[token] - np.log(np.exp(row).sum())
    tokens.append(token)
  return total


def texts(steps, stop, vocabulary=V):
  """Every text that ends with a stop token or is as long as may be."""
  for length in range(1, steps + 1):
    for text in itertools.product(range(vocabulary), repeat=length):
      if not any(t in stop for t in text[:-1]) and (length == steps or text[-1] in stop):
        yield text


def words(row):
  return tuple(int(t) for t in row if t >= 0)


PROMPTS = np.array([[-1, -1, 1], [0, 2, 3], [-1, 3, 0]], np.int32)


@functools.cache
def runner(steps, **options):
  def text(logits, prompts, key):
    begin, advance = toy(logits)
    cache = begin(len(prompts), prompts.shape[1] + steps)
    return generate(advance, cache, prompts, key, steps=steps, **options)

  return jax.jit(text)


def run(logits, prompts=PROMPTS, key=0, steps=6, **options):
  key = jax.random.key(key) if isinstance(key, int) else key
  return runner(steps, **options)(logits, prompts, key)


# Choosing a token.


def test_greedy_takes_the_likeliest_and_tells_its_probability():
  logits = table()
  found = run(logits, sampling=GREEDY)
  for prompt, row, log_ps in zip(PROMPTS, found.tokens, found.log_probabilities, strict=True):
    text = []
    for _ in range(6):
      before = ([V, V] + [t for t in prompt if t >= 0] + text)[-2:]
      text.append(int(np.argmax(logits[before[0], before[1]])))
    assert words(row) == tuple(text)
    assert float(log_ps.sum()) == pytest.approx(log_p(logits, prompt, text), abs=1e-5)


@pytest.mark.parametrize("top_k", [1, 50, 400])
@pytest.mark.parametrize("top_p", [0.1, 0.95, 1.0])
def test_cuts_and_penalty_are_those_of_hugging_face(top_k, top_p):
  torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
  process = pytest.importorskip("transformers", reason="the reference").generation.logits_process
  generator = np.random.default_rng(top_k)
  logits = 3 * generator.normal(size=(5, 300)).astype(np.float32)
  prompt = generator.integers(0, 300, (5, 40)).astype(np.int32)
  prompt[:, :7] = prompt[:, 7:8]  # theirs has no padding to skip
  steps = [
    process.RepetitionPenaltyLogitsProcessor(1.3),
    process.TemperatureLogitsWarper(0.8),
    process.TopKLogitsWarper(top_k),
    process.TopPLogitsWarper(top_p),
  ]
  expected = torch.from_numpy(logits.copy())
  for step in steps:
    expected = step(torch.from_numpy(prompt).long(), expected)
  sampling = Sampling(temperature=0.8, top_k=top_k, top_p=top_p, repetition_penalty=1.3)
  prompt[:, :7] = -1
  found = adjusted(jnp.asarray(logits), sampling, tokens_seen(jnp.asarray(prompt), 300))
  np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected.numpy()))
  np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.01, 1.0))
def test_cuts_keep_the_fewest_that_suffice(seed, top_k, top_p):
  logits = np.random.default_rng(seed).normal(size=12).astype(np.float32)
  logits[seed % 12] = -1e4
  kept = np.isfinite(adjusted(jnp.asarray(logits), Sampling(top_k=top_k)))
  assert kept.sum() == top_k
  assert logits[kept].min() > logits[~kept].max(initial=-np.inf)
  kept = np.isfinite(adjusted(jnp.asarray(logits), Sampling(top_p=top_p)))
  p = np.asarray(jax.nn.softmax(logits), np.float64)
  assert p[kept].sum() >= top_p - 1e-6
  assert p[kept].sum() - p[kept].min() < top_p + 1e-6  # without the one that crosses, too few
  assert p[kept].min() >= p[~kept].max(initial=0.0)


def test_everything_is_kept_where_nothing_is_cut():
  logits = jnp.asarray(table()[0, 0])
  np.testing.assert_array_equal(adjusted(logits, PURE), logits)
  np.testing.assert_array_equal(adjusted(logits, Sampling(top_k=V)), logits)


def test_extreme_logits_leave_a_choice():
  logits = jnp.array([[1e4, -1e4, 0.0, 1e4], [-1e4] * 4], jnp.float32)
  keys = jax.random.split(jax.random.key(0), 2)
  for sampling in (PURE, GREEDY, Sampling(top_k=2), Sampling(top_p=0.9), Sampling(temperature=0.1)):
    found = np.asarray(choose(logits, keys, sampling))
    assert found[0] in (0, 3)
    assert 0 <= found[1] < 4


def test_draws_follow_the_distribution():
  from scipy import stats

  logits = table(scale=1.0)
  draws = run(logits, np.full((20_000, 1), 2, np.int32), steps=2).tokens
  counts = np.bincount(np.asarray(draws) @ [V, 1], minlength=V * V)
  p = [math.exp(log_p(logits, [2], text)) for text in itertools.product(range(V), repeat=2)]
  assert stats.chisquare(counts, np.array(p) * len(draws)).pvalue > 1e-3


def test_an_examples_noise_is_its_own():
  keys = jax.random.split(jax.random.key(3), len(PROMPTS))
  together = run(table(), key=keys).tokens
  alone = [run(table(), PROMPTS[i : i + 1], keys[i : i + 1]).tokens[0] for i in range(3)]
  np.testing.assert_array_equal(together, alone)
  same = run(table(), np.repeat(PROMPTS[:1], 50, 0)).tokens
  assert len({words(row) for row in same}) > 5


@pytest.mark.parametrize("sampling", [GREEDY, PURE, Sampling(repetition_penalty=1.5, top_k=3)])
def test_padding_on_the_left_changes_nothing(sampling):
  padded = np.pad(PROMPTS, ((0, 0), (4, 0)), constant_values=-1)
  one, other = (run(table(), p, sampling=sampling) for p in (PROMPTS, padded))
  np.testing.assert_array_equal(one.tokens, other.tokens)


def test_a_text_ends_with_its_stop_token():
  logits = table()
  free = run(logits, sampling=GREEDY, steps=12).tokens
  found = run(logits, sampling=GREEDY, steps=12, stop=(1, 3))
  ended = 0
  for before, after, stopped in zip(free, found.tokens, found.stopped, strict=True):
    places = [i for i, t in enumerate(before) if t in (1, 3)]
    assert bool(stopped) == bool(places)
    length = places[0] + 1 if places else 12
    assert words(after) == words(before[:length])
    assert (np.asarray(after[length:]) == -1).all()
    ended += bool(places)
  assert ended
  assert (np.asarray(found.log_probabilities)[np.asarray(found.tokens) < 0] == 0).all()


def test_it_ends_early_when_all_have_stopped():
  found = run(table(), steps=50, stop=tuple(range(V)))
  assert int(found.steps) == 1
  # And what had no last token to begin with is left alone.
  found = run(table(), np.array([[0, -1], [0, 1]], np.int32))
  assert words(found.tokens[0]) == ()
  assert len(words(found.tokens[1])) == 6


@pytest.mark.parametrize("sampling", [PURE, Sampling(temperature=0.7, repetition_penalty=1.4)])
def test_going_on_is_as_if_never_stopped(sampling):
  key = jax.random.key(7)
  options = dict(sampling=sampling, stop=(2,))
  whole = run(table(5), key=key, steps=9, **options)
  begin, advance = toy(table(5))
  text = generate(advance, begin(3, 20), jnp.asarray(PROMPTS), key, steps=3, **options)
  parts = [text.tokens]
  for _ in range(3):
    text = generate(advance, text.cache, text.tokens[:, -1:], key, steps=2, after=text, **options)
    parts.append(text.tokens)
  np.testing.assert_array_equal(np.concatenate(parts, 1), whole.tokens)
  np.testing.assert_array_equal(text.stopped, whole.stopped)


def test_a_penalty_makes_repetition_rarer():
  logits = np.abs(table(2, vocabulary=12, scale=3.0))

  def repeats(penalty):
    found = run(logits, np.repeat(PROMPTS, 100, 0), sampling=Sampling(repetition_penalty=penalty))
    return 6 - np.mean([len(set(words(row))) for row in found.tokens])

  assert repeats(3.0) < 0.7 * repeats(1.0)


@pytest.mark.parametrize(
  "wrong", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"repetition_penalty": 0.0}]
)
def test_settings_out_of_range_are_refused(wrong):
  with pytest.raises(ValueError, match=next(iter(wrong))):
    Sampling(**wrong)


# Beam search.


@functools.cache
def searcher(beams, steps, length_penalty, stop, early, form="gnmt"):
  def search(logits, prompts):
    begin, advance = toy(logits)
    return beam.search(
      advance,
      begin(len(prompts), prompts.shape[1] + steps),
      prompts,
      beams=beams,
      steps=steps,
      length_penalty=length_penalty,
      stop=stop,
      early_stopping=early,
      form=form,
    )

  return jax.jit(search)


def beams(logits, k, *, steps=4, alpha=0.0, stop=(0,), early=False, prompts=PROMPTS, **options):
  found = searcher(k, steps, alpha, stop, early, **options)(logits, prompts)
  return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("stop", [(0,), (0, 2), ()])
def test_a_beam_as_wide_as_all_texts_finds_the_best(alpha, stop):
  for seed in range(3):
    logits = table(seed, vocabulary=3)
    found = beams(logits, 3**4, alpha=alpha, stop=stop, prompts=PROMPTS % 3)
    for prompt, tokens, scores, log_ps, finished in zip(PROMPTS % 3, *found, strict=True):
      every = {text: log_p(logits, prompt, text) for text in texts(4, stop, 3)}
      score = {text: p / ((5 + len(text)) / 6) ** alpha for text, p in every.items()}
      ranked = sorted(score, key=score.get, reverse=True)
      count = min(len(ranked), 3**4)
      # Two texts of the same transitions in another order score the same: compared by score.
      ours = [words(row) for row in tokens[:count]]
      assert set(ours) == set(ranked)
      np.testing.assert_allclose(scores[:count], [score[text] for text in ranked], atol=1e-4)
      np.testing.assert_allclose(scores[:count], [score[text] for text in ours], atol=1e-4)
      np.testing.assert_allclose(log_ps[:count], [every[text] for text in ours], atol=1e-4)
      assert list(finished[:count]) == [text[-1] in stop for text in ours]
      assert (scores[count:] == -np.inf).all()
      assert (tokens[count:] == -1).all()


@pytest.mark.parametrize("seed", range(2))
def test_one_beam_is_greedy(seed):
  greedy = run(table(seed), sampling=GREEDY, steps=7, stop=(0, 3))
  for found in (
    beams(table(seed), 1, steps=7, stop=(0, 3)),
    beams(table(seed), 1, steps=7, stop=(0, 3), alpha=1.0, early=True),
  ):
    np.testing.assert_array_equal(found.tokens[:, 0], greedy.tokens)
    np.testing.assert_allclose(
      found.log_probabilities[:, 0], greedy.log_probabilities.sum(1), atol=1e-5
    )
    np.testing.assert_array_equal(found.finished[:, 0], greedy.stopped)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_ending_early_loses_nothing(alpha, monkeypatch):
  """Where nothing can score better any more, going on to the last step finds the same."""
  found = [beams(table(seed), 3, steps=8, alpha=alpha) for seed in range(8)]
  # The bound alone is asked for the penalty of a plain number. Without it no search ends early.
  own = beam.penalty
  monkeypatch.setattr(
    beam, "penalty", lambda length, *a: math.inf if isinstance(length, int) else own(length, *a)
  )
  searcher.cache_clear()
  whole = [beams(table(seed), 3, steps=8, alpha=alpha) for seed in range(8)]
  searcher.cache_clear()
  jax.tree.map(np.testing.assert_array_equal, found, whole)


def test_likely_ends_leave_room_for_what_goes_on():
  logits = np.log(np.broadcast_to(np.float32([0.35, 0.1, 0.1, 0.1, 0.35]), (6, 6, 5)))
  found = beams(logits, 2, steps=5, alpha=8.0, stop=(0, 4), prompts=np.array([[1]], np.int32))
  assert len(words(found.tokens[0, 0])) == 5


def test_a_long_text_that_will_win_is_waited_for():
  p = np.full((4, 4, 3), 1e-6, np.float32)
  p[:, 1] = 0.9, 1e-6, 0.1  # the first token ends the text, or is 2,
  p[:, 2] = 1e-6, 1e-6, 1.0  # which nothing ends
  prompts = np.array([[1]], np.int32)
  found = beams(np.log(p), 1, steps=8, alpha=8.0, prompts=prompts)
  assert words(found.tokens[0, 0]) == (2,) * 8
  found = beams(np.log(p), 1, steps=8, alpha=8.0, prompts=prompts, early=True)
  assert words(found.tokens[0, 0]) == (0,)


def test_scores_are_what_they_say():
  logits = table(1)
  for alpha, form in ((0.6, "gnmt"), (1.0, "power")):
    found = beams(logits, 3, alpha=alpha, form=form, steps=5)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    for prompt, rows, scores in zip(PROMPTS, found.tokens, found.scores, strict=True):
      assert len({words(row) for row in rows}) == len(rows)
      for row, score in zip(rows, scores, strict=True):
        text = words(row)
        lp = ((5 + len(text)) / 6) ** alpha if form == "gnmt" else len(text) ** alpha
        assert score == pytest.approx(log_p(logits, prompt, text) / lp, abs=1e-5)


def test_the_length_penalty_is_the_papers():
  found = beam.penalty(np.array([1, 5, 10, 20, 50]), 0.6)
  np.testing.assert_allclose(found, [1.0, 1.3587, 1.7329, 2.3544, 3.7786], atol=5e-5)
  with pytest.raises(ValueError, match="length_penalty"):
    beams(table(), 2, alpha=-1.0)


def test_a_longer_text_wins_with_a_penalty():
  lengths = [
    np.mean([len(words(r)) for s in range(8) for r in beams(table(s), 4, alpha=a).tokens[:, 0]])
    for a in (0.0, 2.0)
  ]
  assert lengths[1] > lengths[0]


def test_caches_follow_their_beams():
  cache = {"keys": jnp.arange(12).reshape(2, 3, 2), "slot": jnp.int32(5)}
  found = reorder(cache, jnp.array([2, 2, 0]))
  np.testing.assert_array_equal(found["keys"], cache["keys"][:, [2, 2, 0]])
  assert found["slot"] == 5


@pytest.fixture(scope="module")
def their_chain():
  """A chain like the toy's, as Hugging Face's generation sees a model."""
  torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
  transformers = pytest.importorskip("transformers", reason="the reference")
  from transformers.modeling_outputs import CausalLMOutput

  class Chain(transformers.PreTrainedModel, transformers.GenerationMixin):
    config_class = transformers.PretrainedConfig
    main_input_name = "input_ids"

    def __init__(self, logits):
      super().__init__(transformers.PretrainedConfig(vocab_size=logits.shape[-1]))
      self.table = torch.nn.Parameter(torch.from_numpy(logits))
      self.post_init()

    def forward(self, input_ids, attention_mask=None, **_):
      former = torch.nn.functional.pad(input_ids, (1, 0), value=len(self.table) - 1)[:, :-1]
      return CausalLMOutput(logits=self.table[former, input_ids])

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
      return {"input_ids": input_ids}

    def beams(self, prompts, k, *, steps, alpha, early, stop):
      with torch.no_grad():
        found = self.generate(
          torch.from_numpy(prompts).long(),
          attention_mask=torch.ones(prompts.shape, dtype=torch.long),
          num_beams=k,
          num_return_sequences=k,
          max_new_tokens=steps,
          length_penalty=alpha,
          early_stopping=early,
          eos_token_id=list(stop),
          pad_token_id=0,
          do_sample=False,
          use_cache=False,
          return_dict_in_generate=True,
          output_scores=True,
        )
      tokens = found.sequences[:, prompts.shape[1] :].numpy()
      return tokens.reshape(len(prompts), k, -1), found.sequences_scores.numpy().reshape(-1, k)

  return Chain


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("stop", [(0,), (0, 3)])
def test_beams_are_those_of_hugging_face(their_chain, early, alpha, stop):
  prompts = np.array([[1, 2], [3, 1], [2, 2]], np.int32)
  for seed in range(3):
    logits = table(seed, vocabulary=7)
    theirs, scores = their_chain(logits).beams(
      prompts, 3, steps=6, alpha=alpha, early=early or "never", stop=stop
    )
    ours = beams(
      logits, 3, steps=6, alpha=alpha, early=early, stop=stop, form="power", prompts=prompts
    )
    np.testing.assert_allclose(ours.scores, scores, atol=1e-5)
    for mine, other in zip(ours.tokens.reshape(9, -1), theirs.reshape(9, -1), strict=True):
      length = len(words(mine))
      np.testing.assert_array_equal(mine[:length], other[:length])
      assert (other[length:] == 0).all()


# Under the types that the rest of the program has.


def test_nothing_is_promoted():
  sampling = Sampling(temperature=0.5, top_k=3, top_p=0.9, repetition_penalty=1.2)
  with jax.numpy_dtype_promotion("strict"):
    for chosen in (sampling, GREEDY):
      traced = runner(3, sampling=chosen, stop=(1,))
      jax.eval_shape(traced, table(), PROMPTS, jax.random.key(0))
    jax.eval_shape(searcher(2, 3, 0.6, (1,), False), table(), PROMPTS)


# A real network.


def test_gpt_writes_what_hugging_faces_does():
  pytest.importorskip("torch", reason="the reference is PyTorch's")
  pytest.importorskip("transformers", reason="the reference")
  from benchmarks import decode

  shape = dict(vocabulary=50, length=48, layers=2, features=16, heads=2)
  model, variables = decode.our_model(**shape)
  variables = jax.tree.map(lambda x: 20 * x, variables)
  theirs = decode.their_model(**shape)
  decode.to_theirs(variables["params"], theirs)
  prompt = decode.prompts(3, 50)
  ours = np.asarray(jax.jit(decode.our_text(model, new=12))(variables, prompt))
  np.testing.assert_array_equal(ours, decode.their_text(theirs, prompt, new=12))
  np.testing.assert_array_equal(ours, decode.their_loop(theirs, prompt, new=12))
  assert len({tuple(row) for row in ours}) == 3
