"""Tasks written as text: what is asked and what is to be answered, as T5 has them.

  kjv_genre  "genre: In the beginning God created ..." -> "law": a verse of the King James Bible and
             in one word what its book is, of six. Chapters are held out as in data/text.py, so that
             no verse that is tested on stands in a text that was learned there
  files      one's own, lines of "input<TAB>answer"; a prefix of the input says which task it is,
             and any number of tasks stand in one file. A hash of the input decides the split

Raffel et al. 2020, arXiv:1910.10683, section 2.4. The answer is a text: nothing tells a model how
many there are.
"""

import collections
import copy
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import numpy as np

from data import bible, pairs, parallel, source, text, tokenizers
from data.parallel import Pair
from data.tokenizers import Tokenizer
from data.verses import GENRES

_PARTS = ("train", "validation", "test")
# By book, in the Bible's order: "gospels" are the Acts too, "epistles" the Revelation.
_ANSWERS = [name.split(" ")[0] for name, count in GENRES.items() for _ in range(count)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`source` int32 [source_length], ending with <eos>, and `target` int32 [target_length + 1],
  <bos>, the answer, <eos>; -1 where padded. `characters` and `bytes` int32 of the answer.

  Attributes:
    dataset: which tasks.
    path: of "files".
    tokenizer: as of data/text.py, and of "kjv_genre" the same one. "files" wants a file, that of
      the model that is to be fine-tuned.
    vocabulary: likewise: how many ids a model has room for.
    start: what begins a target where the tokenizer has no <bos>: of T5's it is the padding, 0.
    source_length: ids of an input, <eos> included; what is longer is cut.
    target_length: ids of an answer, likewise.
    train_per_answer: train on so many pairs of each answer, spread evenly over the set; 0 for all.
    validation: of "files", the share held out for validation; of chapters as of data/text.py.
    test: the share held out for testing.
    test_examples: test on so many pairs, spread evenly, and validate on as many; 0 for all.
  """

  dataset: Literal["kjv_genre", "files"]
  path: str = ""
  tokenizer: str = "bpe"
  vocabulary: Annotated[int, "[0, inf)"] = 0
  start: Annotated[int, "[0, inf)"] = 0
  source_length: Annotated[int, "[2, inf)"] = 64
  target_length: Annotated[int, "[2, inf)"] = 8
  train_per_answer: Annotated[int, "[0, inf)"] = 0
  validation: Annotated[float, "[0, 1)"] = 0.05
  test: Annotated[float, "[0, 1)"] = 0.05
  test_examples: Annotated[int, "[0, inf)"] = 0

  def __post_init__(self):
    if (self.dataset == "files") != bool(self.path):
      raise ValueError("path is of dataset='files', which wants one")
    if self.dataset == "files" and not tokenizers.is_file(self.tokenizer):
      raise ValueError(f"tokenizer={self.tokenizer!r}: dataset='files' wants a model's, as a file")
    if self.validation + self.test >= 1:
      raise ValueError("validation and test leave nothing to train on")
    tokenizers.check(self.tokenizer, self.vocabulary)

  def facts(self) -> Mapping[str, Any]:
    size = self.vocabulary or self._tokenizer.size
    return {
      "source_vocabulary": size,
      "target_vocabulary": size,
      "source_length": self.source_length,
      "target_length": self.target_length,
    }

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    shapes = {
      "source": (self.source_length,),
      "target": (self.target_length + 1,),
      "characters": (),
      "bytes": (),
    }
    return {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in shapes.items()}

  def tokenizers(self) -> Mapping[str, Tokenizer]:
    return dict.fromkeys(("source", "target"), self._tokenizer)

  def assets(self) -> Mapping[str, str]:
    """What a run keeps of the data by file name, so that its model can be used without it."""
    return self._text.assets()

  def restored(self, folder: pathlib.Path) -> "Source":
    """This source with the tokenizer that `assets` gave, instead of one to be trained."""
    return dataclasses.replace(self, tokenizer=self._text.restored(folder).tokenizer)

  def texts(self, name: str) -> Sequence[Pair]:
    """The pairs of a split, as text."""
    return self._pairs[name]

  def split(self, name: str) -> source.Split:
    return self._splits[name]

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    del keys, train
    return batch

  def conditions(self) -> Mapping[str, str]:
    tokenizer = self._tokenizer
    found = {"tokenizer": f"{tokenizer.describe()}, {tokenizer.size} ids"}
    if self.train_per_answer:
      found["trained on"] = f"{self.train_per_answer} of each answer"
    longer = {name: self._encoded[name][-1] for name in _PARTS}
    if any(longer.values()):
      counts = ", ".join(f"{name} {count}" for name, count in longer.items())
      found["pairs longer than a row"] = f"{counts} (truncate)"
    return found

  def fingerprint(self) -> str:
    digest = hashlib.sha256(self._tokenizer.fingerprint().encode())
    for name in _PARTS:
      for key, array in self.split(name).arrays.items():
        digest.update(f"{name} {key} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

  @property
  def _text(self) -> text.Source:
    """The text that the tokenizer is of."""
    return text.Source(
      dataset="files" if self.path else "kjv",
      path=self.path,
      tokenizer=self.tokenizer,
      vocabulary=self.vocabulary,
      validation=self.validation,
      test=self.test,
    )

  @functools.cached_property
  def _tokenizer(self) -> Tokenizer:
    found = self._text.tokenizers()["tokens"]
    if found.eos is None:
      raise ValueError(f"tokenizer={self.tokenizer!r} has no <eos> to end a text by")
    if found.bos is None:
      found = copy.copy(found)
      found.bos = self.start
    return found

  @functools.cached_property
  def _pairs(self) -> dict[str, list[Pair]]:
    if self.dataset == "files":
      given = parallel.read_files(self.path, "", "")
      found = parallel.held_out(list(given), validation=self.validation, test=self.test)
    else:
      found = genres(self.validation, self.test)
    if not found["train"]:
      raise ValueError(f"{self.path or self.dataset}: no pairs to train on")
    kept = {
      name: [found[name][row] for row in spread(len(found[name]), self.test_examples)]
      for name in ("validation", "test")
    }
    return {"train": few(found["train"], self.train_per_answer), **kept}

  @functools.cached_property
  def _encoded(self) -> dict[str, tuple]:
    """By part, inputs and answers in ids, and how many pairs are longer than a row."""
    found = {}
    for name, part in self._pairs.items():
      sides = [self._tokenizer.encode_all(pair[side] for pair in part) for side in (0, 1)]
      limits = (self.source_length, self.target_length)
      longer = sum(
        any(len(one.ids) >= limit for one, limit in zip(pair, limits, strict=True))
        for pair in zip(*sides, strict=True)
      )
      found[name] = (*sides, longer)
    return found

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    return {
      name: source.Arrays(
        pairs.arrays(
          *self._encoded[name][:2],
          self.tokenizers(),
          source_length=self.source_length,
          target_length=self.target_length,
        )
      )
      for name in _PARTS
    }


def genres(validation: float, test: float) -> dict[str, list[Pair]]:
  """The verses of the Bible and what their books are, whole chapters held out."""
  chapters = bible.chapters()
  books = dict.fromkeys(chapter.book for chapter in chapters)
  answer = dict(zip(books, _ANSWERS, strict=True))
  parts = text.held_out(tuple(range(len(chapters))), validation, test)
  return {
    name: [
      (f"genre: {verse}", answer[chapters[row].book])
      for row in rows
      for verse in chapters[row].verses
    ]
    for name, rows in parts.items()
  }


def few(found: Sequence[Pair], each: int) -> list[Pair]:
  """So many pairs of every answer, spread evenly, in their order; all where `each` is 0."""
  if not each:
    return list(found)
  rows = collections.defaultdict(list)
  for row, (_, answer) in enumerate(found):
    rows[answer].append(row)
  kept = {own[i] for own in rows.values() for i in spread(len(own), each)}
  return [found[row] for row in sorted(kept)]


def spread(count: int, most: int) -> list[int]:
  """At most so many of `count` rows, evenly; all where `most` is 0."""
  if not most or count <= most:
    return list(range(count))
  return np.linspace(0, count - 1, most).round().astype(int).tolist()
