"""What an experiment claims, and whether its runs bear it out.

An experiment's CLAIMS is a list of plain dicts, each the fields of a `Claim`; how its relation is
written stands in reproduction/relation.py.
"""

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, NoReturn

import numpy as np

from reproduction import statistics
from reproduction.relation import Comparison, parse
from reproduction.statistics import Interval
from sweeps import space
from training.config import UNTOUCHED, arguments, nearest
from training.errors import ConfigError

Overrides = Mapping[str, Any]  # flat: dotted keys of the config to values
# key(overrides) -> seed -> metric -> value
Runs = Mapping[str, Mapping[int, Mapping[str, float]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
  """One element of CLAIMS.

  Attributes:
    name: by which the records know it.
    paper: citation, with the table or figure.
    metric: the number of evaluation.json that the tables show.
    split: on which it is measured.
    relation: what must hold, see reproduction/relation.py; empty where a number is reported and
      nothing asserted.
    statement: the claim in a sentence, for the tables; empty where its name says enough.
    published: the figure as the paper prints it; empty where the paper gives none.
    settings: flat override dicts, each of which must satisfy the relation, or the name of one of
      the experiment's sweep functions. The default is the config as it is.
    rivals: whom `rival` means, likewise. Every setting is compared with every rival but itself.
    seeds: runs of each setting and rival, with `config.seed` from 0.
    interval: of the mean over seeds, see `reproduction.statistics.interval`.
    variants: of the config, for which it is claimed.
    cost: how many runs of what length on which machine.
  """

  name: str
  paper: str
  metric: str
  split: Literal["test", "validation"]
  relation: str
  statement: str = ""
  published: str = ""
  settings: str | tuple[dict[str, Any], ...] = ({},)
  rivals: str | tuple[dict[str, Any], ...] = ()
  seeds: Annotated[int, "[2, inf)"] = 5
  interval: statistics.Kind = "t"
  variants: tuple[Literal["paper", "small", "smoke"], ...] = ("paper", "small")
  cost: str = ""


class Difference(NamedTuple):
  """A comparison at one setting, against one rival where it names one, over all seeds."""

  text: str
  setting: Overrides
  rival: Overrides | None
  interval: Interval

  @property
  def rank(self) -> tuple[bool, float]:
    """Orders differences of any unit: the distance from 0 in widths of the interval."""
    mean, low, high, *_ = self.interval
    if not math.isfinite(mean):
      return False, -math.inf
    width = mean - low if mean > 0 else high - mean
    if width == 0:
      return mean > 0, math.copysign(math.inf, mean) if mean else 0.0
    return low > 0, mean / width

  def __str__(self) -> str:
    against = "" if self.rival is None else f" against {label(self.rival)}"
    at = f" at {label(self.setting)}" if self.setting else ""
    mean, low, high, *_ = self.interval
    ends = f" [{low:.3g}, {high:.3g}]" if math.isfinite(high - low) else ""
    return f"{self.text}{at}{against}: difference {mean:.3g}{ends}"


class Summary(NamedTuple):
  """The runs of one setting or rival.

  Attributes:
    overrides: the setting.
    metrics: the metrics that the claim names, the claimed one first.
    weakest: the comparison that is nearest to failing here, or failing most; None for a rival.
  """

  overrides: Overrides
  metrics: dict[str, Interval]
  weakest: Difference | None


class Verdict(NamedTuple):
  """What the runs say to a claim.

  Attributes:
    outcome: "MEASURED" where the claim asserts nothing.
    why: the reason, one sentence.
    settings: one summary a setting; none where runs are missing.
    rivals: one summary for each rival that is no setting too.
  """

  outcome: Literal["PASS", "FAIL", "NOT RUN", "MEASURED"]
  why: str
  settings: tuple[Summary, ...] = ()
  rivals: tuple[Summary, ...] = ()


def read(module: types.ModuleType, variant: str) -> list[Claim]:
  """The claims of an experiment for one of its variants, checked, their sweeps called.

  Returns:
    claims whose settings and rivals are tuples of override dicts.

  Raises:
    ConfigError: an unknown field, a wrong type, a relation that is none, no such sweep.
  """
  listed = module.CLAIMS if hasattr(module, "CLAIMS") else []
  found = [_claim(module, f"CLAIMS.{i}", spec) for i, spec in enumerate(listed)]
  names = [claim.name for claim in found]
  if len(set(names)) < len(names):
    _refuse(f"CLAIMS has two claims of one name among {', '.join(names)}", module)
  return [claim for claim in found if variant in claim.variants]


def _claim(module, where: str, spec) -> Claim:
  if not isinstance(spec, Mapping):
    _refuse(f"{where} is {spec!r}, not a dict", module)
  try:
    claim = Claim(**arguments(Claim, spec, where=where))
    comparisons = parse(claim.relation)
  except ConfigError as error:
    _refuse(error.parts[0].removeprefix("config."), module)
  claim = dataclasses.replace(
    claim,
    settings=_overrides(claim.settings, f"{where}.settings", module),
    rivals=_overrides(claim.rivals, f"{where}.rivals", module),
  )
  compared = any(comparison.with_rival for comparison in comparisons)
  if not claim.settings:
    _refuse(f"{where}.settings names no setting, so nothing is claimed", module)
  if compared != bool(claim.rivals) and claim.relation:
    said, other = ("rivals", "relation") if claim.rivals else ("relation", "rivals")
    _refuse(f"{where}.{said} speaks of rivals, {where}.{other} of none", module)
  for setting in claim.settings:
    if compared and not _others(claim, setting):
      _refuse(f"{where}: {label(setting)} is its own only rival", module)
  return claim


def _overrides(field, where: str, module) -> tuple[Overrides, ...]:
  """Override dicts, distinct, from themselves or from the sweep function that is named."""
  if isinstance(field, str):
    sweeps = [name for name in vars(module) if name == "sweep" or name.startswith("sweep_")]
    if field not in sweeps:
      _refuse(f"{where}: there is no function {field}(){nearest(field, sweeps)}", module)
    field = getattr(module, field)()
  try:
    listed = space.concrete(field)
  except ValueError as error:
    _refuse(f"{where}: {error}", module)
  for overrides in listed:
    if "seed" in overrides:
      _refuse(f"{where}: {label(overrides)} sets the seed, which the claim's seeds do", module)
  return tuple(listed)


def _refuse(what: str, module: types.ModuleType) -> NoReturn:
  known = ", ".join(field.name for field in dataclasses.fields(Claim))
  raise ConfigError(
    what, where=module.__file__, kept=UNTOUCHED, do=f"mend it; a claim's fields are {known}"
  ) from None


def key(overrides: Overrides) -> str:
  """The same text for overrides of the same values: 1 is 1.0, a tuple a list, order is nothing."""
  return json.dumps(_plain(overrides), sort_keys=True)


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {name: _plain(inner) for name, inner in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(inner) for inner in value]
  return int(value) if isinstance(value, float) and value.is_integer() else value


def _others(claim: Claim, setting: Overrides) -> list[Overrides]:
  return [rival for rival in claim.rivals if key(rival) != key(setting)]


def label(overrides: Overrides) -> str:
  """Overrides in words: "task.beta=4, model.latents=8"; a tuple as the list that a record has."""
  recorded = json.loads(json.dumps(overrides))
  return ", ".join(f"{name}={value}" for name, value in recorded.items()) or "the config as it is"


def needed(claim: Claim) -> list[Overrides]:
  """What must be run, once with each seed: the settings, then the rivals that are none of them."""
  return space.concrete((*claim.settings, *claim.rivals))


def judge(claim: Claim, runs: Runs) -> Verdict:
  """What the runs say to a claim.

  Every comparison is judged at every setting, against every rival: the 95 % interval of its mean
  difference, paired by seed, must lie wholly above 0. The claim passes when all of them do, so its
  chance to pass by luck is at most that of its least lucky comparison: an intersection-union test,
  which needs no correction for how many comparisons there are.

  Args:
    claim: as `read` gives it.
    runs: of the claim's split; seeds beyond the claim's are left aside.

  Raises:
    ConfigError: the runs measured no metric of a name that the claim reads.
  """
  wanted = needed(claim)
  names = [key(overrides) for overrides in wanted]
  present = sum(
    name in runs and seed in runs[name] for name in names for seed in range(claim.seeds)
  )
  total = len(wanted) * claim.seeds
  if present < total:
    return Verdict("NOT RUN", f"{total - present} of {total} runs are missing")
  comparisons = parse(claim.relation)
  read_by = dict.fromkeys(name for comparison in comparisons for name in comparison.names)
  own = dict.fromkeys((claim.metric, *(n for n in read_by if not n.startswith("rival."))))
  # Without a relation nothing is asserted of the rivals; they are shown by the same metric.
  rivals = [n.removeprefix("rival.") for n in read_by if n.startswith("rival.")] or [claim.metric]
  settings = []
  for setting in claim.settings:
    values = _values(claim, runs, setting, own)
    found = [
      Difference(c.text, setting, rival, statistics.interval(_difference(c, at), claim.interval))
      for c in comparisons
      for rival, at in _pairs(claim, runs, setting, values, rivals if c.with_rival else None)
    ]
    settings.append(
      _summary(claim, setting, values, min(found, key=lambda d: d.rank, default=None))
    )
  against = tuple(
    _summary(claim, rival, _values(claim, runs, rival, rivals), None)
    for rival in wanted[len(claim.settings) :]
  )
  return Verdict(*_decide(claim, settings), tuple(settings), against)


def _values(claim: Claim, runs: Runs, overrides: Overrides, metrics) -> dict[str, np.ndarray]:
  """The metrics of one setting's runs, [seeds] each."""
  listed = [runs[key(overrides)][seed] for seed in range(claim.seeds)]
  for metric in metrics:
    for run in listed:
      if metric not in run:
        raise ConfigError(
          f"claim {claim.name!r} reads {metric!r}, which an evaluation of the {claim.split} split"
          f" does not measure{nearest(metric, run)}",
          kept="the runs are as they were",
          do=f"choose among {', '.join(run)}",
        )
  return {metric: np.array([run[metric] for run in listed], np.float64) for metric in metrics}


def _pairs(claim: Claim, runs: Runs, setting: Overrides, values, rivals: list[str] | None):
  """Yields (rival, values by name) for each comparison partner of a setting."""
  if rivals is None:
    yield None, values
    return
  for rival in _others(claim, setting):
    theirs = _values(claim, runs, rival, rivals)
    yield rival, {**values, **{f"rival.{metric}": v for metric, v in theirs.items()}}


def _difference(comparison: Comparison, values: Mapping[str, np.ndarray]) -> np.ndarray:
  with np.errstate(all="ignore"):  # what is not finite fails the claim, with its reason
    return comparison.difference(values)


def _summary(claim: Claim, overrides: Overrides, values, weakest: Difference | None) -> Summary:
  intervals = {metric: statistics.interval(v, claim.interval) for metric, v in values.items()}
  return Summary(overrides, intervals, weakest)


def _decide(claim: Claim, settings: list[Summary]) -> tuple[str, str]:
  """(outcome, why), from the summaries of all settings."""
  for summary in settings:
    for metric, found in summary.metrics.items():
      if not math.isfinite(found.mean):
        at = f" at {label(summary.overrides)}" if summary.overrides else ""
        return "FAIL", f"{metric} is not finite with every seed{at}"
  if settings[0].weakest is None:
    return "MEASURED", "reported; nothing is asserted"
  weakest = min((summary.weakest for summary in settings), key=lambda d: d.rank)
  mean, low, high, *_ = weakest.interval
  if not math.isfinite(mean):
    return "FAIL", f"not finite with every seed: {weakest}"
  if low > 0:
    return "PASS", f"weakest: {weakest}"
  if high < 0:
    return "FAIL", f"contradicted: {weakest}"
  return "FAIL", f"not decided by {claim.seeds} seed{'s' * (claim.seeds > 1)}: {weakest}"
