"""Layer-wise pretraining of a convolutional network as autoencoders, then as a classifier.

Paper     Masci, Meier, Ciresan & Schmidhuber 2011, ICANN: on MNIST 0.71 % error with pretraining,
          0.79 % without (recalled, not checked).
Run       python launch.py train --config=experiments/autoencoder/stacked_convolutional_fashion_mnist.py:small --workdir=runs/masci
          without pretraining: add --config.stages.0.training.steps=1 and likewise for stage 1
Takes     small: about 40 s on two CPU cores.
Data      paper: MNIST. small and smoke: Fashion-MNIST (`apt-get install dataset-fashion-mnist`),
          of small 2,000 training images: pretraining is for when labels are few.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="pretraining_helps",
    statement="accuracy with pretraining, and of the same network from the same weights without it",
    paper="Masci et al. 2011",
    metric="accuracy",
    split="test",
    relation="",
    published="MNIST: 0.9929 and 0.9921, recalled",
    rivals=[{"stages.0.training.steps": 1, "stages.1.training.steps": 1}],
    seeds=3,
    variants=("small",),
    cost="small: 6 runs of 40 s on two CPU cores",
  ),
  dict(
    name="accuracy",
    paper="Masci et al. 2011",
    metric="accuracy",
    split="test",
    relation="",
    published="MNIST: 0.9929, recalled",
    seeds=3,
    variants=("paper",),
  ),
]


def get_config(variant="paper"):
  steps = {"paper": (20_000, 50_000), "small": (300, 600), "smoke": (2, 3)}[variant]
  pretraining, supervised = steps
  periods = dict(eval_every=max(supervised // 2, 1), checkpoint_every=max(supervised // 2, 1))
  if variant == "smoke":
    periods["log_every"] = 1
  model = dict(name="autoencoder.stacked_convolutional")
  data = dict(name="idx:mnist", batch_size=100, validation=10_000)
  if variant != "paper":
    model.update(widths=(12, 16), sides=(5, 5), pools=(2, 2), hidden=100)
    data = dict(name="idx:fashion_mnist", batch_size=50, validation=0, train_examples=2_000)
  if variant == "smoke":
    data.update(batch_size=16, train_examples=256, test_examples=100)
  optimizer = dict(name="adam", learning_rate=1e-3 if variant == "paper" else 3e-3)
  layers = [
    dict(
      name=f"layer_{layer}",
      task=dict(name="layerwise", layer=layer),
      optimizer=optimizer,
      training=dict(steps=pretraining, **periods),
    )
    for layer in range(3 if variant == "paper" else 2)
  ]
  top = dict(
    name="supervised",
    task=dict(name="classify"),
    optimizer=optimizer,
    training=dict(steps=supervised, **periods),
  )
  return ConfigDict(dict(seed=0, model=model, data=data, stages=(*layers, top)))
