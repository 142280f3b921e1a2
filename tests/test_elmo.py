"""ELMo: its size, PyTorch's numbers on the same weights, which side sees what, mixes of layers."""

import functools
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import close

from data import words
from models.recurrent import elmo, elmo_classifier
from tasks import bilm, classify_words

TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not TORCH, reason="parity is against PyTorch: `pip install torch`")

V, M, D, H, T = 11, 6, 5, 7, 6
SIZES = dict(features=D, cells=H, character_features=4, filters=((1, 3), (2, 4)), highways=2)
BILM = elmo.Model(vocabulary=V, dropout=0.0, **SIZES)


def texts():
  """Two texts of 6 and 4 words, of up to 6 characters."""
  generator = np.random.default_rng(0)
  found = generator.integers(0, 256, (2, T, M), np.int32)
  for row, place, length in ((0, 2, 3), (0, 4, 1), (1, 1, 4)):
    found[row, place, length:] = -1
  found[1, 4:] = -1
  return found


TEXTS = texts()


def size(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def shapes(model, characters=TEXTS):
  return jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, characters))["params"]


@functools.cache
def drawn(model, scale=0.5):
  """Parameters of a model, none of them zero as biases are at the start."""
  generator = np.random.default_rng(1)
  draw = lambda x: jnp.asarray(scale * generator.normal(size=x.shape), x.dtype)  # noqa: E731
  return jax.tree.map(draw, shapes(model))


@functools.cache
def compiled(model, method="__call__"):
  return jax.jit(functools.partial(model.apply, method=method))


def run(model, params, characters=TEXTS, method="__call__"):
  return compiled(model, method)({"params": params}, characters)


# Sizes


def test_the_published_size():
  whole = np.zeros((1, 2, 50), np.int32)
  params = shapes(elmo.Model(vocabulary=20), whole)
  parts = {name: size(tree) for name, tree in params.items()}
  # 262 x 16; sum of (16 w + 1) n = 199,168; 2 (2048 x 4096 + 4096); 2048 x 512 + 512.
  assert parts["words"] == 4_192 + 199_168 + 16_785_408 + 1_049_088 == 18_037_856
  for lstm in ("ahead_0", "ahead_1", "back_0", "back_1"):  # 1024 x 16384 + 16384 + 4096 x 512
    assert parts[lstm] == 18_890_752
  assert sum(parts.values()) - parts["softmax"] - parts["softmax_bias"] == 93_600_864
  assert parts["softmax"] + parts["softmax_bias"] == 20 * 512 + 20
  above = shapes(elmo_classifier.Model(classes=3), whole)
  assert size(above["mixture"]) == 4  # three s and gamma
  assert size(above) - size(above["head"]) == 93_600_864 + 4


def test_only_the_learned_mix_has_weights():
  count = {
    mix: size(shapes(elmo_classifier.Model(mix=mix, classes=3, **SIZES))["mixture"])
    for mix in ("learned", "average", "last")
  }
  assert count == {"learned": 4, "average": 1, "last": 1}


# PyTorch on the same weights, in float64


def torch_words(params, characters):
  import torch

  t = lambda x: torch.tensor(np.asarray(x, np.float64))  # noqa: E731
  rows = np.where(characters < 0, 260, characters)
  rows = np.where(characters[..., :1] < 0, 261, rows).reshape(-1, M)
  x = t(params["table"])[rows].transpose(1, 2)
  found = []
  for width, _ in SIZES["filters"]:
    own = params[f"width_{width}"]
    y = torch.nn.functional.conv1d(x, t(np.transpose(own["kernel"], (2, 1, 0))), t(own["bias"]))
    found.append(torch.relu(y).amax(-1))
  y = torch.cat(found, 1)
  for i in range(SIZES["highways"]):
    own = params[f"highway_{i}"]
    new, gate = (y @ t(own["kernel"]) + t(own["bias"])).chunk(2, 1)
    y = torch.sigmoid(gate) * torch.relu(new) + (1 - torch.sigmoid(gate)) * y
  y = y @ t(params["projection"]["kernel"]) + t(params["projection"]["bias"])
  return y.reshape(*characters.shape[:2], D)


def torch_lstm(params, x, reverse):
  """PyTorch's own LSTM with a projection (proj_size), whose second bias is zero."""
  import torch

  layer = torch.nn.LSTM(D, H, proj_size=D, batch_first=True).double()
  given = {
    "weight_ih_l0": params["input"].T,
    "weight_hh_l0": params["recurrent"].T,
    "bias_ih_l0": params["bias"],
    "bias_hh_l0": np.zeros(4 * H),
    "weight_hr_l0": params["projection"].T,
  }
  layer.load_state_dict({k: torch.tensor(np.asarray(v, np.float64)) for k, v in given.items()})
  y, _ = layer(x.flip(1) if reverse else x)
  return y.flip(1) if reverse else y


@needs_torch
@pytest.mark.parametrize(("row", "length"), [(0, 6), (1, 4)])
def test_layers_and_logits_are_pytorchs(row, length):
  import torch

  # No clip: PyTorch's LSTM has none. One text at a time, without its padding.
  model = BILM.clone(clip=1e6)
  params = drawn(model)
  found = run(model, params)
  characters = TEXTS[row : row + 1, :length]
  with torch.no_grad():
    x = torch_words(params["words"], characters)
    layers = [torch.cat([x, x], -1)]
    sides = []
    for side in ("ahead", "back"):
      first = torch_lstm(params[f"{side}_0"], x, side == "back")
      sides.append((first, torch_lstm(params[f"{side}_1"], first, side == "back") + first))
    layers += [torch.cat(pair, -1) for pair in zip(*sides, strict=True)]
    softmax = torch.tensor(np.asarray(params["softmax"], np.float64)).T
    bias = np.asarray(params["softmax_bias"], np.float64)
    wanted = [side[1] @ softmax + torch.tensor(bias) for side in sides]
  close(found.layers[:, row, :length], torch.cat(layers).numpy())
  close(found.ahead[row, :length], wanted[0][0].numpy())
  close(found.back[row, :length], wanted[1][0].numpy())


@needs_torch
def test_gradients_are_pytorchs():
  """Through the loop whose products are put off (models/layers/recurrence.py), both of them."""
  import torch

  model = elmo.ProjectedLstm(D, H, D, 1e6, jnp.float32)
  x = np.random.default_rng(2).normal(size=(T, 3, D)).astype(np.float32)
  mask = jnp.ones((T, 3), bool)
  made = jax.eval_shape(lambda: model.init(jax.random.key(0), x, mask))["params"]
  generator = np.random.default_rng(3)
  params = jax.tree.map(lambda a: jnp.float32(generator.normal(size=a.shape)), made)
  weight = generator.normal(size=(T, 3, D)).astype(np.float32)
  loss = lambda p: (model.apply({"params": p}, x, mask) * weight).sum()  # noqa: E731
  found = jax.jit(jax.grad(loss))(params)
  layer = torch.nn.LSTM(D, H, proj_size=D).double()
  names = dict(input="weight_ih_l0", recurrent="weight_hh_l0", projection="weight_hr_l0")
  with torch.no_grad():
    for ours, theirs in names.items():
      getattr(layer, theirs).copy_(torch.tensor(np.asarray(params[ours].T, np.float64)))
    layer.bias_ih_l0.copy_(torch.tensor(np.asarray(params["bias"], np.float64)))
    layer.bias_hh_l0.zero_()
  (layer(torch.tensor(x).double())[0] * torch.tensor(weight)).sum().backward()
  for ours, theirs in names.items():
    close(found[ours], getattr(layer, theirs).grad.T.numpy())
  close(found["bias"], layer.bias_ih_l0.grad.numpy())


# What must hold


def seen(params, side, layer=None, place=2):
  """[T] whether each word of text 0 moves what one direction says at a place, by gradient."""

  def said(table_TD):
    # The gradient by the words' encodings; characters are integers.
    variables = {"params": params}
    bound = BILM.bind(variables)
    mask = jnp.ones((T, 1), bool)
    layers = bound.ahead if side == "ahead" else bound.back
    x = table_TD[:, None]
    found = bound._direction(layers, x, mask, reverse=side == "back", train=False)
    return found[-1][place, 0].sum()

  encoded = BILM.apply({"params": params}, TEXTS[:1], method=lambda m, c: m.words(c))[0]
  return np.any(np.asarray(jax.jit(jax.grad(said))(encoded)) != 0, axis=-1)


def test_one_direction_sees_the_past_and_the_other_the_future():
  params = drawn(BILM)
  assert seen(params, "ahead").tolist() == [True, True, True, False, False, False]
  assert seen(params, "back").tolist() == [False, False, True, True, True, True]


def test_a_changed_word_changes_nothing_before_it_ahead_nor_behind_it_back():
  params, other = drawn(BILM), TEXTS.copy()
  other[0, 3, 0] = (other[0, 3, 0] + 1) % 256
  a, b = run(BILM, params), run(BILM, params, other)
  moved = lambda x, y: np.any(np.abs(x[0] - y[0]) > 1e-7, axis=-1).tolist()  # noqa: E731
  assert moved(a.ahead, b.ahead) == [False, False, False, True, True, True]
  assert moved(a.back, b.back) == [True, True, True, True, False, False]
  np.testing.assert_array_equal(a.ahead[1], b.ahead[1])


def test_padding_says_nothing():
  params, longer = drawn(BILM), np.pad(TEXTS, ((0, 0), (0, 3), (0, 0)), constant_values=-1)
  a, b = run(BILM, params), run(BILM, params, longer)
  close(b.layers[:, :, :T][:, 0], a.layers[:, 0])
  close(b.back[1, :4], a.back[1, :4])
  close(b.ahead[1, :4], a.ahead[1, :4])


def by_hand(params, x_TBD, clip):
  """The projected LSTM step by step, in float64."""
  p = {name: np.asarray(value, np.float64) for name, value in params.items()}
  sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
  r, c, found = np.zeros((x_TBD.shape[1], D)), np.zeros((x_TBD.shape[1], H)), []
  for x in x_TBD:
    i, f, g, o = np.split(x @ p["input"] + r @ p["recurrent"] + p["bias"], 4, axis=-1)
    c = np.clip(sigmoid(f) * c + sigmoid(i) * np.tanh(g), -clip[0], clip[0])
    r = np.clip(sigmoid(o) * np.tanh(c) @ p["projection"], -clip[1], clip[1])
    found.append(r)
  return np.stack(found)


def test_cells_and_projections_are_clipped():
  clip, x = 0.4, np.random.default_rng(7).normal(size=(T, 3, D)).astype(np.float32)
  params = drawn(BILM, 1.0)["ahead_0"]
  model = elmo.ProjectedLstm(D, H, D, clip, jnp.float32)
  found = jax.jit(model.apply)({"params": params}, x, jnp.ones((T, 3), bool))
  close(found, by_hand(params, x, (clip, clip)))
  for other in ((clip, 1e6), (1e6, clip)):  # either clip alone is something else
    assert np.abs(by_hand(params, x, other) - found).max() > 0.05


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_mix_of_one_weight_is_that_layer(layer):
  model = elmo_classifier.Model(classes=3, **SIZES)
  h = np.random.default_rng(4).normal(size=(3, 2, T, 2 * D)).astype(np.float32)
  one = {"weights": jnp.full(3, -1e4).at[layer].set(1e4), "gamma": jnp.float32(2.0)}
  mix = elmo_classifier.Mix(model.mix)
  close(mix.apply({"params": one}, h), 2 * h[layer])


def test_mixes_at_the_start():
  h = np.random.default_rng(5).normal(size=(3, 2, T, 2 * D)).astype(np.float32)
  for mix, wanted in (("learned", h.mean(0)), ("average", h.mean(0)), ("last", h[-1])):
    found, _ = elmo_classifier.Mix(mix).init_with_output(jax.random.key(0), h)
    close(found, wanted)


def test_the_classifier_reads_the_mean_of_the_words_that_are_there():
  model = elmo_classifier.Model(classes=3, mix="last", **SIZES)
  params = drawn(model)
  found = run(model, params)
  layers = run(model, params, method="encode")
  gamma = params["mixture"]["gamma"]
  close(found.features[0], gamma * layers[-1, 0].mean(0))
  close(found.features[1], gamma * layers[-1, 1, :4].mean(0))


def test_extreme_weights_leave_values_and_gradients_finite():
  params = drawn(BILM, 1e4)
  loss = lambda p: BILM.apply({"params": p}, TEXTS).layers.sum()  # noqa: E731
  value, grads = jax.jit(jax.value_and_grad(loss))(params)
  assert np.isfinite(value)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


# The objectives


def batch():
  generator = np.random.default_rng(6)
  told = generator.integers(0, V, (2, T), np.int32)
  told[1, 4:] = -1
  return {"words": told, "characters": TEXTS, "mask": np.ones(2, np.float32)}


def test_the_loss_is_the_mean_over_both_directions_by_hand():
  params, given = drawn(BILM), batch()
  found = bilm.Task().measure(BILM)(params, {}, given, jax.random.key(0))
  out = run(BILM, params)
  ahead, back = (jax.nn.log_softmax(x) for x in (out.ahead, out.back))
  told, sums = given["words"], {"ahead": 0.0, "back": 0.0}
  for row, length in ((0, 6), (1, 4)):
    for k in range(length - 1):
      sums["ahead"] -= ahead[row, k, told[row, k + 1]]
      sums["back"] -= back[row, k + 1, told[row, k]]
  for side, total in sums.items():
    assert found[f"{side}_nll"].count == 8
    assert float(found[f"{side}_nll"].total) == pytest.approx(float(total), rel=1e-5)
  assert float(found["loss"].total) == pytest.approx(float(sum(sums.values())), rel=1e-5)
  assert found["loss"].count == 16


def test_perplexities_are_of_each_direction():
  found = bilm.Task().derive({"ahead_nll": math.log(20), "back_nll": math.log(30)})
  assert found == pytest.approx(
    {"ahead_perplexity": 20, "back_perplexity": 30, "mean_perplexity": 25}
  )


def test_only_the_mix_and_the_head_are_trained():
  model = elmo_classifier.Model(classes=3, **SIZES)
  (phase,) = classify_words.Task().phases(model)
  assert set(phase.trains) == {"mixture", "head"}
  assert set(phase.trains) < set(drawn(model))


# The data


def test_words_and_their_spelling():
  assert words.split("And Aaron's rod, 12 cubits;") == [
    *("And", "Aaron's", "rod", ",", "1", "2", "cubits", ";")
  ]
  assert words.spell("Am", 6).tolist() == [258, 65, 109, 259, -1, -1]
  assert words.spell("abcdefg", 6).tolist() == [258, 97, 98, 99, 100, 259]
  assert words.spell("<bos>", 4).tolist() == [258, 256, 259, -1]
  assert words.spell("<eos>", 4).tolist() == [258, 257, 259, -1]
  ours = (elmo.TEXT_BEGIN, elmo.TEXT_END, elmo.WORD_BEGIN, elmo.WORD_END)
  assert ours == (words._TEXT_BEGIN, words._TEXT_END, words._WORD_BEGIN, words._WORD_END)
  assert words.common([["b", "a", "c"], ["b", "a"], ["b"]], 5) == ["b", "a"]
  with pytest.raises(ValueError, match="have 1 words"):
    words.common([["b"]], 5)


def test_verses_in_rows():
  source = words.Source(length=12, characters=10, vocabulary=500, train_examples=200)
  try:
    train, test = (source.split(name).arrays for name in ("train", "test"))
  except FileNotFoundError as error:  # which says how to get it
    pytest.skip(str(error))
  assert len(train["words"]) == 200
  assert {k: (v.shape[1:], v.dtype) for k, v in train.items()} == {
    k: (v.shape, v.dtype) for k, v in source.spec().items()
  }
  for part in (train, test):
    there = part["words"] >= 0
    assert (there == (part["characters"][:, :, 0] >= 0)).all()
    assert (part["words"][:, 0] == 0).all()
    assert ((part["words"] == 1).sum(1) == 1).all()
    assert part["words"].max() < 500
  assert set(train["label"]) == set(range(6))  # the first so many are of all kinds
  tokenizer = source.tokenizers()["words"]
  assert tokenizer.decode(tokenizer.encode("And God said xyzzy")) == "And God said <unk>"
  # Held-out chapters share no verse of any length with those trained on.
  assert source.facts() == {"vocabulary": 500, "classes": 6}
