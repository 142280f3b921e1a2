"""What a terminal shows of a sweep: plain lines, the live table, the table of results."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from report.trials import Trial
from sweeps import display
from sweeps.display import Live, Row, terminal_table

SETTINGS = {"optimizer.learning_rate": 0.00031622776601, "task.beta": 4.0}


def _row(number=0, state="running", *, step=10, error="", overrides=SETTINGS, eta=90.0) -> Row:
  value = None if state == "pending" else 20.5 + number
  best = None if value is None else value - 0.25
  return Row(number, state, step, 100, value, best, eta, overrides, error)


def _trial(number, value, state="done", overrides=None, error="") -> Trial:
  overrides = {"task.beta": float(number)} if overrides is None else overrides
  return Trial(number, overrides, state, value, value, 100, 12.0, error, [], {})


@pytest.fixture
def clock(monkeypatch):
  """A clock that a test moves."""
  now = [1000.0]
  monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
  return now


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def _printed(table, width=100) -> str:
  console = Console(width=width, file=io.StringIO(), force_terminal=False)
  console.print(table)
  return console.file.getvalue()


def test_elsewhere_a_line_is_printed_when_a_trial_changes_state(clock, capsys):
  live = Live("loss")
  live.update([_row(0, "done"), _row(1, step=0), _row(2, "pending")], "one")
  assert capsys.readouterr().out.splitlines() == [  # trial 0 was done in an earlier session
    "trial 1: running  loss 21.5  best 21.25  learning_rate 0.0003162, beta 4"
  ]
  live.update([_row(0, "done"), _row(1, step=50), _row(2, "pending")], "one")
  assert capsys.readouterr().out == ""
  failed = _row(2, "failed", error="Traceback\n  there\nMemoryError: too [red]large[/red]\n")
  live.update([failed, _row(1, "done", step=100), _row(0, "done")], "two")
  assert capsys.readouterr().out.splitlines() == [
    "trial 1: done  100/100  loss 21.5  best 21.25  learning_rate 0.0003162, beta 4",
    "trial 2: failed  10/100  loss 22.5  best 22.25  learning_rate 0.0003162, beta 4  "
    "MemoryError: too [red]large[/red]",
  ]


def test_elsewhere_progress_is_said_at_most_every_ten_seconds(clock, capsys):
  live = Live("loss")
  for second in range(36):
    clock[0] = 1000.0 + second
    live.update([_row(overrides={})], f"summary at {second}")
  out = capsys.readouterr().out.splitlines()
  assert out[1:] == ["summary at 10", "summary at 20", "summary at 30"]
  live.close()
  assert capsys.readouterr().out.splitlines() == ["summary at 35"]
  again = Live("loss")
  again.close()
  assert capsys.readouterr().out == ""


def test_a_terminal_shows_a_table_that_fits_it(monkeypatch):
  for name, value in dict(TERM="xterm", COLUMNS="100", LINES="20").items():
    monkeypatch.setenv(name, value)
  terminal = _Terminal()
  monkeypatch.setattr(sys, "stdout", terminal)
  live = Live("loss")
  pending = [_row(number, "pending", step=0) for number in range(40)]
  live.update(pending, "")
  running = [_row(number) for number in range(20)]
  live.update([*running, *pending[20:]], "0 of 40 done")
  ended = [_row(0, "done", step=100), _row(1, "failed", error="Boom [bold]"), *running[2:]]
  terminal.seek(0)
  terminal.truncate()
  live.update([*ended, *pending[20:]], "1 of 40 done")
  text = " ".join(terminal.getvalue().split())  # before the end, when nothing may be cropped
  live.close()
  assert "Boom [bold]" in text  # above the table, not read as markup
  for expected in ("trial", "left", "1 min 30 s", "10/100", "1 of 40 done", "20.5", "20.25"):
    assert expected in text
  assert "learning_rate 0.0003162, beta 4" in text
  # Twelve rows fit: the newest result and those that run, the rest is counted.
  assert "… and 28 more: 1 done, 7 running, 20 pending" in text
  assert "\x1b[" in text


def test_the_newest_results_stay_in_the_live_table():
  finished = [_row(number, "done") for number in range(8)]
  rows = [*finished, _row(8), _row(9, "pending")]
  shown, hidden = display._chosen(rows, [7, 0, 1, 2, 3, 4, 5], 12)
  assert [row.id for row in shown] == [1, 2, 3, 4, 5, 8]
  assert hidden == {"done": 3, "pending": 1}
  shown, _ = display._chosen([_row(n) for n in range(30)] + [_row(30, "done")], [30], 4)
  assert [row.id for row in shown] == [30, 0, 1, 2]


def test_the_results_are_ranked_and_the_rest_counted():
  trials = [_trial(number, 100.0 - number) for number in range(30)]
  trials[29] = _trial(29, None, "failed", error="Traceback\n  x\nOSError: [red]disk[/red] full")
  text = _printed(terminal_table(trials, metric="loss", direction="least"))
  lines = [line.split() for line in text.splitlines()]
  rows = [line for line in lines if line and line[0].isdecimal()]
  assert [int(row[0]) for row in rows] == list(range(28, 8, -1))
  assert rows[0] == ["28", "done", "72", "100", "12", "s", "28"]
  assert "… and 10 more" in text
  assert "trial 29 failed: OSError: [red]disk[/red] full" in " ".join(text.split())
  greatest = _printed(terminal_table(trials, metric="loss", direction="greatest", rows=3))
  assert [line.split()[0] for line in greatest.splitlines()[3:6]] == ["0", "1", "2"]


@pytest.mark.parametrize("settings", [3, 12])
def test_a_table_of_results_is_at_most_a_hundred_columns_wide_and_loses_nothing(settings):
  trials = [
    _trial(n, n / 7, overrides={f"model.setting_{k}": f"value{n}x{k}" for k in range(settings)})
    for n in range(3)
  ]
  text = _printed(terminal_table(trials, metric="loss", direction="least"), width=200)
  assert max(map(len, text.splitlines())) <= 100
  for n in range(3):
    for k in range(settings):
      assert f"value{n}x{k}" in text


@pytest.mark.parametrize("state", ["timeout", "interrupted", "running", "pending", "pruned"])
def test_trials_in_every_state_have_a_row(state):
  text = _printed(terminal_table([_trial(0, None, state)], metric="loss", direction="least"))
  assert state in text


def test_a_sweep_of_nothing_has_a_table():
  assert "loss" in _printed(terminal_table([], metric="loss", direction="least"))


def test_importing_the_display_loads_neither_rich_nor_matplotlib():
  code = (
    "import sys; import sweeps.display;"
    "assert not {'rich', 'matplotlib', 'jax'} & set(sys.modules), sorted(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
