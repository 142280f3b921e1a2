"""Completing an image whose quadrants are partly hidden (Sohn, Lee & Yan 2015, section 5.1).

Of the four quadrants of an image, the first `quadrants` are observed, in the order bottom left, top
left, top right, bottom right; the others are to be predicted. The bound is that of the conditional
likelihood: log p(y|x) >= E_q(z|x,y)[log p(y|x, z)] - KL(q(z|x, y) || p(z|x)) (eq. 4).

Axes: B examples, X observed pixels, Y hidden ones.
"""

import dataclasses
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tasks import elbo
from tasks.objective import Call, Examples, Mean, Objective, Phase, applied, in_batches, on
from tasks.views import Images, View

_COLUMNS = 12
_COMPLETIONS = 3  # rows of a figure
_GREY = 0.5  # what is drawn where a pixel is hidden


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(elbo.Task):
  """Maximises the conditional bound, or the likelihood of the baseline network.

  Attributes:
    quadrants: how many of the four are observed.
    trains: "latent" for the networks around z, with the baseline as it is; "baseline" for the
      network that predicts without z, which comes first.
    hybrid: 1 - alpha of the paper's eq. 6: the weight of the loss whose z is drawn from the prior,
      as it will be in prediction, beside that of the bound.
  """

  quadrants: Annotated[int, "[1, 3]"] = 1
  trains: Literal["latent", "baseline"] = "latent"
  hybrid: Annotated[float, "[0, 1]", "traced"] = 0.0

  def inputs(self, batch):
    pixels_BD, seen_D = self._pixels(batch["image"])
    return pixels_BD[:, seen_D], pixels_BD[:, ~seen_D]

  def observed(self, batch):
    return self.inputs(batch)[1]

  def phases(self, model):
    model.observation  # noqa: B018 - raises where data and likelihood do not go together

    def baseline(params, state, batch, rng):
      loss = self._baseline_nll(model, params, batch)
      return loss, (state, {"baseline_nll": loss})

    def latent(params, state, batch, rng):
      posterior_rng, prior_rng = jax.random.split(rng)
      inputs = self.inputs(batch)
      out, state = applied(model, params, state, inputs, posterior_rng, train=True)
      terms = self.terms(model, out, batch)
      loss = self.objective(out, terms, batch)
      if not on(self.hybrid):
        return loss, (state, terms)
      predicted = model.apply(
        {"params": params}, inputs[0], method="predict", rngs={"params": prior_rng}
      )
      nll_B = model.observation.nll(predicted, inputs[1])
      terms["prior_reconstruction"] = found = Mean.over(nll_B, batch["mask"])
      total = (1 - self.hybrid) * loss.total + self.hybrid * found.total
      return Mean(total, loss.count), (state, terms)

    if self.trains == "baseline":
      return (Phase("baseline", baseline, trains=("baseline",)),)
    return (Phase("latent", latent, trains=("recognition", "conditional_prior", "generation")),)

  def measure(self, model):
    bound = super().measure(model)

    def measure(params, state, batch, rng):
      baseline = self._baseline_nll(model, params, batch)
      if self.trains == "baseline":
        return {"loss": baseline, "baseline_nll": baseline}
      return {**bound(params, state, batch, rng), "baseline_nll": baseline}

    return measure

  def _baseline_nll(self, model, params, batch) -> Mean:
    x_BX, y_BY = self.inputs(batch)
    parameters = model.apply({"params": params}, x_BX, method="guess")
    return Mean.over(model.observation.nll(parameters, y_BY), batch["mask"])

  def sentinels(self):
    return super().sentinels() if self.trains == "latent" else ()

  def likelihood(self, call: Call, log_weights_KN, test: Examples) -> dict[str, float]:
    """Also by how much -log p(y|x) is below the baseline's, in nats and for each hidden pixel."""
    found = super().likelihood(call, log_weights_KN, test)
    x_NX, y_NY = self.inputs(test.arrays)
    parameters = jnp.asarray(in_batches(call, x_NX, method="guess"))
    baseline_N = call.model.observation.nll(parameters, jnp.asarray(y_NY))
    found["gain"] = float(np.asarray(baseline_N, np.float64).mean() - found["nll"])
    found["gain_per_pixel"] = found["gain"] / y_NY.shape[1]
    return found

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    image = test.arrays["image"][:_COLUMNS]
    x_NX, _ = self.inputs({"image": image})
    mean = lambda parameters: np.asarray(call.model.observation.mean(jnp.asarray(parameters)))  # noqa: E731
    rows = {
      "observed": self._whole(image, np.full_like(self.observed({"image": image}), _GREY)),
      "baseline": self._whole(image, mean(call(x_NX, method="guess"))),
    }
    for i in range(_COMPLETIONS):
      rows[f"completion {i + 1}"] = self._whole(image, mean(call(x_NX, method="predict", seed=i)))
    rows["truth"] = image
    caption = "Test images, the baseline's mean, and the mean at draws of z from its prior given x."
    return {"completions": Images(rows, caption)}

  # Nothing is generated without something observed: the completions are among the figures.
  sample = Objective.sample

  def _whole(self, image: np.ndarray, hidden_NY: np.ndarray) -> np.ndarray:
    """Images [N, ...] with other hidden pixels."""
    pixels_ND, seen_D = self._pixels(image)
    whole_ND = pixels_ND.copy()
    whole_ND[:, ~seen_D] = np.clip(hidden_NY, 0, 1)
    return whole_ND.reshape(image.shape)

  def _pixels(self, image):
    """The pixels [B, D] of images, and which of them [D] are observed."""
    height, width = image.shape[1:3]
    below, right = np.arange(height)[:, None] >= height // 2, np.arange(width) >= width // 2
    # 0 bottom left, 1 top left, 2 top right, 3 bottom right.
    order_HW = np.where(below, np.where(right, 3, 0), np.where(right, 2, 1))
    seen = np.broadcast_to((order_HW < self.quadrants)[..., None], image.shape[1:])
    return image.reshape(len(image), -1), seen.reshape(-1)
