"""Transformers: their published sizes, who sees whom, caches, positions, and what papers promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import close, size

from models.layers import attention, positions
from models.layers.attention import Attention, Places, places
from models.layers.transformer import ACTIVATIONS, Block, Stack, norm_layer, unstacked
from models.transformer import encoder, encoder_decoder, gpt, llama, published

V, T = 23, 8


def created(model, *inputs, seed=0, **options):
  """Parameters away from where they start: scales and biases too, and no layer like another."""
  start = lambda: model.init({"params": jax.random.key(0)}, *inputs, **options)  # noqa: E731
  shapes = jax.eval_shape(start)["params"]
  generator = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    spread = 0.5 if name.endswith("embedding") else 0.25
    return jnp.asarray(generator.normal(0, spread, leaf.shape) + (name == "scale"), jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def tokens(shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).integers(0, V, shape, np.int32))


def small(make, **options):
  return make(V, T, layers=2, features=16, heads=4, dropout=0.0, attention_dropout=0.0, **options)


DECODERS = {
  "gpt2": small(gpt.Model),
  "gpt1": small(gpt.Model, norm_place="post"),
  "gpt3": small(gpt.Model, window=3, head_features=3, tied=False),
  "rotary": small(gpt.Model, positions="rotary"),
  "llama": llama.Model(V, T, layers=2, features=16, heads=4, kv_heads=2, mlp_features=24),
}
ENCODER = small(encoder.Model, types=2)


def translator(**options):
  sizes = dict(encoder_layers=2, decoder_layers=2, features=16, heads=4, mlp_features=24)
  fixed = dict(source_length=T, target_length=T, dropout=0.0)
  return encoder_decoder.Model(V, V, **sizes, **fixed, **options)


TRANSLATORS = {
  "post": translator(),
  "pre": translator(norm_place="pre", positions="relative"),
  "learned": translator(positions="learned", shared=False, tied=False),
}


# Sizes, without allocating them.


def count(module, name, *inputs, **changes):
  """Parameters of a published size, and how many are in projections to queries and keys."""
  sizes = {
    gpt: published.GPT,
    llama: published.LLAMA,
    encoder: published.ENCODER,
    encoder_decoder: published.ENCODER_DECODER,
  }[module]
  model = module.Model(**{**sizes[name], **changes})
  row = jnp.zeros((1, 2), jnp.int32)
  inputs = (row, row) if module is encoder_decoder else (row,)
  params = jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, *inputs))["params"]
  leaves = jax.tree_util.tree_leaves_with_path(params)
  matching = [x for path, x in leaves if {p.key for p in path} & {"query", "key"}]
  return size(params), size(matching)


@pytest.mark.parametrize(
  ("name", "parameters"),
  [
    ("gpt1", 116_534_784),
    ("gpt2", 124_439_808),
    ("gpt2-medium", 354_823_168),
    ("gpt2-large", 774_030_080),
    ("gpt2-xl", 1_557_611_200),
    ("gpt3-small", 125_226_240),
    ("gpt3-medium", 355_871_744),
    ("gpt3-large", 760_300_032),
    ("gpt3-xl", 1_315_723_264),
    ("gpt3-2.7b", 2_651_553_280),
    ("gpt3-6.7b", 6_658_404_352),
    ("gpt3-13b", 12_853_386_240),
    ("gpt3-175b", 174_604_259_328),
    ("megatron-355m", 355_788_800),
    ("megatron-1.2b", 1_213_479_936),
    ("megatron-2.5b", 2_490_408_960),
    ("megatron-4.2b", 4_199_109_120),
    ("megatron-8.3b", 8_317_040_640),
  ],
)
def test_gpt_sizes(name, parameters):
  assert count(gpt, name)[0] == parameters


def test_gpt_sizes_that_the_papers_print_otherwise():
  # Table 2.1 of GPT-3 as it stands: 24 heads of 128, and 5140 features.
  assert count(gpt, "gpt3-xl", heads=24, head_features=128)[0] == 1_517_123_584
  assert count(gpt, "gpt3-13b", features=5140, heads=20)[0] == 12_952_938_780
  # Megatron's before padding the vocabulary.
  for name, parameters in [("355m", 354_823_168), ("2.5b", 2_488_598_400), ("8.3b", 8_314_143_744)]:
    assert count(gpt, f"megatron-{name}", vocabulary=50_257)[0] == parameters


@pytest.mark.parametrize(
  ("name", "parameters"),
  [
    ("7b", 6_738_415_616),
    ("13b", 13_015_864_320),
    ("33b", 32_528_943_616),
    ("65b", 65_285_660_672),
    ("llama2-34b", 33_743_970_304),
    ("llama2-70b", 68_976_648_192),
  ],
)
def test_llama_sizes(name, parameters):
  assert count(llama, name)[0] == parameters


def test_llama_widths_of_the_mlp():
  for name in ("7b", "13b", "33b", "65b", "llama2-34b"):
    sizes = published.LLAMA[name]
    assert llama.mlp_width(sizes["features"]) == sizes["mlp_features"]


def test_bert_sizes():
  assert count(encoder, "bert-base")[0] == 109_514_298
  # Without the last layer and the bias of the logits: the encoder alone.
  d, head = 1024, 1024 * 1024 + 3 * 1024 + 30_522
  pooler = d * d + d
  assert count(encoder, "bert-large")[0] - head + pooler == 335_141_888


@pytest.mark.parametrize(
  ("row", "parameters", "printed"),
  [
    ("C2", 33_656_832, 36),
    ("C4", 48_369_664, 50),
    ("C8", 77_795_328, 80),
    ("C256", 26_834_944, 28),
    ("C1024", 163_889_152, 168),
    ("C1024-mlp", 50_487_296, 53),
    ("C4096-mlp", 88_272_896, 90),
    ("big", 214_245_376, 213),
  ],
)
def test_transformer_sizes(row, parameters, printed):
  assert count(encoder_decoder, row)[0] == parameters
  # The printed numbers are those of a larger vocabulary, so their differences say more. Theirs
  # come with the features, so rows of other widths differ by 2 to 4 thousand rows of embedding.
  base, _ = count(encoder_decoder, "base")
  narrow = published.ENCODER_DECODER[row].get("features", 512) == 512
  assert abs((parameters - base) / 1e6 - (printed - 65)) < (1.0 if narrow else 4.0)


def test_transformer_base_sizes():
  base, _ = count(encoder_decoder, "base")
  assert base == 63_082_496
  assert count(encoder_decoder, "base-french")[0] == 60_522_496
  assert count(encoder_decoder, "big-french")[0] == 209_125_376
  # Table 3 A: heads of another number and width weigh the same.
  assert {count(encoder_decoder, row)[0] for row in ("A1", "A4", "A16", "A32")} == {base}


@pytest.mark.parametrize(("row", "parameters"), [("B16", 55_990_784), ("B32", 58_354_688)])
def test_transformer_sizes_with_narrow_keys(row, parameters):
  # Table 3 B makes queries and keys narrow and leaves values as they are.
  base, matching = count(encoder_decoder, "base")
  _, narrow = count(encoder_decoder, row)
  assert base - matching + narrow == parameters


# Who sees whom.


@pytest.mark.parametrize("name", DECODERS)
def test_the_gradient_sees_no_later_token(name):
  model = DECODERS[name]
  # A token of its own at every place, so that a row of the embedding is a position.
  row = jnp.arange(T)[None]
  params = created(model, row)

  def features(table):
    return model.apply({"params": {**params, "embedding": table}}, row).hidden[0]

  jacobian_TVD = jax.jit(jax.jacrev(lambda table: jnp.square(features(table)).sum(-1)))
  reach_TT = np.abs(jacobian_TVD(params["embedding"])).sum(-1)[:, :T]
  for t in (0, T // 2, T - 1):
    np.testing.assert_array_equal(reach_TT[t, t + 1 :], 0.0)
    # The token itself always; with one layer in two banded, those before still by the other.
    assert (reach_TT[t, : t + 1] > 1e-6).all()


def test_the_target_sees_no_later_token_and_all_of_the_source():
  model = TRANSLATORS["learned"]
  row = jnp.arange(T)[None]
  params = created(model, row, row)

  def features(name, table):
    return model.apply({"params": {**params, name: table}}, row, row).hidden[0]

  def reach(name):
    jacobian = jax.jit(jax.jacrev(lambda table: jnp.square(features(name, table)).sum(-1)))
    return np.abs(jacobian(params[name])).sum(-1)[:, :T]

  target_TT = reach("target_embedding")
  np.testing.assert_array_equal(np.triu(target_TT, 1), 0.0)
  assert (target_TT[np.tril_indices(T)] > 1e-6).all()
  assert (reach("source_embedding") > 1e-6).all()


@pytest.mark.parametrize("name", DECODERS)
def test_padding_and_neighbours_in_a_row_change_nothing(name):
  model = DECODERS[name]
  a_1T, b_1T = tokens((1, 5), 1), tokens((1, 3), 2)
  params = created(model, a_1T)
  run = jax.jit(lambda *inputs: model.apply({"params": params}, *inputs).logits)
  row = jnp.concatenate([a_1T, b_1T], axis=1)
  packed = run(row, jnp.array([[1] * 5 + [2] * 3]))
  padded = run(jnp.where(jnp.arange(T) < 5, row, -1))
  close(padded[:, :5], run(a_1T))
  close(packed[:, :5], run(a_1T))
  close(packed[:, 5:], run(b_1T))
  # Padding has no gradient of its own, and makes none infinite.
  loss = lambda params: jnp.square(  # noqa: E731
    model.apply({"params": params}, jnp.full((1, T), -1)).logits
  ).sum()
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.jit(jax.grad(loss))(params)))


@pytest.mark.parametrize("name", TRANSLATORS)
def test_padding_of_source_and_target_changes_nothing(name):
  model = TRANSLATORS[name]
  source_1S, target_1T = tokens((1, 5), 1), tokens((1, 6), 2)
  params = created(model, source_1S, target_1T)
  run = jax.jit(lambda *inputs: model.apply({"params": params}, *inputs).logits)
  whole = run(source_1S, target_1T)
  longer = jnp.full((1, 2), -1)
  padded = run(jnp.concatenate([source_1S, longer], 1), jnp.concatenate([target_1T, longer], 1))
  close(padded[:, :6], whole)
  close(run(jnp.concatenate([longer, source_1S], 1), target_1T), whole)


def test_an_encoder_sees_both_sides_but_no_padding():
  row = tokens((1, 5), 1)
  params = created(ENCODER, row)
  run = jax.jit(lambda *inputs: ENCODER.apply({"params": params}, *inputs).logits)
  whole = run(row)
  assert np.abs(run(row.at[0, 4].set((row[0, 4] + 1) % V)) - whole)[0, 0].max() > 1e-3
  for pads in ((0, 3), (2, 1)):
    found = run(jnp.pad(row, ((0, 0), pads), constant_values=-1))
    close(found[:, pads[0] : pads[0] + 5], whole)
  kinds = run(row, None, jnp.array([[0, 0, 0, 1, 1]]))
  assert np.abs(kinds - whole).max() > 1e-3
  close(run(row, None, jnp.zeros((1, 5), jnp.int32)), whole)


def test_an_encoder_without_positions_cannot_tell_the_order():
  row = tokens((1, 6), 3)
  params = created(ENCODER, row)
  run = jax.jit(lambda p, row: ENCODER.apply({"params": p}, row).logits)
  order = jnp.array([3, 1, 5, 0, 2, 4])
  lost = {**params, "position_embedding": jnp.zeros_like(params["position_embedding"])}
  close(run(lost, row[:, order]), run(lost, row)[:, order], rtol=2e-5)
  assert np.abs(run(params, row[:, order]) - run(params, row)[:, order]).max() > 1e-2


# Attention: every way to compute it, every mask.

_PLAIN = places(jnp.zeros((2, 9), jnp.int32), plain=True)
_PADDED = places(tokens((2, 9)).at[0, 6:].set(-1).at[1, :2].set(-1))
_SEGMENTS = jnp.array([[1, 1, 1, 2, 2, 2, 2, 3, 3], [1, 1, 1, 1, 1, 2, 2, 2, 0]])
_PACKED = places(tokens((2, 9)).at[1, 8].set(-1), _SEGMENTS)
_SHORT = places(tokens((2, 7)).at[0, 5:].set(-1))
MASKS = {
  "causal": (_PLAIN, _PLAIN, dict(causal=True)),
  "both sides": (_PLAIN, _PLAIN, dict(causal=False)),
  "padding": (_PADDED, _PADDED, dict(causal=True)),
  "padding, both sides": (_PADDED, _PADDED, dict(causal=False)),
  "segments": (_PACKED, _PACKED, dict(causal=True)),
  "window": (_PLAIN, _PLAIN, dict(causal=True, window=4)),
  "window of each layer": (_PADDED, _PADDED, dict(causal=True, window=jnp.int32(3))),
  "source": (_PADDED, _SHORT, dict(causal=False)),
}


def attended(layer, params, x_BTD, memory_BSD, queries, keys, **mask):
  memory = None if memory_BSD.shape[1] == x_BTD.shape[1] else memory_BSD
  return layer.apply({"params": params}, x_BTD, memory, queries=queries, keys=keys, **mask)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("implementation", ["fused", "blocked"])
def test_every_way_to_attend_computes_the_same(implementation, mask):
  queries, keys, options = MASKS[mask]
  generator = np.random.default_rng(0)
  x_BTD = generator.normal(size=(2, 9, 8)).astype(np.float32)
  memory_BSD = generator.normal(size=(2, keys.positions.shape[1], 8)).astype(np.float32)
  pull = generator.normal(size=(2, 9, 8)).astype(np.float32)
  # What padding says is nobody's affair.
  pull *= (np.broadcast_to(queries.positions, (2, 9)) >= 0)[..., None]

  def make(kind):
    layer = Attention(8, 4, 2, implementation=kind)

    def run(params, x_BTD, memory_BSD):
      out = attended(layer, params, x_BTD, memory_BSD, queries, keys, **options)
      return (out * pull).sum(), jnp.where(pull == 0, 0.0, out)

    return jax.jit(jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True))

  params = created(Attention(8, 4, 2), x_BTD, queries=_PLAIN, keys=_PLAIN, causal=True)
  ((_, out), grads), ((_, out_), grads_) = (
    make(kind)(params, x_BTD, memory_BSD) for kind in (implementation, "naive")
  )
  close(out, out_)
  # A bias of the keys cancels in every softmax: its gradient is rounding.
  for found in (grads, grads_):
    found[0]["key"].pop("bias")
  close(grads, grads_)


def heads_of(params, name, index):
  return jax.tree.map(lambda x: x[..., index, :], params[name])


@pytest.mark.parametrize(
  ("kv_heads", "shared"), [(4, [0, 1, 2, 3]), (2, [0, 0, 1, 1]), (1, [0] * 4)]
)
def test_grouped_queries_are_multi_head_attention_with_repeated_keys(kv_heads, shared):
  # Ainslie et al. 2023: as many groups as heads is multi-head, one group is Shazeer's multi-query.
  x = np.random.default_rng(1).normal(size=(2, 9, 8)).astype(np.float32)
  where = dict(queries=_PLAIN, keys=_PLAIN, causal=True)
  grouped = Attention(8, 4, kv_heads, rotary="pairs")
  params = jax.jit(lambda: grouped.init(jax.random.key(0), x, **where))()["params"]
  assert params["key"]["kernel"].shape == (8, kv_heads, 2)
  shared = jnp.array(shared)
  repeated = {name: heads_of(params, name, shared) for name in ("key", "value")}
  close(
    grouped.apply({"params": params}, x, **where),
    Attention(8, 4, rotary="pairs").apply({"params": {**params, **repeated}}, x, **where),
  )


def test_what_is_sown_are_the_weights():
  row = tokens((2, 6)).at[1, 4:].set(-1)
  params = created(DECODERS["gpt2"], row)
  _, seen = DECODERS["gpt2"].apply({"params": params}, row, mutable=["intermediates"])
  (weights,) = jax.tree.leaves(seen)
  assert weights.shape == (2, 2, 4, 6, 6)  # layers, examples, heads, queries, keys
  np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
  np.testing.assert_array_equal(np.triu(weights, 1), 0.0)


# Caches.


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("name", DECODERS)
def test_a_cached_decoder_says_what_a_whole_one_says(name, apart):
  model = DECODERS[name]
  whole_BT = tokens((2, 7), 4)
  params = created(model, whole_BT)
  wanted = jax.jit(model.apply)({"params": params}, whole_BT).logits
  short = jax.jit(model.apply)({"params": params}, whole_BT[1:, 2:]).logits
  # The second text is two tokens shorter, so it waits for two.
  fed_BT = whole_BT.at[1, :2].set(-1)
  variables = unstacked({"params": params}) if apart else {"params": params}
  cache = model.apply(variables, 2, 7, method="begin")
  advance = jax.jit(functools.partial(model.apply, method="advance"))
  found = []
  for start, stop in ((0, 4), (4, 5), (5, 6), (6, 7)):
    logits, cache = advance(variables, fed_BT[:, start:stop], cache)
    found.append(logits)
  found = jnp.concatenate(found, axis=1)
  close(found[0], wanted[0])
  close(found[1, 2:], short[0])


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_cached_translator_says_what_a_whole_one_says(name):
  model = TRANSLATORS[name]
  source_BS, target_BT = tokens((2, 6), 5).at[1, 4:].set(-1), tokens((2, 5), 6)
  params = created(model, source_BS, target_BT)
  wanted = jax.jit(model.apply)({"params": params}, source_BS, target_BT).logits
  begin = jax.jit(functools.partial(model.apply, method="begin"), static_argnums=2)
  advance = jax.jit(functools.partial(model.apply, method="advance"))
  for variables in ({"params": params}, unstacked({"params": params})):
    cache = begin(variables, source_BS, 5)
    found = []
    for start, stop in ((0, 3), (3, 4), (4, 5)):
      logits, cache = advance(variables, target_BT[:, start:stop], cache)
      found.append(logits)
    close(jnp.concatenate(found, axis=1), wanted)


def test_forgotten_tokens_are_as_if_never_read():
  model = DECODERS["llama"]
  row = tokens((1, 6), 7)
  params = created(model, row)
  variables = {"params": params}
  advance = jax.jit(functools.partial(model.apply, method="advance"))
  _, cache = advance(variables, row[:, :4], model.apply(variables, 1, 8, method="begin"))
  cache = attention.forget(cache, jnp.array([[True, False]]))
  found, _ = advance(variables, row[:, 4:], cache)
  kept = row[:, jnp.array([0, 1, 2, 4, 5])]
  close(found, jax.jit(model.apply)(variables, kept).logits[:, 3:])


# Positions.


def test_sinusoids():
  found = positions.sinusoids(jnp.array([[1]]), 4)[0, 0]
  wanted = [0.8414709848, 0.5403023059, 0.0099998333, 0.9999500004]
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  apart = positions.sinusoids(jnp.array([[1]]), 4, layout="concatenated")[0, 0]
  np.testing.assert_allclose(apart, [wanted[0], wanted[2], wanted[1], wanted[3]], rtol=1e-6)


def test_sinusoids_of_a_distance_are_a_linear_function():
  # Vaswani et al. 2017, section 3.5: PE(p + k) is a rotation of PE(p), whatever p.
  far, features = 7, 6
  table = np.asarray(positions.sinusoids(jnp.arange(40)[None], features)[0], np.float64)
  solved, *_ = np.linalg.lstsq(table[:-far], table[far:], rcond=None)
  np.testing.assert_allclose(table[:-far] @ solved, table[far:], atol=1e-5)
  assert np.abs(solved @ solved.T - np.eye(features)).max() < 1e-3


def test_rotations():
  q, k = (jnp.array(v).reshape(1, 1, 1, 4) for v in ([1.0, 2, 3, 4], [0.5, -1, 2, 0]))
  at = lambda x, p: positions.rotate(x, jnp.array([[p]])).reshape(4)  # noqa: E731
  np.testing.assert_allclose(at(q, 3), [-1.272233, -1.838865, 2.878668, 4.088187], rtol=1e-5)
  for far in (0, 2, 102):
    np.testing.assert_allclose(at(q, far + 3) @ at(k, far), 6.960084929655, rtol=1e-5)
  # The other layout is the same rotation of the features in another order.
  order = jnp.array([0, 2, 1, 3])
  halves = positions.rotate(q[..., order], jnp.array([[3]]), pairing="halves").reshape(4)
  np.testing.assert_allclose(halves, at(q, 3)[order], rtol=1e-6)


@pytest.mark.parametrize("pairing", ["pairs", "halves"])
def test_rotated_layers_know_distances_only(pairing):
  x = np.random.default_rng(0).normal(size=(1, 5, 16)).astype(np.float32)
  block = Block(16, 2, 8, kv_heads=1, rotary=pairing, causal=True)
  places_from = lambda p: Places(p + jnp.arange(5, dtype=jnp.int32)[None])  # noqa: E731
  where = lambda p: dict(queries=places_from(p), keys=places_from(p))  # noqa: E731
  params = created(block, x, **where(0))
  run = jax.jit(lambda p: block.apply({"params": params}, x, **where(p)))
  close(run(500), run(0), rtol=2e-5)
  spread = dict(queries=places_from(0), keys=Places(2 * jnp.arange(5, dtype=jnp.int32)[None]))
  assert np.abs(block.apply({"params": params}, x, **spread) - run(0)).max() > 1e-2


def test_buckets_of_distances():
  # From Hugging Face's function.
  behind = [-200, -128, -127, -100, -64, -40, -20, -16, -12, -9, -8, -7, -1, 0]
  ahead = [1, 7, 8, 9, 11, 12, 16, 20, 32, 64, 100, 127, 128, 200]
  distance = jnp.array([*behind, *ahead])
  both = [15, 15, 15, 15, 14, 12, 10, 10, 9, 8, 8, 7, 1, 0]
  both += [17, 23, 24, 24, 24, 25, 26, 26, 28, 30, 31, 31, 31, 31]
  past = [31, 31, 31, 30, 26, 23, 17, 16, 12, 9, 8, 7, 1, 0] + [0] * 14
  assert positions.buckets(distance, bidirectional=True).tolist() == both
  assert positions.buckets(distance, bidirectional=False).tolist() == past


# Blocks.


def test_activations():
  x = jnp.array([-3, -1, -0.5, 0.5, 1, 3])
  exact = [-0.004050, -0.158655, -0.154269, 0.345731, 0.841345, 2.995950]
  tanh = [-0.003637, -0.158808, -0.154286, 0.345714, 0.841192, 2.996363]
  np.testing.assert_allclose(ACTIVATIONS["gelu"](x), exact, atol=1e-6)
  np.testing.assert_allclose(ACTIVATIONS["gelu_tanh"](x), tanh, atol=1e-6)
  np.testing.assert_allclose(ACTIVATIONS["silu"](1.0), 0.7310586, atol=1e-6)


def test_rms_norm_does_not_see_the_scale():
  x = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
  norm = norm_layer("rms", 1e-12, jnp.float32)
  params = {"params": {"scale": np.linspace(0.5, 2, 16, dtype=np.float32)}}
  once = norm.apply(params, x)
  close(norm.apply(params, 37.0 * x), once, rtol=2e-6)
  # Layer normalisation does not see a shift either; this one does.
  assert np.abs(norm.apply(params, x + 1) - once).max() > 0.1
  np.testing.assert_allclose(
    once, x / np.sqrt(np.square(x).mean(-1, keepdims=True)) * params["params"]["scale"], rtol=1e-5
  )


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize(("norm", "gated"), [("layer", False), ("rms", True)])
def test_blocks_are_finite_at_extremes(place, norm, gated):
  block = Block(8, 2, 16, norm=norm, gated=gated, norm_place=place, activation="gelu", causal=True)
  generator = np.random.default_rng(0)
  x = np.stack([generator.normal(size=(5, 8)), np.ones((5, 8)), -np.ones((5, 8))])
  x = (1e4 * x).astype(np.float32)
  where = dict(queries=_PLAIN, keys=_PLAIN)
  where = {k: Places(v.positions[:, :5], plain=True) for k, v in where.items()}

  params = created(block, x, **where)

  def loss(params, x):
    return jnp.square(block.apply({"params": params}, x, **where)).mean()

  grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad(params, x)))


def test_recomputed_and_unrolled_layers_are_the_same():
  row = tokens((2, 6), 1)
  params = created(DECODERS["gpt2"], row)

  def gradient(**changes):
    model = DECODERS["gpt2"].clone(**changes)
    loss = lambda p: jnp.square(model.apply({"params": p}, row).logits).mean()  # noqa: E731
    return jax.jit(jax.grad(loss))(params)

  plain = gradient()
  close(gradient(remat=True), plain)
  close(gradient(unroll=1), plain)  # else all of them, on a CPU


def test_half_the_bits_are_nearly_enough():
  row = tokens((2, 6), 1)
  params = created(DECODERS["llama"], row)
  model = DECODERS["llama"].clone(dtype=jnp.bfloat16)
  found = jax.jit(model.apply)({"params": params}, row).logits
  assert found.dtype == jnp.float32
  close(found, DECODERS["llama"].apply({"params": params}, row).logits, rtol=0.05)


def test_initial_weights_are_gpt2s():
  model = gpt.Model(64, 64, layers=8, features=64, heads=4)
  row = jnp.zeros((1, 4), jnp.int32)
  params = jax.jit(lambda: model.init({"params": jax.random.key(0)}, row))()["params"]
  layers = params["decoder_layers"]
  # Radford et al. 2019: what is added to the residual stream starts smaller by sqrt(2 layers).
  for kernel, std in [
    (layers["attention"]["query"]["kernel"], 0.02),
    (layers["mlp"]["up"]["kernel"], 0.02),
    (layers["attention"]["output"]["kernel"], 0.02 / 4),
    (layers["mlp"]["down"]["kernel"], 0.02 / 4),
    (params["embedding"], 0.02),
    (params["position_embedding"], 0.01),
  ]:
    assert float(kernel.std()) == pytest.approx(std, rel=0.05)
  # No two layers alike.
  first, second = layers["mlp"]["up"]["kernel"][:2]
  assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize(("place", "least", "most"), [("pre", 0.2, 0.6), ("post", 0.7, 1.4)])
def test_what_norms_before_layers_do_to_the_last_gradient(place, least, most):
  """Xiong et al. 2020, theorem 1: of the last MLP's weights it falls as 1 / sqrt(layers) only so."""
  generator = np.random.default_rng(0)
  x, pull = generator.normal(size=(2, 4, 6, 32)).astype(np.float32)
  where = dict(queries=Places(jnp.arange(6, dtype=jnp.int32)[None], plain=True))
  where["keys"] = where["queries"]

  def last(layers):
    block = functools.partial(Block, 32, 2, 64, norm_place=place, causal=True)
    stack = Stack(block, layers)

    def glorot(path, leaf):
      if path[-1].key != "kernel":
        return jnp.full(leaf.shape, float(path[-1].key == "scale"))
      fans = 32 + (64 if path[-2].key in ("up", "down") else 32)
      return jnp.asarray(generator.normal(0, (2 / fans) ** 0.5, leaf.shape), jnp.float32)

    init = lambda: stack.init({"params": jax.random.key(0)}, x, **where)  # noqa: E731
    params = jax.tree_util.tree_map_with_path(glorot, jax.eval_shape(init)["params"])

    def loss(params):
      out = stack.apply({"params": params}, x, **where)
      if place == "pre":  # the norm at the end of the stack
        out = jax.nn.standardize(out, axis=-1)
      return (out * pull).sum()

    return np.linalg.norm(jax.jit(jax.grad(loss))(params)["mlp"]["down"]["kernel"][-1])

  # sqrt(2 / 16) is 0.35.
  assert least < last(16) / last(2) < most


def test_refused_sizes():
  with pytest.raises(ValueError, match="features=10 do not divide into heads=4"):
    gpt.Model(V, T, features=10, heads=4)
  with pytest.raises(ValueError, match="even width"):
    llama.Model(V, T, features=12, heads=4)
  with pytest.raises(ValueError, match="kv_heads=3"):
    llama.Model(V, T, features=16, heads=4, kv_heads=3)
  with pytest.raises(ValueError, match="features=10 do not divide"):
    encoder.Model(V, T, features=10, heads=4)
  with pytest.raises(ValueError, match="one vocabulary"):
    encoder_decoder.Model(V, V + 1)
