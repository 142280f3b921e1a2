"""From demonstrations to preferences: losses against PyTorch, replies, and who trains whom."""

import functools
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data import bible, conversations, text
from data.conversations import Exchange
from models.transformer import aligned, gpt, rlhf
from tasks import dpo, ppo, replies, reward_model
from training import step

TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not TORCH, reason="parity is against PyTorch: `pip install torch`")
B, P, R, V = 6, 5, 4, 11
EOS = 1
SETTINGS = dict(
  vocabulary=V,
  length=P + R,
  layers=1,
  features=8,
  heads=2,
  dropout=0.0,
  attention_dropout=0.0,
  eos=EOS,
  reply_length=R,
)


def size(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@functools.cache
def created(kind=rlhf, seed=0):
  """(model, params, mutable), policy and reference apart."""
  model = kind.Model(**SETTINGS)
  blank = jnp.zeros((1, P + R), jnp.int32)
  variables = jax.jit(lambda: model.init({"params": jax.random.key(seed)}, blank))()
  # Embeddings of the usual deviation make every distribution flat, where little can be seen.
  params = jax.tree.map(lambda x: 5 * x if x.ndim == 2 else x, variables["params"])
  return model, params, {k: v for k, v in variables.items() if k != "params"}


def batch_of(examples=B, seed=0, step_=0):
  generator = np.random.default_rng(seed)
  prompt = generator.integers(2, V, (examples, P), np.int32)
  prompt[0, :2] = -1
  tokens = np.concatenate([prompt, generator.integers(2, V, (examples, R + 1), np.int32)], 1)
  return {
    "prompt": jnp.asarray(prompt),
    "tokens": jnp.asarray(np.sort(tokens == -1, 1) * 0 + tokens),
    "text": jnp.asarray(generator.integers(0, V, (examples, P + R + 1), np.int32)),
    "taste": jnp.asarray(np.tile(generator.normal(size=V).astype(np.float32), (examples, 1))),
    "mask": jnp.ones(examples),
    "step": jnp.full(examples, step_, jnp.int32),
  }


# Sizes.


def test_four_gpts_of_the_size_of_gpt3_xl():
  sizes = dict(vocabulary=50_257, length=2048, layers=24, features=2048, heads=16)
  one = 1_315_723_264
  for kind, wanted in ((aligned, 2 * one), (rlhf, 4 * one + 2 * (2048 + 1))):
    model = kind.Model(**sizes)
    blank = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(lambda m=model, x=blank: m.init({"params": jax.random.key(0)}, x))
    assert size(shapes["params"]) == wanted


def test_a_stage_takes_over_what_was_trained():
  model, fresh, _ = created()
  plain = gpt.Model(**{k: v for k, v in SETTINGS.items() if k not in ("eos", "reply_length")})
  blank = jnp.zeros((1, 3), jnp.int32)
  before = jax.jit(lambda: plain.init({"params": jax.random.key(7)}, blank))()["params"]
  before, fresh = jax.tree.map(np.asarray, (before, fresh))
  same = lambda a, b: not changed(a, b)  # noqa: E731
  first = model.adopt(fresh, before)
  for group in (first["policy"], first["reference"], first["reward"]["body"]):
    assert same(group, before)
  moved = {**first, **{k: jax.tree.map(lambda x: x + 1, first[k]) for k in ("policy", "reward")}}
  second = model.adopt(fresh, moved)
  assert same(second["policy"], moved["policy"])
  assert same(second["reference"], moved["policy"])
  assert same(second["reward"], moved["reward"])
  assert same(second["value"], moved["reward"])
  with pytest.raises(ValueError, match="embedding"):
    model.adopt(fresh, {**before, "embedding": before["embedding"][:-1]})


# Losses.


@needs_torch
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_dpo_is_pytorchs_and_its_gradient_the_papers(beta):
  import torch

  generator = np.random.default_rng(0)
  # log probabilities of the preferred and the other reply, under policy and reference
  logs = -5 * generator.random((4, 7))
  p = torch.tensor(logs, requires_grad=True)
  ratio_w, ratio_l = p[0] - p[2], p[1] - p[3]
  expected = -torch.nn.functional.logsigmoid(beta * ratio_w - beta * ratio_l).mean()
  expected.backward()

  def ours(x):
    return dpo.dpo_loss(x[0] - x[2], x[1] - x[3], beta).mean()

  found, gradient = jax.value_and_grad(ours)(jnp.asarray(logs, jnp.float32))
  assert float(found) == pytest.approx(expected.item(), rel=1e-6)
  np.testing.assert_allclose(gradient, p.grad.numpy(), rtol=1e-5, atol=1e-8)
  # Section 4: the weight of an example is how wrongly the implicit reward orders it.
  reward_w, reward_l = (beta * r.detach().numpy() for r in (ratio_w, ratio_l))
  weight = beta / (1 + np.exp(reward_w - reward_l)) / logs.shape[1]
  np.testing.assert_allclose(-gradient[0], weight, rtol=1e-5)
  np.testing.assert_allclose(gradient[1], weight, rtol=1e-5)


@needs_torch
def test_the_reward_models_loss_is_pytorchs_over_all_pairs():
  import torch

  generator = np.random.default_rng(0)
  reward, liking = generator.normal(size=(2, 4, 5))
  liking[1, 2] = liking[0, 2]  # a tie
  liking[:, 4] = 0.0  # nothing but ties
  r = torch.tensor(reward, requires_grad=True)
  losses, right = [], []
  for b in range(4):
    pairs = [(i, j) for i in range(4) for j in range(4) if liking[i, b] > liking[j, b]]
    losses.append(
      -sum(torch.nn.functional.logsigmoid(r[i, b] - r[j, b]) for i, j in pairs) / len(pairs)
    )
    right.append(np.mean([reward[i, b] > reward[j, b] for i, j in pairs]))
  assert len(pairs) == math.comb(4, 2)
  sum(losses).backward()

  def ours(x):
    loss_B, right_B, any_B = reward_model.compared(x, jnp.asarray(liking, jnp.float32))
    return loss_B.sum(), (loss_B, right_B, any_B)

  grads, (loss_B, right_B, any_B) = jax.grad(ours, has_aux=True)(jnp.asarray(reward, jnp.float32))
  np.testing.assert_allclose(loss_B[:4], [x.item() for x in losses], rtol=1e-5)
  np.testing.assert_allclose(right_B[:4], right, rtol=1e-6)
  np.testing.assert_allclose(grads, r.grad.numpy(), rtol=1e-4, atol=1e-7)
  assert list(any_B) == [True] * 4 + [False]
  assert float(loss_B[4]) == 0.0


@needs_torch
def test_ppo_surrogate_is_pytorchs():
  import torch

  generator = np.random.default_rng(0)
  log_ratio, advantage = 0.5 * generator.normal(size=(2, 50))
  x, a = torch.tensor(log_ratio, requires_grad=True), torch.tensor(advantage)
  expected = -torch.minimum(x.exp() * a, x.exp().clamp(0.8, 1.2) * a)
  expected.sum().backward()
  run = lambda z: ppo.clipped(z, jnp.asarray(advantage, jnp.float32), 0.2)  # noqa: E731
  found, was_clipped = run(jnp.asarray(log_ratio, jnp.float32))
  gradient = jax.grad(lambda z: run(z)[0].sum())(jnp.asarray(log_ratio, jnp.float32))
  np.testing.assert_allclose(found, expected.detach(), rtol=1e-5)
  np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-5, atol=1e-7)
  # What has gone far enough in the direction of its advantage is pushed no further.
  assert 0 < int(was_clipped.sum()) < 50
  assert not np.asarray(gradient)[np.asarray(was_clipped)].any()


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_gae_is_the_sum_it_stands_for(decay):
  generator = np.random.default_rng(0)
  reward, value = generator.normal(size=(2, 3, 6))
  reward[1, 4:] = value[1, 4:] = 0.0  # an episode that ends early
  found = ppo.gae(jnp.asarray(reward, jnp.float32), jnp.asarray(value, jnp.float32), decay=decay)
  following = np.pad(value, ((0, 0), (0, 1)))[:, 1:]
  error = reward + following - value
  for t in range(6):
    wanted = sum(decay**k * error[:, t + k] for k in range(6 - t))
    np.testing.assert_allclose(found[:, t], wanted, rtol=1e-4, atol=1e-5)
  if decay == 1.0:  # what is still to come, over what was expected
    wanted = reward[:, ::-1].cumsum(1)[:, ::-1] - value
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_whitening_is_over_tokens_that_are_there():
  values = jnp.asarray(np.random.default_rng(0).normal(3, 5, (4, 6)), jnp.float32)
  there = jnp.asarray(np.arange(6) < np.array([[6], [2], [3], [0]]))
  found = np.asarray(ppo.whitened(jnp.where(there, values, jnp.nan), there))
  kept = np.asarray(values)[np.asarray(there)]
  np.testing.assert_allclose(found[np.asarray(there)], (kept - kept.mean()) / kept.std(), rtol=1e-4)
  assert not found[~np.asarray(there)].any()


@pytest.mark.parametrize("size_", [1e4, -1e4])
def test_losses_are_finite_at_extremes(size_):
  x = jnp.full((2, 3), size_)
  for loss in (
    lambda x: dpo.dpo_loss(x, -x, 0.5).sum(),
    lambda x: reward_model.compared(x, -jnp.arange(6.0).reshape(2, 3))[0].sum(),
    lambda x: ppo.clipped(x, x, 0.2)[0].sum(),
    lambda x: ppo.gae(x, x, decay=0.95).sum(),
  ):
    value, gradient = jax.value_and_grad(loss)(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


# Replies.


@functools.cache
def replied(examples=B):
  model, params, _ = created()
  keys = replies.streams(jax.random.key(3), B, 1)[0][:examples]
  prompt = batch_of()["prompt"][:examples]
  return np.asarray(jax.jit(functools.partial(replies.drawn, model))(params, prompt, keys))


def test_a_reply_ends_with_its_end_and_is_its_examples_own():
  found = replied()
  assert found.shape == (B, R)
  for row in found:
    length = int((row >= 0).sum())
    assert length > 0
    assert (row[length:] == -1).all()
    assert EOS not in row[: length - 1]
    assert length == R or row[length - 1] == EOS
  np.testing.assert_array_equal(replied(2), found[:2])


def test_replies_are_as_likely_as_their_frequency_says():
  model, params, _ = created()
  prompt = jnp.tile(batch_of()["prompt"][:1], (4000, 1))
  keys = jax.random.split(jax.random.key(0), 4000)
  found = np.asarray(jax.jit(functools.partial(replies.drawn, model))(params, prompt, keys))
  kinds, counts = np.unique(found, axis=0, return_counts=True)
  some = np.argsort(-counts)[:20]
  log_p = replies.log_probabilities(model, params, prompt[:20], jnp.asarray(kinds[some]))
  expected = 4000 * np.exp(np.asarray(log_p).sum(1))
  assert expected.sum() > 200
  z = (counts[some] - expected) / np.sqrt(expected)
  # The commonest ones, so a little more often than expected.
  assert np.abs(z).max() < 5


def test_padding_in_front_or_behind_changes_nothing():
  model, params, _ = created()
  prompt, reply = batch_of()["prompt"], jnp.asarray(replied())
  for read in (
    replies.log_probabilities,
    replies.values,
    functools.partial(replies.log_probabilities, method="before"),
  ):
    read = jax.jit(functools.partial(read, model))
    expected = read(params, prompt, reply)
    wider = read(params, jnp.pad(prompt, ((0, 0), (3, 0)), constant_values=-1), reply)
    np.testing.assert_allclose(wider, expected, rtol=1e-5, atol=1e-6)
    assert not np.asarray(expected)[np.asarray(reply) < 0].any()
  read = jax.jit(functools.partial(replies.rewards, model))
  longer = jnp.pad(reply, ((0, 0), (0, 2)), constant_values=-1)
  np.testing.assert_allclose(
    read(params, prompt, longer), read(params, prompt, reply), rtol=1e-5, atol=1e-6
  )


def test_a_reader_counts_a_token_once():
  taste = jnp.tile(jnp.asarray([0.0, 0.0, 1.0, 10.0, -3.0]), (3, 1))
  reply = jnp.asarray([[2, 2, 3, 1], [4, 3, -1, -1], [-1, -1, -1, -1]])
  np.testing.assert_array_equal(replies.liking(reply, taste), [11.0, 7.0, 0.0])
  pair = replies.preferred(jnp.stack([reply, reply[::-1]]), taste)
  np.testing.assert_array_equal(pair.chosen[0], reply[0])
  np.testing.assert_array_equal(pair.rejected[0], reply[2])
  assert list(pair.differs) == [True, False, True]


# Who trains whom.


def one_step(task, kind, batch, *, params=None, mutable=None):
  """The state's params and mutable collections after one step of SGD."""
  model, made, collections = created(kind)
  params, mutable = params or made, mutable or collections
  (phase,) = task.phases(model)
  program = step.Program((phase,), (optax.sgd(0.5),), lambda b, k: dict(b), B // phase.repeats)
  stored = {k: v for k, v in batch.items() if k not in ("mask", "step")}
  init = step.initial(program, params, mutable, jax.random.key(0))
  return jax.jit(lambda s, x: step.train_step(s, x, program))(init, stored)


def changed(a, b):
  leaves = zip(*map(jax.tree.leaves, (a, b)), strict=True)
  return any(not np.array_equal(x, y) for x, y in leaves)


@pytest.mark.parametrize(
  ("task", "kind", "trains"),
  [
    (reward_model.Task(replies=3), rlhf, {"reward"}),
    (ppo.Task(minibatches=2, pretraining_weight=1.0), rlhf, {"policy", "value"}),
    (dpo.Task(), aligned, {"policy"}),
  ],
  ids=["reward", "ppo", "dpo"],
)
def test_a_stage_trains_its_own_groups_alone(task, kind, trains):
  _, params, mutable = created(kind)
  after = one_step(task, kind, batch_of())
  assert {name for name in params if changed(params[name], after.params[name])} == trains
  if kind is rlhf and "policy" in trains:
    # Replies of the second update, too, were those of the policy before the step.
    assert not changed(after.mutable["behaviour"]["policy"], params["policy"])
    assert not changed(after.mutable["behaviour"]["value"], params["value"])
    assert int(after.mutable["behaviour"]["step"]) == 0


def test_dpo_starts_at_ln_2():
  model, params, mutable = created(aligned)
  params = {**params, "reference": params["policy"]}
  (phase,) = dpo.Task(beta=0.3).phases(model)
  loss, (_, metrics) = jax.jit(phase.loss)(params, mutable, batch_of(), jax.random.key(0))
  assert float(loss.total / loss.count) == pytest.approx(math.log(2), rel=1e-6)
  assert float(metrics["margin"].total) == pytest.approx(0.0, abs=1e-4)


def test_the_first_update_of_a_step_is_at_ratio_one():
  model, params, mutable = created()
  (phase,) = ppo.Task(minibatches=1).phases(model)
  _, (_, metrics) = jax.jit(phase.loss)(params, mutable, batch_of(), jax.random.key(0))
  assert float(metrics["clipped"].total) == 0.0
  # Advantages are whitened, so that at ratio one their mean is 0.
  assert float(metrics["policy_loss"].total / metrics["policy_loss"].count) == pytest.approx(
    0, abs=1e-5
  )
  # Another policy in `behaviour`, of the same step, is another ratio.
  other = jax.tree.map(lambda x: 1.3 * x, params["policy"])
  mutable = {"behaviour": {**mutable["behaviour"], "policy": other, "step": jnp.int32(0)}}
  _, (kept, metrics) = jax.jit(phase.loss)(params, mutable, batch_of(), jax.random.key(0))
  assert float(metrics["clipped"].total) > 0.0
  assert not changed(kept["behaviour"]["policy"], other)
  _, (kept, _) = jax.jit(phase.loss)(params, mutable, batch_of(step_=1), jax.random.key(0))
  assert not changed(kept["behaviour"]["policy"], params["policy"])


@pytest.mark.parametrize("name", ["ppo", "dpo"])
def test_a_reader_likes_replies_better_after_training(monkeypatch, name):
  model, params, mutable = created()
  params = {**params, "reference": params["policy"]}
  taste = jnp.tile(jnp.arange(V, dtype=jnp.float32) / 4, (64, 1))
  prompt = jnp.tile(batch_of()["prompt"], (11, 1))[:64]
  batch = {"prompt": prompt, "taste": taste, "mask": jnp.ones(64)}
  # A reward model that has learnt all there is to learn.
  monkeypatch.setattr(replies, "rewards", lambda m, p, prompt, reply: replies.liking(reply, taste))
  task = {"ppo": ppo.Task(kl_weight=0.05, minibatches=1), "dpo": dpo.Task(beta=0.1)}[name]
  (phase,) = task.phases(model)
  optimizer = optax.adam(3e-3)

  def objective(part, state, batch, rng):
    loss, (state, _) = phase.loss({**params, **part}, state, batch, rng)
    return loss.total / loss.count, state

  def body(i, carry):
    part, state, moments = carry
    now = {**batch, "step": jnp.full(64, i, jnp.int32)}
    key = jax.random.fold_in(jax.random.key(1), i)
    grads, state = jax.grad(objective, has_aux=True)(part, state, now, key)
    updates, moments = optimizer.update(grads, moments, part)
    return optax.apply_updates(part, updates), state, moments

  @jax.jit
  def run(part):
    moments = optimizer.init(part)
    part, _, _ = jax.lax.fori_loop(0, 40, body, (part, mutable, moments))
    figures, _, _ = task.compared(model, {**params, **part}, batch, jax.random.key(2))
    return {k: v.mean() for k, v in figures.items()}

  found = run({group: params[group] for group in phase.trains})
  assert float(found["reward"]) > float(found["reward_sft"]) + 0.5
  assert float(found["win_rate"]) > 0.6
  assert 0 < float(found["kl"]) < 10


# Conversations.


def test_dialogues_are_verses_in_two():
  verses = ["In the beginning God created the heaven and the earth.", "Amen.", "Jesus wept aloud."]
  found = conversations.dialogues(verses, exchanges=2, words=2)
  assert found == [
    (
      Exchange("In the", " beginning God created the heaven and the earth."),
      Exchange("Jesus wept", " aloud."),
    )
  ]
  assert len(conversations.dialogues(verses, exchanges=1, words=1)) == 2


def test_a_preference_is_the_log_odds_of_naive_bayes():
  occurs = np.array([[1, 0, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1]], bool)
  liked = np.array([True, True, False, False])
  found = conversations.preference(occurs, liked, unmoved=frozenset([2]))
  odds = np.log([(3 / 4) / (1 / 4), (2 / 4) / (3 / 4), 1.0])
  np.testing.assert_allclose(found, odds / (occurs @ odds).std(), rtol=1e-6)


@functools.cache
def source(exchanges=1):
  try:
    bible.chapters()
  except FileNotFoundError as missing:
    pytest.skip(str(missing))
  return conversations.Source(
    tokenizer="characters",
    vocabulary=80,
    exchanges=exchanges,
    prompt_words=1,
    prompt_length=10 if exchanges == 1 else 60,
    reply_length=40,
    train_examples=300,
    test_examples=30,
  )


@pytest.mark.parametrize("exchanges", [1, 2])
def test_conversations_score_what_the_assistant_says(exchanges):
  data = source(exchanges)
  rows = data.split("test").arrays
  assert {name: array.shape[1:] for name, array in rows.items()} == {
    name: spec.shape for name, spec in data.spec().items()
  }
  tokenizer = data.tokenizers()["tokens"]
  book = " ".join(verse for chapter in bible.chapters() for verse in chapter.verses)
  for tokens, scored, prompt in zip(rows["tokens"], rows["scored"], rows["prompt"], strict=True):
    kept = tokens[tokens >= 0]
    given = prompt[prompt >= 0]
    np.testing.assert_array_equal(kept[: len(given)], given)
    assert (prompt[: -len(given)] == -1).all()
    reply = kept[len(given) :]
    assert reply[-1] == tokenizer.eos
    assert given[-1] == tokenizer.bos
    assert 2 <= len(reply) <= data.reply_length
    turns = np.split(kept, np.flatnonzero(kept == tokenizer.bos)[1:])
    assert len(turns) == 2 * exchanges
    wanted = np.concatenate([np.arange(len(t)) * (i % 2) > 0 for i, t in enumerate(turns)])
    np.testing.assert_array_equal(scored[: len(kept) - 1], wanted[1:])
    assert not scored[len(kept) - 1 :].any()
    for user, assistant in zip(turns[::2], turns[1::2], strict=True):
      assert tokenizer.decode(user) + tokenizer.decode(assistant) in book


def test_conversations_share_the_books_tokenizer_and_its_chapters():
  data = source()
  book = text.Source(dataset="kjv", tokenizer="characters", vocabulary=80, length=data.length)
  assert data.tokenizers()["tokens"].fingerprint() == book.tokenizers()["tokens"].fingerprint()
  assert dict(data.facts()).items() >= dict(book.facts()).items()
  decode = data.tokenizers()["tokens"].decode
  held_out = " ".join(" ".join(book.texts("test")).split("\n"))
  for tokens in data.split("test").arrays["tokens"]:
    assert decode(tokens) in held_out
  assert data.fingerprint() == source().fingerprint()


def test_the_reader_tells_the_testaments_apart():
  data = source()
  rows = data._rows["test"]
  reply = np.where(rows["scored"] > 0, rows["tokens"][:, 1:], -1)
  batch = data.transform({"tokens": reply}, None, train=False)
  liked = np.asarray(replies.liking(jnp.asarray(reply), batch["taste"]))
  train = data._rows["train"]
  scored = np.where(train["scored"] > 0, train["tokens"][:, 1:], -1)
  taste = jnp.broadcast_to(jnp.asarray(data.taste), (len(scored), len(data.taste)))
  fitted = np.asarray(replies.liking(jnp.asarray(scored), taste))
  assert fitted.std() == pytest.approx(1.0, rel=1e-4)
  assert fitted[train["new"] > 0].mean() > fitted[train["new"] == 0].mean() + 0.2
  assert np.isfinite(liked).all()
