"""`launch.py sweep`: from what an experiment declares to a ranked table."""

import dataclasses
import inspect
import json
import pathlib
import shlex
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from report.trials import Trial
from sweeps import display
from sweeps import space as spaces
from sweeps.controller import Controller, Limits
from sweeps.engines import Engine
from sweeps.ledger import LIVE, Entry, Ledger
from training import config
from training import step as steps
from training import workdir as workdirs
from training.build import Experiment, build, reading
from training.config import UNTOUCHED, nearest
from training.errors import ConfigError
from training.initial import measured
from training.loop import Stop

LAUNCH = pathlib.Path(__file__).parent.parent / "launch.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What a sweep shall run; its identity.

  Attributes:
    config: what every trial starts from.
    title: the experiment and what of it is swept.
    trials: overrides of each trial; empty where a search proposes them.
    space: what a search draws from; empty for none.
    search: settings of `sweeps.search.Settings`.
    wanted: how many trials a search makes in all.
    metric: that ranks trials, on the validation split; empty for `training.best`.
    direction: whether the least or the greatest of it is the best; empty for `training.best_is`.
    ranked: whether who asked wants to see which trial is best.
  """

  config: Mapping[str, Any]
  title: str
  trials: tuple[spaces.Overrides, ...] = ()
  space: Mapping[str, spaces.Distribution] = dataclasses.field(default_factory=dict)
  search: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  wanted: int = 0
  metric: str = ""
  direction: str = ""
  ranked: bool = True


def declared(module: types.ModuleType, kind: str, name: str) -> Any:
  """What an experiment declares as `kind()` or `kind_NAME()`, kind being "sweep" or "space".

  Raises:
    ConfigError: it declares no such thing, or what it declares is wrong.
  """
  found = {
    attribute.removeprefix(kind).removeprefix("_"): function
    for attribute, function in vars(module).items()
    if inspect.isfunction(function) and (attribute == kind or attribute.startswith(f"{kind}_"))
  }
  if name not in found:
    said = f"{kind}_{name}()" if name else f"{kind}()"
    names = [key for key in found if key]
    raise ConfigError(
      f"{module.__file__} declares no {said}{nearest(name, names) if name else ''}",
      kept=UNTOUCHED,
      do=f"use --{kind}={'|'.join(names)}" if names else "see CONTRIBUTING.md",
    )
  try:
    value = found[name]()
    return spaces.concrete(value) if kind == "sweep" else spaces.distributions(value)
  except ValueError as error:
    raise ConfigError(
      f"{kind}{'_' * bool(name)}{name}() of {module.__file__}: {error}",
      kept=UNTOUCHED,
      do="mend the experiment",
    ) from None


def plan(
  module: types.ModuleType,
  base: config.ml_collections.ConfigDict,
  *,
  title: str,
  sweep: str = "",
  seeds: int = 0,
  space: str | None = None,
  search: Mapping[str, Any] = types.MappingProxyType({}),
  trials: int = 20,
  metric: str = "",
  direction: str = "",
) -> Plan:
  """The plan of a sweep that an experiment declares.

  Args:
    module: the experiment.
    base: its config, with what the user overrides.
    title: of the report.
    sweep: the name of the sweep, empty for `sweep()`.
    seeds: every trial with so many seeds; 0 leaves them as they are.
    space: the name of the space that a search draws from, empty for `space()`; None for no search.
    search: its settings.
    trials: how many it makes in all.
    metric: see `Plan`.
    direction: see `Plan`.

  Raises:
    ConfigError: the experiment does not declare it.
  """
  shown = {"config": base.to_dict(), "metric": metric, "direction": direction}
  if space is not None:
    if trials < 1:
      raise ConfigError(f"--trials={trials} is not at least 1", kept=UNTOUCHED, do="ask for more")
    found = declared(module, "space", space)
    name = f"{title} space{'_' * bool(space)}{space}"
    return Plan(title=name, space=found, search=search, wanted=trials, **shown)
  found = declared(module, "sweep", sweep)
  if seeds:
    found = spaces.product(found, spaces.grid({"seed": range(seeds)}))
  name = f"{title} sweep{'_' * bool(sweep)}{sweep}"
  return Plan(title=name, trials=tuple(found), **shown)


class Trials:
  """The experiments of trials, built once each without touching a device."""

  def __init__(self, base: Mapping[str, Any]):
    self._base = config.ml_collections.ConfigDict(base)
    self._known: dict[str, tuple[str, int]] = {}

  def experiment(self, overrides: spaces.Overrides) -> Experiment:
    assignments = [(key, repr(value)) for key, value in overrides.items()]
    return build(config.override(self._base, assignments))

  def structure(self, entry: Entry) -> str:
    """What trials must have in common to share a program; "" where the trial cannot be built."""
    return self._facts(entry)[0]

  def steps(self, entry: Entry) -> int:
    """Training steps of all stages together."""
    return self._facts(entry)[1]

  def _facts(self, entry: Entry) -> tuple[str, int]:
    key = repr(sorted(entry.overrides.items()))
    if key not in self._known:
      try:
        experiment = self.experiment(entry.overrides)
        self._known[key] = experiment.structure, experiment.ends[-1]
      except ConfigError:  # its worker will say so
        self._known[key] = "", 0
    return self._known[key]


def sweep(
  plan: Plan,
  path: str,
  *,
  engine: Callable[[pathlib.Path, int], Engine],
  limits: Limits,
  command: list[str],
  storage: str = "",
  track: Sequence[str] = (),
  retry_failed: bool = False,
) -> list[Trial]:
  """Runs what a plan lacks in a directory, and reports all of it.

  Args:
    plan: what shall be run.
    path: the sweep's directory; what is there is taken up.
    engine: `(directory, trials left) -> engine` that runs the jobs, made once the plan is known
      to be good.
    limits: how to run it.
    command: what the user typed, for the record.
    storage: where Optuna keeps its study for others to watch; empty for memory.
    track: trackers that log every trial.
    retry_failed: failed trials and those that took too long are tried again.

  Returns:
    All trials.

  Raises:
    ConfigError: the plan cannot be run, or the directory holds another sweep.
    Interrupted, SweepError: see `Controller.run`.
  """
  trials = Trials(plan.config)
  first = trials.experiment(plan.trials[0] if plan.trials else {})
  for overrides in plan.trials:
    trials.experiment(overrides)  # all of them, before any is run
  metric, split, direction = _ranking(plan, first)
  asked = {
    "config": plan.config,
    "title": plan.title,
    "space": {key: repr(kind) for key, kind in plan.space.items()},
    "search": dict(plan.search),
    "metric": metric,
    "split": split,
    "direction": direction,
  }
  with Stop() as stop:
    lock, ledger = _claimed(
      path, asked, population=limits.population, command=command, track=list(track)
    )
    try:
      _add(ledger, plan, retry_failed)
      search = _search(plan, first, direction, ledger, storage)
      _announce(plan, ledger, trials, limits, asked)
      entries = ledger.entries()
      left = plan.wanted - len(entries) if plan.space else 0
      left += sum(entry.state in LIVE for entry in entries)
      controller = Controller(
        ledger,
        engine(ledger.path, left),
        limits,
        command=lambda job: worker(ledger.path, job),
        structure=trials.structure,
        metric=metric,
        split=split,
        total=trials.steps,
        search=search,
        wanted=plan.wanted,
      )
      live = display.Live(metric)
      try:
        controller.run(live, stop=stop)
      finally:
        live.close()
        found = controller.trials()
        _report(ledger, found, command, ranked=plan.ranked)
    finally:
      lock.close()
  return found


def join(path: str, *, engine: Callable[[pathlib.Path, int], Engine], limits: Limits):
  """Works on a sweep that another machine, sharing the directory, has begun.

  Raises:
    ConfigError: there is no sweep.
    Interrupted, SweepError: see `Controller.run`.
  """
  ledger = Ledger(path)
  asked = ledger.asked()
  if asked is None:
    raise ConfigError(f"{path} holds no sweep", do="give the --workdir of one that was begun")
  trials = Trials(asked["config"])
  with Stop() as stop:
    left = sum(entry.state in LIVE for entry in ledger.entries())
    controller = Controller(
      ledger,
      engine(ledger.path, left),
      limits,
      command=lambda job: worker(ledger.path, job),
      structure=trials.structure,
      metric=asked["metric"],
      split=asked["split"],
      total=trials.steps,
      helping=True,
    )
    live = display.Live(asked["metric"])
    try:
      controller.run(live, stop=stop)
    finally:
      live.close()


def worker(path: pathlib.Path, job: str) -> list[str]:
  """The command line of a worker."""
  return [sys.executable, str(LAUNCH), "work", f"--workdir={path}", f"--job={job}"]


def _ranking(plan: Plan, experiment: Experiment) -> tuple[str, str, str]:
  """(metric, split, direction) that rank trials: never the test split."""
  stage = experiment.stages[-1]
  metric, direction = plan.metric or stage.training.best, plan.direction
  names = measured(stage)
  if metric not in names:
    raise ConfigError(
      f"{metric!r} is no metric of an evaluation{nearest(metric, names)}",
      kept=UNTOUCHED,
      do=f"choose one of {', '.join(sorted(names))}",
    )
  if not direction:
    if metric != stage.training.best:
      raise ConfigError(
        f"whether less or more {metric} is better is not known",
        kept=UNTOUCHED,
        do="add --direction=least or --direction=greatest",
      )
    direction = stage.training.best_is
  with reading(stage.source):
    if len(stage.source.split("validation")):
      return metric, "validation", direction
  if plan.space or plan.metric:
    raise ConfigError(
      "trials are ranked on the validation split, and this config has none",
      kept=UNTOUCHED,
      do="set --config.data.validation=N",
    )
  phases = stage.program.phases
  return steps.label(phases, phases[-1], "loss"), "train", "least"


def _claimed(path: str, asked: dict[str, Any], **manner: Any):
  """(lock, ledger) of the directory.

  Raises:
    StorageError: another process holds it, or it cannot be written.
    ConfigError: it holds another sweep, or a run.
  """
  if (pathlib.Path(path) / "config.json").exists():
    raise ConfigError(f"{path} is the workdir of a run", do="choose another --workdir")
  lock = workdirs.Workdir(path)
  try:
    ledger = Ledger(path)
    before, fresh = ledger.asked(), json.loads(json.dumps(asked))
    if before is not None:
      old = {key: before[key] for key in fresh}
      lines = workdirs.differences(workdirs.flat(old), workdirs.flat(fresh))
      if lines:
        raise ConfigError(
          f"another sweep was begun here: {', '.join(lines[:4])}",
          where=str(ledger.path / "sweep.json"),
          kept="that sweep is as it was",
          do="give the same command, or another --workdir",
        )
    ledger.ask({**fresh, **manner})  # how it is run may change
  except BaseException:
    lock.close()
    raise
  return lock, ledger


def _add(ledger: Ledger, plan: Plan, retry_failed: bool):
  """Writes down the trials that are not there yet: totals count what was asked in all."""
  entries = ledger.entries()
  known = {spaces.identity(entry.overrides) for entry in entries}
  for overrides in plan.trials:
    if spaces.identity(overrides) not in known:
      ledger.add(overrides)
  if retry_failed:
    for entry in entries:
      if entry.state in ("failed", "timeout"):
        ledger.forget_stop(entry.id)
        ledger.write(dataclasses.replace(entry, state="interrupted", attempts=0))


def _search(plan: Plan, experiment: Experiment, direction: str, ledger: Ledger, storage: str):
  if not plan.space:
    return None
  from sweeps.search import Search, Settings  # Optuna takes a fifth of a second

  training = experiment.stages[-1].training
  given = {
    "max_resource": experiment.ends[-1],
    "report_every": training.eval_every or training.steps,
    "direction": direction,
  }
  settings = Settings(**config.arguments(Settings, plan.search, where="search", given=given))
  return Search(plan.space, settings, storage=storage, name=ledger.path.name)


def _announce(plan: Plan, ledger: Ledger, trials: Trials, limits: Limits, asked):
  """Prints what will be run, before it is."""
  entries = ledger.entries()
  ended = sum(entry.state not in LIVE for entry in entries)
  total = max(len(entries), plan.wanted)
  print(f"sweep of {plan.title}: {total} trials, {ended} of them ended, in {ledger.path}")
  if plan.space:
    for key, kind in plan.space.items():
      print(f"  {key}: {kind}")
    print(f"  proposed by {plan.search}")
  else:
    programs = {trials.structure(entry) for entry in entries}
    print(f"  {len(programs)} program(s) to compile, population {limits.population}")
  print(f"  ranked by {asked['direction']} {asked['metric']} on {asked['split']}", flush=True)


def _report(ledger: Ledger, found: list[Trial], command: list[str], *, ranked: bool):
  """The ranked table on the terminal, and the report, figures and CSV in the directory."""
  from rich.console import Console

  from report import sweep as reports
  from sweeps.search import importances

  asked = ledger.asked()
  shown = {"metric": asked["metric"], "direction": asked["direction"]}
  if ranked:
    Console().print(display.terminal_table(found, **shown))
  environments = [ledger.workdir(trial.id) / "environment.json" for trial in found]
  environment = next((json.loads(p.read_text()) for p in environments if p.exists()), {})
  path = reports.write(
    ledger.path,
    **shown,
    title=asked["title"],
    trials=found,
    importances=importances(found),
    command=shlex.join(command),
    environment={key: value for key, value in environment.items() if key != "command"},
    split=asked["split"],
  )
  print(f"report: {path}", flush=True)
