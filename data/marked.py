"""What sources of labelled text share: texts between the marks that BERT puts around them.

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 3: a text is `[CLS] A [SEP]`, a pair of texts
`[CLS] A [SEP] B [SEP]`, whose tokens up to the first [SEP] are of type 0 and the others of type 1.
[CLS] and [SEP] are whatever the tokenizer calls the first and the last token of a text. A pair that
is longer than a row loses tokens off the end of the longer text until it fits (the same, appendix
A.2; so do RoBERTa's pairs, `<s> A </s></s> B </s>`, without types).

The tokenizer is trained on what is trained on, unless it is read from a file. For what is made of
the King James Bible that is the text of its training chapters, so that `text:kjv` and
`sentence_pairs:kjv` with the same `tokenizer`, `vocabulary`, `validation` and `test` train the very
same one: what is pre-trained on those can be fine-tuned on these.

Axes: T tokens of a row.
"""

import abc
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from data import bible, source, text, tokenizers
from data.tokenizers import Encoded, Tokenizer

PARTS = ("train", "validation", "test")
_TOKENIZER = "tokenizer.json"  # as a run keeps it


class Chapter(NamedTuple):
  """A chapter of the King James Bible.

  Attributes:
    number: its place among all 1,189.
    book: its place among the 66.
    verses: of it.
  """

  number: int
  book: int
  verses: tuple[str, ...]


class Rows(NamedTuple):
  """Examples as they are stored.

  Attributes:
    arrays: [N, ...] by name.
    cut: how many examples were longer than a row.
    unknown: tokens that stand for what the vocabulary does not have.
    originals: what is no array, by name, an entry an example or another unit of scoring.
  """

  arrays: dict[str, np.ndarray]
  cut: int
  unknown: int
  originals: dict[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marked(source.Source):
  """Examples of text that a head of an encoder is fine-tuned on.

  Attributes:
    tokenizer: a kind to train (data/tokenizers.py), or a file that holds one.
    vocabulary: how many ids a model has room for, and the most that a tokenizer is trained to; 0
      for as many as the tokenizer has.
    length: T.
    types: kinds of tokens that the model tells apart: 2 is BERT, 1 RoBERTa, 0 DistilBERT.
    separators: tokens between the texts of a pair; RoBERTa has 2.
    validation: the share of what is trained on that is held out for validation.
    test: the share held out for testing, where the set has no part for it.
    train_examples: keep only so many examples to train on; 0 for all.
    test_examples: likewise to test on, and to validate on.
    subset_seed: which examples those are.
  """

  tokenizer: str = "wordpiece"
  vocabulary: Annotated[int, "[0, inf)"] = 0
  length: Annotated[int, "[5, inf)"] = 64
  types: Annotated[int, "[0, 2]"] = 2
  separators: Annotated[int, "[1, 2]"] = 1
  validation: Annotated[float, "[0, 1)"] = 0.05
  test: Annotated[float, "[0, 1)"] = 0.05
  train_examples: Annotated[int, "[0, inf)"] = 0
  test_examples: Annotated[int, "[0, inf)"] = 0
  subset_seed: Annotated[int, "[0, inf)"] = 0

  def __post_init__(self):
    if self.validation + self.test >= 1:
      raise ValueError("validation and test leave nothing to train on")
    tokenizers.check(self.tokenizer, self.vocabulary)

  @property
  @abc.abstractmethod
  def of_bible(self) -> bool:
    """Whether the examples are made of the King James Bible."""

  @property
  @abc.abstractmethod
  def examples(self) -> Mapping[str, Sequence[Any]]:
    """By part, all examples; read once."""

  @abc.abstractmethod
  def texts_of(self, example: Any) -> Sequence[str]:
    """The texts of an example, to train a tokenizer on."""

  @abc.abstractmethod
  def rows(self, examples: Sequence[Any]) -> Rows:
    """Some examples as they are stored."""

  def chosen(self, name: str) -> Sequence[Any]:
    """The examples of a part that are kept, in their order."""
    most = self.train_examples if name == "train" else self.test_examples
    found = self.examples[name]
    if not most or most >= len(found):
      return found
    return [found[i] for i in np.sort(self.shuffled(len(found))[:most])]

  def shuffled(self, count: int) -> np.ndarray:
    """[count] numbers below it in an order of `subset_seed`."""
    return np.random.default_rng(self.subset_seed).permutation(count)

  def facts(self) -> Mapping[str, Any]:
    return {
      "vocabulary": self.vocabulary or self._tokenizer.size,
      "length": self.length,
      "types": self.types,
    }

  def row(self) -> jax.ShapeDtypeStruct:
    """Of an element that has one number a token."""
    return jax.ShapeDtypeStruct((self.length,), np.int32)

  def tokenizers(self) -> Mapping[str, Tokenizer]:
    return {"tokens": self._tokenizer}

  def assets(self) -> Mapping[str, str]:
    """What a run keeps of the data by file name, so that its model can be used without it."""
    return {_TOKENIZER: self._tokenizer.to_json()}

  def restored(self, folder: pathlib.Path) -> "Marked":
    """This source with the tokenizer that `assets` gave, instead of one to be trained."""
    return dataclasses.replace(self, tokenizer=str(folder / _TOKENIZER))

  def split(self, name: str) -> source.Split:
    return self._splits[name]

  def originals(self, name: str) -> Mapping[str, Sequence[Any]]:
    """What a score needs of a split that is no array."""
    return self._rows[name].originals

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    del keys, train
    return batch

  def conditions(self) -> Mapping[str, str]:
    found = {"tokenizer": f"{self._tokenizer.describe()}, {self._tokenizer.size} ids"}
    for what in ("cut", "unknown"):
      counts = {name: getattr(self._rows[name], what) for name in PARTS}
      if any(counts.values()):
        label = {"cut": "examples longer than a row", "unknown": "unknown tokens"}[what]
        found[label] = ", ".join(f"{name} {count}" for name, count in counts.items())
    return found

  def fingerprint(self) -> str:
    digest = hashlib.sha256(self._tokenizer.fingerprint().encode())
    for name in PARTS:
      for key, array in self.split(name).arrays.items():
        digest.update(f"{name} {key} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

  @functools.cached_property
  def chapters(self) -> Mapping[str, Sequence[Chapter]]:
    """The chapters of the King James Bible by part, held out as in data/text.py."""
    found, books = [], {}
    for number, chapter in enumerate(bible.chapters()):
      found.append(Chapter(number, books.setdefault(chapter.book, len(books)), chapter.verses))
    return text.held_out(tuple(found), self.validation, self.test)

  @functools.cached_property
  def _tokenizer(self) -> Tokenizer:
    if tokenizers.is_file(self.tokenizer):
      found = tokenizers.load(self.tokenizer)
      if self.vocabulary and found.size > self.vocabulary:
        raise ValueError(
          f"{self.tokenizer}: has {found.size} ids, more than data.vocabulary={self.vocabulary}"
        )
    elif self.of_bible:
      same = ("tokenizer", "vocabulary", "length", "validation", "test")
      book = text.Source(dataset="kjv", **{name: getattr(self, name) for name in same})
      found = book.tokenizers()["tokens"]
    else:
      texts = (words for example in self.examples["train"] for words in self.texts_of(example))
      found = _trained(self.tokenizer, tuple(dict.fromkeys(texts)), self.vocabulary)
    if found.bos is None or found.eos is None:
      raise ValueError(f"tokenizer={self.tokenizer!r} has no first and last token of a text")
    return found

  @functools.cached_property
  def _rows(self) -> dict[str, Rows]:
    found = {name: self.rows(self.chosen(name)) for name in PARTS}
    if not len(next(iter(found["train"].arrays.values()))):
      where = getattr(self, "path", "") or type(self).__module__
      raise ValueError(f"{where}: no example to train on")
    return found

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    return {
      name: source.Arrays({key: rows.arrays[key] for key in self.spec()})
      for name, rows in self._rows.items()
    }

  def paired(self, first: Sequence[int], second: Sequence[int] | None = None) -> "Paired":
    """One text, or two, in a row of tokens and types."""
    bos, eos = self._tokenizer.bos, self._tokenizer.eos
    marks = 2 if second is None else 2 + self.separators
    one, other = longest_first(len(first), len(second or ()), self.length - marks)
    tokens = [bos, *first[:one], eos]
    whole = len(first) + len(second or ()) + marks
    before = len(tokens)
    if second is not None:
      tokens += [*[eos] * (self.separators - 1), *second[:other], eos]
    row, kinds = np.full(self.length, -1, np.int32), np.zeros(self.length, np.int32)
    row[: len(tokens)] = tokens
    if self.types == 2:
      kinds[before : len(tokens)] = 1
    return Paired(row, kinds, whole > self.length)


class Paired(NamedTuple):
  """A row: tokens [T], their types [T], and whether the texts were cut."""

  tokens: np.ndarray
  types: np.ndarray
  cut: bool


def longest_first(one: int, other: int, room: int) -> tuple[int, int]:
  """How much of two texts is kept: the longer loses its end, of equal ones the second."""
  while one + other > room:
    if one > other:
      one -= 1
    else:
      other -= 1
  return one, other


def spans(words: str, encoded: Encoded) -> np.ndarray:
  """[N, 2] where each token of a text begins, white space before it aside, and where it ends."""
  stop_N = np.cumsum(encoded.characters)
  start_N = stop_N - encoded.characters
  for i, (start, stop) in enumerate(zip(start_N, stop_N, strict=True)):
    piece = words[start:stop]
    start_N[i] = start + len(piece) - len(piece.lstrip())
  return np.stack([start_N, stop_N], -1)


def hashed(texts: Sequence[str]) -> float:
  """A number in [0, 1) that depends on the texts alone."""
  digest = hashlib.sha256("\t".join(texts).encode()).digest()
  return int.from_bytes(digest[:7], "big") / 2**56


@functools.lru_cache(maxsize=4)
def _trained(kind: str, texts: tuple[str, ...], vocabulary: int) -> Tokenizer:
  return tokenizers.train(kind, texts, vocabulary)
