"""Sprites with known factors, metrics of disentanglement, and the objectives that aim at it."""

import hashlib
import importlib.util
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp
from test_models import (
  batch_of,
  close,
  created,
  gradients,
  needs_torch,
  shapes,
  size,
  to_torch,
  torch_bernoulli_loss,
  torch_dense,
  torch_gradients,
)
from test_parallel import WAYS, assert_close, stage_of, steps_of

from data import shapes as sprites
from evaluation import disentanglement
from models.layers import batch_axis
from models.vae import Gaussian, Layer, convolutional, factor, factor_mlp, mlp, standard
from tasks import elbo
from tasks import factor as factor_task
from tasks import total_correlation as tc_task

DSPRITES = (64, 64, 1)
SMALL = dict(side=16, scales=3, orientations=8, positions=5, test_examples=200, validation=50)
needs_pythae = pytest.mark.skipif(
  importlib.util.find_spec("pythae") is None,
  reason="against pythae: `pip install --no-deps pythae`, and pydantic dill cloudpickle",
)


# Sprites.


def drawn(factors, sizes=(3, 6, 40, 32, 32), side=64, radius=0.2):
  return sprites.draw(np.array(factors), sizes=sizes, side=side, radius=radius)[..., 0] > 0


@pytest.mark.parametrize(
  ("factors", "digest"),
  [
    ([0, 0, 0, 0, 0], "23aa1fd1b654ae43"),
    ([1, 5, 7, 31, 16], "dce9ae38eb4ac039"),
    ([2, 3, 23, 5, 29], "e3d90d51f96703be"),
  ],
)
def test_pixels_are_the_same_on_every_machine(factors, digest):
  found = hashlib.sha256(np.packbits(drawn([factors]))).hexdigest()
  assert found[:16] == digest


def test_every_image_of_a_small_set_is_the_same_on_every_machine():
  source = sprites.Source(**SMALL)
  train = source.split("train").arrays["image"]
  assert hashlib.sha256(train.tobytes()).hexdigest()[:16] == "0b2643ce7eb65480"


def test_the_default_is_as_large_as_dsprites():
  source = sprites.Source()
  assert source.images == 737_280
  assert len(source.split("train")) == 717_280
  assert source.split("train").arrays is None  # 3 GB: drawn on demand


def test_splits_hold_every_combination_once():
  source = sprites.Source(**SMALL)
  parts = [source.split(name).arrays["factors"] for name in ("train", "validation", "test")]
  assert [len(part) for part in parts] == [1800 - 250, 50, 200]
  assert len(np.unique(np.concatenate(parts), axis=0)) == source.images == 1800
  assert (parts[0].min(0) == 0).all()
  assert (parts[0].max(0) + 1 == source.sizes).all()


def test_a_set_drawn_on_demand_is_the_set_in_memory():
  memory = sprites.Source(**SMALL).split("train")
  stream = sprites.Source(**SMALL, memory_limit=0).split("train")
  assert memory.arrays is not None
  assert stream.arrays is None
  rows = np.array([5, 0, 1549, 7])
  for name, array in memory.take(rows).items():
    np.testing.assert_array_equal(stream.take(rows)[name], array)
  assert memory.take(rows)["label"].tolist() == memory.take(rows)["factors"][:, 0].tolist()


def test_a_sprite_lies_where_its_factors_say():
  """Its middle on the grid of positions, its area that of the shape, all of it in the picture."""
  generator = np.random.default_rng(0)
  sizes = sprites.Source().sizes
  factors = np.stack([generator.integers(0, n, 300) for n in sizes], axis=1)
  image = drawn(factors, side=256)
  place = (np.arange(256) + 0.5) / 256
  area = image.sum((1, 2)) / 256**2
  right = (image * place).sum((1, 2)) / 256**2 / area
  up = 1 - (image * place[:, None]).sum((1, 2)) / 256**2 / area
  symmetric = factors[:, 0] < 2  # a heart's centre of mass is not the centre of its disc
  wanted = 0.2 + 0.6 * factors[:, 3:] / 31
  np.testing.assert_allclose(right[symmetric], wanted[symmetric, 0], atol=2e-3)
  np.testing.assert_allclose(up[symmetric], wanted[symmetric, 1], atol=2e-3)
  assert np.abs(np.stack([right, up], 1) - wanted).max() < 0.03
  # 2, pi / 2 and the heart's 3.661 / 1.26^2 times the square of the disc's radius.
  unit = np.array([2, math.pi / 2, 3.661 / 1.26**2])[factors[:, 0]]
  radius = 0.2 * (0.5 + 0.5 * factors[:, 1] / 5)
  np.testing.assert_allclose(area, unit * radius**2, rtol=0.03)
  distance = np.hypot(
    place - wanted[:, 0, None, None], 1 - place[:, None] - wanted[:, 1, None, None]
  )
  assert (
    distance[image] <= np.broadcast_to(radius[:, None, None], image.shape)[image] + 1e-9
  ).all()


def test_orientation_turns_a_sprite_anticlockwise():
  """A quarter turn of the picture is a quarter turn of the factor."""
  middle = [2, 5, 3, 2, 2]
  sizes = (3, 6, 40, 5, 5)
  image = drawn([middle, [2, 5, 13, 2, 2]], sizes)
  np.testing.assert_array_equal(np.rot90(image[0]), image[1])
  # A square looks the same after it, a heart does not.
  square = drawn([[0, 5, 3, 2, 2], [0, 5, 13, 2, 2]], sizes)
  np.testing.assert_array_equal(square[0], square[1])
  assert (image[0] != image[1]).any()


def test_more_examples_than_images_are_refused():
  with pytest.raises(ValueError, match="1800 images"):
    sprites.Source(**{**SMALL, "test_examples": 1750})


def test_the_fingerprint_is_of_what_is_drawn():
  first = sprites.Source(**SMALL).fingerprint()
  assert sprites.Source(**SMALL, memory_limit=0).fingerprint() == first
  assert sprites.Source(**SMALL, radius=0.25).fingerprint() != first


# Metrics.


def grid(*sizes, repeats=1):
  """Every combination of factors, `repeats` times."""
  factors = np.stack(np.unravel_index(np.arange(math.prod(sizes)), sizes), axis=1)
  return np.tile(factors, (repeats, 1))


FACTORS = grid(3, 4, 5, repeats=10)


def rotated(codes, seed=0):
  """Whitened codes in other axes."""
  q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(codes.shape[1],) * 2))
  return (codes - codes.mean(0)) / codes.std(0) @ q


def test_a_code_of_the_factors_is_perfect():
  found = disentanglement.scores(FACTORS.astype(float) * 2, FACTORS)
  assert found["mig"] == pytest.approx(1, abs=1e-12)
  assert found["higgins"] == found["factor_vae"] == 1


def test_metrics_do_not_mind_order_sign_or_spare_latents():
  codes = np.concatenate([np.zeros((len(FACTORS), 2)), -3.0 * FACTORS[:, ::-1] + 7], axis=1)
  found = disentanglement.scores(codes, FACTORS)
  assert found["mig"] == pytest.approx(1, abs=1e-12)
  assert found["higgins"] == found["factor_vae"] == 1


def test_a_rotated_code_is_worse_and_noise_is_chance():
  """Two factors turned by an eighth of a turn: either moves both latents alike."""
  pair = grid(7, 7, repeats=12)
  straight = disentanglement.scores(pair.astype(float), pair)
  turned = disentanglement.scores(pair @ np.array([[1.0, 1], [1, -1]]), pair)
  noise = np.random.default_rng(0).normal(size=pair.shape)
  guess = disentanglement.scores(noise, pair)
  assert straight == {"mig": pytest.approx(1), "higgins": 1, "factor_vae": 1}
  assert turned["mig"] == pytest.approx(0, abs=0.02)
  for name in ("higgins", "factor_vae"):
    assert abs(turned[name] - 1 / 2) < 0.08, name
    assert abs(guess[name] - 1 / 2) < 0.08, name
  # A finite sample of noise shares a little with anything.
  assert guess["mig"] < 0.05
  # Turned by less, the latents still speak of one factor more than of the other.
  little = disentanglement.scores(pair @ np.array([[1.0, 0.5], [0.5, -1]]), pair)
  assert little["factor_vae"] > 0.9


@pytest.mark.parametrize("codes", [np.zeros((600, 3)), 1e-3 * FACTORS])
def test_latents_that_hardly_vary_have_no_vote(codes):
  """Kim & Mnih leave them out; what is left is a guess."""
  found = disentanglement.factor_vae(codes, FACTORS, np.random.default_rng(0))
  assert found < 0.45


def test_codes_that_are_not_finite_have_no_metrics():
  codes = np.where(FACTORS == 2, np.nan, FACTORS)
  assert all(math.isnan(v) for v in disentanglement.scores(codes, FACTORS).values())


def test_a_factor_with_one_value_counts_nowhere():
  factors = np.concatenate([FACTORS, np.full((len(FACTORS), 1), 3)], axis=1)
  assert disentanglement.scores(FACTORS.astype(float), factors)["mig"] == pytest.approx(1)
  assert disentanglement.scores(FACTORS.astype(float), factors)["higgins"] == 1


def test_one_latent_of_two_factors_has_the_gap_of_the_first():
  """One latent that knows factor 1 of three: its share is 1 there, and no second is behind it."""
  codes = FACTORS[:, :1].astype(float)
  assert disentanglement.mutual_information_gap(codes, FACTORS) == pytest.approx(1 / 3)


def test_information_is_scikit_learns():
  from sklearn.metrics import mutual_info_score

  generator = np.random.default_rng(0)
  codes = FACTORS @ generator.normal(size=(3, 2)) + generator.normal(size=(len(FACTORS), 2))
  found = disentanglement.information(codes, FACTORS)
  for z in range(2):
    binned = np.digitize(codes[:, z], np.histogram(codes[:, z], 20)[1][1:-1])
    assert len(np.unique(binned)) > 15
    for k in range(3):
      assert found[z, k] == pytest.approx(mutual_info_score(binned, FACTORS[:, k]), abs=1e-9)


def test_examples_that_share_a_factor_share_it():
  sharing = disentanglement._Sharing(FACTORS)
  generator = np.random.default_rng(0)
  factor_ = generator.integers(0, 3, 2000)
  value = generator.integers(0, np.array([3, 4, 5])[factor_])
  rows = sharing.draw(factor_, value, generator)
  np.testing.assert_array_equal(FACTORS[rows, factor_], value)
  # Uniformly: the other factors take all of their values, about as often as each other.
  others = FACTORS[rows[factor_ == 0], 2]
  assert stats.chisquare(np.bincount(others)).pvalue > 1e-3


def test_metrics_are_functions_of_their_seed():
  codes = rotated(FACTORS.astype(float))
  assert disentanglement.scores(codes, FACTORS, 3) == disentanglement.scores(codes, FACTORS, 3)


def test_decomposition_of_one_gaussian_is_exact():
  """Where every posterior is the same, nothing is told, and a diagonal one ties nothing."""
  mean, log_variance = np.full((5, 2), 0.7), np.full((5, 2), -1.0)
  found = disentanglement.decomposition(mean, log_variance, np.random.default_rng(0), 20_000)
  assert found.mutual_information == pytest.approx(0, abs=1e-9)
  assert found.total_correlation == pytest.approx(0, abs=1e-9)
  kl = 0.5 * (np.exp(-1.0) + 0.49 - 1 + 1.0) * 2
  assert found.dimension_wise == pytest.approx(kl, abs=0.03)


def test_decomposition_of_four_corners_is_known():
  """Four narrow posteriors: at the corners of a square nothing is tied; on its diagonal all is."""
  log_variance = np.full((4, 2), -12.0)
  corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], float)
  found = disentanglement.decomposition(corners, log_variance, np.random.default_rng(0))
  assert found.mutual_information == pytest.approx(math.log(4), abs=1e-6)
  assert found.total_correlation == pytest.approx(0, abs=1e-6)
  diagonal = np.array([[-1, -1], [1, 1]], float)
  found = disentanglement.decomposition(diagonal, log_variance[:2], np.random.default_rng(0))
  assert found.mutual_information == pytest.approx(math.log(2), abs=1e-6)
  assert found.total_correlation == pytest.approx(math.log(2), abs=1e-6)


# Models.


def test_the_network_of_the_2d_shapes_has_its_size():
  params = shapes(mlp.Model(DSPRITES), DSPRITES)["params"]
  assert {k: size(v) for k, v in params.items()} == {"encoder": 6_381_620, "decoder": 7_814_896}
  assert size(params) == 14_196_516


def test_convolutional_sizes():
  # CelebA of 64x64: 32-32-64-64 of 4x4, 256 units, 32 latents.
  celeba = shapes(convolutional.Model((64, 64, 3), latents=32), (64, 64, 3))["params"]
  encoder = (48 * 32 + 32) + (512 * 32 + 32) + (512 * 64 + 64) + (1024 * 64 + 64)
  assert size(celeba["encoder"]) == encoder + (1024 * 256 + 256) + (256 * 64 + 64)
  decoder = (32 * 256 + 256) + (256 * 1024 + 1024)
  decoder += (1024 * 64 + 64) + (1024 * 32 + 32) + (512 * 32 + 32) + (512 * 3 + 3)
  assert size(celeba["decoder"]) == decoder


@pytest.mark.parametrize("model", [factor.Model(DSPRITES), factor_mlp.Model(DSPRITES)])
def test_the_discriminator_has_six_layers_of_1000(model):
  params = shapes(model, DSPRITES)["params"]
  assert set(params) == {"encoder", "decoder", "discriminator"}
  assert size(params["discriminator"]) == 11_000 + 5 * 1_001_000 + 1001


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 14, 2), (16, 16, 3), (5, 5, 1)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "categorical"])
def test_convolutions_come_back_to_any_size(shape, likelihood):
  model = convolutional.Model(shape, 7, channels=(4, 5, 6), hidden=8, likelihood=likelihood)
  out = jax.eval_shape(
    lambda: model.init_with_output({"params": jax.random.key(0)}, jnp.zeros((2, *shape)))[0]
  )
  assert out.parameters.shape == (
    2,
    *shape,
    {"bernoulli": 1, "gaussian": 2, "categorical": 7}[likelihood],
  )
  assert out.parameters.dtype == jnp.float32


TINY = dict(latents=3, encoder_widths=(9, 8), decoder_widths=(7, 6))


def torch_vae(p, x, noise, activations=("relu", "tanh")):
  """(logits, mean, log variance, z) of models/vae/mlp.py."""
  import torch

  def network(p, x, act):
    for i in range(len(p) - 1):
      x = getattr(torch, act)(torch_dense(p[f"Dense_{i}"], x))
    return torch_dense(p[f"Dense_{len(p) - 1}"], x)

  mean, log_variance = network(p["encoder"], x, activations[0]).chunk(2, dim=1)
  z = mean + torch.exp(log_variance / 2) * torch.tensor(noise, dtype=torch.float64)
  return network(p["decoder"], z, activations[1]), mean, log_variance, z


def fixed_noise(monkeypatch, shape):
  noise = np.random.default_rng(1).normal(size=shape).astype(np.float32)
  monkeypatch.setattr(batch_axis, "normal", lambda key, shape, dtype=jnp.float32: noise)
  return noise


@needs_torch
def test_the_2d_shapes_network_is_pytorchs(monkeypatch):
  import torch

  shape, examples = (4, 4, 1), 5
  model = mlp.Model(shape, **TINY)
  params, mutable = created(model, shape)
  batch = batch_of(shape, examples)
  noise = fixed_noise(monkeypatch, (examples, 3))
  (phase,) = elbo.Task(beta=4.0).phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  x = torch.tensor(np.asarray(batch["image"], np.float64)).flatten(1)
  logits, mean, log_variance, _ = torch_vae(p, x, noise)
  kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(1)
  expected = (torch_bernoulli_loss(logits, x) + 4 * kl).mean()
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p))


@needs_torch
def test_convolutional_vae_is_pytorchs(monkeypatch):
  import torch
  import torch.nn.functional as F

  shape, examples = (8, 8, 2), 4
  model = convolutional.Model(shape, latents=3, channels=(4, 5), hidden=7)
  params, mutable = created(model, shape)
  batch = batch_of(shape, examples)
  noise = fixed_noise(monkeypatch, (examples, 3))
  (phase,) = elbo.Task().phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  x = torch.tensor(np.asarray(batch["image"], np.float64))
  h, q = x.permute(0, 3, 1, 2), p["encoder"]
  for i in range(2):
    kernel = q[f"Conv_{i}"]["kernel"].permute(3, 2, 0, 1)
    h = F.relu(F.conv2d(h, kernel, q[f"Conv_{i}"]["bias"], stride=2, padding=1))
  h = F.relu(torch_dense(q["Dense_0"], h.permute(0, 2, 3, 1).flatten(1)))
  mean, log_variance = torch_dense(q["Dense_1"], h).chunk(2, dim=1)
  z = mean + torch.exp(log_variance / 2) * torch.tensor(noise, dtype=torch.float64)
  q = p["decoder"]
  h = F.relu(torch_dense(q["Dense_1"], F.relu(torch_dense(q["Dense_0"], z))))
  h = h.reshape(-1, 2, 2, 5).permute(0, 3, 1, 2)
  for i in range(2):
    # A transposed convolution there is the gradient of one: its kernel is turned by half a turn.
    kernel = q[f"ConvTranspose_{i}"]["kernel"].flip(0, 1).permute(2, 3, 0, 1)
    h = F.conv_transpose2d(h, kernel, q[f"ConvTranspose_{i}"]["bias"], stride=2, padding=1)
    h = F.relu(h) if i == 0 else h
  kl = 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance).sum(1)
  expected = (torch_bernoulli_loss(h.permute(0, 2, 3, 1), x) + kl).mean()
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p), rtol=2e-5)


# Objectives.

MODELS = {
  "mlp": (mlp.Model((4, 4, 1), **TINY), elbo.Task()),
  "convolutional": (
    convolutional.Model((4, 4, 1), latents=3, channels=(3, 4), hidden=5),
    elbo.Task(),
  ),
  "total correlation": (mlp.Model((4, 4, 1), **TINY), tc_task.Task(beta=6.0)),
  "factor": (
    factor_mlp.Model((4, 4, 1), **TINY, discriminator_widths=(5, 4)),
    factor_task.Task(gamma=3.0),
  ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pixel", [-1e4, 1e4])
def test_losses_and_gradients_are_finite_far_outside_the_data(name, pixel):
  model, task = MODELS[name]
  params, mutable = created(model, (4, 4, 1))
  batch = {**batch_of((4, 4, 1), 4), "image": jnp.full((4, 4, 4, 1), pixel)}
  for phase in task.phases(model):
    grads, loss, _, metrics = gradients(phase, params, mutable, batch)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, metrics)))


def random_layer(examples, latents, seed=0):
  generator = np.random.default_rng(seed)
  draw = lambda: jnp.asarray(generator.normal(size=(examples, latents)), jnp.float32)  # noqa: E731
  mean, log_variance = draw(), draw() - 1
  z = mean + jnp.exp(0.5 * log_variance) * draw()
  return Layer(Gaussian(mean, log_variance), standard(mean), z)


def test_the_three_terms_are_the_divergence():
  layer = random_layer(7, 4)
  parts = tc_task.decomposed(layer, jnp.ones(7))
  sampled = elbo.log_density(layer.latent, layer.posterior) - elbo.log_density(
    layer.latent, layer.prior
  )
  np.testing.assert_allclose(sum(parts.values()), sampled, rtol=1e-5, atol=1e-5)


def test_the_terms_are_those_of_the_mixture_of_the_batch():
  """Against SciPy's densities; the last two examples are padding, whatever they hold."""
  layer = random_layer(6, 3, seed=2)
  padded = jax.tree.map(lambda x: x.at[4:].set(jnp.nan), layer)
  parts = tc_task.decomposed(padded, jnp.array([1.0, 1, 1, 1, 0, 0]))
  (mean, log_variance), _, z = jax.tree.map(lambda x: np.asarray(x, np.float64)[:4], layer)
  log_q = stats.norm.logpdf(z[:, None], mean, np.exp(log_variance / 2))  # [4, 4, 3]
  log_q_z = logsumexp(log_q.sum(-1), axis=1) - math.log(4)
  log_product = (logsumexp(log_q, axis=1) - math.log(4)).sum(-1)
  log_q_x = np.diagonal(log_q.sum(-1))
  expected = {
    "mutual_information": log_q_x - log_q_z,
    "total_correlation": log_q_z - log_product,
    "dimension_wise": log_product - stats.norm.logpdf(z).sum(-1),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(parts[name][:4], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_estimate_agrees_with_the_exact_mixture():
  """With the whole set as its batch it is the decomposition of evaluation.json, up to noise."""
  layer = random_layer(400, 2, seed=1)
  parts = tc_task.decomposed(layer, jnp.ones(400))
  exact = disentanglement.decomposition(
    *(np.asarray(x) for x in layer.posterior), np.random.default_rng(0), 20_000
  )
  for name, value in exact._asdict().items():
    noise = float(np.std(parts[name]) / math.sqrt(400))
    assert abs(float(parts[name].mean()) - value) < 5 * noise, name


@needs_torch
@needs_pythae
@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_total_correlation_loss_is_pythaes(monkeypatch, beta):
  """Theirs of a set of one example: our 1 / M for their 1 / (N M)."""
  import torch
  from pythae.models import BetaTCVAE

  shape, examples = (4, 4, 1), 6
  model = mlp.Model(shape, **TINY)
  params, mutable = created(model, shape)
  batch = batch_of(shape, examples)
  noise = fixed_noise(monkeypatch, (examples, 3))
  (phase,) = tc_task.Task(beta=beta).phases(model)
  grads, loss, _, metrics = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  x = torch.tensor(np.asarray(batch["image"], np.float64)).flatten(1)
  logits, mean, log_variance, z = torch_vae(p, x, noise)
  theirs = types.SimpleNamespace(
    model_config=types.SimpleNamespace(reconstruction_loss="bce"),
    use_mss=False,
    alpha=1.0,
    beta=beta,
    gamma=1.0,
    _compute_log_gauss_density=lambda *args: BetaTCVAE._compute_log_gauss_density(None, *args),
  )
  expected, nll, divergence = BetaTCVAE.loss_function(
    theirs, torch.sigmoid(logits), x, mean, log_variance, z, dataset_size=1
  )
  close([loss, metrics["reconstruction"]], [expected.detach(), nll.detach()])
  close(loss - metrics["reconstruction"], divergence.detach())
  close(grads, torch_gradients(expected, p), rtol=2e-5)


@needs_torch
@needs_pythae
def test_factor_losses_are_pythaes(monkeypatch):
  import torch
  from pythae.models import FactorVAE

  shape, examples = (4, 4, 1), 6
  model = factor_mlp.Model(shape, **TINY, discriminator_widths=(5, 4))
  params, mutable = created(model, shape)
  batch = batch_of(shape, examples)
  noise = fixed_noise(monkeypatch, (examples, 3))
  whole = np.array([1, 0, 0, 1, 0, 1], bool)
  shuffled = np.random.default_rng(2).normal(size=(examples, 3)).astype(np.float32)
  monkeypatch.setattr(
    factor_task, "permuted", lambda z, mask, rng: (jnp.where(whole[:, None], z, shuffled), whole)
  )
  vae, discriminator = factor_task.Task(gamma=3.0).phases(model)
  grads, loss, _, metrics = gradients(vae, params, mutable, batch)
  d_grads, d_loss, _, _ = gradients(discriminator, params, mutable, batch)

  p = to_torch(params)
  x = torch.tensor(np.asarray(batch["image"], np.float64)).flatten(1)

  def judge(z):
    """Two logits whose difference is ours."""
    for i in range(2):
      z = torch.nn.functional.leaky_relu(torch_dense(p["discriminator"][f"Dense_{i}"], z), 0.2)
    logit = torch_dense(p["discriminator"]["Dense_2"], z)
    return torch.cat([logit, 0 * logit], dim=1)

  theirs = types.SimpleNamespace(
    model_config=types.SimpleNamespace(reconstruction_loss="bce"), gamma=3.0, discriminator=judge
  )
  outputs = torch_vae(p, x, noise)
  logits, mean, log_variance, z = outputs
  fake = torch.tensor(shuffled, dtype=torch.float64)
  args = (torch.sigmoid(logits), x, mean, log_variance, z, fake)
  nll, expected, _ = FactorVAE.loss_function(theirs, *args)
  close([loss, metrics["reconstruction"]], [expected.detach(), nll.detach()])
  found = torch_gradients(expected, p)
  close(grads, {name: found[name] for name in ("encoder", "decoder")})

  # The discriminator's: of the halves, and with the latents held fixed.
  for leaf in jax.tree.leaves(p):
    leaf.grad = None
  halves = [part.detach() for part in (logits[whole], x[whole], mean[whole], log_variance[whole])]
  halves[0] = torch.sigmoid(halves[0])
  _, _, expected = FactorVAE.loss_function(theirs, *halves, z[whole].detach(), fake[~whole])
  close(d_loss, expected.detach())
  expected.backward()
  wanted = jax.tree.map(lambda leaf: leaf.grad.numpy(), p["discriminator"])
  close(d_grads, {"discriminator": wanted})


@pytest.mark.parametrize("padding", [0, 3])
def test_half_of_the_batch_is_permuted_one_latent_at_a_time(padding):
  z = jnp.asarray(np.random.default_rng(0).normal(size=(10 + padding, 4)), jnp.float32)
  z = z.at[10:].set(jnp.nan)
  mask = (jnp.arange(10 + padding) < 10).astype(jnp.float32)
  moved = 0
  for seed in range(20):
    found, whole = factor_task.permuted(z, mask, jax.random.key(seed))
    found, whole = np.asarray(found)[:10], np.asarray(whole)[:10]
    assert whole.sum() == 5
    np.testing.assert_array_equal(found[whole], z[:10][whole])
    # The same values in every column of the rest, in orders of their own.
    before, after = np.asarray(z)[:10][~whole], found[~whole]
    np.testing.assert_array_equal(np.sort(after, axis=0), np.sort(before, axis=0))
    orders = {tuple((a[:, None] == b).argmax(1)) for a, b in zip(after.T, before.T, strict=True)}
    moved += len(orders) > 1
  assert moved == 20


def test_a_permuted_latent_goes_anywhere_alike():
  """Each of the permuted examples takes each one's value equally often."""
  z = jnp.arange(6.0)[:, None]
  run = jax.jit(jax.vmap(lambda key: factor_task.permuted(z, jnp.ones(6), key)))
  found, whole = run(jax.random.split(jax.random.key(0), 3000))
  first = np.asarray(found)[~np.asarray(whole)[:, 0], 0, 0].astype(int)
  counts = np.bincount(first, minlength=6)
  # Itself in a third of the cases, any other in two fifteenths.
  expected = len(first) * np.array([1 / 3, *[2 / 15] * 5])
  assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_a_discriminator_finds_the_total_correlation_of_a_gaussian():
  """E[log D / (1 - D)] of the best discriminator is -log(1 - rho^2) / 2 for two latents."""
  rho, count = 0.8, 4000
  generator = np.random.default_rng(0)
  z = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], count)
  joint = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]]).logpdf
  marginals = stats.multivariate_normal([0, 0], np.eye(2)).logpdf
  fake, whole = factor_task.permuted(
    jnp.asarray(z, jnp.float32), jnp.ones(count), jax.random.key(0)
  )
  fake, whole = np.asarray(fake), np.asarray(whole)
  assert (joint(z) - marginals(z)).mean() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.05)
  # The permuted half is uncorrelated, the other as it was.
  assert abs(np.corrcoef(fake[~whole].T)[0, 1]) < 0.08
  assert np.corrcoef(fake[whole].T)[0, 1] == pytest.approx(rho, abs=0.03)


def test_objectives_refuse_what_they_would_ignore():
  with pytest.raises(ValueError, match="beta alone"):
    tc_task.Task(free_bits=0.1)
  with pytest.raises(ValueError, match="discriminator"):
    factor_task.Task().phases(mlp.Model((4, 4, 1)))


def test_a_saturated_discriminator_is_noticed():
  *_, sentinel = factor_task.Task().sentinels()
  assert sentinel.name == "saturated discriminator"
  assert sentinel.holds({"discriminator/accuracy": 0.999})
  assert not sentinel.holds({"discriminator/accuracy": 0.8})
  assert not sentinel.holds({"vae/kl": 3.0})


@pytest.mark.parametrize("way", ["jit", "pmap"])
@pytest.mark.parametrize("experiment", ["total_correlation_shapes", "factor_shapes"])
def test_terms_of_a_batch_do_not_depend_on_the_devices(experiment, way):
  stage = stage_of(f"experiments/vae/{experiment}.py")
  wanted, _ = steps_of(stage, WAYS["one device"](), 6)
  found, _ = steps_of(stage, WAYS[way](), 6)
  assert_close(found, wanted, rtol=2e-5)
