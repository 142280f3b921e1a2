"""A VAE on sprites whose divergence is held to a capacity that grows.

Paper     Burgess et al. 2018, "Understanding disentangling in beta-VAE", arXiv:1804.03599, eq. 8, on
          the 2D shapes: gamma = 1000, C from 0 to 25 nats over 100,000 steps. It prints figures only.
Run       python launch.py train --config=experiments/vae/capacity_shapes.py:small --workdir=runs/capacity
Takes     small: about 15 s on two CPU cores. paper: not run.
Data      paper: 717,280 sprites of 64x64 drawn on demand (data/shapes.py). small and smoke: 16x16.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="held",
    statement="the divergence is within 0.5 nats of the capacity that it is held to",
    paper="Burgess et al. 2018, eq. 8",
    metric="kl",
    split="test",
    relation="kl < 6.5 and kl > 5.5",
    seeds=3,
    variants=("small",),
    cost="3 runs of 15 s on two CPU cores",
  ),
  dict(
    name="mig",
    statement="mutual information gap at a capacity of 25 nats",
    paper="Burgess et al. 2018, who show traversals",
    metric="mig",
    split="test",
    relation="",
    seeds=3,
    variants=("paper",),
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return ConfigDict(
      dict(
        seed=0,
        model=dict(name="vae.convolutional"),
        task=dict(name="elbo", beta=1000.0, capacity=25.0, capacity_steps=100_000),
        data=dict(name="shapes", batch_size=64),
        optimizer=dict(name="adam", learning_rate=5e-4),
        training=dict(steps=300_000, log_every=500, eval_every=20_000, checkpoint_every=20_000),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="vae.mlp", encoder_widths=(256, 128), decoder_widths=(128, 256), latents=10),
      task=dict(name="elbo", beta=30.0, capacity=6.0, capacity_steps=2_000),
      data=dict(
        name="shapes",
        batch_size=64,
        side=16,
        scales=4,
        orientations=12,
        positions=9,
        radius=0.3,
        test_examples=2000,
        validation=500,
      ),
      optimizer=dict(name="adam", learning_rate=1e-3, schedule="cosine"),
      training=dict(steps=3_000, log_every=200, eval_every=1_500, checkpoint_every=1_500),
    )
  )
  if variant == "smoke":
    config.data.update(dict(test_examples=200, validation=100, train_examples=400))
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
