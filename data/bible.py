"""The King James Bible, as the program of Debian's package prints it, a verse a line."""

import functools
import pathlib
import re
import shutil
import subprocess
from typing import NamedTuple

from data import source

_COMMAND = ("bible", "-f", "gen1:1-rev22:21")
_VERSE = re.compile(r"(\d?[A-Za-z]+)(\d+):\d+ (.*)")
_SECONDS = 60  # in which it has printed all; it takes less than one
_BOOKS, _CHAPTERS, _VERSES = 66, 1189, 31102


class Chapter(NamedTuple):
  """A chapter: the book it is of, and its verses."""

  book: str
  verses: tuple[str, ...]

  @property
  def text(self) -> str:
    """Its verses, a line each."""
    return "".join(f"{verse}\n" for verse in self.verses)


def parse(text: str, *, file: str) -> tuple[Chapter, ...]:
  """The chapters of lines such as "Ge1:1 In the beginning".

  Raises:
    ValueError: a line is no verse; it names `file`.
  """
  found: dict[tuple[str, str], list[str]] = {}
  for number, line in enumerate(text.splitlines(), 1):
    verse = _VERSE.fullmatch(line.strip())
    if verse is None:
      raise ValueError(f"{file}:{number}: not a verse such as 'Ge1:1 In the': {line[:60]!r}")
    found.setdefault((verse[1], verse[2]), []).append(verse[3])
  return tuple(Chapter(book, tuple(verses)) for (book, _), verses in found.items())


@functools.cache
def chapters() -> tuple[Chapter, ...]:
  """All 1,189, in the order of the book.

  Raises:
    FileNotFoundError: the program is not installed; it says how to get it.
    ValueError: it failed, or printed another text.
  """
  program = shutil.which(_COMMAND[0])
  if program is None:
    raise FileNotFoundError(
      "the King James Bible is packaged by Debian: `apt-get install bible-kjv bible-kjv-text`"
    )
  with source.naming(program, "printed no text"):
    done = subprocess.run(
      [program, *_COMMAND[1:]], capture_output=True, encoding="utf-8", check=False, timeout=_SECONDS
    )
  if done.returncode:
    raise ValueError(f"{program}: failed with status {done.returncode}: {done.stderr[:200]}")
  found = parse(done.stdout, file=pathlib.Path(program).name)
  counts = (
    len({chapter.book for chapter in found}),
    len(found),
    sum(len(chapter.verses) for chapter in found),
  )
  if counts != (_BOOKS, _CHAPTERS, _VERSES):
    raise ValueError(
      f"{program}: found {counts[2]} verses of {counts[1]} chapters of {counts[0]} books, "
      f"expected {_VERSES} of {_CHAPTERS} of {_BOOKS}"
    )
  return found
