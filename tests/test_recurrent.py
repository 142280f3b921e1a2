"""Recurrent networks: their sizes, PyTorch's numbers on the same weights, and what must hold."""

import functools
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import seq2seq_step
from models.layers import alignment, cells
from models.layers.recurrence import unroll
from models.recurrent import bahdanau, cho, language_model, luong, maxout, sutskever

TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not TORCH, reason="parity is against PyTorch: `pip install torch`")

SMALL = dict(features=6, embedding=5)
WRITERS = {  # models of pairs, 8 words to 9 words
  "sutskever": sutskever.Model(8, 9, layers=2, **SMALL),
  "cho": cho.Model(8, 9, maxout=3, **SMALL),
  "bahdanau": bahdanau.Model(8, 9, maxout=3, alignment=4, **SMALL),
  "bahdanau without": bahdanau.Model(8, 9, maxout=3, alignment=4, attention=False, **SMALL),
  "luong dot": luong.Model(8, 9, layers=1, score="dot", **SMALL),
  "luong general": luong.Model(8, 9, layers=2, score="general", feeding=False, **SMALL),
  "luong concat": luong.Model(8, 9, layers=1, score="concat", **SMALL),
  "luong local": luong.Model(8, 9, layers=1, score="dot", window=2, **SMALL),
}
READERS = {
  "elman": language_model.Model(9, cell="elman", layers=1, features=6, tied=True),
  "lstm": language_model.Model(9, cell="lstm", layers=2, features=6, embedding=4),
  "gru": language_model.Model(9, cell="gru", layers=2, features=6),
}
SOURCE = np.array([[3, 4, 5, 6, 1], [3, 2, 1, -1, -1]], np.int32)
TARGET = np.array([[0, 3, 4, 5], [0, 3, 8, -1]], np.int32)


def size(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def shapes(model, *inputs):
  return jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, *inputs))["params"]


def drawn(variables, seed=0):
  """Parameters of these shapes, none of them zero as biases are at the start."""
  generator = np.random.default_rng(seed)
  draw = lambda x: jnp.asarray(0.5 * generator.normal(size=x.shape), x.dtype)  # noqa: E731
  return jax.tree.map(draw, variables)


@functools.cache
def created(model, pairs=True):
  return {"params": drawn(shapes(model, *((SOURCE, TARGET) if pairs else (TARGET,))))}


@functools.cache
def compiled(model, method="__call__", **options):
  """A method as a compiled function of variables and inputs."""
  return jax.jit(lambda v, *inputs: model.apply(v, *inputs, method=method, **options))


def close(ours, theirs, *, rtol=1e-5):
  """Leaf by leaf, within `rtol` of each leaf's largest value: sums of float32 allow no more."""
  pairs = zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True)
  for (path, a), b in pairs:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, jax.tree_util.keystr(path)
    error = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)
    assert error <= rtol, f"{jax.tree_util.keystr(path)}: relative error {error:.2e}"


# Sizes.


def test_sutskever_size():
  # 160k * 1000 + 2 * 80k * 1000 + 8 layers of 4 * 2000 * 1000: the 384M and 64M of section 3.4.
  params = shapes(sutskever.Model(160_000, 80_000, bias=False), SOURCE, TARGET)
  assert size(params) == 384_000_000
  assert size([params["encoder"], params["decoder"]]) == 64_000_000
  params = shapes(sutskever.Model(160_000, 80_000), SOURCE, TARGET)
  assert size(params) == 384_112_000


def test_bahdanau_size():
  params = shapes(bahdanau.Model(30_000, 30_000, bias=False), SOURCE, TARGET)
  assert size(params) == 80_401_000
  parts = {
    28_320_000: ("source_embedding", "encoder"),
    30_460_000: ("target_embedding", "decoder", "context", "start"),
    3_001_000: ("query", "key", "score"),
    18_620_000: ("readout_state", "readout_token", "readout_context", "output"),
  }
  for count, names in parts.items():
    assert size([params[name] for name in names]) == count
  assert size(shapes(bahdanau.Model(30_000, 30_000), SOURCE, TARGET)) == 80_443_000


def test_sizes_are_sums_of_their_matrices():
  v, d, h = 50_000, 1000, 1000
  lstm = 4 * (2 * h * h + h)
  luongs = 2 * v * d + 8 * lstm + 4 * h * h + h * h + 2 * h * h + h * v  # feed, general, combine
  assert size(shapes(luong.Model(v, v), SOURCE, TARGET)) == luongs
  zaremba = 2 * 10_000 * 650 + 10_000 + 2 * 4 * (2 * 650 * 650 + 650)  # the medium LSTM
  assert size(shapes(language_model.Model(10_000), TARGET)) == zaremba


def fresh(model):
  return jax.jit(lambda: model.init({"params": jax.random.key(0)}, SOURCE, TARGET))()["params"]


def test_initial_weights_are_the_papers():
  params = fresh(sutskever.Model(30, 30, layers=1, features=32, embedding=32))
  for leaf in jax.tree.leaves(params):
    assert 0.06 < np.abs(leaf).max() <= 0.08
  model = bahdanau.Model(200, 200, features=32, embedding=32, alignment=64, maxout=32)
  params = fresh(model)
  for cell in (params["encoder"]["forward"], params["encoder"]["backward"], params["decoder"]):
    for gate in np.split(np.asarray(cell["recurrent"]), 3, axis=1):
      np.testing.assert_allclose(gate @ gate.T, np.eye(32), atol=1e-5)
    assert np.std(cell["input"]) == pytest.approx(0.01, rel=0.1)
    assert not np.any(cell["bias"])
  for name in ("query", "key"):
    kernel = params[name]["kernel"] if name == "key" else params[name]
    assert np.std(kernel) == pytest.approx(0.001, rel=0.1)
  assert not np.any(params["score"])
  assert np.std(params["output"]["kernel"]) == pytest.approx(0.01, rel=0.1)


# The loop.


def _looped(step, weights, shared, carry, xs, *, reverse):
  """The plain loop that `unroll` stands for."""

  def dot(name, a):
    letters = "bi,io->bo" if weights[name].ndim == 2 else "bi,bio->bo"
    return jnp.einsum(letters, a, weights[name])

  def body(carry, x):
    return step(dot, shared, carry, x)

  return jax.lax.scan(body, carry, xs, reverse=reverse)


def _toy(dot, shared, carry, x):
  x, mask_B = x
  h, total = carry
  new = jnp.tanh(dot("own", h) + dot("each", x * shared) + x), total + x
  return cells.kept(mask_B, new, carry), h * total


def _toy_loss(loop, reverse, arrays, mask_TB):
  weights, shared, carry, x = arrays
  carry, ys = loop(_toy, weights, shared, carry, (x, mask_TB), reverse=reverse)
  return sum((leaf**3).sum() for leaf in carry) + (ys**2).sum()


def _toy_arrays():
  draw = np.random.default_rng(0).normal
  t, b, h = 5, 3, 4
  weights = {"own": draw(size=(h, h)), "each": draw(size=(b, h, h))}
  arrays = (weights, draw(size=h), (draw(size=(b, h)), draw(size=(b, h))), draw(size=(t, b, h)))
  mask_TB = np.arange(t)[:, None] < np.array([5, 3, 4])
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), arrays), mask_TB


@pytest.mark.parametrize("reverse", [False, True])
def test_the_loop_is_the_plain_scan(reverse):
  arrays, mask_TB = _toy_arrays()
  ours, plain = (
    jax.jit(jax.value_and_grad(lambda a, loop=loop: _toy_loss(loop, reverse, a, mask_TB)))(arrays)
    for loop in (unroll, _looped)
  )
  close(ours, plain)


def test_the_loop_under_vmap():
  arrays, mask_TB = _toy_arrays()
  two = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), arrays)
  gradient = jax.grad(lambda a: _toy_loss(unroll, False, a, mask_TB))
  together = jax.jit(jax.vmap(gradient))(two)
  close(jax.tree.map(lambda x: x[1], together), gradient(jax.tree.map(lambda x: 0.5 * x, arrays)))


def _carried(jaxpr):
  """Shapes that the loops of a program carry from step to step."""
  found = set()
  for equation in jaxpr.eqns:
    inner = jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns"))
    for sub in (getattr(x, "jaxpr", x) for x in inner if hasattr(x, "eqns")):
      found |= _carried(sub)
      if equation.primitive.name == "scan":
        found |= {v.aval.shape for v in sub.outvars[: equation.params["num_carry"]]}
  return found


@pytest.mark.parametrize("loop", [unroll, _looped])
def test_no_loop_carries_the_gradient_of_a_weight(loop):
  arrays, mask_TB = _toy_arrays()
  jaxpr = jax.make_jaxpr(jax.grad(lambda a: _toy_loss(loop, False, a, mask_TB)))(arrays)
  weights = {(4, 4), (3, 4, 4)}
  assert bool(weights & _carried(jaxpr.jaxpr)) == (loop is _looped)


# Cells.


def cell_of(kind, **options):
  cell = cells.Cell(kind, 4, 3, **options)
  x = np.random.default_rng(1).normal(size=(5, 2, 4)).astype(np.float32)
  mask_TB = np.arange(5)[:, None] < np.array([5, 3])
  return cell, created_cell(cell, x, mask_TB), x, mask_TB


def created_cell(module, x, mask_TB):
  return drawn(jax.eval_shape(lambda: module.init(jax.random.key(0), x, mask_TB)))


def tensors(tree):
  import torch

  return jax.tree.map(lambda x: torch.tensor(np.asarray(x, np.float64)), tree)


def fill_torch(rnn, layers, kind):
  """PyTorch's parameters from ours, given as {(layer, reverse): parameters}; its second biases are
  zero but for a GRU's inner one."""
  import torch

  hidden = rnn.hidden_size
  with torch.no_grad():
    for (layer, back), params in layers.items():
      end = f"l{layer}" + "_reverse" * back
      p = tensors(params)
      getattr(rnn, f"weight_ih_{end}").copy_(p["input"].T)
      getattr(rnn, f"weight_hh_{end}").copy_(p["recurrent"].T)
      getattr(rnn, f"bias_ih_{end}").copy_(p["bias"])
      getattr(rnn, f"bias_hh_{end}").zero_()
      if kind == "gru_cudnn":
        getattr(rnn, f"bias_hh_{end}")[2 * hidden :].copy_(p["recurrent_bias"])


def read_torch(rnn, layers, kind):
  """The gradients of PyTorch's parameters, as ours."""
  hidden, found = rnn.hidden_size, {}
  for layer, back in layers:
    end = f"l{layer}" + "_reverse" * back
    grad = lambda name, end=end: getattr(rnn, f"{name}_{end}").grad.numpy()  # noqa: E731
    found[layer, back] = {
      "input": grad("weight_ih").T,
      "recurrent": grad("weight_hh").T,
      "bias": grad("bias_ih"),
    }
    if kind == "gru_cudnn":
      found[layer, back]["recurrent_bias"] = grad("bias_hh")[2 * hidden :]
  return found


@needs_torch
@pytest.mark.parametrize("shape", ["stacked", "bidirectional"])
@pytest.mark.parametrize("kind", ["elman", "lstm", "gru_cudnn"])
def test_layers_are_pytorchs(kind, shape):
  import torch

  arguments = dict(kind=kind, features=3)
  if shape == "stacked":
    module = cells.Stack(2, 4, arguments)
    names = {(0, False): ("layer_0",), (1, False): ("layer_1",)}
  else:
    module = cells.Bidirectional(dict(inputs=4, **arguments))
    names = {(0, False): ("forward",), (0, True): ("backward",)}
  generator = np.random.default_rng(1)
  x, factor = (generator.normal(size=(5, 2, d)).astype(np.float32) for d in (4, 6))
  mask_TB = np.arange(5)[:, None] < np.array([5, 3])
  variables = created_cell(module, x, mask_TB)

  def ours(variables, x):
    h, states = module.apply(variables, x, mask_TB)
    h = jnp.where(mask_TB[..., None], h, 0)
    return (h * factor[..., : h.shape[-1]]).sum() + sum(
      (leaf**2).sum() for leaf in jax.tree.leaves(states)
    ), (h, states)

  (value, (h, _)), grads = jax.jit(jax.value_and_grad(ours, (0, 1), has_aux=True))(variables, x)

  make = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru_cudnn": torch.nn.GRU}[kind]
  rnn = make(4, 3, num_layers=len(names) if shape == "stacked" else 1,
             bidirectional=shape == "bidirectional").double()  # fmt: skip
  pick = lambda tree: {k: tree["params"][n] for k, (n,) in names.items()}  # noqa: E731
  fill_torch(rnn, pick(variables), kind)
  inputs = torch.tensor(np.asarray(x, np.float64), requires_grad=True)
  packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, torch.tensor([5, 3]))
  out, states = rnn(packed)
  out, _ = torch.nn.utils.rnn.pad_packed_sequence(out)
  states = states if kind == "lstm" else (states,)
  theirs = (out * torch.tensor(factor[..., : out.shape[-1]])).sum()
  theirs = theirs + sum((s**2).sum() for s in states)
  theirs.backward()
  close((h, value), (out.detach(), theirs.item()))
  close(grads[1], inputs.grad)
  close(pick(grads[0]), read_torch(rnn, names, kind))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", ["gru", "gru_bahdanau", "gru_cudnn"])
def test_gated_units_are_their_papers(kind):
  cell, variables, x, mask_TB = cell_of(kind)
  h_TBH, _ = jax.jit(cell.apply)(variables, x, mask_TB)
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
  (wr, wz, wn), (ur, uz, un) = (np.split(p[k], 3, axis=1) for k in ("input", "recurrent"))
  br, bz, bn = np.split(p["bias"], 3)
  h = np.zeros((2, 3))
  for t in range(3):  # as long as both examples last
    r, z = sigmoid(x[t] @ wr + br + h @ ur), sigmoid(x[t] @ wz + bz + h @ uz)
    inner = r * (h @ un + p["recurrent_bias"]) if kind == "gru_cudnn" else (r * h) @ un
    new = np.tanh(x[t] @ wn + bn + inner)
    h = (1 - z) * h + z * new if kind == "gru_bahdanau" else z * h + (1 - z) * new
    close(h_TBH[t], h)


def test_padding_leaves_the_state_alone():
  for kind in ("elman", "lstm", "gru"):
    cell, variables, x, mask_TB = cell_of(kind)
    apply = jax.jit(cell.apply, static_argnames="reverse")
    short = apply(variables, x[:3], mask_TB[:3])[1]
    right = apply(variables, x, np.arange(5)[:, None] < np.array([3, 3]))[1]
    left = apply(variables, np.roll(x, 2, axis=0), np.arange(5)[:, None] >= np.array([2, 5]))[1]
    close(right, short)
    close([s[0] for s in left], [s[0] for s in short])
    assert not any(np.any(s[1]) for s in left)  # nothing but padding
    back = apply(variables, x, np.arange(5)[:, None] < np.array([3, 3]), reverse=True)[1]
    close(back, apply(variables, x[2::-1], mask_TB[:3])[1])


@pytest.mark.parametrize("kind", cells.STEPS)
def test_cells_stay_finite(kind):
  cell, variables, x, mask_TB = cell_of(kind)

  def loss(variables, x):
    h, state = cell.apply(variables, x, mask_TB)
    return h.sum() + sum(s.sum() for s in state)

  signs = np.sign(x).astype(np.float32)
  value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(variables, 1e4 * signs)
  assert np.isfinite(value)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


# Models of pairs.


@pytest.mark.parametrize("name", WRITERS)
def test_token_by_token_is_all_at_once(name):
  model = WRITERS[name]
  variables = created(model)
  whole = compiled(model)(variables, SOURCE, TARGET).logits
  begin = compiled(model, "begin", capacity=4)
  advance = compiled(model, "advance")
  cache, found = begin(variables, SOURCE), []
  for t in range(4):
    logits, cache = advance(variables, TARGET[:, t : t + 1], cache)
    found.append(logits)
  there = (TARGET >= 0)[..., None]
  close(np.where(there, np.concatenate(found, 1), 0), np.where(there, whole, 0))
  # Prompts of unequal length, padded on the left, and then a token each.
  cache = begin(variables, SOURCE)
  logits, cache = advance(variables, np.array([[0, 3, 4], [-1, 0, 3]], np.int32), cache)
  close((logits[0], logits[1, 1:]), (whole[0, :3], whole[1, :2]))
  logits, cache = advance(variables, np.array([[5], [8]], np.int32), cache)
  close((logits[0, 0], logits[1, 0]), (whole[0, 3], whole[1, 2]))
  for leaf in jax.tree.leaves(cache):
    assert leaf.ndim < 2 or leaf.shape[1] == 2  # beams are reordered along the second axis


@pytest.mark.parametrize("name", WRITERS)
def test_padding_and_later_tokens_change_nothing(name):
  model = WRITERS[name]
  variables, run = created(model), compiled(model)
  whole = run(variables, SOURCE, TARGET).logits
  holes = np.array([SOURCE[0], [-1, 3, 2, -1, 1]], np.int32)
  there = (TARGET >= 0)[..., None]
  padded = run(variables, holes, TARGET).logits
  close(np.where(there, padded, 0), np.where(there, whole, 0))
  later = TARGET.copy()
  later[:, 2] = 7
  changed = run(variables, SOURCE, later).logits
  np.testing.assert_array_equal(changed[:, :2], whole[:, :2])
  assert np.abs(changed[:, 2] - whole[:, 2]).min() > 0
  # The order of the source is read.
  turned = run(variables, SOURCE[:, [1, 0, 2, 3, 4]], TARGET).logits
  assert np.abs(turned[:, 0] - whole[:, 0]).max() > 1e-3


@pytest.mark.parametrize("name", WRITERS)
def test_gradients_reach_every_parameter(name):
  model = WRITERS[name]

  def loss(variables):
    logits = model.apply(variables, SOURCE, TARGET, train=True, rngs={"dropout": jax.random.key(1)})
    return (jax.nn.log_softmax(logits.logits)[..., 1] * (TARGET >= 0)).sum()

  grads = jax.jit(jax.grad(loss))(created(model))
  for path, leaf in jax.tree.leaves_with_path(grads):
    assert np.isfinite(leaf).all(), path
    assert np.any(leaf), path


@pytest.mark.parametrize("name", [k for k in WRITERS if "luong" in k or k == "bahdanau"])
def test_attention_is_a_distribution_over_source_tokens(name):
  model = WRITERS[name]
  _, seen = watched(model)(created(model), SOURCE, TARGET)
  (weights_BTS,) = jax.tree.leaves(seen)
  assert weights_BTS.shape == (2, 4, 5)
  assert not np.any(np.where((SOURCE < 0)[:, None], weights_BTS, 0))
  if not getattr(model, "window", 0):  # Luong's Gaussian comes after the softmax
    np.testing.assert_allclose(weights_BTS.sum(-1), 1, rtol=1e-5)
  alone = compiled(model)(created(model), SOURCE, TARGET)
  assert isinstance(alone, tuple), "nothing is sown where nobody asked"


@functools.cache
def watched(model):
  return jax.jit(lambda v, *inputs: model.apply(v, *inputs, mutable=["intermediates"]))


def test_softmax_of_nothing_but_padding_is_finite():
  scores = jnp.array([[1e4, -1e4], [1.0, 2.0]])
  mask = jnp.array([[True, True], [False, False]])
  value, grad = jax.value_and_grad(lambda s: (alignment.softmax(s, mask) ** 2).sum())(scores)
  assert np.isfinite(value)
  assert np.isfinite(grad).all()


@needs_torch
def test_bahdanau_is_pytorchs(monkeypatch):
  """The twin that the benchmark races against, so that both do the same work."""
  for name, value in dict(VOCABULARY=11, UNITS=6, MAXOUT=3, BATCH=4, LENGTH=5).items():
    monkeypatch.setattr(seq2seq_step, name, value)
  import torch

  source, target = seq2seq_step.pairs()
  model = seq2seq_step.model()
  params = created(model)["params"]
  run = jax.jit(jax.value_and_grad(functools.partial(seq2seq_step.loss, model)))
  value, grads = run(params, source, target)

  twin = seq2seq_step.torch_model().double()
  split = 2 * 6
  linears = {"start": "start", "key": "key", "output": "output", "readout_state": "readout_state"}
  linears |= {"readout_token": "readout_token", "readout_context": "readout_context"}
  grus = {
    "forward_": lambda p: p["encoder"]["forward"],
    "backward_": lambda p: p["encoder"]["backward"],
    "decoder": lambda p: p["decoder"],
  }

  def theirs(tree):
    """Our parameters, or their gradients, by PyTorch's names."""
    found = {f"{k}.weight": tree[k]["kernel"].T for k in linears}
    found |= {f"{k}.bias": tree[k]["bias"] for k in linears if "bias" in tree[k]}
    for name in ("source_embedding", "target_embedding"):
      found[f"{name}.weight"] = tree[name]
    for name in ("query", "context"):
      found[f"{name}.weight"] = tree[name].T
    for name, of in grus.items():
      cell = of(tree)
      found[f"{name}.input.weight"], found[f"{name}.input.bias"] = cell["input"].T, cell["bias"]
      found[f"{name}.gates.weight"] = cell["recurrent"][:, :split].T
      found[f"{name}.new.weight"] = cell["recurrent"][:, split:].T
    return found | {"score": tree["score"]}

  twin.load_state_dict({k: torch.tensor(np.asarray(v)) for k, v in theirs(params).items()})
  loss = seq2seq_step.torch_loss(
    twin, *(torch.tensor(x.astype(np.int64)) for x in (source, target))
  )
  loss.backward()
  close(value, loss.item())
  close(theirs(grads), {k: dict(twin.named_parameters())[k].grad.numpy() for k in theirs(grads)})


def test_cho_is_its_appendix():
  """Greek letters of appendix A, in NumPy."""
  model = WRITERS["cho"]
  variables = created(model)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
  dense = lambda name, x: x @ p[name]["kernel"] + p[name].get("bias", 0)  # noqa: E731

  def gates(cell, x):
    return np.split(x @ p[cell]["input"] + p[cell]["bias"], 3, axis=-1)

  u = {cell: np.split(p[cell]["recurrent"], 3, axis=1) for cell in ("encoder", "decoder")}
  h = np.zeros(6)
  for token in SOURCE[0]:
    r, z, n = gates("encoder", p["source_embedding"][token])
    r, z = sigmoid(r + h @ u["encoder"][0]), sigmoid(z + h @ u["encoder"][1])
    h = z * h + (1 - z) * np.tanh(n + (r * h) @ u["encoder"][2])
  c = np.tanh(dense("summarise", h))
  cr, cz, cn = np.split(c @ p["context"]["kernel"], 3)
  h, found = np.tanh(dense("start", c)), []
  for token in TARGET[0]:
    y = p["target_embedding"][token]
    r, z, n = gates("decoder", y)
    r, z = sigmoid(r + h @ u["decoder"][0] + cr), sigmoid(z + h @ u["decoder"][1] + cz)
    h = z * h + (1 - z) * np.tanh(n + r * (h @ u["decoder"][2] + cn))
    s = dense("readout_state", h) + dense("readout_token", y) + dense("readout_context", c)
    found.append(dense("output", dense("output_in", s.reshape(-1, 2).max(1))))
  close(compiled(model)(variables, SOURCE, TARGET).logits[0], np.stack(found))


def test_maxout_takes_neighbours():
  np.testing.assert_array_equal(maxout(jnp.array([1.0, 5.0, 7.0, 2.0])), [5.0, 7.0])


@pytest.mark.parametrize("score", luong.Score.__args__)
def test_luong_is_its_section_3(score):
  """The writer in NumPy, from the cache that the model begins with."""
  model = WRITERS[f"luong {score}"]
  variables = created(model)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
  cache = compiled(model, "begin", capacity=4)(variables, SOURCE)
  h, c, memory = (np.array(x[:, 0], np.float64) for x in (cache.h, cache.c, cache.memory))
  memory = memory[0]
  np.testing.assert_allclose(memory[-1], h[-1], rtol=1e-6)  # the reader's last state
  attended, found = np.zeros(6), []
  for token in TARGET[0]:
    below = p["target_embedding"][token]
    for layer in range(model.layers):
      cell = p[f"decoder_{layer}"]
      x = below @ cell["input"] + cell["bias"] + h[layer] @ cell["recurrent"]
      if layer == 0 and model.feeding:
        x = x + attended @ p["feed"]
      i, f, g, o = np.split(x, 4)
      c[layer] = sigmoid(f) * c[layer] + sigmoid(i) * np.tanh(g)
      below = h[layer] = sigmoid(o) * np.tanh(c[layer])
    if score == "dot":
      scores = memory @ below
    elif score == "general":
      scores = memory @ p["key"] @ below
    else:
      scores = np.tanh(below @ p["query"] + memory @ p["key"]) @ p["score_vector"]
    a = np.exp(scores - scores.max())
    attended = np.tanh(np.concatenate([a @ memory / a.sum(), below]) @ p["combine"])
    found.append(attended @ p["output"]["kernel"])
  close(compiled(model)(variables, SOURCE, TARGET).logits[0], np.stack(found))


def test_local_attention_is_a_gaussian_in_a_window():
  model = WRITERS["luong local"]
  variables = created(model)
  source = np.tile(np.arange(8, dtype=np.int32), 2)[None]
  params = {**variables["params"], "place_vector": jnp.zeros(6)}  # p_t = S / 2
  _, seen = watched(model)({"params": params}, source, TARGET[:1])
  (weights_BTS,) = jax.tree.leaves(seen)
  near = np.abs(np.arange(16) - 8) <= 2
  assert np.all(weights_BTS[..., near] > 0)
  assert not np.any(weights_BTS[..., ~near])
  alike = {**params, "source_embedding": jnp.zeros((8, 5))}
  alike["encoder"] = jax.tree.map(jnp.zeros_like, params["encoder"])  # all scores are equal
  _, seen = watched(model)({"params": alike}, source, TARGET[:1])
  (weights_BTS,) = jax.tree.leaves(seen)
  gaussian = np.exp(-((np.arange(16) - 8.0) ** 2) / 2)[near] / 5  # deviation D / 2 = 1
  np.testing.assert_allclose(weights_BTS[0, 0][near], gaussian, rtol=1e-5)


# Language models.


@pytest.mark.parametrize("name", READERS)
def test_language_models_token_by_token(name):
  model = READERS[name]
  variables = created(model, pairs=False)
  whole = compiled(model)(variables, TARGET).logits
  advance = compiled(model, "advance")
  cache, found = model.begin(2, 4), []
  for t in range(4):
    logits, cache = advance(variables, TARGET[:, t : t + 1], cache)
    found.append(logits)
  there = (TARGET >= 0)[..., None]
  close(np.where(there, np.concatenate(found, 1), 0), np.where(there, whole, 0))
  prompt = np.array([[0, 3, 4], [-1, 0, 3]], np.int32)
  logits, cache = advance(variables, prompt, model.begin(2, 4))
  close((logits[0], logits[1, 1:]), (whole[0, :3], whole[1, :2]))
  assert all(leaf.shape[1] == 2 for leaf in jax.tree.leaves(cache))


def test_segments_are_documents_of_their_own():
  model = READERS["lstm"]
  variables = created(model, pairs=False)
  packed = np.array([[3, 4, 5, 6, 7, 2, -1]], np.int32)
  segments = np.array([[1, 1, 1, 2, 2, 2, 0]], np.int32)
  together = compiled(model)(variables, packed, segments).logits
  apart = compiled(model)(variables, np.array([[3, 4, 5], [6, 7, 2]], np.int32)).logits
  close((together[0, :3], together[0, 3:6]), (apart[0], apart[1]))
  assert np.abs(compiled(model)(variables, packed).logits[0, 3:6] - apart[1]).max() > 1e-3


def test_dropout_never_touches_the_state():
  """With embeddings of zero and one layer, all that is left to drop is the way out."""
  model = language_model.Model(9, layers=1, features=6)
  variables = created(model, pairs=False)
  params = {**variables["params"], "embedding": jnp.zeros((9, 6))}
  apply = lambda train, seed: model.apply(  # noqa: E731
    {"params": params}, TARGET, train=train, rngs={"dropout": jax.random.key(seed)}
  )
  run = jax.jit(apply, static_argnums=0)
  np.testing.assert_array_equal(run(True, 0).hidden, run(False, 0).hidden)
  assert np.abs(run(True, 0).logits - run(False, 0).logits).max() > 1e-3
  assert np.abs(run(True, 0).logits - run(True, 1).logits).max() > 1e-3


def test_bfloat16_is_for_activations_alone():
  for model in (
    READERS["lstm"],
    WRITERS["luong dot"],
    WRITERS["bahdanau"],
  ):
    pairs = not isinstance(model, language_model.Model)
    variables = created(model, pairs=pairs)
    inputs = (SOURCE, TARGET) if pairs else (TARGET,)
    out = compiled(model.copy(dtype=jnp.bfloat16))(variables, *inputs)
    exact = compiled(model)(variables, *inputs)
    assert out.logits.dtype == out.hidden.dtype == jnp.float32
    close(out.logits, exact.logits, rtol=0.05)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}


def test_tied_embeddings_need_equal_widths():
  with pytest.raises(ValueError, match="tied needs embedding=4"):
    language_model.Model(9, embedding=4, features=6, tied=True)
