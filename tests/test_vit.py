"""The Vision Transformer: its sizes, Hugging Face's on the same weights, its positions and maps."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from test_huggingface import handed_over
from test_models import close, created, shapes, size

from data import digits, images
from models.transformer import published, vit
from tasks import classify_patches
from tasks.objective import Examples

FOUND = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_torch = pytest.mark.skipif(
  not FOUND, reason="parity is against Hugging Face: `pip install -r requirements-oracles.txt`"
)

SHAPE, P, D, N, F, L, C = (8, 4, 3), 2, 16, 4, 24, 2, 5
SIZES = dict(patch=P, layers=L, features=D, heads=N, mlp_features=F)
IMAGE = np.random.default_rng(0).random((3, *SHAPE), np.float32)


@functools.cache
def small(shape=SHAPE, classes=C, **changes):
  """(model, parameters), the classifier too away from the zeros where it starts."""
  model = vit.Model(shape, classes, **{**SIZES, **changes})
  params, _ = created(model, shape)
  kernel = np.random.default_rng(1).normal(size=params["head"]["kernel"].shape) / 4
  return model, {**params, "head": {**params["head"], "kernel": jnp.float32(kernel)}}


def run(model, params, image=IMAGE, **options):
  return jax.jit(functools.partial(model.apply, **options))({"params": params}, image)


# Sizes: 3 P^2 D + D, the class token, the positions, L (4 (D^2 + D) + 2 D F + F + D + 4 D), 2 D, head.


@pytest.mark.parametrize(
  ("name", "side", "count", "headless"),
  [
    ("b16", 224, 86_567_656, 85_798_656),
    ("b32", 224, 88_224_232, 87_455_232),
    ("l16", 224, 304_326_632, 303_301_632),
    ("l32", 224, 306_535_400, 305_510_400),
    ("h14", 224, 632_045_800, 630_764_800),
    ("b16", 384, 86_859_496, 86_090_496),
    ("b32", 384, 88_297_192, 87_528_192),
    ("l16", 384, 304_715_752, 303_690_752),
    ("l32", 384, 306_632_680, 305_607_680),
  ],
)
def test_published_sizes(name, side, count, headless):
  data_shape = (side, side, 3)
  params = shapes(vit.Model(data_shape, 1000, **published.VIT[name]), data_shape)["params"]
  assert size(params) == count
  assert size({k: v for k, v in params.items() if k != "head"}) == headless


def test_the_size_of_the_one_for_digits():
  data_shape = (8, 8, 1)
  model = vit.Model(data_shape, 10, patch=2, layers=4, features=64, heads=4, mlp_features=128)
  assert size(shapes(model, data_shape)) == 136_138
  deeper = shapes(model.clone(head_hidden=32), data_shape)["params"]
  assert size(deeper) == 136_138 - 650 + (64 * 32 + 32) + (32 * 10 + 10)


# Hugging Face's on the same weights, in float64. It reads 2x - 1 of our pixels if told to; not here.


def theirs(params):
  model = vit.Model(SHAPE, C, **SIZES)
  return handed_over("transformer.vit", model, params, attn_implementation="eager")


def torch_image(image=IMAGE):
  import torch

  return torch.tensor(np.moveaxis(image, -1, 1), dtype=torch.float64)


@needs_torch
def test_logits_features_and_attention_are_hugging_faces():
  import torch

  model, params = small()
  with torch.no_grad():
    wanted = theirs(params)(torch_image(), output_hidden_states=True, output_attentions=True)
    last = theirs(params).vit(torch_image()).last_hidden_state
  found, seen = run(model, params, mutable=["intermediates"])
  close(found.logits, wanted.logits.numpy())
  close(found.features, last[:, 0].numpy())
  close(run(model, params, method="encode"), last.numpy())
  close(run(model, params, train=False, method="_embedded"), wanted.hidden_states[0].numpy())
  (maps,) = jax.tree.leaves(seen)
  close(maps, np.stack([x.numpy() for x in wanted.attentions]))


@needs_torch
def test_gradients_are_hugging_faces():
  import torch

  model, params = small()
  label = np.array([0, 3, 1])

  def loss(params):
    logits = model.apply({"params": params}, IMAGE).logits
    return -jax.nn.log_softmax(logits)[np.arange(3), label].mean()

  found = jax.jit(jax.grad(loss))(params)
  twin = theirs(params)
  torch.nn.functional.cross_entropy(twin(torch_image()).logits, torch.tensor(label)).backward()
  grads = {name: p.grad.numpy() for name, p in twin.named_parameters()}
  kernel = np.transpose(grads["vit.embeddings.patch_embeddings.projection.weight"], (2, 3, 1, 0))
  close(found["patch_embedding"]["kernel"], kernel)
  close(found["class_token"], grads["vit.embeddings.cls_token"][0, 0])
  close(found["position_embedding"], grads["vit.embeddings.position_embeddings"][0])
  close(found["head"]["kernel"], grads["classifier.weight"].T)
  for i in range(L):
    own = jax.tree.map(lambda x, i=i: x[i], found["encoder_layers"])
    close(own["mlp"]["up"]["kernel"], grads[f"vit.layers.{i}.mlp.fc1.weight"].T)
    value = grads[f"vit.layers.{i}.attention.v_proj.weight"].T.reshape(D, N, D // N)
    close(own["attention"]["value"]["kernel"], value)


def test_the_hidden_layer_of_pretraining():
  model, params = small(head_hidden=6)
  found = run(model, params)
  hidden, head = (jax.tree.map(np.asarray, params[name]) for name in ("representation", "head"))
  h = np.tanh(np.asarray(found.features) @ hidden["kernel"] + hidden["bias"])
  close(found.logits, h @ head["kernel"] + head["bias"])


def test_pixels_of_another_range_are_another_patch_embedding():
  """What the docstring says of published weights, which read 2x - 1."""
  model, params = small()
  given = params["patch_embedding"]
  bias = given["bias"] - given["kernel"].sum((0, 1, 2))
  folded = {**params, "patch_embedding": {"kernel": 2 * given["kernel"], "bias": bias}}
  close(run(model, folded).logits, run(model, params, 2 * IMAGE - 1).logits, rtol=2e-5)


# Positions


def test_resized_to_the_same_grid_they_stay():
  table = np.random.default_rng(2).normal(size=(1 + 12, D)).astype(np.float32)
  np.testing.assert_allclose(vit.resized(jnp.asarray(table), (3, 4)), table, rtol=1e-6)


@pytest.mark.parametrize(("old", "new"), [((4, 4), (7, 7)), ((6, 3), (4, 2)), ((2, 2), (9, 9))])
def test_resized_positions_are_those_of_the_papers_code(old, new):
  table = np.random.default_rng(3).normal(size=(1 + old[0] * old[1], D)).astype(np.float32)
  zoom = (new[0] / old[0], new[1] / old[1], 1)
  wanted = scipy.ndimage.zoom(table[1:].reshape(*old, D).astype(np.float64), zoom, order=1)
  found = vit.resized(jnp.asarray(table), new)
  np.testing.assert_array_equal(found[0], table[0])
  close(found[1:], wanted.reshape(-1, D))


def test_positions_of_another_shape_are_refused():
  with pytest.raises(ValueError, match="12 positions are no grid"):
    vit.resized(jnp.zeros((13, D)), (5, 5))


def test_a_model_of_another_resolution_takes_over_all_but_what_cannot_fit():
  _, before = small(head_hidden=D)
  larger = (16, 8, 3)
  model = vit.Model(larger, C, **SIZES)
  fresh, _ = created(model, larger, seed=5)
  found = model.adopt(fresh, before)
  close(found["encoder_layers"], before["encoder_layers"], rtol=0)
  close(found["class_token"], before["class_token"], rtol=0)
  close(found["position_embedding"], vit.resized(before["position_embedding"], (8, 4)), rtol=0)
  # The head sat on a hidden layer: the new one is zero even though its shape is the same.
  assert jnp.shape(before["head"]["kernel"]) == jnp.shape(fresh["head"]["kernel"])
  assert not np.any(found["head"]["kernel"])
  assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, fresh)


def test_a_head_is_kept_where_it_fits_and_new_where_classes_differ():
  model, before = small()
  fresh, _ = created(model, SHAPE, seed=5)
  assert model.adopt(fresh, before)["head"] is before["head"]
  other = vit.Model(SHAPE, C + 1, **SIZES)
  fresh, _ = created(other, SHAPE, seed=5)
  assert other.adopt(fresh, before)["head"] is fresh["head"]


def _shuffled(image):
  """The image with its patches in another order."""
  (H, W), order = (4, 2), np.random.default_rng(4).permutation(8)
  patches = image.reshape(-1, H, P, W, P, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 8, P, P, 3)
  moved = patches[:, order].reshape(-1, H, W, P, P, 3).transpose(0, 1, 3, 2, 4, 5)
  return moved.reshape(image.shape), order


def test_without_positions_patches_are_a_set():
  image, order = _shuffled(IMAGE)
  model, params = small(positions="none")
  assert "position_embedding" not in params
  close(run(model, params, image).logits, run(model, params).logits)
  tokens = [run(model, params, x, method="encode") for x in (IMAGE, image)]
  close(tokens[1][:, 1:], tokens[0][:, 1:][:, order])
  model, params = small()
  assert np.abs(run(model, params, image).logits - run(model, params).logits).max() > 1e-2


def test_every_patch_reaches_the_class():
  model, params = small()
  total = lambda image: run(model, params, image).logits[0, 1]  # noqa: E731
  assert np.all(np.abs(jax.grad(total)(IMAGE)[0]) > 0)


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_finite_at_extreme_inputs(value):
  model, params = small()

  def loss(params):
    logits = model.apply({"params": params}, jnp.full((2, *SHAPE), value)).logits
    return -jax.nn.log_softmax(logits)[:, 0].mean()

  found = jax.jit(jax.value_and_grad(loss))(params)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_images_that_do_not_divide_into_patches_are_refused():
  with pytest.raises(ValueError, match="do not divide into patch=3"):
    vit.Model(SHAPE, C, **{**SIZES, "patch": 3})


# Its objective


def test_rollout_follows_where_tokens_look():
  looks = np.zeros((2, 1, 1, 3, 3))
  looks[0, 0, 0] = [[0, 1, 0], [0, 0, 1], [0, 0, 1]]  # 0 looks at 1, 1 at 2, 2 at itself
  looks[1, 0, 0] = [[0, 1, 0], [0, 1, 0], [0, 0, 1]]  # 0 looks at 1, which has looked at 2
  found = classify_patches.rollout(looks)
  np.testing.assert_allclose(found[0, 0], [0.25, 0.5, 0.25])
  np.testing.assert_allclose(found.sum(-1), 1)


def test_pixels_alone_are_fitted_to_the_same_training_images():
  source = digits.Source()
  parts = [Examples(source.split(name).arrays) for name in ("train", "test")]
  score = classify_patches.Task(pixels=True).score(None, *parts)
  assert 0.96 < score["linear_accuracy"] < 0.98
  few = Examples({k: v[:120] for k, v in parts[0].arrays.items()})
  fewer = classify_patches.Task(pixels=True).score(None, few, parts[1])
  assert fewer["linear_accuracy"] < score["linear_accuracy"] - 0.02
  assert classify_patches.Task().score(None, *parts) == {}


# Images of another resolution


def test_a_resolution_is_what_the_model_sees_and_no_more():
  plain, large = digits.Source(), digits.Source(resolution=16)
  assert large.facts()["data_shape"] == (16, 16, 1)
  assert large.facts()["levels"] == 0
  assert large.spec() == plain.spec()
  batch = plain.split("train").take(np.arange(4))
  keys = jax.random.split(jax.random.key(0), 4)
  seen = large.transform(batch, keys, train=True)["image"]
  assert seen.shape == (4, 16, 16, 1)
  close(seen.mean((1, 2)), batch["image"].mean((1, 2)), rtol=0.05)
  assert images.ImageSource.resolution == 0
  assert len({digits.Source(resolution=r).fingerprint() for r in (0, 8, 16)}) == 3
