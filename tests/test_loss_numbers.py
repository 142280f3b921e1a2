"""Every loss agrees with float64 to 1e-5 and is finite, as are its gradients, up to +/-1e4.

What is tested is the loss, so the model is a stand-in whose outputs are its parameters; all else is
the task's own code. It runs twice on the same numbers, in float32 and in float64, with the same
random draws. The formulas that losses are built of are compared with others in NumPy besides.
"""

import contextlib
import functools
import importlib
import math
import pathlib
import zlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import hypothesis
import hypothesis.extra.numpy as arrays_of
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from decoding.generate import log_probability
from evaluation import (
  disentanglement,
  forecast,
  frechet,
  glue,
  importance,
  independent,
  latents,
  ngram,
  pca,
  probing,
  ranking,
  reading,
  retrieval,
  subspace,
  translation,
)
from models.layers import numerics, observation, quantize
from models.layers.sequence import Prediction
from models.vae import Gaussian, Layer, Output, standard
from models.vq import Output as VQOutput
from tasks import elbo, ppo, regress
from tasks import sparse as sparse_task
from tasks.distill import divergence as soft_divergence
from tasks.dpo import dpo_loss
from tasks.likelihood import multinomial_nll
from tasks.reward_model import compared
from tasks.similarity import cosine
from tasks.tokens import smoothed_nll

LARGEST = 1e4
CLOSE = 1e-5
# What float32 leaves of a number near 0 that is a sum of terms near 1: log(1 + e^-15), say.
FLOOR = 2e-6
PR, DEEP = 500, 20_000
B, T, V, K = 3, 5, 6, 4
SPECIAL = np.array([-LARGEST, LARGEST, 0.0, 1e-30, -1e-30, 1.0, -1.0, 88.8, 104.0, -104.0])


def wild(rng: np.random.Generator, *shape: int) -> np.ndarray:
  """Numbers in [-1e4, 1e4] of one of several kinds that have broken a loss somewhere."""
  kind = rng.integers(8)
  if kind == 0:
    found = rng.uniform(-LARGEST, LARGEST, shape)
  elif kind == 1:  # of any size
    found = rng.standard_normal(shape) * 10 ** rng.uniform(-4, 3.5)
  elif kind == 2:
    found = rng.choice(SPECIAL, shape)
  elif kind == 3:  # all equal
    found = np.full(shape, rng.choice(SPECIAL))
  elif kind == 4:  # large, and hardly apart
    found = rng.choice([-9e3, 9e3]) + rng.standard_normal(shape) * 10 ** rng.uniform(-2, 1)
  elif kind == 5:  # sure of itself
    found = np.where(rng.random(shape) < 0.3, LARGEST, -LARGEST)
  elif kind == 6:
    found = rng.choice([LARGEST, 30.0, 1.0]) * rng.choice([-1, 0, 1], shape)
  else:
    found = rng.standard_normal(shape)
  return np.clip(found, -LARGEST, LARGEST).astype(np.float32)


def shares(rng: np.random.Generator, *shape: int) -> np.ndarray:
  """Numbers in [0, 1], the ends and what lies next to them included."""
  ends = np.array([0, 1, 1e-30, 1 - 2**-24, 1 / 255, 254 / 255, 0.5])
  return np.where(rng.random(shape) < 0.6, rng.choice(ends, shape), rng.random(shape)).astype(
    np.float32
  )


def levels_of(rng, count, *shape) -> np.ndarray:
  return (rng.integers(count, size=shape) / (count - 1)).astype(np.float32)


def padded(rng, count: int, *shape: int) -> np.ndarray:
  """Tokens [B, T], some of the rows with padding behind; at least two tokens each."""
  found = rng.integers(count, size=shape).astype(np.int32)
  length = rng.integers(2, shape[-1] + 1, size=shape[:-1])
  return np.where(np.arange(shape[-1]) < length[..., None], found, -1).astype(np.int32)


class StandIn:
  """A model whose outputs are made of its parameters, whatever it is called with.

  Attributes:
    answers: by method, `(parameters, inputs, key) -> outputs`.
  """

  def __init__(self, answers: Callable | Mapping[str, Callable], **facts):
    self.answers = answers if isinstance(answers, Mapping) else {"__call__": answers}
    self.__dict__.update(facts)

  def apply(self, variables, *inputs, method="__call__", mutable=False, rngs=None, **_):
    key = next(iter(rngs.values())) if rngs else None
    out = self.answers[method](variables["params"], inputs, key)
    state = {name: x for name, x in variables.items() if name != "params"}
    return out if mutable is False else (out, state)


class Case(NamedTuple):
  """A loss, and the numbers that it is given.

  Attributes:
    settings: of the task.
    model: its stand-in.
    outputs: draws parameters, which are the model's outputs.
    batch: draws the other arrays of a batch.
    phase: which of the task's.
    ulps: of its inputs, that the loss may be off by: where it is a difference of large terms that
      are only known in float32 (sums of log-densities, exponentials of log-ratios).
    state: collections of the model.
    close: relative error allowed, where float32 inputs fix the loss to no more digits.
    close_slope: the same of its gradient.
    floor: error allowed per example whatever the loss.
  """

  settings: Mapping[str, Any]
  model: StandIn
  outputs: Callable[[np.random.Generator], dict[str, np.ndarray]]
  batch: Callable[[np.random.Generator], dict[str, np.ndarray]]
  phase: int = 0
  ulps: float = 0.0
  state: Callable[[np.random.Generator], dict[str, Any]] = lambda rng: {}
  close: float = CLOSE
  close_slope: float = CLOSE
  floor: float = FLOOR


def picture(rng, **more):
  return {"image": shares(rng, B, K), **{name: draw(rng) for name, draw in more.items()}}


def texts(rng, width: int = T + 1):
  return {"tokens": padded(rng, V, B, width)}


def labels(rng):
  return rng.integers(K, size=B).astype(np.int32)


def labelled(**inputs):
  """Batches with a label of K classes, and whatever the task gives its model."""
  return lambda rng: {"label": labels(rng), **inputs}


def logits(*shape, name="logits"):
  return lambda rng: {name: wild(rng, *shape)}


def told(name="logits"):
  return StandIn(lambda p, x, key: SimpleNamespace(**{name: p[name]}), vocabulary=V, classes=K)


# Autoencoders.


def autoencoder(settings=None, of="image", batch=picture, **facts):
  def answer(p, x, key):
    return SimpleNamespace(logits=p["logits"], reconstruction=p["found"], code=p["code"])

  facts = {"tied": True, "activation": "logistic", "margin": 0.0, "k": 2, **facts}
  answers = {"__call__": answer, "contraction": lambda p, x, key: jnp.abs(p["found"]).sum(-1)}

  def outputs(rng):
    return {"logits": wild(rng, B, K), "found": wild(rng, B, K), "code": shares(rng, B, K)}

  return Case(settings or {}, StandIn(answers, **facts), outputs, batch)


def documents(rng):
  counts = rng.integers(0, 5, (B, K)) * rng.integers(0, 2, (B, 1))  # some of them empty
  return {"counts": counts.astype(np.float32), "document": shares(rng, B, K)}


def layer(settings):
  def outputs(rng):
    return {"logits": wild(rng, B, K)}

  answers = {
    "reconstruct": lambda p, x, key: (x[0], p["logits"]),
    "below": lambda p, x, key: x[0].astype(jnp.float32),
    "restore": lambda p, x, key: p["logits"],
  }
  return Case(settings, StandIn(answers, widths=(K,)), outputs, picture)


def machines():
  answers = {
    "data": lambda p, x, key: x[0],
    "gibbs": lambda p, x, key: 1 - x[0],
    "free_energy": lambda p, x, key: -(p["up"] * x[0] + jax.nn.softplus(p["up"] + x[0])).sum(-1),
  }
  # A difference of free energies up to 8e4, which are known to 4e-3.
  model = StandIn(answers, widths=(K,))
  return Case({}, model, logits(B, K, name="up"), picture, ulps=8, floor=4e-3)


# Variational autoencoders.


def vae(settings=None, likelihood="bernoulli", depth=1, batch=None, methods=None, **more):
  levels = {"bernoulli": 0, "gaussian": 0, "gaussian_fixed": 0}.get(likelihood, 256)
  kind = observation.of(likelihood, levels, 0.5)

  def answer(p, x, key):
    found = []
    for i in range(depth):
      posterior = Gaussian(p[f"mean_{i}"], p[f"spread_{i}"])
      prior = Gaussian(p["prior_mean"], p["prior_spread"]) if i < depth - 1 else None
      noise = jax.random.normal(key, (B, K), jnp.float32)
      # The sample is what float32 holds of it, in either precision.
      z = p["latent"] if "latent" in p else posterior.mean + noise
      z = z.astype(jnp.float32).astype(z.dtype)
      found.append(Layer(posterior, prior or standard(posterior.mean), z))
    return Output(p["parameters"], tuple(found))

  def outputs(rng):
    found = {"parameters": wild(rng, B, K, kind.size)}
    for i in range(depth):
      found |= {f"mean_{i}": wild(rng, B, K), f"spread_{i}": wild(rng, B, K)}
    if depth > 1:
      found |= {"prior_mean": wild(rng, B, K), "prior_spread": wild(rng, B, K)}
    return found | {name: wild(rng, B, K) for name in more.get("extra", ())}

  def pictures(rng):
    image = levels_of(rng, levels, B, K) if levels else shares(rng, B, K)
    return {"image": image, "label": labels(rng), "step": np.full(B, 7, np.int32)}

  answers = {"__call__": answer, **(methods or {})}
  model = StandIn(answers, observation=kind, discriminate=None)
  return Case(
    settings or {}, model, outputs, batch or pictures, more.get("phase", 0), more.get("ulps", 0)
  )


def near_by(case):
  """The same with posteriors that are neither far apart nor of very unlike widths."""

  def outputs(rng):
    return {name: np.tanh(x) * 3 for name, x in case.outputs(rng).items()}

  return case._replace(outputs=outputs)


def square(rng):
  return {"image": shares(rng, B, 2, 4, 1)}


def completing(settings):
  kind = observation.of("bernoulli", 0)
  hidden = 6

  def answer(p, x, key):
    one = Layer(Gaussian(p["mean"], p["spread"]), Gaussian(p["to"], p["to_spread"]), p["mean"])
    return Output(p["parameters"], (one,))

  def outputs(rng):
    names = ("mean", "spread", "to", "to_spread")
    return {
      **{name: wild(rng, B, hidden, 1) for name in ("parameters", "predicted", "guessed")},
      **{name: wild(rng, B, K) for name in names},
    }

  answers = {
    "__call__": answer,
    "predict": lambda p, x, key: p["predicted"],
    "guess": lambda p, x, key: p["guessed"],
  }
  return Case(settings, StandIn(answers, observation=kind), outputs, square)


def codec(settings=None, quantizer="ema", likelihood="gaussian_fixed"):
  levels = 256 if likelihood == "logistic" else 0
  kind = observation.of(likelihood, levels, 0.5)

  def answer(p, x, key):
    codes, encoded = p["codes"], p["encoded"]
    straight = quantize.straight_through(encoded, codes)
    level = quantize.Quantized(encoded, codes, straight, jnp.zeros((B, 2), jnp.int32))
    return VQOutput(p["parameters"] + straight.sum((1, 2))[:, None, None], (level,))

  def log_prior(p, x, key):
    log_p = jax.nn.log_softmax(p["parameters"].reshape(B, -1))
    return (log_p[:, 0] + log_p[:, 1], log_p[:, 1])

  def outputs(rng):
    # Small codes beside outputs of any size: those are all that the decoder is given.
    codes = rng.uniform(-0.02, 0.02, (B, 2, 3)).astype(np.float32)
    found = {"encoded": wild(rng, B, 2, 3), "codes": codes}
    return found | {"parameters": wild(rng, B, K, kind.size)}

  model = StandIn(
    {"__call__": answer, "log_prior": log_prior},
    observation=kind,
    quantizer=quantizer,
    size=8,
    maps=((2,),),
    prior_layers=1,
  )

  def pictures(rng):
    return {"image": levels_of(rng, levels, B, K) if levels else shares(rng, B, K)}

  return Case(settings or {}, model, outputs, pictures)


def pixels(likelihood, levels):
  kind = observation.of(likelihood, levels)
  return Case(
    {},
    StandIn(
      lambda p, x, key: SimpleNamespace(parameters=p["parameters"]),
      observation=kind,
      likelihood=likelihood,
      levels=levels,
    ),
    logits(B, K, kind.size, name="parameters"),
    lambda rng: {"image": levels_of(rng, levels, B, K)},
  )


def game(phase):
  answers = {
    "generate": lambda p, x, key: "a fake",
    "discriminate": lambda p, x, key: p["fake" if isinstance(x[0], str) else "real"],
  }

  def outputs(rng):
    return {"real": wild(rng, B), "fake": wild(rng, B)}

  return Case({}, StandIn(answers, noise=2), outputs, picture, phase)


def judged(p, x, key):
  return p["judged"][:, 0] + 0 * x[0].sum(-1)


# Text.


def writer(settings=None, batch=texts, positions=T, outputs_of=logits, **more):
  answer = lambda p, x, key: Prediction(p["logits"], p["logits"])  # noqa: E731
  model = StandIn(answer, vocabulary=V, ids=V)
  return Case(settings or {}, model, outputs_of(B, positions, V), batch, **more)


def segmented(rng):
  segments = np.sort(rng.integers(2, size=(B, T + 1)), axis=1).astype(np.int32)
  return {**texts(rng), "segments": segments}


def functions(rng):
  return {
    "tokens": rng.integers(V, size=(B, 2 * K)).astype(np.int32),
    "repeated": rng.integers(2, size=(B, K)).astype(np.int32),
  }


def both_ways():
  def outputs(rng):
    return {"ahead": wild(rng, B, T, V), "back": wild(rng, B, T, V)}

  def batch(rng):
    return {"words": padded(rng, V, B, T), "characters": np.zeros((B, T, 2), np.int32)}

  answer = lambda p, x, key: SimpleNamespace(ahead=p["ahead"], back=p["back"])  # noqa: E731
  return Case({}, StandIn(answer), outputs, batch)


def taught():
  def answer(p, x, key):
    return SimpleNamespace(
      student=SimpleNamespace(logits=p["student"]),
      teacher=SimpleNamespace(logits=jax.lax.stop_gradient(p["taught"])),
      student_features=p["features"],
      teacher_features=jax.lax.stop_gradient(p["taught_features"]),
    )

  def outputs(rng):
    return {
      "student": wild(rng, B, T, V),
      "taught": wild(rng, B, T, V),
      "features": wild(rng, B, T, K),
      "taught_features": wild(rng, B, T, K),
      "teacher": np.zeros(1, np.float32),
    }

  model = StandIn({"lesson": answer}, vocabulary=V)
  settings = {"rate": 1.0, "masked": 1.0, "swapped": 0.0}
  # The cosine of vectors that are all but at right angles is a difference of large products.
  return Case(settings, model, outputs, texts, ulps=4)


def related():
  def answer(p, x, key):
    return SimpleNamespace(logits=p["logits"], relation=p["relation"])

  def outputs(rng):
    return {"logits": wild(rng, B, T + 1, V), "relation": wild(rng, B, 2)}

  def batch(rng):
    more = {name: np.zeros((B, T + 1), np.int32) for name in ("types", "special")}
    return {**texts(rng), **more, "relation": rng.integers(2, size=B).astype(np.int32)}

  return Case({}, StandIn(answer, vocabulary=V), outputs, batch)


def spanned():
  def batch(rng):
    tokens = padded(rng, V, B, T)
    length = (tokens >= 0).sum(1)
    start = rng.integers(length)
    end = rng.integers(start, length)
    more = {"start": start.astype(np.int32), "end": end.astype(np.int32)}
    return {"tokens": tokens, "types": np.zeros((B, T), np.int32), **more}

  answer = lambda p, x, key: SimpleNamespace(logits=p["logits"])  # noqa: E731
  return Case({}, StandIn(answer, classes=2), logits(B, T, 2), batch)


def paired(loss):
  def answer(p, x, key):
    return SimpleNamespace(logits=p["logits"], vectors=p["vectors"])

  def outputs(rng):
    return {"logits": wild(rng, B, K), "vectors": wild(rng, B, 2, K)}

  model = StandIn(answer, classified=loss == "classification")
  return Case({"loss": loss}, model, outputs, labelled(tokens=np.zeros(B), types=np.zeros(B)))


def numbers(rng):
  return {"features": np.zeros((B, 1), np.float32), "target": wild(rng, B, K)}


def rated(rng):
  found = {name: np.zeros((B, T), np.int32) for name in ("tokens", "types")}
  return {**found, "label": wild(rng, B)}


# Preferences. What is drawn are tokens from equal logits, whatever the outputs that are scored.

P, R = 2, 3  # tokens of a prompt and of a reply


def preferences(settings=None, ulps=0.0, **more):
  def advance(p, x, key):
    tokens, cache = x
    return jnp.zeros((*tokens.shape, V), jnp.float32), cache

  def rows(x, like):  # replies of several draws come as so many times the batch
    return jnp.tile(like, (len(x[0]) // B, *[1] * (like.ndim - 1)))[:, : x[0].shape[1]]

  answers = {
    "advance": advance,
    "begin": lambda p, x, key: jnp.zeros((1, x[0]), jnp.float32),
    "__call__": lambda p, x, key: Prediction(rows(x, p["policy"]["logits"]), None),
    "before": lambda p, x, key: Prediction(
      rows(x, jax.lax.stop_gradient(p["reference"]["logits"])), None
    ),
    "rewards": lambda p, x, key: rows(x, p["reward"]["numbers"]),
    "values": lambda p, x, key: rows(x, p["value"]["numbers"]),
  }

  def group(rng):
    return {"logits": wild(rng, B, P + R, V)}

  def outputs(rng):
    found = {"policy": group(rng), "reference": group(rng)}
    return found | {name: {"numbers": wild(rng, B, P + R)} for name in ("reward", "value")}

  def batch(rng):
    return {
      "prompt": rng.integers(V, size=(B, P)).astype(np.int32),
      "taste": rng.standard_normal((B, V)).astype(np.float32),
      "text": padded(rng, V, B, P + R),
      "step": np.full(B, 3, np.int32),
    }

  model = StandIn(answers, reply_length=R, eos=0)
  state = lambda rng: {}  # noqa: E731
  if more.get("old"):

    def state(rng):
      value = {"numbers": wild(rng, B, P + R)}
      return {"behaviour": {"policy": group(rng), "value": value, "step": np.int32(3)}}

  exact = {name: x for name, x in more.items() if name != "old"}
  return Case(settings or {}, model, outputs, batch, ulps=ulps, state=state, **exact)


ROUGH = {"close": 4e-3, "close_slope": math.inf, "floor": 2e-2}  # of PPO, see there

CASES: dict[str, dict[str, Case]] = {
  "adversarial": {"discriminator": game(0), "generator": game(1)},
  "anomaly": {"squared": autoencoder()},
  "answer_span": {"": spanned()},
  "autoregressive": {
    "bernoulli": pixels("bernoulli", 2),
    "categorical": pixels("categorical", 5),
    "logistic": pixels("logistic", 256),
  },
  "bilm": {"": both_ways()},
  "choose": {
    "": Case({}, told(), logits(B, K), labelled(tokens=np.zeros((B, K)), types=np.zeros(B)))
  },
  "classify": {
    "": Case({}, told(), logits(B, K), labelled(image=np.zeros(B))),
    "smoothed": Case({"label_smoothing": 0.1}, told(), logits(B, K), labelled(image=np.zeros(B))),
  },
  "classify_patches": {"": Case({}, told(), logits(B, K), labelled(image=np.zeros(B)))},
  "classify_words": {"": Case({}, told(), logits(B, K), labelled(characters=np.zeros(B)))},
  "code_prior": {"": codec()},
  "conditional": {
    "bound": completing({"hybrid": 0.0}),
    "hybrid": completing({"hybrid": 0.5}),
    "baseline": completing({"trains": "baseline"}),
  },
  "contractive": {"": autoencoder()},
  "contrastive_divergence": {"": machines()},
  "distill": {"": taught()},
  # beta times a difference of sums of log-probabilities, up to 6e4 each: known to 4e-3.
  "dpo": {"": preferences(ulps=4, floor=4e-4)},
  "elbo": {
    "bernoulli": vae(),
    "gaussian": vae(likelihood="gaussian"),
    "gaussian_fixed": vae(likelihood="gaussian_fixed"),
    "categorical": vae(likelihood="categorical"),
    "logistic": vae(likelihood="logistic"),
    "two layers": vae(depth=2, ulps=4),
    # Rounding may decide on which side of its free bits a unit is.
    "free bits": vae({"free_bits": 0.5, "beta": 4.0})._replace(close_slope=math.inf),
    "capacity": vae({"capacity": 25.0, "capacity_steps": 10}),
    "warm-up": vae({"warmup_steps": 10}),
  },
  "factor": {
    # A sum of logits of either sign, ten times each.
    "vae": vae(extra=("judged",), methods={"discriminate": judged}, ulps=4),
    "discriminator": vae(extra=("judged",), methods={"discriminate": judged}, phase=1),
  },
  "forecast": {
    "": autoencoder(batch=lambda rng: {"window": wild(rng, B, K)}),
  },
  "importance": {
    "importance": vae({"samples": 3}, ulps=16),
    "evidence": vae({"samples": 3, "bound": "evidence"}, ulps=16),
  },
  "in_context": {"": writer(batch=functions, positions=2 * K - 1)},
  "k_sparse": {"": autoencoder()},
  "label_tokens": {
    "": Case(
      {},
      told(),
      logits(B, T, K),
      lambda rng: {"tokens": np.zeros((B, T), np.int32), "labels": padded(rng, K, B, T)},
    )
  },
  "labelled": {"": vae()},
  "language_model": {
    "": writer(),
    "uniform": writer({"smoothing": 0.1}),
    "others": writer({"smoothing": 0.1, "smoothing_form": "others"}),
    "segments": writer(batch=segmented),
  },
  "layerwise": {
    "": layer({}),
    "masking": layer({"level": 0.5, "corrupted_weight": 2.0}),
    "gaussian": layer({"level": 0.5, "corruption": "gaussian"}),
  },
  "masked_language_model": {"": writer({"rate": 0.5})},
  # The exponential of a difference of log-probabilities up to 2e4, which is known to 2e-3. That of
  # a given difference is held to CLOSE below. The slope jumps where the ratio meets its clip or an
  # advantage its mean, so it is only finite; and the loss adds up what has either sign.
  "ppo": {
    "": preferences(ulps=64, old=True, **ROUGH),
    "text": preferences({"pretraining_weight": 2.0}, ulps=64, old=True, **ROUGH),
  },
  "pretrain_bert": {"": related()},
  "principal": {"": autoencoder()},
  "reconstruction": {
    "squared": autoencoder(),
    "cross-entropy": autoencoder({"error": "cross_entropy"}),
    "multinomial": autoencoder({"error": "multinomial", "of": "counts"}, batch=documents),
  },
  "regress": {"": Case({}, told(), logits(B, K), numbers)},
  "retrieval": {"": autoencoder(batch=documents)},
  "reward_model": {"": preferences()},
  "sequence_to_sequence": {
    "": writer(
      {"smoothing": 0.1},
      batch=lambda rng: {"source": padded(rng, V, B, T), "target": padded(rng, V, B, T + 1)},
    )
  },
  "siamese": {name: paired(name) for name in ("classification", "regression")},
  "span_corruption": {
    "": writer({"sentinel_tokens": 3, "density": 0.3}, batch=lambda rng: texts(rng, 9), positions=5)
  },
  "sparse": {
    "squared": autoencoder(),
    "cross-entropy": autoencoder({"error": "cross_entropy", "beta": 1.0}),
  },
  "text_classify": {
    "": Case({}, told(), logits(B, K), labelled(tokens=np.zeros(B), types=np.zeros(B)))
  },
  "text_regress": {
    "": Case({}, StandIn(lambda p, x, key: SimpleNamespace(**p), classes=1), logits(B, 1), rated)
  },
  "vector_quantization": {
    "moving averages": codec({"error": "squared"}, "ema"),
    "gradient": codec({"error": "squared"}, "gradient"),
    "nll": codec({"error": "nll"}, "gradient", "logistic"),
    "none": codec({"error": "nll"}, "none"),
  },
  # Differences of log-densities: of those of a million and more float32 knows too little, and only
  # finite is promised.
  "total_correlation": {
    "": vae({"beta": 6.0}, extra=("latent",))._replace(close=math.inf, close_slope=math.inf),
    "near": near_by(vae({"beta": 6.0}, extra=("latent",), ulps=32)),
  },
}
EACH = [(task, name) for task, cases in CASES.items() for name in cases]


def has_a_loss(name: str) -> bool:
  return hasattr(importlib.import_module(f"tasks.{name}"), "Task")


def test_every_task_is_here():
  there = {path.stem for path in pathlib.Path("tasks").glob("[!_]*.py")}
  assert {name for name in there if has_a_loss(name)} == set(CASES)


# Both precisions.


@contextlib.contextmanager
def doubles():
  """Arrays of float64 stay what they are; what is drawn at random stays float32, and the same."""
  before = jax.config.jax_explicit_x64_dtypes
  jax.config.update("jax_explicit_x64_dtypes", "allow")
  try:
    yield
  finally:
    jax.config.update("jax_explicit_x64_dtypes", before)


# XLA's for LLVM: which values are computed anew, and how they are rounded there, depends on it. What
# overflows at one level need not at another.
LEVELS = (0, 3)


@functools.cache
def compiled(task: str, name: str, level: int = 0):
  case = CASES[task][name]
  objective = importlib.import_module(f"tasks.{task}").Task(**case.settings)
  loss = objective.phases(case.model)[case.phase].loss

  def one(params, state, batch):
    mean, _ = loss(params, state, batch, jax.random.key(0))
    return mean.total, mean.count

  options = {"xla_backend_optimization_level": level}
  return jax.jit(jax.vmap(jax.value_and_grad(one, has_aux=True)), compiler_options=options)


def drawn(task: str, name: str, count: int, seed: int = 0, mask=None):
  """So many examples of what a loss is given, stacked."""
  case = CASES[task][name]
  rng = np.random.default_rng([zlib.crc32(f"{task} {name}".encode()), seed])

  def one():
    own = (rng.random(B) < 0.7).astype(np.float32) if mask is None else np.full(B, mask, np.float32)
    own[0] = own[0] if mask is not None else 1.0
    return case.outputs(rng), case.state(rng), {**case.batch(rng), "mask": own}

  return jax.tree.map(
    lambda *x: np.stack([np.asarray(y) for y in x]), *[one() for _ in range(count)]
  )


def as_doubles(tree):
  def one(x):
    # By name, as in a call NumPy's own float64 would become float32 again.
    return jnp.asarray(x, dtype=jnp.float64) if x.dtype == np.float32 else jnp.asarray(x)

  return jax.tree.map(one, tree)


def flat(tree, count: int) -> np.ndarray:
  return np.concatenate(
    [np.asarray(x, np.float64).reshape(count, -1) for x in jax.tree.leaves(tree)], axis=1
  )


def check(task: str, name: str, count: int, seed: int, level: int = 0):
  """Asserts what the module promises, of `count` draws."""
  given = drawn(task, name, count, seed)
  case, run = CASES[task][name], compiled(task, name, level)
  (value, weight), slope = run(*given)
  with doubles():
    (true, true_weight), true_slope = run(*as_doubles(given))
  assert {x.dtype for x in jax.tree.leaves(true_slope)} == {np.dtype(np.float64)}
  value, true = (np.asarray(x, np.float64) for x in (value, true))
  slope, true_slope = flat(slope, count), flat(true_slope, count)
  np.testing.assert_array_equal(weight, true_weight)
  assert np.isfinite(value).all(), np.flatnonzero(~np.isfinite(value))
  assert np.isfinite(slope).all(), np.flatnonzero(~np.isfinite(slope).all(1))
  # How far off the loss is when its inputs are, by a rounding each.
  rounding = np.finfo(np.float32).eps
  known = rounding * case.ulps * np.abs(true_slope * flat(given[0], count)).sum(1)
  allowed = case.close * np.abs(true) + case.floor * np.maximum(weight, 1) + known
  wrong = np.flatnonzero(np.abs(value - true) > allowed)
  assert not len(wrong), (len(wrong), wrong[:5], value[wrong[:5]], true[wrong[:5]])
  largest = np.abs(true_slope).max(1)
  allowed = case.close_slope * largest + case.floor + rounding * case.ulps * LARGEST * largest
  gap = np.abs(slope - true_slope).max(1)
  wrong = np.flatnonzero(gap > allowed)
  assert not len(wrong), (len(wrong), wrong[:5], gap[wrong[:5]], largest[wrong[:5]])


@pytest.mark.parametrize(("task", "name"), EACH)
def test_losses_agree_with_float64(task, name):
  check(task, name, PR, seed=0)


def test_what_rounding_takes_from_a_sum_is_put_back():
  """Draws in which no example is as likely as the likeliest, for want of digits."""
  check("total_correlation", "", PR, seed=5)


@pytest.mark.deep
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("task", "name"), EACH)
def test_losses_agree_with_float64_at_length(task, name, level):
  for seed in range(1, 1 + DEEP // PR):
    check(task, name, PR, seed, level)


@pytest.mark.parametrize(("task", "name"), EACH)
def test_a_batch_of_padding_has_no_loss(task, name):
  """Of nothing the mean is nothing, and there is nothing to learn."""
  (value, weight), slope = compiled(task, name)(*drawn(task, name, PR, mask=0.0))
  np.testing.assert_array_equal(weight, 0)
  np.testing.assert_array_equal(value, 0)
  np.testing.assert_array_equal(flat(slope, PR), 0)


# The formulas, beside others in float64 NumPy.

NUMBERS = st.one_of(
  st.sampled_from([float(x) for x in SPECIAL.astype(np.float32)]),
  st.floats(-LARGEST, LARGEST, width=32, allow_subnormal=False),
  st.floats(-20, 20, width=32, allow_subnormal=False),
)
PARTS = st.one_of(
  st.sampled_from([0.0, 1.0, 0.5, 1 - 2**-24]), st.floats(0, 1, width=32, allow_subnormal=False)
)


def rows(elements=NUMBERS, columns: int = V):
  return arrays_of.arrays(np.float32, (2, columns), elements=elements)


def property_of(**draws):
  """A property over draws that are the same every time; more of them in the deep run's test."""

  def decorate(function):
    given = hypothesis.given(**draws)
    return hypothesis.settings(max_examples=60, derandomize=True, deadline=None, database=None)(
      given(function)
    )

  return decorate


@functools.cache
def quick(function):
  return jax.jit(function)


@functools.cache
def slopes(function, wrt=0):
  """The gradient of a function's sum by some of its arguments, compiled once."""
  return jax.jit(jax.grad(lambda *x: function(*x).sum(), wrt))


def doubled(*arrays):
  return (np.asarray(x, np.float64) for x in arrays)


def near(found, true, floor=FLOOR):
  assert np.isfinite(found).all()
  np.testing.assert_allclose(np.asarray(found, np.float64), true, rtol=CLOSE, atol=floor)


def log_softmax(x, axis=-1):
  """Exact to the last digits also where a probability is next to 1."""
  shifted = x - x.max(axis, keepdims=True)
  place = shifted.argmax(axis)
  others = np.exp(shifted)
  np.put_along_axis(others, np.expand_dims(place, axis), 0.0, axis)
  return shifted - np.log1p(others.sum(axis, keepdims=True))


@property_of(x=rows())
def test_exponentials_that_go_on_as_lines(x):
  (true,) = doubled(x)
  line = np.exp(30.0) * (1 + np.maximum(true - 30, 0))
  near(quick(numerics.exp_then_line)(x), np.where(true < 30, np.exp(np.minimum(true, 30)), line))
  slope = slopes(numerics.exp_then_line)(x)
  near(slope, np.exp(np.minimum(true, 30)))


def test_they_are_the_exponential_in_the_ordinary_range():
  x = np.linspace(-90, 30, 20_001, dtype=np.float32)
  np.testing.assert_array_equal(numerics.exp_then_line(x), jnp.exp(x))


@property_of(x=rows())
def test_the_log_of_a_sum_of_exponentials(x):
  (true,) = doubled(x)
  summed = functools.partial(numerics.log_sum_exp, axis=1)
  near(quick(summed)(x), scipy.special.logsumexp(true, axis=1))
  near(slopes(summed)(x), scipy.special.softmax(true, axis=1))
  assert summed(np.full((2, 3), -np.inf, np.float32)).tolist() == [-np.inf] * 2


@property_of(x=rows(), index=arrays_of.arrays(np.int32, 2, elements=st.integers(0, V - 1)))
def test_categorical_log_probabilities(x, index):
  (true,) = doubled(x)
  nll = -log_softmax(true)[np.arange(2), index]
  near(quick(numerics.categorical_nll)(x, index), nll)
  near(-quick(log_probability)(x, index), nll)


@property_of(x=rows(), target=rows(PARTS))
def test_bernoulli_log_probabilities(x, target):
  a, t = doubled(x, target)
  # What is not said of 1, and of 0, is so improbable.
  near(
    quick(numerics.bernoulli_nll)(x, target), t * np.logaddexp(0, -a) + (1 - t) * np.logaddexp(0, a)
  )
  slope = slopes(numerics.bernoulli_nll)(x, target)
  near(slope, scipy.special.expit(a) - t)


@pytest.mark.parametrize("target", [254 / 255, 1 - 2**-24])
def test_what_is_sure_and_nearly_right(target):
  target = np.float32(target)
  near(numerics.bernoulli_nll(np.float32(LARGEST), target), LARGEST * (1 - np.float64(target)))
  near(numerics.bernoulli_nll(np.float32(-LARGEST), 1 - target), LARGEST * (1 - np.float64(target)))


@property_of(x=rows(), counts=rows(st.integers(0, 50).map(float)))
def test_multinomial_log_probabilities(x, counts):
  a, n = doubled(x, counts)
  near(quick(multinomial_nll)(x, counts), -(n * log_softmax(a)).sum(-1), 50 * V * FLOOR)


@pytest.mark.parametrize("form", ["uniform", "others"])
@pytest.mark.parametrize("smoothing", [0.1, 0.999])
def test_smoothed_log_probabilities(form, smoothing):
  @property_of(x=rows(), index=arrays_of.arrays(np.int32, 2, elements=st.integers(0, V - 1)))
  def holds(x, index):
    log_p = log_softmax(np.float64(x))
    one_hot = np.eye(V)[index]
    share = one_hot * 0 + 1 / V if form == "uniform" else (1 - one_hot) / (V - 1)
    target = (1 - smoothing) * one_hot + smoothing * share
    near(measured(x[None], index[None])[0], -(target * log_p).sum(-1))

  measured = jax.jit(lambda x, t: smoothed_nll(x, t, smoothing=smoothing, form=form)[0])
  holds()


@property_of(x=rows(columns=3), u=rows(PARTS, 3))
def test_logistic_log_probabilities(x, u):
  """The mass between two ends, each of which is a sigmoid."""
  level = np.round(u * 255).astype(np.float32) / np.float32(255)
  scale = x[::-1]
  m, v, s = doubled(x, level, scale)
  s = np.exp(np.clip(s, -7, 7))
  low, high = (v - m - 0.5 / 255) / s, (v - m + 0.5 / 255) / s
  expit = scipy.special.log_expit
  true = expit(high) + expit(-low) + np.log(-np.expm1(low - high))
  true = np.where(v < 0.5 / 255, expit(high), np.where(v > 1 - 0.5 / 255, expit(-low), true))
  kind = observation.of("logistic", 256)
  near(quick(kind.log_prob)(np.stack([x, scale], -1), level), true)


@property_of(x=rows(columns=3), y=rows(columns=3), s=rows(columns=3), t=rows(columns=3))
def test_divergence_and_density_of_gaussians(x, y, s, t):
  m, n, a, b = doubled(x, y, s, t)

  def grows(e):
    return np.where(e < 30, np.exp(np.minimum(e, 30)), np.exp(30.0) * (e - 29))

  # A difference, of which float32 knows the terms.
  kl = 0.5 * (b - a + grows(a - b) + np.square(m - n) * grows(-b) - 1)
  terms = np.abs(a) + np.abs(b) + 1
  layer = Layer(Gaussian(x, s), Gaussian(y, t), x)
  found = np.float64(quick(elbo.divergence)(layer))
  assert np.isfinite(found).all()
  # e^(a - b) magnifies the rounding of a - b.
  allowed = CLOSE * np.abs(kl) + 1e-6 * terms
  assert (np.abs(found - kl) <= allowed).all()
  assert (kl >= -1e-9).all()
  density = -0.5 * (np.log(2 * np.pi) + a + np.square(n - m) * grows(-a))
  found = np.float64(quick(elbo.unit_log_density)(y, layer.posterior))
  assert (np.abs(found - density) <= CLOSE * np.abs(density) + 1e-6 * terms).all()
  slope = jax.tree.leaves(slopes(elbo.divergence)(layer))
  assert all(np.isfinite(x).all() for x in slope)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_log_variance_that_has_run_away_is_pulled_back(sign):
  where = jnp.full((1, 1), sign * LARGEST)
  kl = lambda x: elbo.divergence(Layer(Gaussian(0 * x, x), standard(x), x)).sum()  # noqa: E731
  assert sign * float(jax.grad(kl)(where)[0, 0]) >= 0.5


@property_of(x=rows(PARTS), rho=st.sampled_from([0.01, 0.5, 0.99]))
def test_divergence_of_bernoulli_shares(x, rho):
  (p,) = doubled(x)
  on, off = (1e-6 + (1 - 2e-6) * share for share in (p, 1 - p))
  true = scipy.special.rel_entr(rho, on) + scipy.special.rel_entr(1 - rho, off)
  near(quick(sparse_task.divergence)(rho, x, 1 - x), true)


@property_of(x=rows(), y=rows(), temperature=st.sampled_from([1.0, 2.0, 3.0]))
def test_divergence_of_softened_softmaxes(x, y, temperature):
  p, q = (log_softmax(z / temperature) for z in doubled(x, y))
  near(quick(soft_divergence)(x, y, temperature), (np.exp(p) * (p - q)).sum(-1), 1e-5)


def test_large_logits_are_softened_like_small_ones():
  x, y = np.float32([[3, 1, 0, -2]]), np.float32([[1, 1, 2, 0]])
  near(soft_divergence(x + 9000, y + 9000, 3.0), soft_divergence(x, y, 3.0), 1e-7)


@property_of(x=rows(), y=rows())
def test_cosines(x, y):
  u, v = doubled(x, y)
  squares = np.square(u).sum(-1) * np.square(v).sum(-1)
  near(quick(cosine)(x, y), (u * v).sum(-1) / np.sqrt(np.maximum(squares, 1e-24)))
  slope = slopes(cosine)(x, y)
  assert np.isfinite(slope).all()


@property_of(x=rows(), y=rows(), beta=st.sampled_from([0.1, 1.0]))
def test_preference_losses(x, y, beta):
  a, b = doubled(x, y)
  near(quick(dpo_loss)(x, y, beta), np.logaddexp(0, -beta * (a - b)), 1e-5)
  loss, *_ = quick(compared)(x, y)
  order = np.sign(b[0] - b[1])
  near(loss, np.where(order == 0, 0, np.logaddexp(0, -order * (a[0] - a[1]))))


def surrogate(log_ratio, advantage):
  return ppo.clipped(log_ratio, advantage, 0.2)[0]


@property_of(x=rows(), y=rows())
def test_clipped_ratios(x, y):
  r, a = doubled(x, y)
  ratio = np.where(r < 30, np.exp(np.minimum(r, 30)), np.exp(30.0) * (r - 29))
  true = -np.minimum(ratio * a, np.clip(ratio, 0.8, 1.2) * a)
  near(quick(surrogate)(x, y), true, 1e-2 * FLOOR * LARGEST)
  slope = slopes(surrogate)(x, y)
  assert np.isfinite(slope).all()


def test_a_ratio_that_has_run_away_is_pulled_back():
  slope = jax.grad(lambda r: ppo.clipped(r, jnp.float32(-1), 0.2)[0])(LARGEST)
  assert slope > 0


@property_of(x=rows(), there=arrays_of.arrays(bool, (2, V)))
def test_whitened_values(x, there):
  (v,) = doubled(x)
  kept = v[there]
  if kept.size and kept.std() < 1e-3 * np.abs(kept).max() and kept.std() > 1e-6:
    return  # float32 holds no three digits of such differences
  true = np.zeros_like(v)
  if kept.size:
    true[there] = (kept - kept.mean()) / np.sqrt(kept.var() + 1e-8)
  near(quick(ppo.whitened)(x, there), true, 2e-4)


def test_equal_values_are_white_zeros():
  """Their mean in float32 is not quite they, and what is left was blown up to 1."""
  x = np.full((7, 11), 9999.9, np.float32)
  assert np.abs(ppo.whitened(x, x > 0)).max() < 1e-3


@property_of(x=rows(), y=rows(st.floats(-1, 1, width=32, allow_subnormal=False)))
def test_codes_pass_straight_through(x, y):
  np.testing.assert_array_equal(quick(quantize.straight_through)(x, y), y)
  slope = slopes(quantize.straight_through, (0, 1))(x, y)
  np.testing.assert_array_equal(slope, [np.ones((2, V)), np.zeros((2, V))])


GRID = quantize.FSQ((8, 5, 4, 3))


@jax.jit
def quantised(x):
  out = GRID.apply({}, x, train=True, mask_B=np.ones(2))
  return out, GRID.lookup(out.indices)


@property_of(x=rows(columns=4))
def test_scalar_quantisers(x):
  out, codes = quantised(x)
  assert np.isfinite(out.straight).all()
  assert (np.abs(out.straight) <= 1).all()
  np.testing.assert_allclose(codes, out.codes, atol=1e-6)


# Scores of what is degenerate: a documented value or one clear error, and never a warning.

EMPTY, ONE = np.zeros((0, 3)), np.zeros((1, 3))
SOME = np.random.default_rng(0).standard_normal((12, 3))
NAN = np.where(np.arange(36).reshape(12, 3) == 7, np.nan, SOME)
HALVES = np.arange(12) % 2
FACTORS = np.stack([HALVES, np.arange(12) % 3], 1)

REFUSED = {
  "frechet of nothing": lambda: frechet.distance(EMPTY, SOME),
  "frechet of one": lambda: frechet.distance(ONE, SOME),
  "frechet of nan": lambda: frechet.distance(SOME, NAN),
  "components of nothing": lambda: pca.components(EMPTY, 2),
  "components of nan": lambda: pca.components(NAN, 2),
  "errors of nothing": lambda: pca.squared_error(SOME, EMPTY, 2),
  "errors of nan": lambda: pca.squared_error(SOME, NAN, 2),
  "ridge of nothing": lambda: forecast.ridge(EMPTY, EMPTY, 1.0),
  "ridge of nan": lambda: forecast.ridge(NAN, SOME, 1.0),
  "mae of nothing": lambda: forecast.mae(EMPTY, EMPTY),
  "mae of nan": lambda: forecast.mae(SOME, NAN),
  "smape of nothing": lambda: forecast.smape(EMPTY, EMPTY),
  "smape of nan": lambda: forecast.smape(SOME, NAN),
  "nll of no examples": lambda: importance.nll(EMPTY.T),
  "nll of no samples": lambda: importance.nll(EMPTY),
  "nll of nan": lambda: importance.nll(NAN),
  "nll of inf": lambda: importance.nll(SOME + np.inf),
  "bound of nan": lambda: importance.bound(NAN, 2),
  "bound of too few": lambda: importance.bound(SOME, 13),
  "independent, nothing": lambda: independent.nll(ONE, EMPTY, 2),
  "independent, nan": lambda: independent.nll(ONE, NAN, 2),
  "active of nothing": lambda: latents.active(EMPTY),
  "active of nan": lambda: latents.active(NAN),
  "ranked nan": lambda: retrieval.ranked(NAN, SOME),
  "ranked nothing": lambda: retrieval.ranked(SOME, EMPTY),
  "no query": lambda: retrieval.average_precision(np.zeros((0, 3), bool)),
  "nothing relevant": lambda: retrieval.average_precision(np.zeros((2, 3), bool)),
  "nothing precise": lambda: retrieval.precision_at(np.zeros((0, 3), bool), 2),
  "angles of nan": lambda: subspace.cosines(SOME, NAN),
  "angles of nothing": lambda: subspace.cosines(EMPTY, SOME),
  "one class ranked": lambda: ranking.auroc(SOME[:, 0], np.ones(12)),
  "one class drawn": lambda: ranking.roc(SOME[:, 0], np.ones(12), np.linspace(0, 1, 3)),
  "nan ranked": lambda: ranking.auroc(NAN.ravel()[:12], HALVES),
  "probe of one class": lambda: probing.classify(SOME, SOME, 0 * HALVES, HALVES),
  "probe of nothing": lambda: probing.classify(EMPTY, SOME, HALVES[:0], HALVES),
  "probe of nan": lambda: probing.classify(NAN, SOME, HALVES, HALVES),
  "pearson of nan": lambda: glue.pearson(NAN[:, 1], SOME[:, 0]),
  "spearman of nan": lambda: glue.spearman(NAN[:, 1], SOME[:, 0]),
  "glue of nothing": lambda: glue.score({}),
  "no translations": lambda: translation.scores([], []),
  "a translation without reference": lambda: translation.scores(["a"], []),
  "no factor varies": lambda: disentanglement.scores(SOME, 0 * FACTORS),
  "one factor varies": lambda: disentanglement.scores(SOME, FACTORS * [0, 1]),
  "ids that are none": lambda: ngram.bits(HALVES, np.array([2]), order=1, vocabulary=2),
}
DOCUMENTED = {
  "frechet of equal sets": (lambda: frechet.distance(ONE.repeat(3, 0), ONE.repeat(3, 0)), 0.0),
  "components of one": (lambda: pca.squared_error(ONE, ONE, 2), 0.0),
  "smape of zeros": (lambda: forecast.smape(ONE, ONE), 0.0),
  "improbable": (lambda: importance.nll(SOME - np.inf)["nll"], math.inf),
  "improbable, error": (lambda: importance.nll(SOME - np.inf)["nll_se"], math.nan),
  "one example, error": (lambda: importance.nll(SOME[:, :1])["nll_se"], math.nan),
  "one sample, error": (lambda: importance.nll(SOME[:1])["nll_monte_carlo_se"], math.nan),
  "constant codes": (lambda: float(latents.active(ONE.repeat(3, 0))), 0.0),
  "codes of zeros": (lambda: float(retrieval.ranked(ONE, 0 * SOME)[0, 0]), 0.0),
  "all relevant": (lambda: retrieval.average_precision(np.ones((2, 3), bool)), 1.0),
  "constant scores": (lambda: ranking.auroc(np.ones(12), HALVES), 0.5),
  "accuracy of nothing": (lambda: glue.accuracy(HALVES[:0], HALVES[:0]), 0.0),
  "f1 of nothing": (lambda: glue.f1(HALVES[:0], HALVES[:0]), 0.0),
  "f1 of one class": (lambda: glue.f1(0 * HALVES, HALVES), 0.0),
  "matthews of one class": (lambda: glue.matthews(0 * HALVES, HALVES), 0.0),
  "pearson of a constant": (lambda: glue.pearson(np.ones(12), SOME[:, 0]), 0.0),
  "pearson of nothing": (lambda: glue.pearson(EMPTY[:, 0], EMPTY[:, 0]), 0.0),
  "spearman of a constant": (lambda: glue.spearman(SOME[:, 0], np.ones(12)), 0.0),
  "spearman of nothing": (lambda: glue.spearman(EMPTY[:, 0], EMPTY[:, 0]), 0.0),
  "nothing to answer": (lambda: reading.f1("", []), 1.0),
  "an empty answer": (lambda: reading.exact_match("the", ["a cat"]), 0.0),
  "empty translations": (lambda: translation.scores([""], [""])["chrf"], None),
  "bits of nothing": (lambda: ngram.bits(HALVES, HALVES[:0], order=2, vocabulary=2), 0.0),
  "bits after nothing": (lambda: ngram.bits(HALVES[:0], HALVES, order=2, vocabulary=2), 12.0),
  "a run that diverged": (lambda: disentanglement.scores(NAN, FACTORS)["mig"], math.nan),
  "posteriors that diverged": (lambda: parts_of(NAN).total_correlation, math.nan),
  "constant codes, factors": (lambda: disentanglement.scores(0 * SOME, FACTORS)["mig"], 0.0),
  "r2 of a constant": (lambda: regress._r2(ONE + 1, ONE), 0.0),
  "r2 of a constant that is met": (lambda: regress._r2(ONE, ONE), 1.0),
}


def parts_of(means):
  rng = np.random.default_rng(0)
  return disentanglement.decomposition(means, 0 * means, rng, draws=5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", REFUSED)
def test_scores_of_nothing_are_refused(name):
  with pytest.raises(ValueError) as found:  # noqa: PT011 - each has words of its own
    REFUSED[name]()
  assert 10 < len(str(found.value)) < 300
  assert "\n" not in str(found.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", DOCUMENTED)
def test_scores_of_little_are_documented(name):
  score, wanted = DOCUMENTED[name]
  found = score()
  assert isinstance(found, float)
  if wanted is None:
    assert math.isfinite(found)
  else:
    np.testing.assert_allclose(found, wanted, atol=1e-9)


@pytest.mark.filterwarnings("error")
def test_posteriors_of_any_width_have_finite_parts():
  spread = np.where(HALVES[:, None] > 0, LARGEST, -LARGEST) * np.ones((1, 3))
  parts = disentanglement.decomposition(1e4 * SOME, spread, np.random.default_rng(0), draws=20)
  assert np.isfinite(parts).all()


def test_every_score_is_here():
  used = {
    name
    for score in (*REFUSED.values(), *(f for f, _ in DOCUMENTED.values()))
    for name in score.__code__.co_names
  }
  there = {path.stem for path in pathlib.Path("evaluation").glob("[!_]*.py")}
  # The refusals themselves, and naive Bayes, which counts from one and divides by no count.
  assert there - used == {"checks", "naive_bayes"}
