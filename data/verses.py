"""Labelled text made of the King James Bible: what GLUE asks, without its files.

Single texts, like CoLA and SST-2:

  genre       a verse; which of six parts of the Bible it is of
  testament   a verse; of which testament it is

Pairs, like MRPC, QNLI, RTE and, with a number instead of a class, STS-B:

  next        two verses; whether the second follows the first in its chapter. Of every verse with
              one after it there is one pair, at random the true one or one with a verse of another
              chapter
  overlap     a verse, and the same with some of its words replaced; 5 |A and B| / |A or B| of their
              sets of words (Jaccard 1912), which is 0 where they share no word and 5 where all. The
              share of places replaced is drawn uniformly in [0, 1] for each verse, the words that
              take them from a verse of another chapter

Random draws depend on the chapter and the verse alone, so that a part is the same whatever else is
held out; foreign verses are of the same part.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data.marked import Chapter

GENRES = {  # how many books, in the Bible's order
  "law": 5,
  "history": 12,
  "wisdom": 5,
  "prophets": 17,
  "gospels and acts": 5,
  "epistles and revelation": 22,
}
TESTAMENTS = {"old": 39, "new": 27}
SETS = ("genre", "testament", "next", "overlap")
_WORD = re.compile(r"\w+")


class Example(NamedTuple):
  """One text or two, and what is to be told of them.

  Attributes:
    texts: one, or the pair.
    label: a class, or a number.
    mismatched: whether it is of MNLI's second part to test on.
  """

  texts: tuple[str, ...]
  label: int | float
  mismatched: bool = False


def examples(kind: str, chapters: Sequence[Chapter]) -> list[Example]:
  """All examples of some chapters, in their order."""
  if kind in ("genre", "testament"):
    sizes = list((GENRES if kind == "genre" else TESTAMENTS).values())
    label = np.repeat(np.arange(len(sizes)), sizes)  # of a book
    return [Example((verse,), int(label[c.book])) for c in chapters for verse in c.verses]
  make = _follows if kind == "next" else _overlapping
  return [example for place in range(len(chapters)) for example in make(chapters, place)]


def class_names(kind: str) -> tuple[str, ...]:
  """Of the labels, in their order; none of a number."""
  return {
    "genre": tuple(GENRES),
    "testament": tuple(TESTAMENTS),
    "next": ("random", "next"),
    "overlap": (),
  }[kind]


def _follows(chapters: Sequence[Chapter], place: int):
  chapter = chapters[place]
  generator = np.random.default_rng([0, chapter.number])
  for first, second in zip(chapter.verses, chapter.verses[1:], strict=False):
    is_next = int(generator.integers(2))
    yield Example((first, second if is_next else foreign(chapters, place, generator)), is_next)


def _overlapping(chapters: Sequence[Chapter], place: int):
  generator = np.random.default_rng([1, chapters[place].number])
  for verse in chapters[place].verses:
    words = verse.split(" ")
    others = foreign(chapters, place, generator).split(" ")
    replaced = generator.random(len(words)) < generator.random()
    drawn = generator.integers(len(others), size=len(words))
    changed = [others[i] if r else w for w, i, r in zip(words, drawn, replaced, strict=True)]
    pair = verse, " ".join(changed)
    yield Example(pair, 5 * overlap(*pair))


def overlap(one: str, other: str) -> float:
  """|A and B| / |A or B| of the sets of words, capitals aside; 0 where there are none."""
  a, b = (set(_WORD.findall(words.lower())) for words in (one, other))
  return len(a & b) / max(len(a | b), 1)


def foreign(chapters: Sequence[Chapter], place: int, generator: np.random.Generator) -> str:
  """A verse of another chapter, each chapter being as likely.

  Raises:
    ValueError: there is no other.
  """
  if len(chapters) < 2:
    raise ValueError("one chapter has no verses of another: hold out more or nothing")
  other = (place + 1 + int(generator.integers(len(chapters) - 1))) % len(chapters)
  verses = chapters[other].verses
  return verses[int(generator.integers(len(verses)))]
