"""Discrete codes: quantisers, the models around them, priors over the codes."""

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
  torch_dense,
  torch_gradients,
)
from test_parallel import WAYS, assert_close, stage_of, steps_of

from models.layers import quantize
from models.vq import convolutional, hierarchical, mlp
from tasks import code_prior, vector_quantization
from tasks.objective import Examples

DIGITS = (8, 8, 1)


def small(**kwargs):
  settings = dict(codes=6, code_features=3, grid=(1, 2), hidden=7, fsq_levels=(3, 2)) | kwargs
  return mlp.Model((4, 4, 1), **settings)


# Sizes: sums over the layers that the papers name.


def test_the_authors_example_has_its_size():
  variables = shapes(convolutional.Model(CIFAR), CIFAR)
  parts = {name: size(tree) for name, tree in variables["params"]["codec"].items()}
  assert parts == {"encoder": 364_160, "to_codes": 8_256, "decoder": 290_307}
  codebook = size(variables["codebook"]["codec"]["quantizer"]["means"])
  assert codebook == 32_768
  assert sum(parts.values()) + codebook == 695_491
  # Learned by gradient, the codebook is a parameter like another.
  gradient = shapes(convolutional.Model(CIFAR, quantizer="gradient"), CIFAR)
  assert set(gradient) == {"params"}
  assert size(gradient) == 695_491


def test_the_papers_trunks_have_their_size():
  wide = dict(features=(256, 256), residual_features=256, code_features=256, middle=False)
  codec = shapes(convolutional.Model(CIFAR, **wide), CIFAR)["params"]["codec"]
  assert size(codec["encoder"]) == 2_373_120
  output = codec["decoder"]["ConvTranspose_1"]
  assert size(output) == 12_291
  assert size(codec["decoder"]) - size(output) == 2_360_576
  softmax = convolutional.Model(CIFAR, likelihood="categorical", levels=256, **wide)
  decoder = shapes(softmax, CIFAR)["params"]["codec"]["decoder"]
  assert size(decoder["ConvTranspose_1"]) == 3_146_496


@pytest.mark.parametrize(
  ("quantizer", "codebook"), [("ema", 0), ("gradient", 128), ("fsq", 0), ("none", 0)]
)
def test_small_model_sizes(quantizer, codebook):
  model = mlp.Model(DIGITS, quantizer=quantizer, codes=32, code_features=4, fsq_levels=(4, 2, 2, 2))
  sides = (64 * 128 + 128) + (128 * 32 + 32) + (32 * 128 + 128) + (128 * 64 + 64)
  assert size(shapes(model, DIGITS)["params"]) == sides + codebook


def test_odd_sides_are_refused():
  with pytest.raises(ValueError, match="halved"):
    _ = hierarchical.Model((28, 28, 1), features=(64, 128)).maps


# Quantisers.


def test_nearest_is_the_nearest():
  generator = np.random.default_rng(0)
  x, codebook = generator.normal(size=(5, 2, 4)), generator.normal(size=(7, 4))
  found = quantize.nearest(jnp.asarray(x, jnp.float32), jnp.asarray(codebook, jnp.float32))
  expected = np.square(x[..., None, :] - codebook).sum(-1).argmin(-1)
  np.testing.assert_array_equal(found, expected)


def test_nearest_is_in_float32_whatever_comes_in():
  codebook = jnp.asarray([[256.0], [257.0]])
  # bfloat16 has no number between 256 and 258: distances in it would tie.
  found = quantize.nearest(jnp.asarray([[256.0], [258.0]], jnp.bfloat16), codebook)
  np.testing.assert_array_equal(found, [0, 1])


def test_perplexity_counts_codes():
  assert float(quantize.perplexity(jnp.ones(8))) == pytest.approx(8)
  assert float(quantize.perplexity(jnp.asarray([5.0, 0, 0]))) == pytest.approx(1)
  p = np.array([0.7, 0.2, 0.1])
  expected = math.exp(-(p * np.log(p)).sum())
  assert float(quantize.perplexity(jnp.asarray(10 * p, jnp.float32))) == pytest.approx(expected)
  assert float(quantize.perplexity(jnp.zeros(4))) == 1  # of nothing, not nan


def quantizer(kind="ema", codes=3, features=2, **kwargs):
  layer = quantize.VectorQuantizer(codes, features, kind, **kwargs)
  x = jnp.zeros((1, features))
  return layer, layer.init(jax.random.key(0), x, train=False, mask_B=jnp.ones(1))


def followed(layer, variables, x, *, mask=None, steps=1, seed=0):
  """The codebook collection after so many training steps on the same vectors."""
  x = jnp.asarray(x, jnp.float32)
  mask = jnp.ones(len(x)) if mask is None else jnp.asarray(mask, jnp.float32)
  run = jax.jit(
    lambda v, key: layer.apply(
      v, x, train=True, mask_B=mask, mutable=["codebook"], rngs={"params": key}
    )[1]
  )
  for step in range(steps):
    variables = run(variables, jax.random.key(seed + step))
  return variables["codebook"]


def test_moving_averages_find_the_means_of_clusters():
  generator = np.random.default_rng(0)
  centres = np.array([[4.0, 0], [-4, 1], [0, -5]])
  x = np.concatenate(
    [c + 0.3 * generator.normal(size=(n, 2)) for c, n in zip(centres, (5, 9, 20), strict=True)]
  )
  layer, variables = quantizer(decay=0.9, epsilon=1e-9)
  start = {**variables["codebook"], "means": jnp.asarray(centres / 2, jnp.float32)}
  found = followed(layer, {"codebook": start}, x, steps=300)
  # Lloyd's fixed point: every code is the mean of what is nearest to it.
  owner = np.square(x[:, None] - np.asarray(found["means"])).sum(-1).argmin(1)
  for k in range(3):
    np.testing.assert_allclose(found["means"][k], x[owner == k].mean(0), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found["sizes"], [5, 9, 20], rtol=1e-4)


def test_the_codebook_changes_in_training_alone_and_by_examples_that_count():
  layer, variables = quantizer()
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)
  _, still = layer.apply(variables, x, train=False, mask_B=jnp.ones(4), mutable=["codebook"])
  jax.tree.map(np.testing.assert_array_equal, still["codebook"], variables["codebook"])
  moved = followed(layer, variables, x[:3])
  assert not np.array_equal(moved["means"], variables["codebook"]["means"])
  with_padding = followed(layer, variables, x.at[3].set(jnp.nan), mask=[1, 1, 1, 0])
  jax.tree.map(np.testing.assert_array_equal, with_padding, moved)


def test_dead_codes_start_again_at_what_the_encoder_says():
  x = np.array([[1.0, 1], [1.1, 1], [9, 9]])
  start = {
    "means": jnp.asarray([[1.0, 1], [500, 500], [-500, 500]]),
    "sizes": jnp.asarray([1.0, 1e-3, 1e-3]),
    "sums": jnp.asarray([[1.0, 1], [0.5, 0.5], [-0.5, 0.5]]),
  }
  layer, _ = quantizer(revive=0.1)
  masked = {"mask": [1, 1, 0]}
  found = followed(layer, {"codebook": start}, x, **masked)
  for k in (1, 2):
    gaps = np.abs(np.asarray(found["means"][k]) - x).max(1)
    assert gaps[:2].min() < 1e-3, "not an encoder output of the batch"
    assert found["sizes"][k] == 1
  kept, _ = quantizer(revive=0.0)
  assert np.abs(followed(kept, {"codebook": start}, x, **masked)["means"][1]).max() > 100


@pytest.mark.parametrize("kind", ["ema", "gradient", "fsq"])
def test_gradients_pass_straight_through(kind):
  """What comes in receives the gradient of what goes out (of FSQ: of what was rounded)."""
  layer = quantize.of(kind, codes=5, features=3, levels=(5, 4, 3), decay=0.99, revive=0.0)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
  weights = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)
  variables = layer.init(jax.random.key(0), x, train=False, mask_B=jnp.ones(4))
  run = lambda x: layer.apply(variables, x, train=False, mask_B=jnp.ones(4))  # noqa: E731
  out = run(x)
  loss = lambda y: (weights * jnp.sin(y)).sum()  # noqa: E731
  found = jax.grad(lambda x: loss(run(x).straight))(x)
  expected = jax.grad(loss)(out.straight)
  np.testing.assert_allclose(out.straight, out.codes, atol=1e-6)
  if kind == "fsq":
    bound = layer.bind(variables).bound
    _, pull = jax.vjp(lambda x: bound(x) / jnp.asarray([2.0, 2.0, 1.0]), x)
    (expected,) = pull(expected)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


FSQ_LEVELS = pytest.mark.parametrize("levels", [(8, 5, 5, 5), (4, 2, 2, 2), (3,), (7, 5, 6)])


@FSQ_LEVELS
def test_every_index_of_fsq_is_a_code_that_is_quantized_to_itself(levels):
  layer = quantize.FSQ(levels)
  indices = jnp.arange(layer.codes)
  codes = layer.lookup(indices)
  assert layer.codes == math.prod(levels) == len(np.unique(np.asarray(codes), axis=0))
  assert float(codes.min()) == -1
  assert float(codes.max()) <= 1
  # Inputs that the bound takes to the codes: its inverse, away from infinity.
  half = np.array([(n - 1) * 0.999 / 2 for n in levels])
  offset = np.array([0.5 if n % 2 == 0 else 0.0 for n in levels])
  integers = np.asarray(codes) * np.array([n // 2 for n in levels])
  x = np.arctanh(np.clip((integers + offset) / half, -0.999, 0.999)) - np.tan(offset / half)
  out = layer(jnp.asarray(x, jnp.float32), train=False, mask_B=jnp.ones(len(x)))
  np.testing.assert_array_equal(out.indices, indices)
  np.testing.assert_allclose(out.straight, codes, atol=1e-6)


@FSQ_LEVELS
def test_fsq_is_centred(levels):
  layer = quantize.FSQ(levels)
  out = layer(jnp.zeros((1, len(levels))), train=False, mask_B=jnp.ones(1))
  np.testing.assert_allclose(out.straight, 0, atol=1e-6)
  far = layer(jnp.asarray([[1e4], [-1e4]]) * jnp.ones(len(levels)), train=False, mask_B=jnp.ones(2))
  np.testing.assert_array_equal(far.indices, [math.prod(levels) - 1, 0])


# Against others' code.


@needs_torch
def test_moving_averages_are_those_of_vector_quantize_pytorch():
  theirs_module = pytest.importorskip(
    "vector_quantize_pytorch", reason="pip install vector-quantize-pytorch"
  )
  import torch

  theirs = theirs_module.VectorQuantize(
    dim=4,
    codebook_size=6,
    decay=0.9,
    commitment_weight=0.25,
    threshold_ema_dead_code=0,
    rotation_trick=False,
  )
  generator = np.random.default_rng(0)
  means = generator.normal(size=(6, 4)).astype(np.float32)
  book = theirs._codebook
  book.embed.data = torch.tensor(means)[None]
  book.embed_avg.data = torch.tensor(means)[None].clone()
  book.cluster_size.data = torch.ones(1, 6)
  layer, _ = quantizer(codes=6, features=4, decay=0.9)
  start = {"means": jnp.asarray(means), "sizes": jnp.ones(6), "sums": jnp.asarray(means)}
  variables = {"codebook": start}
  theirs.train()
  for _ in range(3):
    x = generator.normal(size=(5, 2, 4)).astype(np.float32)
    y, index, loss = theirs(torch.tensor(x))
    out, variables = layer.apply(
      variables, x, train=True, mask_B=jnp.ones(5), mutable=["codebook"], rngs={}
    )
    np.testing.assert_array_equal(out.indices, index.numpy())
    close(out.straight, y.detach().numpy())
    # Theirs is a mean over dimensions too.
    commitment = jnp.square(out.encoded - out.codes).sum(-1).mean() * 0.25 / 4
    close(commitment, loss.detach().numpy().squeeze())
    found = variables["codebook"]
    close(found["means"], book.embed[0].numpy())
    close(found["sums"], book.embed_avg[0].numpy())
    close(found["sizes"], book.cluster_size[0].numpy())


@needs_torch
@pytest.mark.parametrize("levels", [(7, 5, 5), (3, 9)])
def test_fsq_codes_are_those_of_vector_quantize_pytorch(levels):
  """Odd numbers of levels only: for even ones its bound has since left the paper's."""
  theirs_module = pytest.importorskip(
    "vector_quantize_pytorch", reason="pip install vector-quantize-pytorch"
  )
  import torch

  theirs, ours = theirs_module.FSQ(list(levels)).eval(), quantize.FSQ(levels)
  every = jnp.arange(math.prod(levels))
  close(ours.lookup(every), theirs.indices_to_codes(torch.arange(math.prod(levels))).numpy())
  x = np.random.default_rng(0).normal(size=(60, 4, len(levels))).astype(np.float32)
  # Its bound is wider than the paper's by 0.002, which may round otherwise half way between codes.
  bounded = np.asarray(ours.bound(jnp.asarray(x)))
  x = x[(np.abs(bounded - np.floor(bounded) - 0.5) > 0.02).all((1, 2))]
  assert len(x) > 10
  y, index = theirs(torch.tensor(x))
  out = ours(jnp.asarray(x), train=False, mask_B=jnp.ones(len(x)))
  np.testing.assert_array_equal(out.indices, index.numpy())
  close(out.straight, y.detach().numpy())


@needs_torch
@pytest.mark.parametrize("error", ["squared", "nll"])
@pytest.mark.parametrize("kind", ["ema", "gradient"])
def test_vq_vae_is_pytorchs(kind, error):
  import torch

  shape, examples = (4, 4, 1), 5
  model = small(quantizer=kind, likelihood="bernoulli", prior_layers=0)
  params, mutable = created(model, shape)
  batch = batch_of(shape, examples)
  (phase,) = vector_quantization.Task(error=error, commitment=0.4).phases(model)
  grads, loss, after, _ = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  codec = p["codec"]
  x = torch.tensor(np.asarray(batch["image"], np.float64)).flatten(1)
  h = torch_dense(codec["encoder_1"], torch.relu(torch_dense(codec["encoder_0"], x)))
  z = h.reshape(examples, 2, 3)
  if kind == "gradient":
    codebook = codec["quantizer"]["codebook"]
  else:
    means = np.asarray(mutable["codebook"]["codec"]["quantizer"]["means"], np.float64)
    codebook = torch.tensor(means)
  index = torch.cdist(z, codebook.detach()[None].expand(examples, -1, -1)).argmin(-1)
  e = codebook[index]
  straight = z + (e - z).detach()
  y = torch.relu(torch_dense(codec["decoder_0"], straight.flatten(1)))
  logits = torch_dense(codec["decoder_1"], y)
  bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
  errors = {"squared": (torch.sigmoid(logits) - x).square(), "nll": bce}[error]
  expected = errors.sum(1).mean() + 0.4 * (z - e.detach()).square().sum(-1).mean()
  if kind == "gradient":
    expected = expected + (z.detach() - e).square().sum(-1).mean()
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p))
  if kind == "gradient":
    # The codebook's gradient is that of its own term alone: 2 (e - z) of what chose each code.
    own = np.zeros((6, 3))
    gap = 2 * (e - z).detach().numpy().reshape(-1, 3) / z.shape[:2].numel()
    np.add.at(own, index.numpy().ravel(), gap)
    close(grads["codec"]["quantizer"]["codebook"], own)
  else:
    n = np.bincount(index.numpy().ravel(), minlength=6)
    close(after["codebook"]["codec"]["quantizer"]["sizes"], 0.99 + 0.01 * n)


# Devices.


@pytest.mark.parametrize("way", ["jit", "pmap"])
def test_codebooks_do_not_depend_on_the_devices(way):
  # A threshold that codes fall below within a step, so that the whole batch is asked for new ones.
  stage = stage_of("experiments/vq/vq_digits.py", model__revive=0.995)
  wanted_losses, wanted = steps_of(stage, WAYS["one device"](), 5)
  losses, state = steps_of(stage, WAYS[way](), 5)
  assert_close(losses, wanted_losses)
  start = steps_of(stage, WAYS["one device"](), 0)[1].mutable["codebook"]["codec"]["quantizer"]
  moved = np.abs(
    np.asarray(state.mutable["codebook"]["codec"]["quantizer"]["means"]) - start["means"]
  )
  assert (moved.max(1) > 0.02).any(), "no code started again"
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    state.mutable,
    wanted.mutable,
  )


# Models and objectives.


@pytest.mark.parametrize("kind", ["ema", "gradient", "fsq", "none"])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_finite_at_extreme_inputs(kind, scale):
  model = small(quantizer=kind)
  params, mutable = created(model, (4, 4, 1))
  batch = batch_of((4, 4, 1), 4)
  batch["image"] = scale * batch["image"]
  (phase,) = vector_quantization.Task().phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.fixture(scope="module")
def with_prior():
  model = small(codes=3, prior_layers=2, prior_features=5)
  params, mutable = created(model, (4, 4, 1))
  return model, params, mutable


def test_each_stage_trains_its_own_group(with_prior):
  model, params, mutable = with_prior
  batch = batch_of((4, 4, 1), 4)
  for task, group in ((vector_quantization, "codec"), (code_prior, "prior")):
    (phase,) = task.Task().phases(model)
    grads, _, after, _ = gradients(phase, params, mutable, batch)
    assert phase.trains == (group,)
    assert set(grads) == {group}
    same = jax.tree.map(lambda a, b: bool((a == b).all()), after, mutable)
    # A finished codebook stays as it is while a prior is fitted to its codes.
    assert all(jax.tree.leaves(same)) == (group == "prior")


def test_a_prior_needs_codes():
  for model in (small(), small(quantizer="none", prior_layers=0)):
    with pytest.raises(ValueError, match="prior_layers"):
      code_prior.Task().phases(model)


def prior_probabilities(model, params, mutable, maps):
  """p [N] of code maps under the prior."""
  logits = model.apply(
    {"params": params, **mutable}, maps, method=lambda model, maps: model.prior(maps)
  )
  log_p = 0.0
  for map_, one in zip(maps, logits, strict=True):
    own = np.take_along_axis(np.asarray(jax.nn.log_softmax(one)), map_[..., None], -1)
    log_p += own.reshape(len(map_), -1).sum(1)
  return np.exp(np.float64(log_p))


def every_map(codes, *shapes_):
  """All code maps of these shapes, as a tuple of [N, ...]."""
  sizes = [math.prod(shape) for shape in shapes_]
  values = np.array(list(itertools.product(range(codes), repeat=sum(sizes))), np.int32)
  parts = np.split(values, np.cumsum(sizes)[:-1], axis=1)
  return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes_, strict=True))


def test_the_prior_is_a_distribution_and_is_sampled_from(with_prior):
  model, params, mutable = with_prior
  params = {**params, "prior": jax.tree.map(lambda x: 3.0 * x, params["prior"])}
  maps = every_map(3, (1, 2, 1))
  p = prior_probabilities(model, params, mutable, maps)
  assert p.sum() == pytest.approx(1, abs=1e-5)
  assert p.max() / p.min() > 2
  count = 20_000
  (drawn,) = model.apply(
    {"params": params, **mutable},
    method=lambda model: model.prior.sample(count, jax.random.key(0)),
  )
  place = np.asarray(drawn).reshape(count, 2) @ np.array([3, 1])
  found = np.bincount(place, minlength=9) / count
  assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / count)).all()


def test_the_log_prior_is_that_of_the_images_codes(with_prior):
  model, params, mutable = with_prior
  image = batch_of((4, 4, 1), 5)["image"]
  variables = {"params": params, **mutable}
  maps = tuple(np.asarray(m) for m in model.apply(variables, image, method="indices"))
  (log_p,) = model.apply(variables, image, method="log_prior")
  np.testing.assert_allclose(
    np.exp(log_p), prior_probabilities(model, params, mutable, maps), rtol=1e-5
  )


@pytest.fixture(scope="module")
def two_levels():
  model = hierarchical.Model(
    (4, 4, 1),
    features=(4,),
    residual_blocks=1,
    residual_features=3,
    codes=2,
    code_features=3,
    prior_layers=1,
    prior_features=4,
  )
  return model, *created(model, (4, 4, 1))


def test_the_top_prior_conditions_the_bottom(two_levels):
  model, params, mutable = two_levels
  assert model.maps == ((2, 2, 1), (1, 1, 1))
  maps = every_map(2, (2, 2, 1), (1, 1, 1))
  p = prior_probabilities(model, params, mutable, maps)
  assert p.sum() == pytest.approx(1, abs=1e-5)
  table = p.reshape(16, 2)
  given = table / table.sum(0)
  assert np.abs(given[:, 0] - given[:, 1]).max() > 1e-4


def test_the_top_codes_help_to_choose_the_bottom_ones(two_levels):
  model, params, mutable = two_levels
  image = batch_of((4, 4, 1), 3)["image"]

  def encoded(codebook, level):
    book = {**mutable["codebook"]["codec"], "quantizers_1": codebook}
    variables = {"params": params, "codebook": {"codec": book}}
    return model.apply(variables, image).levels[level].encoded

  top = mutable["codebook"]["codec"]["quantizers_1"]
  moved = {**top, "means": top["means"] + 1.0}
  assert np.abs(encoded(moved, 0) - encoded(top, 0)).max() > 1e-4
  np.testing.assert_array_equal(encoded(moved, 1), encoded(top, 1))


def test_several_codes_at_a_position_are_read_in_order():
  model = convolutional.Model(
    (4, 4, 1),
    features=(4,),
    residual_blocks=0,
    codes=2,
    code_features=2,
    codes_each=2,
    prior_layers=2,
    prior_features=4,
  )
  params, mutable = created(model, (4, 4, 1))
  assert model.maps == ((2, 2, 2),)
  p = prior_probabilities(model, params, mutable, every_map(2, (2, 2, 2)))
  assert p.sum() == pytest.approx(1, abs=1e-5)


class Fixed:
  """A trained model that encodes images as codes that are given."""

  def __init__(self, model, maps):
    self.model, self.maps = model, maps

  def __call__(self, image, *, method, seed=0):
    assert method == "indices"
    return tuple(map_[image] for map_ in self.maps)


def test_usage_is_of_the_whole_test_set():
  """Batches of 200 that use one code each say nothing; all of them together use three."""
  codes = np.repeat(np.arange(3), 200)
  maps = (codes.reshape(-1, 1, 1, 1).repeat(2, axis=2),)
  examples = Examples({"image": np.arange(600)})
  found = vector_quantization.Task().score(Fixed(small(), maps), examples, examples)
  assert found["perplexity"] == pytest.approx(3, rel=1e-5)
  assert found["codes_used"] == 3
  assert found["code_bits"] == pytest.approx(2 * math.log2(6))


def test_a_dying_codebook_is_noticed():
  (sentinel,) = vector_quantization.Task().sentinels()
  assert sentinel.holds({"loss": 1.0, "usage": 0.05})
  assert sentinel.holds({"loss": 1.0, "usage_1": 0.9, "usage_2": 0.01})
  assert not sentinel.holds({"loss": 1.0, "usage": 0.5})
  assert not sentinel.holds({"loss": 0.01})


def test_bits_per_dim_is_a_bound_with_all_codes():
  model = small(likelihood="categorical", levels=4, prior_layers=0)
  params, mutable = created(model, (4, 4, 1))
  image = np.random.default_rng(0).integers(0, 4, (5, 4, 4, 1)).astype(np.float32) / 3
  batch = {"image": jnp.asarray(image), "mask": jnp.ones(5)}
  found = vector_quantization.Task(error="nll").measure(model)(params, mutable, batch, None)
  nats = float(found["nll"].total / 5) + 2 * math.log(6)
  assert float(found["bits_per_dim"].total / 5) == pytest.approx(nats / (16 * math.log(2)))
