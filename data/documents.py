"""Documents as counts of words: the chapters of the King James Bible by book.

1,189 chapters of 66 books, the book being a chapter's topic. Debian packages the text with a
program that prints it, a verse a line. The set has no split of its own: a permutation of seed 0
gives the first 832 chapters to training and the last 357 to testing.

The vocabulary is the `words` words in most of the chapters trained on, but for those in more than
half of them, which say nothing of a topic (Hinton & Salakhutdinov 2006 took the 2,000 commonest
word stems of Reuters stories, without a list of stop words).

A model sees `document`, the square roots of the proportions of its words, as the dot product of two
such vectors compares two distributions (Bhattacharyya 1943), times sqrt(words) / 10, which brings
them to the order of 1. While training, words may be dropped from it, each at random, so that the
rest must tell what the document is about.
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

_BOOKS, _TRAIN = 66, 832
_WORD = re.compile(r"[a-z]+")
_MOST = 0.5  # of the documents, that a word of the vocabulary may be in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`counts` float32 [words] and `label` int32; a model sees `document` besides.

  Attributes:
    dataset: which corpus.
    words: of the vocabulary.
    validation: documents held out for validation off the end of the training part.
    word_dropout: probability that all occurrences of a word are dropped from a `document` while
      training; those left are not rescaled.
  """

  dataset: Literal["kjv"]
  words: Annotated[int, "[1, inf)"] = 2000
  validation: Annotated[int, "[0, 831]"] = 0
  word_dropout: Annotated[float, "[0, 1)"] = 0.0

  @property
  def class_names(self) -> tuple[str, ...]:
    return _load()[1]

  def facts(self) -> Mapping[str, Any]:
    return {"data_shape": (self.words,), "classes": _BOOKS}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return {
      "counts": jax.ShapeDtypeStruct((self.words,), np.float32),
      "label": jax.ShapeDtypeStruct((), np.int32),
    }

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    documents, names = _load()
    order = np.random.RandomState(0).permutation(len(documents))
    middle = _TRAIN - self.validation
    rows = {
      "train": order[:middle],
      "validation": order[middle:_TRAIN],
      "test": order[_TRAIN:],
    }
    chosen = vocabulary([documents[row][1] for row in rows["train"]], self.words)
    label = {name: index for index, name in enumerate(names)}
    return {
      part: source.Arrays(
        {
          "counts": counts([documents[row][1] for row in chosen_rows], chosen),
          "label": np.array([label[documents[row][0]] for row in chosen_rows], np.int32),
        }
      )
      for part, chosen_rows in rows.items()
    }

  def split(self, name: str) -> source.Split:
    return self._splits[name]

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    counts_BV = batch["counts"]
    total_B1 = jnp.maximum(counts_BV.sum(-1, keepdims=True), 1.0)
    document_BV = jnp.sqrt(counts_BV / total_B1 * (self.words / 100))
    if train:
      keep = lambda key: jax.random.bernoulli(key, 1 - self.word_dropout, (self.words,))  # noqa: E731
      document_BV = jnp.where(jax.vmap(keep)(keys), document_BV, 0.0)
    return {**batch, "document": document_BV}

  def fingerprint(self) -> str:
    digest = hashlib.sha256(repr(self.word_dropout).encode())
    for name in ("train", "validation", "test"):
      for array in self.split(name).arrays.values():
        digest.update(f"{name} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def vocabulary(documents: Sequence[Sequence[str]], words: int) -> dict[str, int]:
  """The `words` words in most documents, but not in more than half of them, to their columns.

  Raises:
    ValueError: there are fewer.
  """
  frequency = collections.Counter(word for document in documents for word in set(document))
  # By the alphabet where equally frequent, so that the order of documents decides nothing.
  ordered = sorted(frequency.items(), key=lambda item: (-item[1], item[0]))
  kept = [word for word, count in ordered if count <= _MOST * len(documents)][:words]
  if len(kept) < words:
    raise ValueError(f"data.words={words}, but the documents trained on have {len(kept)} of them")
  return {word: column for column, word in enumerate(kept)}


def counts(documents: Sequence[Sequence[str]], chosen: Mapping[str, int]) -> np.ndarray:
  """[documents, vocabulary] how often each word of the vocabulary occurs."""
  found = np.zeros((len(documents), len(chosen)), np.float32)
  for row, document in enumerate(documents):
    for word in document:
      if word in chosen:
        found[row, chosen[word]] += 1
  return found


def words(verses: Iterable[str]) -> list[str]:
  """The words of a chapter: runs of letters, in lower case."""
  return [word for verse in verses for word in _WORD.findall(verse.lower())]


@functools.cache
def _load() -> tuple[list[tuple[str, list[str]]], tuple[str, ...]]:
  """The book and the words of every chapter in the order of the text, and the books."""
  documents = [(chapter.book, words(chapter.verses)) for chapter in bible.chapters()]
  return documents, tuple(dict.fromkeys(book for book, _ in documents))
