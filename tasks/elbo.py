"""Evidence lower bound of a VAE with Bernoulli pixels, in nats per example."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import pca
from tasks.likelihood import bernoulli_nll
from tasks.objective import Call, Examples, Mean, Objective, Phase
from tasks.views import Images, Scatter, View, contact_sheet

_COLUMNS = 12  # images in a row of a figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Maximises E_q[log p(x|z)] - beta KL(q(z|x) || N(0, I)) (Kingma & Welling 2013, eq. 10).

  Attributes:
    beta: 1 is the paper's bound; above 1 is beta-VAE (Higgins et al. 2017).
  """

  beta: Annotated[float, "[0, inf)", "traced"] = 1.0

  def phases(self, model):
    def loss(params, state, batch, rng):
      nll, kl = self._terms(model, params, batch, rng)
      objective = Mean(nll.total + self.beta * kl.total, nll.count)
      return objective, (state, {"nll": nll, "kl": kl})

    return (Phase("elbo", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      nll, kl = self._terms(model, params, batch, rng)
      return {
        "loss": Mean(nll.total + self.beta * kl.total, nll.count),
        "elbo": Mean(-nll.total - kl.total, nll.count),
        "nll": nll,
        "kl": kl,
      }

    return measure

  def _terms(self, model, params, batch, rng) -> tuple[Mean, Mean]:
    """Reconstruction error -log p(x|z) at one sample of q(z|x), and the divergence of q."""
    out = model.apply({"params": params}, batch["image"], rngs={"latent": rng})
    # Sums over pixels and latents, never means: a mean would reweight the KL by the pixel count.
    nll_B = bernoulli_nll(out.logits, batch["image"])
    # Kingma & Welling 2013, appendix B.
    kl_B = 0.5 * (out.mean**2 + jnp.exp(out.log_variance) - 1 - out.log_variance).sum(-1)
    return Mean.over(nll_B, batch["mask"]), Mean.over(kl_B, batch["mask"])

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    image, label = test.arrays["image"], test.arrays["label"]
    mean_NZ, _ = call(image, method="encode")
    if mean_NZ.shape[1] == 2:
      plane_N2, axes = mean_NZ, ("latent 1", "latent 2")
    else:
      plane_N2, axes = pca.project(mean_NZ, 2), ("first component", "second component")
    # From one example to one of another class, where the way is worth seeing.
    other = int(np.argmax(label != label[0]))
    weights = np.linspace(0, 1, _COLUMNS, dtype=np.float32)[:, None]
    between_NZ = (1 - weights) * mean_NZ[0] + weights * mean_NZ[other]
    return {
      "reconstructions": Images(
        {"input": image[:_COLUMNS], "decoder mean": _decoded(call, mean_NZ[:_COLUMNS])},
        "Test images, and the decoder's mean at the mean of their posterior.",
      ),
      "prior_samples": self.sample(call, 4 * _COLUMNS, seed=0),
      "latents": Scatter(
        plane_N2, label, axes, "Posterior means of the test set by class.", test.class_names
      ),
      "interpolation": Images(
        {"": _decoded(call, between_NZ)},
        "On the straight line between the posterior means of two test images.",
      ),
      "traversals": _traversals(call, mean_NZ),
    }

  def sample(self, call: Call, count: int, seed: int) -> Images:
    z_NZ = jax.random.normal(jax.random.key(seed), (count, call.model.latents))
    caption = "Decoder means at draws from the prior N(0, I)."
    return contact_sheet(_decoded(call, np.asarray(z_NZ)), caption, columns=_COLUMNS)


def _decoded(call: Call, z_NZ: np.ndarray) -> np.ndarray:
  """Means of p(x|z)."""
  logits = call(z_NZ, method="decode")
  return 0.5 * (1 + np.tanh(0.5 * logits))


def _traversals(call: Call, mean_NZ: np.ndarray) -> Images:
  """One latent at a time from -3 to 3 around one example; the latents that vary most, first."""
  values = np.linspace(-3, 3, _COLUMNS, dtype=np.float32)
  rows = {}
  for latent in np.argsort(-mean_NZ.var(axis=0))[:6]:
    z_NZ = np.repeat(mean_NZ[:1], _COLUMNS, axis=0)
    z_NZ[:, latent] = values
    rows[f"latent {latent + 1}"] = _decoded(call, z_NZ)
  return Images(rows, "One latent from -3 to 3, the others as for the first test image.")
