"""Tokenizers: text comes back, every character is counted once, the same texts give the same ids."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from data import tokenizers

TEXTS = [
  "In the beginning God created the heaven and the earth.\n",
  "And the earth was without form, and void; and darkness was upon the face of the deep.\n",
  "Grüße aus Köln: 日本語, e\u0301 and é.\n",
] * 5
SIZES = {"bpe": 300, "wordpiece": 120, "unigram": 90}
TRAINED = {kind: tokenizers.train(kind, TEXTS, SIZES.get(kind, 0)) for kind in tokenizers.KINDS}
WEIRD = "a<eos>\x00\u202ez\ufeff e\u0301\U0001f600 <unk>\r\n\t[CLS] ▁ \u2028"


def check_counts(encoded, text):
  assert len(encoded.ids) or not text.strip()  # white space alone may be no token at all
  if not len(encoded.ids):
    return
  assert encoded.characters.sum() == len(text)
  assert encoded.bytes.sum() == len(text.encode())
  assert (encoded.characters >= 0).all()
  assert (encoded.bytes >= 0).all()
  assert len(encoded.ids) == len(encoded.characters) == len(encoded.bytes)


@pytest.mark.parametrize("kind", tokenizers.LOSSLESS)
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@example(text=WEIRD)
@example(text="")
def test_any_text_comes_back(kind, text):
  tokenizer = TRAINED[kind]
  ids = tokenizer.encode(text)
  assert tokenizer.decode(ids) == text
  assert not tokenizer.special.intersection(ids)
  assert tokenizer.encode_all([text])[0].unknown == 0


@pytest.mark.parametrize("kind", ["characters", "unigram"])
@settings(max_examples=50, deadline=None)
@given(text=st.text(sorted(set("".join(TEXTS)))))
def test_text_of_known_characters_comes_back(kind, text):
  assert TRAINED[kind].decode(TRAINED[kind].encode(text)) == text


@pytest.mark.parametrize("kind", tokenizers.KINDS)
@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
@example(texts=[WEIRD, "", "  ", "ü"])
def test_every_character_is_counted_once(kind, texts):
  for encoded, text in zip(TRAINED[kind].encode_all(texts), texts, strict=True):
    check_counts(encoded, text)
    assert encoded.ids.tolist() == TRAINED[kind].encode(text)


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_special_tokens_are_never_read_from_text(kind):
  tokenizer = TRAINED[kind]
  ids = tokenizer.encode("<bos> <eos>")
  assert not {tokenizer.bos, tokenizer.eos}.intersection(ids)
  marked = [tokenizer.bos, *tokenizer.encode("the"), tokenizer.eos, -1, tokenizer.size + 5]
  assert tokenizer.decode(marked) == "the"


@pytest.mark.parametrize("kind", ["characters", "words", "wordpiece", "unigram"])
def test_text_that_spells_unknown_is_known(kind):
  texts = ["the <unk> of <bos>"] * 9
  tokenizer = tokenizers.train(kind, texts, {"wordpiece": 60, "unigram": 40}.get(kind, 0))
  assert not tokenizer.special.intersection(tokenizer.encode(texts[0]))


def test_what_is_unknown_is_counted():
  for kind in ("characters", "words", "wordpiece", "unigram"):
    tokenizer = TRAINED[kind]
    assert tokenizer.unknown == (0 if kind == "unigram" else 2)
    assert tokenizer.encode_all(["the earth", "the \u0416"])[0].unknown == 0
    assert tokenizer.encode_all(["the earth", "the \u0416"])[1].unknown == 1
  assert TRAINED["bytes"].unknown is None


def test_a_byte_is_its_id():
  tokenizer = TRAINED["bytes"]
  assert tokenizer.encode("Aé\x00") == [0x41, 0xC3, 0xA9, 0]
  assert (tokenizer.size, tokenizer.bos, tokenizer.eos) == (258, 256, 257)
  assert tokenizer.decode([0xC3]) == "\ufffd"  # half a character
  assert tokenizer.encode_all(["é"])[0].characters.tolist() == [1, 0]


def test_half_a_surrogate_pair_becomes_the_replacement_character():
  for tokenizer in TRAINED.values():
    check_counts(tokenizer.encode_all(["a\ud800b"])[0], "a\ufffdb")
  assert TRAINED["bpe"].decode(TRAINED["bpe"].encode("a\udfffb")) == "a\ufffdb"


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_json_holds_a_tokenizer_whole(kind, tmp_path):
  tokenizer = TRAINED[kind]
  (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
  loaded = tokenizers.load(tmp_path / "tokenizer.json")
  assert loaded.fingerprint() == tokenizer.fingerprint()
  assert loaded.encode(WEIRD) == tokenizer.encode(WEIRD)
  assert (loaded.bos, loaded.eos, loaded.unknown) == (
    tokenizer.bos,
    tokenizer.eos,
    tokenizer.unknown,
  )
  assert loaded.describe() == kind
  Tokenizer.from_str(tokenizer.to_json())  # the library itself reads it


def test_training_is_the_same_in_every_process():
  """Python and the library both hash by a random key."""
  code = f"""
from data import tokenizers
texts = {TEXTS!r}
for kind in tokenizers.KINDS:
  print(tokenizers.train(kind, texts, {SIZES!r}.get(kind, 0)).fingerprint())
"""
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert run.stdout.split() == [TRAINED[kind].fingerprint() for kind in tokenizers.KINDS]


def test_sizes():
  assert TRAINED["bpe"].size == 300
  assert TRAINED["wordpiece"].size == 120
  assert TRAINED["characters"].size == len(set("".join(TEXTS))) + 3
  small = tokenizers.train("words", TEXTS, 10)
  assert small.size == 10
  assert small.token(3) in ("the", "and")  # the commonest
  with pytest.raises(ValueError, match="too small"):
    tokenizers.train("bpe", TEXTS, 100)
  with pytest.raises(ValueError, match="give vocabulary"):
    tokenizers.train("bpe", TEXTS)


# Sennrich, Haddow & Birch 2016: the dictionary of their figure 1, `z` for the end of a word.
TOY = {"lowz": 5, "lowerz": 2, "newestz": 6, "widestz": 3}


def merges():
  words = [word for word, count in TOY.items() for _ in range(count)]
  alphabet = 256
  tokenizer = tokenizers.train("bpe", words, alphabet + 10, special=())
  return [tuple(pair) for pair in json.loads(tokenizer.to_json())["model"]["merges"]]


def test_bpe_merges_the_commonest_pair_each_time():
  found, counts = merges(), []
  words = {tuple(word): count for word, count in TOY.items()}
  for pair in found:
    pairs = {}
    for word, count in words.items():
      for two in itertools.pairwise(word):
        pairs[two] = pairs.get(two, 0) + count
    assert pairs[pair] == max(pairs.values())
    counts.append(pairs[pair])
    words = {merged(word, pair): count for word, count in words.items()}
  assert counts == [9, 9, 9, 7, 7, 6, 6, 6, 5, 3]
  # Whatever the order of ties: "newest" and "low" are words by then, "est" and "low" are pieces.
  assert [word for word in words if len(word) == 1] == [("lowz",), ("newestz",)]
  assert ("low", "e", "r", "z") in words


def merged(word, pair):
  out = []
  for piece in word:
    if out and (out[-1], piece) == pair:
      out[-1] += piece
    else:
      out.append(piece)
  return tuple(out)


def test_wordpiece_takes_the_longest_match():
  tokenizer = TRAINED["wordpiece"]
  vocabulary = json.loads(tokenizer.to_json())["model"]["vocab"]
  for word in ("beginning", "darkness", "earth", "created"):
    rest, expected = word, []
    while rest:
      prefix = "##" if expected else ""
      size = max(n for n in range(1, len(rest) + 1) if prefix + rest[:n] in vocabulary)
      expected.append(vocabulary[prefix + rest[:size]])
      rest = rest[size:]
    assert tokenizer.encode(word) == expected


def test_unigram_finds_the_likeliest_segmentation():
  scores = dict(json.loads(TRAINED["unigram"].to_json())["model"]["vocab"])
  text = "the▁earth"
  best = [0.0, *[-np.inf] * len(text)]  # by the end of a prefix (Viterbi)
  for stop in range(1, len(text) + 1):
    known = [start for start in range(stop) if text[start:stop] in scores]
    best[stop] = max(best[start] + scores[text[start:stop]] for start in known)
  names = json.loads(TRAINED["unigram"].to_json())["model"]["vocab"]
  # The library cuts before every "▁", so no piece reaches over it.
  found = sum(names[i][1] for i in TRAINED["unigram"].encode("the earth"))
  assert found == pytest.approx(best[-1], abs=1e-6)


def test_a_file_of_hugging_face_is_read_without_what_it_adds(tmp_path):
  """BERT's: lower case, [CLS] and [SEP] around, cut and padded to a size."""
  names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "ear", "##th"]
  ids = {name: index for index, name in enumerate(names)}
  inner = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
  inner.normalizer = normalizers.BertNormalizer(lowercase=True)
  inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
  inner.add_special_tokens(names[:4])
  inner.enable_truncation(3)
  inner.enable_padding(length=8)
  inner.save(str(tmp_path / "tokenizer.json"))
  tokenizer = tokenizers.load(tmp_path / "tokenizer.json")
  assert tokenizer.encode("The EARTH xyz") == [4, 5, 6, 1]
  assert (tokenizer.bos, tokenizer.eos, tokenizer.unknown, tokenizer.size) == (2, 3, 1, 7)
  check_counts(tokenizer.encode_all(["The EARTH xyz"])[0], "The EARTH xyz")


def test_a_model_of_sentencepiece_is_read(tmp_path):
  sentencepiece = pytest.importorskip("sentencepiece", reason="needs `pip install sentencepiece`")
  (tmp_path / "text").write_text("".join(TEXTS), encoding="utf-8")
  sentencepiece.SentencePieceTrainer.train(
    input=str(tmp_path / "text"),
    model_prefix=str(tmp_path / "toy"),
    vocab_size=100,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  tokenizer = tokenizers.load(tmp_path / "toy.model")
  reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "toy.model"))
  text = "the heaven and Köln"
  assert tokenizer.encode(text) == reference.encode(text)
  assert tokenizer.decode([1, *tokenizer.encode(text), 2, -1]) == text
  assert (tokenizer.bos, tokenizer.eos, tokenizer.unknown) == (1, 2, 0)
  check_counts(tokenizer.encode_all([text])[0], text)
  again = tokenizers.from_json(tokenizer.to_json())
  assert again.encode(text) == tokenizer.encode(text)
  assert again.fingerprint() == tokenizer.fingerprint()


def test_files_that_are_no_tokenizer_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="no such tokenizer"):
    tokenizers.load(tmp_path / "none.json")
  for name in ("bad.json", "bad.model"):
    (tmp_path / name).write_bytes(b"{\xff")
    with pytest.raises(ValueError, match=name):
      tokenizers.load(tmp_path / name)
  with pytest.raises(ValueError, match="choose among bytes"):
    tokenizers.check("bpee", 300)


def test_train_on_writes_a_file(tmp_path):
  made = tokenizers.train_on(TEXTS, kind="bpe", vocabulary=280, out=tmp_path / "new/tokenizer.json")
  assert tokenizers.load(tmp_path / "new/tokenizer.json").fingerprint() == made.fingerprint()
