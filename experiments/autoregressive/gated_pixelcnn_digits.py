"""Gated PixelCNN: the likelihood of a binary image, exactly, pixel by pixel.

Paper     van den Oord et al. 2016, arXiv:1606.05328, which has no such data set. On MNIST a
          re-implementation (Gulrajani et al. 2017, PixelVAE) reports 80.10 nats.
Run       python launch.py train --config=experiments/autoregressive/gated_pixelcnn_digits.py:small --workdir=runs/gated
Takes     small: about 30 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits. Binarised afresh each time an image
          is seen.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="nll",
    statement="-log p(x) below 24.5 nats, and more than 3 below pixels that know nothing of each"
    " other",
    paper="van den Oord et al. 2016, of other data; the bounds are ours",
    metric="nll",
    split="test",
    relation="nll < 24.5 and nll < independent_nll - 3",
    seeds=3,
    variants=("small",),
    cost="3 runs of 30 s on two CPU cores",
  ),
  dict(
    name="nll_mnist",
    statement="-log p(x) of MNIST in nats",
    paper="Gulrajani et al. 2017, arXiv:1611.05013, of a Gated PixelCNN",
    metric="nll",
    split="test",
    relation="",
    published="80.10",
    seeds=3,
    variants=("paper",),
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    # Samples of 28x28 pixels take 784 runs of the network, so they are seldom drawn.
    return ConfigDict(
      dict(
        seed=0,
        model=dict(name="autoregressive.gated_pixelcnn", features=64, layers=8, head=64),
        task=dict(name="autoregressive"),
        data=dict(name="idx:mnist", batch_size=128, binarize="dynamic", validation=10_000),
        optimizer=dict(name="adam", learning_rate=1e-3, schedule="cosine"),
        training=dict(steps=100_000, eval_every=20_000, checkpoint_every=5_000),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="autoregressive.gated_pixelcnn", features=16, layers=3, first_size=5, size=3, head=16
      ),
      task=dict(name="autoregressive"),
      data=dict(name="digits", batch_size=64, binarize="dynamic"),
      optimizer=dict(name="adam", learning_rate=3e-3, schedule="cosine"),
      training=dict(steps=2_000, eval_every=500, checkpoint_every=1_000),
    )
  )
  if variant == "smoke":
    config.model.update(dict(features=4, layers=2, head=4))
    config.data.batch_size = 32
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
