"""FactorVAE on sprites: a discriminator finds the dependence between latents, and it is penalised.

Paper     Kim & Mnih 2018, "Disentangling by factorising", arXiv:1802.05983, section 5 and appendix A:
          the 2D shapes, gamma = 35, 300,000 steps; it prints figures. The batch of 64 is drawn twice
          there, for which one batch of 128 stands here (tasks/factor.py).
Run       python launch.py train --config=experiments/vae/factor_shapes.py:small --workdir=runs/factor
Takes     small: about 30 s on two CPU cores. paper: not run.
Data      paper: 717,280 sprites of 64x64 drawn on demand (data/shapes.py). small and smoke: 16x16.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="total_correlation",
    statement="total correlation of the aggregate posterior below that without the penalty",
    paper="Kim & Mnih 2018, section 3",
    metric="total_correlation",
    split="test",
    relation="total_correlation < rival.total_correlation",
    rivals=[{"task.gamma": 0.0}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 25 s on two CPU cores",
  ),
  dict(
    name="factor_vae",
    statement="accuracy of their majority vote",
    paper="Kim & Mnih 2018, who show curves",
    metric="factor_vae",
    split="test",
    relation="",
    settings=[{}, {"task.gamma": 0.0}],
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
    settings=[{}, {"task.gamma": 0.0}],
    seeds=3,
    cost="the same runs",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return ConfigDict(
      dict(
        seed=0,
        model=dict(name="vae.factor"),
        task=dict(name="factor", gamma=35.0),
        data=dict(name="shapes", batch_size=128),
        optimizer=dict(
          name="adam",
          learning_rate=1e-4,
          per_phase=dict(discriminator=dict(b1=0.5, b2=0.9)),
        ),
        training=dict(steps=300_000, log_every=500, eval_every=20_000, checkpoint_every=20_000),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="vae.factor_mlp",
        encoder_widths=(256, 128),
        decoder_widths=(128, 256),
        latents=10,
        discriminator_widths=(128, 128, 128),
      ),
      task=dict(name="factor", gamma=20.0),
      data=dict(
        name="shapes",
        batch_size=128,
        side=16,
        scales=4,
        orientations=12,
        positions=9,
        radius=0.3,
        test_examples=2000,
        validation=500,
      ),
      optimizer=dict(
        name="adam",
        learning_rate=5e-4,
        schedule="cosine",
        per_phase=dict(discriminator=dict(learning_rate=1e-3, b1=0.5, b2=0.9)),
      ),
      training=dict(steps=3_000, log_every=200, eval_every=1_500, checkpoint_every=1_500),
    )
  )
  if variant == "smoke":
    config.data.update(dict(test_examples=200, validation=100, train_examples=400))
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
