"""Models and objectives: their sizes, PyTorch's numbers on the same weights, and what must hold."""

import functools
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.autoencoder import deep, stacked
from models.convnet import resnet
from models.gan import mlp
from models.layers import batch_axis, observation
from models.layers.dropout import Dropout
from models.layers.norm import BatchNorm
from models.vae import Gaussian, Layer, gaussian, standard
from models.vae import Output as VaeOutput
from tasks import adversarial, classify, elbo, layerwise, reconstruction, replies
from tasks.objective import Mean
from training import build, config, initial, step

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted(
  str(p.relative_to(ROOT).with_suffix("")) for p in ROOT.glob("experiments/*/*.py")
)
TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not TORCH, reason="parity is against PyTorch: `pip install torch`")

MNIST = (28, 28, 1)
CIFAR = (32, 32, 3)


def shapes(model, data_shape):
  image = jnp.zeros((1, *data_shape))
  return jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, image))


def size(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def created(model, data_shape, seed=0):
  """(params, mutable) of a model, biases and scales too away from where they start.

  At the start biases are zero and scales one, which would hide a bias that is never added.
  """
  image = jnp.zeros((1, *data_shape))
  variables = jax.jit(lambda: model.init({"params": jax.random.key(seed)}, image))()
  generator = np.random.default_rng(seed)
  move = lambda x: x + 0.1 * generator.normal(size=x.shape).astype(np.float32)  # noqa: E731
  params = jax.tree.map(lambda x: move(x) if x.ndim == 1 else x, variables["params"])
  return params, {k: v for k, v in variables.items() if k != "params"}


def batch_of(data_shape, examples, classes=10, seed=0):
  generator = np.random.default_rng(seed)
  return {
    "image": jnp.asarray(generator.random((examples, *data_shape), np.float32)),
    "label": jnp.asarray(generator.integers(0, classes, examples, np.int32)),
    "mask": jnp.ones(examples, jnp.float32),
  }


def gradients(phase, params, mutable, batch, seed=0):
  """`step.gradients` of one whole batch, compiled: (gradients, mean loss, mutable, metrics)."""
  index = jnp.arange(len(batch["mask"]))
  run = jax.jit(functools.partial(step.gradients, phase))
  grads, loss, mutable, metrics = run(params, mutable, batch, index, jax.random.key(seed))
  mean = lambda m: m.total / m.count  # noqa: E731
  return grads, mean(loss), mutable, {name: mean(m) for name, m in metrics.items()}


def close(ours, theirs, *, rtol=1e-5, floor=1e-6):
  """Leaf by leaf, within `rtol` of each leaf's largest value: sums of float32 allow no more.

  `floor` is the least value that is told from zero.
  """
  pairs = zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
  for (path, a), b in pairs:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    error = np.abs(a - b).max() / max(np.abs(b).max(), floor)
    assert a.shape == b.shape, jax.tree_util.keystr(path)
    assert error <= rtol, f"{jax.tree_util.keystr(path)}: relative error {error:.2e}"


# Sizes. The numbers are sums over the layers that the papers name, done by hand.


@pytest.mark.parametrize(
  ("latents", "count"), [(3, 790_290), (10, 800_804), (20, 815_824), (200, 1_086_184)]
)
def test_vae_sizes(latents, count):
  assert size(shapes(gaussian.Model(MNIST, hidden=500, latents=latents), MNIST)) == count


@pytest.mark.parametrize(("latents", "count"), [(2, 338_724), (10, 343_540), (20, 349_560)])
def test_vae_sizes_with_a_gaussian_decoder(latents, count):
  frey = (28, 20, 1)
  model = gaussian.Model(frey, hidden=200, latents=latents, likelihood="gaussian")
  assert size(shapes(model, frey)) == count


def test_deep_autoencoder_size():
  params = shapes(deep.Model(MNIST), MNIST)["params"]
  assert size(params) == 2_837_314
  encoder = {k: v for k, v in params.items() if k.startswith("encoder")}
  assert size(encoder) == 1_418_280


def test_stacked_autoencoder_size():
  params = shapes(stacked.Model(MNIST, 10), MNIST)["params"]
  assert set(params) == {"layer_0", "layer_1", "layer_2", "top"}
  encoders = [params[f"layer_{i}"]["encoder"] for i in range(3)]
  assert size([*encoders, params["top"]]) == 2_797_010
  # Untied decoders, which pretraining alone uses: 1000 * inputs + inputs each.
  decoders = [params[f"layer_{i}"]["decoder"] for i in range(3)]
  assert [size(d) for d in decoders] == [784_784, 1_001_000, 1_001_000]
  assert size(params) == size([*encoders, *decoders, params["top"]])


def test_pretrained_classifier_size():
  # Hinton & Salakhutdinov 2006: 784-500-500-2000-10, without the decoders of pretraining.
  params = shapes(stacked.Model(MNIST, 10, widths=(500, 500, 2000)), MNIST)["params"]
  encoders = [params[f"layer_{i}"]["encoder"] for i in range(3)]
  assert size([*encoders, params["top"]]) == 1_665_010


def test_gan_sizes():
  params = shapes(mlp.Model(MNIST), MNIST)["params"]
  assert {name: size(tree) for name, tree in params.items()} == {
    "generator": 2_503_984,
    "discriminator": 1_231_441,
  }


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(
  ("depth", "data_shape", "count"),
  [
    (20, CIFAR, 269_722),
    (32, CIFAR, 464_154),
    (44, CIFAR, 658_586),
    (56, CIFAR, 853_018),
    (110, CIFAR, 1_727_962),
    (20, MNIST, 269_434),
  ],
)
def test_resnet_sizes(depth, data_shape, count, residual):
  model = resnet.Model(data_shape, 10, blocks=(depth - 2) // 6, residual=residual)
  variables = shapes(model, data_shape)
  # Option A's shortcuts have no weights, so the plain network is as large.
  assert size(variables["params"]) == count
  weight_layers = [x for x in jax.tree.leaves(variables["params"]) if x.ndim > 1]
  assert len(weight_layers) == depth
  # A mean and a variance for each scale and bias.
  norms = [x for x in jax.tree.leaves(variables["params"]) if x.ndim == 1][:-1]
  assert size(variables["batch_stats"]) == size(norms)


def test_initial_weights_are_the_papers():
  def kernels(model, data_shape):
    image = jnp.zeros((1, *data_shape))
    return jax.jit(lambda: model.init({"params": jax.random.key(0)}, image))()["params"]

  params = kernels(gaussian.Model((8, 8, 1), hidden=64, latents=8, init_std=0.01), (8, 8, 1))
  assert float(params["encoder"]["kernel"].std()) == pytest.approx(0.01, rel=0.05)
  params = kernels(mlp.Model((8, 8, 1), 16, (64, 64), (64, 64)), (8, 8, 1))
  for group, limit in (("generator", 0.05), ("discriminator", 0.005)):
    kernel = params[group]["Dense_1"]["kernel"]
    assert 0.95 * limit < float(jnp.abs(kernel).max()) <= limit
    assert abs(float(kernel.mean())) < 0.1 * limit
  params = kernels(resnet.Model((8, 8, 1), 10, blocks=1), (8, 8, 1))
  kernel = params["stage_2_block_0"]["conv_1"]["kernel"]
  # He et al. 2015: variance 2 / (3 * 3 * 64).
  assert float(kernel.std()) == pytest.approx(math.sqrt(2 / 576), rel=0.03)


# PyTorch on the same weights, in float64, so that what differs is ours.


def to_torch(tree):
  import torch

  return jax.tree.map(lambda x: torch.tensor(np.asarray(x, np.float64), requires_grad=True), tree)


def torch_dense(layer, x):
  return x @ layer["kernel"] + layer["bias"]


def torch_gradients(loss, tree):
  """Gradients of a scalar by the leaves of a tree of tensors, as NumPy."""
  loss.backward()
  return jax.tree.map(lambda x: x.grad.numpy(), tree)


def torch_bernoulli_loss(logits, x):
  import torch

  bce = torch.nn.functional.binary_cross_entropy_with_logits
  return bce(logits, x, reduction="none").flatten(1).sum(1)


@needs_torch
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_vae_loss_and_gradients_are_pytorchs(monkeypatch, beta):
  import torch

  shape, examples = (4, 4, 1), 5
  model = gaussian.Model(shape, hidden=7, latents=3)
  params, mutable = created(model, shape)
  batch = batch_of(shape, examples)
  noise = np.random.default_rng(1).normal(size=(examples, 3)).astype(np.float32)
  monkeypatch.setattr(batch_axis, "normal", lambda key, shape, dtype=jnp.float32: noise)
  (phase,) = elbo.Task(beta=beta).phases(model)
  grads, loss, _, metrics = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  x = torch.tensor(np.asarray(batch["image"], np.float64)).flatten(1)
  moments = torch_dense(p["posterior"], torch.tanh(torch_dense(p["encoder"], x)))
  mean, log_variance = moments[:, :3], moments[:, 3:]
  z = mean + torch.exp(log_variance / 2) * torch.tensor(noise, dtype=torch.float64)
  logits = torch_dense(p["output"], torch.tanh(torch_dense(p["decoder"], z)))
  q = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
  prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
  kl = torch.distributions.kl_divergence(q, prior).sum(1).mean()
  nll = torch_bernoulli_loss(logits, x).mean()
  expected = nll + beta * kl
  close([loss, metrics["reconstruction"], metrics["kl"]], [v.detach() for v in (expected, nll, kl)])
  close(grads, torch_gradients(expected, p))


@needs_torch
@pytest.mark.parametrize("error", ["squared", "cross_entropy"])
@pytest.mark.parametrize("activation", ["logistic", "tanh", "relu"])
def test_deep_autoencoder_is_pytorchs(activation, error):
  import torch

  shape = (4, 4, 1)
  model = deep.Model(shape, widths=(9, 6), code=3, activation=activation)
  params, mutable = created(model, shape)
  batch = batch_of(shape, 5)
  (phase,) = reconstruction.Task(error=error).phases(model)
  grads, loss, _, metrics = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  act = {"logistic": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}[activation]
  x = torch.tensor(np.asarray(batch["image"], np.float64)).flatten(1)
  code = torch_dense(
    p["encoder_2"], act(torch_dense(p["encoder_1"], act(torch_dense(p["encoder_0"], x))))
  )
  logits = torch_dense(
    p["decoder_2"], act(torch_dense(p["decoder_1"], act(torch_dense(p["decoder_0"], code))))
  )
  expected = {
    "squared": (torch.sigmoid(logits) - x).square().sum(1).mean(),
    "cross_entropy": torch_bernoulli_loss(logits, x).mean(),
  }
  close(metrics, {k: v.detach() for k, v in expected.items() if k in ("squared", error)})
  close(loss, expected[error].detach())
  close(grads, torch_gradients(expected[error], p))


@needs_torch
@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("name", ["discriminator", "generator"])
def test_gan_losses_and_gradients_are_pytorchs(monkeypatch, pieces, name):
  import torch

  shape, examples = (4, 4, 1), 6
  model = mlp.Model(
    shape,
    noise=3,
    generator_widths=(8, 7),
    discriminator_widths=(5, 4),
    pieces=pieces,
    generator_init=0.0,
    discriminator_init=0.0,
  )
  params, mutable = created(model, shape)
  batch = batch_of(shape, examples)
  generator = np.random.default_rng(1)
  noise = generator.normal(size=(examples, 3)).astype(np.float32)
  masks = {units: generator.random((examples, units)) < 0.6 for units in (16, 5, 4)}
  monkeypatch.setattr(batch_axis, "normal", lambda key, shape, dtype=jnp.float32: noise)
  monkeypatch.setattr(batch_axis, "bernoulli", lambda key, p, shape: jnp.asarray(masks[shape[1]]))
  phase = {phase.name: phase for phase in adversarial.Task().phases(model)}[name]
  grads, loss, _, metrics = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  dropped = lambda x, rate: x * torch.tensor(masks[x.shape[1]]) / (1 - rate)  # noqa: E731

  def judge(x):
    x = dropped(x, 0.2)
    for i, units in enumerate((5, 4)):
      x = torch_dense(p["discriminator"][f"Dense_{i}"], x)
      if pieces > 1:
        x = x.reshape(-1, units, pieces).max(2).values
      else:
        x = torch.nn.functional.leaky_relu(x, 0.2)
      x = dropped(x, 0.5)
    return torch_dense(p["discriminator"]["Dense_2"], x)[:, 0]

  fake = torch.tensor(noise, dtype=torch.float64)
  for i in range(2):
    fake = torch.relu(torch_dense(p["generator"][f"Dense_{i}"], fake))
  fake = torch.sigmoid(torch_dense(p["generator"]["Dense_2"], fake))
  real = torch.tensor(np.asarray(batch["image"], np.float64)).flatten(1)
  bce = torch.nn.functional.binary_cross_entropy_with_logits
  one, zero = torch.ones(examples, dtype=torch.float64), torch.zeros(examples, dtype=torch.float64)
  expected = {
    "discriminator": bce(judge(real), one) + bce(judge(fake), zero),
    "generator": bce(judge(fake), one),
  }[name]
  close(loss, expected.detach())
  close(grads, {name: torch_gradients(expected, p)[name]})
  if name == "discriminator":
    assert float(metrics["real_accuracy"]) == pytest.approx(
      float((judge(real) > 0).double().mean())
    )
    assert float(metrics["fake_accuracy"]) == pytest.approx(
      float((judge(fake) < 0).double().mean())
    )


RESNET = dict(blocks=2, widths=(4, 6, 8))


def torch_resnet(p, stats, image, *, train, residual):
  """Logits of the ResNet of He et al. 2015, section 4.2, option A; `stats` change in training."""
  import torch.nn.functional as F

  def convolution(layer, x, stride=1):
    return F.conv2d(x, layer["kernel"].permute(3, 2, 0, 1), stride=stride, padding=1)

  def norm(x, scope, s):
    return F.batch_norm(
      x, s["mean"], s["variance"], scope["scale"], scope["bias"], train, momentum=0.1, eps=1e-5
    )

  x = convolution(p["stem"], image.permute(0, 3, 1, 2))
  x = F.relu(norm(x, p["stem_norm"], stats["stem_norm"]))
  for stage in range(3):
    for i in range(RESNET["blocks"]):
      name, stride = f"stage_{stage}_block_{i}", 2 if stage and not i else 1
      y = convolution(p[name]["conv_0"], x, stride)
      y = F.relu(norm(y, p[name]["norm_0"], stats[name]["norm_0"]))
      y = norm(convolution(p[name]["conv_1"], y), p[name]["norm_1"], stats[name]["norm_1"])
      if residual:
        more = y.shape[1] - x.shape[1]
        y = y + F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, more // 2, more - more // 2))
      x = F.relu(y)
  return torch_dense(p["top"], x.mean((2, 3)))


@needs_torch
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("residual", [True, False])
def test_resnet_is_pytorchs(residual, label_smoothing):
  import torch

  shape, examples = (8, 8, 3), 6
  model = resnet.Model(shape, 10, residual=residual, **RESNET)
  params, mutable = created(model, shape)
  batch = batch_of(shape, examples)
  task = classify.Task(label_smoothing=label_smoothing)
  grads, loss, after, metrics = gradients(task.phases(model)[0], params, mutable, batch)

  p = to_torch(params)
  stats = jax.tree.map(lambda x: torch.tensor(np.asarray(x, np.float64)), mutable["batch_stats"])
  image = torch.tensor(np.asarray(batch["image"], np.float64))
  label = torch.tensor(np.asarray(batch["label"]), dtype=torch.int64)
  logits = torch_resnet(p, stats, image, train=True, residual=residual)
  cross_entropy = torch.nn.functional.cross_entropy
  expected = cross_entropy(logits, label, label_smoothing=label_smoothing)
  close(loss, expected.detach())
  assert float(metrics["accuracy"]) == pytest.approx(
    float((logits.argmax(1) == label).double().mean())
  )
  # A bias before a normalisation does nothing, so its gradient is rounding alone; there is none.
  close(grads, torch_gradients(expected, p), rtol=5e-5)
  close(after["batch_stats"], stats)

  measured = task.measure(model)(params, after, batch, jax.random.key(0))
  logits = torch_resnet(p, stats, image, train=False, residual=residual)
  expected = cross_entropy(logits, label, label_smoothing=label_smoothing)
  close(measured["loss"].total / measured["loss"].count, expected.detach())
  ours = model.apply({"params": params, **after}, batch["image"], train=False)
  close(ours.logits, logits.detach())


@needs_torch
@pytest.mark.parametrize("shape", [(6, 3), (4, 5, 5, 3), (2, 7, 3)])
def test_batch_norm_is_pytorchs(shape):
  import torch

  generator = np.random.default_rng(0)
  layer = BatchNorm()
  theirs = (torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d)(3).double()
  variables = layer.init(jax.random.key(0), jnp.zeros(shape), train=False)
  scale, bias = generator.normal(size=(2, 3)).astype(np.float32)
  params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}
  theirs.weight.data, theirs.bias.data = torch.tensor(scale).double(), torch.tensor(bias).double()
  stats = variables["batch_stats"]
  front = lambda x: torch.tensor(np.moveaxis(x, -1, 1), dtype=torch.float64)  # noqa: E731
  for _ in range(3):
    x = (3 + 2 * generator.normal(size=shape)).astype(np.float32)
    y, new = layer.apply(
      {"params": params, "batch_stats": stats}, jnp.asarray(x), train=True, mutable=["batch_stats"]
    )
    stats = new["batch_stats"]
    close(np.moveaxis(y, -1, 1), theirs(front(x)).detach().numpy())
    # The running variance is the unbiased one: n / (n - 1) of what normalised the batch.
    close(stats, {"mean": theirs.running_mean, "variance": theirs.running_var})
  y = layer.apply({"params": params, "batch_stats": stats}, jnp.asarray(x), train=False)
  close(np.moveaxis(y, -1, 1), theirs.eval()(front(x)).detach().numpy())


def test_running_variance_is_unbiased_and_starts_at_one():
  layer = BatchNorm(momentum=0.0)
  x = jnp.asarray([[1.0], [2.0], [6.0]])
  variables = layer.init(jax.random.key(0), x, train=True)
  np.testing.assert_array_equal(variables["batch_stats"]["variance"], [1.0])
  np.testing.assert_array_equal(variables["batch_stats"]["mean"], [0.0])
  _, new = layer.apply(variables, x, train=True, mutable=["batch_stats"])
  np.testing.assert_allclose(new["batch_stats"]["variance"], [np.var([1, 2, 6], ddof=1)], rtol=1e-6)
  # One example has no variance to estimate: not nan.
  _, new = layer.apply(variables, x[:1], train=True, mutable=["batch_stats"])
  assert np.isfinite(jax.tree.leaves(new)).all()


def test_batch_norm_keeps_its_digits_where_the_mean_is_large():
  noise = np.random.default_rng(0).normal(size=(64, 4, 4, 2))
  x = (1e4 + noise).astype(np.float32)
  layer = BatchNorm()
  variables = layer.init(jax.random.key(0), jnp.asarray(x), train=False)
  y, new = layer.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])
  x64 = x.astype(np.float64)
  expected = (x64 - x64.mean((0, 1, 2))) / np.sqrt(x64.var((0, 1, 2)) + 1e-5)
  # float32 has 1e-3 between neighbours here; a one-pass variance would be wrong by several units.
  np.testing.assert_allclose(y, expected, atol=5e-3)
  variance = 0.9 + 0.1 * x64.var((0, 1, 2), ddof=1)
  np.testing.assert_allclose(new["batch_stats"]["variance"], variance, rtol=1e-3)


def test_batch_norm_statistics_are_float32_under_bfloat16():
  layer = BatchNorm(dtype=jnp.bfloat16)
  x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.bfloat16)
  variables = layer.init(jax.random.key(0), x, train=True)
  y, new = layer.apply(variables, x, train=True, mutable=["batch_stats"])
  assert y.dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves((variables, new))} == {jnp.dtype("float32")}


# Dropout and noise by example.


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
  x = jnp.full((100, 400), 3.0)
  y = Dropout(rate).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
  dropped = float((y == 0).mean())
  assert abs(dropped - rate) < 4 * math.sqrt(rate * (1 - rate) / x.size)
  np.testing.assert_allclose(np.unique(y), [0, 3 / (1 - rate)], rtol=1e-6)
  # Nothing is left of the examples' own streams if two of them drop the same units.
  assert len(np.unique(np.asarray(y) == 0, axis=0)) == 100


@pytest.mark.parametrize(("rate", "train"), [(0.5, False), (0.0, True), (0.0, False)])
def test_dropout_is_the_identity_when_it_is_off(rate, train):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)
  # Without a stream of randomness: asking for one would raise.
  np.testing.assert_array_equal(Dropout(rate).apply({}, x, train=train), x)


def test_noise_belongs_to_the_example():
  key = jax.random.key(0)
  whole = batch_axis.normal(key, (6, 3))
  np.testing.assert_array_equal(batch_axis.normal(key, (4, 3)), whole[:4])
  with batch_axis.scope(jnp.arange(2, 6), lambda tree: tree):
    np.testing.assert_array_equal(batch_axis.normal(key, (4, 3)), whole[2:])
  # The scope ends where its block does, after an error too.
  with pytest.raises(RuntimeError), batch_axis.scope(jnp.arange(2, 6), lambda tree: tree):
    raise RuntimeError
  np.testing.assert_array_equal(batch_axis.normal(key, (4, 3)), whole[:4])
  assert abs(float(batch_axis.normal(key, (100, 100)).std()) - 1) < 0.03


# What must hold whatever the weights.


class Stub:
  """A model whose output is given, to see an objective alone."""

  observation = observation.of("bernoulli", 0)

  def __init__(self, output):
    self.output = output

  def apply(self, variables, *inputs, **kwargs):
    return self.output(variables["params"]), {}


def vae_output(logits, mean, log_variance):
  """What a VAE with one layer of latents returns where its networks found these."""
  return VaeOutput(logits[..., None], (Layer(Gaussian(mean, log_variance), standard(mean), mean),))


def vae_terms(logits, mean, log_variance, image, beta=1.0):
  """The objective's measure where the networks' outputs are these."""
  output = vae_output(logits, mean, log_variance)
  batch = {"image": image, "mask": jnp.ones(len(image))}
  measure = elbo.Task(beta=beta).measure(Stub(lambda params: output))
  return {k: float(m.total / m.count) for k, m in measure({}, {}, batch, None).items()}


@pytest.mark.parametrize("seed", range(5))
def test_kl_is_what_monte_carlo_finds(seed):
  generator = np.random.default_rng(seed)
  mean, log_variance = generator.normal(size=(2, 1, 4)).astype(np.float32)
  z = mean + np.exp(log_variance / 2) * generator.normal(size=(200_000, 4))
  log_q = -0.5 * (np.square(z - mean) / np.exp(log_variance) + log_variance).sum(1)
  log_p = -0.5 * np.square(z).sum(1)
  difference = log_q - log_p
  margin = 5 * difference.std() / math.sqrt(len(z))
  image = jnp.zeros((1, 2, 2, 1))
  found = vae_terms(image, jnp.asarray(mean), jnp.asarray(log_variance), image)["kl"]
  assert abs(found - difference.mean()) < margin


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(-6, 6, width=32), min_size=4, max_size=4))
def test_kl_is_never_negative_and_vanishes_at_the_prior(values):
  image = jnp.zeros((1, 2, 2, 1))
  mean, log_variance = jnp.asarray(values, jnp.float32).reshape(2, 1, 2)
  assert vae_terms(image, mean, log_variance, image)["kl"] >= -1e-5
  assert vae_terms(image, 0 * mean, 0 * log_variance, image)["kl"] == 0


def test_elbo_is_the_bound_whatever_beta():
  image, half = jnp.ones((1, 2, 2, 1)), jnp.full((1, 2), 0.5)
  one, four = (vae_terms(image, half, half, image, beta) for beta in (1.0, 4.0))
  assert one["elbo"] == four["elbo"] == pytest.approx(-one["loss"])
  assert four["loss"] == pytest.approx(four["reconstruction"] + 4 * four["kl"])


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_vae_loss_is_finite_at_extreme_logits(logit, pixel):
  def loss(params):
    output = vae_output(params["logits"], params["mean"], params["mean"])
    batch = {"image": jnp.full((2, 2, 2, 1), pixel), "mask": jnp.ones(2)}
    (phase,) = elbo.Task().phases(Stub(lambda _: output))
    mean, _ = phase.loss(params, {}, batch, None)
    return mean.total / mean.count

  params = {"logits": jnp.full((2, 2, 2, 1), logit), "mean": jnp.zeros((2, 3))}
  value, grads = jax.value_and_grad(loss)(params)
  wrong = 4 * 1e4 if (logit > 0) != (pixel > 0) else 0.0
  assert float(value) == pytest.approx(wrong)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_vae_is_finite_at_extreme_inputs(scale):
  shape = (4, 4, 1)
  model = gaussian.Model(shape, hidden=7, latents=3)
  params, mutable = created(model, shape)
  batch = batch_of(shape, 4)
  batch["image"] = scale * batch["image"]
  (phase,) = elbo.Task().phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_zeroed_residual_branch_leaves_the_shortcut(stride):
  features = 4 * stride
  block = resnet.Block(features, stride, True, jnp.float32)
  x = jnp.abs(jax.random.normal(jax.random.key(0), (2, 6, 6, 4)))
  variables = block.init(jax.random.key(1), x, True)
  params = {
    **variables["params"],
    "norm_1": jax.tree.map(jnp.zeros_like, variables["params"]["norm_1"]),
  }
  out, _ = block.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
  expected = np.zeros((2, 6 // stride, 6 // stride, features), np.float32)
  added = features - 4
  expected[..., added // 2 : added // 2 + 4] = x[:, ::stride, ::stride]
  np.testing.assert_array_equal(out, expected)


# Phases: who is trained by what.


@pytest.fixture(scope="module")
def gan():
  shape = (4, 4, 1)
  model = mlp.Model(
    shape,
    noise=3,
    generator_widths=(8, 7),
    discriminator_widths=(5, 4),
    pieces=2,
    generator_init=0.0,
    discriminator_init=0.0,
  )
  return model, *created(model, shape), batch_of(shape, 6)


@pytest.mark.parametrize("name", ["discriminator", "generator"])
def test_gan_phases_train_their_own_player(gan, name):
  model, params, mutable, batch = gan
  phase = {phase.name: phase for phase in adversarial.Task().phases(model)}[name]
  grads, _, _, _ = gradients(phase, params, mutable, batch)
  assert phase.trains == (name,)
  assert set(grads) == {name}

  def whole(params):
    loss, _ = phase.loss(params, mutable, batch, jax.random.key(0))
    return loss.total / loss.count

  everything = jax.jit(jax.grad(whole))(params)
  close(grads[name], everything[name])
  # The loss does depend on the other player: only `trains` keeps it still.
  other = {"discriminator": "generator", "generator": "discriminator"}[name]
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(everything[other])) > 0


def test_gan_losses_at_chance(gan):
  model, params, mutable, batch = gan
  undecided = jax.tree.map(jnp.zeros_like, params["discriminator"]["Dense_2"])
  params = {**params, "discriminator": {**params["discriminator"], "Dense_2": undecided}}
  found = {
    phase.name: float(gradients(phase, params, mutable, batch)[1])
    for phase in adversarial.Task().phases(model)
  }
  assert found["discriminator"] == pytest.approx(2 * math.log(2), rel=1e-6)
  assert found["generator"] == pytest.approx(math.log(2), rel=1e-6)
  measured = adversarial.Task().measure(model)(params, mutable, batch, jax.random.key(0))
  assert float(measured["loss"].total / 6) == pytest.approx(2 * math.log(2), rel=1e-6)
  assert float(measured["fake_probability"].total / 6) == 0.5


@pytest.mark.parametrize("steps", [1, 3])
def test_discriminator_steps_are_repeats(gan, steps):
  phases = adversarial.Task(discriminator_steps=steps).phases(gan[0])
  assert [(phase.name, phase.repeats) for phase in phases] == [
    ("discriminator", steps),
    ("generator", 1),
  ]


@pytest.fixture(scope="module")
def stack():
  shape = (4, 4, 1)
  model = stacked.Model(shape, 10, widths=(7, 6, 5))
  return model, *created(model, shape), batch_of(shape, 6)


@pytest.mark.parametrize("layer", range(3))
def test_layerwise_trains_its_layer_alone(stack, layer):
  model, params, mutable, batch = stack
  (phase,) = layerwise.Task(layer=layer).phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)
  assert set(grads) == {f"layer_{layer}"}

  # The objective by hand: a logistic autoencoder of codes that are given, sums over units.
  x = np.asarray(batch["image"], np.float64).reshape(6, -1)
  sigmoid = lambda t: 1 / (1 + np.exp(-t))  # noqa: E731
  for below in range(layer):
    encoder = params[f"layer_{below}"]["encoder"]
    x = sigmoid(x @ np.asarray(encoder["kernel"], np.float64) + encoder["bias"])
  codes = jnp.asarray(x, jnp.float32)

  def alone(own):
    h = jax.nn.sigmoid(codes @ own["encoder"]["kernel"] + own["encoder"]["bias"])
    y = jax.nn.sigmoid(h @ own["decoder"]["kernel"] + own["decoder"]["bias"])
    return -(codes * jnp.log(y) + (1 - codes) * jnp.log1p(-y)).sum(1).mean()

  expected, own = jax.value_and_grad(alone)(params[f"layer_{layer}"])
  close(loss, expected)
  close(grads[f"layer_{layer}"], own)


@pytest.mark.parametrize("layer", range(3))
def test_a_layerwise_step_leaves_every_other_group_bit_for_bit(layer):
  settings = [(f"stages.{i}.training.steps", "1") for i in range(4)]
  found = smoke("experiments/autoencoder/stacked_digits", *settings)
  stage = found.stages[layer]
  params, mutable = created(stage.model, (8, 8, 1))
  stored = stored_batch(stage, stage.program.examples)
  rng = jax.random.key(0)
  # Optax's Adam raises a float to an integer power, which strict promotion forbids.
  with jax.numpy_dtype_promotion("standard"):
    state = step.initial(stage.program, params, mutable, rng)
    after = jax.jit(lambda s, x: step.train_step(s, x, stage.program))(state, stored)
  for group, tree in params.items():
    same = jax.tree.map(lambda a, b: bool((a == b).all()), tree, after.params[group])
    assert all(jax.tree.leaves(same)) == (group != f"layer_{layer}"), group


def test_layerwise_refuses_a_layer_that_is_not_there(stack):
  with pytest.raises(ValueError, match="3 layers"):
    layerwise.Task(layer=3).phases(stack[0])


# Every experiment.


@functools.cache
def smoke(experiment, *overrides):
  found = config.load(f"{ROOT / experiment}.py:smoke")
  return build.build(config.override(found, overrides))


def stages(kind):
  """Every stage of every experiment; `deep` where an earlier one is of its kind."""
  seen = set()
  for experiment in EXPERIMENTS:
    for index, stage in enumerate(smoke(experiment).stages):
      found, name = kind(stage), experiment.removeprefix("experiments/")
      marks = [pytest.mark.deep] if found in seen else []
      yield pytest.param(experiment, index, id=f"{name}-{stage.name}", marks=marks)
      seen.add(found)


def family(stage):
  return type(stage.model).__module__.rpartition(".")[0]


def model_and_task(stage):
  return type(stage.model), type(stage.task)


every_stage = pytest.mark.parametrize(("experiment", "index"), [*stages(model_and_task)])
every_family = pytest.mark.parametrize(("experiment", "index"), [*stages(family)])


def stored_batch(stage, examples, seed=0):
  """Random examples as the source stores them, so that no data need be here."""
  generator = np.random.default_rng(seed)
  facts = dict(stage.source.facts())
  most = facts["classes"] if "classes" in facts else 2

  def draw(spec):
    if spec.dtype == np.int32:
      return jnp.asarray(generator.integers(0, most, (examples, *spec.shape), np.int32))
    if spec.dtype == np.uint8:
      return jnp.asarray(generator.integers(0, 256, (examples, *spec.shape), np.uint8))
    return jnp.asarray(generator.random((examples, *spec.shape), np.float32))

  return {name: draw(spec) for name, spec in stage.source.spec().items()}


def seen(stage, examples, seed=0):
  """A batch as the model sees it in training, with its mask."""
  keys = jax.random.split(jax.random.key(seed), examples)
  batch = stage.program.transform(stored_batch(stage, examples, seed), keys)
  late = jnp.full(examples, 10**6, jnp.int32)  # every schedule has ended
  return {**batch, "mask": jnp.ones(examples, jnp.float32), "step": late}


def started(stage, seed=0):
  """(params, mutable) of a stage as a run would start it."""
  blank = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), initial.model_inputs(stage))
  variables = jax.jit(lambda: stage.model.init({"params": jax.random.key(seed)}, *blank))()
  return variables["params"], {k: v for k, v in variables.items() if k != "params"}


def test_there_are_experiments():
  assert len(EXPERIMENTS) >= 7


@every_stage
def test_every_parameter_of_every_phase_receives_a_gradient(experiment, index):
  stage = smoke(experiment).stages[index]
  params, mutable = started(stage)
  batch = seen(stage, 16)
  for phase in stage.program.phases:
    grads, loss, _, _ = gradients(phase, params, mutable, batch)
    assert np.isfinite(loss)
    groups = set(phase.trains or params)
    assert set(grads) == groups, phase.name
    for path, leaf in jax.tree.leaves_with_path(grads):
      where = f"{phase.name} {jax.tree_util.keystr(path)}"
      assert np.isfinite(leaf).all(), where
      if _is_idle(stage, phase, path):
        assert not np.any(leaf), where
      else:
        assert np.any(leaf), f"{where} receives no gradient"


_BELOW_HEAD = ("patch", "class", "position", "encoder", "final", "representation")
# Parameters that a phase leaves alone on purpose: (model, phase, part of the path).
IDLE = {
  ("autoencoder.stacked", "classify", "decoder"),  # fine-tuning goes through the encoders
  ("autoencoder.stacked_convolutional", "classify", "decoder"),
  ("autoencoder.stacked", "regress", "decoder"),
  # v of the alignment starts from zero (appendix B.1), so what it weighs moves a step later.
  ("recurrent.bahdanau", "sequence_to_sequence", "['query']"),
  ("recurrent.bahdanau", "sequence_to_sequence", "['key']"),
  # A Vision Transformer's classifier starts from zero (section 3.2), so what is below it does too.
  *(("transformer.vit", "classify", part) for part in _BELOW_HEAD),
  # Of an adapter's two factors the second starts from zero (Hu et al. 2021, section 4.1).
  ("transformer.classifier", "text_classify", "['a']"),
  ("transformer.token_classifier", "label_tokens", "['a']"),
}


def _is_idle(stage, phase, path):
  return any(
    stage.model.__module__ == f"models.{model}"
    and phase.name == name
    and part in jax.tree_util.keystr(path)
    for model, name, part in IDLE
  )


@every_family
def test_bfloat16_is_of_activations_only(experiment, index):
  whole = smoke(experiment).stages[index]
  place = f"stages.{index}." if len(smoke(experiment).stages) > 1 else ""
  half = smoke(experiment, (f"{place}training.dtype", "bfloat16")).stages[index]
  assert half.model.dtype == jnp.bfloat16
  params, mutable = started(half)
  assert _kinds_of_floats(params, mutable) == {jnp.dtype("float32")}
  batch = seen(half, 16)
  for phase, exact in zip(half.program.phases, whole.program.phases, strict=True):
    grads, loss, after, metrics = gradients(phase, params, mutable, batch)
    assert _kinds_of_floats(grads, loss, after, metrics) == {jnp.dtype("float32")}
    expected_grads, expected, *_ = gradients(exact, params, mutable, batch)
    assert abs(float(loss) / float(expected) - 1) < 0.02, phase.name
    # Otherwise nothing here was computed in bfloat16.
    pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True)
    assert any(np.any(a != b) for a, b in pairs)


def _kinds_of_floats(*trees):
  """Of arrays; counters may be integers."""
  return {x.dtype for x in jax.tree.leaves(trees) if jnp.issubdtype(x.dtype, jnp.floating)}


@pytest.mark.parametrize(
  ("model", "method", "read"),
  [
    (gaussian.Model((4, 4, 1), 7, 3, dtype=jnp.bfloat16), None, lambda out: out),
    (deep.Model((4, 4, 1), (7,), 3, dtype=jnp.bfloat16), None, lambda out: out),
    # The codes of the layers below are no objective's to read.
    (stacked.Model((4, 4, 1), 10, (7, 6), dtype=jnp.bfloat16), None, lambda out: out.logits),
    (stacked.Model((4, 4, 1), 10, (7, 6), dtype=jnp.bfloat16), "reconstruct", lambda out: out),
    (resnet.Model((8, 8, 1), 10, 1, (4, 4, 4), dtype=jnp.bfloat16), None, lambda out: out),
    (mlp.Model((4, 4, 1), 3, (5,), (5,), 2, dtype=jnp.bfloat16), "discriminate", lambda out: out),
    (mlp.Model((4, 4, 1), 3, (5,), (5,), 2, dtype=jnp.bfloat16), "generate", lambda out: out),
  ],
  ids=["vae", "deep", "stacked", "layer", "resnet", "discriminator", "generator"],
)
def test_outputs_are_float32_under_bfloat16(model, method, read):
  image = jnp.zeros((2, *model.data_shape))
  variables = jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, image))
  inputs = jnp.zeros((2, 3)) if method == "generate" else image
  fixed = {"discriminate": {"train": False}, "reconstruct": {"layer": 1}}.get(method, {})
  out = jax.eval_shape(
    lambda variables: read(
      model.apply(variables, inputs, method=method, rngs={"params": jax.random.key(0)}, **fixed)
    ),
    variables,
  )
  assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("float32")}


# Recomputation.


def test_remat_changes_nothing_but_memory():
  shape, examples = (8, 8, 3), 8
  batch = batch_of(shape, examples)
  found, memory, convolutions = [], [], []
  for remat in (False, True):
    model = resnet.Model(shape, 10, blocks=2, widths=(4, 4, 4), remat=remat)
    params, mutable = created(model, shape)
    (phase,) = classify.Task().phases(model)
    run = jax.jit(functools.partial(step.gradients, phase))
    args = (params, mutable, batch, jnp.arange(examples), jax.random.key(0))
    lowered = run.lower(*args)
    convolutions.append(lowered.as_text().count("stablehlo.convolution"))
    compiled = lowered.compile()
    memory.append(compiled.memory_analysis().temp_size_in_bytes)
    found.append(compiled(*args))
  (grads, loss, after, _), (grads_r, loss_r, after_r, _) = found
  close(loss_r, loss, rtol=1e-6)
  close(after_r, after, rtol=1e-6)
  close(grads_r, grads, rtol=1e-6)
  # Both of a block's convolutions are asked for once more, within the backward pass...
  assert convolutions[1] > convolutions[0]
  # ...but XLA's CPU compiler finds them to be the same as in the forward pass, and merges the two.
  if jax.default_backend() != "cpu":
    assert memory[1] < 0.8 * memory[0]


# Padding: a row under a zero mask is not there.


def padded(batch, rows):
  """`batch` with `rows` more under a zero mask, repeating the first, as the data room pads."""
  wider = jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[:1], rows, axis=0)]), batch)
  wider["mask"] = wider["mask"].at[-rows:].set(0.0)
  return wider


def _rounding(stage) -> float:
  """A divergence is the difference of two log probabilities of whole replies."""
  return 5e-6 if isinstance(stage.task, replies.Aligned) else 1e-6


@every_stage
def test_padding_changes_no_loss_metric_or_gradient(experiment, index):
  stage = smoke(experiment).stages[index]
  params, mutable = started(stage)
  if "batch_stats" in mutable:
    pytest.skip("normalises over the batch, and the data room never pads a training batch")
  batch = seen(stage, 12)
  for phase in stage.program.phases:
    grads, loss, _, metrics = gradients(phase, params, mutable, batch)
    again = gradients(phase, params, mutable, padded(batch, 4))
    numbers = (loss, metrics)
    # The mean of whitened advantages is zero but for rounding.
    floor = 1e-2 * largest(numbers) if isinstance(stage.task, replies.Aligned) else 1e-6
    close((again[1], again[3]), numbers, rtol=_rounding(stage), floor=floor)
    # A bias of keys shifts all of a query's logits alike: its gradient is zero but for rounding.
    close(again[0], grads, rtol=1e-5, floor=1e-3 * largest(grads))


def largest(tree) -> float:
  """The largest magnitude in a tree."""
  return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


@every_stage
def test_padding_changes_no_measure(experiment, index):
  stage = smoke(experiment).stages[index]
  params, mutable = started(stage)
  batch, rng = seen(stage, 6), jax.random.key(0)
  del batch["step"]  # which an evaluation does not have
  measure = jax.jit(stage.task.measure(stage.model))
  expected = measure(params, mutable, batch, rng)
  # Whatever the padded rows hold.
  wider = padded(batch, 2)
  for name, x in wider.items():
    if jnp.issubdtype(x.dtype, jnp.floating) and name != "mask":
      wider[name] = x.at[-2:].set(jnp.nan)
  found = measure(params, mutable, wider, rng)
  assert "loss" in found
  # One rounding of a reply's log probability, of ten nats, is 8e-6 of a divergence of a tenth.
  aligned = isinstance(stage.task, replies.Aligned)
  close(found, expected, rtol=2e-5 if aligned else _rounding(stage))
  if not {"tokens", "target", "words"} & set(batch):  # those count tokens
    assert all(float(m.count) == 6 for m in found.values())


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_means_add_over_parts_of_any_size(sizes):
  values = np.random.default_rng(0).normal(size=sum(sizes)).astype(np.float32)
  parts = [
    Mean.over(jnp.asarray(part), jnp.ones(len(part)))
    for part in np.split(values, np.cumsum(sizes)[:-1])
  ]
  total = functools.reduce(lambda a, b: a + b, parts)
  assert float(total.total / total.count) == pytest.approx(float(values.mean()), rel=1e-4, abs=1e-6)
