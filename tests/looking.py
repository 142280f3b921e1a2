"""Figures and pages as somebody sees them who opens them; shared by the tests of the reports."""

import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from report import figures


def opened(figure) -> np.ndarray:
  """The figure as a PNG that was written and read again, with the checks that all share."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=figures.DPI)
  buffer.seek(0)
  with Image.open(buffer) as image:
    array = np.asarray(image.convert("RGB"))
  assert array.std() > 1, "the picture is of one colour"
  assert min(array.shape[:2]) >= 60
  assert max(array.shape[:2]) <= 2600
  return array


def clear_border(array: np.ndarray) -> bool:
  """Whether the outermost pixels are white, which they are not where a text is cut off."""
  edges = (array[:2], array[-2:], array[:, :2], array[:, -2:])
  return all((edge == 255).all() for edge in edges)


class Page(HTMLParser):
  """What a browser would find in a page: tags with their attributes, and its text."""

  def __init__(self, text: str):
    super().__init__()
    self.tags: list[tuple[str, dict[str, str | None]]] = []
    self.text = ""
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self.text += "" if tag in ("wbr", "code", "b") else "\n"

  def handle_data(self, data):
    self.text += data

  def having(self, tag: str) -> list[dict[str, str | None]]:
    return [attributes for name, attributes in self.tags if name == tag]
