"""Pairs of stretches of text for pre-training encoders: does the second follow, or go before?

Devlin et al. 2019, "BERT", arXiv:1810.04805, section 3.1 and appendix A.2 (next sentence
prediction): half of the pairs are two stretches that follow one another, in the others the second
is of another document. Lan et al. 2020, "ALBERT", arXiv:1909.11942, section 3.1 (sentence order
prediction): in the others the two are the right ones in the wrong order.

A document is sentences, a line each: the chapters of the Bible and their verses; of files,
paragraphs or files whose lines are sentences. A stretch is as many whole sentences as half of a row
has room for, or a part of one that is longer; every stretch of a document but its last is the first
of a pair. Whether a pair is told apart from its true one is drawn anew every time that it is seen.

Axes: N pairs, T tokens of a row, H tokens of a stretch and its [SEP].
"""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from data import source, text
from data.tokenizers import Tokenizer

_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`tokens` int32 [T], `[CLS] A [SEP] B [SEP]` and -1 behind; `types` int32 [T], 0 up to the first
  [SEP], then 1; `special` int32 [T], 1 at [CLS] and [SEP]; `relation` int32, 0 where the pair is as
  it was written.

  [CLS] and [SEP] are whatever the tokenizer calls the first and the last token of a text.

  Attributes:
    dataset: as of data/text.py; likewise path, documents, directory, tokenizer, vocabulary,
      validation and test.
    relation: what the second stretch is where it does not follow: "next", one of another document;
      "order", what went before.
    length: T.
    train_examples: keep only so many pairs, evenly spread, to train on; 0 for all.
    test_examples: likewise to test on, and to validate on.
  """

  dataset: str
  path: str = ""
  documents: Literal["file", "paragraph"] = "paragraph"
  directory: str = ""
  tokenizer: str = "wordpiece"
  vocabulary: Annotated[int, "[0, inf)"] = 0
  relation: Literal["next", "order"] = "next"
  length: Annotated[int, "[5, inf)"] = 128
  validation: Annotated[float, "[0, 1)"] = 0.05
  test: Annotated[float, "[0, 1)"] = 0.05
  train_examples: Annotated[int, "[0, inf)"] = 0
  test_examples: Annotated[int, "[0, inf)"] = 0

  def __post_init__(self):
    self._text  # noqa: B018 - which refuses what it cannot be made of

  @property
  def half(self) -> int:
    """H."""
    return (self.length - 3) // 2

  @property
  def _text(self) -> text.Source:
    same = ("dataset", "path", "documents", "directory", "tokenizer", "vocabulary", "length")
    return text.Source(
      **{name: getattr(self, name) for name in same}, validation=self.validation, test=self.test
    )

  def facts(self) -> Mapping[str, Any]:
    return {
      "vocabulary": self.vocabulary or self._tokenizer.size,
      "length": self.length,
      "types": 2,
    }

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    # Each with its [SEP], so that a row can be put together without the tokenizer.
    row = jax.ShapeDtypeStruct((self.half + 1,), np.int32)
    begin = jax.ShapeDtypeStruct((), np.int32)
    return {"first": row, "second": row, "other": row, "begin": begin}

  def tokenizers(self) -> Mapping[str, Tokenizer]:
    return {"tokens": self._tokenizer}

  def assets(self) -> Mapping[str, str]:
    """What a run keeps of the data by file name, so that its model can be used without it."""
    return self._text.assets()

  def restored(self, folder: pathlib.Path) -> "Source":
    """This source with the tokenizer that `assets` gave, instead of one to be trained."""
    return dataclasses.replace(self, tokenizer=self._text.restored(folder).tokenizer)

  def split(self, name: str) -> source.Split:
    return self._splits[name]

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    del train

    def one(key, begin, first_H, second_H, other_H):
      apart = jax.random.bernoulli(key)
      if self.relation == "next":
        pair = first_H, jnp.where(apart, other_H, second_H)
      else:
        pair = jnp.where(apart, second_H, first_H), jnp.where(apart, first_H, second_H)
      return {**joined(begin, *pair, self.length), "relation": apart.astype(jnp.int32)}

    made = jax.vmap(one)(keys, *(batch[k] for k in ("begin", "first", "second", "other")))
    # Not what is stored, but the mask and whatever else goes with a batch.
    return {**{name: x for name, x in batch.items() if name not in self.spec()}, **made}

  def conditions(self) -> Mapping[str, str]:
    found = dict(self._text.conditions())
    count = {name: sum(cut for _, cut in self._stretches[name]) for name in _SPLITS}
    if any(count.values()):
      found["sentences longer than a stretch"] = ", ".join(
        f"{name} {count[name]}" for name in _SPLITS
      )
    return found

  def fingerprint(self) -> str:
    digest = hashlib.sha256(f"{self.relation} {self._tokenizer.fingerprint()}".encode())
    for name in _SPLITS:
      for key, array in self.split(name).arrays.items():
        digest.update(f"{name} {key} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

  @functools.cached_property
  def _tokenizer(self) -> Tokenizer:
    found = self._text.tokenizers()["tokens"]
    if found.bos is None or found.eos is None:
      raise ValueError(f"tokenizer={self.tokenizer!r} has no first and last token of a text")
    return found

  @functools.cached_property
  def _stretches(self) -> dict[str, list[tuple[list[np.ndarray], int]]]:
    """By part, of every document its stretches, and how many of its sentences were longer."""
    source_text, tokenizer = self._text, self._tokenizer
    found = {}
    for name in _SPLITS:
      documents = [
        [line for line in document.split("\n") if line.strip()]
        for document in source_text.texts(name)
      ]
      encoded = iter(tokenizer.encode_all([line for lines in documents for line in lines]))
      found[name] = [
        stretches([next(encoded).ids for _ in lines], self.half) for lines in documents
      ]
    return found

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    most = dict.fromkeys(_SPLITS, self.test_examples) | {"train": self.train_examples}
    found = {name: source.Arrays(self._pairs(name, most[name])) for name in _SPLITS}
    if not len(found["train"]):
      where = self.path or self.dataset
      raise ValueError(f"{where}: no document has two stretches of {self.half} tokens")
    return found

  def _pairs(self, name: str, most: int) -> dict[str, np.ndarray]:
    documents = [parts for parts, _ in self._stretches[name]]
    pairs = [
      (number, *pair)
      for number, parts in enumerate(documents)
      for pair in itertools.pairwise(parts)
    ]
    if most:
      kept = np.linspace(0, len(pairs) - 1, most).round().astype(int)
      pairs = [pairs[i] for i in np.unique(kept)]
    others = self._others(name, documents, [number for number, *_ in pairs])
    keys = ("first", "second", "other")
    rows = {key: np.full((len(pairs), self.half + 1), -1, np.int32) for key in keys}
    for row, ((_, first, second), other) in enumerate(zip(pairs, others, strict=True)):
      for key, ids in zip(keys, (first, second, other), strict=True):
        rows[key][row, : len(ids) + 1] = [*ids, self._tokenizer.eos]
    return {**rows, "begin": np.full(len(pairs), self._tokenizer.bos, np.int32)}

  def _others(self, name: str, documents, numbers: Sequence[int]) -> list[np.ndarray]:
    """For each pair a stretch of another document; of pairs whose order is asked, none."""
    if self.relation == "order":
      return [np.zeros(0, np.int32) for _ in numbers]
    pool = [(number, part) for number, parts in enumerate(documents) for part in parts]
    if numbers and len({number for number, _ in pool}) < 2:
      raise ValueError(f"{self.dataset}: one document to {name} on, so none other")
    # Of a fixed choice, so that a pair is the same wherever it is read.
    generator, found = np.random.default_rng(0), []
    for number in numbers:
      while (other := pool[generator.integers(len(pool))])[0] == number:
        pass
      found.append(other[1])
    return found


def stretches(sentences: Sequence[np.ndarray], room: int) -> tuple[list[np.ndarray], int]:
  """Whole sentences one after another, as many as fit; and how many had to be taken apart."""
  found: list[np.ndarray] = []
  for ids in sentences:
    if found and len(found[-1]) + len(ids) <= room:
      found[-1] = np.concatenate([found[-1], ids])
    else:
      found += [ids[start : start + room] for start in range(0, len(ids), room)]
  return found, sum(len(ids) > room for ids in sentences)


def joined(
  begin: jax.Array, first_H: jax.Array, second_H: jax.Array, length: int
) -> dict[str, jax.Array]:
  """`[CLS] A [SEP] B [SEP]` of stretches with their [SEP], padded by -1: tokens, types, special."""
  a, b = (first_H >= 0).sum(), (second_H >= 0).sum()
  place_T = jnp.arange(length)
  in_second_T = place_T > a
  own_T = jnp.clip(place_T - 1 - jnp.where(in_second_T, a, 0), 0, len(first_H) - 1)
  ids_T = jnp.where(in_second_T, second_H[own_T], first_H[own_T])
  there_T = place_T <= a + b
  tokens_T = jnp.where(place_T == 0, begin, ids_T)
  return {
    "tokens": jnp.where(there_T, tokens_T, -1).astype(jnp.int32),
    "types": (there_T & in_second_T).astype(jnp.int32),
    "special": ((place_T == 0) | (place_T == a) | (place_T == a + b)).astype(jnp.int32),
  }
