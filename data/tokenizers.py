"""Tokenizers: text to ids and back, trained here or read from a file.

Whatever is trained here is a `tokenizer.json`, the format of Hugging Face's `tokenizers`, so that
reading anyone's file of that format is the same path. The kinds:

  bytes       one of 256 bytes a token; lossless on any text
  characters  a Unicode code point a token; lossless but for characters never trained on
  words       runs of letters and digits, runs of other signs; white space is lost
  bpe         Sennrich, Haddow & Birch 2016, arXiv:1508.07909, on bytes as GPT-2 does (Radford et
              al. 2019): no word is unknown; lossless on any text
  wordpiece   Schuster & Nakajima 2012 as BERT reads it: longest match first, `##` goes on a word.
              Trained by merging the commonest pairs, which is how the library trains it, not by
              the likelihood of the paper; white space is lost
  unigram     Kudo 2018, arXiv:1804.10959, `▁` for a space as SentencePiece writes it (Kudo &
              Richardson 2018, arXiv:1808.06226); lossless but for unknown characters and `▁`

Text never yields a special token, whatever it spells: "<eos>" in a document is five signs.
"""

import abc
import base64
import collections
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from data import source

Kind = Literal["bytes", "characters", "words", "bpe", "wordpiece", "unigram"]
KINDS = Kind.__args__
SPECIAL = ("<bos>", "<eos>", "<unk>")
LOSSLESS = ("bytes", "bpe")  # of any text; these never meet anything unknown

_MOST_IDS = 2**24  # a mistyped id would ask for as many rows of parameters
_NAMES = {"BPE": "bpe", "WordLevel": "words", "WordPiece": "wordpiece", "Unigram": "unigram"}

# What files of others call the first token of a text, its last, and what they do not know.
_BEGIN = ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>", "<|endoftext|>")
_END = ("<eos>", "</s>", "[SEP]", "<|end_of_text|>", "<|endoftext|>")
_UNKNOWN = ("<unk>", "[UNK]")
MASKS = ("[MASK]", "<mask>")  # what files of others call what is hidden
_EACH = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # every character
_SURROGATES = re.compile("[\ud800-\udfff]")
_SENTENCEPIECE = "sentencepiece"


class Encoded(NamedTuple):
  """A text in tokens.

  Attributes:
    ids: int32 [N].
    characters: int32 [N], how many characters of the text each token stands for; what a tokenizer
      skips counts for the token after it, so that they sum to the length of a text with any token.
    bytes: int32 [N], the same in bytes of UTF-8.
    unknown: how many tokens stand for what the vocabulary does not have.
  """

  ids: np.ndarray
  characters: np.ndarray
  bytes: np.ndarray
  unknown: int


class Tokenizer(abc.ABC):
  """Ids 0..size-1, of which `special` are no text.

  Attributes:
    size: how many ids there are.
    bos: the id that begins a text, or None.
    eos: the id that ends one, or None.
    unknown: the id of what the vocabulary does not have, or None where that cannot happen.
    mask: the id of what is hidden from a masked language model, or None.
    special: the ids that stand for no text.
    where: what it was read from, for a message.
  """

  where = "the tokenizer"
  size: int
  bos: int | None
  eos: int | None
  unknown: int | None
  mask: int | None
  special: frozenset[int]

  @abc.abstractmethod
  def pieces(self, texts: Sequence[str]) -> list[tuple[Sequence[int], Sequence[int]]]:
    """Of every text the ids and, by token, where in the text it ends."""

  @abc.abstractmethod
  def join(self, ids: list[int]) -> str:
    """The text of ids none of which is special."""

  @abc.abstractmethod
  def token(self, index: int) -> str:
    """The name of one id, as a reader may see it."""

  @abc.abstractmethod
  def describe(self) -> str:
    """Its kind, in a word."""

  @abc.abstractmethod
  def to_json(self) -> str:
    """What `from_json` reads back."""

  def encode(self, text: str) -> list[int]:
    """The ids of a text, without any that mark its begin or end."""
    return [int(index) for index in self._read([readable(text)])[0][0]]

  def encode_all(self, texts: Iterable[str]) -> list[Encoded]:
    """The tokens of many texts, and how much of the text each stands for."""
    texts = [readable(text) for text in texts]
    if not texts:
      return []
    pieces = self._read(texts)
    counts = np.array([len(ids) for ids, _ in pieces], np.int64)
    # All texts as one: where each ends in it, and where each of their tokens does.
    lengths = np.array([len(text) for text in texts], np.int64)
    stops = np.cumsum(lengths)
    starts = stops - lengths
    ids_N, ends_N = (
      np.concatenate([np.asarray(one, np.int64) for one in [[], *side]])
      for side in ([ids for ids, _ in pieces], [ends for _, ends in pieces])
    )
    ends_N = np.maximum.accumulate(ends_N + np.repeat(starts, counts))
    some, firsts = counts > 0, np.cumsum(counts) - counts
    ends_N[(firsts + counts - 1)[some]] = stops[some]
    begins_N = np.roll(ends_N, 1)
    begins_N[firsts[some]] = starts[some]
    code_points = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    widths = 1 + sum((code_points >= start).astype(np.int64) for start in (0x80, 0x800, 0x10000))
    before = np.concatenate([[0], np.cumsum(widths)])  # bytes before each character
    unknown = -1 if self.unknown is None else self.unknown
    arrays = (ids_N, ends_N - begins_N, before[ends_N] - before[begins_N], ids_N == unknown)
    parts = [np.split(array.astype(np.int32), firsts[1:]) for array in arrays]
    return [Encoded(*arrays, int(missing.sum())) for *arrays, missing in zip(*parts, strict=True)]

  def _read(self, texts: Sequence[str]) -> list[tuple[Sequence[int], Sequence[int]]]:
    with source.naming(self.where, "cannot read the text"):
      return self.pieces(texts)

  def decode(self, ids: Iterable[int]) -> str:
    """The text of ids; special ones, negative ones and those past `size` stand for nothing."""
    ids = [int(i) for i in ids]
    return self.join([i for i in ids if 0 <= i < self.size and i not in self.special])

  def fingerprint(self) -> str:
    return hashlib.sha256(self.to_json().encode()).hexdigest()


class HuggingFace(Tokenizer):
  """A `tokenizers.Tokenizer`, which does not cut, pad or add to what it is given."""

  def __init__(self, inner: tokenizers.Tokenizer):
    inner.no_truncation()
    inner.no_padding()
    inner.encode_special_tokens = True  # text that spells a special token is text
    self._inner = inner
    ids = inner.get_vocab(with_added_tokens=True)
    self.size = max(ids.values(), default=-1) + 1
    if len(set(ids.values())) < len(ids):
      raise ValueError("two of its tokens have the same id")
    if not 0 < self.size <= _MOST_IDS:
      raise ValueError(f"it has ids up to {self.size - 1}, expected 0 to {_MOST_IDS - 1} at most")
    first = lambda names: next((ids[name] for name in names if name in ids), None)  # noqa: E731
    self.bos, self.eos, self.unknown = first(_BEGIN), first(_END), first(_UNKNOWN)
    self.mask = first(MASKS)
    added = inner.get_added_tokens_decoder()
    self.special = frozenset(index for index, token in added.items() if token.special)
    self._by_letter = self._letters(ids)

  def pieces(self, texts):
    if self._by_letter is not None:
      return [self._spelled(text) for text in texts]
    encodings = self._inner.encode_batch(texts, add_special_tokens=False)
    return [(e.ids, [end for _, end in e.offsets]) for e in encodings]

  def join(self, ids):
    return self._inner.decode(ids, skip_special_tokens=False)

  def token(self, index):
    if index in self.special or not self.join([index]):
      return self._inner.id_to_token(index) or ""
    return self.join([index])

  def describe(self):
    if self._by_letter is not None:
      return "characters"
    model = json.loads(self.to_json())["model"]
    return "bytes" if model["type"] == "BPE" and not model["merges"] else _NAMES[model["type"]]

  def to_json(self):
    return self._inner.to_str()

  def _letters(self, ids: dict[str, int]) -> np.ndarray | None:
    """[code points] the id of each where every character is one token, which saves the library."""
    cut = self._inner.pre_tokenizer
    if self._inner.normalizer or not cut or cut.__getstate__() != _EACH.__getstate__():
      return None
    if not isinstance(self._inner.model, models.WordLevel) or self.unknown is None:
      return None
    by_letter = np.full(0x110000, self.unknown, np.int32)
    for name, index in ids.items():
      if len(name) == 1 and index not in self.special:
        by_letter[ord(name)] = index
    return by_letter

  def _spelled(self, text: str) -> tuple[np.ndarray, np.ndarray]:
    code_points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return self._by_letter[code_points], np.arange(1, len(text) + 1)


class SentencePiece(Tokenizer):
  """A SentencePiece model, which normalises text as it was trained to."""

  def __init__(self, model: bytes):
    try:
      import sentencepiece  # only who reads such a file needs it
    except ImportError as error:
      raise ValueError("a model of SentencePiece: `pip install sentencepiece`") from error
    if not model:
      raise ValueError("it is empty")
    self._model = model
    self._inner = inner = sentencepiece.SentencePieceProcessor(model_proto=model)
    self.size = inner.vocab_size()
    some = lambda index: index if index >= 0 else None  # noqa: E731
    self.bos, self.eos = some(inner.bos_id()), some(inner.eos_id())
    self.unknown = some(inner.unk_id())
    pieces = {inner.id_to_piece(i): i for i in range(self.size)}
    self.mask = next((pieces[name] for name in MASKS if name in pieces), None)
    self.special = frozenset(
      i for i in range(self.size) if inner.is_control(i) or inner.is_unknown(i)
    )

  def pieces(self, texts):
    found = self._inner.encode(list(texts), return_type="offset_mapping")
    return [(one["ids"], [end for _, end in one["offsets"]]) for one in found]

  def join(self, ids):
    return self._inner.decode(ids)

  def token(self, index):
    return self._inner.id_to_piece(index)

  def describe(self):
    return "SentencePiece"

  def to_json(self):
    return json.dumps({_SENTENCEPIECE: base64.b64encode(self._model).decode()})


def readable(text: str) -> str:
  """The text with U+FFFD for each half of a surrogate pair, which is no character."""
  return _SURROGATES.sub("\ufffd", text)


def from_json(text: str) -> Tokenizer:
  """A tokenizer from what `to_json` gave, or from a tokenizer.json of Hugging Face.

  Raises:
    ValueError: it is neither.
  """
  try:
    found = json.loads(text)
    if isinstance(found, dict) and _SENTENCEPIECE in found:
      return SentencePiece(base64.b64decode(found[_SENTENCEPIECE]))
    return HuggingFace(tokenizers.Tokenizer.from_str(text))
  except Exception as error:  # the library raises plain Exception on what it cannot read
    raise ValueError(f"no tokenizer: {source.first_line(error)}") from error


@functools.cache
def _load(path: pathlib.Path, changed: int) -> Tokenizer:
  del changed  # when the file was: part of the key
  with source.naming(path, "no tokenizer"):
    if path.suffix == ".model":
      found = SentencePiece(path.read_bytes())
    else:
      found = from_json(path.read_text(encoding="utf-8"))
  found.where = str(path)
  return found


def load(path: str | pathlib.Path) -> Tokenizer:
  """A tokenizer from a file: `.json` of Hugging Face, `.model` of SentencePiece.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no tokenizer.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise FileNotFoundError(f"{path}: no such tokenizer; kinds to train are {', '.join(KINDS)}")
  return _load(path.resolve(), path.stat().st_mtime_ns)


def is_file(name: str) -> bool:
  """Whether a `tokenizer` setting means a file, not a kind."""
  return name not in KINDS


def check(name: str, vocabulary: int) -> None:
  """Raises ValueError for a setting that means neither, or a kind that cannot be trained so."""
  if is_file(name) and not name.endswith((".json", ".model")):
    raise source.NoSuchName("tokenizer", name, KINDS, " or a file .json or .model")
  if name in ("bpe", "wordpiece", "unigram") and not vocabulary:
    raise ValueError(f"tokenizer={name!r} is trained to a size: give vocabulary")


def train(
  kind: Kind, texts: Iterable[str], vocabulary: int = 0, special: Sequence[str] = SPECIAL
) -> Tokenizer:
  """A tokenizer of `kind` from texts; the same one from the same texts.

  Args:
    kind: of the list at the head of this file.
    texts: to train on.
    vocabulary: how many ids to have, special ones included; fewer where the texts have fewer.
      0 for as many as there are, which "bpe", "wordpiece" and "unigram" cannot do; "bytes" always
      has 256 and the special ones.
    special: tokens that are no text, "<unk>" among them where something can be unknown. They are
      the first ids; of "bytes", so that a byte is its id, and of "unigram" the last.

  Raises:
    ValueError: the vocabulary is too small to hold what it must.
  """
  texts = [readable(text) for text in texts]
  if kind in LOSSLESS:
    special = [name for name in special if name not in _UNKNOWN]
  check(kind, vocabulary)
  inner = _TRAINERS[kind](texts, vocabulary, list(special))
  inner.add_special_tokens(list(special))  # those that are no ids yet become ids
  found = HuggingFace(inner)
  if vocabulary and found.size > vocabulary:
    raise ValueError(
      f"vocabulary={vocabulary} is too small: the tokenizer ({kind}) has {found.size} ids at least"
    )
  return found


def train_on(
  texts: Iterable[str], *, kind: Kind, vocabulary: int = 0, out: str | pathlib.Path
) -> Tokenizer:
  """Trains a tokenizer and writes it to the file `out`, a tokenizer.json."""
  found = train(kind, texts, vocabulary)
  out = pathlib.Path(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.write_text(found.to_json(), encoding="utf-8")
  return found


def _bytes(texts, vocabulary, special) -> tokenizers.Tokenizer:
  del texts, vocabulary, special
  # The alphabet by code point is not that by byte: the printable bytes stand for themselves.
  alphabet = {letter: byte for byte, letter in enumerate(_byte_letters())}
  return _byte_level(models.BPE(vocab=alphabet, merges=[]), use_regex=False)


def _bpe(texts, vocabulary, special) -> tokenizers.Tokenizer:
  inner = _byte_level(models.BPE(), use_regex=True)
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  return _trained(
    inner, trainers.BpeTrainer, texts, vocabulary, special, initial_alphabet=sorted(alphabet)
  )


def _byte_level(model: models.Model, *, use_regex: bool) -> tokenizers.Tokenizer:
  inner = tokenizers.Tokenizer(model)
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
  inner.decoder = decoders.ByteLevel()
  return inner


def _byte_letters() -> list[str]:
  """The letter that stands for each byte in byte-level tokenizers, as GPT-2 chose them."""
  own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = iter(range(0x100, 0x200))
  return [chr(byte if byte in own else next(others)) for byte in range(256)]


def _characters(texts, vocabulary, special) -> tokenizers.Tokenizer:
  inner = _by_rank(collections.Counter(c for text in texts for c in text), vocabulary, special)
  inner.pre_tokenizer = _EACH
  inner.decoder = decoders.Fuse()
  return inner


def _words(texts, vocabulary, special) -> tokenizers.Tokenizer:
  cut = pre_tokenizers.Whitespace()
  count = collections.Counter()
  for text in texts:
    count.update(word for word, _ in cut.pre_tokenize_str(text))
  inner = _by_rank(count, vocabulary, special)
  inner.pre_tokenizer = cut
  return inner


def _by_rank(count: collections.Counter, vocabulary: int, special) -> tokenizers.Tokenizer:
  """One id for each of the commonest, by the alphabet where equally common."""
  room = max(vocabulary - len(special), 0) if vocabulary else len(count)
  ranked = sorted(count, key=lambda token: (-count[token], token))
  names = [*special, *(token for token in ranked if token not in special)][: room + len(special)]
  unknown = next((name for name in special if name in _UNKNOWN), "<unk>")
  ids = {name: index for index, name in enumerate(names)}
  return tokenizers.Tokenizer(models.WordLevel(ids, unk_token=unknown))


def _wordpiece(texts, vocabulary, special) -> tokenizers.Tokenizer:
  cut = pre_tokenizers.BertPreTokenizer()
  words = {word for text in texts for word, _ in cut.pre_tokenize_str(text)}
  letters = sorted({f"##{letter}" for word in words for letter in word[1:]})
  inner = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
  inner.pre_tokenizer = cut
  # The library meets these in the order of a hash, which decides ids and ties: give them ahead.
  inner = _trained(inner, trainers.WordPieceTrainer, texts, vocabulary, [*special, *letters])
  made = tokenizers.Tokenizer(models.WordPiece(inner.get_vocab(), unk_token="<unk>"))
  made.pre_tokenizer = cut
  made.decoder = decoders.WordPiece(cleanup=False)
  return made


def _unigram(texts, vocabulary, special) -> tokenizers.Tokenizer:
  inner = tokenizers.Tokenizer(models.Unigram())
  inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
  trainer = trainers.UnigramTrainer
  inner = _trained(inner, trainer, texts, vocabulary, special, unk_token="<unk>")
  found = json.loads(inner.to_str())["model"]["vocab"]
  scores = {piece: score for piece, score in found if piece not in special}
  # The library adds probabilities in the order of a hash: round away what that changes. Letters
  # that it had pruned come back at the least score, a little higher each, in such an order too.
  least, little = min(scores.values(), default=0.0), 1e-4 * len(scores)
  scores = {
    piece: round(least if len(piece) == 1 and score < least + little else score, 3)
    for piece, score in scores.items()
  }
  ranked = sorted(scores, key=lambda piece: (-scores[piece], piece))
  # A piece of the model is read from text that spells it. Of the special tokens only <unk> has to
  # be one, the unlikeliest; the others are added to the model.
  pieces = [("<unk>", -1e4), *((piece, scores[piece]) for piece in ranked)]
  made = tokenizers.Tokenizer(models.Unigram(pieces, 0, False))
  made.pre_tokenizer = inner.pre_tokenizer
  made.decoder = decoders.Metaspace(prepend_scheme="never")
  return made


def _trained(inner, trainer, texts, vocabulary, special, **settings: Any) -> tokenizers.Tokenizer:
  chosen = trainer(vocab_size=vocabulary, special_tokens=special, show_progress=False, **settings)
  inner.train_from_iterator(texts, chosen, length=len(texts))
  return inner


_TRAINERS = {
  "bytes": _bytes,
  "characters": _characters,
  "words": _words,
  "bpe": _bpe,
  "wordpiece": _wordpiece,
  "unigram": _unigram,
}
