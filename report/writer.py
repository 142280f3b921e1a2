"""What a run is logged through, and the pixels of what it draws."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Writer(Protocol):
  """Takes the numbers and pictures of a run, by step."""

  def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Logs the metrics of one split at one step.

    Args:
      step: the step they belong to.
      split: "train", "validation" or "test".
      values: numbers by the name of the metric.
    """

  def image(self, tag: str, figure_or_array: Any, step: int) -> None:
    """Logs one picture.

    Args:
      tag: its name.
      figure_or_array: what `pixels` takes.
      step: the step it belongs to.
    """

  def close(self) -> None:
    """Writes what is pending; closing twice is harmless."""


class Several(Writer):
  """Forwards to each of its writers."""

  def __init__(self, writers: Sequence[Writer]):
    self._writers = tuple(writers)

  def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Logs the metrics of one split at one step, everywhere."""
    for writer in self._writers:
      writer.scalars(step, split, values)

  def image(self, tag: str, figure_or_array: Any, step: int) -> None:
    """Logs one picture everywhere; a figure is drawn once."""
    drawn = pixels(tag, figure_or_array)
    for writer in self._writers:
      writer.image(tag, drawn, step)

  def close(self) -> None:
    """Closes every writer, whether or not another one fails to."""
    with contextlib.ExitStack() as stack:
      for writer in reversed(self._writers):
        stack.callback(writer.close)


def pixels(tag: str, figure_or_array: Any) -> np.ndarray:
  """A picture as bytes.

  Args:
    tag: its name, for the message.
    figure_or_array: a matplotlib Figure, or an array [H, W] or [H, W, C], C 1 or 3: uint8, or
      floats in [0, 1].

  Returns:
    uint8 array [H, W, 3].

  Raises:
    ValueError: the array has no such shape.
  """
  if hasattr(figure_or_array, "savefig"):
    from report import canvas  # matplotlib is loaded only by a run that draws

    return canvas.pixels(figure_or_array)
  array = np.asarray(figure_or_array)
  if array.ndim == 2:
    array = array[..., None]
  if array.ndim != 3 or array.shape[-1] not in (1, 3):
    raise ValueError(f"{tag}: an image is [H, W] or [H, W, C], C 1 or 3; got {array.shape}")
  if array.dtype != np.uint8:
    # Clipped and rounded here, because a writer would wrap 1.01 around to black.
    scaled = np.clip(np.nan_to_num(array.astype(np.float32)), 0, 1) * 255
    array = np.rint(scaled).astype(np.uint8)
  return np.repeat(array, 3 // array.shape[-1], axis=-1)
