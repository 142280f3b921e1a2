"""A deep autoencoder reconstructs digits better than PCA with a code of the same size.

Paper     Hinton & Salakhutdinov 2006, Science 313:504-507: squared error per MNIST test image at 30
          numbers, 3.00 for the autoencoder, 13.87 for PCA (figure 2B).
Run       python launch.py train --config=experiments/autoencoder/deep_digits.py:small --workdir=runs/deep
Takes     small: about 15 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits. Real-valued pixels.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="beats_pca",
    statement="squared error per image below 0.75 of PCA's with a code of the same size",
    paper="Hinton & Salakhutdinov 2006, figure 2B",
    metric="squared",
    split="test",
    relation="squared < 0.75 * pca_squared",
    published="MNIST, 30 numbers: 3.00, PCA 13.87",
    seeds=5,
    variants=("paper",),
  ),
  dict(
    name="beats_pca_at_every_code",
    statement="squared error per image below 0.75 of PCA's, with codes of 2 to 16 numbers",
    paper="Hinton & Salakhutdinov 2006, figure 2B",
    metric="squared",
    split="test",
    relation="squared < 0.75 * pca_squared",
    published="MNIST, 30 numbers: 3.00, PCA 13.87",
    settings=[{"model.code": 2}, {"model.code": 4}, {"model.code": 8}, {"model.code": 16}],
    seeds=5,
    variants=("small",),
    cost="20 runs of 15 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return ConfigDict(
      dict(
        seed=0,
        model=dict(name="autoencoder.deep", widths=(1000, 500, 250), code=30),
        task=dict(name="reconstruction", error="cross_entropy"),
        data=dict(name="idx:mnist", batch_size=1000, validation=0),
        optimizer=dict(name="adam", learning_rate=1e-3, schedule="cosine"),
        training=dict(steps=12_000, eval_every=1_200, checkpoint_every=1_200),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoencoder.deep", widths=(128, 64), code=8, activation="tanh"),
      task=dict(name="reconstruction", error="squared"),
      data=dict(name="digits", batch_size=64, validation=0),
      optimizer=dict(name="adam", learning_rate=1e-3, schedule="step", step_at=(0.75,)),
      training=dict(steps=6_300, eval_every=2_100, checkpoint_every=2_100),
    )
  )
  if variant == "smoke":
    config.data.batch_size = 32
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config


def sweep_code():
  """The advantage over PCA by code size."""
  return grid({"model.code": (2, 4, 8, 16, 32)})
