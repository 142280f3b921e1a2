"""Maximum likelihood of an autoregressive model of pixels."""

import dataclasses
import math

from evaluation import independent
from tasks.objective import Call, Examples, Mean, Objective, Phase
from tasks.views import Images, View, contact_sheet

_COLUMNS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises -log p(x), exact, in nats per image (van den Oord et al. 2016, eq. 1)."""

  def phases(self, model):
    if not model.observation.discrete:
      raise ValueError(
        f"likelihood={model.likelihood!r} wants pixels of {model.levels or 'no'} grey levels: for"
        " 'bernoulli' set data.binarize"
      )

    def loss(params, state, batch, rng):
      found = self._metrics(model, params, batch)
      return found.pop("nll"), (state, found)

    return (Phase("autoregressive", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      found = self._metrics(model, params, batch)
      return {"loss": found["nll"], **found}

    return measure

  def _metrics(self, model, params, batch) -> dict[str, Mean]:
    x = batch["image"]
    nll_B = model.observation.nll(model.apply({"params": params}, x).parameters, x)
    nll = Mean.over(nll_B, batch["mask"])
    return {"nll": nll, "bits_per_dim": Mean(nll.total / (math.log(2) * x[0].size), nll.count)}

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """-log p(x) of pixels that know nothing of each other, for the claim."""
    levels = call.model.levels
    found = independent.nll(train.arrays["image"], test.arrays["image"], levels)
    return {"independent_nll": found}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    image = test.arrays["image"][:_COLUMNS]
    half = image.shape[1] // 2
    known = half * math.prod(image.shape[2:])
    given = image.copy()
    given[:, half:] = 0.5
    drawn = [call(image, method="complete", known=known, seed=seed) for seed in range(3)]
    return {
      "samples": self.sample(call, 4 * _COLUMNS, seed=0),
      "completions": Images(
        {"given": given, **{f"draw {i + 1}": x for i, x in enumerate(drawn)}, "test image": image},
        "The upper half of a test image given, the lower half drawn by the model.",
      ),
    }

  def sample(self, call: Call, count: int, seed: int) -> Images:
    images = call(method="sample", examples=count, seed=seed)
    return contact_sheet(images, "Drawn pixel by pixel.", columns=_COLUMNS)
