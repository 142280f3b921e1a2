"""A Vision Transformer has to learn that an image is one: it gains more from data than pixels do.

Paper     Dosovitskiy et al. 2021, arXiv:2010.11929, figure 4 and section 4.3 (data), table 8
          (positions); table 3 for the setting on ImageNet from scratch, table 5 for its accuracy.
Run       python launch.py train --config=experiments/transformer/vit_digits.py:small --workdir=runs/vit
Takes     small: about 40 s on two CPU cores.
Data      scikit-learn's digits of 8 x 8 pixels, cut into 16 patches. paper: the paper's setting on
          Fashion-MNIST enlarged to 224 x 224; for its own data prepare ImageNet at 224 x 224 with
          TFDS and add --config.data.name=tfds:NAME --config.data.directory=DIR.
"""

from ml_collections import ConfigDict

_ALL, _THIRD, _TENTH = ({"data.train_examples": n} for n in (1200, 360, 120))
_WITHOUT = {"model.positions": "none"}

CLAIMS = [
  dict(
    name="accuracy",
    statement="accuracy above 0.9 after 107 epochs; logistic regression on pixels has 0.969",
    paper="Dosovitskiy et al. 2021, which has no such data set",
    metric="accuracy",
    split="test",
    relation="accuracy > 0.9",
    seeds=3,
    variants=("small",),
    cost="3 runs of 40 s on two CPU cores",
  ),
  dict(
    name="gains_with_data",
    statement="from a tenth of 1,200 training images to all of them, accuracy gains more than that of"
    " logistic regression on pixels fitted to the same images",
    paper="Dosovitskiy et al. 2021, section 4.3 and figure 4, against ResNets on JFT",
    metric="accuracy",
    split="test",
    relation="accuracy - rival.accuracy > linear_accuracy - rival.linear_accuracy",
    settings=[_ALL],
    rivals=[_TENTH],
    seeds=3,
    variants=("small",),
    cost="6 runs of 40 s on two CPU cores",
  ),
  dict(
    name="by_data",
    statement="accuracy with all training images, three tenths and a tenth of them; measured",
    paper="Dosovitskiy et al. 2021, figure 4",
    metric="accuracy",
    split="test",
    relation="",
    settings=[_ALL, _THIRD, _TENTH],
    seeds=3,
    variants=("small",),
    cost="9 runs of 40 s on two CPU cores",
  ),
  dict(
    name="positions_matter",
    statement="accuracy at least 0.2 higher with learned positions than with none, when the patches"
    " are a set",
    paper="Dosovitskiy et al. 2021, table 8",
    metric="accuracy",
    split="test",
    relation="accuracy > rival.accuracy + 0.2",
    rivals=[_WITHOUT],
    published="ImageNet, linear 5-shot: 0.642 and 0.614",
    seeds=3,
    variants=("small",),
    cost="6 runs of 40 s on two CPU cores",
  ),
  dict(
    name="from_scratch",
    statement="accuracy of ViT-B/16 from scratch; measured",
    paper="Dosovitskiy et al. 2021, table 5",
    metric="accuracy",
    split="test",
    relation="",
    published="ImageNet, fine-tuned at 384 x 384: 0.7791",
    seeds=3,
    variants=("paper",),
    cost="3 runs on accelerators",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":  # ViT-B/16, 300 epochs of 1,281,167 images
    return ConfigDict(
      dict(
        seed=0,
        model=dict(name="transformer.vit", head_hidden=768, dropout=0.1),
        task=dict(name="classify_patches"),
        data=dict(name="idx:fashion_mnist", resolution=224, batch_size=4096, flip=True),
        optimizer=dict(
          name="adamw",
          learning_rate=3e-3,
          weight_decay=0.3,
          schedule="cosine",
          warmup_steps=10_000,
          clip_norm=1.0,
        ),
        training=dict(steps=93_800, eval_every=3_000, checkpoint_every=3_000),
      )
    )
  smoke = variant == "smoke"
  size = dict(layers=2, features=8, heads=2) if smoke else dict(layers=4, features=64, heads=4)
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="transformer.vit", patch=2, mlp_features=16 if smoke else 128, **size),
      task=dict(name="classify_patches", pixels=True),
      data=dict(name="digits", batch_size=8 if smoke else 64, crop_padding=1),
      optimizer=dict(
        name="adamw",
        learning_rate=2e-3,
        weight_decay=0.1,
        schedule="cosine",
        warmup_steps=1 if smoke else 50,
        clip_norm=1.0,
      ),
      training=dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
      if smoke
      else dict(steps=2000, log_every=100, eval_every=1000, checkpoint_every=1000),
    )
  )
