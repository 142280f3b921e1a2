"""The frame and the parts that every report's page is made of: one file, no network, no script."""

import base64
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from report import wording
from report.files import write_whole

_PNG = b"\x89PNG\r\n\x1a\n"
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
.numbers .long { white-space: normal; overflow-wrap: anywhere; }
.ranking thead th { white-space: normal; vertical-align: bottom; line-height: 1.3; }
.ranking th, .ranking td { padding-right: .55rem; }
.ranking .best td, .ranking .best th { font-weight: 700; }
.ranking .error td { text-align: left; white-space: normal; color: var(--alarm); }
.ranking .error span { display: block; position: sticky; left: .5rem; width: fit-content;
  max-width: min(85vw, 54rem); }
.ranking tr:has(+ .error) > * { border-bottom: none; }
.settings, .texts { width: 100%; }
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


def write(path: Path, title: str, sections: Iterable[str]) -> Path:
  """Writes one HTML page, whole or not at all.

  Args:
    path: where to.
    title: what a browser's tab shows, as plain text.
    sections: the page from top to bottom, as HTML.

  Returns:
    The path.
  """
  text = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    # Whatever may have slipped into the page, a browser fetches and runs nothing.
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
    f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
    "<body>\n<main>\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"
  )
  # A lone surrogate in somebody's path must not cost the whole report.
  return write_whole(path, text.encode("utf-8", errors="replace"))


def section(title: str, body: str) -> str:
  """A part of the page under its heading, which is text; `body` is HTML."""
  return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def missing(sentence: str) -> str:
  """What a reader is told in place of a part that is not there."""
  return f'<p class="missing">{escape(sentence)}</p>'


def sentences(lines: Iterable[str]) -> str:
  """Sentences, one under the other."""
  return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def number(value: Any) -> str:
  """One number as HTML; what is not finite stands out."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return escape(wording.text(value))
  if not math.isfinite(value):
    return f'<span class="alarm">{value} (not finite)</span>'
  return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"


def figure(path: Path, caption: str) -> str:
  """A PNG inside the page, titled by the name of its file."""
  data = path.read_bytes()
  if data[:8] != _PNG or len(data) < 24:
    return missing(f"The figure {path.name} could not be read: it is no PNG image.")
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


def breakable(name: str) -> str:
  """A dotted name that, where a narrow screen must break it, breaks between its parts."""
  return re.sub(r"([._/])", r"\1<wbr>", escape(name))


def table(kind: str, head: Iterable[str], rows: Iterable[str]) -> str:
  """A table that scrolls within a screen too narrow for it.

  Args:
    kind: how it looks: "settings", "texts", "numbers" or "numbers ranking".
    head: the headings of its columns, as HTML.
    rows: HTML.
  """
  headings = "".join(f"<th>{heading}</th>" for heading in head)
  return (
    f'<div class="wide"><table class="{kind}">\n<thead><tr>{headings}</tr></thead>\n'
    "<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table></div>"
  )


def settings(
  rows: Mapping[str, Any], *, changed: Mapping[str, tuple[Any, Any]] | None = None
) -> str:
  """A table of names and values; `changed` adds a column of the defaults that differ."""
  if not rows:
    return missing("It is empty.")
  body = []
  for key, value in rows.items():
    cells = f"<th>{breakable(key)}</th><td>{escape(wording.text(value))}</td>"
    if changed is None:
      body.append(f"<tr>{cells}</tr>")
    elif key in changed:
      body.append(
        f'<tr class="changed">{cells}<td>{escape(wording.text(changed[key][0]))}</td></tr>'
      )
    else:
      body.append(f"<tr>{cells}<td></td></tr>")
  return table("settings", ["name", "value", *([] if changed is None else ["default"])], body)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Leaves by dotted name; a list without objects in it is a leaf."""
  if isinstance(value, Mapping) and (value or not prefix):
    for key, inner in value.items():
      yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
  elif isinstance(value, (list, tuple)) and any(isinstance(inner, Mapping) for inner in value):
    for index, inner in enumerate(value):
      yield from flat(inner, f"{prefix}[{index}]")
  else:
    yield prefix, value
