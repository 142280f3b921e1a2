"""The two-player game of a generative adversarial network."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import frechet
from models.layers import batch_axis
from tasks.objective import Call, Examples, Mean, Objective, Phase, Sentinel
from tasks.views import Images, View, contact_sheet

_SATURATED = 0.99  # accuracy on real and on generated images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Discriminator: -log D(x) - log(1 - D(G(z))). Generator, non-saturating: -log D(G(z)).

  Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1 and section 3. The discriminator's loss is
  2 log 2 where it cannot tell the two apart.

  Attributes:
    discriminator_steps: updates of the discriminator for one of the generator (the paper's k).
    samples: generated for the Frechet distance.
  """

  discriminator_steps: Annotated[int, "[1, inf)"] = 1
  samples: Annotated[int, "[2, 1000000]"] = 5000

  def phases(self, model):
    def fakes(params, rng, examples):
      z_BZ = batch_axis.normal(rng, (examples, model.noise))
      return model.apply({"params": params}, z_BZ, method="generate")

    def judge(params, image, rng):
      return model.apply(
        {"params": params}, image, train=True, method="discriminate", rngs={"dropout": rng}
      )

    def discriminator(params, state, batch, rng):
      noise, real_rng, fake_rng = jax.random.split(rng, 3)
      real_B = judge(params, batch["image"], real_rng)
      fake_B = judge(params, fakes(params, noise, len(real_B)), fake_rng)
      # softplus(-l) = -log sigmoid(l), finite for any logit.
      loss_B = jax.nn.softplus(-real_B) + jax.nn.softplus(fake_B)
      metrics = {
        "real_accuracy": Mean.over(real_B > 0, batch["mask"]),
        "fake_accuracy": Mean.over(fake_B < 0, batch["mask"]),
      }
      return Mean.over(loss_B, batch["mask"]), (state, metrics)

    def generator(params, state, batch, rng):
      noise, judge_rng = jax.random.split(rng)
      fake_B = judge(params, fakes(params, noise, len(batch["mask"])), judge_rng)
      return Mean.over(jax.nn.softplus(-fake_B), batch["mask"]), (state, {})

    return (
      Phase("discriminator", discriminator, ("discriminator",), self.discriminator_steps),
      Phase("generator", generator, ("generator",)),
    )

  def sentinels(self):
    def holds(row):
      names = ("discriminator/real_accuracy", "discriminator/fake_accuracy")
      return all(name in row and row[name] > _SATURATED for name in names)

    return (
      Sentinel(
        "saturated discriminator",
        holds,
        "it tells real from fake nearly always, which teaches the generator nothing: lower"
        " optimizer.per_phase.discriminator.learning_rate",
      ),
    )

  def measure(self, model):
    """The discriminator's loss on held-out images against fresh fakes, without dropout."""

    def measure(params, state, batch, rng):
      z_BZ = batch_axis.normal(rng, (len(batch["mask"]), model.noise))
      image = model.apply({"params": params}, z_BZ, method="generate")
      judge = lambda x: model.apply({"params": params}, x, train=False, method="discriminate")  # noqa: E731
      real_B, fake_B = judge(batch["image"]), judge(image)
      loss_B = jax.nn.softplus(-real_B) + jax.nn.softplus(fake_B)
      return {
        "loss": Mean.over(loss_B, batch["mask"]),
        "real_probability": Mean.over(jax.nn.sigmoid(real_B), batch["mask"]),
        "fake_probability": Mean.over(jax.nn.sigmoid(fake_B), batch["mask"]),
      }

    return measure

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Frechet distances to the test set in 16 principal components, beside two rivals'."""
    image, held_out = train.arrays["image"], test.arrays["image"]
    flat_ND = image.reshape(len(image), -1)
    # The rival that a second moment cannot tell from the data: a Gaussian fitted to the pixels.
    rng = np.random.default_rng(0)
    covariance = np.cov(flat_ND, rowvar=False)
    gaussian = rng.multivariate_normal(
      flat_ND.mean(0), covariance, size=self.samples, method="eigh"
    )
    return {
      "frechet": frechet.principal_distance(image, _generated(call, self.samples, 0), held_out),
      "frechet_train": frechet.principal_distance(image, image, held_out),
      "frechet_gaussian": frechet.principal_distance(image, np.clip(gaussian, 0, 1), held_out),
    }

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    images = _generated(call, 12, 0)
    real = train.arrays["image"]
    # A generator that copies would show here: every sample beside its nearest training image.
    gaps = np.square(images[:, None] - real[None]).sum(tuple(range(2, images.ndim + 1)))
    return {
      "samples": self.sample(call, 48, seed=0),
      "nearest": Images(
        {"sample": images, "nearest real": real[gaps.argmin(1)]},
        "Samples above, their nearest training images (in squared error) below.",
      ),
    }

  def sample(self, call: Call, count: int, seed: int) -> Images:
    caption = "Generated from Gaussian noise."
    return contact_sheet(_generated(call, count, seed), caption, columns=12)


def _generated(call: Call, count: int, seed: int) -> np.ndarray:
  z_NZ = jax.random.normal(jax.random.key(seed), (count, call.model.noise), jnp.float32)
  return call(np.asarray(z_NZ), method="generate")
