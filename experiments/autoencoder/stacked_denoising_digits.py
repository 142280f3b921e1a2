"""Layers that learnt to undo a corruption are a start from which a deep logistic network trains.

Paper     Vincent, Larochelle, Lajoie, Bengio & Manzagol 2010, "Stacked denoising autoencoders",
          JMLR 11:3371-3408: MNIST test error 1.28 +- 0.22 % with three layers, a quarter of the
          components masked, against 1.40 +- 0.23 % without corruption.
Run       python launch.py train --config=experiments/autoencoder/stacked_denoising_digits.py:small --workdir=runs/denoising
          without corruption: --config.stages.0.task.level=0, and likewise for stages 1 and 2
Takes     small: about 20 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits.
"""

from ml_collections import ConfigDict

from sweeps.space import zipped

_WITHOUT_PRETRAINING = {f"stages.{layer}.training.steps": 1 for layer in range(3)}
_WITHOUT_CORRUPTION = {f"stages.{layer}.task.level": 0.0 for layer in range(3)}
_PAPER = "Vincent et al. 2010, the benchmark problems"
_PUBLISHED = "MNIST error: 1.28 +- 0.22 %, without corruption 1.40 +- 0.23 %"

CLAIMS = [
  dict(
    name="pretraining_rescues",
    statement="denoising pretraining lifts accuracy by more than 0.5 over the same logistic network"
    " from N(0, 0.01) without it",
    paper="Vincent et al. 2010, figure 10, which is of other data",
    metric="accuracy",
    split="test",
    relation="accuracy > rival.accuracy + 0.5",
    rivals=[{**_WITHOUT_PRETRAINING, "model.init_std": 0.01}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 20 s on two CPU cores",
  ),
  dict(
    name="against_no_corruption",
    statement="accuracy with and without corruption; the order is not claimed on 8x8 digits",
    paper=_PAPER,
    metric="accuracy",
    split="test",
    relation="",
    published=_PUBLISHED,
    rivals=[_WITHOUT_CORRUPTION],
    seeds=3,
    variants=("small",),
    cost="6 runs of 20 s on two CPU cores",
  ),
  dict(
    name="denoising_helps",
    statement="corruption in pretraining lifts accuracy",
    paper=_PAPER,
    metric="accuracy",
    split="test",
    relation="accuracy > rival.accuracy",
    published=_PUBLISHED,
    rivals=[_WITHOUT_CORRUPTION],
    seeds=3,
    variants=("paper",),
  ),
]


def get_config(variant="paper"):
  pretraining, supervised = {"paper": (125_000, 50_000), "small": (4_000, 6_700), "smoke": (2, 3)}[
    variant
  ]
  periods = dict(eval_every=max(supervised // 10, 1), checkpoint_every=max(supervised // 3, 1))
  if variant == "smoke":
    periods["log_every"] = 1
  layers = [
    dict(
      name=f"layer_{layer}",
      task=dict(name="layerwise", layer=layer, corruption="masking", level=0.25),
      optimizer=dict(name="adam", learning_rate=1e-3),
      training=dict(steps=pretraining, **periods),
    )
    for layer in range(3)
  ]
  top = dict(
    name="supervised",
    task=dict(name="classify"),
    optimizer=dict(name="sgd", learning_rate=0.1),
    training=dict(steps=supervised, **periods),
  )
  widths, data = (100, 100, 100), dict(name="digits", batch_size=20)
  if variant == "paper":
    widths, data = (1000, 1000, 1000), dict(name="idx:mnist", batch_size=20, validation=10_000)
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoencoder.stacked", widths=widths, tied=True),
      data=data,
      stages=(*layers, top),
    )
  )


def sweep_level():
  """The same fraction masked in every layer."""
  levels = (0.0, 0.1, 0.25, 0.4)
  return zipped({f"stages.{layer}.task.level": levels for layer in range(3)})


def sweep_noise():
  """Kinds of noise, each at a level that its paper tried; full emphasis where there is one."""
  return [
    *_noise(corruption="gaussian", level=0.3),
    *_noise(corruption="salt_and_pepper", level=0.25),
    *_noise(corruption="salt_and_pepper", level=0.25, clean_weight=0.0),
  ]


def _noise(**settings):
  return [
    {f"stages.{layer}.task.{key}": value for layer in range(3) for key, value in settings.items()}
  ]
