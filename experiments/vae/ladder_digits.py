"""Layers of latents that learn from both sides: a ladder VAE against one inferred upwards alone.

Paper     Sonderby, Raiko, Maaloe, Sonderby & Winther 2016, arXiv:1602.02282, tables 1 to 3 and
          figure 3: batch normalisation and warm-up keep higher layers in use, and the ladder most.
Run       python launch.py train --config=experiments/vae/ladder_digits.py:small --workdir=runs/ladder
          without warm-up: add --config.task.warmup_steps=0
Takes     small: about 30 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits. Binarised afresh each time an image
          is seen.
"""

from ml_collections import ConfigDict

# The plain VAE of as many layers: no batch normalisation, tanh, and a divergence that is sampled.
_PLAIN = {"model.name": "vae.importance", "task.name": "importance", "task.samples": 1}
_COLD = {"task.warmup_steps": 0}
_BOTH_WITH_AND_WITHOUT = [{}, _COLD, _PLAIN, {**_PLAIN, **_COLD}]

CLAIMS = [
  dict(
    name="nll",
    statement="-log p(x) of the ladder VAE, and of the plain VAE with two layers of latents of the"
    " same sizes, each with warm-up and without",
    paper="Sonderby et al. 2016, table 1",
    metric="nll",
    split="test",
    relation="",
    settings=_BOTH_WITH_AND_WITHOUT,
    seeds=3,
    cost="small: 12 runs of 30 s on two CPU cores",
  ),
  dict(
    name="top_layer",
    statement="active units of the top layer of the same",
    paper="Sonderby et al. 2016, figure 3",
    metric="active_units_2",
    split="test",
    relation="",
    settings=_BOTH_WITH_AND_WITHOUT,
    seeds=3,
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="vae.ladder", hidden=(512, 256, 128, 64, 32), latents=(64, 32, 16, 8, 4)),
      # 200 of 2,000 epochs.
      task=dict(name="elbo", warmup_steps=42_200, nll_samples=5000),
      data=dict(name="idx:mnist", batch_size=256, validation=6_000, binarize="dynamic"),
      optimizer=dict(name="adam", learning_rate=1e-3, schedule="linear"),
      training=dict(steps=422_000, eval_every=21_100, checkpoint_every=21_100),
    )
  )
  if variant != "paper":
    config.model.update(dict(hidden=(64, 32), latents=(8, 4)))
    config.task.update(dict(warmup_steps=600, nll_samples=1000))
    config.data = ConfigDict(dict(name="digits", batch_size=100, binarize="dynamic"))
    config.optimizer.learning_rate = 2e-3
    config.training.update(
      dict(steps=3_000, log_every=100, eval_every=1_000, checkpoint_every=1_500)
    )
  if variant == "smoke":
    config.task.nll_samples = 5
    config.training.update(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
