"""A VAE on MNIST, and on Fashion-MNIST where MNIST is not at hand.

Paper     Kingma & Welling 2013, arXiv:1312.6114, figure 2: curves only, no table.
Run       python launch.py train --config=experiments/vae/gaussian_mnist.py:small --workdir=runs/vae
          MNIST: ...gaussian_mnist.py --config.data.directory=DIR (the four IDX files, gzipped or not)
Takes     small: about 20 s on two CPU cores.
Data      paper: MNIST. small and smoke: Fashion-MNIST (`apt-get install dataset-fashion-mnist`).
          Binarised afresh each time an image is seen.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="elbo",
    statement="the bound on MNIST, or on Fashion-MNIST for small",
    paper="Kingma & Welling 2013, figure 2: curves only",
    metric="elbo",
    split="test",
    relation="",
    seeds=3,
    cost="small: 3 runs of 20 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return ConfigDict(
      dict(
        seed=0,
        model=dict(name="vae.gaussian", hidden=500, latents=20, init_std=0.01),
        task=dict(name="elbo"),
        data=dict(name="idx:mnist", batch_size=100, binarize="dynamic"),
        optimizer=dict(name="adagrad", learning_rate=0.02),
        training=dict(
          steps=550_000, eval_every=5_500, checkpoint_every=5_500, best="elbo", best_is="greatest"
        ),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="vae.gaussian", hidden=400, latents=20),
      task=dict(name="elbo"),
      data=dict(name="idx:fashion_mnist", batch_size=128, binarize="dynamic"),
      optimizer=dict(name="adam", learning_rate=1e-3, schedule="cosine"),
      training=dict(
        steps=4_300, eval_every=860, checkpoint_every=860, best="elbo", best_is="greatest"
      ),
    )
  )
  if variant == "smoke":
    config.data.update(dict(train_examples=512, validation=200, test_examples=200))
    config.training.update(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config


def sweep_latents():
  """The paper's figure 2."""
  return grid({"model.latents": (3, 5, 10, 20, 200)})
