"""Autoregressive models of pixels: order, likelihood, sampling, PyTorch's numbers."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import (
  CIFAR,
  batch_of,
  close,
  created,
  gradients,
  needs_torch,
  shapes,
  size,
  to_torch,
  torch_gradients,
)

from evaluation import independent
from models.autoregressive import gated_pixelcnn, pixelcnn
from models.layers.pixelcnn import MaskedConv, ancestral
from tasks import autoregressive
from training.build import build
from training.config import load, override
from training.errors import ConfigError


def plain(data_shape, **kwargs):
  settings = dict(features=6, blocks=2, head=7, levels=2) | kwargs
  return pixelcnn.Model(data_shape, **settings)


def gated(data_shape, **kwargs):
  settings = dict(features=6, layers=3, first_size=3, size=3, head=7, levels=2) | kwargs
  return gated_pixelcnn.Model(data_shape, **settings)


BOTH = pytest.mark.parametrize("make", [plain, gated])


def jacobian(model, seed=0):
  """|d parameters / d image| [N, N] over values in raster order, summed over a few images.

  Over several, because a rectifier that is off at one of them hides what it could see.
  """
  params, _ = created(model, model.data_shape, seed)
  images = np.random.default_rng(0).normal(0, 3, (8, math.prod(model.data_shape)))

  def flat(x):
    out = model.apply({"params": params}, x.reshape(1, *model.data_shape)).parameters
    return out.reshape(x.size, -1).sum(-1)

  return np.abs(np.asarray(jax.jit(jax.vmap(jax.jacrev(flat)))(images.astype(np.float32)))).sum(0)


def test_pixelcnn_of_cifar_has_the_papers_trunk():
  model = pixelcnn.Model(CIFAR, likelihood="categorical", levels=256)
  params = shapes(model, CIFAR)["params"]
  blocks = [params[f"block_{i}"] for i in range(15)]
  assert size(params["stem"]) == 37_888
  assert size(blocks) == 3_202_560
  # Our reading of the last layers: two of 1,024 features, and a softmax for each channel.
  head = [size(params[name]) for name in ("head_0", "head_1", "output")]
  assert head == [263_168, 1_049_600, 787_200]
  assert size(params) == 5_340_416


def test_gated_pixelcnn_size():
  model = gated((8, 8, 1), features=16, layers=2, first_size=5, size=3, head=16)
  first = (10 * 1 * 32 + 32) + (2 * 1 * 32 + 32) + (32 * 32 + 32) + (16 * 16 + 16)
  second = (6 * 16 * 32 + 32) + (2 * 16 * 32 + 32) + (32 * 32 + 32) + (16 * 16 + 16)
  head = (16 * 16 + 16) + (16 + 1)
  assert size(shapes(model, (8, 8, 1))["params"]) == first + second + head


# Order.


@BOTH
@pytest.mark.parametrize("channels", [1, 3])
def test_no_value_sees_itself_or_what_comes_after(make, channels):
  shape = (3, 4, channels)
  seen = jacobian(make(shape, features=18, head=30))
  assert np.triu(seen).max() == 0.0
  # The value just before is seen, across rows too where the stack is gated.
  before = np.diagonal(seen, -1)
  same_row = (np.arange(1, len(seen)) // channels) % 4 > 0
  assert (before[same_row] > 0).all()


@BOTH
def test_channels_are_seen_in_their_order(make):
  """Red sees no channel of its own pixel, green sees red, blue sees red and green."""
  seen = jacobian(make((3, 3, 3), features=18, head=30))
  for pixel in range(1, 9):
    own = seen[3 * pixel : 3 * pixel + 3, 3 * pixel : 3 * pixel + 3]
    np.testing.assert_array_equal(own > 0, np.tril(np.ones((3, 3), bool), -1))
  # All channels of the pixel to the left are seen by all.
  assert (seen[12:15, 9:12] > 0).all()


def test_the_plain_stack_is_blind_above_and_to_the_right_and_the_gated_one_is_not():
  shape, (row, column) = (7, 9, 1), (5, 2)
  place = np.arange(63).reshape(7, 9)
  before = place < place[row, column]
  # A stem that sees 3 columns to the right of the row above, and 3x3 kernels that see one.
  for make, blind in ((plain, True), (gated, False)):
    deep = dict(blocks=5) if make is plain else dict(layers=7)
    seen = jacobian(make(shape, **deep))[place[row, column]].reshape(7, 9) > 0
    assert not seen[~before].any()
    assert (before & ~seen).any() == blind, make.__name__
    if blind:
      # Every step to the right costs a row up, so a wedge stays hidden however deep the stack.
      hidden = np.argwhere(before & ~seen)
      assert (hidden[:, 0] < row).all()
      assert (hidden[:, 1] > column).all()


# Likelihood.


@BOTH
def test_probabilities_of_all_images_sum_to_one(make):
  model = make((2, 2, 1))
  params, _ = created(model, (2, 2, 1))
  images = np.array(list(itertools.product((0, 1), repeat=4)), np.float32).reshape(16, 2, 2, 1)
  nll = model.observation.nll(model.apply({"params": params}, images).parameters, images)
  assert float(jnp.exp(-nll).sum()) == pytest.approx(1, abs=1e-5)
  assert float(jnp.exp(-nll).std()) > 1e-3  # not the uniform distribution, whose sum is no test


@BOTH
def test_probabilities_of_colours_sum_to_one(make):
  """A pixel of three channels with three levels, and one beside it: 729 images."""
  model = make((1, 2, 3), likelihood="categorical", levels=3)
  params, _ = created(model, (1, 2, 3))
  values = np.array(list(itertools.product((0, 0.5, 1), repeat=6)), np.float32)
  images = values.reshape(-1, 1, 2, 3)
  nll = model.observation.nll(model.apply({"params": params}, images).parameters, images)
  assert float(jnp.exp(-nll).sum()) == pytest.approx(1, abs=1e-4)


def test_a_network_of_zeros_is_uniform():
  model = gated((4, 4, 1), likelihood="categorical", levels=16)
  params = jax.tree.map(jnp.zeros_like, created(model, (4, 4, 1))[0])
  image = np.random.default_rng(0).integers(0, 16, (3, 4, 4, 1)).astype(np.float32) / 15
  batch = {"image": jnp.asarray(image), "mask": jnp.ones(3)}
  found = autoregressive.Task().measure(model)(params, {}, batch, None)
  assert float(found["bits_per_dim"].total / 3) == pytest.approx(4, rel=1e-6)
  assert float(found["loss"].total / 3) == pytest.approx(16 * math.log(16), rel=1e-6)


def test_independent_pixels():
  train = np.array([0, 1, 1, 1, 1, 1]).reshape(6, 1, 1, 1)
  test = np.array([1.0, 0.0]).reshape(2, 1, 1, 1)
  # Laplace's rule: (5 + 1) / (6 + 2) and (1 + 1) / (6 + 2).
  expected = -(math.log(6 / 8) + math.log(2 / 8)) / 2
  assert independent.nll(train, test, 2) == pytest.approx(expected)


@BOTH
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_finite_at_extreme_inputs(make, scale):
  model = make((4, 4, 1))
  params, mutable = created(model, (4, 4, 1))
  batch = batch_of((4, 4, 1), 4)
  batch["image"] = scale * batch["image"]
  (phase,) = autoregressive.Task().phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_grey_pixels_have_no_bernoulli_likelihood():
  found = load("experiments/autoregressive/gated_pixelcnn_digits.py:smoke")
  with pytest.raises(ConfigError, match="binarize"):
    build(override(found, [("data.binarize", "none")]))


# Sampling.


def probabilities(model, params, levels=2):
  """[images], and all images [levels^N, ...] they are of."""
  count = math.prod(model.data_shape)
  values = np.array(list(itertools.product(range(levels), repeat=count)), np.float32)
  images = values.reshape(-1, *model.data_shape) / (levels - 1)
  nll = model.observation.nll(model.apply({"params": params}, images).parameters, images)
  return np.exp(-np.asarray(nll, np.float64)), images


@BOTH
def test_samples_come_as_often_as_the_model_says(make):
  model, count = make((2, 2, 1)), 20_000
  params, _ = created(model, (2, 2, 1))
  params = jax.tree.map(lambda x: 2 * x, params)  # further from uniform
  p, _ = probabilities(model, params)
  drawn = jax.jit(
    lambda key: model.apply(
      {"params": params}, examples=count, method="sample", rngs={"latent": key}
    )
  )(jax.random.key(0))
  place = np.asarray(drawn).reshape(count, 4) @ np.array([8, 4, 2, 1])
  found = np.bincount(place.astype(int), minlength=16) / count
  assert p.max() / p.min() > 3
  assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / count)).all()


@BOTH
def test_completing_keeps_what_is_known(make):
  model = make((3, 4, 1))
  params, _ = created(model, (3, 4, 1))
  image = np.full((2, 3, 4, 1), 0.25, np.float32)  # what no draw could be
  drawn = model.apply(
    {"params": params}, image, known=5, method="complete", rngs={"latent": jax.random.key(0)}
  )
  flat = np.asarray(drawn).reshape(2, 12)
  assert (flat[:, :5] == 0.25).all()
  assert np.isin(flat[:, 5:], (0, 1)).all()


def test_a_draw_belongs_to_the_example():
  network = lambda x: jnp.zeros((*x.shape, 5))  # noqa: E731
  draw = lambda n: ancestral(  # noqa: E731
    network, jax.random.categorical, jnp.zeros((n, 2, 3, 1), jnp.int32), jax.random.key(0)
  )
  np.testing.assert_array_equal(draw(7)[:4], draw(4))
  assert len(np.unique(np.asarray(draw(7)).reshape(7, -1), axis=0)) == 7


# PyTorch on the same weights, in float64.


def torch_mask(kernel, kind, channels):
  """The mask [O, I, k, k] of a masked convolution, from its definition."""
  import torch

  side, _, inputs, outputs = kernel.shape
  mask, half = torch.zeros(outputs, inputs, side, side, dtype=torch.float64), side // 2
  mask[:, :, :half] = 1
  mask[:, :, half, :half] = 1
  for o in range(outputs):
    for i in range(inputs):
      mine, its = o * channels // outputs, i * channels // inputs
      mask[o, i, half, half] = float(its < mine if kind == "A" else its <= mine)
  return mask


def torch_masked(layer, x, kind="B", channels=1):
  import torch.nn.functional as F

  weight = layer["kernel"].permute(3, 2, 0, 1) * torch_mask(layer["kernel"], kind, channels)
  return F.conv2d(x, weight, layer["bias"], padding=layer["kernel"].shape[0] // 2)


@needs_torch
@pytest.mark.parametrize(
  ("side", "kind", "channels"),
  [(1, "B", 1), (1, "A", 3), (1, "B", 3), (3, "A", 1), (3, "B", 3), (7, "A", 3)],
)
def test_masked_convolution_is_pytorchs(side, kind, channels):
  import torch

  layer = MaskedConv(6, side, channels, kind=kind)
  x = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(np.float32)
  params = layer.init(jax.random.key(0), x)["params"]
  ours = layer.apply({"params": params}, x)
  theirs = torch_masked(
    to_torch(params), torch.tensor(x).double().permute(0, 3, 1, 2), kind, channels
  )
  theirs = theirs.permute(0, 2, 3, 1).detach().numpy()
  np.testing.assert_allclose(ours, theirs, atol=1e-5)


def torch_nll(parameters, x):
  """Mean over images of the nats of levels in [0, 1] under logits [B, C * P, H, W]."""
  import torch
  import torch.nn.functional as F

  examples, channels = x.shape[:2]
  logits = parameters.reshape(examples, channels, -1, *x.shape[2:])
  if logits.shape[2] == 1:
    bce = F.binary_cross_entropy_with_logits(logits[:, :, 0], x, reduction="none")
    return bce.flatten(1).sum(1).mean()
  level = torch.round(x * (logits.shape[2] - 1)).long()
  return F.cross_entropy(logits.transpose(1, 2), level, reduction="none").flatten(1).sum(1).mean()


def levels_of(data_shape, levels, examples=5):
  """A batch of images with so many grey levels."""
  drawn = np.random.default_rng(2).integers(0, levels, (examples, *data_shape))
  image = jnp.asarray(drawn / (levels - 1), jnp.float32)
  return {"image": image, "mask": jnp.ones(examples)}


KINDS = pytest.mark.parametrize(
  ("channels", "likelihood", "levels"), [(1, "bernoulli", 2), (3, "categorical", 4)]
)


@needs_torch
@KINDS
def test_pixelcnn_is_pytorchs(channels, likelihood, levels):
  import torch

  shape = (4, 4, channels)
  model = plain(shape, blocks=1, likelihood=likelihood, levels=levels)
  params, mutable = created(model, shape)
  batch = levels_of(shape, levels)
  (phase,) = autoregressive.Task().phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  image = torch.tensor(np.asarray(batch["image"], np.float64)).permute(0, 3, 1, 2)
  conv = lambda layer, x, kind="B": torch_masked(layer, x, kind, channels)  # noqa: E731
  x, block = conv(p["stem"], image, "A"), p["block_0"]
  y = conv(block["MaskedConv_0"], torch.relu(x))
  y = conv(block["MaskedConv_1"], torch.relu(y))
  x = x + conv(block["MaskedConv_2"], torch.relu(y))
  for name in ("head_0", "head_1", "output"):
    x = conv(p[name], torch.relu(x))
  expected = torch_nll(x, image)
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p))


@needs_torch
@KINDS
def test_gated_pixelcnn_is_pytorchs(channels, likelihood, levels):
  """The stacks by padding, cropping and shifting, as PyTorch code usually has them."""
  import torch
  import torch.nn.functional as F

  shape, features = (4, 5, channels), 6
  model = gated(shape, layers=2, features=features, likelihood=likelihood, levels=levels)
  params, mutable = created(model, shape)
  batch = levels_of(shape, levels)
  (phase,) = autoregressive.Task().phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  image = torch.tensor(np.asarray(batch["image"], np.float64)).permute(0, 3, 1, 2)
  one = lambda layer, x: F.conv2d(x, layer["kernel"].T[..., None, None], layer["bias"])  # noqa: E731

  def gate(x):
    return torch.tanh(x[:, :features]) * torch.sigmoid(x[:, features:])

  vertical = horizontal = image
  for i in range(2):
    layer, first = p["stacks"][f"layer_{i}"], i == 0
    rows = 1 if first else 2
    kernel = layer["vertical_kernel"].reshape(rows, 3, -1, 2 * features).permute(3, 2, 0, 1)
    # Padded above by all its rows and one more where the own row is hidden, cropped below.
    padded = F.pad(vertical, (1, 1, 1, 0))
    above = F.conv2d(padded, kernel, layer["vertical_bias"])[:, :, : shape[0]]
    own = torch.zeros(2 * features, horizontal.shape[1], dtype=torch.float64)
    for o, n in itertools.product(range(2 * features), range(horizontal.shape[1])):
      mine, its = o % features * channels // features, n * channels // horizontal.shape[1]
      own[o, n] = float(its < mine if first else its <= mine)
    kernel = layer["horizontal_kernel"].permute(2, 1, 0)
    if kernel.shape[2] == 2:
      kernel = torch.stack([kernel[:, :, 0], kernel[:, :, 1] * own], 2)
    else:  # a single channel: nothing of the pixel itself
      kernel = torch.stack([kernel[:, :, 0], 0 * own], 2)
    left = F.conv2d(F.pad(horizontal, (1, 0)), kernel[:, :, None], layer["horizontal_bias"])
    left = left + one(layer["across"], above)
    mixed = torch_masked(layer["out"], gate(left), "B", channels)
    vertical, horizontal = gate(above), mixed if first else mixed + horizontal
  y = torch_masked(p["stacks"]["head"], torch.relu(horizontal), "B", channels)
  y = torch_masked(p["stacks"]["output"], torch.relu(y), "B", channels)
  expected = torch_nll(y, image)
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p))
