"""A k-sparse autoencoder: exactly k units of a linear code, and features that a classifier likes.

Paper     Makhzani & Frey 2014, arXiv:1312.5663: 1000 units on MNIST; a logistic regression on the
          features of k = 25 errs less than on pixels (table 1; its numbers are not checked here).
Run       python launch.py train --config=experiments/autoencoder/k_sparse_digits.py:small --workdir=runs/k_sparse
          python launch.py probe --workdir=runs/k_sparse
Takes     small: about 20 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

_K = [{}, {"model.k": 5}, {"model.k": 25}]  # small as it is: k = 10

CLAIMS = [
  dict(
    name="exactly_k",
    statement="exactly k units are not zero, for every test example",
    paper="Makhzani & Frey 2014",
    metric="active",
    split="test",
    relation="abs(active - k) < 1e-6",
    published="by construction",
    settings=_K,
    seeds=3,
    variants=("small",),
    cost="9 runs of 20 s on two CPU cores",
  ),
  dict(
    name="features_beat_pixels",
    statement="a logistic regression on the features is more often right than one on the pixels",
    paper="Makhzani & Frey 2014, table 1",
    metric="linear_accuracy",
    split="test",
    relation="linear_accuracy > pixels_linear_accuracy",
    published="MNIST: so, recalled, not checked",
    seeds=5,
    cost="small: 2 more runs",
  ),
  dict(
    name="features",
    statement="accuracy of a logistic regression on the features of other k",
    paper="Makhzani & Frey 2014, table 1",
    metric="linear_accuracy",
    split="test",
    relation="",
    published="MNIST: best at k = 25, recalled",
    settings=_K,
    seeds=3,
  ),
  dict(
    name="dead_units",
    statement="share of units that no training example chooses, with k falling over the first half"
    " of the steps and with k from the start",
    paper="Makhzani & Frey 2014: falling k keeps units from dying",
    metric="dead",
    split="test",
    relation="",
    published="no number",
    rivals=[{"task.falling_steps": 0}],
    seeds=3,
    variants=("small",),
    cost="3 more runs",
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoencoder.k_sparse", code=1000, k=25),
      task=dict(name="k_sparse", falling_steps=125_000, alpha=3.0),
      data=dict(name="idx:mnist", batch_size=100, validation=10_000),
      optimizer=dict(name="adam", learning_rate=1e-3),
      training=dict(steps=250_000, eval_every=5_000, checkpoint_every=5_000),
    )
  )
  if variant != "paper":
    config.model.update(dict(code=256, k=10))
    config.task.falling_steps = 2_000
    config.data = ConfigDict(dict(name="digits", batch_size=100, validation=0))
    config.training = ConfigDict(dict(steps=4_000, eval_every=1_000, checkpoint_every=2_000))
  if variant == "smoke":
    config.task.falling_steps = 2
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config


def sweep_k():
  """Reconstruction by the number of units kept."""
  return grid({"model.k": (2, 5, 10, 25, 50, 256)})
