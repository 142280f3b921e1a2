"""The report of a run: one HTML file that holds everything, its figures included.

It needs no network, no script and no second file, so it can be mailed or archived as it is. What
the run did not write is said in a sentence; a report never leaves its reader wondering whether a
part was lost.
"""

import base64
import json
import math
import os
import re
import shlex
import struct
import threading
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

_PNG = b"\x89PNG\r\n\x1a\n"
_ABSENT = object()  # None is a value that a file may hold
_DPI = 150  # of the figures, so that their text appears at the size it was drawn for

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2126; --faint: #5c6670;
  --line: #dfe3e8; --shade: #f4f6f8; --mark: #fff3cd; --mark-ink: #5f4500; --alarm: #b00020; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e4e7eb; --faint: #9aa5b1; --line: #31373e; --shade: #1e2329;
    --mark: #463811; --mark-ink: #ffe08a; --alarm: #ff8a94; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 940px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
p { margin: .4rem 0; overflow-wrap: anywhere; }
.faint, .missing { color: var(--faint); }
.missing { font-style: italic; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .8rem .28rem .5rem; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
thead th { color: var(--faint); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 400; white-space: nowrap; }
td { overflow-wrap: anywhere; }
.numbers td, .numbers thead th + th { text-align: right; white-space: nowrap; }
.settings { width: 100%; }
.settings th, .settings td, code, pre {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.settings tbody th, .settings td, code, pre { font-size: .84rem; }
.settings thead th { font-family: inherit; }
.changed th, .changed td { background: var(--mark); color: var(--mark-ink); }
.changed th { font-weight: 700; }
.alarm { color: var(--alarm); font-weight: 600; }
pre { background: var(--shade); border: 1px solid var(--line); border-radius: 6px;
  padding: .7rem .9rem; margin: .4rem 0; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; }
ul.changes { padding-left: 1.2rem; margin: .4rem 0 1rem; }
ul.changes li { overflow-wrap: anywhere; }
figure { margin: 0 0 1.8rem; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); border-radius: 6px; }
figcaption { margin-top: .4rem; max-width: 46rem; }
figcaption b { font-weight: 600; }
@media (max-width: 600px) {
  main { padding: 18px 12px 40px; }
  .settings tbody th { white-space: normal; overflow-wrap: break-word;
    min-width: 8.5rem; }
  th, td { padding-right: .5rem; } }
"""


def write(
  workdir: str | os.PathLike[str], *, default_config: Mapping[str, Any] | None = None
) -> Path:
  """Writes report.html into `workdir` from the files that the run left there.

  Args:
    workdir: the folder of the run.
    default_config: the nested config before anything was overridden; what differs from it is
      listed and highlighted.

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
    _section("Evaluation", _evaluation(evaluation, evaluation_problem)),
    _section("Figures", _figures(workdir / "figures")),
    _section("Configuration", _configuration(config, default_config)),
    _section("Environment", _environment(environment, environment_problem)),
    _section("Command", _command(environment, environment_problem)),
  ]
  page = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    # Whatever may have slipped into the page, a browser fetches and runs nothing.
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
    f"<title>{escape(name)}</title>\n<style>{_STYLE}</style>\n</head>\n"
    "<body>\n<main>\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"
  )
  path = workdir / "report.html"
  temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
  try:
    # A lone surrogate in somebody's path must not cost the whole report.
    temporary.write_bytes(page.encode("utf-8", errors="replace"))
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return path


def _read(path: Path) -> tuple[dict[str, Any], str]:
  """(the JSON object in the file, what is wrong with it or nothing)."""
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    return {}, "was not written"
  except (ValueError, OSError) as error:
    return {}, f"could not be read ({error})"
  if not isinstance(value, dict):
    return {}, f"holds {type(value).__name__}, not an object"
  return value, ""


def _section(title: str, body: str) -> str:
  return f"<section>\n<h2>{title}</h2>\n{body}\n</section>"


def _missing(sentence: str) -> str:
  return f'<p class="missing">{escape(sentence)}</p>'


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
    facts.append(f"seed {_text(environment['seed'])}")
  if isinstance(environment.get("commit"), str) and environment["commit"]:
    commit = environment["commit"]
    facts.append(f"commit {commit[:12]}" + (" with changes" if commit.endswith("+") else ""))
  if "step" in evaluation:
    facts.append(f"evaluated at step {_text(evaluation['step'])}")
  line = "; ".join(facts)
  line = line[:1].upper() + line[1:] + "." if line else "A run without a description."
  return (
    f"<header>\n<h1>{escape(name)}</h1>\n<p>{escape(line)}</p>\n"
    f'<p class="faint">Run folder: <code>{escape(workdir.resolve().name)}</code></p>\n</header>'
  )


# Evaluation


def _evaluation(evaluation: Mapping[str, Any], problem: str) -> str:
  if problem:
    return _missing(f"There are no evaluation numbers: evaluation.json {problem}.")
  splits = evaluation.get("splits")
  splits = splits if isinstance(splits, Mapping) else {}
  splits = {split: values for split, values in splits.items() if isinstance(values, Mapping)}
  if not splits:
    return _missing("There are no evaluation numbers: evaluation.json names no split.")
  # Metrics go down and splits across: the metrics are many, and a phone scrolls down.
  metrics = list(dict.fromkeys(key for values in splits.values() for key in values))
  metrics.sort(key=lambda key: key != "examples")
  rows = []
  for key in ("weights", "step"):
    value = _text(evaluation[key]) if key in evaluation else "not recorded"
    rows.append((key, [escape(value)] * len(splits)))
  for metric in metrics:
    absent = '<span class="faint">not measured</span>'
    values = [split.get(metric, _ABSENT) for split in splits.values()]
    rows.append((metric, [absent if v is _ABSENT else _number(v) for v in values]))
  head = "".join(f"<th>{escape(str(split))}</th>" for split in splits)
  body = "\n".join(
    f"<tr><th>{escape(str(key))}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    for key, cells in rows
  )
  return (
    '<div class="wide"><table class="numbers">\n'
    f"<thead><tr><th>split</th>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
  )


def _number(value: Any) -> str:
  """One number as HTML; what is not finite stands out."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return escape(_text(value))
  if not math.isfinite(value):
    return f'<span class="alarm">{value} (not finite)</span>'
  return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


# Figures


def _figures(folder: Path) -> str:
  paths = sorted(folder.glob("*.png"), key=_figure_order)
  if not paths:
    return _missing("There are no figures: the run wrote none into figures/.")
  captions, problem = _read(folder / "captions.json")
  parts = []
  if problem:
    parts.append(_missing(f"The figures have no captions: figures/captions.json {problem}."))
  for path in paths:
    caption = captions.get(path.stem, captions.get(path.name, ""))
    parts.append(_figure(path, str(caption)))
  return "\n".join(parts)


def _figure_order(path: Path) -> tuple[bool, list[tuple[int, str]]]:
  """Curves first, then by name with numbers as numbers, so that step 1000 follows step 500."""
  pieces = re.findall(r"\d+|\D+", path.stem)
  return not path.stem.startswith("curves"), [
    (int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces
  ]


def _figure(path: Path, caption: str) -> str:
  data = path.read_bytes()
  if data[:8] != _PNG or len(data) < 24:
    return _missing(f"The figure {path.name} could not be read: it is no PNG image.")
  width, height = struct.unpack(">II", data[16:24])
  title = path.stem.replace("_", " ").strip()
  title = title[:1].upper() + title[1:]
  alternative = f"{title}: {caption}" if caption else title
  source = base64.b64encode(data).decode("ascii")
  # Browsers count 96 pixels an inch.
  size = f'width="{round(width * 96 / _DPI)}" height="{round(height * 96 / _DPI)}"'
  return (
    f'<figure>\n<img src="data:image/png;base64,{source}" {size} alt="{escape(alternative)}">\n'
    f"<figcaption><b>{escape(title)}.</b> {escape(caption)}</figcaption>\n</figure>"
  )


# Configuration and environment


def _configuration(config: Mapping[str, Any], default: Mapping[str, Any] | None) -> str:
  rows = dict(_flat(config))
  if default is None:
    note = _missing("No default configuration was given, so no difference from it is marked.")
    return note + "\n" + _settings(rows)
  defaults = dict(_flat(default))
  changed = {
    key: (defaults.get(key, _ABSENT), rows.get(key, _ABSENT))
    for key in (rows | defaults)
    if not _same(defaults.get(key, _ABSENT), rows.get(key, _ABSENT))
  }
  if not changed:
    return "<p>Nothing is changed from the default.</p>\n" + _settings(rows)
  items = "\n".join(
    f"<li><code>{escape(key)}</code>: <code>{escape(_text(before))}</code> → "
    f"<code><b>{escape(_text(after))}</b></code></li>"
    for key, (before, after) in changed.items()
  )
  listed = f'<p>Changed from the default:</p>\n<ul class="changes">\n{items}\n</ul>\n'
  return listed + _settings(rows, changed=changed)


def _settings(
  rows: Mapping[str, Any], *, changed: Mapping[str, tuple[Any, Any]] | None = None
) -> str:
  """A table of names and values; `changed` adds a column of the defaults that differ."""
  if not rows:
    return _missing("It is empty.")
  body = []
  for key, value in rows.items():
    # Where a narrow screen must break a name, it breaks between its parts.
    name = re.sub(r"([._])", r"\1<wbr>", escape(key))
    cells = f"<th>{name}</th><td>{escape(_text(value))}</td>"
    if changed is None:
      body.append(f"<tr>{cells}</tr>")
    elif key in changed:
      body.append(f'<tr class="changed">{cells}<td>{escape(_text(changed[key][0]))}</td></tr>')
    else:
      body.append(f"<tr>{cells}<td></td></tr>")
  third = "" if changed is None else "<th>default</th>"
  return (
    '<div class="wide"><table class="settings">\n'
    f"<thead><tr><th>name</th><th>value</th>{third}</tr></thead>\n"
    "<tbody>\n" + "\n".join(body) + "\n</tbody>\n</table></div>"
  )


def _environment(environment: Mapping[str, Any], problem: str) -> str:
  if problem:
    return _missing(f"The environment is not known: environment.json {problem}.")
  return _settings({key: value for key, value in _flat(environment) if key != "command"})


def _command(environment: Mapping[str, Any], problem: str) -> str:
  command = _command_text(environment)
  if not command:
    why = f"environment.json {problem}" if problem else "environment.json does not name it"
    return _missing(f"The command is not known: {why}.")
  return f"<pre>{escape(command)}</pre>"


def _command_text(environment: Mapping[str, Any]) -> str:
  command = environment.get("command", "")
  return shlex.join(map(str, command)) if isinstance(command, list) else str(command or "")


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Leaves by dotted name; a list without objects in it is a leaf."""
  if isinstance(value, Mapping) and (value or not prefix):
    for key, inner in value.items():
      yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
  elif isinstance(value, (list, tuple)) and any(isinstance(inner, Mapping) for inner in value):
    for index, inner in enumerate(value):
      yield from _flat(inner, f"{prefix}[{index}]")
  else:
    yield prefix, value


def _same(a: Any, b: Any) -> bool:
  """Whether two settings are the same once written as JSON: 1 and 1.0 are, 1 and true are not."""
  if a is _ABSENT or b is _ABSENT:
    return a is b
  if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
    return len(a) == len(b) and all(map(_same, a, b))
  if isinstance(a, bool) != isinstance(b, bool):
    return False
  # Through JSON because nan is unequal to itself, and a default may hold what JSON has no word for.
  return a == b or json.dumps(a, default=str) == json.dumps(b, default=str)


def _text(value: Any) -> str:
  """A value as a reader writes it on a command line."""
  if value is _ABSENT:
    return "(absent)"
  if isinstance(value, str):
    return value if value else '""'
  return json.dumps(value, ensure_ascii=False, default=str)
