"""A prior over the codes of a finished autoencoder: the second stage of VQ-VAE."""

import dataclasses
import math
from typing import Annotated

import jax
import numpy as np

from evaluation import frechet
from tasks import vector_quantization
from tasks.objective import Call, Examples, Mean, Phase
from tasks.views import Images, View, contact_sheet

_AT_ONCE = 250
_COLUMNS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(vector_quantization.Task):
  """Minimises -log p(codes) of training images (van den Oord et al. 2017, section 3.3).

  The codec stays as the stage before left it.

  Attributes:
    samples: drawn for each Frechet distance.
  """

  samples: Annotated[int, "[2, 1000000]"] = 1000

  def phases(self, model):
    if not model.prior_layers or model.quantizer == "none":
      raise ValueError("a prior over codes needs model.prior_layers above 0 and a quantizer")

    def loss(params, state, batch, rng):
      found = self._nll(model, params, state, batch)
      return found["code_nll"], (state, {k: v for k, v in found.items() if k != "code_nll"})

    return (Phase("prior", loss, trains=("prior",)),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out = model.apply({"params": params, **state}, batch["image"])
      found = self._nll(model, params, state, batch) | self.errors(model, out, batch)
      if "bits_per_dim" in found:
        # The bound of the learned prior in place of that of equally likely codes.
        nats_a_bit = math.log(2) * batch["image"][0].size
        total = found["nll"].total + found["code_nll"].total
        found["bits_per_dim"] = Mean(total / nats_a_bit, found["nll"].count)
      return {"loss": found["code_nll"], **found}

    return measure

  def _nll(self, model, params, state, batch) -> dict[str, Mean]:
    """-log p(codes) in nats, and in bits of each map where there are several."""
    log_p = model.apply({"params": params, **state}, batch["image"], method="log_prior")
    found = {"code_nll": Mean.over(-sum(log_p), batch["mask"])}
    if len(log_p) > 1:
      for i, one_B in enumerate(log_p):
        found[f"code_nll_{i + 1}"] = Mean.over(-one_B, batch["mask"])
    return found

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Frechet distances to the test set of samples through the prior, and of codes at random."""
    image, held_out = train.arrays["image"], test.arrays["image"]

    def distance(images):
      return frechet.principal_distance(image, images, held_out)

    found = super().score(call, train, test)
    return {
      **found,
      "code_nll_uniform": found["code_bits"] * math.log(2),
      "frechet": distance(_drawn(call, self.samples, 0)),
      "frechet_uniform": distance(_drawn(call, self.samples, 0, uniform=True)),
      # What the codec alone costs: no prior over its codes can do better in the long run.
      "frechet_reconstructed": distance(_reconstructed(call, held_out)),
    }

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    uniform = _drawn(call, 2 * _COLUMNS, 0, uniform=True)
    return {
      **super().views(call, train, test),
      "samples": self.sample(call, 4 * _COLUMNS, seed=0),
      "uniform": contact_sheet(
        uniform, "Codes drawn at random, for comparison: a prior is needed.", columns=_COLUMNS
      ),
    }

  def sample(self, call: Call, count: int, seed: int) -> Images:
    caption = "Decoded codes, drawn one after another from the prior."
    return contact_sheet(_drawn(call, count, seed), caption, columns=_COLUMNS)


def _drawn(call: Call, count: int, seed: int, *, uniform: bool = False) -> np.ndarray:
  """Images [count, ...] of codes drawn from the prior, or of codes drawn uniformly."""
  # One size of batch, whatever the count, so that one program serves them all.
  size = min(count, _AT_ONCE)
  parts = []
  for part in range(-(-count // size)):
    key = jax.random.fold_in(jax.random.key(seed), part)
    own = int(jax.random.bits(key) >> 1)
    parts.append(call(method="sample", examples=size, uniform=uniform, seed=own))
  return np.clip(np.concatenate(parts)[:count], 0, 1)


def _reconstructed(call: Call, image: np.ndarray) -> np.ndarray:
  return np.clip(vector_quantization.reconstructed(call, image), 0, 1)
