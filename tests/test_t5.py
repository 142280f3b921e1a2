"""T5: sizes, Hugging Face's numbers on the same weights, spans left out and told, tasks as text."""

import collections
import functools
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models import close, size
from test_transformer import created

from data import bible, text, text_to_text, tokenizers
from decoding.generate import generate
from decoding.sampling import GREEDY
from models.layers import batch_axis
from models.layers.transformer import unstacked
from models.transformer import published, t5
from tasks.objective import Examples
from tasks.span_corruption import Task, spelled
from training import optim

FOUND = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_huggingface = pytest.mark.skipif(
  not FOUND, reason="parity is against Hugging Face: `pip install -r requirements-oracles.txt`"
)

V, D, N, H, F, L = 23, 16, 2, 6, 24, 2
EOS = 1
SIZES = dict(
  encoder_layers=L,
  decoder_layers=L,
  features=D,
  heads=N,
  head_features=H,
  mlp_features=F,
  dropout=0.0,
  attention_dropout=0.0,
)
FIRST = t5.Model(V, **SIZES)
GATED = t5.Model(V, activation="gelu_tanh", gated=True, tied=False, **SIZES)


def drawn(shape, seed):
  return np.random.default_rng(seed).integers(2, V, shape, np.int32)


SOURCE, TARGET = drawn((2, 7), 0), drawn((2, 6), 1)
SOURCE[1, 4:] = -1
TARGET[:, 0], TARGET[1, 4:] = 0, -1


@functools.cache
def weights(model):
  return created(model, SOURCE, TARGET)


# ------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
  ("name", "parameters"),
  [
    ("small", 60_506_624),
    ("base", 222_903_552),
    ("large", 737_668_096),
    ("3b", 2_851_598_336),
    ("11b", 11_307_321_344),
    ("1.1-small", 76_961_152),
    ("1.1-base", 247_577_856),
  ],
)
def test_published_sizes(name, parameters):
  model = t5.Model(**published.T5[name])
  row = jnp.zeros((1, 2), jnp.int32)
  params = jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, row, row))["params"]
  assert size(params) == parameters
  # No biases anywhere: the vectors are scales of norms.
  vectors = {p[-1].key for p, _ in jax.tree.leaves_with_path(params)}
  assert vectors <= {"embedding", "unembedding", "kernel", "scale", "bias"}
  assert {p[-2].key for p, _ in jax.tree.leaves_with_path(params) if p[-1].key == "bias"} == {
    "encoder_bias",
    "decoder_bias",
  }


def test_initial_weights_are_the_released_codes():
  model = t5.Model(50, encoder_layers=1, decoder_layers=1, features=128, heads=4, head_features=16)
  row = jnp.zeros((1, 2), jnp.int32)
  params = jax.jit(lambda: model.init({"params": jax.random.key(0)}, row, row))()["params"]
  block = params["decoder_layers"]
  found = {
    "embedding": (params["embedding"], 1.0),
    "encoder_bias": (params["encoder_bias"]["bias"], 128**-0.5),
    "up": (block["mlp"]["up"]["kernel"], 128**-0.5),
    "down": (block["mlp"]["down"]["kernel"], 3072**-0.5),
  }
  for kind in ("attention", "cross_attention"):
    found[f"{kind} query"] = block[kind]["query"]["kernel"], (128 * 16) ** -0.5
    found[f"{kind} key"] = block[kind]["key"]["kernel"], 128**-0.5
    found[f"{kind} value"] = block[kind]["value"]["kernel"], 128**-0.5
    found[f"{kind} output"] = block[kind]["output"]["kernel"], (4 * 16) ** -0.5
  for name, (leaf, std) in found.items():
    spread = float(leaf.std()) / std
    assert abs(spread - 1) < 4 / math.sqrt(2 * leaf.size), f"{name}: {spread:.3f} of its deviation"


# ----------------------------------------------------------------- Hugging Face's, on the same weights


def to_torch(params, index):
  """[in, heads, width] or [heads, width, out] as PyTorch has it, [out, in]."""
  kernel = np.asarray(params["kernel"][index], np.float64)
  return kernel.reshape(D, -1).T if kernel.shape[0] == D else kernel.reshape(-1, D).T


def block_names(prefix, decoder, gated):
  """Hugging Face's names of a block's parameters by ours."""
  found = {"attention_norm": f"{prefix}.layer.0.layer_norm"}
  kinds = {"attention": f"{prefix}.layer.0.SelfAttention"}
  last = 1
  if decoder:
    found["cross_norm"] = f"{prefix}.layer.1.layer_norm"
    kinds["cross_attention"], last = f"{prefix}.layer.1.EncDecAttention", 2
  found["mlp_norm"] = f"{prefix}.layer.{last}.layer_norm"
  for ours, theirs in kinds.items():
    for name, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o")):
      found[f"{ours} {name}"] = f"{theirs}.{letter}"
  dense = f"{prefix}.layer.{last}.DenseReluDense"
  wide = (("up", "wi_0"), ("gate", "wi_1")) if gated else (("up", "wi"),)
  for ours, theirs in (*wide, ("down", "wo")):
    found[f"mlp {ours}"] = f"{dense}.{theirs}"
  return found


def in_theirs(params, *, gated):
  """Our parameters, or gradients by them, by Hugging Face's names and in its layout."""
  found = {"shared.weight": params["embedding"]}
  if "unembedding" in params:
    found["lm_head.weight"] = params["unembedding"]
  for end in ("encoder", "decoder"):
    relative = f"{end}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    found[relative] = params[f"{end}_bias"]["bias"]
    found[f"{end}.final_layer_norm.weight"] = params[f"{end}_norm"]["scale"]
    stack = params[f"{end}_layers"]
    for index in range(L):
      for ours, theirs in block_names(f"{end}.block.{index}", end == "decoder", gated).items():
        part, *inner = ours.split()
        node = stack[part][inner[0]] if inner else stack[part]
        found[f"{theirs}.weight"] = (
          to_torch(node, index) if "kernel" in node else node["scale"][index]
        )
  return {name: np.asarray(array, np.float64) for name, array in found.items()}


@functools.cache
def theirs(gated):
  import torch
  import transformers

  config = transformers.T5Config(
    vocab_size=V,
    d_model=D,
    d_kv=H,
    d_ff=F,
    num_layers=L,
    num_heads=N,
    feed_forward_proj="gated-gelu" if gated else "relu",
    tie_word_embeddings=not gated,
    dropout_rate=0.0,
    pad_token_id=0,
    eos_token_id=EOS,
    decoder_start_token_id=0,
  )
  model = transformers.T5ForConditionalGeneration(config)
  if gated:  # the library ties what T5 1.1 does not
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(V, D))
  model = model.double().eval()
  given = in_theirs(weights(GATED if gated else FIRST), gated=gated)
  missing = dict(model.named_parameters())
  for name, array in given.items():
    target = missing.pop(name)
    assert tuple(target.shape) == array.shape, name
    target.data = torch.tensor(array)
  assert not missing, sorted(missing)
  assert (model.lm_head.weight is model.shared.weight) == (not gated)
  return model


def torch_inputs(source, target):
  import torch

  ids = lambda x: torch.tensor(np.maximum(x, 0), dtype=torch.long)  # noqa: E731
  return dict(
    input_ids=ids(source),
    attention_mask=torch.tensor(source >= 0, dtype=torch.long),
    decoder_input_ids=ids(target),
  )


@needs_huggingface
@pytest.mark.parametrize("gated", [False, True])
def test_logits_are_huggingfaces(gated):
  import torch

  ours = GATED if gated else FIRST
  with torch.no_grad():
    wanted = theirs(gated)(**torch_inputs(SOURCE, TARGET)).logits.numpy()
  found = jax.jit(ours.apply)({"params": weights(ours)}, SOURCE, TARGET).logits
  close(found[0], wanted[0])
  close(found[1, :4], wanted[1, :4])


@needs_huggingface
def test_far_distances_are_huggingfaces():
  """Longer than the exact buckets, and than the furthest."""
  import torch

  source, target = drawn((1, 150), 3), drawn((1, 140), 4)
  with torch.no_grad():
    wanted = theirs(False)(**torch_inputs(source, target)).logits.numpy()
  close(jax.jit(FIRST.apply)({"params": weights(FIRST)}, source, target).logits, wanted, rtol=2e-5)


@needs_huggingface
@pytest.mark.parametrize("gated", [False, True])
def test_greedy_texts_are_huggingfaces_token_for_token(gated):
  ours, steps = (GATED if gated else FIRST), 8
  inputs = torch_inputs(SOURCE, TARGET)
  wanted = (
    theirs(gated)
    .generate(
      input_ids=inputs["input_ids"],
      attention_mask=inputs["attention_mask"],
      do_sample=False,
      max_new_tokens=steps,
    )[:, 1:]
    .numpy()
  )
  found = np.maximum(greedy(ours, SOURCE, steps), 0)
  np.testing.assert_array_equal(found, np.pad(wanted, ((0, 0), (0, steps - wanted.shape[1]))))


def greedy(model, source, steps):
  variables = unstacked({"params": weights(model)})
  advance = functools.partial(model.apply, variables, method="advance")

  @jax.jit
  def run():
    cache = model.apply(variables, jnp.asarray(source), steps, method="begin")
    start, key = jnp.zeros((len(source), 1), jnp.int32), jax.random.key(0)
    return generate(advance, cache, start, key, steps=steps, sampling=GREEDY, stop=(EOS,)).tokens

  return np.asarray(run())


@needs_huggingface
@pytest.mark.parametrize("gated", [False, True])
def test_gradients_of_the_loss_are_huggingfaces(gated):
  import torch

  ours, model = (GATED if gated else FIRST), theirs(gated)
  told = np.where(TARGET[:, 1:] < 0, -100, TARGET[:, 1:])
  inputs = torch_inputs(SOURCE, TARGET[:, :-1])
  model.zero_grad()
  loss = model(**inputs, labels=torch.tensor(told, dtype=torch.long)).loss
  loss.backward()

  def nll(params):
    logits = ours.apply({"params": params}, SOURCE, TARGET[:, :-1]).logits
    log_p = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(log_p, jnp.maximum(told, 0)[..., None], -1)[..., 0]
    return -jnp.where(told >= 0, own, 0.0).sum() / (told >= 0).sum()

  value, grads = jax.jit(jax.value_and_grad(nll))(weights(ours))
  assert float(value) == pytest.approx(loss.item(), rel=1e-5)
  wanted = {name: p.grad.numpy() for name, p in model.named_parameters()}
  found = in_theirs(grads, gated=gated)
  assert set(found) == set(wanted)
  for name, grad in found.items():
    assert np.abs(wanted[name]).max() > 0, name
    close({name: grad}, {name: wanted[name]}, rtol=5e-5)


@needs_huggingface
@pytest.mark.parametrize("clip", [1.0, 1.5])
def test_adafactor_is_pytorchs(clip):
  """With a matrix that is factored, a vector that is not, and one that starts from zero."""
  import torch

  generator = np.random.default_rng(0)
  shapes = {"kernel": (128, 160), "scale": (7,), "zero": (5,)}
  start = {k: generator.normal(0, 0.3, shape) * (k != "zero") for k, shape in shapes.items()}
  # Some larger than those before, so that updates are clipped.
  grads = [{k: generator.normal(0, size, v) for k, v in shapes.items()} for size in (1, 4, 1, 9)]
  ours = optim.Adafactor(learning_rate=0.05, threshold=clip).transformation(4)
  params = {k: jnp.asarray(v, jnp.float32) for k, v in start.items()}
  state = ours.init(params)
  leaves = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in start.items()}
  # PyTorch's rate is never more than 1 / sqrt(t), which is more than ours here.
  theirs = torch.optim.Adafactor(leaves.values(), lr=0.05, d=clip, weight_decay=0.0)
  for step in grads:
    updates, state = jax.jit(ours.update)(
      {k: jnp.asarray(v, jnp.float32) for k, v in step.items()}, state, params
    )
    params = optax.apply_updates(params, updates)
    for name, leaf in leaves.items():
      leaf.grad = torch.tensor(step[name])
    theirs.step()
  close(params, {k: v.detach().numpy() for k, v in leaves.items()})


# --------------------------------------------------------------------------------------- the model


@pytest.mark.parametrize("model", [FIRST, GATED], ids=["1.0", "1.1"])
@pytest.mark.parametrize("chunks", [(6,), (1, 2, 3), (1,) * 6])
def test_a_cache_says_what_the_whole_says(model, chunks):
  params = weights(model)
  whole = jax.jit(model.apply)({"params": params}, SOURCE, TARGET).logits

  @jax.jit
  def run():
    cache = model.apply({"params": params}, SOURCE, 8, method="begin")
    parts, start = [], 0
    for count in chunks:
      tokens = jnp.asarray(TARGET[:, start : start + count])
      logits, cache = model.apply({"params": params}, tokens, cache, method="advance")
      parts.append(logits)
      start += count
    return jnp.concatenate(parts, axis=1)

  found = run()
  close(found[0], whole[0])
  close(found[1, :4], whole[1, :4])


@pytest.mark.parametrize("front", [0, 2])
def test_padding_of_a_source_changes_nothing(front):
  params = weights(FIRST)
  run = jax.jit(lambda source: FIRST.apply({"params": params}, source, TARGET[:1]).logits)
  alone = run(SOURCE[1:, :4])
  padded = np.pad(SOURCE[1:, :4], ((0, 0), (front, 3)), constant_values=-1)
  close(run(padded), alone)


def test_a_token_sees_none_after_it_and_all_of_the_source():
  params = weights(FIRST)

  run = jax.jit(lambda source, target: FIRST.apply({"params": params}, source, target).logits)
  whole = run(SOURCE[:1], TARGET[:1])
  later = TARGET[:1].copy()
  later[0, 3] = (later[0, 3] + 1) % V
  found = run(SOURCE[:1], later)
  np.testing.assert_array_equal(found[:, :3], whole[:, :3])
  assert (np.abs(found - whole)[:, 3:].max(-1) > 0).all()
  for place in range(SOURCE.shape[1]):
    other = SOURCE[:1].copy()
    other[0, place] = (other[0, place] + 1) % V
    moved = run(other, TARGET[:1])
    assert (np.abs(moved - whole).max(-1) > 0).all()


def test_one_model_reads_data_of_one_text_and_of_pairs():
  of_text = t5.Model(vocabulary=20, extra_ids=3, **SIZES)
  of_pairs = t5.Model(source_vocabulary=18, target_vocabulary=20, extra_ids=3, **SIZES)
  assert of_text.ids == of_pairs.ids == 23
  with pytest.raises(ValueError, match="vocabulary"):
    t5.Model(extra_ids=3, **SIZES)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_loss_and_gradient_are_finite_at_extreme_weights(scale):
  params = weights(FIRST)
  params = {**params, "embedding": scale * params["embedding"]}

  def nll(params):
    logits = FIRST.apply({"params": params}, SOURCE[:1], TARGET[:1, :-1]).logits
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), TARGET[:1, 1:, None], -1).mean()

  value, grads = jax.jit(jax.value_and_grad(nll))(params)
  assert np.isfinite(value)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


# ---------------------------------------------------------------------------------- span corruption


def restored(source, target, first):
  """The text of a source and a target: the sentinels' spans put back in their places."""
  marks, spans, current = range(first, first - 100, -1), {}, None
  for token in target:
    if token in marks:
      assert token == first - len(spans), "sentinels count down, each once"
      current = spans.setdefault(token, [])
    else:
      current.append(token)
  last = first - len(spans) + 1
  assert not spans.pop(last), "the last sentinel ends the target"
  found = []
  for token in source:
    found += spans.pop(token) if token in marks else [token]
  assert not spans, "every span has its place in the source"
  return found


def row(array):
  array = np.asarray(array)
  there = array[array >= 0]
  assert (array[: len(there)] >= 0).all(), "padding is behind"
  return there.tolist()


def test_the_papers_example():
  words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week", "."]
  tokens = np.array([10 + i for i in range(len(words))] + [-1, -1], np.int32)
  gone = np.isin(np.arange(13), [2, 3, 8])
  source, target = Task().apart(jnp.asarray(tokens), jnp.asarray(gone), (13, 10), 200)
  names = {199: "<X>", 198: "<Y>", 197: "<Z>", 0: "<start>", 1: "</s>"}

  def read(ids):
    return spelled(np.asarray(ids), names, lambda run: " ".join(words[i - 10] for i in run))

  assert read(source) == "Thank you <X> me to your party <Y> week . </s>"
  assert read(target) == "<start> <X> for inviting <Y> last <Z> </s>"


@settings(max_examples=40, deadline=None)
@given(
  length=st.integers(0, 40),
  seed=st.integers(0, 2**32 - 1),
  shape=st.sampled_from([(0.15, 3.0), (0.5, 1.0), (0.5, 10.0), (0.9, 2.0), (0.05, 3.0)]),
)
def test_sentinels_restore_the_text(length, seed, shape):
  tokens = np.full(40, -1, np.int32)
  tokens[:length] = 2 + np.random.default_rng(seed).integers(0, 50, length)
  found = _corrupted(shape)(tokens[None], jax.random.key(seed))
  source, target = (row(side[0]) for side in found)
  assert source.pop() == 1
  assert (target.pop(0), target.pop()) == (0, 1)
  assert restored(source, target, 199) == tokens[:length].tolist()
  amounts = Task(density=shape[0], mean_span=shape[1]).amounts(length)
  assert sum(token < 100 for token in target) == amounts.tokens
  assert sum(token >= 100 for token in source) == amounts.spans


@functools.cache
def _corrupted(shape):
  task = Task(density=shape[0], mean_span=shape[1])
  return jax.jit(lambda tokens, key: task.corrupted(tokens, key, 200))


@pytest.mark.parametrize(
  ("length", "tokens", "spans"), [(512, 77, 26), (568, 85, 28), (64, 10, 3), (2, 1, 1), (1, 0, 0)]
)
def test_how_much_is_left_out_is_the_released_codes(length, tokens, spans):
  assert tuple(map(int, Task().amounts(length))) == (tokens, spans)
  if length == 568:  # sources of 512, as the released code's helper finds
    assert length - tokens + spans + 1 == 512


def test_density_and_span_lengths_over_many_draws():
  """Every way of cutting is as likely: places are left out equally often but for the ends."""
  task, room, draws = Task(), 64, 4000
  key = jax.random.split(jax.random.key(0), draws)
  gone = np.asarray(jax.jit(jax.vmap(lambda k: task.spans(jnp.int32(room), k, room)))(key))
  assert (gone.sum(1) == 10).all()
  begins = gone & ~np.pad(gone, ((0, 0), (1, 0)))[:, :-1]
  assert (begins.sum(1) == 3).all()
  assert not gone[:, 0].any()
  assert gone[:, -1].all()
  # The first span of 3 that make 10 is of n tokens in C(9 - n, 1) of C(9, 2) ways.
  start = begins.argmax(1)
  first = np.array([np.argmin(one[at:]) for one, at in zip(gone, start, strict=True)])
  chances = (9 - np.arange(1, 9)) / 36
  counts = np.bincount(first, minlength=9)[1:]
  assert counts.sum() == draws
  z = (counts - draws * chances) / np.sqrt(draws * chances * (1 - chances))
  assert np.abs(z).max() < 4
  # Where the first span begins: after k of 54 tokens in 3 pieces.
  ways = math.comb(53, 2)
  mean = sum(k * (53 - k) for k in range(1, 53)) / ways
  assert abs(start.mean() - mean) < 4 * start.std() / math.sqrt(draws)


def test_spans_belong_to_the_example():
  task, key = Task(), jax.random.key(3)
  tokens = jnp.arange(2, 42, dtype=jnp.int32)[None].repeat(4, 0)
  corrupted = jax.jit(lambda tokens: task.corrupted(tokens, key, 200))
  whole = corrupted(tokens)
  assert len(np.unique(np.asarray(whole.source), axis=0)) > 1
  with batch_axis.scope(jnp.arange(2, 4)):
    part = corrupted(tokens[2:])
  np.testing.assert_array_equal(part.source, whole.source[2:])
  np.testing.assert_array_equal(part.target, whole.target[2:])


def test_padded_rows_do_not_count_and_all_of_a_target_does():
  model, task = t5.Model(100, extra_ids=20, **SIZES), Task(sentinel_tokens=20)
  tokens = np.random.default_rng(0).integers(2, 100, (3, 41)).astype(np.int32)
  tokens[1, 21:] = -1
  batch = {"tokens": jnp.asarray(tokens), "mask": jnp.ones(3)}
  params = created(model, *task.inputs(batch))
  measure = jax.jit(task.measure(model))
  both = measure(params, {}, {**batch, "mask": jnp.array([1.0, 1.0, 0.0])}, jax.random.key(0))
  # 40 tokens lose 6 in 2 spans, 20 lose 3 in 1; then 2 or 1 sentinels, one more and the end.
  assert float(both["loss"].count) == (6 + 2 + 2) + (3 + 1 + 2)
  one = measure(params, {}, {**batch, "mask": jnp.array([0.0, 1.0, 0.0])}, jax.random.key(0))
  other = measure(params, {}, {**batch, "mask": jnp.array([1.0, 0.0, 0.0])}, jax.random.key(0))
  total = float(one["loss"].total) + float(other["loss"].total)
  assert float(both["loss"].total) == pytest.approx(total, rel=1e-5)
  source, target = task.corrupted(
    batch["tokens"][:, 1:], jax.random.split(jax.random.key(0))[0], 120
  )
  logits = jax.jit(model.apply)({"params": params}, source, target[:, :-1]).logits
  log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
  told = np.asarray(target[:, 1:])
  wanted = -sum(log_p[1, place, token] for place, token in enumerate(told[1]) if token >= 0)
  assert float(one["loss"].total) == pytest.approx(wanted, rel=1e-5)


def test_sentinels_that_do_not_suffice_are_refused():
  with pytest.raises(ValueError, match="sentinel_tokens=3"):
    Task(sentinel_tokens=3).corrupted(jnp.zeros((1, 64), jnp.int32), jax.random.key(0), 200)
  model = t5.Model(30, **SIZES)
  with pytest.raises(ValueError, match="30 ids"):
    Task(sentinel_tokens=31).phases(model)
  with pytest.raises(ValueError, match="30 ids"):
    Task(sentinel_tokens=5, first_sentinel=30).phases(model)
  Task(sentinel_tokens=5, first_sentinel=29).phases(model)


def test_the_table_of_spans_shows_what_was_left_out():
  texts = (
    "in the beginning god created the heaven and the earth",
    "and the earth was without form",
  )
  tokenizer = tokenizers.train("words", texts)
  model = t5.Model(tokenizer.size, extra_ids=8, **SIZES)
  tokens = np.full((2, 12), -1, np.int32)
  for i, one in enumerate(tokenizer.encode_all(texts)):
    tokens[i, 1 : len(one.ids) + 1] = one.ids
  task = Task(density=0.3, sentinel_tokens=8)
  params = created(model, *task.inputs({"tokens": jnp.asarray(tokens)}))

  def call(*inputs, method, **options):
    run = lambda *inputs: method(model.bind({"params": params}), *inputs, **options)  # noqa: E731
    return np.asarray(jax.jit(run)(*inputs))

  call.model = model
  examples = Examples({"tokens": tokens}, (), {"tokens": tokenizer})
  table = task.views(call, examples, examples)["spans"]
  for text_, source, target, _ in table.rows:
    missing = dict(zip(*[iter(_pieces(target))] * 2, strict=False))
    assert text_ == " ".join(missing.get(word, word) for word in source.split())
    assert "<0>" in source


def _pieces(target):
  """A target's sentinels and spans in turn."""
  found = []
  for word in target.split():
    if word.startswith("<"):
      found += [word, ""]
    else:
      found[-1] = f"{found[-1]} {word}".strip()
  return found


# ------------------------------------------------------------------------------------ tasks as text


BIBLE = dict(dataset="kjv_genre", tokenizer="bpe", vocabulary=300)


@pytest.fixture(scope="module")
def kjv():
  try:
    bible.chapters()
  except FileNotFoundError as error:
    pytest.skip(str(error))


def test_genres_are_of_all_books_and_chapters_are_held_out(kjv):
  parts = text_to_text.genres(0.05, 0.05)
  count = collections.Counter()
  for part in parts.values():
    for verse, genre in part:
      assert verse.startswith("genre: ")
      count[genre] += 1
  assert count == {
    "law": 5852,
    "history": 7018,
    "wisdom": 4785,
    "prophets": 5490,
    "gospels": 4786,
    "epistles": 3171,
  }
  # What is tested on is no part of the text that a model learned before.
  learned = "".join(text.Source(dataset="kjv", vocabulary=300).texts("train"))
  held_out = [verse.removeprefix("genre: ") for verse, _ in parts["test"]]
  known = sum(f"\n{verse}\n" in learned for verse in held_out)
  assert known < 0.01 * len(held_out)  # the Bible repeats itself
  taught = [verse.removeprefix("genre: ") for verse, _ in parts["train"][:200]]
  assert all(verse in learned for verse in taught)


def test_pairs_are_what_they_say_and_few(kjv):
  source = text_to_text.Source(train_per_answer=3, test_examples=11, target_length=10, **BIBLE)
  assert len(source.split("train")) == 18
  assert len(source.split("test")) == len(source.split("validation")) == 11
  arrays, tokenizer = source.split("train").arrays, source.tokenizers()["source"]
  cut = 0
  for i, (asked, answer) in enumerate(source.texts("train")):
    assert tokenizer.decode(arrays["target"][i]) == answer
    found = tokenizer.decode(arrays["source"][i])
    assert asked.startswith(found)
    cut += asked != found
  assert f"train {cut}," in source.conditions()["pairs longer than a row"]
  assert {tokenizer.decode(row) for row in arrays["target"]} == {
    answer for _, answer in source.texts("train")
  }


def test_both_stages_keep_one_tokenizer(kjv, tmp_path):
  book = text.Source(dataset="kjv", tokenizer="bpe", vocabulary=300)
  task = text_to_text.Source(train_per_answer=3, test_examples=5, **BIBLE)
  assert book.assets() == task.assets()
  for name, content in task.assets().items():
    (tmp_path / name).write_text(content, encoding="utf-8")
  again = task.restored(tmp_path)
  assert again.fingerprint() == task.fingerprint()
  assert task.facts()["source_vocabulary"] == book.facts()["vocabulary"]


def test_files_of_tasks(tmp_path):
  lines = [f"sort: {i} {i + 1}\t{i + 1}" for i in range(60)] + [
    f"copy: {i}\t{i}" for i in range(60)
  ]
  (tmp_path / "tasks.tsv").write_text("\n".join(lines), encoding="utf-8")
  tokenizer = tokenizers.train("words", lines, special=("<pad>", "</s>", "<unk>"))
  (tmp_path / "words.json").write_text(tokenizer.to_json(), encoding="utf-8")
  source = text_to_text.Source(
    dataset="files", path=str(tmp_path / "tasks.tsv"), tokenizer=str(tmp_path / "words.json")
  )
  assert tokenizer.bos is None  # as T5's: a target begins with its padding
  parts = {name: source.texts(name) for name in ("train", "validation", "test")}
  assert sum(map(len, parts.values())) == len({line.split("\t")[0] for line in lines}) == 120
  assert all(parts.values())
  row_ = source.split("train").arrays["target"][0]
  assert row_[0] == 0
  assert row_[(row_ >= 0).sum() - 1] == 1
  with pytest.raises(ValueError, match="as a file"):
    text_to_text.Source(dataset="files", path="x.tsv")
  with pytest.raises(ValueError, match="path"):
    text_to_text.Source(dataset="kjv_genre", path="x.tsv", vocabulary=300)
