"""PixelCNN: the likelihood of a binary image, exactly, by masked convolutions.

Paper     van den Oord, Kalchbrenner & Kavukcuoglu 2016, arXiv:1601.06759: 81.30 nats on binary MNIST.
Run       python launch.py train --config=experiments/autoregressive/pixelcnn_digits.py:small --workdir=runs/pixelcnn
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
    paper="van den Oord et al. 2016, section 5",
    metric="nll",
    split="test",
    relation="",
    published="81.30",
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
        model=dict(name="autoregressive.pixelcnn", features=16, blocks=7, head=32),
        task=dict(name="autoregressive"),
        data=dict(name="idx:mnist", batch_size=16, binarize="dynamic", validation=10_000),
        optimizer=dict(name="rmsprop", learning_rate=1e-3, schedule="cosine"),
        training=dict(steps=500_000, eval_every=100_000, checkpoint_every=5_000),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoregressive.pixelcnn", features=16, blocks=4, head=32),
      task=dict(name="autoregressive"),
      data=dict(name="digits", batch_size=64, binarize="dynamic"),
      optimizer=dict(name="adam", learning_rate=3e-3, schedule="cosine"),
      training=dict(steps=2_000, eval_every=500, checkpoint_every=1_000),
    )
  )
  if variant == "smoke":
    config.model.update(dict(features=4, blocks=1, head=4))
    config.data.batch_size = 32
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
