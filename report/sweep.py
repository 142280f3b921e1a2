"""The report of a sweep: a ranking, figures and a table of results, from the trials as plain data.

report.html stands alone like the report of a run. results.csv holds every number, for whoever wants
to go on with them.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from report import canvas, page, parallel_coordinates, sweep_figures
from report.files import write_whole
from report.trials import (
  Direction,
  Trial,
  best_done,
  counts,
  over_seeds,
  ranked,
  varied,
)
from report.wording import ABSENT, brief, duration, short, text


def write(
  folder: str | Path,
  *,
  title: str,
  metric: str,
  direction: Direction,
  trials: Sequence[Trial],
  importances: Mapping[str, float],
  command: str,
  environment: Mapping[str, Any],
  split: str,
) -> Path:
  """Writes report.html, results.csv and figures/ into the folder of a sweep.

  Args:
    folder: of the sweep.
    title: what was swept.
    metric: the name of the ranking metric.
    direction: whether its least or its greatest value is the best.
    trials: all of them, in any state and order.
    importances: share of each varied key in the metric's variance; empty where it is not known.
    command: that started the sweep.
    environment: what the numbers depend on besides the configs; may be nested.
    split: the data that the ranking metric was measured on.

  Returns:
    The path of the report. A reader sees the old files or whole new ones, never a part.

  Raises:
    ValueError: the direction is neither "least" nor "greatest".
  """
  folder = Path(folder)
  order = ranked(trials, direction)
  named = dict(metric=metric, direction=direction)
  figures = {
    "parallel_coordinates": parallel_coordinates.draw(trials, **named, importances=importances),
    "learning_curves": sweep_figures.learning_curves(trials, **named, split=split),
    "importances": sweep_figures.importances(importances),
  }
  for name, figure in figures.items():
    canvas.save(figure, folder / "figures" / f"{name}.png")
  write_whole(folder / "results.csv", _csv(order))

  parallel, curves, bars = (folder / "figures" / f"{name}.png" for name in figures)
  sections = [
    _header(title, order, metric=metric, direction=direction, split=split),
    page.section("Trials", _ranking(order, metric=metric, split=split)),
    page.section("Best trial", _best(order)),
    page.section(
      "Figures",
      page.figure(parallel, _parallel_caption(order, importances))
      + "\n"
      + page.figure(curves, _curves_caption(order, split)),
    ),
    page.section("Importances", page.figure(bars, _IMPORTANCES)),
    page.section("Environment", page.settings(dict(page.flat(environment)))),
    page.section("Command", f"<pre>{escape(command)}</pre>"),
  ]
  if len({text(trial.setting("seed")) for trial in order}) > 1:
    sections.insert(2, page.section("Over seeds", _seeds(order, direction, metric)))
  return page.write(folder / "report.html", title, sections)


# Table of results


def _csv(order: Sequence[Trial]) -> bytes:
  """One row a trial, best first, every digit; a setting that a trial leaves alone is empty."""
  keys = varied(order)
  metrics = list(dict.fromkeys(name for trial in order for name in trial.metrics))
  file = io.StringIO(newline="")
  rows = csv.writer(file, lineterminator="\n")
  rows.writerow(["id", "state", "value", "best", "step", "seconds", *keys, *metrics, "error"])
  for trial in order:
    settings = [trial.setting(key) for key in keys]
    rows.writerow(
      [
        trial.id,
        trial.state,
        trial.value,
        trial.best,
        trial.step,
        round(trial.seconds, 3),
        *("" if value is ABSENT else text(value) for value in settings),
        *(trial.metrics[name] if name in trial.metrics else "" for name in metrics),
        trial.error,
      ]
    )
  return file.getvalue().encode("utf-8", errors="replace")


# Page


def _header(
  title: str, order: Sequence[Trial], *, metric: str, direction: Direction, split: str
) -> str:
  lines = [f"{counts([trial.state for trial in order])}."]
  lines.append(
    f"Ranked by {metric} on the {split} split at the end of training: the {direction} is the best."
  )
  if split == "test":
    lines.append("As the test split chooses, the best value is better than new data would give.")
  elif any(name.startswith("test/") for trial in order for name in trial.metrics):
    lines.append("Numbers on the test split are for information; nothing was chosen by them.")
  total = sum(trial.seconds for trial in order)
  facts = [f"{duration(total)} of training in all"]
  keys = varied(order)
  common = {key: value for trial in order for key, value in trial.overrides.items()}
  facts += [
    f"{key} {text(value)} in every trial" for key, value in common.items() if key not in keys
  ]
  return (
    f"<header>\n<h1>{escape(title)}</h1>\n"
    + "".join(f"<p>{escape(line)}</p>\n" for line in lines)
    + f'<p class="faint">{escape("; ".join(facts))}.</p>\n</header>'
  )


def _ranking(order: Sequence[Trial], *, metric: str, split: str) -> str:
  if not order:
    return page.missing("There are no trials.")
  keys = varied(order)
  on_test = f"test/{metric}"
  tested = split != "test" and any(on_test in trial.metrics for trial in order)
  head = ["rank", "trial", escape(metric), "best seen"]
  head += [page.breakable(on_test)] if tested else []
  head += [*map(page.breakable, keys), "steps", "time", "state"]
  rows, rank, winner = [], 0, best_done(order)
  for trial in order:
    rank += trial.compared
    cells = [
      f"{trial.id}",
      _number(trial.value),
      _number(trial.best),
      *([_number(trial.metrics[on_test] if on_test in trial.metrics else None)] if tested else []),
      *(_setting(trial.setting(key)) for key in keys),
      f"{trial.step:,}",
      duration(trial.seconds),
    ]
    kind = ' class="best"' if trial is winner else ""
    state = ' class="alarm"' if trial.state == "failed" else ""
    rows.append(
      f"<tr{kind}><th>{rank if trial.compared else ''}</th>"
      + "".join(f"<td>{cell}</td>" for cell in cells)
      + f"<td{state}>{escape(trial.state)}</td></tr>"
    )
    if trial.last_line:
      error = escape(short(trial.last_line, 300))
      rows.append(f'<tr class="error"><td colspan="{len(head)}"><span>{error}</span></td></tr>')
  note = (
    "<p>Best seen is the best of all evaluations during training. The same rows with every digit "
    "and every number of the final evaluation are in <code>results.csv</code>.</p>\n"
  )
  return note + page.table("numbers ranking", head, rows)


def _setting(value: Any) -> str:
  if value is ABSENT:
    return '<span class="faint">default</span>'
  return escape(short(brief(value), 40))


def _number(value: float | None) -> str:
  """As `page.number`, but with zeros at the end, so that a column's digits are below each other."""
  if value is None:
    return '<span class="faint">none</span>'
  return f"{value:#.5g}".rstrip(".") if math.isfinite(value) else page.number(value)


def _best(order: Sequence[Trial]) -> str:
  winner = best_done(order)
  if winner is None:
    return page.missing("No trial is done with a finite value yet.")
  return f"<p>Trial {winner.id} overrides:</p>\n" + page.settings(winner.overrides)


def _seeds(order: Sequence[Trial], direction: Direction, metric: str) -> str:
  groups = over_seeds(order, direction)
  keys = [key for key in varied(order) if key != "seed"]
  head = ["rank", *map(page.breakable, keys), f"mean {escape(metric)}", "standard deviation", "n"]
  rows = []
  for rank, group in enumerate(groups, 1):
    settings = (group.overrides[key] if key in group.overrides else ABSENT for key in keys)
    cells = [
      *map(_setting, settings),
      _number(group.mean if group.count else None),
      _number(group.deviation),
      f"{group.count}" if group.count == group.total else f"{group.count} of {group.total}",
    ]
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    rows.append(f"<tr><th>{rank if group.count else ''}</th>{columns}</tr>")
  note = (
    "<p>Trials that differ in nothing but their seed, by their mean. n counts the seeds that are "
    "done with a finite value; the standard deviation is of single trials (divided by n - 1).</p>\n"
  )
  return note + page.table("numbers ranking", head, rows)


# Captions

_IMPORTANCES = (
  "The share of the metric's variance over the trials that each setting explains, as Optuna's "
  "fANOVA estimates it from a random forest. With few trials it is rough, and it speaks only of "
  "the ranges that were tried."
)


def _parallel_caption(order: Sequence[Trial], importances: Mapping[str, float]) -> str:
  caption = "A line is a trial: through its settings to its value. Dark is good, the best is thick."
  stopped = {trial.state for trial in order if trial.finite} - {"done", "failed"}
  if stopped:
    caption += f" Dotted: {' or '.join(sorted(stopped))}, at the last value before the end."
  if any(not trial.finite for trial in order):
    caption += " Grey dashes: without a finite value."
  _, left_out = parallel_coordinates.axes_of(order, importances)
  if "seed" in left_out:
    caption += " The seed, which was varied too, has no axis."
  others = [key for key in left_out if key != "seed"]
  if others:
    caption += f" Without an axis, as those of least importance: {', '.join(others)}."
  return caption


def _curves_caption(order: Sequence[Trial], split: str) -> str:
  caption = f"On the {split} split, coloured by rank, the best labelled with number and value."
  if any(trial.state == "pruned" for trial in order):
    caption += " A pruned trial ends at its bar."
  return caption
