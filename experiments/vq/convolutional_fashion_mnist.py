"""VQ-VAE with the authors' small network.

Paper     van den Oord, Vinyals & Kavukcuoglu 2017, arXiv:1711.00937, section 4.1, and the authors'
          example in Sonnet, whose network and optimizer these are. The paper's 4.67 bits/dim are of
          CIFAR-10, a wider network, ten codes a position and a softmax over 256 levels.
Run       python launch.py train --config=experiments/vq/convolutional_fashion_mnist.py:small --workdir=runs/vq
          the example's data, where TFDS has it: add --config.data.name=tfds:cifar10
Takes     small: about 60 s on two CPU cores.
Data      Fashion-MNIST (`apt-get install dataset-fashion-mnist`); small and smoke: 4,000 images of it.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="squared",
    statement="squared error of an image of 49 codes of 9 bits",
    paper="van den Oord et al. 2017, who report other figures",
    metric="squared",
    split="test",
    relation="",
    seeds=3,
    cost="small: 3 runs of 60 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="vq.convolutional", quantizer="ema", codes=512, code_features=64),
      # The example's loss is a mean over pixels by the data's variance (0.06 on CIFAR-10), plus 0.25
      # of a mean over dimensions; in sums over 3,072 pixels and 64 dimensions that is
      # 0.25 * 0.06 * 3072 / 64.
      task=dict(name="vector_quantization", commitment=0.72),
      data=dict(name="idx:fashion_mnist", batch_size=32, validation=5_000),
      optimizer=dict(name="adam", learning_rate=3e-4),
      training=dict(steps=100_000, eval_every=5_000, checkpoint_every=5_000),
    )
  )
  if variant == "paper":
    return config
  config.model.update(
    dict(features=(16, 32), residual_features=16, code_features=16, residual_blocks=1)
  )
  # A new code needs a start: 512 of them, and hundreds of steps, not a hundred thousand.
  config.model.revive = 0.3
  config.data = ConfigDict(
    dict(
      name="idx:fashion_mnist",
      batch_size=32,
      train_examples=4_000,
      test_examples=1_000,
      validation=500,
    )
  )
  config.optimizer.learning_rate = 1e-3
  config.training = ConfigDict(dict(steps=800, eval_every=400, checkpoint_every=400))
  if variant == "smoke":
    config.model.update(dict(features=(4, 4), residual_features=4, codes=16, code_features=4))
    config.data.update(dict(train_examples=256, test_examples=100, validation=100))
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
