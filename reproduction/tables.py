"""The tables of README.md and docs/results.md, made from the records."""

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from reproduction import claims, records
from reproduction.claims import Claim, Summary, Verdict
from reproduction.records import Record
from reproduction.statistics import Interval
from training import config
from training.catalogue import Entry, entries
from training.errors import ConfigError
from training.workdir import write_text

Records = Mapping[tuple[str, str], Record]

_BEGIN, _END = "<!-- results:begin -->", "<!-- results:end -->"
_VARIANTS = ("paper", "small")  # smoke is for tests
_HEAD = """\
# Results

Written by `python launch.py reproduce` from the records in docs/results/; edits are lost. A number
is the mean over seeds ± half of its two-sided 95 % interval. A claim passes when the interval of
every comparison it makes, paired by seed, lies wholly above 0; it fails when one is contradicted or
not decided. Verdicts are judged anew from the recorded runs whenever this page is written.
"""


class _Row(NamedTuple):
  """A claim of one variant, with what its record says, if there is one."""

  name: str  # "<family>/<experiment>"
  variant: str
  claim: Claim
  record: Record | None
  verdict: Verdict
  seeds: int  # of the record
  examples: str  # of the split: how many, and under which conditions
  shown: str  # the verdict as a table shows it


def _name(entry: Entry) -> str:
  return "/".join(entry.path.with_suffix("").parts[-2:])


def _rows(listed: Sequence[Entry], found: Records) -> Iterator[_Row]:
  for entry in listed:
    module = config.experiment(str(entry.path))
    for variant in _VARIANTS:
      place = records.identity(entry.path), variant
      record = found[place] if place in found else None
      reason = records.stale(record, entry.path.parents[2]) if record else ""
      recorded = {own["claim"]["name"]: own for own in record["claims"]} if record else {}
      for claim in claims.read(module, variant):
        row = _Row(_name(entry), variant, claim, None, Verdict("NOT RUN", ""), 0, "", "NOT RUN")
        if claim.name in recorded:
          row = _judged(row._replace(record=record), recorded[claim.name], reason)
        yield row


def _judged(row: _Row, own: Mapping, reason: str) -> _Row:
  """The row with what the runs of the record say, and no verdict where the record is stale."""
  judged = records.claim_of(own)
  verdict = claims.judge(judged, records.runs_of(own))
  runs = [run for setting in own["runs"] for run in setting["seeds"]]
  about = {", ".join([f"{run['examples']:,} examples", *_conditions(run)]) for run in runs}
  return row._replace(
    verdict=verdict,
    seeds=judged.seeds,
    examples=" or ".join(sorted(about)),
    shown=f"stale: {reason}" if reason else verdict.outcome,
  )


def _conditions(run: Mapping) -> list[str]:
  # Records from before conditions were recorded have none.
  return [f"{k} {v}" for k, v in run["conditions"].items()] if "conditions" in run else []


def table(listed: Sequence[Entry], found: Records, *, detailed: bool) -> str:
  """The results in Markdown.

  Args:
    listed: the experiments, from `training.catalogue.entries`.
    found: the records, from `records.all_records`.
    detailed: every variant, setting and rival with its provenance, for docs/results.md; otherwise
      one row a claim that was run and judged, for the README.
  """
  rows = list(_rows(listed, found))
  return _pages(listed, rows) if detailed else _overview(rows)


# README


def _overview(rows: Sequence[_Row]) -> str:
  lines = [
    "| experiment | claim | ours, mean ± half of the 95 % interval | the paper | |",
    "|---|---|---|---|---|",
  ]
  run = [row for row in rows if row.record is not None]
  for row in run:
    if row.claim.relation:
      says = (row.claim.statement or row.claim.name, _ours(row), _theirs(row.claim), row.shown)
      lines.append(_line(f"`{row.name}` {row.variant}", *says))
  measured = sum(not row.claim.relation for row in run)
  lines += ["", f"Measured and not judged, in [docs/results.md](docs/results.md): {measured}."]
  for variant in _VARIANTS:
    missing = dict.fromkeys(row.name for row in rows if not row.record and row.variant == variant)
    all_of_them = len(missing) == len({row.name for row in rows})
    names = "all experiments" if all_of_them else ", ".join(f"`{name}`" for name in missing)
    if missing:
      lines.append(f"Not run: the `{variant}` variant of {names}.")
  return "\n".join(lines)


def _line(*cells: str) -> str:
  return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _ours(row: _Row) -> str:
  if not row.verdict.settings:
    return row.verdict.why
  settings = "; ".join(_brief(summary) for summary in row.verdict.settings)
  rivals = "; ".join(_brief(summary) for summary in row.verdict.rivals)
  against = f"; against {rivals}" if rivals else ""
  witness = f"{row.claim.metric} on {row.claim.split}, {row.examples}, {row.seeds} seeds"
  return f"{settings}{against} ({witness})"


def _brief(summary: Summary) -> str:
  """A setting by the last part of its keys: "code 2: 1.94 ± 0.04, pca_squared 3.40"."""
  words = dict.fromkeys(
    f"{key.rsplit('.', 1)[-1]} {f'{value:.6g}' if isinstance(value, float) else value}"
    for key, value in summary.overrides.items()
  )
  first, *others = summary.metrics.items()
  numbers = [number(first[1]), *(f"{name} {number(found)}" for name, found in others)]
  return (f"{', '.join(words)}: " if words else "") + ", ".join(numbers)


def _theirs(claim: Claim) -> str:
  return f"{claim.published} ({claim.paper})" if claim.published else claim.paper


def number(found: Interval) -> str:
  """A mean with its interval, in as many digits as the interval justifies."""
  mean, low, high, *_ = found
  half = (high - low) / 2
  if not math.isfinite(half) or half <= 1e-9 * abs(mean):  # every seed says the same
    return f"{mean:.4g}"
  exponent = math.floor(math.log10(half))
  # The Particle Data Group's rule: two digits of an uncertainty up to 354, one of a greater.
  decimals = max(0, -exponent + (half < 3.55 * 10**exponent))
  if decimals > 6:
    return f"{mean:.4g} ± {half:.1g}"
  if abs(high - mean - half) < 0.05 * half:
    return f"{mean:.{decimals}f} ± {half:.{decimals}f}"
  return f"{mean:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


# docs/results.md


def _pages(listed: Sequence[Entry], rows: Sequence[_Row]) -> str:
  parts = [_HEAD]
  for entry in listed:
    name = _name(entry)
    for variant in _VARIANTS:
      own = [row for row in rows if (row.name, row.variant) == (name, variant)]
      parts.append(f"## `{name}`, {variant}\n\n{entry.title}\n")
      parts += [_page(row) for row in own] or ["Nothing is claimed for this variant.\n"]
      if own and own[0].record is not None:
        parts.append(_provenance(own[0].record))
  return "\n".join(parts).rstrip() + "\n"


def _page(row: _Row) -> str:
  claim = row.claim
  head = f"**{claim.name}: {row.shown}.** {_sentence(claim.statement)}".rstrip()
  facts = [
    f"asserted: `{claim.relation}`" if claim.relation else "asserted: nothing",
    f"paper: {claim.paper}" + (f": {claim.published}" if claim.published else ""),
  ]
  if row.record is None:
    count = len(claims.needed(claim)) * claim.seeds
    command = f"python launch.py reproduce --config=experiments/{row.name}.py:{row.variant}"
    cost = f" ({claim.cost})" if claim.cost else ""
    facts.append(f"not run; it takes {count} runs: `{command}`{cost}")
  else:
    facts += [row.verdict.why] if claim.relation or not row.verdict.settings else []
    facts.append(f"{claim.split} split, {row.examples}, {row.seeds} seeds")
  parts = [head, "\n".join(f"- {fact}" for fact in facts)]
  if row.verdict.settings:
    parts.append(_settings(row.verdict))
  return "\n\n".join(parts) + "\n"


def _settings(verdict: Verdict) -> str:
  summaries = [("", s) for s in verdict.settings] + [("rival ", s) for s in verdict.rivals]
  metrics = list(dict.fromkeys(name for _, s in summaries for name in s.metrics))
  lines = [
    _line("setting", *metrics, f"deviation of {metrics[0]}"),
    "|---|" + "---:|" * (len(metrics) + 1),
  ]
  for kind, summary in summaries:
    shown = [number(summary.metrics[m]) if m in summary.metrics else "" for m in metrics]
    spread = f"{summary.metrics[metrics[0]].deviation:.2g}" if shown[0] else ""
    label = claims.label(summary.overrides)
    lines.append(_line(kind + (f"`{label}`" if summary.overrides else label), *shown, spread))
  return "\n".join(lines)


def _provenance(record: Record) -> str:
  devices = record["devices"]
  commit = record["commit"].rstrip("+")[:12] or "unknown"
  changed = " with changes" if record["commit"].endswith("+") else ""
  return (
    f"`{record['command']}`, commit {commit}{changed}, {record['date'][:10]}, "
    f"{record['seconds']:,.0f} s of runs, {devices['count']} x {devices['kind']}, "
    f"{record['cores']} CPU cores, {record['host']}, JAX {record['versions']['jax']}, "
    f"data {record['data'][:12]}.\n"
  )


def _sentence(text: str) -> str:
  return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def regenerated(root: pathlib.Path = pathlib.Path()) -> dict[pathlib.Path, str]:
  """What README.md and docs/results.md should say, by path; writes nothing.

  Raises:
    ConfigError: README.md has no place for the table.
  """
  listed, found = entries(root / "experiments"), records.all_records(root)
  readme = root / "README.md"
  before, begin, rest = readme.read_text(encoding="utf-8").partition(_BEGIN)
  _, end, after = rest.partition(_END)
  if not (begin and end):
    raise ConfigError(
      f"{readme} has no place for the results",
      kept="no table was written",
      do=f"put {_BEGIN} and {_END} where the table belongs",
    )
  overview = table(listed, found, detailed=False)
  return {
    readme: f"{before}{_BEGIN}\n{overview}\n{_END}{after}",
    root / "docs" / "results.md": table(listed, found, detailed=True),
  }


def regenerate(root: pathlib.Path = pathlib.Path()) -> list[pathlib.Path]:
  """Writes both tables, and returns where."""
  fresh = regenerated(root)
  for path, text in fresh.items():
    write_text(path, text)
  return list(fresh)
