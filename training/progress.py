"""What a person sees while a run runs: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time

_SILENCE = 1.0  # seconds between plain lines


class Progress:
  """Progress over the steps of a stage.

  Args:
    total: the stage's last step.
    name: of the stage, or empty.
    start: the step that the run begins or goes on at.
    examples: read by one step.
  """

  def __init__(self, total: int, *, name: str, start: int, examples: int):
    self._total, self._name, self._examples = total, name or "training", examples
    self._start, self._began, self._printed = start, None, 0.0
    self._bar = None
    if sys.stdout.isatty():
      from rich import progress  # a tenth of a second that --help need not pay

      self._bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[shown]}"),
      )
      self._task = self._bar.add_task(self._name, total=total, completed=start, shown="compiling…")
      self._bar.start()

  @contextlib.contextmanager
  def compiling(self):
    """While the step is compiled and first run; the clock of examples/s starts afterwards."""
    before = time.perf_counter()
    if self._bar is None:
      print(f"{self._name}: compiling…", flush=True)
    yield
    self._began = time.perf_counter()
    self._start += 1
    text = f"{self._name}: first step after {self._began - before:.1f} s"
    if self._bar is None:
      print(text, flush=True)
    else:
      self._bar.console.print(text, highlight=False)

  def rate(self, step: int) -> float:
    """Examples per second since the first step."""
    elapsed = time.perf_counter() - self._began
    return (step - self._start) * self._examples / elapsed if elapsed > 0 else 0.0

  def advance(self, step: int, row: dict[str, float]):
    """The run has come to `step`, with `row` as its newest metrics."""
    rate = self.rate(step)
    losses_first = sorted(row.items(), key=lambda item: not item[0].endswith("loss"))
    metrics = [f"{k} {v:.4g}" for k, v in losses_first if not k.endswith("learning_rate")]
    shown = "  ".join([*metrics[:4], f"{rate:,.0f} examples/s"])
    if self._bar is not None:
      self._bar.update(self._task, completed=step, shown=shown)
    elif step == self._total or time.perf_counter() - self._printed > _SILENCE:
      self._printed = time.perf_counter()
      left = (self._total - step) * self._examples / rate if rate else 0.0
      print(f"{self._name}: {step}/{self._total}  {shown}  {left:.0f} s left", flush=True)

  def warn(self, sentence: str):
    """One line on the terminal, whatever is drawn there."""
    if self._bar is None:
      print(f"warning: {sentence}", file=sys.stderr, flush=True)
    else:
      self._bar.console.print(f"warning: {sentence}", style="yellow", highlight=False, markup=False)

  def close(self):
    if self._bar is not None:
      self._bar.stop()
