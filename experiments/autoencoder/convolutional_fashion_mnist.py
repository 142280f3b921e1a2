"""A convolutional autoencoder reconstructs clothes better than PCA with a code of the same size.

Paper     Masci, Meier, Ciresan & Schmidhuber 2011, ICANN, which has other networks and reports
          classification alone; the comparison is that of Hinton & Salakhutdinov 2006, figure 2C.
          The paper's own network: experiments/autoencoder/stacked_convolutional_fashion_mnist.py.
Run       python launch.py train --config=experiments/autoencoder/convolutional_fashion_mnist.py:small --workdir=runs/convolutional
Takes     small: about 40 s on two CPU cores.
Data      Fashion-MNIST (`apt-get install dataset-fashion-mnist`). small: 10,000 training images.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="beats_pca",
    statement="squared error per image below 0.85 of PCA's with a code of the same size",
    paper="after Hinton & Salakhutdinov 2006, figure 2",
    metric="squared",
    split="test",
    relation="squared < 0.85 * pca_squared",
    published="no number for this network",
    seeds=3,
    cost="small: 3 runs of 40 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoencoder.convolutional", features=(16, 32), code=32),
      task=dict(name="reconstruction", error="squared"),
      data=dict(name="idx:fashion_mnist", batch_size=128, validation=0),
      optimizer=dict(name="adam", learning_rate=2e-3, schedule="cosine"),
      training=dict(steps=20_000, eval_every=2_000, checkpoint_every=2_000),
    )
  )
  if variant != "paper":
    config.data.update(dict(batch_size=64, train_examples=10_000, eval_batch_size=1000))
    config.training.update(dict(steps=2_000, eval_every=1_000, checkpoint_every=1_000))
  if variant == "smoke":
    config.data.update(dict(batch_size=16, train_examples=256, test_examples=100))
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config


def sweep_code():
  """The advantage over PCA by code size."""
  return grid({"model.code": (8, 16, 32, 64)})
