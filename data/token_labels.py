"""A class for every word of a text: tags of one's own files, or which words of the Bible had
capitals.

  kjv_case   verses in small letters; whether a word began with a capital. The first word of a
             verse, which always does, is not asked for
  conll      files a word a line, its columns between tabs or spaces, the word the first of them and
             the tag the last; an empty line ends a sentence, and "-DOCSTART-" is none (Tjong Kim
             Sang & De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task")

A word's class stands at its first token; its other tokens have none (Devlin et al. 2019, "BERT",
arXiv:1810.04805, section 5.3). Words beyond a row are cut off, and counted.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from data import marked, text
from data.tokenizers import Encoded

_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")


class Sentence(NamedTuple):
  """A text, where its words lie in it, and their classes, -1 where one is not asked for."""

  text: str
  words: tuple[tuple[int, int], ...]
  labels: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(marked.Marked):
  """`tokens` int32 [T], -1 behind; `labels` int32 [T], -1 at tokens that have none.

  Attributes:
    dataset: "kjv_case" or "conll".
    path: of "conll": the file that is trained on.
    test_path: of "conll": the file that is tested on; empty holds some of the first out.
    labels: of "conll": the tags, in the order of the classes; the first is the one of words that
      are nothing in particular ("O").
  """

  dataset: Literal["kjv_case", "conll"]
  path: str = ""
  test_path: str = ""
  labels: tuple[str, ...] = ()

  def __post_init__(self):
    if self.dataset == "conll" and not (self.path and len(self.labels) > 1):
      raise ValueError("dataset='conll' is of files: give path, and labels")
    super().__post_init__()

  @property
  def class_names(self) -> tuple[str, ...]:
    return ("small", "capital") if self.of_bible else self.labels

  @property
  def of_bible(self) -> bool:
    return self.dataset == "kjv_case"

  def facts(self) -> Mapping[str, Any]:
    return {**super().facts(), "classes": len(self.class_names)}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return {"tokens": self.row(), "labels": self.row()}

  def texts_of(self, example: Sentence) -> Sequence[str]:
    return (example.text,)

  @functools.cached_property
  def examples(self) -> Mapping[str, Sequence[Sentence]]:
    if self.of_bible:
      return {
        name: [uncased(verse) for chapter in part for verse in chapter.verses]
        for name, part in self.chapters.items()
      }
    found: dict[str, list[Sentence]] = {name: [] for name in marked.PARTS}
    share = 0.0 if self.test_path else self.test
    for sentence in read_conll(self.path, self.labels):
      place = marked.hashed((sentence.text,)) - self.validation
      found["validation" if place < 0 else "test" if place < share else "train"].append(sentence)
    if self.test_path:
      found["test"] = read_conll(self.test_path, self.labels)
    return found

  def rows(self, examples: Sequence[Sentence]) -> marked.Rows:
    arrays = {name: np.full((len(examples), self.length), -1, np.int32) for name in self.spec()}
    encoded = self.tokenizers()["tokens"].encode_all([example.text for example in examples])
    cut = 0
    for row, (example, one) in enumerate(zip(examples, encoded, strict=True)):
      tokens, _, longer = self.paired(one.ids.tolist())
      arrays["tokens"][row] = tokens
      cut += longer
      kept = self.length - 2
      for token, label in first_tokens(example, one):
        if token < kept:
          arrays["labels"][row, 1 + token] = label
    return marked.Rows(arrays, cut, sum(one.unknown for one in encoded), {})


def uncased(verse: str) -> Sentence:
  """A verse in small letters, with which of its words but the first had a capital."""
  words = [match.span() for match in _WORD.finditer(verse)]
  labels = [int(verse[start].isupper()) for start, _ in words]
  return Sentence(verse.lower(), tuple(words), (-1, *labels[1:])[: len(words)])


def first_tokens(example: Sentence, encoded: Encoded) -> list[tuple[int, int]]:
  """(token, class) of every word: its first token, unless that is already an earlier word's."""
  where_N2 = marked.spans(example.text, encoded)
  found, after = [], 0
  for (start, stop), label in zip(example.words, example.labels, strict=True):
    # The first token with a letter of the word; one of white space alone ends where it begins.
    while after < len(where_N2) and (
      where_N2[after, 1] <= start or where_N2[after, 0] >= where_N2[after, 1]
    ):
      after += 1
    if after < len(where_N2) and where_N2[after, 0] < stop:
      found.append((after, label))
      after += 1
  return found


def read_conll(path: str, labels: Sequence[str]) -> list[Sentence]:
  """The sentences of a file.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: a line has no tag, or one that is none of `labels`; it names the line.
  """
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise FileNotFoundError(f"{path}: no such file")
  found: list[list[tuple[str, int]]] = [[]]
  for number, line in enumerate(text.read_utf8(file).split("\n"), 1):
    fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
    if not line.strip() or fields[0] == "-DOCSTART-":
      found.append([])
      continue
    if len(fields) < 2 or not fields[0] or fields[-1] not in labels:
      raise ValueError(f"{path}:{number}: {line[:60]!r} is no word and one of {', '.join(labels)}")
    found[-1].append((fields[0], labels.index(fields[-1])))
  if not any(found):
    raise ValueError(f"{path}: found no sentence")
  return [_sentence(*zip(*words, strict=True)) for words in found if words]


def _sentence(words: Sequence[str], labels: Sequence[int]) -> Sentence:
  stops = np.cumsum([len(word) + 1 for word in words]) - 1
  spans = tuple((int(stop) - len(word), int(stop)) for word, stop in zip(words, stops, strict=True))
  return Sentence(" ".join(words), spans, tuple(labels))
