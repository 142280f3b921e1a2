"""BERT's family: sizes, shared layers, pre-training on pairs, distillation, sentence vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import close

from data import sentence_pairs
from models.transformer import bert, distilled, encoder, published, sentence_encoder
from tasks import distill, masked_language_model, pretrain_bert, siamese
from tasks.objective import Mean, weighted
from tasks.similarity import cosine

V, T = 23, 12
SIZES = dict(layers=4, features=16, heads=2, dropout=0.0, attention_dropout=0.0)


def tokens(shape=(3, 7), seed=0):
  return np.random.default_rng(seed).integers(0, V, shape, np.int32)


def created(model, *inputs, seed=0):
  return jax.jit(lambda: model.init({"params": jax.random.key(seed)}, *inputs))()["params"]


def moved(params, seed=1):
  """Parameters away from where they began: no bias is zero, no scale one."""
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  noise = [0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
  return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Sizes


def pooled_size(**settings):
  """Parameters of an encoder with its pooler, as the papers count, heads aside."""
  model, row = bert.Model(**settings), jnp.zeros((1, 2), jnp.int32)
  params = jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, row))["params"]
  heads = ("projection", "final_norm", "output_bias", "relation")
  return count({name: tree for name, tree in params.items() if name not in heads})


@pytest.mark.parametrize(
  ("name", "parameters"),
  [
    ("bert-base", 109_482_240),
    ("bert-large", 335_141_888),
    ("roberta-base", 124_645_632),
    ("roberta-large", 355_359_744),
    ("albert-base", 11_683_584),
    ("albert-large", 17_683_968),
    ("albert-xlarge", 58_724_864),
    ("albert-xxlarge", 222_595_584),
    ("minilm-l6", 22_713_216),
  ],
)
def test_published_sizes(name, parameters):
  assert pooled_size(**published.ENCODER[name]) == parameters


def test_distilbert_is_bert_with_half_the_layers():
  sizes = published.ENCODER["distilbert"]
  pooler = sizes["features"] * (sizes["features"] + 1)
  found = pooled_size(**sizes) - pooler
  assert found == 66_362_880
  assert found / pooled_size(**published.ENCODER["bert-base"]) == pytest.approx(0.606, abs=5e-4)


@pytest.mark.parametrize(
  ("width", "shared", "parameters"),
  [  # Lan et al. 2020, tables 3 and 4
    (64, "all", 9_681_408),
    (64, "none", 87_648_000),
    (128, "all", 11_683_584),
    (128, "attention", 63_647_232),
    (128, "mlp", 37_686_528),
    (128, "none", 89_650_176),
    (256, "all", 15_687_936),
    (0, "all", 31_114_752),
    (0, "attention", 83_078_400),
    (0, "mlp", 57_117_696),
    (0, "none", 109_081_344),
  ],
)
def test_alberts_tables_of_sizes(width, shared, parameters):
  settings = published.ENCODER["albert-base"] | dict(embedding_features=width, shared=shared)
  assert pooled_size(**settings) == parameters


# Shared layers


@pytest.mark.parametrize("unroll", [1, 4])
@pytest.mark.parametrize("shared", ["attention", "mlp", "all"])
def test_shared_layers_are_layers_with_equal_parameters(shared, unroll):
  one = encoder.Model(V, T, shared=shared, unroll=unroll, **SIZES)
  params = moved(created(one, tokens()))
  stack = params["encoder_layers"]
  assert {leaf.shape[0] for leaf in jax.tree.leaves(stack["attention"])} == (
    {1} if shared != "mlp" else {4}
  )
  laid_out = jax.tree.map(lambda x: jnp.repeat(x, 4 // x.shape[0], axis=0), stack)
  apart = encoder.Model(V, T, **SIZES)
  wanted = apart.apply({"params": {**params, "encoder_layers": laid_out}}, tokens()).logits
  close(one.apply({"params": params}, tokens()).logits, wanted)


def test_rows_before_the_first_position_are_not_looked_at():
  model = encoder.Model(V, T, position_offset=2, **SIZES)
  params = moved(created(model, tokens()))
  table = params["position_embedding"]
  assert table.shape == (2 + T, 16)
  wanted = encoder.Model(V, T, **SIZES).apply(
    {"params": {**params, "position_embedding": table[2:]}}, tokens()
  )
  jax.tree.map(np.testing.assert_array_equal, model.apply({"params": params}, tokens()), wanted)


# Pre-training on pairs


@pytest.mark.parametrize("sizes", [(3, 4), (1, 6), (6, 1), (6, 6)])
def test_a_row_is_both_stretches_between_marks(sizes):
  first, second = (np.arange(n) + 10 * (i + 1) for i, n in enumerate(sizes))
  pad = lambda ids: np.pad([*ids, 1], (0, 6 - len(ids)), constant_values=-1)  # noqa: E731
  found = sentence_pairs.joined(jnp.int32(0), pad(first), pad(second), 16)
  wanted = [0, *first, 1, *second, 1]
  padding = 16 - len(wanted)
  np.testing.assert_array_equal(found["tokens"], wanted + [-1] * padding)
  kinds = [0] * (len(first) + 2) + [1] * (len(second) + 1) + [0] * padding
  np.testing.assert_array_equal(found["types"], kinds)
  np.testing.assert_array_equal(found["special"], np.isin(found["tokens"], (0, 1)))


def test_stretches_are_whole_sentences_and_lose_nothing():
  sentences = [np.arange(n) + 100 * i for i, n in enumerate((3, 4, 9, 21, 2))]
  found, longer = sentence_pairs.stretches(sentences, 8)
  np.testing.assert_array_equal(np.concatenate(found), np.concatenate(sentences))
  assert [len(one) for one in found] == [7, 8, 1, 8, 8, 7]
  assert longer == 2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  path = tmp_path_factory.mktemp("text") / "text.txt"
  paragraphs = [
    [f"{w} {w} walks {i} miles ." for i in range(9)] for w in "abcdefghijklmnopqrstuvwxyz"
  ]
  path.write_text("\n\n".join("\n".join(lines) for lines in paragraphs))
  return path


def pairs(files, relation, **options):
  settings = dict(tokenizer="words", length=19, validation=0.1, test=0.1)
  return sentence_pairs.Source(
    dataset="files", path=str(files), relation=relation, **(settings | options)
  )


@pytest.mark.parametrize("relation", ["next", "order"])
def test_half_of_the_pairs_are_as_they_were_written(files, relation):
  source = pairs(files, relation)
  split, tokenizer = source.split("train"), source.tokenizers()["tokens"]
  rows = np.arange(len(split)).repeat(30)
  keys = jax.random.split(jax.random.key(0), len(rows))
  found = source.transform(split.take(rows), keys, train=True)
  apart = np.asarray(found["relation"])
  assert 0.45 < apart.mean() < 0.55
  for tokens_T, relation_of in zip(found["tokens"], apart, strict=True):
    ids = [int(i) for i in tokens_T if i >= 0]
    middle = ids.index(tokenizer.eos)
    one, other = tokenizer.decode(ids[:middle]).split(), tokenizer.decode(ids[middle:]).split()
    same_document, later = one[0] == other[0], int(other[3]) > int(one[3])
    if relation == "order":
      assert same_document
      assert later == (not relation_of)
    else:
      assert same_document == (not relation_of)


def test_pairs_are_the_same_wherever_they_are_read(files):
  assert pairs(files, "next").fingerprint() == pairs(files, "next").fingerprint()
  assert pairs(files, "next").fingerprint() != pairs(files, "order").fingerprint()


def test_one_document_has_no_foreign_stretch(tmp_path):
  (tmp_path / "one.txt").write_text("a b c\nd e f\ng h i\n")
  alone = dict(length=9, validation=0.0, test=0.0)
  with pytest.raises(ValueError, match="one document"):
    pairs(tmp_path / "one.txt", "next", **alone).split("train")
  assert len(pairs(tmp_path / "one.txt", "order", **alone).split("train")) == 2


def batch_of_pairs(examples=6):
  rng = np.random.default_rng(0)
  row = rng.integers(3, V, (examples, T), np.int32)
  row[:, [0, 5, 9]], row[:, 10:] = (0, 1, 1), -1
  return {
    "tokens": jnp.asarray(row),
    "types": jnp.asarray(np.tile((np.arange(T) > 5).astype(np.int32), (examples, 1))),
    "special": jnp.asarray(
      np.tile(np.isin(np.arange(T), (0, 5, 9)).astype(np.int32), (examples, 1))
    ),
    "relation": jnp.asarray(rng.integers(0, 2, examples), jnp.int32),
    "mask": jnp.ones(examples),
  }


def test_the_loss_is_the_sum_of_two_means_and_marks_stay():
  task, model, batch = pretrain_bert.Task(rate=0.4), bert.Model(V, T, types=2, **SIZES), None
  batch = batch_of_pairs()
  params = moved(created(model, *task.inputs(batch)))
  found = task.measure(model)(params, {}, batch, jax.random.key(0))
  mean = {name: float(m.total / m.count) for name, m in found.items()}
  assert mean["loss"] == pytest.approx(mean["nll"] + mean["relation_nll"], rel=1e-5)
  hidden = task.hide(batch["tokens"], jax.random.key(1), V, task.text(batch))
  assert hidden.chosen.any()
  assert not (hidden.chosen & (batch["special"] == 1)).any()
  np.testing.assert_array_equal(hidden.tokens[:, [0, 5, 9]], batch["tokens"][:, [0, 5, 9]])


def test_runs_of_neighbours_are_hidden_together():
  """Lan et al. 2020, equation 3: p(n) = (1 / n) / (1 + 1/2 + 1/3)."""
  task = masked_language_model.Task(rate=0.06, ngrams=3)
  row = jnp.ones((400, 200), jnp.int32)
  chosen = np.asarray(task.hide(row, jax.random.key(0), V).chosen)
  assert 0.054 < chosen.mean() <= 0.061
  edges = np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(int), axis=1)
  starts, ends = (np.argwhere(edges == side)[:, 1] for side in (1, -1))
  counts = np.bincount(ends - starts, minlength=4)[1:4]
  # Runs seldom meet at this rate; those that do make long ones.
  np.testing.assert_allclose(counts / counts.sum(), np.array([6, 3, 2]) / 11, atol=0.05)
  alone = masked_language_model.Task(rate=0.06).hide(row, jax.random.key(0), V).chosen
  assert 0.058 < alone.mean() < 0.062


def test_unlike_means_add_up_over_unequal_parts():
  parts = [
    (Mean(*map(jnp.float32, x)), Mean(*map(jnp.float32, y)))
    for x, y in (((6, 3), (2, 2)), ((1, 1), (9, 6)))
  ]
  whole = [sum(p[i].total for p in parts) / sum(p[i].count for p in parts) for i in (0, 1)]
  joined = tuple(
    Mean(*(a + b for a, b in zip(*pair, strict=True))) for pair in zip(*parts, strict=True)
  )
  found = weighted([(2.0, joined[0]), (3.0, joined[1])], jnp.ones(8))
  assert float(found.total / found.count) == pytest.approx(2 * whole[0] + 3 * whole[1])


# Distillation


def pupil(**changes):
  return distilled.Model(V, T, **(SIZES | dict(layers=2) | changes))


def test_a_student_begins_as_every_other_layer_of_its_teacher():
  teacher = moved(created(encoder.Model(V, T, **SIZES), tokens()))
  model = pupil()
  found = model.adopt(created(model, tokens()), teacher)
  jax.tree.map(np.testing.assert_array_equal, found["teacher"], teacher)
  jax.tree.map(
    lambda own, theirs: np.testing.assert_array_equal(own, theirs[::2]),
    found["student"]["encoder_layers"],
    teacher["encoder_layers"],
  )
  np.testing.assert_array_equal(found["student"]["embedding"], teacher["embedding"])


def test_a_student_that_begins_at_random_has_its_teacher_all_the_same():
  teacher = moved(created(encoder.Model(V, T, **SIZES), tokens()))
  model = pupil(start="random")
  fresh = created(model, tokens())
  found = model.adopt(fresh, teacher)
  jax.tree.map(np.testing.assert_array_equal, found["teacher"], teacher)
  jax.tree.map(np.testing.assert_array_equal, found["student"], fresh["student"])


def test_a_teacher_of_another_size_is_refused():
  teacher = created(encoder.Model(V, T, **(SIZES | dict(layers=3))), tokens())
  with pytest.raises(ValueError, match="differ"):
    pupil().adopt(created(pupil(), tokens()), teacher)
  with pytest.raises(ValueError, match="no multiple"):
    pupil(teacher_layers=3)


def test_the_three_losses_are_pytorchs():
  torch = pytest.importorskip("torch", reason="PyTorch is not installed")
  F = torch.nn.functional
  task, model = distill.Task(rate=0.5, temperature=3.0, soft_weight=5.0, hard_weight=2.0), pupil()
  params = moved(created(model, tokens()))
  text = np.pad(tokens((4, 8)), ((0, 0), (1, 0)))  # the first token is nobody's input
  text[1, 6:] = -1
  batch = {"tokens": jnp.asarray(text), "mask": jnp.ones(4)}
  rng = jax.random.key(3)
  found = task.measure(model)(params, {}, batch, rng)
  hidden = task.hide(batch["tokens"][:, 1:], jax.random.split(rng)[0], V)
  lesson = model.apply({"params": params}, hidden.tokens, method="lesson")
  own, theirs = (torch.tensor(np.float64(x.logits)) for x in lesson[:2])
  there = torch.tensor(text[:, 1:] >= 0)
  soft = F.kl_div(
    F.log_softmax(own[there] / 3, -1), F.softmax(theirs[there] / 3, -1), reduction="batchmean"
  )
  target = torch.tensor(np.where(hidden.chosen, text[:, 1:], -100), dtype=torch.long)
  hard = F.cross_entropy(own.flatten(0, 1), target.flatten(), ignore_index=-100)
  features = [torch.tensor(np.float64(x))[there] for x in lesson[2:]]
  apart = F.cosine_embedding_loss(*features, torch.ones(len(features[0])))
  wanted = 5 * 9 * soft + 2 * hard + apart
  assert float(found["loss"].total / found["loss"].count) == pytest.approx(float(wanted), rel=1e-5)


def test_nothing_of_the_teacher_is_trained():
  task, model = distill.Task(), pupil()
  (phase,) = task.phases(model)
  assert phase.trains == ("student",)
  params = moved(created(model, tokens()))
  batch = {"tokens": jnp.asarray(tokens((4, 8))), "mask": jnp.ones(4)}
  grads = jax.grad(lambda p: phase.loss(p, {}, batch, jax.random.key(0))[0].total)(params)
  assert not any(np.any(g) for g in jax.tree.leaves(grads["teacher"]))
  flat = jax.tree_util.tree_leaves_with_path(grads["student"])
  # A bias of all keys shifts every logit of a query alike, which softmax does not see.
  idle = [jax.tree_util.keystr(path) for path, g in flat if not np.abs(g).max() > 1e-6]
  assert all("['key']['bias']" in name for name in idle)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_losses_stay_finite(scale):
  x = scale * jax.random.normal(jax.random.key(0), (2, 3, V))
  y = scale * jax.random.normal(jax.random.key(1), (2, 3, V))
  for f in (lambda x: distill.divergence(x, y, 2.0).sum(), lambda x: cosine(x, y).sum()):
    value, grad = jax.value_and_grad(f)(x)
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
  assert cosine(jnp.zeros(3), jnp.ones(3)) == 0


# Sentence vectors


def sentences(**options):
  return sentence_encoder.Model(V, T, types=2, **SIZES, **options)


@pytest.mark.parametrize("pooling", ["mean", "first", "max"])
@pytest.mark.parametrize("normalised", [False, True])
def test_vectors_do_not_depend_on_padding(pooling, normalised):
  model = sentences(pooling=pooling, normalised=normalised)
  params = moved(created(model, tokens()))
  run = lambda row: model.apply({"params": params}, row).vectors  # noqa: E731
  wanted = run(tokens())
  close(run(np.pad(tokens(), ((0, 0), (0, 4)), constant_values=-1)), wanted)
  if normalised:
    close(np.linalg.norm(wanted, axis=-1), np.ones(3))


def test_mean_pooling_is_the_mean_of_what_is_there():
  model = sentences()
  row = tokens()
  row[1, 3:] = -1
  params = moved(created(model, row))
  features = model.apply({"params": params}, row, method="encode")
  wanted = np.stack([features[i, : (row[i] >= 0).sum()].mean(0) for i in range(3)])
  close(model.apply({"params": params}, row).vectors, wanted)


def test_pairs_are_seen_one_text_at_a_time():
  model = sentences(classified=True, classes=3)
  pair = tokens((2, 2, 6), 5)
  params = moved(created(model, pair))
  out = model.apply({"params": params}, pair)
  alone = [model.apply({"params": params}, pair[:, i]).vectors for i in range(2)]
  close(out.vectors, np.stack(alone, 1))
  u, v = alone
  wanted = np.concatenate([u, v, np.abs(u - v)], -1) @ params["head"]["kernel"]
  close(out.logits, wanted + params["head"]["bias"])


def test_regression_of_the_cosine():
  model, task = sentences(), siamese.Task(loss="regression", highest=5.0)
  pair = tokens((4, 2, 6), 5)
  params = moved(created(model, pair))
  batch = {"tokens": pair, "types": 0 * pair, "label": np.float32([0, 1, 4, 5]), "mask": np.ones(4)}
  found = task.measure(model)(params, {}, batch, jax.random.key(0))["loss"]
  u, v = np.moveaxis(np.float64(model.apply({"params": params}, pair).vectors), 1, 0)
  angle = (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
  assert float(found.total / 4) == pytest.approx(
    ((angle - batch["label"] / 5) ** 2).mean(), rel=1e-5
  )


@pytest.mark.parametrize(("loss", "classified"), [("regression", True), ("classification", False)])
def test_only_classification_has_a_head(loss, classified):
  with pytest.raises(ValueError, match="classified"):
    siamese.Task(loss=loss).phases(sentences(classified=classified))
