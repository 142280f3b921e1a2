"""Training an autoencoder with discrete codes."""

import dataclasses
import math
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from models.layers import quantize
from models.vq import Output
from tasks.objective import Call, Examples, Mean, Objective, Phase, Sentinel, in_batches
from tasks.views import Bars, Images, Lines, View

_COLUMNS = 12
_MOST_BARS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """-log p(x|z_q) + |sg[z_e] - e|^2 + beta |z_e - sg[e]|^2 (van den Oord et al. 2017, eq. 3).

  The second and third terms are squared norms, averaged over the codes of a map. The second is left
  out where moving averages do its work, and both where there is no codebook.

  Attributes:
    error: "nll" is -log p(x|z_q); "squared" the squared error of its mean per image, a sum over
      pixels.
    commitment: beta, whose size goes with that of the error.
  """

  error: Literal["squared", "nll"] = "squared"
  commitment: Annotated[float, "[0, inf)", "traced"] = 0.25

  def phases(self, model):
    model.observation  # noqa: B018 - raises where data and likelihood do not go together

    def loss(params, state, batch, rng):
      # The mask too: what is padded must not move a codebook.
      out, state = model.apply(
        {"params": params, **state},
        batch["image"],
        train=True,
        mask=batch["mask"],
        mutable=list(state),
        rngs={"params": rng},
      )
      errors = self.errors(model, out, batch)
      return self.objective(model, out, errors, batch), (
        state,
        {**errors, **_usage(model, out, batch)},
      )

    return (Phase("vector_quantization", loss, trains=("codec",)),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out = model.apply({"params": params, **state}, batch["image"])
      errors = self.errors(model, out, batch)
      return {"loss": self.objective(model, out, errors, batch), **errors}

    return measure

  def errors(self, model, out: Output, batch) -> dict[str, Mean]:
    """Squared error, and where p(x|z_q) is trained or of discrete data, its negative logarithm."""
    x = batch["image"]
    gap = model.observation.mean(out.parameters) - x
    found = {"squared": Mean.over(jnp.square(gap.reshape(len(x), -1)).sum(-1), batch["mask"])}
    if self.error == "nll":
      found["nll"] = Mean.over(model.observation.nll(out.parameters, x), batch["mask"])
      if model.observation.discrete:
        # -log p(x) is at most -log p(x|z_q) - log p(z_q), with all codes equally likely.
        nll = found["nll"]
        bound = nll.total + nll.count * code_bits(model) * math.log(2)
        found["bits_per_dim"] = Mean(bound / (math.log(2) * x[0].size), nll.count)
    return found

  def objective(self, model, out: Output, errors: dict[str, Mean], batch) -> Mean:
    """What is minimised."""
    error = errors[self.error]
    if model.quantizer not in ("ema", "gradient"):
      return error
    penalty_B = 0.0
    for level in out.levels:
      if model.quantizer == "gradient":
        penalty_B += _distance(jax.lax.stop_gradient(level.encoded), level.codes)
      penalty_B += self.commitment * _distance(level.encoded, jax.lax.stop_gradient(level.codes))
    return Mean(error.total + Mean.over(penalty_B, batch["mask"]).total, error.count)

  def sentinels(self):
    def dying(row):
      return any(value < 0.1 for name, value in row.items() if name.startswith("usage"))

    remedy = (
      "less than a tenth of the codes is chosen: set model.quantizer=ema with model.revive=0.1, or"
      " make model.codes smaller"
    )
    return (Sentinel("codebook collapse", dying, remedy),)

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """The codes' vectors [N, F] of all maps."""
    levels = in_batches(call, examples.arrays["image"], size=200).levels
    return np.concatenate([level.straight.reshape(len(level.straight), -1) for level in levels], 1)

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Over all of the test set: perplexity and number of the codes in use, bits of an image."""
    if call.model.quantizer == "none":
      return {}
    maps = _codes(call, test.arrays["image"])
    found = {"code_bits": code_bits(call.model)}
    for name, map_ in zip(_suffixes(maps), maps, strict=True):
      counts_K = np.bincount(map_.ravel(), minlength=call.model.size)
      found[f"perplexity{name}"] = float(quantize.perplexity(jnp.asarray(counts_K, jnp.float32)))
      found[f"codes_used{name}"] = float((counts_K > 0).sum())
    return found

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    image = test.arrays["image"]
    mean = reconstructed(call, image[:_COLUMNS])
    bits = f"{code_bits(call.model):g} bits" if call.model.quantizer != "none" else "no quantiser"
    found: dict[str, View] = {
      "reconstructions": Images(
        {"input": image[:_COLUMNS], bits: np.clip(mean, 0, 1)},
        "Test images above, what their codes say of them below.",
      )
    }
    if call.model.quantizer != "none":
      found["codebook"] = _codebook(_codes(call, image), call.model.size)
    return found


def code_bits(model) -> float:
  """Bits of all codes of an image, all of them equally likely."""
  return sum(math.prod(shape) for shape in model.maps) * math.log2(model.size)


def reconstructed(call: Call, image: np.ndarray) -> np.ndarray:
  """E[x|z_q] of images' codes."""
  return in_batches(call, image, method="reconstruct", size=200)


def _distance(a: jax.Array, b: jax.Array) -> jax.Array:
  """[B] squared distances of codes [B, ..., D], averaged over the codes of an example."""
  return jnp.square(a - b).sum(-1).reshape(len(a), -1).mean(-1)


def _suffixes(levels) -> list[str]:
  return [f"_{i + 1}" for i in range(len(levels))] if len(levels) > 1 else [""]


def _usage(model, out: Output, batch) -> dict[str, Mean]:
  """Perplexity and share of the codes that are chosen, in this batch alone."""
  found = {}
  if model.quantizer == "none":
    return found
  one = jnp.ones(())
  for name, level in zip(_suffixes(out.levels), out.levels, strict=True):
    counts_K = quantize.counts(level.indices, batch["mask"], model.size)
    # The whole batch's on every device: a mean over devices leaves it as it is.
    found[f"perplexity{name}"] = Mean(quantize.perplexity(counts_K), one)
    found[f"usage{name}"] = Mean((counts_K > 0).astype(jnp.float32).mean(), one)
  return found


def _codes(call: Call, image: np.ndarray) -> tuple[np.ndarray, ...]:
  return in_batches(call, image, method="indices", size=200)


def _codebook(maps: tuple[np.ndarray, ...], size: int) -> View:
  """How often each code is chosen, the most frequent first."""
  shares = {}
  for name, map_ in zip(_suffixes(maps), maps, strict=True):
    counts_K = np.bincount(map_.ravel(), minlength=size)
    shares[f"map{name}".replace("_", " ")] = np.sort(counts_K)[::-1] / counts_K.sum()
  caption = f"How often the test set chooses each of {size} codes, the most frequent first."
  axes = ("code, by frequency", "share")
  if len(shares) == 1 and size <= _MOST_BARS:
    ((_, share_K),) = shares.items()
    return Bars({str(i + 1): float(share) for i, share in enumerate(share_K)}, axes, caption)
  return Lines(np.arange(1, size + 1), shares, axes, caption)
