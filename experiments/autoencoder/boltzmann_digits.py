"""A deep logistic autoencoder needs the Boltzmann machines that it is unrolled from.

Paper     Hinton & Salakhutdinov 2006, Science 313:504-507: figure 1; without pretraining such
          networks end at the mean of the data. Figure 2B: squared error per MNIST test image at 30
          numbers, 3.00 for the autoencoder, 13.87 for PCA. Differs: the unrolled network is trained
          by Adam (paper) or momentum (small), where theirs had conjugate gradients.
Run       python launch.py train --config=experiments/autoencoder/boltzmann_digits.py:small --workdir=runs/boltzmann
          without pretraining, from N(0, 0.01): add --config.model.init_std=0.01 and
          --config.stages.0.training.steps=1, and likewise for stages 1 to 3
Takes     small: about 15 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits. Real-valued pixels.
"""

from ml_collections import ConfigDict

_MACHINES = 4


def _without_pretraining(stages):
  # From N(0, 0.01): a single step of every machine hardly moves it.
  return {"model.init_std": 0.01, **{f"stages.{i}.training.steps": 1 for i in range(stages)}}


CLAIMS = [
  dict(
    name="pretraining_rescues",
    statement="squared error per image below half that of the same network from N(0, 0.01) without"
    " pretraining",
    paper="Hinton & Salakhutdinov 2006",
    metric="squared",
    split="test",
    relation="squared < 0.5 * rival.squared",
    rivals=[_without_pretraining(_MACHINES)],
    seeds=5,
    variants=("small",),
    cost="10 runs of 15 s on two CPU cores",
  ),
  dict(
    name="beats_pca",
    statement="squared error per image below 0.75 of PCA's with a code of the same size",
    paper="Hinton & Salakhutdinov 2006, figure 2B",
    metric="squared",
    split="test",
    relation="squared < 0.75 * pca_squared",
    published="MNIST, 30 numbers: 3.00, PCA 13.87",
    seeds=5,
  ),
]


def get_config(variant="paper"):
  paper = variant == "paper"
  widths, code = ((1000, 500, 250), 30) if paper else ((128, 64, 32), 8)
  # Momentum and steps: 5 and 45 epochs of 600 batches in the paper.
  schedule = {
    "paper": ((0.5, 3_000), (0.9, 27_000)),
    "small": ((0.9, 1_000),),
    "smoke": ((0.9, 2),),
  }[variant]
  machines = [
    dict(
      name=f"rbm_{layer}" if part == len(schedule) - 1 else f"rbm_{layer}_slow",
      task=dict(name="contrastive_divergence", layer=layer),
      optimizer=dict(
        name="sgd",
        # Linear units bound nothing: a larger rate diverges.
        learning_rate=0.001 if layer == len(widths) else 0.1,
        momentum=momentum,
        weight_decay=2e-4,
      ),
      training=dict(steps=steps, best="squared", **_periods(variant, steps)),
    )
    for layer in range(len(widths) + 1)
    for part, (momentum, steps) in enumerate(schedule)
  ]
  optimizer = dict(name="sgd", learning_rate=0.02, momentum=0.9)
  if paper:
    optimizer = dict(name="adam", learning_rate=1e-3, schedule="cosine")
  steps = {"paper": 12_000, "small": 4_000, "smoke": 3}[variant]
  unrolled = dict(
    name="unrolled",
    model=dict(name="autoencoder.deep", widths=widths, code=code),
    task=dict(name="reconstruction", error="cross_entropy"),
    data=dict(batch_size=1000) if paper else {},
    optimizer=optimizer,
    training=dict(steps=steps, **_periods(variant, steps)),
  )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoencoder.boltzmann", widths=widths, code=code),
      data=dict(name="idx:mnist" if paper else "digits", batch_size=100, validation=0),
      stages=(*machines, unrolled),
    )
  )


def _periods(variant, steps):
  if variant == "smoke":
    return dict(log_every=1, eval_every=2, checkpoint_every=2)
  return dict(eval_every=max(steps // 5, 1), checkpoint_every=max(steps // 2, 1))
