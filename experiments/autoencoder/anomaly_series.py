"""An autoencoder of an arterial pressure finds the one beat that was tampered with; of an ECG, not.

Paper     Wu & Keogh 2021, arXiv:2009.13807, for the series; the one-class protocol after Ruff et
          al. 2018, with windows for images.
Run       python launch.py train --config=experiments/autoencoder/anomaly_series.py:small --workdir=runs/anomaly_series
          the ECG: add --config.data.name=series:mitdb
Takes     small: about 10 s on two CPU cores.
Data      number 135 of the UCR anomaly archive: trained on its clean 1,200 points, tested on 6,301.
          pip install --no-deps aeon (and sktime for the ECG).

A premature beat looks like any other: what is wrong with it is when it comes. An autoencoder of
windows shorter than two beats cannot see that, and ranks it no better than chance.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="finds_the_tampered_beat",
    statement="AUROC of windows above 0.95, and above the distance to the mean's by 0.2",
    paper="Wu & Keogh 2021, series 135",
    metric="auroc",
    split="test",
    relation="auroc > 0.95 and auroc > centroid_auroc + 0.2",
    seeds=5,
    cost="5 runs of 6 s on two CPU cores",
  ),
  dict(
    name="misses_a_premature_beat",
    statement="AUROC of windows of an ECG with one premature beat, by the same autoencoder",
    paper="Moody & Mark 2001, record of the MIT-BIH database",
    metric="auroc",
    split="test",
    relation="",
    settings=[{"data.name": "series:mitdb"}],
    seeds=5,
    variants=("small",),
    cost="5 runs of 6 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  # No paper says how an autoencoder should look for this: one setting, longer for `paper`.
  steps = {"paper": 30_000, "small": 3_000, "smoke": 4}[variant]
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoencoder.deep", widths=(64, 32), code=8, activation="tanh"),
      task=dict(name="anomaly", of="window"),
      data=dict(name="series:internal_bleeding", window=64, test_stride=4, batch_size=64),
      optimizer=dict(name="adam", learning_rate=1e-3, schedule="cosine"),
      training=dict(steps=steps, eval_every=steps // 2, checkpoint_every=steps // 2),
    )
  )
  config.model.output = "linear"  # a test value may lie beyond the training part's [0, 1]
  if variant == "smoke":
    config.training.log_every = 1
  return config
