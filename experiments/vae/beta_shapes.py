"""beta-VAE on sprites with five known factors: more weight on the divergence, fewer nats in the code.

Paper     Higgins et al. 2017, "beta-VAE", ICLR: their metric is 61.58 +- 0.5 % for a VAE
          and 99.23 +- 0.1 % at beta = 4, on the 2D shapes. The batch and the steps are ours.
Run       python launch.py train --config=experiments/vae/beta_shapes.py:small --workdir=runs/beta
Takes     small: about 15 s on two CPU cores. paper: not run.
Data      paper: 717,280 sprites of 64x64 drawn on demand (data/shapes.py). small and smoke: 16x16.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="pressure",
    statement="beta = 4 leaves fewer nats in the code than beta = 1, and reconstructs worse",
    paper="Higgins et al. 2017",
    metric="kl",
    split="test",
    relation="kl < rival.kl and reconstruction > rival.reconstruction",
    rivals=[{"task.beta": 1.0}],
    seeds=3,
    cost="small: 6 runs of 15 s on two CPU cores",
  ),
  dict(
    name="higgins",
    statement="accuracy of their linear classifier of differences",
    paper="Higgins et al. 2017",
    metric="higgins",
    split="test",
    relation="",
    published="2D shapes: 0.9923 +- 0.001 at beta = 4, 0.6158 +- 0.005 at beta = 1",
    settings=[{}, {"task.beta": 1.0}],
    seeds=3,
    cost="the same runs",
  ),
  dict(
    name="mig",
    statement="mutual information gap",
    paper="Chen et al. 2018, whose metric it is",
    metric="mig",
    split="test",
    relation="",
    settings=[{}, {"task.beta": 1.0}],
    seeds=3,
    cost="the same runs",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return ConfigDict(
      dict(
        seed=0,
        model=dict(name="vae.mlp"),
        task=dict(name="elbo", beta=4.0),
        data=dict(name="shapes", batch_size=100),
        optimizer=dict(name="adagrad", learning_rate=0.01),
        training=dict(steps=500_000, log_every=500, eval_every=20_000, checkpoint_every=20_000),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="vae.mlp", encoder_widths=(256, 128), decoder_widths=(128, 256), latents=10),
      task=dict(name="elbo", beta=4.0),
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


def sweep_beta():
  """Nats in the code, reconstruction and disentanglement by beta."""
  return grid({"task.beta": (0.5, 1.0, 2.0, 4.0, 8.0)})
