"""A linear autoencoder trained by gradient descent ends at PCA: its error, and its subspace.

Paper     Baldi & Hornik 1989, Neural Networks 2:53-58, which proves it and trains nothing. The
          settings are ours.
Run       python launch.py train --config=experiments/autoencoder/linear_digits.py:small --workdir=runs/linear
Takes     small: about 10 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits, the whole training set a step.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

_CLAIM = dict(
  statement="squared error on the training set within 1e-3 of PCA's, and never below it; least cosine"
  " of the angles to PCA's subspace above 0.999",
  paper="Baldi & Hornik 1989",
  metric="pca_gap",
  split="test",
  relation="-1e-5 < pca_gap < 1e-3 and pca_cosine > 0.999",
  published="gap 0, cosine 1, in the limit",
)

CLAIMS = [
  dict(name="is_pca", seeds=3, variants=("paper",), **_CLAIM),
  dict(
    name="is_pca_at_every_code",
    settings=[{"model.code": 4}, {"model.code": 8}],
    seeds=5,
    variants=("small",),
    cost="10 runs of 10 s on two CPU cores",
    **_CLAIM,
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="autoencoder.shallow", code=8, activation="linear", output="linear", tied=False
      ),
      task=dict(name="principal"),
      data=dict(name="digits", batch_size=1347, validation=0),
      optimizer=dict(name="adam", learning_rate=3e-2, schedule="cosine"),
      training=dict(steps=6_000, log_every=500, eval_every=3_000, checkpoint_every=3_000),
    )
  )
  if variant == "paper":
    config.data = ConfigDict(dict(name="idx:mnist", batch_size=6_000, validation=0))
    config.optimizer = ConfigDict(dict(name="adam", learning_rate=1e-3, schedule="cosine"))
    config.training.steps = 50_000
  if variant == "smoke":
    config.data.batch_size = 64
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config


def sweep_code():
  """The theorem at codes of other sizes."""
  return grid({"model.code": (2, 4, 8, 16)})
