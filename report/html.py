"""The report of a run: one HTML file that holds everything, its figures included.

It needs no network, no script and no second file, so it can be mailed or archived as it is. What
the run did not write is said in a sentence; a report never leaves its reader wondering whether a
part was lost.
"""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from report import page
from report.wording import ABSENT, text


def write(
  workdir: str | os.PathLike[str],
  *,
  default_config: Mapping[str, Any] | None = None,
  warnings: Sequence[str] = (),
) -> Path:
  """Writes report.html into `workdir` from the files that the run left there.

  Args:
    workdir: the folder of the run.
    default_config: the nested config before anything was overridden; what differs from it is
      listed and highlighted.
    warnings: what was warned of while the run ran, a sentence each.

  Returns:
    The path of the report. A reader sees the old report or the whole new one, never a part.

  Raises:
    FileNotFoundError: there is no config.json, so this is not the folder of a run.
    ValueError: config.json holds no JSON object.
  """
  workdir = Path(workdir)
  if not (workdir / "config.json").is_file():
    raise FileNotFoundError(
      f"no config.json in {workdir}: a report is written into the folder of a run, which holds one"
    )
  config, problem = _read(workdir / "config.json")
  if problem:
    raise ValueError(f"{workdir / 'config.json'} {problem}")
  environment, environment_problem = _read(workdir / "environment.json")
  evaluation, evaluation_problem = _read(workdir / "evaluation.json")

  name = _experiment(workdir, environment)
  sections = [
    _header(workdir, name, config, environment, evaluation),
    *([page.section("Warnings", page.sentences(warnings))] if warnings else []),
    page.section("Evaluation", _evaluation(evaluation, evaluation_problem)),
    page.section("Figures", _figures(workdir / "figures")),
    *_tables(workdir / "figures" / "tables.json"),
    page.section("Configuration", _configuration(config, default_config)),
    page.section("Environment", _environment(environment, environment_problem)),
    page.section("Command", _command(environment, environment_problem)),
  ]
  return page.write(workdir / "report.html", name, sections)


def _read(path: Path) -> tuple[dict[str, Any], str]:
  """(the JSON object in the file, what is wrong with it or nothing)."""
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    return {}, "was not written"
  except (ValueError, OSError, RecursionError) as error:
    return {}, f"could not be read ({error})"
  if not isinstance(value, dict):
    return {}, f"holds {type(value).__name__}, not an object"
  return value, ""


# Title


def _experiment(workdir: Path, environment: Mapping[str, Any]) -> str:
  """The experiment file (and variant) as the command names it; else the name of the folder."""
  found = re.search(r"experiments/([\w./-]+?)\.py\b(?::(\w+))?", _command_text(environment))
  if not found:
    return workdir.resolve().name
  name, variant = found.groups()
  return f"{name} ({variant})" if variant else name


def _header(
  workdir: Path,
  name: str,
  config: Mapping[str, Any],
  environment: Mapping[str, Any],
  evaluation: Mapping[str, Any],
) -> str:
  parts = [
    f"{key} {value['name']}"
    for key, value in config.items()
    if isinstance(value, Mapping) and isinstance(value.get("name"), str)
  ]
  facts = [", ".join(parts)] if parts else []
  if "seed" in environment:
    facts.append(f"seed {text(environment['seed'])}")
  if isinstance(environment.get("commit"), str) and environment["commit"]:
    commit = environment["commit"]
    facts.append(f"commit {commit[:12]}" + (" with changes" if commit.endswith("+") else ""))
  if "step" in evaluation:
    facts.append(f"evaluated at step {text(evaluation['step'])}")
  line = "; ".join(facts)
  line = line[:1].upper() + line[1:] + "." if line else "A run without a description."
  return (
    f"<header>\n<h1>{escape(name)}</h1>\n<p>{escape(line)}</p>\n"
    f'<p class="faint">Run folder: <code>{escape(workdir.resolve().name)}</code></p>\n</header>'
  )


# Tables of text


def _tables(path: Path) -> list[str]:
  """A section a table; what a run has not written, older ones none at all, is left out."""
  found, _ = _read(path)
  sections = []
  for name, table in found.items():
    body = [
      "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>"
      for row in table["rows"]
    ]
    title = name.replace("_", " ").capitalize()
    caption = f"<p>{escape(table['caption'])}</p>\n"
    heads = [escape(column) for column in table["columns"]]
    sections.append(page.section(title, caption + page.table("texts", heads, body)))
  return sections


# Evaluation


def _evaluation(evaluation: Mapping[str, Any], problem: str) -> str:
  if problem:
    return page.missing(f"There are no evaluation numbers: evaluation.json {problem}.")
  splits = evaluation.get("splits")
  splits = splits if isinstance(splits, Mapping) else {}
  splits = {split: values for split, values in splits.items() if isinstance(values, Mapping)}
  if not splits:
    return page.missing("There are no evaluation numbers: evaluation.json names no split.")
  # Metrics go down and splits across: the metrics are many, and a phone scrolls down.
  metrics = list(dict.fromkeys(key for values in splits.values() for key in values))
  metrics.sort(key=lambda key: key != "examples")
  rows = []
  for key in ("weights", "step"):
    value = text(evaluation[key]) if key in evaluation else "not recorded"
    rows.append((key, [escape(value)] * len(splits)))
  conditions = evaluation.get("conditions")
  for key, value in (conditions if isinstance(conditions, Mapping) else {}).items():
    # A signature is long and may be broken anywhere.
    shown = f'<span class="long">{escape(text(value))}</span>'
    rows.append((key, [shown] * len(splits)))
  for metric in metrics:
    absent = '<span class="faint">not measured</span>'
    values = [split.get(metric, ABSENT) for split in splits.values()]
    rows.append((metric, [absent if v is ABSENT else page.number(v) for v in values]))
  body = [
    f"<tr><th>{escape(str(key))}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    for key, cells in rows
  ]
  return page.table("numbers", ["split", *(escape(str(split)) for split in splits)], body)


# Figures


def _figures(folder: Path) -> str:
  paths = sorted(folder.glob("*.png"), key=_figure_order)
  if not paths:
    return page.missing("There are no figures: the run wrote none into figures/.")
  captions, problem = _read(folder / "captions.json")
  parts = []
  if problem:
    parts.append(page.missing(f"The figures have no captions: figures/captions.json {problem}."))
  for path in paths:
    caption = captions.get(path.stem, captions.get(path.name, ""))
    parts.append(page.figure(path, str(caption)))
  return "\n".join(parts)


def _figure_order(path: Path) -> tuple[bool, list[tuple[int, str]]]:
  """Curves first, then by name with numbers as numbers, so that step 1000 follows step 500."""
  pieces = re.findall(r"\d+|\D+", path.stem)
  return not path.stem.startswith("curves"), [
    (int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces
  ]


# Configuration and environment


def _configuration(config: Mapping[str, Any], default: Mapping[str, Any] | None) -> str:
  rows = dict(page.flat(config))
  if default is None:
    note = page.missing("No default configuration was given, so no difference from it is marked.")
    return note + "\n" + page.settings(rows)
  defaults = dict(page.flat(default))
  changed = {
    key: (defaults.get(key, ABSENT), rows.get(key, ABSENT))
    for key in (rows | defaults)
    if not _same(defaults.get(key, ABSENT), rows.get(key, ABSENT))
  }
  if not changed:
    return "<p>Nothing is changed from the default.</p>\n" + page.settings(rows)
  items = "\n".join(
    f"<li><code>{escape(key)}</code>: <code>{escape(text(before))}</code> → "
    f"<code><b>{escape(text(after))}</b></code></li>"
    for key, (before, after) in changed.items()
  )
  listed = f'<p>Changed from the default:</p>\n<ul class="changes">\n{items}\n</ul>\n'
  return listed + page.settings(rows, changed=changed)


def _environment(environment: Mapping[str, Any], problem: str) -> str:
  if problem:
    return page.missing(f"The environment is not known: environment.json {problem}.")
  return page.settings({key: value for key, value in page.flat(environment) if key != "command"})


def _command(environment: Mapping[str, Any], problem: str) -> str:
  command = _command_text(environment)
  if not command:
    why = f"environment.json {problem}" if problem else "environment.json does not name it"
    return page.missing(f"The command is not known: {why}.")
  return f"<pre>{escape(command)}</pre>"


def _command_text(environment: Mapping[str, Any]) -> str:
  command = environment.get("command", "")
  return shlex.join(map(str, command)) if isinstance(command, list) else str(command or "")


def _same(a: Any, b: Any) -> bool:
  """Whether two settings are the same once written as JSON: 1 and 1.0 are, 1 and true are not."""
  if a is ABSENT or b is ABSENT:
    return a is b
  if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
    return len(a) == len(b) and all(map(_same, a, b))
  if isinstance(a, bool) != isinstance(b, bool):
    return False
  # Through JSON because nan is unequal to itself, and a default may hold what JSON has no word for.
  return a == b or json.dumps(a, default=str) == json.dumps(b, default=str)
