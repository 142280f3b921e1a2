"""Text for language models: the King James Bible, files of one's own, or a TFDS set.

A text is a list of documents: the chapters of the Bible in its order, its verses a line each; of
files what `documents` says. Held out are whole documents, neighbours of one another: the documents
in order are cut into ten stretches, and the last of each stretch are tested on, those before them
validated on. (Lines held out at random would be predicted from those around them.) A TFDS set keeps
its own splits where it has them.

The tokenizer is trained on the training part only, unless it is read from a file. A `stream` is
<bos>, then each document and <eos>: every character of a part is in one target. In rows of whole
documents each begins with <bos> and ends with <eos>.
"""

import dataclasses
import functools
import hashlib
import itertools
import pathlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import numpy as np

from data import bible, packing, source, tfds, tokenizers
from data.packing import Document, Overlong, Rows
from data.tokenizers import Encoded, Tokenizer

_PARTS = ("train", "validation", "test")
_STRETCHES = 10
_TOKENIZER = "tokenizer.json"  # as a run keeps it

Documents = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`tokens` int32 [length + 1], -1 where padded; a model reads all but the last, predicts all but
  the first.

  Besides, `characters` and `bytes` int32, how much text the scored targets stand for; `segments`
  int32 [length + 1] where packed; `context` int32 where there is a stride, how many targets at the
  begin of a row are not scored.

  Attributes:
    dataset: "kjv"; "files"; or "tfds:NAME" as TFDS names it.
    path: of "files": a file, a directory (all files in it) or a pattern such as "books/*.txt".
    documents: of "files": what a document is. Paragraphs are what empty lines separate.
    feature: of a TFDS set: the one that is the text.
    directory: TFDS data directory, or that of one version of one set; empty means TFDS's own.
    tokenizer: a kind to train (data/tokenizers.py), or a file that holds one: a tokenizer.json, or
      a .model of SentencePiece.
    vocabulary: how many ids a model has room for, and the most that a tokenizer is trained to; 0
      for as many as the tokenizer has.
    length: targets in a row.
    packing: "stream": the part is one stream, cut into rows; "documents": whole documents, several
      a row, which do not see one another; "padded": a document a row.
    overlong: what becomes of a document longer than a row; streams have none.
    stride: of a stream, how far apart the rows are that are evaluated; with 0 they do not overlap,
      and the first targets of each are predicted from little.
    validation: of the documents, the share held out for validation.
    test: the share held out for testing.
    train_examples: keep only the first so many rows to train on; 0 for all.
    test_examples: likewise to test on, and to validate on.
  """

  dataset: str
  path: str = ""
  documents: Literal["file", "paragraph", "line"] = "file"
  feature: str = "text"
  directory: str = ""
  tokenizer: str = "bpe"
  vocabulary: Annotated[int, "[0, inf)"] = 0
  length: Annotated[int, "[1, inf)"] = 256
  packing: Literal["stream", "documents", "padded"] = "stream"
  overlong: Overlong = "split"
  stride: Annotated[int, "[0, inf)"] = 0
  validation: Annotated[float, "[0, 1)"] = 0.05
  test: Annotated[float, "[0, 1)"] = 0.05
  train_examples: Annotated[int, "[0, inf)"] = 0
  test_examples: Annotated[int, "[0, inf)"] = 0

  def __post_init__(self):
    if self.dataset not in ("kjv", "files") and not self.dataset.startswith("tfds:"):
      raise source.NoSuchName("dataset", self.dataset, ("kjv", "files"), " or tfds:NAME")
    if self.dataset == "files" and not self.path:
      raise ValueError("dataset='files' is of files: give path")
    if self.stride > self.length or (self.stride and self.packing != "stream"):
      raise ValueError(f"stride={self.stride} is for streams, and at most length={self.length}")
    if self.validation + self.test >= 1:
      raise ValueError("validation and test leave nothing to train on")
    tokenizers.check(self.tokenizer, self.vocabulary)

  def facts(self) -> Mapping[str, Any]:
    return {"vocabulary": self.vocabulary or self._tokenizer.size, "length": self.length}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    row = jax.ShapeDtypeStruct((self.length + 1,), np.int32)
    number = jax.ShapeDtypeStruct((), np.int32)
    spec = {"tokens": row, "characters": number, "bytes": number}
    if self.packing == "documents":
      spec["segments"] = row
    if self.stride:
      spec["context"] = number
    return spec

  def tokenizers(self) -> Mapping[str, Tokenizer]:
    return {"tokens": self._tokenizer}

  def assets(self) -> Mapping[str, str]:
    """What a run keeps of the data by file name, so that its model can be used without it."""
    return {_TOKENIZER: self._tokenizer.to_json()}

  def restored(self, folder: pathlib.Path) -> "Source":
    """This source with the tokenizer that `assets` gave, instead of one to be trained."""
    return dataclasses.replace(self, tokenizer=str(folder / _TOKENIZER))

  def texts(self, name: str) -> Documents:
    """The documents of a split."""
    return self._parts[name]

  def stream(self, name: str) -> np.ndarray:
    """[N] the ids of a split, one document after another, as "stream" cuts them."""
    return packing.join(self._marked(name, stream=True)).tokens

  def split(self, name: str) -> source.Split:
    return self._splits[name]

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    del keys, train
    return batch

  def conditions(self) -> Mapping[str, str]:
    tokenizer = self._tokenizer
    found = {"tokenizer": f"{tokenizer.describe()}, {tokenizer.size} ids"}
    unknown = {name: sum(part.unknown for part in self._encoded[name]) for name in _PARTS}
    if any(unknown.values()):
      found["unknown tokens"] = ", ".join(f"{name} {unknown[name]}" for name in _PARTS)
    if any(self._overlong.values()):
      longer = ", ".join(f"{name} {count}" for name, count in self._overlong.items())
      found["documents longer than a row"] = f"{longer} ({self.overlong})"
    if self.stride:
      found["stride"] = f"{self.stride} of {self.length}"
    return found

  def fingerprint(self) -> str:
    digest = hashlib.sha256(self._tokenizer.fingerprint().encode())
    for name in _PARTS:
      for key, array in self.split(name).arrays.items():
        digest.update(f"{name} {key} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

  @functools.cached_property
  def _parts(self) -> dict[str, Documents]:
    if self.dataset == "kjv":
      documents = tuple(chapter.text for chapter in bible.chapters())
    elif self.dataset == "files":
      documents = read_files(self.path, self.documents)
    else:
      return read_tfds(
        self.dataset.removeprefix("tfds:"),
        self.directory,
        self.feature,
        validation=self.validation,
        test=self.test,
      )
    return held_out(documents, self.validation, self.test)

  @functools.cached_property
  def _tokenizer(self) -> Tokenizer:
    if not tokenizers.is_file(self.tokenizer):
      return _trained(self.tokenizer, self._parts["train"], self.vocabulary)
    found = tokenizers.load(self.tokenizer)
    if self.vocabulary and found.size > self.vocabulary:
      raise ValueError(
        f"{self.tokenizer}: has {found.size} ids, more than data.vocabulary={self.vocabulary}"
      )
    return found

  @functools.cached_property
  def _encoded(self) -> dict[str, list[Encoded]]:
    return {name: _encoded(self._tokenizer, self._parts[name]) for name in _PARTS}

  def _marked(self, name: str, *, stream: bool) -> list[Document]:
    """The documents of a part with their first and last token, or one <bos> for all of a stream."""
    begin, end = (_mark(index) for index in (self._tokenizer.bos, self._tokenizer.eos))
    documents = [Document(*part[:3]) for part in self._encoded[name]]
    if stream:
      return [begin, *(packing.join([document, end]) for document in documents)]
    return [packing.join([begin, document, end]) for document in documents]

  @functools.cached_property
  def _fitted(self) -> dict[str, tuple[list[Document], int]]:
    """By part, its documents in pieces that fit a row, and how many of them did not."""
    return {
      name: packing.fitted(self._marked(name, stream=False), self.length, self.overlong)
      for name in _PARTS
    }

  @property
  def _overlong(self) -> dict[str, int]:
    if self.packing == "stream":
      return {}
    return {name: longer for name, (_, longer) in self._fitted.items()}

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    most = dict.fromkeys(_PARTS, self.test_examples) | {"train": self.train_examples}
    found = {}
    for name in _PARTS:
      rows = self._rows(name)
      found[name] = source.Arrays({key: rows[key][: most[name] or None] for key in self.spec()})
    if not len(found["train"]):
      where, count = self.path or f"text:{self.dataset}", len(self._parts["train"])
      raise ValueError(f"{where}: no row to train on, of {count} documents")
    return found

  def _rows(self, name: str) -> Rows:
    if self.packing == "stream":
      stride = 0 if name == "train" else self.stride
      stream = packing.join(self._marked(name, stream=True))
      return packing.windows(stream, self.length, stride)
    documents, _ = self._fitted[name]
    rows = packing.packed if self.packing == "documents" else packing.padded
    return rows(documents, self.length)


def _mark(index: int | None) -> Document:
  """A document of one special token, which stands for no text, or of none."""
  tokens = np.array([] if index is None else [index], np.int32)
  return Document(tokens, np.zeros_like(tokens), np.zeros_like(tokens))


@functools.lru_cache(maxsize=4)
def _trained(kind: str, texts: Documents, vocabulary: int) -> Tokenizer:
  return tokenizers.train(kind, texts, vocabulary)


@functools.lru_cache(maxsize=12)  # three parts each
def _encoded(tokenizer: Tokenizer, texts: Documents) -> list[Encoded]:
  return tokenizer.encode_all(texts)


def held_out(documents: Documents, validation: float, test: float) -> dict[str, Documents]:
  """Whole documents by part: of each stretch of neighbours the last are tested on.

  There are ten stretches, or as many as leave one document of each held-out part in every one.
  """
  shares = [share for share in (validation, test) if share]
  count = int(min([_STRETCHES, *(share * len(documents) for share in shares)]))
  edges = np.linspace(0, len(documents), max(count, 1) + 1).round().astype(int)
  parts: dict[str, list[str]] = {name: [] for name in _PARTS}
  for start, stop in itertools.pairwise(edges):
    tested = stop - round(test * (stop - start))
    validated = tested - round(validation * (stop - start))
    parts["train"] += documents[start:validated]
    parts["validation"] += documents[validated:tested]
    parts["test"] += documents[tested:stop]
  return {name: tuple(part) for name, part in parts.items()}


def read_files(path: str, unit: Literal["file", "paragraph", "line"]) -> Documents:
  """The documents of a file, of all files of a directory, or of those that match a pattern.

  Raises:
    FileNotFoundError: there are none.
    ValueError: a file is not UTF-8, or there is no text.
  """
  place = pathlib.Path(path).expanduser()
  if place.is_file():
    files = [place]
  elif place.is_dir():
    files = sorted(file for file in place.rglob("*") if file.is_file())
  else:
    files = sorted(file for file in place.parent.glob(place.name) if file.is_file())
  if not files:
    raise FileNotFoundError(f"{path}: no such file, nor a directory or pattern with any")
  found = tuple(
    document for file in files for document in _documents(read_utf8(file), unit) if document.strip()
  )
  if not found:
    raise ValueError(f"{path}: {len(files)} files without text")
  return found


def read_utf8(file: pathlib.Path) -> str:
  """A file's text; a byte-order mark and Windows' line ends are no part of it.

  Raises:
    ValueError: it is not UTF-8; it names the file, the line and the byte.
  """
  raw = file.read_bytes()
  try:
    text = raw.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    # The error's own place does not count a byte-order mark.
    start = error.start + (len(raw) - len(error.object))
    line = raw.count(b"\n", 0, start) + 1
    raise ValueError(f"{file}: byte {start} is not UTF-8: {error.reason}, line {line}") from None
  return text.replace("\r\n", "\n")


def _documents(text: str, unit: str) -> list[str]:
  if unit == "file":
    return [text]
  if unit == "line":
    return [f"{line}\n" for line in text.split("\n")]
  return [f"{paragraph.strip(chr(10))}\n" for paragraph in re.split(r"\n[^\S\n]*\n", text)]


def read_tfds(
  dataset: str, directory: str, feature: str, *, validation: float, test: float
) -> dict[str, Documents]:
  """The texts of a TFDS set by part; a part that the set lacks is held out of its training part."""
  builder = tfds.open_builder(dataset, directory, download=False)
  has = [name for name in _PARTS if name in builder.info.splits]
  if "train" not in has:
    raise ValueError(f"{builder.data_path}: found splits {[*builder.info.splits]}, no train")
  own = {name: tuple(tfds.texts(builder, name, feature)) for name in has}
  validation, test = (
    0.0 if name in has else share for name, share in (("validation", validation), ("test", test))
  )
  return {**held_out(own["train"], validation, test), **{k: own[k] for k in has if k != "train"}}
