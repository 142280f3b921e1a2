"""Greedy layer-wise pretraining rescues a deep logistic network that does not train without it.

Paper     Bengio, Lamblin, Popovici & Larochelle 2006, "Greedy layer-wise training of deep networks".
Run       python launch.py train --config=experiments/autoencoder/stacked_digits.py:small --workdir=runs/stacked
          without pretraining, from N(0, 0.01): add --config.stages.0.training.steps=1 and likewise
          for stages 1 and 2, and --config.model.init_std=0.01
Takes     small: about 20 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits.
"""

from ml_collections import ConfigDict

_WITHOUT_PRETRAINING = {f"stages.{layer}.training.steps": 1 for layer in range(3)}

CLAIMS = [
  dict(
    name="pretraining_rescues",
    statement="pretraining lifts accuracy by more than 0.5 over the same logistic network from"
    " N(0, 0.01) without it",
    paper="Bengio et al. 2006; Larochelle et al. 2009",
    metric="accuracy",
    split="test",
    relation="accuracy > rival.accuracy + 0.5",
    rivals=[{**_WITHOUT_PRETRAINING, "model.init_std": 0.01}],
    seeds=5,
    variants=("small",),
    cost="10 runs of 20 s on two CPU cores",
  ),
  dict(
    name="pretraining_helps",
    statement="pretraining lifts accuracy over the same network from the same weights without it",
    paper="Bengio et al. 2006; Larochelle et al. 2009",
    metric="accuracy",
    split="test",
    relation="accuracy > rival.accuracy",
    rivals=[_WITHOUT_PRETRAINING],
    seeds=5,
    variants=("paper",),
  ),
]


def get_config(variant="paper"):
  steps = {"paper": (25_000, 50_000), "small": (4_000, 6_700), "smoke": (2, 3)}[variant]
  pretraining, supervised = steps
  periods = dict(eval_every=max(supervised // 10, 1), checkpoint_every=max(supervised // 3, 1))
  if variant == "smoke":
    periods["log_every"] = 1
  layers = [
    dict(
      name=f"layer_{layer}",
      task=dict(name="layerwise", layer=layer),
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
      model=dict(name="autoencoder.stacked", widths=widths),
      data=data,
      stages=(*layers, top),
    )
  )
