"""Searches that learn from the trials so far and stop hopeless ones early, through Optuna.

The ledger of a sweep is the truth. Optuna's study is built anew from it whenever the sweep goes
on, by playing every trial back, and the draw of trial n depends on the seed, on n and on the
trials before it alone. A sweep that was interrupted therefore proposes what it would have proposed.

Samplers  tpe        Bergstra et al. 2011, with the multivariate kernels of Falkner et al. 2018
          cmaes      Hansen 2016, arXiv:1604.00772
          qmc        a scrambled Sobol sequence, Sobol 1967
          random     Bergstra & Bengio 2012
Pruners   median     Golovin et al. 2017
          asha       Li et al. 2018, arXiv:1810.05934
          hyperband  Li et al. 2016, arXiv:1603.06560
"""

import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any, Literal

import optuna
import sqlalchemy.exc
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from report.trials import Direction, Trial
from report.wording import text
from sweeps.space import Choice, Distribution, Integers, Overrides, Real, distributions, identity
from training.errors import ConfigError, StorageError

_REDUCTION = 3  # of the trials that reach a rung, one in three goes on
_RUNGS = 3
_NUMBER = "trial"  # the user attribute of a stored trial that holds our number
_STATES = {
  "done": TrialState.COMPLETE,
  "pruned": TrialState.PRUNED,
  "failed": TrialState.FAIL,
  "timeout": TrialState.FAIL,
  "interrupted": TrialState.RUNNING,
  "running": TrialState.RUNNING,
  "pending": TrialState.RUNNING,
}
_DIRECTIONS = {"least": "minimize", "greatest": "maximize"}
_REPLAYED = ("cmaes", "qmc")  # samplers whose own state only asking them for every trial restores
_DECADE = 10  # positive numbers that span as much are compared by their logarithms

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Settings:
  """How a search proposes and stops trials.

  Attributes:
    max_resource: training steps of a trial that is not stopped.
    report_every: training steps between two reports.
    min_resource: training steps before a trial may be stopped; None takes three rungs below the
      end, each at three times the steps of the one before, with a report of its own.
    startup: trials drawn without a model, and trials done before the median stops any.
    direction: which value is best.
  """

  max_resource: Annotated[int, "[1, inf)"]
  report_every: Annotated[int, "[1, inf)"] = 1
  min_resource: Annotated[int, "[1, inf)"] | None = None
  sampler: Literal["tpe", "cmaes", "qmc", "random"] = "tpe"
  pruner: Literal["none", "median", "asha", "hyperband"] = "none"
  direction: Direction = "least"
  seed: Annotated[int, "[0, inf)"] = 0
  startup: Annotated[int, "[1, inf)"] = 10

  @property
  def first_rung(self) -> int:
    """The step from which a trial may be stopped."""
    if self.min_resource is not None:
      return self.min_resource
    # Two rungs that the same report serves would halve twice by one number.
    steps = math.ceil(self.max_resource / _REDUCTION**_RUNGS)
    return math.ceil(steps / self.report_every) * self.report_every


@dataclass
class _Live:
  """A trial that may still report."""

  trial: optuna.Trial
  steps: set[int] = field(default_factory=set)
  finite: bool = True  # its newest report


class Search:
  """Proposes trials, hears how they fare, and says which to stop. Several may be live at once.

  Args:
    space: dotted config keys to distributions.
    settings: how to search.
    storage: where others may watch the study: an SQLAlchemy URL ("sqlite:///study.db",
      "postgresql://..."), or a path that ends in ".journal"; empty keeps it in memory.
    name: the study's name in the storage, which one sweep alone uses.

  Attributes:
    study: Optuna's study.

  Raises:
    ValueError: `space` is no space.
    ConfigError: the sampler cannot search this space, or the storage holds another study.
    StorageError: the storage cannot be opened.
  """

  def __init__(
    self,
    space: Mapping[str, Distribution],
    settings: Settings,
    *,
    storage: str = "",
    name: str = "sweep",
  ):
    self._space = distributions(space)
    self._settings = settings
    self._distributions = {key: _distribution(kind) for key, kind in self._space.items()}
    self._live: dict[int, _Live] = {}
    self._next = 0
    numbers = [key for key, kind in self._space.items() if not isinstance(kind, Choice)]
    if settings.sampler == "cmaes" and storage:
      # Whoever may write the storage could have this process run their code.
      raise ConfigError(
        "cmaes keeps its state in a storage as a pickle, which is not read",
        kept="the study is as it was",
        do="leave --storage out: the ledger needs none, or choose the sampler tpe",
      )
    if settings.sampler == "cmaes" and len(numbers) < 2:
      raise ConfigError(
        f"cmaes moves through two numbers or more, and the space has {len(numbers)}",
        do="choose the sampler tpe, or widen the space",
      )
    self.study = _study(storage, name, settings)
    for trial in self.study.get_trials(deepcopy=False):
      if any(self._distributions.get(key) != kind for key, kind in trial.distributions.items()):
        raise ConfigError(
          f"the study {name!r} searches another space",
          where=_without_password(storage),
          kept="the study is as it was",
          do="give the same space, or another storage",
        )

  def ask(self) -> tuple[int, Overrides]:
    """The number of a new trial, counted from 0, and its overrides."""
    number = self._next
    self.study.sampler = _sampler(self._settings, number)
    trial = self.study.ask(self._distributions)
    trial.set_user_attr(_NUMBER, number)
    self._live[number] = _Live(trial)
    self._next += 1
    return number, {key: _inward(kind, trial.params[key]) for key, kind in self._space.items()}

  def report(self, number: int, step: int, value: float):
    """Hears the value of a live trial at a training step; a step heard before changes nothing."""
    live = self._of(number)
    if step in live.steps:
      return
    live.steps.add(step)
    live.finite = math.isfinite(value)
    if live.finite:  # what is not stays out of the study, where it would distort others' ranks
      live.trial.report(value, step)

  def should_stop(self, number: int) -> bool:
    """Whether a live trial is hopeless by what it reported; never once it is at its last step."""
    live = self._of(number)
    if self._settings.pruner == "none" or not live.steps:
      return False
    if max(live.steps) >= self._settings.max_resource:
      return False
    return not live.finite or live.trial.should_prune()

  def tell(self, number: int, value: float | None, state: Literal["done", "pruned", "failed"]):
    """Ends a live trial.

    Args:
      number: as `ask` gave it.
      value: the result of a trial that is done; one that is not finite makes it failed. Of a
        pruned trial, what it reported counts.
      state: how it ended.

    Raises:
      ValueError: the trial is not live, or is done without a value.
    """
    if state == "done" and value is None:
      raise ValueError(f"trial {number} is done without a value")
    self._end(number, *_outcome(state, value))

  def _end(self, number: int, state: TrialState, value: float | None):
    self.study.tell(self._of(number).trial, value, state=state)
    del self._live[number]

  def restore(self, trials: Iterable[Trial]):
    """Takes up a sweep where its ledger stands; before the first `ask`.

    What a storage holds already is not added again, and what is live there but not in the ledger
    is failed.

    Args:
      trials: in the order of the ledger.

    Raises:
      ConfigError: a trial lies outside the space.
    """
    stored = {}
    for frozen in self.study.get_trials(deepcopy=False):
      stored.setdefault(_key(frozen.user_attrs.get(_NUMBER), frozen.params), []).append(frozen)
    for past in trials:
      self._next = max(self._next, past.id + 1)
      params = self._params(past)
      twins = stored.pop(_key(past.id, params), [])
      state, value = _outcome(past.state, past.value)
      ended = [twin for twin in twins if twin.state == state and state.is_finished()]
      if not any(value is None or twin.value == value for twin in ended):
        self._play_back(past, params, twins)
    told = {live.trial.number for live in self._live.values()}
    for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
      if frozen.number not in told:
        self.study.tell(frozen.number, state=TrialState.FAIL)

  def _play_back(self, past: Trial, params: dict[str, Any], twins: list[optuna.trial.FrozenTrial]):
    running = [twin for twin in twins if twin.state == TrialState.RUNNING]
    # The first trial of a study is drawn without the sampler's own state.
    first = not self.study.get_trials(deepcopy=False)
    replayed = not (running or first) and self._settings.sampler in _REPLAYED
    if not running:
      self.study.add_trial(
        optuna.trial.create_trial(
          state=TrialState.RUNNING,
          params=params,
          distributions=self._distributions,
          user_attrs={_NUMBER: past.id},
        )
      )
      running = self.study.get_trials(deepcopy=False)[-1:]
    self.study.sampler = (
      _sampler(self._settings, past.id) if replayed else optuna.samplers.RandomSampler()
    )
    # `Study.ask` would do the same to a queued trial, but cannot take up a running one.
    trial = optuna.Trial(self.study, running[0]._trial_id)
    if replayed:
      _ = trial.relative_params  # asks the sampler, whose answer the ledger replaces
    self._live[past.id] = _Live(trial, steps=set(running[0].intermediate_values))
    for step, value in past.curve:
      self.report(past.id, step, value)
      self.should_stop(past.id)  # which records the rungs that it has reached
    state, value = _outcome(past.state, past.value)
    if state.is_finished():
      self._end(past.id, state, value)

  def _params(self, past: Trial) -> dict[str, Any]:
    """The overrides of a trial as Optuna's parameters."""
    params = {}
    for key in self._space | past.overrides:
      if key not in self._space or key not in past.overrides:
        misfit = f"{'sets' if key in past.overrides else 'does not set'} {key}"
      elif not _contains(self._space[key], past.overrides[key]):
        misfit = f"has {key}={past.overrides[key]!r}, outside {self._space[key]!r}"
      else:
        params[key] = _outward(self._space[key], past.overrides[key])
        continue
      raise ConfigError(
        f"the space has changed: trial {past.id} {misfit}",
        kept="the sweep is as it was",
        do="restore the space, or start another sweep in another --workdir",
      )
    return params

  def _of(self, number: int) -> _Live:
    if number not in self._live:
      raise ValueError(f"trial {number} is not live")
    return self._live[number]


def importances(trials: Iterable[Trial]) -> dict[str, float]:
  """Which share of the results' variance each key explains, by fANOVA (Hutter et al. 2014).

  Args:
    trials: of a search or of any sweep; those that are done with a finite value count.

  Returns:
    Keys with more than one value to shares that sum to 1, the greatest first; nothing where
    results do not differ. A key that some trials do not set has its absence as one more value.
  """
  done = [t for t in trials if t.state == "done" and t.finite]
  if len({t.value for t in done}) < 2:
    return {}
  columns, kinds = {}, {}
  for key in dict.fromkeys(key for t in done for key in t.overrides):
    column = _column([t.setting(key) for t in done])
    if len(set(column)) < 2:
      continue
    columns[key] = column
    if isinstance(column[0], str):
      kinds[key] = CategoricalDistribution(sorted(set(column)))
    else:
      kinds[key] = FloatDistribution(min(column), max(column))
  if not kinds:
    return {}
  study = optuna.create_study()
  for row, t in enumerate(done):
    params = {key: column[row] for key, column in columns.items()}
    study.add_trial(
      optuna.trial.create_trial(params=params, distributions=kinds, value=float(t.value))
    )
  shares = optuna.importance.get_param_importances(
    study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
  )
  return {key: float(share) for key, share in shares.items()}


def _column(values: list[Any]) -> list[float] | list[str]:
  """A key's values as numbers where all are, else as text."""
  if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
    return [text(v) for v in values]
  if min(values) > 0 and max(values) >= _DECADE * min(values):
    return [math.log(v) for v in values]
  return [float(v) for v in values]


def _study(storage: str, name: str, settings: Settings) -> optuna.Study:
  try:
    study = optuna.create_study(
      storage=_storage(storage),
      study_name=name,
      pruner=_pruner(settings),
      direction=_DIRECTIONS[settings.direction],
      load_if_exists=True,
    )
  except (
    OSError,
    ImportError,
    RuntimeError,
    sqlalchemy.exc.SQLAlchemyError,
    optuna.exceptions.OptunaError,
  ) as error:
    reason = str(error).splitlines()[0] if str(error) else ""
    raise StorageError(
      f"the study's storage cannot be opened ({type(error).__name__}: {_without_password(reason)})",
      where=_without_password(storage),
      do="mend the storage, or leave it out: the ledger needs none",
    ) from None
  if study.direction.name.lower() != _DIRECTIONS[settings.direction]:
    raise ConfigError(
      f"the study {name!r} seeks another than the {settings.direction} value",
      where=_without_password(storage),
      kept="the study is as it was",
      do="give the same direction, or another storage",
    )
  return study


def _storage(place: str) -> optuna.storages.BaseStorage | None:
  if not place:
    return None
  if place.endswith(".journal"):
    backend = optuna.storages.journal.JournalFileBackend(place)
    return optuna.storages.JournalStorage(backend)
  if "://" in place:
    return optuna.storages.RDBStorage(place)
  raise ConfigError(
    f"{place!r} is no storage",
    do="give a URL such as sqlite:///study.db, or a path that ends in .journal",
  )


def _without_password(line: str) -> str:
  return re.sub(r"://[^@/\s]*@", "://***@", line)


def _sampler(settings: Settings, number: int) -> optuna.samplers.BaseSampler:
  """The sampler for one trial."""
  seed = Random(f"{settings.seed} {number}").getrandbits(32)
  alone = optuna.samplers.RandomSampler(seed=seed)  # for what the others draw key by key
  with warnings.catch_warnings():
    # That an interface may change is for requirements.txt to know, not for who runs a sweep.
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    match settings.sampler:
      case "tpe":
        return optuna.samplers.TPESampler(
          n_startup_trials=settings.startup, multivariate=True, constant_liar=True, seed=seed
        )
      case "cmaes":
        return optuna.samplers.CmaEsSampler(
          n_startup_trials=settings.startup,
          independent_sampler=alone,
          warn_independent_sampling=False,
          seed=seed,
        )
      case "qmc":
        # One scrambling for all trials: they are points of one sequence.
        return optuna.samplers.QMCSampler(
          scramble=True,
          seed=settings.seed,
          independent_sampler=alone,
          warn_independent_sampling=False,
        )
      case "random":
        return alone


def _pruner(settings: Settings) -> optuna.pruners.BasePruner:
  match settings.pruner:
    case "none":
      return optuna.pruners.NopPruner()
    case "median":
      return optuna.pruners.MedianPruner(
        n_startup_trials=settings.startup, n_warmup_steps=settings.first_rung
      )
    case "asha":
      return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=settings.first_rung, reduction_factor=_REDUCTION
      )
    case "hyperband":
      return optuna.pruners.HyperbandPruner(
        min_resource=settings.first_rung,
        max_resource=settings.max_resource,
        reduction_factor=_REDUCTION,
      )


def _distribution(kind: Distribution) -> optuna.distributions.BaseDistribution:
  match kind:
    case Real(low, high, log):
      return FloatDistribution(low, high, log=log)
    case Integers(low, high, log):
      return IntDistribution(low, high, log=log)
    case Choice(values):
      return CategoricalDistribution(_labels(values))


def _labels(values: tuple[Any, ...]) -> tuple[Any, ...]:
  """What stands for each value in a study, which holds scalars and takes True for 1."""
  scalar = all(v is None or isinstance(v, int | float | str) for v in values)
  if scalar and len(set(values)) == len(values):
    return values
  return tuple(json.dumps(v) for v in values)


def _contains(kind: Distribution, value: Any) -> bool:
  if isinstance(kind, Choice):
    return identity(value) in map(identity, kind.values)
  number = isinstance(value, int if isinstance(kind, Integers) else int | float)
  return number and not isinstance(value, bool) and kind.low <= value <= kind.high


def _outward(kind: Distribution, value: Any) -> Any:
  if isinstance(kind, Choice):
    return _labels(kind.values)[[identity(v) for v in kind.values].index(identity(value))]
  return float(value) if isinstance(kind, Real) else value


def _inward(kind: Distribution, param: Any) -> Any:
  return kind.values[_labels(kind.values).index(param)] if isinstance(kind, Choice) else param


def _outcome(state: str, value: float | None) -> tuple[TrialState, float | None]:
  """State and value as a study can hold them."""
  if state != "done":
    return _STATES[state], None
  if value is None or not math.isfinite(value):
    return TrialState.FAIL, None
  return TrialState.COMPLETE, value


def _key(number: int | None, params: Mapping[str, Any]) -> Any:
  return number, identity(dict(params))
