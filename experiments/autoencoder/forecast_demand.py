"""A code of eight numbers of the last day keeps what a forecast of the next day needs.

Paper     Zhu & Laptev 2017, "Deep and confident prediction for time series at Uber",
          arXiv:1709.01907: a forecaster that reads the code of an autoencoder; demand is theirs.
Run       python launch.py train --config=experiments/autoencoder/forecast_demand.py:small --workdir=runs/demand
Takes     small: about 10 s on two CPU cores.
Data      half-hourly electricity demand of England and Wales, twelve weeks of 2000 (Taylor 2003);
          nine weeks to train, the last three to test. pip install --no-deps pmdarima

The rivals are the same half hours of the week before, and a ridge regression on the raw window: no
claim is made over the latter, of which the code is a summary.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="beats_seasonal_naive",
    statement="sMAPE of a day's forecasts from a code of 8 numbers more than 15 % below that of the"
    " week before, unchanged",
    paper="after Zhu & Laptev 2017, whose demand is Uber's",
    metric="smape",
    split="test",
    relation="smape < 0.85 * seasonal_smape",
    seeds=5,
    cost="5 runs of 6 s on two CPU cores",
  ),
  dict(
    name="beside_an_untrained_code",
    statement="what training the code adds: sMAPE, beside a code after one step",
    paper="after Zhu & Laptev 2017, whose demand is Uber's",
    metric="smape",
    split="test",
    relation="",
    rivals=[{"training.steps": 1}],
    seeds=5,
    variants=("small",),
    cost="10 runs of 6 s on two CPU cores",
  ),
  dict(
    name="beside_ridge",
    statement="sMAPE by code size, beside a ridge regression on the raw window and on as many"
    " principal components",
    paper="after Zhu & Laptev 2017, whose demand is Uber's",
    metric="smape",
    split="test",
    relation="",
    settings="sweep_code",
    seeds=3,
    variants=("small",),
    cost="12 runs of 6 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  # The paper's network is recurrent and its data its own: one setting, longer for `paper`.
  steps = {"paper": 30_000, "small": 3_000, "smoke": 4}[variant]
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="autoencoder.deep", widths=(64, 32), code=8, activation="tanh", output="linear"
      ),
      task=dict(name="forecast"),
      data=dict(name="demand", window=48, horizon=48, batch_size=64),
      optimizer=dict(name="adam", learning_rate=1e-3, schedule="cosine"),
      training=dict(steps=steps, eval_every=steps // 2, checkpoint_every=steps // 2),
    )
  )
  if variant == "smoke":
    config.training.log_every = 1
  return config


def sweep_code():
  """What a code of more numbers adds."""
  return grid({"model.code": (2, 4, 8, 16)})
