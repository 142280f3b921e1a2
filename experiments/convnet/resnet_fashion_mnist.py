"""ResNet-20 on Fashion-MNIST: shortcuts let depth help.

Paper     He, Zhang, Ren & Sun 2016, arXiv:1512.03385, table 6: ResNet-20, 8.75 % error on CIFAR-10.
Run       python launch.py train --config=experiments/convnet/resnet_fashion_mnist.py:small --workdir=runs/resnet
          the plain network of figure 6: add --config.model.residual=False
Takes     small: about 3 minutes on two CPU cores. paper: made for an accelerator.
Data      Fashion-MNIST, not the paper's CIFAR-10 (`apt-get install dataset-fashion-mnist`).
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="accuracy",
    paper="He et al. 2016, table 6, which is of CIFAR-10",
    metric="accuracy",
    split="test",
    relation="",
    seeds=3,
    cost="small: 3 runs of 3 minutes on two CPU cores",
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="convnet.resnet", blocks=3, widths=(16, 32, 64)),
      task=dict(name="classify"),
      data=dict(name="idx:fashion_mnist", batch_size=128, crop_padding=4, flip=True),
      optimizer=dict(
        name="sgd",
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        decay="all",
        schedule="step",
        step_at=(0.5, 0.75),
      ),
      training=dict(steps=64_000, eval_every=1_000, checkpoint_every=1_000),
    )
  )
  if variant != "paper":
    config.model = ConfigDict(dict(name="convnet.resnet", blocks=1, widths=(8, 16, 32)))
    config.data = ConfigDict(
      dict(name="idx:fashion_mnist", batch_size=128, flip=True, eval_batch_size=1000)
    )
    config.optimizer.update(dict(schedule="cosine", warmup_steps=100))
    config.training = ConfigDict(dict(steps=1_500, eval_every=500, checkpoint_every=500))
  if variant == "smoke":
    config.data.update(
      dict(train_examples=256, validation=100, test_examples=100, batch_size=16, crop_padding=2)
    )
    config.optimizer.warmup_steps = 1
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
