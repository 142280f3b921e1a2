"""beta-TCVAE on sprites: latents that share less, at the same cost in the bound.

Paper     Chen et al. 2018, "Isolating sources of disentanglement", arXiv:1802.04942, section 6.1: the
          2D shapes with the networks of Higgins et al. 2017; it prints figures, no table. The batch
          of 2,048, the rate and 50 epochs are its released code's, from memory.
Run       python launch.py train --config=experiments/vae/total_correlation_shapes.py:small --workdir=runs/total
Takes     small: about 20 s on two CPU cores. paper: not run.
Data      paper: 717,280 sprites of 64x64 drawn on demand (data/shapes.py). small and smoke: 16x16.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="total_correlation",
    statement="total correlation of the aggregate posterior below a quarter of the plain VAE's",
    paper="Chen et al. 2018, eq. 4",
    metric="total_correlation",
    split="test",
    relation="total_correlation < 0.25 * rival.total_correlation",
    rivals=[{"task.beta": 1.0}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 20 s on two CPU cores",
  ),
  dict(
    name="bound",
    statement="the bound is above beta-VAE's at the same beta",
    paper="Chen et al. 2018, who show curves",
    metric="elbo",
    split="test",
    relation="elbo > rival.elbo",
    rivals=[{"task.name": "elbo"}],
    seeds=3,
    variants=("small",),
    cost="3 more runs of 15 s",
  ),
  dict(
    name="mig",
    statement="mutual information gap",
    paper="Chen et al. 2018, who show curves",
    metric="mig",
    split="test",
    relation="",
    settings=[{}, {"task.name": "elbo"}, {"task.beta": 1.0}],
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
        task=dict(name="total_correlation", beta=6.0),
        data=dict(name="shapes", batch_size=2048),
        optimizer=dict(name="adam", learning_rate=1e-3),
        training=dict(steps=17_500, log_every=100, eval_every=3_500, checkpoint_every=3_500),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="vae.mlp", encoder_widths=(256, 128), decoder_widths=(128, 256), latents=10),
      task=dict(name="total_correlation", beta=6.0),
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
