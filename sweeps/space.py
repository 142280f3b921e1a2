"""Which trials to run: combinators of finite sweeps, and distributions for a search to draw from.

A trial is a flat dict of dotted config keys to values, such as {"task.beta": 4.0, "seed": 1}. A
sweep is a list of trials; a space is a dict of dotted keys to distributions. An experiment says
both in one expression each:

  def sweep():
    return grid({"task.beta": (0.25, 1.0, 4.0), "seed": range(3)})

  def space():
    return {"optimizer.learning_rate": log_uniform(1e-4, 1e-1), "model.latents": integers(2, 32)}
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

Overrides = dict[str, Any]  # a trial


def grid(values: Mapping[str, Iterable[Any]]) -> list[Overrides]:
  """Every combination of the values of several keys; the first key varies slowest.

  Raises:
    ValueError: a key has no values, or text in the place of a list of values.
  """
  lists = _listed("grid", values)
  return [dict(zip(lists, row, strict=True)) for row in itertools.product(*lists.values())]


def zipped(values: Mapping[str, Iterable[Any]]) -> list[Overrides]:
  """The first value of every key, then the second of every key, and so on.

  Raises:
    ValueError: the keys have different numbers of values, or one has none.
  """
  lists = _listed("zipped", values)
  lengths = {key: len(items) for key, items in lists.items()}
  if len(set(lengths.values())) > 1:
    raise ValueError(
      "zipped: as many values for every key, not "
      + ", ".join(f"{length} for {key!r}" for key, length in lengths.items())
    )
  return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def product(*sweeps: Iterable[Overrides]) -> list[Overrides]:
  """Every combination of one trial from each sweep, merged; the first sweep varies slowest.

  Raises:
    ValueError: two of the sweeps set the same key.
  """
  merged = []
  for row in itertools.product(*map(list, sweeps)):
    trial = {}
    for part in row:
      if twice := trial.keys() & part.keys():
        raise ValueError(f"product: {min(twice)!r} is set by two of the sweeps")
      trial |= part
    merged.append(trial)
  return merged


def chain(*sweeps: Iterable[Overrides]) -> list[Overrides]:
  """The trials of one sweep after those of another."""
  return [dict(trial) for trial in itertools.chain(*sweeps)]


def subset(sweep: Iterable[Overrides], trials: int, seed: int = 0) -> list[Overrides]:
  """`trials` of the sweep at random, none twice; a smaller subset begins a larger one.

  Raises:
    ValueError: the sweep has fewer.
  """
  shuffled = list(sweep)
  if not 0 <= trials <= len(shuffled):
    raise ValueError(f"subset: {trials} trials of a sweep that has {len(shuffled)}")
  Random(seed).shuffle(shuffled)
  return shuffled[:trials]


def random(space: Mapping[str, "Distribution"], trials: int = 20, seed: int = 0) -> list[Overrides]:
  """`trials` independent draws from a space; a shorter sweep begins a longer one.

  Raises:
    ValueError: `space` is no space.
  """
  space, generator = distributions(space), Random(seed)
  return [{key: kind.draw(generator) for key, kind in space.items()} for _ in range(trials)]


def _listed(name: str, values: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
  lists = {}
  for key, items in values.items():
    if isinstance(items, str) or not isinstance(items, Iterable):
      raise ValueError(f"{name}: {key!r} takes a list of values, not {items!r}")
    lists[key] = list(items)
    if not lists[key]:
      raise ValueError(f"{name}: {key!r} has no values")
  return lists


def concrete(sweep: Iterable[Overrides]) -> list[Overrides]:
  """The trials of any sweep, checked, as new dicts; of equal ones the first stays.

  Args:
    sweep: trials from a combinator, a generator or a hand-written list.

  Returns:
    The trials, in the order of the sweep. 1 and 1.0 are one value; 1 and True are two.

  Raises:
    ValueError: a trial is no dict, a key no dotted name, a value nothing that JSON can hold.
  """
  trials = {}
  for number, trial in enumerate(sweep):
    if not isinstance(trial, Mapping):
      raise ValueError(f"trial {number} of the sweep is no dict of overrides: {trial!r}")
    for key, value in trial.items():
      _check_key(key, f"trial {number} of the sweep")
      if not _is_json(value):
        raise ValueError(
          f"trial {number} of the sweep: {key!r} is {value!r} ({type(value).__name__}); a value is "
          "a finite number, bool, str or None, or a list, tuple or dict of these"
        )
    trials.setdefault(identity(dict(trial)), dict(trial))
  return list(trials.values())


def _check_key(key: Any, where: str):
  if not (isinstance(key, str) and all(key.split("."))):
    raise ValueError(f"{where}: a key is a dotted name such as 'task.beta', not {key!r}")


def _is_json(value: Any) -> bool:
  if isinstance(value, float):
    return math.isfinite(value)
  if isinstance(value, list | tuple):
    return all(map(_is_json, value))
  if isinstance(value, dict):
    return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
  return value is None or isinstance(value, int | str)


def identity(value: Any) -> Any:
  """Something hashable that is equal for values that mean the same in a config."""
  if isinstance(value, bool):
    return ("bool", value)  # to Python, True is 1
  if isinstance(value, list | tuple):
    return ("list", *map(identity, value))
  if isinstance(value, dict):
    return frozenset((key, identity(item)) for key, item in value.items())
  return value


@dataclass(frozen=True)
class Real:
  """Numbers from `low` to `high`, uniform in themselves or in their logarithm."""

  low: float
  high: float
  log: bool = False

  def __post_init__(self):
    for end in (self.low, self.high):
      if not (isinstance(end, int | float) and _is_json(end)) or isinstance(end, bool):
        raise ValueError(f"{self!r}: both ends are finite numbers")
    _check_order(self)

  def draw(self, generator: Random) -> float:
    """One value."""
    if not self.log:
      return generator.uniform(self.low, self.high)
    value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
    return min(max(value, self.low), self.high)  # exp(log(x)) is only nearly x

  def __repr__(self) -> str:
    return f"{'log_uniform' if self.log else 'uniform'}({self.low!r}, {self.high!r})"


@dataclass(frozen=True)
class Integers:
  """Whole numbers from `low` to `high`, both included, uniform in themselves or their logarithm."""

  low: int
  high: int
  log: bool = False

  def __post_init__(self):
    for end in (self.low, self.high):
      if not isinstance(end, int) or isinstance(end, bool):
        raise ValueError(f"{self!r}: both ends are whole numbers")
    _check_order(self)

  def draw(self, generator: Random) -> int:
    """One value."""
    if not self.log:
      return generator.randint(self.low, self.high)
    # Half a step beyond each end, so that the ends are as likely as their neighbours.
    value = math.exp(generator.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
    return min(max(round(value), self.low), self.high)

  def __repr__(self) -> str:
    return f"integers({self.low!r}, {self.high!r}{', log=True' if self.log else ''})"


@dataclass(frozen=True)
class Choice:
  """One of several values, each as likely as another."""

  values: tuple[Any, ...]

  def __post_init__(self):
    if len(self.values) < 2:
      raise ValueError(f"{self!r}: two values or more, as in choice('adam', 'sgd')")
    for value in self.values:
      if not _is_json(value):
        raise ValueError(f"{self!r}: {value!r} is nothing that JSON can hold")
    if len({identity(value) for value in self.values}) < len(self.values):
      raise ValueError(f"{self!r}: the same value twice")

  def draw(self, generator: Random) -> Any:
    """One value."""
    return generator.choice(self.values)

  def __repr__(self) -> str:
    return f"choice({', '.join(map(repr, self.values))})"


Distribution = Real | Integers | Choice


def _check_order(interval: Real | Integers):
  if not interval.low < interval.high:
    raise ValueError(f"{interval!r}: the low end is below the high end")
  if interval.log and interval.low <= 0:
    raise ValueError(f"{interval!r}: a logarithm needs a low end above 0")


def uniform(low: float, high: float) -> Real:
  """Numbers from `low` to `high`, all equally likely."""
  return Real(low, high)


def log_uniform(low: float, high: float) -> Real:
  """Numbers from `low` > 0 to `high`, all orders of magnitude equally likely."""
  return Real(low, high, log=True)


def integers(low: int, high: int, log: bool = False) -> Integers:
  """Whole numbers from `low` to `high`, both included; `log` as in `log_uniform`."""
  return Integers(low, high, log)


def choice(*values: Any) -> Choice:
  """One of `values`, which need have no order."""
  return Choice(values)


def distributions(space: Mapping[str, Distribution]) -> dict[str, Distribution]:
  """A space, checked.

  Raises:
    ValueError: it is no dict, is empty, or holds something else than distributions.
  """
  if not (isinstance(space, Mapping) and space):
    raise ValueError(f"a space is a dict of dotted keys to distributions, not {space!r}")
  for key, kind in space.items():
    _check_key(key, "the space")
    if not isinstance(kind, Distribution):
      raise ValueError(
        f"the space: {key!r} is {kind!r}, not a distribution such as uniform(0.0, 1.0)"
      )
  return dict(space)
