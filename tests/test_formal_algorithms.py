"""The algorithms of Phuong & Hutter 2022 as they are printed, and our functions beside them.

"Formal Algorithms for Transformers", arXiv:2207.09238. The reference below is theirs line by line:
NumPy in float64, one example, a token a column, a loop wherever they have one, and no layer of
ours. It differs in two places that change no meaning: token ids and positions count from 0, and
layer_norm (algorithm 6) has the epsilon that every implementation adds to the variance.

`docs/transformers.md` says which function is which algorithm.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_transformer import created

from decoding.generate import generate
from decoding.sampling import GREEDY, Sampling, adjusted
from models.layers.attention import Attention, Places
from models.layers.sequence import embed as embedded
from models.layers.transformer import norm_layer
from models.transformer import encoder, encoder_decoder, gpt
from tasks import language_model, masked_language_model, sequence_to_sequence
from training import optim

EPSILON = 1e-5
V, D, N, F, T = 7, 8, 2, 12, 6  # tokens, features, heads, features of the MLP, positions
BOS, EOS = 0, 1


# Algorithms 1 to 7: the pieces. W is a dict of arrays named as in the paper's text.


def token_embedding(v, W_e):
  """Algorithm 1."""
  return W_e[:, v]


def positional_embedding(t, W_p):
  """Algorithm 2."""
  return W_p[:, t]


def single_query_attention(e, context, W):
  """Algorithm 3: one query, the columns of `context` as a list."""
  q = W["W_q"] @ e + W["b_q"]
  keys = [W["W_k"] @ e_t + W["b_k"] for e_t in context]
  values = [W["W_v"] @ e_t + W["b_v"] for e_t in context]
  weights = [math.exp(q @ k / math.sqrt(len(q))) for k in keys]
  return sum(alpha / sum(weights) * v for alpha, v in zip(weights, values, strict=True))


def softmax_of_columns(A):
  out = np.zeros_like(A)
  for t in range(A.shape[1]):
    raised = np.exp(A[:, t] - A[:, t].max())
    out[:, t] = raised / raised.sum()
  return out


def attention(X, Z, W, mask):
  """Algorithm 4: queries from the primary sequence X, keys and values from the context Z."""
  Q = W["W_q"] @ X + W["b_q"][:, None]
  K = W["W_k"] @ Z + W["b_k"][:, None]
  V = W["W_v"] @ Z + W["b_v"][:, None]
  S = K.T @ Q
  for t_z in range(Z.shape[1]):
    for t_x in range(X.shape[1]):
      if not mask(t_z, t_x):
        S[t_z, t_x] = -np.inf
  return V @ softmax_of_columns(S / math.sqrt(len(Q)))


def mh_attention(X, Z, W, mask):
  """Algorithm 5."""
  Y = np.concatenate([attention(X, Z, head, mask) for head in W["heads"]])
  return W["W_o"] @ Y + W["b_o"][:, None]


def layer_norm(e, norm):
  """Algorithm 6."""
  m = sum(e) / len(e)
  v = sum((e - m) ** 2) / len(e)
  return (e - m) / math.sqrt(v + EPSILON) * norm["gamma"] + norm["beta"]


def layer_norm_columns(X, norm):
  return np.stack([layer_norm(X[:, t], norm) for t in range(X.shape[1])], axis=1)


def unembedding(e, W_u):
  """Algorithm 7."""
  return softmax_of_columns((W_u @ e)[:, None])[:, 0]


def bidirectional(t_z, t_x):
  return True


def unidirectional(t_z, t_x):
  return t_z <= t_x


def relu(X):
  return np.maximum(X, 0)


def gelu(X):
  return np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))(X)


def mlp(X, W, activation):
  hidden = activation(W["W_mlp1"] @ X + W["b_mlp1"][:, None])
  return W["W_mlp2"] @ hidden + W["b_mlp2"][:, None]


def embed(x, theta):
  columns = [
    token_embedding(v, theta["W_e"]) + positional_embedding(t, theta["W_p"])
    for t, v in enumerate(x)
  ]
  return np.stack(columns, axis=1)


def unembed(X, W_u):
  return np.stack([unembedding(X[:, t], W_u) for t in range(X.shape[1])], axis=1)


# Algorithms 8 to 10: the architectures. P[:, t] is the distribution given by position t.


def ed_transformer(z, x, theta):
  """Algorithm 8: encoder and decoder (Vaswani et al. 2017)."""
  Z = embed(z, theta)
  for W in theta["encoder"]:
    Z = layer_norm_columns(Z + mh_attention(Z, Z, W["self"], bidirectional), W["norm1"])
    Z = layer_norm_columns(Z + mlp(Z, W, relu), W["norm2"])
  X = embed(x, theta)
  for W in theta["decoder"]:
    X = layer_norm_columns(X + mh_attention(X, X, W["self"], unidirectional), W["norm1"])
    X = layer_norm_columns(X + mh_attention(X, Z, W["cross"], bidirectional), W["norm2"])
    X = layer_norm_columns(X + mlp(X, W, relu), W["norm3"])
  return unembed(X, theta["W_u"])


def e_transformer(x, theta):
  """Algorithm 9: the encoder alone (BERT)."""
  X = embed(x, theta)
  for W in theta["layers"]:
    X = layer_norm_columns(X + mh_attention(X, X, W["self"], bidirectional), W["norm1"])
    X = layer_norm_columns(X + mlp(X, W, gelu), W["norm2"])
  X = gelu(theta["W_f"] @ X + theta["b_f"][:, None])
  return unembed(layer_norm_columns(X, theta["norm"]), theta["W_u"])


def d_transformer(x, theta):
  """Algorithm 10: the decoder alone (GPT-2, GPT-3)."""
  X = embed(x, theta)
  for W in theta["layers"]:
    X_ = layer_norm_columns(X, W["norm1"])
    X = X + mh_attention(X_, X_, W["self"], unidirectional)
    X = X + mlp(layer_norm_columns(X, W["norm2"]), W, gelu)
  return unembed(layer_norm_columns(X, theta["norm"]), theta["W_u"])


# Algorithms 11 to 13: the losses whose gradient one step follows, theta - eta * gradient.


def ed_loss(z, x, theta):
  """Line 5 of algorithm 11."""
  P = ed_transformer(z, x, theta)
  return -sum(math.log(P[x[t + 1], t]) for t in range(len(x) - 1))


def masked(x, chosen, mask_token):
  """Lines 4 and 5 of algorithm 12, which positions being given."""
  return [mask_token if t in chosen else v for t, v in enumerate(x)]


def e_loss(x, chosen, mask_token, theta):
  """Lines 6 and 7 of algorithm 12."""
  P = e_transformer(masked(x, chosen, mask_token), theta)
  return -sum(math.log(P[x[t], t]) for t in chosen)


def d_loss(x, theta):
  """Line 5 of algorithm 13."""
  P = d_transformer(x, theta)
  return -sum(math.log(P[x[t + 1], t]) for t in range(len(x) - 1))


# Algorithms 14 and 15: inference. `sample(q)` draws an id from a distribution.


def tempered(p, tau):
  q = p ** (1 / tau)
  return q / q.sum()


def d_inference(x, theta, length, tau, sample):
  """Algorithm 14: prompting."""
  x, start = list(x), len(x)
  for i in range(length):
    P = d_transformer(x, theta)
    x.append(sample(tempered(P[:, start + i - 1], tau)))
  return x[start:]


def ed_inference(z, theta, bos, eos, tau, sample, most):
  """Algorithm 15: a sequence from a sequence; `most` bounds the loop, which the paper does not."""
  x = [bos]
  y = None
  while y != eos and len(x) <= most:
    P = ed_transformer(z, x, theta)
    y = sample(tempered(P[:, len(x) - 1], tau))
    x.append(y)
  return x


# Ours. A kernel maps rows, so it is the transpose of the paper's matrix.

SIZES = dict(
  features=D, heads=N, mlp_features=F, epsilon=EPSILON, dropout=0.0, attention_dropout=0.0
)
DECODER = gpt.Model(V, T, layers=2, activation="gelu", tied=False, **SIZES)
ENCODER = encoder.Model(V, T, layers=2, embedding_norm=False, **SIZES)
TRANSLATOR = encoder_decoder.Model(
  V, V, T, T, encoder_layers=2, decoder_layers=2, positions="learned", tied=False, **SIZES
)
ROW = jnp.array([[0, 4, 2, 6, 1]])
SOURCE, TARGET = jnp.array([[3, 5, 2, 1]]), jnp.array([[BOS, 6, 4, 2, EOS]])


def to_attention(params):
  heads = [
    {
      f"{kind}_{short}": np.asarray(params[name][leaf][..., head, :], np.float64).T
      for name, short in (("query", "q"), ("key", "k"), ("value", "v"))
      for kind, leaf in (("W", "kernel"), ("b", "bias"))
    }
    for head in range(N)
  ]
  W_o = np.asarray(params["output"]["kernel"], np.float64).reshape(D, D).T
  return {"heads": heads, "W_o": W_o, "b_o": np.asarray(params["output"]["bias"], np.float64)}


def to_norm(params):
  return {
    "gamma": np.asarray(params["scale"], np.float64),
    "beta": np.asarray(params["bias"], np.float64),
  }


def to_layer(params, index, norms):
  """Layer `index` of a stack; `norms` are the names of its norms in the paper's order."""
  own = jax.tree.map(lambda leaf: leaf[index], params)
  mlp_ = {
    f"{kind}_mlp{i}": np.asarray(own["mlp"][name][leaf], np.float64).T
    for i, name in ((1, "up"), (2, "down"))
    for kind, leaf in (("W", "kernel"), ("b", "bias"))
  }
  found = {"self": to_attention(own["attention"]), **mlp_}
  if "cross_attention" in own:
    found["cross"] = to_attention(own["cross_attention"])
  return found | {f"norm{i}": to_norm(own[name]) for i, name in enumerate(norms, 1)}


def to_decoder(params):
  stack = params["decoder_layers"]
  return {
    "W_e": np.asarray(params["embedding"], np.float64).T,
    "W_p": np.asarray(params["position_embedding"], np.float64).T,
    "layers": [to_layer(stack, i, ("attention_norm", "mlp_norm")) for i in range(2)],
    "norm": to_norm(params["final_norm"]),
    "W_u": np.asarray(params["unembedding"], np.float64),
  }


def to_encoder(params):
  stack = params["encoder_layers"]
  return {
    "W_e": np.asarray(params["embedding"], np.float64).T,
    "W_p": np.asarray(params["position_embedding"], np.float64).T,
    "layers": [to_layer(stack, i, ("attention_norm", "mlp_norm")) for i in range(2)],
    "W_f": np.asarray(params["projection"]["kernel"], np.float64).T,
    "b_f": np.asarray(params["projection"]["bias"], np.float64),
    "norm": to_norm(params["final_norm"]),
    "W_u": np.asarray(params["embedding"], np.float64),  # BERT ties them
  }


def to_translator(params):
  # Embeddings are multiplied by sqrt(D) here, as in Vaswani et al. 2017, section 3.4.
  return {
    "W_e": np.asarray(params["target_embedding"], np.float64).T * math.sqrt(D),
    "W_p": np.asarray(params["target_positions"], np.float64).T,
    "encoder": [
      to_layer(params["encoder_layers"], i, ("attention_norm", "mlp_norm")) for i in range(2)
    ],
    "decoder": [
      to_layer(params["decoder_layers"], i, ("attention_norm", "cross_norm", "mlp_norm"))
      for i in range(2)
    ],
    "W_u": np.asarray(params["unembedding"], np.float64),
  }


@functools.cache
def decoder():
  params = created(DECODER, ROW)
  return params, to_decoder(params)


@functools.cache
def bidirectional_encoder():
  params = created(ENCODER, ROW)
  params["output_bias"] = jnp.zeros_like(params["output_bias"])  # not in algorithm 9
  return params, to_encoder(params)


@functools.cache
def translator():
  params = created(TRANSLATOR, SOURCE, TARGET)
  params["source_positions"] = params["target_positions"]  # one W_p in algorithm 8
  return params, to_translator(params)


def probabilities(model, params, *inputs):
  logits_1TV = jax.jit(model.apply)({"params": params}, *inputs).logits
  return np.asarray(jax.nn.softmax(logits_1TV[0])).T


def near(ours, theirs):
  np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_algorithms_1_and_2_are_rows_of_the_tables():
  params, theta = decoder()
  found = embedded(params["embedding"], ROW) + embedded(params["position_embedding"], jnp.arange(5))
  near(found[0].T, embed(ROW[0], theta))


def layer_of_attention():
  layer = Attention(D, N)
  where = Places(jnp.arange(5, dtype=jnp.int32)[None])
  x = np.random.default_rng(0).normal(size=(1, 5, D)).astype(np.float32)
  params = created(layer, x, queries=where, keys=where, causal=True)
  return layer, params, x, where


def test_algorithm_3_is_attention_of_one_head_and_one_query():
  _, _, x, where = layer_of_attention()
  layer = Attention(D, 1)
  params = created(layer, x, queries=where, keys=where, causal=True)
  eye = {"kernel": jnp.eye(D).reshape(1, D, D), "bias": jnp.zeros(D)}
  found = layer.apply(
    {"params": {**params, "output": eye}}, x, queries=where, keys=where, causal=True
  )
  W = {
    f"{kind}_{name[0]}": np.asarray(params[name][leaf][..., 0, :], np.float64).T
    for name in ("query", "key", "value")
    for kind, leaf in (("W", "kernel"), ("b", "bias"))
  }
  columns = [e.astype(np.float64) for e in x[0]]
  near(found[0, 4], single_query_attention(columns[4], columns, W))
  # An earlier query sees the context up to itself.
  near(found[0, 2], single_query_attention(columns[2], columns[:3], W))


@pytest.mark.parametrize("mask", [bidirectional, unidirectional])
def test_algorithms_4_and_5_are_attention(mask):
  layer, params, x, where = layer_of_attention()
  causal = mask is unidirectional
  found = layer.apply({"params": params}, x, queries=where, keys=where, causal=causal)
  X = x[0].T.astype(np.float64)
  near(found[0].T, mh_attention(X, X, to_attention(params), mask))
  # To a context of another length.
  z = np.random.default_rng(1).normal(size=(1, 3, D)).astype(np.float32)
  keys = Places(jnp.arange(3, dtype=jnp.int32)[None])
  found = layer.apply({"params": params}, x, z, queries=where, keys=keys, causal=causal)
  near(found[0].T, mh_attention(X, z[0].T.astype(np.float64), to_attention(params), mask))


def test_algorithm_6_is_the_norm_and_without_mean_and_shift_the_rms_norm():
  generator = np.random.default_rng(0)
  e, scale, bias = (generator.normal(size=D).astype(np.float32) for _ in range(3))
  norm = {"gamma": scale.astype(np.float64), "beta": bias.astype(np.float64)}
  found = norm_layer("layer", EPSILON, jnp.float32).apply(
    {"params": {"scale": scale, "bias": bias}}, e
  )
  near(found, layer_norm(e.astype(np.float64), norm))
  centred = e - e.mean()  # whose mean is 0 already
  found = norm_layer("rms", EPSILON, jnp.float32).apply({"params": {"scale": scale}}, centred)
  near(found, layer_norm(centred.astype(np.float64), {**norm, "beta": 0.0}))


def test_algorithms_8_and_7_are_the_encoder_decoder():
  params, theta = translator()
  found = probabilities(TRANSLATOR, params, SOURCE, TARGET)
  near(found, ed_transformer(SOURCE[0], TARGET[0], theta))


def test_algorithms_9_and_7_are_the_encoder():
  params, theta = bidirectional_encoder()
  near(probabilities(ENCODER, params, ROW), e_transformer(ROW[0], theta))


def test_algorithms_10_and_7_are_the_decoder():
  params, theta = decoder()
  near(probabilities(DECODER, params, ROW), d_transformer(ROW[0], theta))


# Training. The paper's gradient is taken by differences of its own loss, along directions in the
# space of our parameters.


def same_slope(ours, theirs, params, to_theta):
  """Whether our loss and its gradient are those of the reference, and SGD's step is line 6 / 8."""
  loss, gradient = jax.jit(jax.value_and_grad(ours))(params)
  near(loss, theirs(to_theta(params)))
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  for seed in range(3):
    generator = np.random.default_rng(seed)
    way = jax.tree.map(lambda x, g=generator: g.normal(size=x.shape), params)
    far = 1e-5
    ends = (jax.tree.map(lambda x, w, s=s: x + s * far * w, params, way) for s in (1, -1))
    ahead, behind = (theirs(to_theta(end)) for end in ends)
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, w: (g * w).sum(), gradient, way)))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * far), rtol=2e-4, atol=1e-4)
  rate = 0.25
  rule = optim.Sgd(learning_rate=rate).transformation(1)
  update, _ = rule.update(gradient, rule.init(gradient), params)
  jax.tree.map(lambda u, g: near(u, -rate * g), update, gradient)


def summed(task, model, batch):
  """The sum over tokens, which the paper minimises, of a task's loss."""
  (phase,) = task.phases(model)
  batch = {**batch, "mask": jnp.ones(1)}

  def loss(params):
    return phase.loss(params, {}, batch, jax.random.key(0))[0].total

  return loss


def test_algorithm_11_is_teacher_forcing():
  params, _ = translator()
  z, x = SOURCE[0].tolist(), TARGET[0].tolist()
  tied = ("source_positions", "target_positions")
  own = {k: v for k, v in params.items() if k != tied[0]}
  loss = summed(sequence_to_sequence.Task(), TRANSLATOR, {"source": SOURCE, "target": TARGET})
  ours = lambda own: loss({**own, tied[0]: own[tied[1]]})  # noqa: E731
  same_slope(ours, lambda theta: ed_loss(z, x, theta), own, to_translator)


def test_algorithm_12_is_the_loss_of_masked_tokens():
  params, _ = bidirectional_encoder()
  own = {k: v for k, v in params.items() if k != "output_bias"}
  x, mask_token, seed = ROW[0].tolist(), 5, 1
  task = masked_language_model.Task(rate=0.5, masked=1.0, swapped=0.0, mask_token=mask_token)
  key = jax.random.key(seed)
  # Which tokens the task draws, and that it replaces those alone.
  hidden = task.hide(ROW, jax.random.split(key)[0], V)
  chosen = np.flatnonzero(hidden.chosen[0]).tolist()
  assert 0 < len(chosen) < len(x)
  assert hidden.tokens[0].tolist() == masked(x, chosen, mask_token)
  (phase,) = task.phases(ENCODER)
  batch = {"tokens": jnp.pad(ROW, ((0, 0), (1, 0))), "mask": jnp.ones(1)}

  def ours(own):
    return phase.loss({**own, "output_bias": params["output_bias"]}, {}, batch, key)[0].total

  same_slope(ours, lambda theta: e_loss(x, chosen, mask_token, theta), own, to_encoder)


def test_masks_are_drawn_as_bert_draws_them():
  tokens_BT = jnp.full((64, 256), 4).at[:, 200:].set(-1)
  task = masked_language_model.Task(mask_token=2)
  hidden = task.hide(tokens_BT, jax.random.key(0), 1000)
  chosen, seen = np.asarray(hidden.chosen), np.asarray(hidden.tokens)
  assert not chosen[:, 200:].any()
  assert (seen[~chosen] == np.asarray(tokens_BT)[~chosen]).all()
  count = 64 * 200
  shares = [chosen.sum() / count] + [
    (which & chosen).sum() / chosen.sum() for which in (seen == 2, seen == 4)
  ]
  # Three standard deviations of each share.
  for share, wanted, n in zip(shares, (0.15, 0.8, 0.1), (count, 1900, 1900), strict=True):
    assert abs(share - wanted) < 3 * math.sqrt(wanted * (1 - wanted) / n) + 1e-3
  # An example's masks are its own, whoever else is in the batch.
  alone = task.hide(tokens_BT[:1], jax.random.key(0), 1000)
  np.testing.assert_array_equal(alone.tokens[0], hidden.tokens[0])


def test_algorithm_13_is_the_language_models_loss():
  params, _ = decoder()
  ours = summed(language_model.Task(), DECODER, {"tokens": ROW})
  same_slope(ours, lambda theta: d_loss(ROW[0].tolist(), theta), params, to_decoder)


# Inference.


def written(model, params, begun, prompt, *, steps, sampling, stop=(), seed=0):
  """(tokens [steps], their log probabilities) from our decoding with its cache."""
  variables = {"params": params}
  advance = functools.partial(model.apply, variables, method="advance")

  def run(key):
    cache = model.apply(variables, *begun, method="begin")
    return generate(advance, cache, prompt, key, steps=steps, sampling=sampling, stop=stop)

  found = jax.jit(run)(jax.random.key(seed))
  return found.tokens[0].tolist(), np.asarray(found.log_probabilities[0])


def likeliest(q):
  return int(np.argmax(q))


def replayed(tokens, given):
  """A `sample` that draws what we drew, and notes how likely the paper holds it."""
  left = iter(tokens)

  def sample(q):
    token = next(left)
    given.append(q[token])
    return token

  return sample


def test_algorithm_14_is_generation_from_a_prompt():
  params, theta = decoder()
  prompt, x = ROW[:, :2], ROW[0, :2].tolist()
  run = functools.partial(written, DECODER, params, (1, T), prompt, steps=4)
  tokens, _ = run(sampling=GREEDY)
  assert tokens == d_inference(x, theta, 4, 1.0, likeliest)
  tokens, log_p = run(sampling=Sampling())
  given = []
  d_inference(x, theta, 4, 1.0, replayed(tokens, given))
  near(np.exp(log_p), given)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_temperature_is_a_power_of_the_probabilities(tau):
  _, theta = decoder()
  p = d_transformer(ROW[0], theta)[:, -1]
  q = jax.nn.softmax(adjusted(jnp.log(jnp.asarray(p, jnp.float32)), Sampling(temperature=tau)))
  near(q, tempered(p, tau))


def test_algorithm_15_is_generation_from_a_source():
  params, theta = translator()
  z = SOURCE[0].tolist()
  begun = (SOURCE, T)
  run = functools.partial(written, TRANSLATOR, params, begun, jnp.array([[BOS]]), steps=T - 1)
  tokens, _ = run(sampling=GREEDY, stop=(EOS,))
  wanted = ed_inference(z, theta, BOS, EOS, 1.0, likeliest, T - 1)[1:]
  assert [t for t in tokens if t >= 0] == wanted
  tokens, log_p = run(sampling=Sampling(), stop=(EOS,), seed=3)
  drawn = [t for t in tokens if t >= 0]
  given = []
  ed_inference(z, theta, BOS, EOS, 1.0, replayed(drawn, given), len(drawn))
  near(np.exp(log_p[: len(drawn)]), given)
  # A token that ends the text ends it in the paper too.
  stops = [w for w in wanted if w != EOS][:1]
  tokens, _ = run(sampling=GREEDY, stop=tuple(stops))
  assert [t for t in tokens if t >= 0] == ed_inference(
    z, theta, BOS, stops[0], 1.0, likeliest, T - 1
  )[1:]
