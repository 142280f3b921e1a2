"""Event files for TensorBoard; the package that writes them is imported only when one is opened."""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report.writer import Writer, pixels


class Events(Writer):
  """Writes scalars and images under `workdir`/tensorboard.

  Each split is a run of its own there ("train", "validation", "test"; images are in "figures"), so
  TensorBoard draws the splits of a metric into one chart.
  """

  def __init__(self, workdir: str | os.PathLike[str], purge_step: int | None = None):
    """Opens event files in `workdir`, beside those of earlier processes.

    Args:
      workdir: the folder of the run.
      purge_step: the first step that will be logged again, which is the restored step plus one.
        What earlier processes logged at this step or later is removed. None removes nothing.
    """
    self._folder = Path(workdir) / "tensorboard"
    self._purge_step = purge_step
    self._writers: dict[str, Any] = {}
    self._closed = False
    if purge_step is not None:
      # Now and not at the first write: a split that is not logged again is stale all the same. The
      # session that each writer announces makes a TensorBoard that is open forget the points; its
      # faster data server does not listen to sessions, so they also leave the files.
      stale = sorted(self._folder.glob("*/*tfevents*"))
      for path in stale:
        _remove_from(path, purge_step)
      for name in sorted({path.parent.name for path in stale}):
        self._writer(name)

  def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Logs the metrics of one split at one step.

    Args:
      step: the step they belong to.
      split: "train", "validation" or "test".
      values: numbers by the name of the metric.
    """
    writer = self._writer(split)
    for name, value in values.items():
      writer.add_scalar(name, float(value), step)

  def image(self, tag: str, figure_or_array: Any, step: int) -> None:
    """Logs one picture.

    Args:
      tag: its name.
      figure_or_array: what `report.writer.pixels` takes.
      step: the step it belongs to.

    Raises:
      ValueError: the array has no shape of a picture.
    """
    array = pixels(tag, figure_or_array)
    self._writer("figures").add_image(tag, array, step, dataformats="HWC")

  def close(self) -> None:
    """Writes what is pending and closes the files; closing twice is harmless."""
    for writer in self._writers.values():
      writer.close()
    self._writers.clear()
    self._closed = True

  def _writer(self, name: str) -> Any:
    if self._closed:
      raise ValueError("these events are closed")
    if name not in self._writers:
      from tensorboardX import SummaryWriter

      folder = self._folder / name
      # The package names files by the second: without a number of our own, a process that resumes
      # within it would truncate the file of the one before. TensorBoard reads them in name order.
      number = len(list(folder.glob("*tfevents*")))
      # TensorBoard hides nothing at the first session that it finds, so the first process has to
      # announce one too, or the first resumption would be taken for the start.
      purge_step = 0 if number == 0 else self._purge_step
      self._writers[name] = SummaryWriter(
        str(folder), purge_step=purge_step, filename_suffix=f".{number:06d}"
      )
    return self._writers[name]


def _remove_from(path: Path, step: int) -> None:
  """Rewrites an event file without the summaries of `step` and later."""
  from tensorboardX.proto.event_pb2 import Event

  data = path.read_bytes()
  kept, start = [], 0
  # A record is the length of its event, a checksum of that, the event, and a checksum of the event.
  while start + 12 <= len(data):
    (length,) = struct.unpack_from("<Q", data, start)
    end = start + 16 + length
    if end > len(data):
      break  # torn, as a kill leaves it
    event = Event.FromString(data[start + 12 : end - 4])
    if not (event.HasField("summary") and event.step >= step):
      kept.append(data[start:end])
    start = end
  temporary = path.with_name(f".{path.name.replace('tfevents', 'rewritten')}.tmp")
  temporary.write_bytes(b"".join(kept))
  os.replace(temporary, path)
