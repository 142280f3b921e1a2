"""Verses of the King James Bible as words, each with its characters: for models that read both.

A word is a run of letters, with an apostrophe perhaps, or one other sign. A verse goes between
<bos> and <eos>, which have characters of their own, and is cut where it is longer than a row. Words
that are told are the commonest of the training verses; the rest are <unk> there, but their
characters are always read.

A word's characters are its bytes, between 258 and 259 and cut to fit; <bos> is 258 256 259, <eos>
258 257 259 (as in the code of Peters et al. 2018).

Held out are whole chapters, as in data/text.py. The rows are shuffled once, so that the first so
many are a fair sample; `label` is which of six parts of the Bible the verse's book is of.
"""

import collections
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from data import bible, source
from data.text import held_out
from data.verses import GENRES

_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|[^\sA-Za-z]")
_PARTS = ("train", "validation", "test")
_SPECIAL = ("<bos>", "<eos>", "<unk>")
_BOS, _EOS, _UNK = range(len(_SPECIAL))
_TEXT_BEGIN, _TEXT_END, _WORD_BEGIN, _WORD_END = range(256, 260)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`words` int32 [length], `characters` int32 [length, characters], `label` int32; -1 is padding.

  Attributes:
    dataset: which text.
    vocabulary: words that are told, <bos>, <eos> and <unk> among them.
    length: words of a row, <bos> and <eos> among them.
    characters: of a word, its two marks among them.
    validation: of the chapters, the share held out for validation.
    test: the share held out for testing.
    train_examples: keep only the first so many verses to train on; 0 for all.
    test_examples: likewise to test on, and to validate on.
  """

  dataset: Literal["kjv"] = "kjv"
  vocabulary: Annotated[int, "[4, inf)"] = 5000
  length: Annotated[int, "[3, inf)"] = 48
  characters: Annotated[int, "[3, inf)"] = 50
  validation: Annotated[float, "[0, 1)"] = 0.05
  test: Annotated[float, "[0, 1)"] = 0.05
  train_examples: Annotated[int, "[0, inf)"] = 0
  test_examples: Annotated[int, "[0, inf)"] = 0

  @property
  def class_names(self) -> tuple[str, ...]:
    return tuple(GENRES)

  def facts(self) -> Mapping[str, Any]:
    return {"vocabulary": self.vocabulary, "classes": len(GENRES)}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return {
      "words": jax.ShapeDtypeStruct((self.length,), np.int32),
      "characters": jax.ShapeDtypeStruct((self.length, self.characters), np.int16),
      "label": jax.ShapeDtypeStruct((), np.int32),
    }

  def tokenizers(self) -> Mapping[str, "Words"]:
    return {"words": self._words}

  def conditions(self) -> Mapping[str, str]:
    cut = {name: int(self._rows[name][1]) for name in _PARTS}
    longer = ", ".join(f"{name} {count}" for name, count in cut.items())
    return {"words that are told": str(self.vocabulary), "verses cut to a row": longer}

  @functools.cached_property
  def _verses(self) -> dict[str, list[tuple[list[str], int]]]:
    """(words, label) of every verse, by part."""
    chapters = bible.chapters()
    books = {book: i for i, book in enumerate(dict.fromkeys(c.book for c in chapters))}
    label = np.repeat(np.arange(len(GENRES)), list(GENRES.values()))
    parts = held_out(chapters, self.validation, self.test)
    found = {}
    for part, kept in parts.items():
      rows = [(split(verse), int(label[books[c.book]])) for c in kept for verse in c.verses]
      order = np.random.RandomState(0).permutation(len(rows))
      found[part] = [rows[i] for i in order]
    return found

  @functools.cached_property
  def _words(self) -> "Words":
    return Words(common((words for words, _ in self._verses["train"]), self.vocabulary))

  @functools.cached_property
  def _rows(self) -> dict[str, tuple[dict[str, np.ndarray], int]]:
    """The arrays of every part, and how many of its verses are longer than a row."""
    found = {}
    for part, verses in self._verses.items():
      most = self.train_examples if part == "train" else self.test_examples
      verses = verses[: most or None]
      texts = [["<bos>", *words[: self.length - 2], "<eos>"] for words, _ in verses]
      arrays = {
        "words": np.full((len(verses), self.length), -1, np.int32),
        "characters": np.full((len(verses), self.length, self.characters), -1, np.int16),
        "label": np.array([label for _, label in verses], np.int32),
      }
      spelled = functools.cache(functools.partial(spell, characters=self.characters))
      for row, text in enumerate(texts):
        arrays["words"][row, : len(text)] = [self._words.index(word) for word in text]
        arrays["characters"][row, : len(text)] = [spelled(word) for word in text]
      found[part] = arrays, sum(len(words) > self.length - 2 for words, _ in verses)
    return found

  def split(self, name: str) -> source.Split:
    return source.Arrays(self._rows[name][0])

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    return {**batch, "characters": batch["characters"].astype(jnp.int32)}

  def fingerprint(self) -> str:
    digest = hashlib.sha256()
    for name in _PARTS:
      for key, array in self.split(name).arrays.items():
        digest.update(f"{name} {key} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


class Words:
  """The words that are told, as a tokenizer."""

  bos, eos = _BOS, _EOS

  def __init__(self, words: Sequence[str]):
    self._names = (*_SPECIAL, *words)
    self._ids = {word: index for index, word in enumerate(self._names)}

  @property
  def size(self) -> int:
    return len(self._names)

  def index(self, word: str) -> int:
    return self._ids[word] if word in self._ids else _UNK

  def encode(self, text: str) -> list[int]:
    return [self.index(word) for word in split(text)]

  def decode(self, ids: Iterable[int]) -> str:
    return " ".join(self._names[i] for i in ids if i > _EOS)

  def token(self, index: int) -> str:
    return self._names[index]


def split(text: str) -> list[str]:
  """The words of a text."""
  return _WORD.findall(text)


def common(texts: Iterable[Sequence[str]], vocabulary: int) -> list[str]:
  """The commonest words, as many as `vocabulary` has room for beside the special ones.

  Raises:
    ValueError: there are fewer.
  """
  counts = collections.Counter(word for text in texts for word in text)
  ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
  room = vocabulary - len(_SPECIAL)
  if len(ordered) < room:
    raise ValueError(f"data.vocabulary={vocabulary}, but the verses have {len(ordered)} words")
  return [word for word, _ in ordered[:room]]


def spell(word: str, characters: int) -> np.ndarray:
  """int16 [characters] a word's bytes between its marks, -1 where there are none."""
  inside = {"<bos>": [_TEXT_BEGIN], "<eos>": [_TEXT_END]}
  own = inside[word] if word in inside else list(word.encode())[: characters - 2]
  ids = [_WORD_BEGIN, *own, _WORD_END]
  return np.array(ids + [-1] * (characters - len(ids)), np.int16)
