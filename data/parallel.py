"""Parallel text: sentences and their translations.

  libreoffice-de, -fr, -ja  LibreOffice's help, English to German, French or Japanese: paragraphs by
                            file and number. What is not translated, or shorter than `shortest`
                            words, is left out
  bible-en-es               King James to Reina-Valera 1909, verse by verse
  files                     one's own: two files a sentence a line, or one of lines
                            "source<TAB>target"

Pairs are read once each. Which split one belongs to is decided by a hash of its source, so that no
source is in two splits and adding a pair moves no other. The tokenizers are trained on the training
part only, unless they are read from a file.
"""

import dataclasses
import functools
import hashlib
import html
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import jax
import numpy as np

from data import pairs, source, sword, text, tokenizers
from data.tokenizers import Encoded, Tokenizer

_PARTS = ("train", "validation", "test")
_HELP = {"libreoffice-de": "de", "libreoffice-fr": "fr", "libreoffice-ja": "ja"}
_PARAGRAPH = re.compile(
  r"<(p|h[1-6])\b[^>]*?\bid=\"((?:par_id|hd_id)[^\"]*)\"[^>]*>(.*?)</\1>", re.DOTALL
)
_TAG = re.compile(r"<[^>]*>")

Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`source` int32 [source_length], ending with <eos>, and `target` int32 [target_length + 1],
  <bos>, the translation, <eos>; -1 where padded. `characters` and `bytes` int32 of the translation.

  Attributes:
    dataset: which pairs.
    path: of "files": one file, tab-separated; or give the next two.
    source_path: of "files": the sources, a line each.
    target_path: their translations, a line each.
    directory: where packages keep their data.
    swap: whether to translate from the second language into the first.
    tokenizer: a kind to train (data/tokenizers.py); a file that holds one, for both languages; or a
      directory with source.json and target.json.
    vocabulary: how many ids a model has room for, and the most that a tokenizer is trained to; 0
      for as many as there are.
    shared: whether one tokenizer, trained on both languages, serves both.
    source_length: ids of a source, <eos> included.
    target_length: ids of a target, <eos> included.
    overlong: whether a pair longer than that is left out, cut, or an error.
    shortest: pairs with fewer words in the source are left out.
    max_words: pairs with more words in either are left out; 0 for no limit.
    reverse_source: whether a source is read from its end (Sutskever, Vinyals & Le 2014).
    buckets: of pairs of about one length that batches are made of; 0 for none, a batch then being
      as wide as the longest pair may be.
    validation: the share of the pairs held out for validation.
    test: the share held out for testing.
    train_examples: keep only the first so many pairs to train on; 0 for all.
    test_examples: likewise to test on, and to validate on.
  """

  dataset: Literal["files", "libreoffice-de", "libreoffice-fr", "libreoffice-ja", "bible-en-es"]
  path: str = ""
  source_path: str = ""
  target_path: str = ""
  directory: str = "/usr/share"
  swap: bool = False
  tokenizer: str = "bpe"
  vocabulary: Annotated[int, "[0, inf)"] = 0
  shared: bool = False
  source_length: Annotated[int, "[2, inf)"] = 64
  target_length: Annotated[int, "[2, inf)"] = 64
  overlong: Literal["drop", "truncate", "refuse"] = "drop"
  shortest: Annotated[int, "[1, inf)"] = 3
  max_words: Annotated[int, "[0, inf)"] = 0
  reverse_source: bool = False
  buckets: Annotated[int, "[0, inf)"] = 0
  validation: Annotated[float, "[0, 1)"] = 0.05
  test: Annotated[float, "[0, 1)"] = 0.05
  train_examples: Annotated[int, "[0, inf)"] = 0
  test_examples: Annotated[int, "[0, inf)"] = 0

  def __post_init__(self):
    if self.dataset == "files" and bool(self.path) == bool(self.source_path and self.target_path):
      raise ValueError("dataset='files' is of files: give path, or source_path and target_path")
    if self.validation + self.test >= 1:
      raise ValueError("validation and test leave nothing to train on")
    if self._saved:
      return
    tokenizers.check(self.tokenizer, self.vocabulary)
    if tokenizers.is_file(self.tokenizer) and not self.shared:
      raise ValueError(f"tokenizer={self.tokenizer!r} is one for both languages: say shared=True")

  def facts(self) -> Mapping[str, Any]:
    rows = self.vocabulary
    found = {} if rows else self.tokenizers()  # with a size given, nothing is read
    return {
      "source_vocabulary": rows or found["source"].size,
      "target_vocabulary": rows or found["target"].size,
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
    return self._tokenizers

  def assets(self) -> Mapping[str, str]:
    """What a run keeps of the data by file name, so that its model can be used without it."""
    return {f"{side}.json": found.to_json() for side, found in self._tokenizers.items()}

  def restored(self, folder: pathlib.Path) -> "Source":
    """This source with the tokenizers that `assets` gave, instead of ones to be trained."""
    return dataclasses.replace(self, tokenizer=str(folder))

  def texts(self, name: str) -> list[Pair]:
    """The pairs of a split, as text, in the order of its rows."""
    return [self._parts[name][row] for row in self._kept[name]]

  def split(self, name: str) -> source.Split:
    return self._splits[name]

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    del keys, train
    return batch

  def conditions(self) -> Mapping[str, str]:
    sizes = {side: found.size for side, found in self._tokenizers.items()}
    one = self._tokenizers["source"]
    kind = f"{one.describe()}, {sizes['source']} ids"
    if not self.shared:
      kind = f"{kind} and {sizes['target']}"
    found = {"tokenizer": kind}
    longer = {name: int(self._longer(name).sum()) for name in _PARTS}
    if any(longer.values()):
      counts = ", ".join(f"{name} {count}" for name, count in longer.items())
      found["pairs longer than a row"] = f"{counts} ({self.overlong})"
    unknown = {
      name: sum(one.unknown for side in self._encoded[name] for one in side) for name in _PARTS
    }
    if any(unknown.values()):
      found["unknown tokens"] = ", ".join(f"{name} {count}" for name, count in unknown.items())
    if self.reverse_source:
      found["source"] = "reversed"
    return found

  def fingerprint(self) -> str:
    digest = hashlib.sha256()
    for tokenizer in self._tokenizers.values():
      digest.update(tokenizer.fingerprint().encode())
    for name in _PARTS:
      for key, array in self._arrays[name].items():
        digest.update(f"{name} {key} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

  @property
  def _saved(self) -> bool:
    """Whether `tokenizer` is a directory, as `assets` fills one."""
    return (pathlib.Path(self.tokenizer).expanduser() / "source.json").is_file()

  @functools.cached_property
  def _parts(self) -> dict[str, list[Pair]]:
    if self.dataset == "files":
      found = read_files(self.path, self.source_path, self.target_path)
    elif self.dataset in _HELP:
      found = read_help(self.directory, _HELP[self.dataset])
    else:
      found = sword.verses(self.directory)
    if self.swap:
      found = tuple((other, one) for one, other in found)
    return held_out(
      clean(found, self.shortest, self.max_words), validation=self.validation, test=self.test
    )

  @functools.cached_property
  def _tokenizers(self) -> dict[str, Tokenizer]:
    if self._saved:
      folder = pathlib.Path(self.tokenizer).expanduser()
      found = {side: tokenizers.load(folder / f"{side}.json") for side in ("source", "target")}
    elif tokenizers.is_file(self.tokenizer):
      found = dict.fromkeys(("source", "target"), tokenizers.load(self.tokenizer))
    else:
      sides = tuple(zip(*self._parts["train"], strict=True)) or ((), ())
      texts = (sides[0] + sides[1],) * 2 if self.shared else sides
      made = [_trained(self.tokenizer, side, self.vocabulary) for side in texts]
      found = dict(zip(("source", "target"), made, strict=True))
    for side, tokenizer in found.items():
      if self.vocabulary and tokenizer.size > self.vocabulary:
        raise ValueError(
          f"the tokenizer of the {side} has {tokenizer.size} ids, "
          f"more than data.vocabulary={self.vocabulary}"
        )
      if tokenizer.bos is None or tokenizer.eos is None:
        raise ValueError(f"the tokenizer of the {side} has no token that begins or ends a text")
    return found

  @functools.cached_property
  def _encoded(self) -> dict[str, tuple[list[Encoded], list[Encoded]]]:
    found = {}
    for name, part in self._parts.items():
      sides = zip(("source", "target"), (0, 1), strict=True)
      found[name] = tuple(
        self._tokenizers[side].encode_all(pair[index] for pair in part) for side, index in sides
      )
    return found

  def _longer(self, name: str) -> np.ndarray:
    """[pairs] whether either side, with its <eos>, has more ids than a row."""
    limits = (self.source_length, self.target_length)
    sides = zip(self._encoded[name], limits, strict=True)
    return np.any([[len(one.ids) >= most for one in side] for side, most in sides], axis=0)

  @functools.cached_property
  def _kept(self) -> dict[str, np.ndarray]:
    """The pairs of every part that are its rows."""
    most = dict.fromkeys(_PARTS, self.test_examples) | {"train": self.train_examples}
    found = {}
    for name in _PARTS:
      longer = self._longer(name)
      if longer.any() and self.overlong == "refuse":
        raise ValueError(
          f"{longer.sum()} pairs of the {name} part are longer than "
          f"data.source_length={self.source_length} or data.target_length={self.target_length}"
        )
      kept = np.flatnonzero(~longer) if self.overlong == "drop" else np.arange(len(longer))
      found[name] = kept[: most[name] or None]
    if not len(found["train"]):
      where = self.path or self.source_path or f"{self.directory}: parallel:{self.dataset}"
      raise ValueError(f"{where}: no pair to train on, of {len(self._parts['train'])}")
    return found

  @functools.cached_property
  def _arrays(self) -> dict[str, pairs.Arrays]:
    return {
      name: pairs.arrays(
        *([side[row] for row in self._kept[name]] for side in self._encoded[name]),
        self._tokenizers,
        source_length=self.source_length,
        target_length=self.target_length,
        reverse_source=self.reverse_source,
      )
      for name in _PARTS
    }

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    if self.buckets:
      return {name: pairs.Bucketed(arrays, self.buckets) for name, arrays in self._arrays.items()}
    return {name: source.Arrays(arrays) for name, arrays in self._arrays.items()}


@functools.lru_cache(maxsize=8)
def _trained(kind: str, texts: tuple[str, ...], vocabulary: int) -> Tokenizer:
  return tokenizers.train(kind, texts, vocabulary)


def clean(found: Iterable[Pair], shortest: int, max_words: int) -> list[Pair]:
  """Pairs once each in their order, white space made single spaces, without those to leave out.

  A pair whose sides are equal was not translated.
  """
  kept = {}
  for pair in found:
    one, other = (" ".join(side.split()) for side in pair)
    words = (one.count(" ") + 1, other.count(" ") + 1)
    fits = words[0] >= shortest and max(words) <= (max_words or max(words))
    if one and other and one != other and fits:
      kept.setdefault((one, other))
  return list(kept)


def held_out(found: list[Pair], *, validation: float, test: float) -> dict[str, list[Pair]]:
  """Pairs by part, as a hash of the source says."""
  parts: dict[str, list[Pair]] = {name: [] for name in _PARTS}
  for one, other in found:
    place = int.from_bytes(hashlib.sha256(one.encode()).digest()[:7], "big") / 2**56
    name = "test" if place < test else "validation" if place < test + validation else "train"
    parts[name].append((one, other))
  return parts


def read_files(path: str, source_path: str, target_path: str) -> tuple[Pair, ...]:
  """Pairs of one tab-separated file, or of two files of as many lines.

  Raises:
    FileNotFoundError: a file is not there.
    ValueError: a line is no pair, or one file has more lines; it names the file.
  """
  if path:
    found = []
    for number, line in enumerate(_lines(path), 1):
      sides = line.split("\t")
      if len(sides) != 2:
        raise ValueError(f"{path}:{number}: found {len(sides)} fields between tabs, expected 2")
      found.append(tuple(sides))
    return tuple(found)
  sides = _lines(source_path), _lines(target_path)
  if len(sides[0]) != len(sides[1]):
    raise ValueError(
      f"{source_path} has {len(sides[0])} lines, but {target_path} has {len(sides[1])}"
    )
  return tuple(zip(*sides, strict=True))


def _lines(path: str) -> list[str]:
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise FileNotFoundError(f"{path}: no such file")
  # Only "\n" ends a line: a form feed or U+2028 within one would put the files out of step.
  lines = text.read_utf8(file).split("\n")
  return lines[:-1] if not lines[-1] else lines


@functools.lru_cache(maxsize=2)
def read_help(directory: str, language: str) -> tuple[Pair, ...]:
  """The paragraphs of LibreOffice's help in English and another language.

  Raises:
    FileNotFoundError: one of the packages is not there.
  """
  sides = [_help(directory, name) for name in ("en-US", language)]
  return tuple((words, sides[1][key]) for key, words in sides[0].items() if key in sides[1])


def _help(directory: str, language: str) -> dict[tuple[str, str], str]:
  """The paragraphs of one language by file and number."""
  root = pathlib.Path(directory).expanduser() / "libreoffice/help" / language / "text"
  files = sorted(root.rglob("*.html"))
  if not files:
    package = f"libreoffice-help-{language.lower()}"
    raise FileNotFoundError(
      f"{root} has no help files. They are in a Debian package, which need not be installed: "
      f"`apt-get download libreoffice-help-en-us {package} && "
      f"for deb in libreoffice-help-*.deb; do dpkg -x $deb DIR; done`, "
      "then --config.data.directory=DIR/usr/share"
    )
  found = {}
  for file in files:
    name = str(file.relative_to(root))
    if not (page := text.read_utf8(file)):
      raise ValueError(f"{file}: is empty")
    for _, number, inside in _PARAGRAPH.findall(page):
      words = " ".join(html.unescape(_TAG.sub("", inside)).split())
      if words:
        found.setdefault((name, number), words)
  return found
