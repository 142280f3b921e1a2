"""The first GAN, on digits: its samples match the moments of the data.

Paper     Goodfellow et al. 2014, arXiv:1406.2661: Parzen-window log-likelihood 225 +- 2 on MNIST.
Run       python launch.py train --config=experiments/gan/mlp_digits.py:small --workdir=runs/gan
Takes     small: about 40 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits. Real-valued pixels.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="frechet",
    statement="Frechet distance in 16 principal components below 0.3, and below a fitted"
    " Gaussian's + 0.05",
    paper="Goodfellow et al. 2014, who report Parzen windows; this distance is ours",
    metric="frechet",
    split="test",
    relation="frechet < 0.3 and frechet < frechet_gaussian + 0.05",
    seeds=10,  # 5 left the second half undecided
    variants=("small",),
    cost="10 runs of 25 s on two CPU cores",
  ),
  dict(
    name="frechet_mnist",
    statement="Frechet distance in 16 principal components",
    paper="Goodfellow et al. 2014, who report Parzen windows; this distance is ours",
    metric="frechet",
    split="test",
    relation="",
    seeds=5,
    variants=("paper",),
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return ConfigDict(
      dict(
        seed=0,
        model=dict(name="gan.mlp"),
        task=dict(name="adversarial", discriminator_steps=1),
        data=dict(name="idx:mnist", batch_size=100, validation=10_000),
        # The released code's rate, 0.1 / 1.000004^step; its momentum grows from 0.5 to 0.7.
        optimizer=dict(
          name="sgd",
          learning_rate=0.1,
          momentum=0.5,
          schedule="exponential",
          final_fraction=0.6065,
        ),
        training=dict(steps=125_000, eval_every=5_000, checkpoint_every=5_000),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="gan.mlp",
        noise=16,
        generator_widths=(128, 128),
        discriminator_widths=(128, 128),
        pieces=1,
        input_dropout=0.0,
        hidden_dropout=0.0,
        generator_init=0.0,
        discriminator_init=0.0,
      ),
      task=dict(name="adversarial"),
      data=dict(name="digits", batch_size=64, validation=0),
      optimizer=dict(name="adam", learning_rate=2e-4, b1=0.5),
      training=dict(steps=20_000, log_every=200, eval_every=2_000, checkpoint_every=5_000),
    )
  )
  if variant == "smoke":
    # Dropout and two critic steps, so that the seams they use are exercised.
    config.model.update(dict(pieces=2, input_dropout=0.2, hidden_dropout=0.5))
    config.task.discriminator_steps = 2
    config.data.batch_size = 16
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
