"""Tokenizers of others: found in a model's directory, made one file of, and written beside a model.

A tokenizer.json is taken as it is. Older directories have a vocab.txt (WordPiece, BERT) or a
vocab.json and merges.txt (pairs of bytes, GPT-2 and RoBERTa), from which one is made; SentencePiece
models (.model) are read by data/tokenizers.py as they are.
"""

import base64
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from interop import tensors
from interop.errors import Unreadable

_FILE, _SETTINGS, _SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_SENTENCEPIECE = ("spiece.model", "tokenizer.model")
_MOST = 16_000_000  # bytes of a vocabulary

# What files call the tokens that are no text, ours first.
_NAMES = {
  "bos_token": ("<bos>", "<s>", "[CLS]", "<|begin_of_text|>", "<|endoftext|>"),
  "eos_token": ("<eos>", "</s>", "[SEP]", "<|end_of_text|>", "<|endoftext|>"),
  "unk_token": ("<unk>", "[UNK]", "<|endoftext|>"),
  "pad_token": ("<pad>", "[PAD]"),
  "mask_token": ("<mask>", "[MASK]"),
}
_PAIRS = ("bert", "distilbert", "roberta", "albert")  # families that read [CLS] A [SEP] B [SEP]


def find(directory: pathlib.Path) -> pathlib.Path | None:
  """A file with the tokenizer of a directory; None where it has none that we read.

  Raises:
    Unreadable: what is there is no tokenizer.
  """
  there = {path.name for path in directory.iterdir()}
  for name in (_FILE, *_SENTENCEPIECE):
    if name in there:
      return tensors.inside(directory, name)
  if "vocab.txt" in there or {"vocab.json", "merges.txt"} <= there:
    return _kept(convert(directory))
  return None


def convert(directory: str | pathlib.Path) -> str:
  """The text of a tokenizer.json that is what the older files of a directory say.

  Raises:
    Unreadable: they are missing, or say nothing.
  """
  directory = pathlib.Path(directory)
  settings: dict[str, Any] = {}
  for name in (_SPECIAL, _SETTINGS):
    if (directory / name).exists():
      settings |= tensors.read_json(tensors.inside(directory, name))
  try:
    if (directory / "vocab.txt").exists():
      return _wordpiece(_text(directory, "vocab.txt"), settings).to_str()
    ids = tensors.read_json(tensors.inside(directory, "vocab.json"), most=_MOST)
    return _byte_pairs(ids, _text(directory, "merges.txt"), settings).to_str()
  except Unreadable:
    raise
  except Exception as error:  # the library raises plain Exception on what it cannot make
    raise Unreadable(f"{directory}: no tokenizer: {str(error).splitlines()[0][:200]}") from error


def _text(directory: pathlib.Path, name: str) -> str:
  path = tensors.inside(directory, name)
  if path.stat().st_size > _MOST:
    raise Unreadable(f"{path}: {path.stat().st_size:,} bytes, more than {_MOST:,}")
  try:
    return path.read_text(encoding="utf-8")
  except UnicodeDecodeError as error:
    raise Unreadable(f"{path}: no UTF-8 at byte {error.start}") from error


def _wordpiece(text: str, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
  """BERT's: longest match first, `##` within a word."""
  ids = {token: index for index, token in enumerate(text.removesuffix("\n").split("\n"))}
  lower = settings.get("do_lower_case", True)
  inner = tokenizers.Tokenizer(
    models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100)
  )
  inner.normalizer = normalizers.BertNormalizer(
    lowercase=lower,
    strip_accents=settings.get("strip_accents"),
    handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
  )
  inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  inner.decoder = decoders.WordPiece()
  _with_special(inner, ids, settings)
  if "[CLS]" in ids and "[SEP]" in ids:
    inner.post_processor = _pair("[CLS]", "[SEP]", ids)
  return inner


def _byte_pairs(
  ids: Mapping[str, int], text: str, settings: Mapping[str, Any]
) -> tokenizers.Tokenizer:
  """GPT-2's, of bytes; RoBERTa's has tokens around a text besides."""
  lines = [line for line in text.split("\n") if line and not line.startswith("#version")]
  merges = [tuple(line.split(" ")) for line in lines]
  inner = tokenizers.Tokenizer(models.BPE(dict(ids), merges))
  space = bool(settings.get("add_prefix_space", False))
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
  inner.decoder = decoders.ByteLevel()
  _with_special(inner, ids, settings)
  if "<s>" in ids and "</s>" in ids:
    inner.post_processor = processors.RobertaProcessing(
      ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), trim_offsets=True, add_prefix_space=space
    )
  return inner


def _with_special(inner, ids: Mapping[str, int], settings: Mapping[str, Any]) -> None:
  """Marks the tokens that are no text: those that the settings name, and those of such a name."""
  named = []
  for key, value in settings.items():
    if key.endswith("_token"):
      named.append(value.get("content") if isinstance(value, dict) else value)
  named += [name for names in _NAMES.values() for name in names]
  for name in dict.fromkeys(name for name in named if isinstance(name, str) and name in ids):
    # What is hidden takes the space before it along, as in RoBERTa's own file.
    inner.add_special_tokens(
      [tokenizers.AddedToken(name, lstrip=name == "<mask>", normalized=False, special=True)]
    )


def _pair(begin: str, end: str, ids: Mapping[str, int]) -> processors.TemplateProcessing:
  return processors.TemplateProcessing(
    single=f"{begin} $A {end}",
    pair=f"{begin} $A {end} $B:1 {end}:1",
    special_tokens=[(begin, ids[begin]), (end, ids[end])],
  )


def _kept(text: str) -> pathlib.Path:
  """A file of the user's cache with this text."""
  home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  name = f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
  path = pathlib.Path(home) / "fukugen" / "tokenizers" / name
  if not path.is_file() or path.read_text(encoding="utf-8") != text:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
  return path


def files(tokenizer: str | pathlib.Path | None, kind: str, length: int) -> dict[str, bytes]:
  """The files to put beside a model, by name.

  Args:
    tokenizer: the path of a tokenizer.json or of a SentencePiece model, or the text of the first.
      Where a tokenizer_config.json is beside it, that goes along.
    kind: the model_type, which decides what a pair of texts looks like.
    length: the most tokens that the model reads.

  Raises:
    Unreadable: it is no tokenizer.
  """
  if tokenizer is None:
    return {}
  text, settings = str(tokenizer), None
  if not text.lstrip().startswith("{"):
    path = tensors.place(text)
    if not path.is_file():
      raise Unreadable(f"{path}: no such tokenizer")
    if path.suffix == ".model":
      return _sentencepiece(path.read_bytes(), kind)
    text = _text(path.parent, path.name)
    beside = path.with_name(_SETTINGS)
    settings = beside.read_bytes() if beside.is_file() else None
  try:
    found = json.loads(text)
    if "sentencepiece" in found:  # as our runs keep one
      return _sentencepiece(base64.b64decode(found["sentencepiece"]), kind)
    inner = tokenizers.Tokenizer.from_str(text)
  except Exception as error:  # the library raises plain Exception on what it cannot read
    raise Unreadable(f"no tokenizer: {str(error).splitlines()[0][:200]}") from error
  ids, names = inner.get_vocab(with_added_tokens=True), _special_names(inner)
  if kind in _PAIRS and inner.post_processor is None and {"bos_token", "eos_token"} <= set(names):
    # Ours leave to a task what stands around a text; theirs have it from the tokenizer.
    inner.post_processor = _pair(names["bos_token"], names["eos_token"], ids)
    text = inner.to_str()
  return {
    _FILE: text.encode(),
    _SETTINGS: settings or json.dumps(_settings(names, kind, length), indent=2).encode(),
  }


def _sentencepiece(model: bytes, kind: str) -> dict[str, bytes]:
  return {_SENTENCEPIECE[kind == "llama"]: model}


def _special_names(inner: tokenizers.Tokenizer) -> dict[str, str]:
  ids = inner.get_vocab(with_added_tokens=True)
  found = {key: [name for name in names if name in ids] for key, names in _NAMES.items()}
  return {key: names[0] for key, names in found.items() if names}


def _settings(names: Mapping[str, str], kind: str, length: int) -> dict[str, Any]:
  found: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": length,
    "clean_up_tokenization_spaces": False,
    **names,
  }
  if "pad_token" not in names and "eos_token" in names:
    found["pad_token"] = names["eos_token"]  # masked wherever it pads
  if kind in _PAIRS:
    pairs = {"cls_token": "bos_token", "sep_token": "eos_token"}
    found |= {theirs: names[ours] for theirs, ours in pairs.items() if ours in names}
  return found


def special_ids(files: Mapping[str, bytes], said: Mapping[str, Any]) -> dict[str, Any]:
  """What config.json says of special tokens, where a tokenizer is written beside it.

  Raises:
    Unreadable: the model and the tokenizer do not belong together.
  """
  if _FILE not in files:  # whatever ids their defaults name, they are not this vocabulary's
    return {"bos_token_id": None, "eos_token_id": None}
  inner = tokenizers.Tokenizer.from_str(files[_FILE].decode())
  ids = inner.get_vocab(with_added_tokens=True)
  if ids and max(ids.values()) >= said["vocab_size"]:
    raise Unreadable(
      f"the tokenizer has ids up to {max(ids.values())}, the model {said['vocab_size']} in all"
    )
  found = {key: ids[name] for key, name in _special_names(inner).items()}
  kind = said["model_type"]
  if kind == "roberta":
    # Their positions count the tokens that are not padding, by id.
    wanted = said["pad_token_id"]
    if found.get("pad_token") != wanted:
      raise Unreadable(
        f"a roberta with these positions takes token {wanted} for padding, and for the tokenizer it"
        f" is {inner.id_to_token(wanted)!r}: train with position_offset=0, or with RoBERTa's"
      )
  padding = found.get("pad_token")
  result = {"bos_token_id": found.get("bos_token"), "eos_token_id": found.get("eos_token")}
  if kind in ("t5", "marian"):
    begin = found.get("bos_token", padding)
    return result | {
      "decoder_start_token_id": begin,
      "pad_token_id": begin if padding is None else padding,
    }
  return result | {"pad_token_id": padding}
