"""A small ResNet on handwritten digits of 8x8 pixels.

Paper     He, Zhang, Ren & Sun 2016, arXiv:1512.03385, section 4.2, which has no such data set.
Run       python launch.py train --config=experiments/convnet/resnet_digits.py:small --workdir=runs/resnet
Takes     small: under a minute on two CPU cores.
Data      scikit-learn's digits.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="accuracy",
    paper="He et al. 2016, which has no such data set",
    metric="accuracy",
    split="test",
    relation="",
    seeds=5,
    cost="small: 5 runs of under a minute on two CPU cores",
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="convnet.resnet", blocks=3, widths=(16, 32, 64)),
      task=dict(name="classify"),
      data=dict(name="digits", batch_size=128, crop_padding=1),
      optimizer=dict(
        name="sgd",
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        decay="all",
        schedule="step",
        step_at=(0.5, 0.75),
      ),
      training=dict(steps=2_000, eval_every=200, checkpoint_every=500),
    )
  )
  if variant != "paper":
    config.model = ConfigDict(dict(name="convnet.resnet", blocks=1, widths=(16, 32, 64)))
    config.data.batch_size = 64
    config.optimizer.update(dict(schedule="cosine", warmup_steps=50))
    config.training = ConfigDict(
      dict(steps=800, log_every=50, eval_every=200, checkpoint_every=400)
    )
  if variant == "smoke":
    config.model.widths = (4, 8, 8)
    config.data.batch_size = 16
    config.optimizer.warmup_steps = 1
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
