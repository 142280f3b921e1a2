"""`launch.py reproduce`: runs what a claim needs, and says whether it holds."""

import dataclasses
import hashlib
import json
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from report.trials import Trial
from reproduction import claims, records
from reproduction.claims import Claim, Verdict
from reproduction.tables import number
from sweeps import run
from sweeps import space as spaces
from sweeps.controller import Limits
from sweeps.engines import Engine
from sweeps.ledger import Ledger
from training import catalogue, config
from training.config import UNTOUCHED
from training.errors import ConfigError, DataError

ROOT = pathlib.Path(__file__).parent.parent


def reproduce(
  path: str,
  variant: str,
  *,
  seeds: int,
  workdir: str,
  engine: Callable[[pathlib.Path, int], Engine],
  limits: Limits,
  command: list[str],
  record: bool = True,
) -> list[tuple[Claim, Verdict]]:
  """Trains what the claims of an experiment lack, judges them, and writes the record.

  Args:
    path: of the experiment file.
    variant: of its config.
    seeds: of every run; 0 for as many as each claim says.
    workdir: where reproductions lie, each experiment and variant in a sweep of its own.
    engine: `(directory, trials left) -> engine` that runs the trials.
    limits: how to run them.
    command: what the user typed, for the record.
    record: write docs/results/<family>/<experiment>.<variant>.json.

  Returns:
    The claims with their verdicts.

  Raises:
    ConfigError: the experiment claims nothing for this variant, or what it claims is wrong.
    DataError: its data is not here.
    Interrupted, SweepError: see `sweeps.controller.Controller.run`.
  """
  module = config.experiment(path)
  listed = claims.read(module, variant)
  if seeds:
    listed = [dataclasses.replace(claim, seeds=seeds) for claim in listed]
  if not listed:
    raise ConfigError(
      f"{path} claims nothing for the variant {variant}", kept=UNTOUCHED, do="add to its CLAIMS"
    )
  base = config.load(f"{path}:{variant}").to_dict()
  plan = run.Plan(
    config=base, title=f"{path}:{variant} claims", trials=tuple(_trials(listed)), ranked=False
  )
  place = _place(workdir, path, variant, base)
  found = run.sweep(plan, str(place), engine=engine, limits=limits, command=command)
  ledger = Ledger(place)
  done = [trial for trial in found if trial.state == "done"]
  if not done:
    return [(claim, Verdict("NOT RUN", "no trial was finished")) for claim in listed]
  environment = ledger.workdir(done[0].id) / "environment.json"
  fresh = records.record(
    module,
    variant,
    listed,
    _evaluations(ledger, done),
    environment={**json.loads(environment.read_text("utf-8")), "command": shlex.join(command)},
    seconds=sum(trial.seconds for trial in found),
  )
  if record:
    print(f"record: {records.write(ROOT, fresh)}", flush=True)
  return [
    (records.claim_of(entry), claims.judge(records.claim_of(entry), records.runs_of(entry)))
    for entry in fresh["claims"]
  ]


def reproduce_all(variant: str, **options) -> list[tuple[str, Claim, Verdict]]:
  """The claims of every experiment, with their verdicts; `options` as for `reproduce`.

  One whose data is not here is NOT RUN and does not stop the others.
  """
  rows = []
  for entry in catalogue.entries():
    path = str(entry.path)
    listed = claims.read(config.experiment(path), variant)
    try:
      judged = reproduce(path, variant, **options) if listed else []
    except DataError as error:
      judged = [(claim, Verdict("NOT RUN", str(error))) for claim in listed]
    rows += [(path, claim, verdict) for claim, verdict in judged]
  return rows


def show(rows: Sequence[tuple[str, Claim, Verdict]]):
  """Prints ours, the paper's and the verdict of every claim."""
  for path, claim, verdict in rows:
    print(f"\n{verdict.outcome}  {path}: {claim.statement or claim.name}")
    for summary in (*verdict.settings, *verdict.rivals):
      measured = ", ".join(f"{name} {number(found)}" for name, found in summary.metrics.items())
      print(f"  {claims.label(summary.overrides) or 'as it stands'}: {measured}")
    print(f"  the paper: {claim.published or 'gives no figure on this data'} ({claim.paper})")
    print(f"  {verdict.why}", flush=True)


def _trials(listed: Sequence[Claim]) -> list[spaces.Overrides]:
  """Every setting and rival of the claims, with every seed, once."""
  return spaces.concrete(
    {**overrides, "seed": seed}
    for claim in listed
    for overrides in claims.needed(claim)
    for seed in range(claim.seeds)
  )


def _place(workdir: str, path: str, variant: str, base: Mapping[str, Any]) -> pathlib.Path:
  """The directory of a reproduction; a changed config gets another, so nothing old is mixed in."""
  file = pathlib.Path(path)
  mark = hashlib.sha256(json.dumps(base, sort_keys=True).encode()).hexdigest()[:8]
  return pathlib.Path(workdir) / file.parent.name / f"{file.stem}.{variant}.{mark}"


def _evaluations(ledger: Ledger, done: Sequence[Trial]) -> dict[str, dict[int, dict[str, Any]]]:
  """The evaluation.json of every trial, by its setting and seed."""
  evaluations: dict[str, dict[int, dict[str, Any]]] = {}
  for trial in done:
    overrides = {key: value for key, value in trial.overrides.items() if key != "seed"}
    text = (ledger.workdir(trial.id) / "evaluation.json").read_text(encoding="utf-8")
    of_seed = evaluations.setdefault(claims.key(overrides), {})
    of_seed[trial.overrides["seed"]] = json.loads(text)
  return evaluations
