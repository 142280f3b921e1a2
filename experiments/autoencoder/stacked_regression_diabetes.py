"""Greedy layer-wise pretraining under a regression.

Paper     Bengio, Lamblin, Popovici & Larochelle 2006, "Greedy layer-wise training of deep networks",
          with a linear layer on top; there of other data.
Run       python launch.py train --config=experiments/autoencoder/stacked_regression_diabetes.py:small --workdir=runs/regression
          without pretraining, from N(0, 0.01): add --config.stages.0.training.steps=1 and likewise
          for stages 1 and 2, and --config.model.init_std=0.01
Takes     about 10 s on two CPU cores.
Data      the disease progression of 442 patients, packaged with scikit-learn.
"""

from ml_collections import ConfigDict

_WITHOUT_PRETRAINING = {f"stages.{layer}.training.steps": 1 for layer in range(3)}

CLAIMS = [
  dict(
    name="pretraining_rescues",
    statement="pretraining lifts the share of variance explained by more than 0.4 over the same"
    " logistic network from N(0, 0.01) without it",
    paper="Bengio et al. 2006",
    metric="r2",
    split="test",
    relation="r2 > rival.r2 + 0.4",
    rivals=[{**_WITHOUT_PRETRAINING, "model.init_std": 0.01}],
    seeds=3,
    cost="6 runs of 10 s on two CPU cores",
  ),
  dict(
    name="against_no_pretraining",
    statement="share of variance explained, with pretraining and without it from the same weights",
    paper="Bengio et al. 2006",
    metric="r2",
    split="test",
    relation="",
    rivals=[_WITHOUT_PRETRAINING],
    seeds=3,
    variants=("small",),
    cost="6 runs of 10 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  pretraining, supervised = {"paper": (10_000, 5_000), "small": (1_500, 4_000), "smoke": (2, 3)}[
    variant
  ]
  widths = (1000, 1000, 1000) if variant == "paper" else (50, 50, 50)
  periods = dict(eval_every=max(supervised // 10, 1), checkpoint_every=max(supervised // 3, 1))
  if variant == "smoke":
    periods["log_every"] = 1
  layers = [
    dict(
      name=f"layer_{layer}",
      task=dict(name="layerwise", layer=layer, of="features"),
      optimizer=dict(name="adam", learning_rate=1e-3),
      training=dict(steps=pretraining, **periods),
    )
    for layer in range(3)
  ]
  top = dict(
    name="supervised",
    task=dict(name="regress"),
    optimizer=dict(name="sgd", learning_rate=0.01),
    training=dict(steps=supervised, **periods),
  )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoencoder.stacked", widths=widths),
      data=dict(name="diabetes", batch_size=20),
      stages=(*layers, top),
    )
  )
