"""Electricity demand of England and Wales, every half hour of twelve weeks in the summer of 2000.

Taylor 2003, "Short-term electricity demand forecasting using double seasonal exponential
smoothing", Journal of the Operational Research Society 54:799-805: 4,032 values in megawatts from
Monday, 5 June 2000. They come in the Python package pmdarima as a list in its source code, which is
read without being run.

The split is chronological, the last three weeks to test, and no example reaches over a boundary. An
example is a past of `window` half hours and a future of `horizon`, both with the same half hours of
the week before. What a model sees is log(demand / demand a week before), as Zhu & Laptev 2017
("Deep and confident prediction for time series at Uber", arXiv:1709.01907) take logarithms and
remove the first value: the season is gone, and nothing outside of an example has scaled it. It is
given in tenths, which brings it to the order of 1.
"""

import ast
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from data import series, source

_WEEK = 336  # half hours
_POINTS, _TEST = 12 * _WEEK, 3 * _WEEK
_MOST_BYTES = 2**20  # of the file; it has 36 thousand


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """What a forecaster may know, and what it is to find, in the order of time.

  `window` float32 [window], tenths of the log ratio to the week before; `seasonal` [horizon], the
  megawatts of the week before what is to come; `future` [horizon], what came.

  Attributes:
    window: half hours of the past.
    horizon: half hours that are to be forecast; at most a week, so that `seasonal` is known.
    validation: half hours held out for validation off the end of the training part.
  """

  window: Annotated[int, "[2, 336]"] = 48
  horizon: Annotated[int, "[1, 336]"] = 48
  validation: Annotated[int, "[0, inf)"] = 0

  def facts(self) -> Mapping[str, Any]:
    return {"data_shape": (self.window,)}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return {
      "past": jax.ShapeDtypeStruct((2, self.window), np.float32),
      "seasonal": jax.ShapeDtypeStruct((self.horizon,), np.float32),
      "future": jax.ShapeDtypeStruct((self.horizon,), np.float32),
    }

  def split(self, name: str) -> source.Split:
    middle, end = _POINTS - _TEST - self.validation, _POINTS - _TEST
    part = {"train": slice(0, middle), "validation": slice(middle, end), "test": slice(end, None)}
    examples = self._examples(_load()[part[name]])
    if name == "train" and not len(examples["future"]):
      raise ValueError(f"data.validation={self.validation} leaves nothing to train on")
    return source.Arrays(examples)

  def _examples(self, demand_T: np.ndarray) -> dict[str, np.ndarray]:
    """All examples that lie in a part of the series whole, the week before included."""
    whole = series.sliding(demand_T, _WEEK + self.window + self.horizon).astype(np.float32)
    now, length = slice(_WEEK, _WEEK + self.window), slice(0, self.window)
    return {
      "past": np.stack([whole[:, now], whole[:, length]], axis=1),
      "seasonal": whole[:, self.window : self.window + self.horizon],
      "future": whole[:, _WEEK + self.window :],
    }

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    now, before = batch["past"][:, 0], batch["past"][:, 1]
    rest = {name: x for name, x in batch.items() if name != "past"}
    return {"window": 10 * jnp.log(now / before), **rest}

  def fingerprint(self) -> str:
    settings = (self.window, self.horizon, self.validation)
    return hashlib.sha256(repr(settings).encode() + _load().tobytes()).hexdigest()


@functools.cache
def _load() -> np.ndarray:
  """[4032] megawatts."""
  return read(series.packaged("pmdarima", "datasets/taylor.py"))


def read(file: pathlib.Path) -> np.ndarray:
  """The longest list of numbers in a file of Python, as float64; nothing in it is executed.

  Raises:
    ValueError: there is none of 4,032 positive numbers.
  """
  with source.naming(file, "not Python"):
    tree = ast.parse(source.read_at_most(file, _MOST_BYTES))
  with source.naming(file, "its longest list is not of numbers"):
    lists = [node for node in ast.walk(tree) if isinstance(node, ast.List)]
    longest = max(lists, key=lambda node: len(node.elts), default=None)
    demand_T = np.array(ast.literal_eval(longest) if longest else [], np.float64)
  if demand_T.shape != (_POINTS,) or not (np.isfinite(demand_T) & (demand_T > 0)).all():
    raise ValueError(f"{file}: found {demand_T.size} values, expected {_POINTS} above 0")
  return demand_T
