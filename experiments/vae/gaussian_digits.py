"""A VAE on handwritten digits of 8x8 pixels: the bound is greatest at beta = 1.

Paper     Kingma & Welling 2013, arXiv:1312.6114; Higgins et al. 2017 for beta.
Run       python launch.py train --config=experiments/vae/gaussian_digits.py:small --workdir=runs/vae
Takes     small: about 15 s on two CPU cores. paper: the paper's network and optimizer on this data.
Data      scikit-learn's digits, binarised afresh each time an image is seen.
"""

from ml_collections import ConfigDict

from sweeps.space import grid, integers, log_uniform

CLAIMS = [
  dict(
    name="beta",
    statement="the bound is greatest at beta = 1, by definition",
    paper="Kingma & Welling 2013, eq. 3",
    metric="elbo",
    split="test",
    relation="elbo > rival.elbo",
    settings=[{"task.beta": 1.0}],
    rivals="sweep_beta",
    seeds=5,
    cost="small: 25 runs of 15 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="vae.gaussian", hidden=500, latents=20, init_std=0.01),
      task=dict(name="elbo", beta=1.0),
      data=dict(name="digits", batch_size=100, binarize="dynamic"),
      optimizer=dict(name="adagrad", learning_rate=0.01),
      training=dict(
        steps=20_000,
        log_every=200,
        eval_every=2_000,
        checkpoint_every=5_000,
        best="elbo",
        best_is="greatest",
      ),
    )
  )
  if variant != "paper":
    config.model = ConfigDict(dict(name="vae.gaussian", hidden=128, latents=8))
    config.optimizer = ConfigDict(dict(name="adam", learning_rate=1e-3, schedule="cosine"))
    config.training.update(
      dict(steps=6_000, log_every=100, eval_every=1_000, checkpoint_every=2_000)
    )
  if variant == "smoke":
    config.training.update(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config


def sweep():
  """Whether the best learning rate depends on beta."""
  return grid({"optimizer.learning_rate": (3e-4, 1e-3, 3e-3, 1e-2), "task.beta": (1.0, 4.0)})


def sweep_beta():
  return grid({"task.beta": (0.25, 0.5, 1.0, 2.0, 4.0)})


def sweep_lr():
  return grid({"optimizer.learning_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)})


def space():
  return {
    "optimizer.learning_rate": log_uniform(1e-4, 1e-1),
    "task.beta": log_uniform(0.25, 4.0),
    "model.latents": integers(2, 32, log=True),
  }
