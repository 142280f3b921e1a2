"""Heads on encoders: sizes, parity, what is taken over, objectives, BERT's Adam."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import close, gradients, size, smoke, started
from test_transformer import created

from evaluation import glue as metrics
from evaluation import reading
from models.layers import batch_axis
from models.layers.sequence import Prediction
from models.transformer import bert, classifier, distilled, multiple_choice, token_classifier
from reproduction.relation import parse
from tasks import answer_span, choose, label_tokens, text_classify, text_regress
from tasks.objective import Examples
from training import initial, optim

HUGGING_FACE = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_hugging_face = pytest.mark.skipif(
  not HUGGING_FACE,
  reason="parity is against Hugging Face: `pip install -r requirements-oracles.txt`",
)

V, T, D, N, F, L, C = 19, 12, 16, 4, 24, 3, 3
SIZES = dict(layers=L, features=D, heads=N, mlp_features=F, dropout=0.0, attention_dropout=0.0)
SIZES |= dict(vocabulary=V, length=T, types=2, head_dropout=0.0)
BASE = dict(vocabulary=30_522, length=512, types=2)
HEADS = {
  "classifier": classifier.Model(classes=C, **SIZES),
  "token_classifier": token_classifier.Model(classes=C, **SIZES),
  "multiple_choice": multiple_choice.Model(**SIZES),
}


def rows(shape, seed=0):
  """Tokens and types; the last of an example is shorter."""
  generator = np.random.default_rng(seed)
  tokens = generator.integers(2, V, shape, np.int32)
  tokens[-1, ..., shape[-1] - 3 :] = -1
  types = (np.arange(shape[-1]) >= shape[-1] // 2).astype(np.int32)
  return tokens, np.broadcast_to(types, shape) * (tokens >= 0)


def inputs_of(name):
  tokens, types = rows((2, 4, 8) if name == "multiple_choice" else (3, 8))
  return tokens, None, types


# Sizes, from the published table.


@pytest.mark.parametrize(
  ("model", "shape", "count"),
  [
    # 109,482,240 of BERT-base with its pooler, and a head of 768 C + C.
    (classifier.Model(classes=2, **BASE), (1, 8), 109_482_240 + 1538),
    (classifier.Model(classes=1, **BASE), (1, 8), 109_482_240 + 769),
    (token_classifier.Model(classes=9, **BASE), (1, 8), 109_482_240 - 590_592 + 6921),
    (multiple_choice.Model(**BASE), (1, 4, 8), 109_482_240 + 768),
    (
      classifier.Model(
        classes=6, vocabulary=2000, length=128, types=2, layers=4, features=128, heads=4
      ),
      (1, 8),
      1_082_496 + 774,
    ),
  ],
)
def test_sizes_are_the_published_ones(model, shape, count):
  tokens = jnp.zeros(shape, jnp.int32)
  assert size(jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, tokens))) == count


# Parity with the same weights.


def linear(params, name):
  """Weights of a linear layer as PyTorch has them; kernels [in, heads, width] and so on."""
  kernel, bias = params["kernel"], params["bias"]
  wide = kernel.reshape(len(kernel), -1) if bias.ndim > 1 else kernel.reshape(-1, bias.size)
  return {f"{name}.weight": wide.T, f"{name}.bias": bias.reshape(-1)}


def norm(params, name):
  return {f"{name}.weight": params["scale"], f"{name}.bias": params["bias"]}


def encoder_weights(params):
  """The encoder's by Hugging Face's names."""
  start = "bert.embeddings"
  found = {
    f"{start}.word_embeddings.weight": params["embedding"],
    f"{start}.position_embeddings.weight": params["position_embedding"],
    f"{start}.token_type_embeddings.weight": params["type_embedding"],
    **norm(params["first_norm"], f"{start}.LayerNorm"),
  }
  for i in range(L):
    own = jax.tree.map(lambda x, i=i: np.asarray(x[i]), params["encoder_layers"])
    at = f"bert.encoder.layer.{i}"
    for side in ("query", "key", "value"):
      found |= linear(own["attention"][side], f"{at}.attention.self.{side}")
    found |= linear(own["attention"]["output"], f"{at}.attention.output.dense")
    found |= norm(own["attention_norm"], f"{at}.attention.output.LayerNorm")
    found |= linear(own["mlp"]["up"], f"{at}.intermediate.dense")
    found |= linear(own["mlp"]["down"], f"{at}.output.dense")
    found |= norm(own["mlp_norm"], f"{at}.output.LayerNorm")
  return found


def theirs(cls, params, head, **settings):
  """A model of Hugging Face in float64 with our parameters, all of them."""
  import torch
  import transformers

  config = transformers.BertConfig(
    vocab_size=V,
    max_position_embeddings=T,
    hidden_size=D,
    num_hidden_layers=L,
    num_attention_heads=N,
    intermediate_size=F,
    attn_implementation="eager",
    **settings,
  )
  model = getattr(transformers, cls)(config).double().eval()
  weights = encoder_weights(params) | linear(params["head"], head)
  if "pooler" in params:
    weights |= linear(params["pooler"], "bert.pooler.dense")
  weights = {k: torch.tensor(np.asarray(x, np.float64)) for k, x in weights.items()}
  missing, unexpected = model.load_state_dict(weights, strict=False)
  assert not unexpected
  assert not [name for name in missing if "position_ids" not in name]
  return model


def asked(tokens, types):
  import torch

  return dict(
    input_ids=torch.tensor(np.maximum(tokens, 0), dtype=torch.long),
    attention_mask=torch.tensor(tokens >= 0, dtype=torch.long),
    token_type_ids=torch.tensor(types, dtype=torch.long),
  )


def loss_of(task, model, params, batch):
  batch = {k: jnp.asarray(x) for k, x in batch.items()}
  batch["mask"] = jnp.ones(len(batch["tokens"]), jnp.float32)
  (phase,) = task.phases(model)
  _, loss, _, _ = gradients(phase, params, {}, batch)
  return loss


@needs_hugging_face
@pytest.mark.parametrize("classes", [C, 1])
def test_a_classifier_is_hugging_faces(classes):
  import torch

  tokens, types = rows((3, 8))
  model = classifier.Model(classes=classes, **SIZES)
  params = created(model, tokens)
  other = theirs("BertForSequenceClassification", params, "classifier", num_labels=classes)
  label = np.array([2, 0, 1], np.int32) if classes > 1 else np.array([0.5, 2, 4], np.float32)
  with torch.no_grad():
    kind = torch.long if classes > 1 else torch.float64
    out = other(**asked(tokens, types), labels=torch.tensor(label, dtype=kind))
  close(model.apply({"params": params}, tokens, None, types).logits, out.logits.numpy())
  task = text_classify.Task() if classes > 1 else text_regress.Task()
  batch = dict(tokens=tokens, types=types, label=label)
  close(loss_of(task, model, params, batch), out.loss.numpy())


@needs_hugging_face
def test_a_token_classifier_is_hugging_faces():
  import torch

  tokens, types = rows((3, 8))
  model = HEADS["token_classifier"]
  params = created(model, tokens)
  other = theirs("BertForTokenClassification", params, "classifier", num_labels=C)
  label = np.random.default_rng(1).integers(-1, C, tokens.shape).astype(np.int32)
  label[tokens < 0] = -1
  with torch.no_grad():
    wanted = torch.tensor(np.where(label < 0, -100, label), dtype=torch.long)
    out = other(**asked(tokens, types), labels=wanted)
  logits = model.apply({"params": params}, tokens, None, types).logits
  close(np.asarray(logits)[tokens >= 0], out.logits.numpy()[tokens >= 0])
  with torch.no_grad():
    out = other(**asked(tokens, np.zeros_like(types)), labels=wanted)
  batch = dict(tokens=tokens, labels=label)
  close(loss_of(label_tokens.Task(), model, params, batch), out.loss.numpy())


@needs_hugging_face
def test_a_reader_is_hugging_faces():
  import torch

  tokens, types = rows((3, 8))
  tokens[-1] = tokens[0]  # theirs has padding take part in the softmax
  types = np.broadcast_to(types[0], types.shape).copy()
  model = token_classifier.Model(classes=2, **SIZES)
  params = created(model, tokens)
  other = theirs("BertForQuestionAnswering", params, "qa_outputs")
  start, end = np.array([0, 3, 5], np.int32), np.array([0, 4, 5], np.int32)
  with torch.no_grad():
    places = (torch.tensor(x, dtype=torch.long) for x in (start, end))
    out = other(
      **asked(tokens, types),
      **dict(zip(("start_positions", "end_positions"), places, strict=False)),
    )
  logits = model.apply({"params": params}, tokens, None, types).logits
  close(logits, torch.stack([out.start_logits, out.end_logits], -1).numpy())
  batch = dict(tokens=tokens, types=types, start=start, end=end)
  close(loss_of(answer_span.Task(), model, params, batch), out.loss.numpy())


@needs_hugging_face
def test_multiple_choice_is_hugging_faces():
  import torch

  tokens, types = rows((2, 4, 8))
  model = HEADS["multiple_choice"]
  params = created(model, tokens)
  # Their head has a bias, which the softmax cannot see.
  biased = {**params, "head": {**params["head"], "bias": np.zeros(1)}}
  other = theirs("BertForMultipleChoice", biased, "classifier")
  label = np.array([1, 3], np.int32)
  with torch.no_grad():
    out = other(**asked(tokens, types), labels=torch.tensor(label, dtype=torch.long))
  close(model.apply({"params": params}, tokens, None, types).logits, out.logits.numpy())
  batch = dict(tokens=tokens, types=types, label=label)
  close(loss_of(choose.Task(), model, params, batch), out.loss.numpy())


# Properties.


@pytest.mark.parametrize("name", HEADS)
def test_padding_behind_a_text_changes_nothing(name):
  tokens, _, types = inputs_of(name)
  params = created(HEADS[name], tokens)
  wide = [(0, 0)] * (tokens.ndim - 1) + [(0, 3)]
  more = np.pad(tokens, wide, constant_values=-1), None, np.pad(types, wide, constant_values=1)
  run = lambda *inputs: np.asarray(HEADS[name].apply({"params": params}, *inputs).logits)  # noqa: E731
  found, wanted = run(*more), run(tokens, None, types)
  if name == "token_classifier":
    found = found[:, : tokens.shape[1]][tokens >= 0]
    wanted = wanted[tokens >= 0]
  np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_choices_do_not_see_one_another():
  tokens, _, types = inputs_of("multiple_choice")
  model = HEADS["multiple_choice"]
  params = created(model, tokens)
  order = [2, 0, 3, 1]
  whole, turned = (
    np.asarray(model.apply({"params": params}, a, None, b).logits)
    for a, b in ((tokens, types), (tokens[:, order], types[:, order]))
  )
  np.testing.assert_allclose(turned, whole[:, order], atol=1e-6)


def test_dropout_of_choices_belongs_to_the_example():
  tokens, _, types = rows((4, 3, 8))[0], None, rows((4, 3, 8))[1]
  tokens = np.abs(tokens)
  model = multiple_choice.Model(**SIZES | dict(dropout=0.3, head_dropout=0.3))
  params = created(model, tokens)

  def run(part):
    rngs = {"dropout": jax.random.key(3)}
    inputs = tokens[part], None, types[part]
    return np.asarray(model.apply({"params": params}, *inputs, train=True, rngs=rngs).logits)

  whole = run(slice(None))
  with batch_axis.scope(jnp.arange(2, 4)):
    np.testing.assert_allclose(run(slice(2, 4)), whole[2:], atol=1e-6)
  same = np.asarray(tokens[:1]).repeat(2, 0)
  rngs = {"dropout": jax.random.key(3)}
  found = model.apply({"params": params}, same, None, types[:2] * 0, train=True, rngs=rngs).logits
  assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_losses_are_finite_at_extreme_weights(name, scale):
  tokens, _, types = inputs_of(name)
  params = created(HEADS[name], tokens)
  params = {**params, "embedding": scale * params["embedding"]}
  params["head"] = jax.tree.map(lambda x: scale * x, params["head"])
  label = np.zeros(len(tokens), np.int32)
  batch = dict(tokens=tokens, types=types, label=label, labels=np.where(tokens < 0, -1, 1))
  task = {"classifier": text_classify, "token_classifier": label_tokens, "multiple_choice": choose}
  batch = {k: jnp.asarray(x) for k, x in batch.items()} | {"mask": jnp.ones(len(tokens))}
  (phase,) = task[name].Task().phases(HEADS[name])
  grads, loss, _, _ = gradients(phase, params, {}, batch)
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_distilberts_pooler_is_a_relu():
  tokens, types = rows((3, 8))
  model = classifier.Model(classes=C, pooler_activation="relu", **SIZES)
  params = created(model, tokens)
  pooled = np.asarray(model.apply({"params": params}, tokens, None, types).pooled)
  assert (pooled >= 0).all()
  assert pooled.max() > 0
  tanh = HEADS["classifier"].apply({"params": params}, tokens, None, types).pooled
  np.testing.assert_allclose(np.tanh(pooled)[pooled > 0], np.asarray(tanh)[pooled > 0], rtol=1e-5)


# What is taken over.


def pretrained(**changes):
  settings = {k: v for k, v in SIZES.items() if k != "head_dropout"} | changes
  return created(bert.Model(**settings), np.zeros((1, 8), np.int32), seed=7)


def taken(fresh, before):
  """By path, whether a parameter of `before` is where it was."""
  return {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree.leaves_with_path(
      jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), fresh, before)
    )
  }


@pytest.mark.parametrize("name", HEADS)
def test_a_head_takes_the_encoder_over(name):
  model, before = HEADS[name], pretrained()
  fresh = created(model, inputs_of(name)[0])
  found = model.adopt(fresh, before)
  same = {k for k in found if k != "head"}
  assert all(taken({k: found[k] for k in same}, {k: before[k] for k in same}).values())
  assert all(taken(found["head"], fresh["head"]).values())
  # And again from a fine-tuned model of the same head.
  assert all(taken(model.adopt(fresh, found), found).values())


def test_top_layers_start_anew():
  model = classifier.Model(classes=C, reinitialised=2, **SIZES)
  before = pretrained()
  fresh = created(model, np.zeros((1, 8), np.int32))
  found = model.adopt(fresh, before)
  old = jax.tree.map(
    lambda a, b: np.asarray(a) == np.asarray(b), found["encoder_layers"], before["encoder_layers"]
  )
  new = jax.tree.map(
    lambda a, b: np.asarray(a) == np.asarray(b), found["encoder_layers"], fresh["encoder_layers"]
  )
  assert all(leaf[0].all() and not leaf[1:].any() for leaf in jax.tree.leaves(old))
  assert all(leaf[1:].all() and not leaf[0].any() for leaf in jax.tree.leaves(new))
  assert all(taken(found["pooler"], fresh["pooler"]).values())
  assert (found["embedding"] == before["embedding"]).all()
  for bad in (dict(reinitialised=4), dict(reinitialised=1, shared="all")):
    with pytest.raises(ValueError, match="reinitialised"):
      classifier.Model(classes=C, **SIZES | bad)


@pytest.mark.parametrize("length", [8, 20])
def test_as_many_positions_as_there_are_are_taken_over(length):
  model = classifier.Model(classes=C, **SIZES | dict(length=length))
  fresh, before = created(model, np.zeros((1, 8), np.int32)), pretrained()
  found = np.asarray(model.adopt(fresh, before)["position_embedding"])
  kept = min(length, T)
  np.testing.assert_array_equal(found[:kept], before["position_embedding"][:kept])
  np.testing.assert_array_equal(found[kept:], fresh["position_embedding"][kept:])


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    (dict(vocabulary=V + 1), r"embedding is \(19, 16\), but of the stage before \(20, 16\)"),
    (dict(layers=2), r"encoder_layers.* is \(3, .*\(2, "),
    (dict(types=0), "no type_embedding"),
    (dict(mlp_features=8), "encoder_layers.*mlp"),
  ],
)
def test_another_encoder_is_refused(changes, named):
  fresh = created(HEADS["classifier"], np.zeros((1, 8), np.int32))
  with pytest.raises(ValueError, match=named):
    HEADS["classifier"].adopt(fresh, pretrained(**changes))


def test_a_student_is_fine_tuned():
  settings = {k: v for k, v in SIZES.items() if k not in ("head_dropout", "types")}
  before = created(distilled.Model(**settings, teacher_types=2), np.zeros((1, 8), np.int32))
  model = classifier.Model(classes=C, **SIZES | dict(types=0), pooler_activation="relu")
  fresh = created(model, np.zeros((1, 8), np.int32))
  found = model.adopt(fresh, before)
  assert (found["embedding"] == before["student"]["embedding"]).all()
  assert all(taken(found["pooler"], fresh["pooler"]).values())


@pytest.mark.parametrize("path", ["tokens_kjv", "answers_kjv", "choices_kjv", "similarity_kjv"])
def test_a_stage_starts_as_the_one_before_ended(path):
  first, second = smoke(f"experiments/bert/{path}").stages
  before, mutable = started(first, seed=3)
  with jax.numpy_dtype_promotion("standard"):
    state = jax.jit(initial.initial_state(second))(
      jax.random.key(0), initial.Before(before, mutable)
    )
  shared = set(state.params) & set(before)
  assert {"embedding", "encoder_layers", "first_norm", "type_embedding"} <= shared
  for name in shared - {"position_embedding"}:
    assert all(taken(state.params[name], before[name]).values()), name


# Objectives.


def test_figures_of_two_classes_are_the_sets():
  generator = np.random.default_rng(0)
  logits, label = generator.normal(size=(50, 2)).astype(np.float32), generator.integers(0, 2, 50)
  sums = None
  for part in (slice(0, 20), slice(20, 50), slice(0, 7)):
    mask = jnp.ones(len(label[part])) if part != slice(0, 7) else jnp.zeros(7)
    batch = dict(label=jnp.asarray(label[part], jnp.int32), mask=mask)
    one = text_classify._measured(jnp.asarray(logits[part]), batch)
    sums = one if sums is None else {k: sums[k] + one[k] for k in one}
  means = {k: float(m.total / m.count) for k, m in sums.items()}
  guess = logits.argmax(-1)
  found = text_classify.Task().derive(means)
  assert found["f1"] == pytest.approx(metrics.f1(guess, label), abs=1e-6)
  assert found["matthews"] == pytest.approx(metrics.matthews(guess, label), abs=1e-6)
  assert means["accuracy"] == pytest.approx(metrics.accuracy(guess, label))
  assert text_classify.Task().derive({"accuracy": 1.0}) == {}


def test_parts_of_mnli_are_measured_apart():
  logits = jnp.eye(3)[jnp.array([0, 1, 2, 0])]
  batch = dict(label=jnp.array([0, 1, 0, 1]), mismatched=jnp.array([0, 0, 0, 1]), mask=jnp.ones(4))
  found = text_classify._measured(logits, batch)
  assert found["accuracy_matched"] == (2, 3)
  assert found["accuracy_mismatched"] == (0, 1)
  assert "found_positive" not in found


def test_figures_of_tokens_are_of_those_with_labels():
  label = jnp.array([[1, 0, -1, 2], [0, 1, -1, -1]])
  guess = jnp.array([[1, 1, 2, 0], [0, 1, 1, 0]])
  batch = dict(labels=label, mask=jnp.array([1.0, 1.0]))
  found = label_tokens._measured(jax.nn.one_hot(guess, 3) * 5, batch)
  assert found["accuracy"] == (3 + 1 - 1, 5)
  assert found["precision"] == (2, 3)
  assert found["recall"] == (2, 3)
  assert label_tokens.Task().derive(dict(precision=0.5, recall=1.0))["f1"] == pytest.approx(2 / 3)
  assert label_tokens.Task().derive(dict(precision=0.0, recall=0.0))["f1"] == 0


def test_padding_is_no_answer():
  logits = jnp.zeros((1, 4, 2)).at[0, 3].set(50.0)
  batch = dict(tokens=jnp.array([[5, 6, 7, -1]]), start=jnp.array([1]), end=jnp.array([2]))
  found = answer_span._measured(logits, {**batch, "mask": jnp.ones(1)})
  assert float(found["loss"].total) == pytest.approx(math.log(3), rel=1e-6)
  grads = jax.grad(lambda x: answer_span._measured(x, {**batch, "mask": jnp.ones(1)})["loss"].total)
  assert np.isfinite(grads(logits)).all()
  assert not grads(logits)[0, 3].any()


def test_a_reader_answers_over_its_rows():
  passage = "ab cd ef"
  offsets = np.array([[[-1, -1], [0, 2], [3, 5]], [[-1, -1], [3, 5], [6, 8]]], np.int32)
  logits = np.zeros((2, 3, 2), np.float32)
  logits[0, 1] = 1.0
  logits[1, 1, 0] = logits[1, 2, 1] = 2.0
  logits[:, 0] = 1.5
  tokens = np.array([[1, 5, 6], [1, 6, 7]], np.int32)
  examples = Examples(
    dict(tokens=tokens, types=np.zeros_like(tokens)),
    originals=dict(
      passage=[passage, passage],
      answers=[("cd ef", "ef"), ()],
      question=np.array([0, 0]),
      offsets=offsets,
    ),
  )
  call = lambda tokens, segments, types, **_: Prediction(logits[: len(tokens)], logits)  # noqa: E731
  found = answer_span.Task().score(call, examples, examples)
  assert found == {
    "exact_match": 1.0,  # of the second there is no row, so nothing is answered
    "f1": 1.0,
    "exact_match_answerable": 1.0,
    "f1_answerable": 1.0,
    "exact_match_unanswerable": 1.0,
  }
  silent = answer_span.Task(unanswerable=True, threshold=-2.0).score(call, examples, examples)
  assert silent["exact_match_answerable"] == 0.0
  assert reading.exact_match("cd ef", ("cd ef",)) == 1


def test_a_regression_is_scored_by_correlations():
  label = np.array([0.0, 1.0, 2.0, 4.0], np.float32)
  tokens = np.ones((4, 3), np.int32)
  examples = Examples(dict(tokens=tokens, types=tokens, label=label))
  told = classifier.Classification(np.exp(label)[:, None], tokens)
  found = text_regress.Task().score(lambda *_, **__: told, examples, examples)
  assert found["spearman"] == pytest.approx(1)
  assert found["pearson"] == pytest.approx(np.corrcoef(np.exp(label), label)[0, 1])
  assert found["mean_loss"] == pytest.approx(label.var())
  with pytest.raises(ValueError, match="classes=3"):
    text_regress.Task().phases(HEADS["classifier"])
  with pytest.raises(ValueError, match="classes=3"):
    answer_span.Task().phases(HEADS["token_classifier"])


# BERT's Adam.

# (1 - 0.9^t) / sqrt(1 - 0.999^t): how much larger update t is without bias correction.
MULTIPLIERS = {1: 3.162, 2: 4.250, 5: 5.797, 10: 6.528, 12: 6.569, 20: 6.241, 50: 4.504}
MULTIPLIERS |= {100: 3.241, 500: 1.594, 1000: 1.258, 5000: 1.003}


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_updates_without_bias_correction_are_larger_by_the_published_factor(name):
  both = [
    optim.NAMES[name](learning_rate=1.0, epsilon=1e-12, bias_correction=corrected).scale()
    for corrected in (False, True)
  ]
  generator = np.random.default_rng(0)
  # Of one sign, so that no mean of gradients is near zero.
  grads = jnp.asarray(generator.uniform(1, 2, (5000, 3)), jnp.float32)

  def body(states, grad):
    pairs = [adam.update(grad, state) for adam, state in zip(both, states, strict=True)]
    return [state for _, state in pairs], pairs[0][0] / pairs[1][0]

  with jax.numpy_dtype_promotion("standard"):
    _, ratio = jax.jit(lambda g: jax.lax.scan(body, [a.init(g[0]) for a in both], g))(grads)
  for t, expected in MULTIPLIERS.items():
    np.testing.assert_allclose(ratio[t - 1], expected, atol=6e-4)
    exact = (1 - 0.9**t) / math.sqrt(1 - 0.999**t)
    np.testing.assert_allclose(ratio[t - 1], exact, rtol=2e-4)
  assert int(np.argmax(ratio[:, 0])) + 1 == 12


def test_bias_correction_is_on_by_default():
  assert optim.Adam().bias_correction
  assert optim.AdamW().bias_correction


def test_a_relation_may_compare_deviations():
  (found,) = parse("deviation(accuracy) < deviation(rival.accuracy)")
  values = {"accuracy": np.array([1.0, 2, 4, 8]), "rival.accuracy": np.array([0.0, 10, 20, 90])}
  np.testing.assert_array_equal(found.difference(values), [13, 4, 4, 70])
  assert found.names == ("accuracy", "rival.accuracy")
