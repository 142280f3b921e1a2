"""A contractive autoencoder's code changes less with its input than a plain autoencoder's.

Paper     Rifai, Vincent, Muller, Glorot & Bengio 2011, ICML, table 1: mean norm of the Jacobian on
          MNIST 0.73e-4 with contraction, 17.5e-4 without, test error after fine-tuning 1.14 % and
          1.78 %. The weight of the penalty and the epochs are ours.
Run       python launch.py train --config=experiments/autoencoder/contractive_digits.py:small --workdir=runs/contractive
          a plain autoencoder: add --config.task.contraction=0
Takes     small: about 10 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="contracts",
    statement="the mean norm of the encoder's Jacobian on test examples is below 0.75 of a plain"
    " autoencoder's",
    paper="Rifai et al. 2011, table 1",
    metric="jacobian_norm",
    split="test",
    relation="jacobian_norm < 0.75 * rival.jacobian_norm",
    published="MNIST: 0.73e-4 against 17.5e-4",
    rivals=[{"task.contraction": 0.0}],
    seeds=5,
    cost="small: 10 runs of 10 s on two CPU cores",
  ),
  dict(
    name="saturation",
    statement="share of units that saturate, with contraction and without",
    paper="Rifai et al. 2011, table 1",
    metric="saturated",
    split="test",
    relation="",
    published="MNIST: 86.36 % against 49.90 %",
    rivals=[{"task.contraction": 0.0}],
    seeds=5,
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoencoder.shallow", code=1000),
      task=dict(name="contractive", contraction=0.1),
      data=dict(name="idx:mnist", batch_size=100, validation=10_000),
      optimizer=dict(name="adam", learning_rate=1e-3),
      training=dict(steps=25_000, eval_every=2_500, checkpoint_every=2_500),
    )
  )
  if variant != "paper":
    config.model.code = 100
    config.data = ConfigDict(dict(name="digits", batch_size=20, validation=0))
    config.training = ConfigDict(dict(steps=4_000, eval_every=1_000, checkpoint_every=2_000))
  if variant == "smoke":
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config


def sweep_contraction():
  """Contraction against reconstruction."""
  return grid({"task.contraction": (0.0, 0.03, 0.1, 0.3, 1.0)})
