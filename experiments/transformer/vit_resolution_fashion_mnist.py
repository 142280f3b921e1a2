"""A Vision Transformer is fine-tuned at a higher resolution than it was pre-trained at.

The patches stay as large and become more; positions are interpolated in the plane, and a linear
classifier that starts from zero replaces the one with a hidden layer.

Paper     Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.2; table 3 (ImageNet) for the setting
          of pre-training, table 4 for that of fine-tuning.
Run       python launch.py train --config=experiments/transformer/vit_resolution_fashion_mnist.py:small --workdir=runs/vit_resolution
Takes     small: about 60 s on two CPU cores. paper: ViT-B/16, on accelerators.
Data      Fashion-MNIST (`apt-get install dataset-fashion-mnist`): first at 16 x 16 pixels, then at
          its own 28 x 28. paper: the same, enlarged to 224 and 384; for the paper's data prepare
          ImageNet at 384 x 384 with TFDS and add --config.stages.N.data.name=tfds:NAME to both
          stages, and --config.stages.0.training.steps=93800 for its 300 epochs.
"""

from ml_collections import ConfigDict

_LOW = {"stages.1.data.resolution": 16}
_SCRATCH = {"stages.0.training.steps": 1}

CLAIMS = [
  dict(
    name="pretraining_helps",
    statement="after fine-tuning at 28 x 28 at least one in a hundred more of the test images is told"
    " right with pre-training at 16 x 16 than without",
    paper="Dosovitskiy et al. 2021, section 3.2, on other data",
    metric="accuracy",
    split="test",
    relation="accuracy > rival.accuracy + 0.01",
    rivals=[_SCRATCH],
    seeds=3,
    variants=("small",),
    cost="6 runs of 60 s on two CPU cores",
  ),
  dict(
    name="resolution",
    statement="accuracy after fine-tuning at 28 x 28, and at 16 x 16 as in pre-training; measured",
    paper="Dosovitskiy et al. 2021, section 3.2: higher is often better",
    metric="accuracy",
    split="test",
    relation="",
    settings=[{}, _LOW],
    seeds=3,
    variants=("small",),
    cost="6 runs of 60 s on two CPU cores",
  ),
  dict(
    name="from_scratch",
    statement="accuracy of ViT-B/16 pre-trained at 224 x 224 and fine-tuned at 384 x 384; measured",
    paper="Dosovitskiy et al. 2021, table 5",
    metric="accuracy",
    split="test",
    relation="",
    published="ImageNet: 0.7791",
    seeds=3,
    variants=("paper",),
    cost="3 runs on accelerators",
  ),
]


def get_config(variant="paper"):
  smoke, paper = variant == "smoke", variant == "paper"
  if paper:
    model = dict()
    resolutions, steps, batch_sizes = (224, 384), (20_000, 2_500), (4096, 512)
  else:
    model = dict(patch=4, layers=4, features=64, heads=4, mlp_features=128)
    if smoke:
      model |= dict(layers=2, features=8, heads=2, mlp_features=16)
    resolutions = (16, 28)
    steps, batch_sizes = ((2, 4), (8, 8)) if smoke else ((1500, 300), (64, 64))
  few = dict(train_examples=512, validation=200, test_examples=200) if smoke else {}
  if variant == "small":
    few = dict(test_examples=2000, validation=500)
  first = dict(
    name="adamw",
    learning_rate=3e-3 if paper else 1e-3,
    weight_decay=0.3 if paper else 0.05,
    schedule="cosine",
    warmup_steps=10_000 if paper else 1 if smoke else 100,
    clip_norm=1.0,
  )
  then = dict(name="sgd", learning_rate=0.03, momentum=0.9, schedule="cosine", clip_norm=1.0)
  hidden = 768 if paper else model["features"]
  settings = (
    ("pretraining", dict(head_hidden=hidden, dropout=0.1 if paper else 0.0), first),
    ("finetuning", dict(), then),
  )
  return ConfigDict(
    dict(
      seed=0,
      stages=[
        dict(
          name=name,
          model=dict(name="transformer.vit", **model, **own),
          task=dict(name="classify_patches"),
          data=dict(name="idx:fashion_mnist", resolution=side, batch_size=batch_size, **few),
          optimizer=optimizer,
          training=dict(
            steps=count,
            log_every=1 if smoke else 50,
            eval_every=max(count // 2, 1),
            checkpoint_every=max(count // 2, 1),
          ),
        )
        for (name, own, optimizer), side, batch_size, count in zip(
          settings, resolutions, batch_sizes, steps, strict=True
        )
      ],
    )
  )
