"""Forecasts from an autoencoder's code of the past.

Zhu & Laptev 2017, "Deep and confident prediction for time series at Uber", arXiv:1709.01907: an
autoencoder is trained to reconstruct windows of demand, then a forecaster reads its code.

Differs from the paper: a feedforward autoencoder instead of an LSTM, and a ridge regression on its
code instead of a multilayer perceptron, so that what is measured is the code. Both the code and
its rivals forecast log(demand / demand a season before). The penalty of each regression is chosen
on the last quarter of the training windows. Rivals: the season before, unchanged ("seasonal");
the same regression on the raw window ("lags"); and on as many principal components ("pca").

Axes: N windows in the order of time, W half hours of the past, H of the future, K of the code.
"""

import dataclasses

import numpy as np

from evaluation import forecast, pca
from tasks import reconstruction
from tasks.objective import Call, Examples
from tasks.views import Lines, View

_NAMES = {"": "from the code", "seasonal_": "seasonal naive", "lags_": "from the raw window"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(reconstruction.Task):
  """Reconstruction of `window`, measured by what its code forecasts of `future`."""

  of: str = "window"

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """sMAPE and MAE on the test windows, of the code and, by prefix, of its rivals."""
    future_NH = test.arrays["future"].astype(np.float64)
    found = super().score(call, train, test)
    for name, forecast_NH in self._forecasts(call, train, test).items():
      found[f"{name}smape"] = forecast.smape(future_NH, forecast_NH)
      found[f"{name}mae"] = forecast.mae(future_NH, forecast_NH)
    return found

  def _forecasts(self, call: Call, train: Examples, test: Examples) -> dict[str, np.ndarray]:
    """[N, H] forecasts in the data's unit, by the prefix of their metrics."""
    target_MH = np.log(train.arrays["future"]) - np.log(train.arrays["seasonal"])
    seasonal_NH = test.arrays["seasonal"].astype(np.float64)
    past = train.arrays[self.of], test.arrays[self.of]
    codes = tuple(self.features(call, examples) for examples in (train, test))
    mean_W, directions = pca.components(past[0], codes[0].shape[1])
    features = {
      "": codes,
      "lags_": past,
      "pca_": tuple((x - mean_W) @ directions.T for x in past),
    }
    gap = past[0].shape[1] + target_MH.shape[1]  # windows begin at every moment
    found = {"seasonal_": seasonal_NH}
    for name, (known, new) in features.items():
      fitted = forecast.chronological_ridge(known, target_MH, gap)
      found[name] = seasonal_NH * np.exp(fitted(new))
    return found

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    found = super().views(call, train, test)
    forecasts = self._forecasts(call, train, test)
    future_NH = test.arrays["future"]
    # One horizon after another, so that every moment is forecast once.
    steps = slice(0, 7 * future_NH.shape[1], future_NH.shape[1])
    lines = {"demand": future_NH[steps].ravel()}
    lines |= {label: forecasts[name][steps].ravel() for name, label in _NAMES.items()}
    found["forecasts"] = Lines(
      np.arange(len(lines["demand"])),
      lines,
      ("step of the test split", "demand"),
      f"Forecasts of {future_NH.shape[1]} steps, each made at the end of the one before.",
    )
    error_H = {
      label: 100 * np.abs(forecasts[name] / future_NH - 1).mean(0) for name, label in _NAMES.items()
    }
    found["error_by_step"] = Lines(
      np.arange(1, future_NH.shape[1] + 1),
      error_H,
      ("steps ahead", "mean absolute error, percent"),
      "How the error grows with the distance of what is forecast.",
    )
    return found
