"""Records of reproduced claims: docs/results/<family>/<experiment>.<variant>.json, one a variant.

A record holds the numbers of every run and where they come from. The verdict in it is for readers:
tables judge the stored numbers again, and a record that no longer fits its experiment is stale.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

from reproduction import claims, statistics
from reproduction.claims import Claim, Runs
from training import config
from training.errors import ConfigError
from training.workdir import write_json

SCHEMA = 1
FOLDER = pathlib.Path("docs/results")

Record = dict[str, Any]
Evaluations = Mapping[str, Mapping[int, Mapping[str, Any]]]  # claims.key -> seed -> evaluation.json


def identity(path: pathlib.Path) -> str:
  """An experiment's path from the root: "experiments/<family>/<experiment>.py"."""
  return "/".join(path.parts[-3:])


def place(root: pathlib.Path, experiment: str, variant: str) -> pathlib.Path:
  """Where the record of an experiment's variant lies."""
  path = pathlib.Path(experiment)
  return root / FOLDER / path.parent.name / f"{path.stem}.{variant}.json"


def digest(module: types.ModuleType, variant: str) -> str:
  """SHA-256 (hex) of what a variant claims and runs: its config, claims, settings and rivals.

  The texts of a claim (statement, paper, published, cost) are left out, since no run depends on
  them, and so are its seeds: a record counts those it has.
  """
  texts = ("statement", "paper", "published", "cost", "seeds", "variants")
  listed = [dataclasses.asdict(claim) for claim in claims.read(module, variant)]
  claimed = [{k: v for k, v in claim.items() if k not in texts} for claim in listed]
  whole = [module.get_config(variant).to_dict(), claimed]
  return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def record(
  module: types.ModuleType,
  variant: str,
  judged: Sequence[Claim],
  evaluations: Evaluations,
  *,
  environment: Mapping[str, Any],
  seconds: float,
) -> Record:
  """The record of a reproduction.

  Args:
    module: the experiment.
    variant: of its config.
    judged: its claims as `claims.read` gives them, with as many seeds as were run.
    evaluations: the evaluation.json of every run, by `claims.key` of its overrides and by seed.
    environment: as in a run's environment.json, where `data` is the fingerprint of the data.
    seconds: of all runs together.

  Raises:
    ConfigError: a run measured no such split or metric.
  """
  return {
    "schema": SCHEMA,
    "experiment": identity(pathlib.Path(module.__file__)),
    "variant": variant,
    "digest": digest(module, variant),
    "command": environment["command"],
    "commit": environment["commit"],
    "python": environment["python"],
    "versions": environment["versions"],
    "devices": environment["devices"],
    "cores": environment["cores"],
    "host": environment["host"],
    "data": environment["data"],
    "date": environment["started"],
    "seconds": round(seconds, 1),
    "claims": [_claim(claim, evaluations) for claim in judged],
  }


def _claim(claim: Claim, evaluations: Evaluations) -> dict[str, Any]:
  listed = []
  for overrides in claims.needed(claim):
    name = claims.key(overrides)
    seeds = evaluations[name] if name in evaluations else {}
    found = [_run(claim, seed, seeds[seed]) for seed in sorted(seeds) if seed < claim.seeds]
    listed.append({"overrides": overrides, **_summary(claim, found), "seeds": found})
  entry = {"claim": dataclasses.asdict(claim), "runs": listed}
  verdict = claims.judge(claim, runs_of(entry))
  return {"outcome": verdict.outcome, "why": verdict.why, **entry}


def _run(claim: Claim, seed: int, evaluation: Mapping[str, Any]) -> dict[str, Any]:
  if claim.split not in evaluation["splits"]:
    raise ConfigError(
      f"claim {claim.name!r} reads the {claim.split} split, which was not evaluated",
      kept="the runs are as they were",
      do=f"choose among {', '.join(evaluation['splits'])}",
    )
  metrics = dict(evaluation["splits"][claim.split])
  examples = metrics.pop("examples")
  return {
    "seed": seed,
    "step": evaluation["step"],
    "examples": examples,
    "conditions": evaluation["conditions"],
    "metrics": metrics,
  }


def _summary(claim: Claim, found: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
  """The claimed metric over seeds, for readers of the file; null where it is not finite."""
  measured = [run["metrics"][claim.metric] for run in found if claim.metric in run["metrics"]]
  numbers = statistics.interval(measured, claim.interval)._asdict() if measured else {}
  return {
    name: numbers[name] if name in numbers and math.isfinite(numbers[name]) else None
    for name in ("mean", "low", "high", "deviation")
  }


def claim_of(entry: Mapping[str, Any]) -> Claim:
  """The claim of an element of a record's `claims`, as it was judged."""
  return Claim(**entry["claim"])


def runs_of(entry: Mapping[str, Any]) -> Runs:
  """The runs of an element of a record's `claims`, as `claims.judge` takes them."""
  return {
    claims.key(setting["overrides"]): {run["seed"]: run["metrics"] for run in setting["seeds"]}
    for setting in entry["runs"]
  }


def write(root: pathlib.Path, fresh: Record) -> pathlib.Path:
  """Puts a record in its place, whole or not at all; returns the place."""
  path = place(root, fresh["experiment"], fresh["variant"])
  path.parent.mkdir(parents=True, exist_ok=True)
  write_json(path, fresh)
  return path


def read(path: pathlib.Path) -> Record:
  """A record.

  Raises:
    ConfigError: the file is no record, or one of another schema.
  """
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
    schema = found["schema"]
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise ConfigError(
      f"{path} is no record of claims ({type(error).__name__})",
      do="restore it, or remove it and run `python launch.py reproduce`",
    ) from None
  if schema != SCHEMA:
    raise ConfigError(
      f"{path} is a record of schema {schema}, not {SCHEMA}",
      do="remove it and run `python launch.py reproduce`",
    )
  return found


def all_records(root: pathlib.Path = pathlib.Path()) -> dict[tuple[str, str], Record]:
  """Every record, by (experiment, variant)."""
  found = [read(path) for path in sorted((root / FOLDER).glob("*/*.json"))]
  return {(entry["experiment"], entry["variant"]): entry for entry in found}


def stale(found: Record, root: pathlib.Path = pathlib.Path()) -> str:
  """Why a record no longer speaks for its experiment; empty where it does."""
  file = root / found["experiment"]
  if not file.exists():
    return f"{found['experiment']} is gone"
  module = config.experiment(str(file))
  current = {claim.name: claim for claim in claims.read(module, found["variant"])}
  recorded = {entry["claim"]["name"]: entry for entry in found["claims"]}
  for name in recorded.keys() - current.keys():
    return f"claim {name!r} is gone"
  for name in current.keys() - recorded.keys():
    return f"claim {name!r} is new"
  if digest(module, found["variant"]) != found["digest"]:
    return "the config, the claims or their sweeps have changed since"
  for name, claim in current.items():
    verdict = claims.judge(claim, runs_of(recorded[name]))
    if verdict.outcome == "NOT RUN":
      return f"claim {name!r}: {verdict.why}"
  return ""
