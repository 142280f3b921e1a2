"""Damaged, missing and hostile data: refused in one line before step 1, or known by its fingerprint.

Every format that a source reads is written small, mutated from a seed and read again. Three ends
are right: it is refused in one line that names the file; nothing that a model sees has changed, nor
has the fingerprint; or something has and the fingerprint with it, where a format has no redundancy
to tell damage from data. All else is a fault: a traceback, values out of range, a change that the
fingerprint does not see.
"""

import ast
import gzip
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from data import (
  bible,
  choices,
  demand,
  diabetes,
  digits,
  idx,
  labelled_text,
  packing,
  parallel,
  reading,
  sentence_pairs,
  series,
  source,
  streaming,
  sword,
  text,
  text_to_text,
  token_labels,
  tokenizers,
)
from training import build, config, fingerprints, look, prompting, run
from training.errors import ConfigError, DataError
from training.loop import Stop
from training.machine import Machines
from training.workdir import Workdir, read_rows

ROOT = pathlib.Path(__file__).resolve().parent.parent
VAE = "experiments/vae/gaussian_digits.py:smoke"
CACHES = (digits._load, diabetes._load, series._load, demand._load, bible.chapters)
CACHES += (sword.verses, parallel.read_help)

needs_tfds = pytest.mark.skipif(
  any(importlib.util.find_spec(name) is None for name in ("tensorflow_datasets", "array_record")),
  reason="needs `pip install tensorflow-datasets array-record pillow importlib_resources`",
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
  """No test reads what another has."""
  monkeypatch.chdir(ROOT)
  for cache in CACHES:
    cache.cache_clear()
  yield
  for cache in CACHES:
    cache.cache_clear()


# ---------------------------------------------------------------------------- the formats, small

SENTENCES = [
  "In the beginning there was a small grey stone.",
  "It said nothing, and nobody asked.",
  "A bird sat down on it and sang of rain.",
  "The rain came; the bird left the stone alone.",
  "Years went by, one after another, as they do.",
  "A child found the stone and put it in a pocket.",
  "Über Nacht wurde es naß — 復元 — and cold.",
  "The pocket had a hole, so the stone fell out.",
  "It lies there still, says the child, now old.",
  "Nobody has asked it anything to this day.",
] * 3
WORDS = [f"{sentence} ({i})" for i, sentence in enumerate(SENTENCES)]


class Format(NamedTuple):
  """A format: how it is written, and the source that reads it."""

  write: Callable[[pathlib.Path], None]
  source: Callable[[pathlib.Path], source.Source]
  package: str = ""  # the folder is the one of this Python package


def _lines(name, lines):
  def write(folder):
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

  return write


def _idx(folder, zipped):
  generator = np.random.default_rng(0)
  for part, size in (("train", 20), ("t10k", 6)):
    image = generator.integers(0, 256, (size, 28, 28), dtype=np.uint8)
    label = generator.integers(0, 10, size, dtype=np.uint8)
    for kind, array in (("images", image), ("labels", label)):
      raw = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
      name = f"{part}-{kind}-idx{array.ndim}-ubyte"
      if zipped:
        (folder / f"{name}.gz").write_bytes(gzip.compress(raw, mtime=0))
      else:
        (folder / name).write_bytes(raw)


def _copied(package, *files):
  def write(folder):
    place = importlib.util.find_spec(package).submodule_search_locations[0]
    for file in files:
      (folder / file).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(pathlib.Path(place, file), folder / file)

  return write


def _squad(folder):
  def paragraph(i):
    words = WORDS[i].split(" ")
    start = len(" ".join(words[:2])) + 1
    asked = [
      {
        "id": f"{i}a",
        "question": "What follows?",
        "answers": [{"answer_start": start, "text": words[2]}],
      },
      {"id": f"{i}b", "question": "Why?", "answers": [], "is_impossible": True},
    ]
    return {"context": WORDS[i], "qas": asked}

  data = {
    "version": "2.0",
    "data": [{"title": "t", "paragraphs": [paragraph(i) for i in range(20)]}],
  }
  (folder / "squad.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def _conll(folder):
  rows = [
    f"{word}\t{'X' if word[0].isupper() else 'O'}\n"
    for s in SENTENCES
    for word in [*s.split(), ""]
    if word
  ]
  ends = iter(range(10**6))
  body = "".join(row + ("\n" if next(ends) % 6 == 5 else "") for row in rows)
  (folder / "tags.conll").write_text(body, encoding="utf-8")


def _help(folder):
  for language, words in (("en-US", WORDS), ("de", [w.upper() for w in WORDS])):
    for i in range(2):
      place = folder / "libreoffice/help" / language / "text" / f"p{i}.html"
      place.parent.mkdir(parents=True, exist_ok=True)
      body = [f'<p id="par_id{n}" class="x">{w} <b>{i}</b></p>' for n, w in enumerate(words)]
      place.write_text("<html>" + "\n".join(body) + "</html>", encoding="utf-8")


def _sword(folder):
  for name in sword._PACKAGES:
    place = folder / "sword/modules/texts/ztext" / name
    place.mkdir(parents=True)
    verses = [f"<w>{name[:3]} {words}</w>".encode() for words in WORDS]
    blocks, packed, index, data = [], [], [], b""
    for first in range(0, len(verses), 10):
      inside = b"".join(verses[first : first + 10])
      packed = zlib.compress(inside)
      blocks.append(struct.pack("<III", len(data), len(packed), len(inside)))
      data += packed
      start = 0
      for verse in verses[first : first + 10]:
        index.append(struct.pack("<IIH", len(blocks) - 1, start, len(verse)))
        start += len(verse)
    (place / "ot.bzz").write_bytes(data)
    (place / "ot.bzs").write_bytes(b"".join(blocks))
    (place / "ot.bzv").write_bytes(b"".join(index))


def _tokenizer_json(folder):
  _lines("text.txt", WORDS)(folder)
  made = tokenizers.train("bpe", WORDS, 300)
  (folder / "tokenizer.json").write_text(made.to_json(), encoding="utf-8")


def _with_tokenizer(folder, name="tokenizer.json"):
  settings = dict(length=16, documents="line", validation=0.2, test=0.2)
  return text.Source(
    dataset="files", path=str(folder / "text.txt"), tokenizer=str(folder / name), **settings
  )


def _sentencepiece(folder):
  import sentencepiece

  _lines("text.txt", WORDS)(folder)
  sentencepiece.SentencePieceTrainer.train(
    input=str(folder / "text.txt"),
    model_prefix=str(folder / "m"),
    vocab_size=120,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  (folder / "m.vocab").unlink()


def _files(folder, **settings):
  settings = {"tokenizer": "bytes", "length": 16, "documents": "line", **settings}
  settings = {"validation": 0.2, "test": 0.2, **settings}
  return text.Source(dataset="files", path=str(folder / "text.txt"), **settings)


MARKED = dict(tokenizer="words", length=24, validation=0.2, test=0.2)
FORMATS = {
  "idx": Format(
    lambda f: _idx(f, False),
    lambda f: idx.Source(dataset="mnist", directory=str(f), validation=4),
  ),
  "idx.gz": Format(
    lambda f: _idx(f, True),
    lambda f: idx.Source(dataset="mnist", directory=str(f), validation=4),
  ),
  "digits": Format(
    _copied("sklearn", "datasets/data/digits.csv.gz"), lambda f: digits.Source(), "sklearn"
  ),
  "diabetes": Format(
    _copied(
      "sklearn",
      "datasets/data/diabetes_data_raw.csv.gz",
      "datasets/data/diabetes_target.csv.gz",
    ),
    lambda f: diabetes.Source(),
    "sklearn",
  ),
  "series": Format(
    _copied(
      "aeon",
      series._SETS["internal_bleeding"].train_file,
      series._SETS["internal_bleeding"].test_file,
    ),
    lambda f: series.Source(dataset="internal_bleeding", test_stride=50),
    "aeon",
  ),
  "demand": Format(
    _copied("pmdarima", "datasets/taylor.py"), lambda f: demand.Source(validation=500), "pmdarima"
  ),
  "text bytes": Format(_lines("text.txt", WORDS), lambda f: _files(f)),
  "text characters": Format(
    _lines("text.txt", WORDS), lambda f: _files(f, tokenizer="characters", packing="documents")
  ),
  "text bpe": Format(
    _lines("text.txt", WORDS),
    lambda f: _files(f, tokenizer="bpe", vocabulary=300, packing="padded"),
  ),
  "sentence pairs": Format(
    _lines("text.txt", WORDS * 2),
    lambda f: sentence_pairs.Source(
      dataset="files",
      path=str(f / "text.txt"),
      relation="order",
      tokenizer="bytes",
      length=40,
      documents="file",
      validation=0.0,
      test=0.0,
    ),
  ),
  "tsv": Format(
    _lines(
      "own.tsv", ["label\ttext", *(f"{'no' if i % 3 else 'yes'}\t{w}" for i, w in enumerate(WORDS))]
    ),
    lambda f: labelled_text.Source(
      dataset="tsv", path=str(f / "own.tsv"), columns=("text",), labels=("no", "yes"), **MARKED
    ),
  ),
  "tsv of numbers": Format(
    _lines(
      "own.tsv", ["score\ta\tb", *(f"{i / 7:.3f}\t{w}\t{w[::-1]}" for i, w in enumerate(WORDS))]
    ),
    lambda f: labelled_text.Source(
      dataset="tsv", path=str(f / "own.tsv"), columns=("a", "b"), label="score", **MARKED
    ),
  ),
  "CoLA": Format(
    lambda f: [
      _lines(f"{part}.tsv", [f"x\t{i % 2}\t*\t{w}" for i, w in enumerate(WORDS)])(f)
      for part in ("train", "dev")
    ],
    lambda f: labelled_text.Source(dataset="cola", path=str(f), **MARKED),
  ),
  "SQuAD": Format(
    _squad,
    lambda f: reading.Source(
      dataset="squad", path=str(f / "squad.json"), question_length=8, stride=4, **MARKED
    ),
  ),
  "CoNLL": Format(
    _conll,
    lambda f: token_labels.Source(
      dataset="conll", path=str(f / "tags.conll"), labels=("O", "X"), **MARKED
    ),
  ),
  "SWAG": Format(
    _lines(
      "swag.csv",
      [
        "sent1,sent2,ending0,ending1,ending2,ending3,label",
        *(f'"{w}",He,"goes, {i}",stays,"says ""no""",left,{i % 4}' for i, w in enumerate(WORDS)),
      ],
    ),
    lambda f: choices.Source(dataset="swag", path=str(f / "swag.csv"), **MARKED),
  ),
  "pairs of a file": Format(
    _lines("pairs.tsv", [f"{w}\t{w.upper()}" for w in WORDS]),
    lambda f: parallel.Source(
      dataset="files",
      path=str(f / "pairs.tsv"),
      tokenizer="characters",
      overlong="truncate",
      validation=0.2,
      test=0.2,
    ),
  ),
  "pairs of two files": Format(
    lambda f: [
      _lines("a.txt", WORDS)(f),
      _lines("b.txt", [w.upper() for w in WORDS])(f),
    ],
    lambda f: parallel.Source(
      dataset="files",
      source_path=str(f / "a.txt"),
      target_path=str(f / "b.txt"),
      tokenizer="bytes",
      overlong="truncate",
      buckets=2,
      validation=0.2,
      test=0.2,
    ),
  ),
  "help": Format(
    _help,
    lambda f: parallel.Source(
      dataset="libreoffice-de",
      directory=str(f),
      tokenizer="bytes",
      overlong="truncate",
      validation=0.2,
      test=0.2,
    ),
  ),
  "sword": Format(
    _sword,
    lambda f: parallel.Source(
      dataset="bible-en-es",
      directory=str(f),
      tokenizer="bytes",
      overlong="truncate",
      validation=0.2,
      test=0.2,
    ),
  ),
  "tasks as text": Format(
    lambda f: [
      _lines("pairs.tsv", [f"shout: {w}\t{w.upper()}" for w in WORDS])(f),
      (f / "tokenizer.json").write_text(tokenizers.train("bytes", []).to_json(), encoding="utf-8"),
    ],
    lambda f: text_to_text.Source(
      dataset="files",
      path=str(f / "pairs.tsv"),
      tokenizer=str(f / "tokenizer.json"),
      target_length=24,
    ),
  ),
  "tokenizer.json": Format(_tokenizer_json, _with_tokenizer),
  "SentencePiece": Format(_sentencepiece, lambda f: _with_tokenizer(f, "m.model")),
}


class Loaded(NamedTuple):
  """What a model sees of a source, and the fingerprint of it."""

  seen: str
  fingerprint: str


def load(dataset: source.Source) -> Loaded:
  """All of a source as a run reads it before its first step; what is not refused is sound."""
  digest = hashlib.sha256()
  with build.reading(dataset):
    facts, sizes = dict(dataset.facts()), source.sizes(dataset)
    dict(dataset.conditions())
    for name, size in sizes.items():
      arrays = dataset.split(name).take(np.arange(size)) if size else {}
      for key, array in sorted(arrays.items()):
        digest.update(f"{name} {key} {array.dtype} {array.shape}".encode() + array.tobytes())
        assert array.dtype.kind != "f" or np.isfinite(array).all(), f"{key} is not finite"
        if key in dataset.tokenizers():
          most = facts[f"{key}_vocabulary" if f"{key}_vocabulary" in facts else "vocabulary"]
          assert array.min() >= -1
          assert array.max() < most
        if key in ("label", "labels") and array.dtype.kind == "i":
          classes = facts["classes"] if "classes" in facts else dataset.choices
          assert array.min() >= -1
          assert array.max() < classes
    fingerprint = dataset.fingerprint()
    for texts in dataset.tokenizers().values():
      digest.update(texts.fingerprint().encode())
  return Loaded(digest.hexdigest(), fingerprint)


def refused_or_known(dataset: source.Source, whole: Loaded, *names: str):
  """As of a mutated file: refused, or its fingerprint is another."""
  try:
    found = load(dataset)
  except DataError:
    refused(dataset, *names)
  else:
    assert found.fingerprint != whole.fingerprint


def refused(dataset: source.Source, *names: str) -> str:
  """The one line that refuses a source; it names one of the files."""
  with pytest.raises(DataError) as error:
    load(dataset)
  line = str(error.value)
  assert error.value.status == 3
  assert "\n" not in line
  assert len(line) <= 500
  assert any(name in line for name in names), line
  return line


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
  """By format, the folder of its files and what is read of them."""
  return {}, tmp_path_factory.mktemp("formats")


@pytest.fixture
def written(request, sound, monkeypatch):
  """(format, a folder that may be damaged, what is read of it undamaged)."""
  found, root = sound
  name = request.param
  form, folder = FORMATS[name], root / name.replace(" ", "_")
  if name not in found:
    folder.mkdir(exist_ok=True)
    form.write(folder)
  if form.package:
    # The package without its code, at the front of the path.
    spec = importlib.machinery.ModuleSpec(form.package, None, is_package=True)
    spec.submodule_search_locations.append(str(folder))
    known = importlib.util.find_spec
    monkeypatch.setattr(
      importlib.util, "find_spec", lambda n, *a: spec if n == form.package else known(n, *a)
    )
  if name not in found:
    found[name] = load(form.source(folder))
  return form, folder, found[name]


each_format = pytest.mark.parametrize("written", FORMATS, indirect=True, ids=list(FORMATS))


def fresh():
  for cache in CACHES:
    cache.cache_clear()


# ---------------------------------------------------------------------------------- the mutations


def _cut(raw, draw):
  return raw[: draw.randrange(len(raw))]


def _flip(raw, draw):
  place = draw.randrange(len(raw))
  return raw[:place] + bytes([raw[place] ^ 1 << draw.randrange(8)]) + raw[place + 1 :]


def _flip_header(raw, draw):
  place = draw.randrange(min(len(raw), 32))
  return raw[:place] + bytes([raw[place] ^ 1 << draw.randrange(8)]) + raw[place + 1 :]


def _insert(raw, draw):
  place = draw.randrange(len(raw) + 1)
  return raw[:place] + draw.randbytes(draw.randrange(1, 9)) + raw[place:]


def _remove(raw, draw):
  place = draw.randrange(len(raw))
  return raw[:place] + raw[place + draw.randrange(1, 50) :]


def _zero(raw, draw):
  place, size = draw.randrange(len(raw)), draw.randrange(1, 50)
  return raw[:place] + bytes(len(raw[place : place + size])) + raw[place + size :]


def _repeat(raw, draw):
  place, size = draw.randrange(len(raw)), draw.randrange(1, 200)
  return raw[: place + size] + raw[place:]


def _digits(raw, draw):
  """Another digit for one: ids, labels, sizes and numbers of a text file."""
  places = [match.start() for match in re.finditer(rb"[0-9]", raw)]
  if not places:
    return _flip(raw, draw)
  place = draw.choice(places)
  return (
    raw[:place]
    + draw.choice([b"9", b"-1", b"99999999999", b"nan", b"1e999", b""])
    + raw[place + 1 :]
  )


MUTATIONS = (_cut, _flip, _flip_header, _insert, _remove, _zero, _repeat, _digits)


def fuzz(form: Format, folder: pathlib.Path, sound: Loaded, seeds, tmp_path) -> dict[str, int]:
  """How each mutation ended."""
  ended = {"refused": 0, "the same": 0, "another fingerprint": 0}
  files = sorted(path for path in folder.rglob("*") if path.is_file())
  for seed in seeds:
    draw = random.Random(seed)
    file = draw.choice(files)
    raw = file.read_bytes()
    mutation = MUTATIONS[seed % len(MUTATIONS)]
    changed = mutation(raw, draw)
    said = f"seed {seed}: {mutation.__name__} of {file.name}"
    try:
      file.write_bytes(changed)
      os.utime(file, ns=(seed, seed))  # tokenizers are read again where the file has changed
      fresh()
      found = load(form.source(folder))
    except DataError as error:
      line = str(error)
      ended["refused"] += 1
      assert "\n" not in line, said
      assert len(line) <= 500, said
      assert str(folder) in line or file.name in line, f"{said}: {line}"
    except BaseException as error:
      raise AssertionError(f"{said}: {type(error).__name__}: {error}") from error
    else:
      same = found.seen == sound.seen
      ended["the same" if same else "another fingerprint"] += 1
      # The demand's is of float64, of which a model sees float32.
      finer = same and folder.name == "demand"
      known = (found.fingerprint == sound.fingerprint) == same
      assert known or finer, f"{said}: seen changed: {not same}"
    finally:
      file.write_bytes(raw)
      os.utime(file, ns=(10**9 + seed, 10**9 + seed))
  return ended


@each_format
def test_mutated_files_are_refused_or_known_by_their_fingerprint(written, tmp_path):
  form, folder, whole = written
  ended = fuzz(form, folder, whole, range(24), tmp_path)
  print(ended)
  assert ended["refused"]


@pytest.mark.deep
@each_format
def test_many_mutated_files_are_refused_or_known(written, tmp_path):
  form, folder, whole = written
  assert sum(fuzz(form, folder, whole, range(1000, 1400), tmp_path).values()) == 400


@each_format
def test_missing_empty_and_unreadable_files_are_refused(written):
  form, folder, whole = written
  for file in sorted(path for path in folder.rglob("*") if path.is_file()):
    raw = file.read_bytes()
    names = (file.name, str(folder))
    try:
      file.write_bytes(b"")
      fresh()
      refused(form.source(folder), *names)
      # Without the packaged file, scikit-learn's own function reads the digits; of a directory of
      # pages one is no more than missed.
      for absent in (file.unlink, file.mkdir):
        absent()
        fresh()
        if folder.name == "help":
          refused_or_known(form.source(folder), whole, *names)
        elif folder.name != "digits":
          refused(form.source(folder), *names)
    finally:
      if file.is_dir():
        file.rmdir()
      file.write_bytes(raw)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """(how a set of TFDS is read, its folder, what is read of it undamaged)."""
  from data import prepare_tfds, tfds

  folder = tmp_path_factory.mktemp("tfds")
  _idx(folder, False)
  origin = idx.Source(dataset="fashion_mnist", directory=str(folder))
  name = prepare_tfds.prepare(origin, directory=str(folder / "prepared"))

  def dataset(place):
    return tfds.Source(dataset=name, directory=str(place), validation=4)

  form, place = Format(lambda f: None, dataset), folder / "prepared"
  return form, place, load(dataset(place))


@needs_tfds
def test_mutated_records_of_tfds_are_refused_or_known(prepared, tmp_path):
  ended = fuzz(*prepared, range(40), tmp_path)
  assert ended["refused"] >= 10


@needs_tfds
@pytest.mark.deep
def test_many_mutated_records_of_tfds_are_refused_or_known(prepared, tmp_path):
  assert sum(fuzz(*prepared, range(1000, 1400), tmp_path).values()) == 400


def test_unreadable_files_are_refused():
  """As root nothing is unreadable, so another user reads."""
  code = (
    "import os, sys; sys.path.insert(0, '.')\n"
    "from data import text; from training import build; from training.errors import UserError\n"
    "os.getuid() or os.setuid(65534)\n"
    "found = text.Source(dataset='files', path=sys.argv[1], tokenizer='bytes')\n"
    "try:\n  with build.reading(found): found.split('train')\n"
    "except UserError as error: sys.exit(f'{error.status} {error}')\n"
  )
  with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    file = pathlib.Path(folder, "text.txt")
    file.write_text("words")
    file.chmod(0)
    command = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.stderr.startswith("3 error[DATA]: "), done.stderr
  assert done.stderr.count("\n") == 1
  assert f"Permission denied: '{file}'" in done.stderr


# ---------------------------------------------------------- what no random mutation is sure to find


def test_a_packaged_set_that_is_damaged_is_told_with_both_hashes(tmp_path, monkeypatch):
  # One pixel, in a file that is otherwise a whole gzip: only its hash tells.
  monkeypatch.setitem(idx._DEBIAN, "fashion_mnist", str(tmp_path))
  monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
  monkeypatch.delenv("FUKUGEN_DATA", raising=False)
  _idx(tmp_path, True)
  line = refused(idx.Source(dataset="fashion_mnist", validation=4), "train-images-idx3-ubyte.gz")
  assert len(re.findall(r"\b[0-9a-f]{64}\b", line)) == 2
  # One's own files, in a directory that one names, are what they are.
  own = shutil.copytree(tmp_path, tmp_path / "own")
  load(idx.Source(dataset="fashion_mnist", directory=str(own), validation=4))


@pytest.mark.parametrize("written", ["digits", "diabetes"], indirect=True)
def test_a_number_of_a_packaged_table_that_changed_is_told(written):
  form, folder, _ = written
  file = sorted(path for path in folder.rglob("*.gz"))[0]
  raw = file.read_bytes()
  table = gzip.decompress(raw)
  place = table.index(b"1")
  try:
    file.write_bytes(gzip.compress(table[:place] + b"2" + table[place + 1 :]))
    fresh()
    line = refused(form.source(folder), file.name)
  finally:
    file.write_bytes(raw)
  assert len(re.findall(r"\b[0-9a-f]{64}\b", line)) == 2


@pytest.mark.parametrize("written", ["tsv of numbers"], indirect=True)
@pytest.mark.parametrize("number", ["nan", "inf", "1e999", "", "one"])
def test_a_label_that_is_no_finite_number_is_refused(written, number):
  form, folder, _ = written
  file = folder / "own.tsv"
  raw = file.read_text(encoding="utf-8")
  lines = raw.split("\n")
  lines[3] = "\t".join([number, *lines[3].split("\t")[1:]])
  try:
    file.write_text("\n".join(lines), encoding="utf-8")
    assert "own.tsv:4" in refused(form.source(folder), "own.tsv")
  finally:
    file.write_text(raw, encoding="utf-8")


@pytest.mark.parametrize("written", ["SQuAD"], indirect=True)
@pytest.mark.parametrize(
  "change",
  [
    lambda p: p["qas"][0]["answers"][0].update(answer_start=-3, text=p["context"][-3:-1]),
    lambda p: p["qas"][0]["answers"][0].update(answer_start=10**30),
    lambda p: p["qas"][0]["answers"][0].update(answer_start=True),
    lambda p: p["qas"][0]["answers"][0].update(answer_start="5"),
    lambda p: p["qas"][0]["answers"][0].update(text=["a"]),
    lambda p: p["qas"][0].update(question=7),
    lambda p: p.update(context=None),
    lambda p: p.update(qas={"a": 1}),
    lambda p: p.pop("qas"),
  ],
)
def test_squad_of_other_types_is_refused(written, change):
  form, folder, _ = written
  file = folder / "squad.json"
  raw = file.read_text(encoding="utf-8")
  tree = json.loads(raw)
  change(tree["data"][0]["paragraphs"][0])
  try:
    file.write_text(json.dumps(tree), encoding="utf-8")
    refused(form.source(folder), "squad.json")
    file.write_text("[" * 100_000, encoding="utf-8")
    refused(form.source(folder), "squad.json")
  finally:
    file.write_text(raw, encoding="utf-8")


def test_fields_of_a_csv_that_never_end_are_refused(tmp_path):
  head = "sent1,sent2,ending0,ending1,ending2,ending3,label\n"
  for body in ('"' + "a" * 200_000 + '",b,c,d,e,f,0\n', '"a,b,c,d,e,f,0\n', "a,b,c,d,e,f,0,9\n"):
    (tmp_path / "swag.csv").write_text(head + body, encoding="utf-8")
    refused(choices.Source(dataset="swag", path=str(tmp_path / "swag.csv"), **MARKED), "swag.csv")


def test_a_program_that_prints_another_text_is_refused(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
  monkeypatch.setattr(bible, "_SECONDS", 0.5)
  program = tmp_path / "bible"
  says = {
    "echo 'Ge1:1 In the beginning'": "found 1 verses",
    "echo 'In the beginning'": "not a verse",
    "printf '\\377\\n'": "UnicodeDecodeError",
    "echo no index >&2; exit 3": "status 3: no index",
    "exec sleep 60": "TimeoutExpired",
  }
  for script, what in says.items():
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert what in refused(text.Source(dataset="kjv", tokenizer="bytes"), "bible")
  program.write_bytes(b"\x7fELF")
  refused(text.Source(dataset="kjv", tokenizer="bytes"), "bible")


# ------------------------------------------------------------------------------ archives and bombs


def test_nothing_of_data_unpacks_an_archive_or_an_object():
  """Packed files are read as streams of bytes: no name in them is ever a path."""
  allowed = {"gzip", "zlib"}
  archives = {"zipfile", "tarfile", "shutil", "lzma", "bz2", "pickle", "marshal", "shelve"}
  for path in sorted(ROOT.glob("data/*.py")):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      if isinstance(node, ast.Import | ast.ImportFrom):
        names = {alias.name.split(".")[0] for alias in node.names}
        names |= {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) else set()
        used = names & archives
        # `bible` asks shutil where a program is.
        assert used <= ({"shutil"} if path.name == "bible.py" else set()), f"{path}: {used}"
        assert not (names & allowed and path.name not in ("source.py", "sword.py")), path
      called = node.func if isinstance(node, ast.Call) else None
      name = getattr(called, "attr", getattr(called, "id", ""))
      assert name not in ("extractall", "unpack_archive", "extract", "move", "eval", "exec"), path
      if name in ("load", "fromfile", "memmap") and ast.unparse(called).startswith("np."):
        raise AssertionError(f"{path}:{node.lineno} reads arrays of NumPy, which may hold objects")
      if name == "decompress" and ast.unparse(called) != "unpacking.decompress":
        raise AssertionError(f"{path}:{node.lineno} unpacks without a limit")


BOMBS = """
import pathlib, resource, sys
sys.path.insert(0, ".")
from data import diabetes, idx, sword
folder = pathlib.Path(sys.argv[1])
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for read in (
  lambda: idx.read(folder / "images.gz", axes=3),
  lambda: idx.read(folder / "honest.gz", axes=3),
  lambda: diabetes._table(folder / "table.gz", 1),
  lambda: sword._blocks(folder / "ot.bzs", folder / "ot.bzz"),
):
  before = most()
  try:
    read()
  except ValueError as error:
    print(most() - before, error)
"""


def test_a_bomb_is_refused_and_takes_no_memory(tmp_path):
  zeros = gzip.compress(bytes(2**28), 1, mtime=0)  # 256 MiB in 1 MiB
  head = struct.pack(">4B3I", 0, 0, 8, 3, 10, 28, 28)
  (tmp_path / "images.gz").write_bytes(gzip.compress(head, mtime=0) + zeros)
  head = struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 28, 28)
  (tmp_path / "honest.gz").write_bytes(gzip.compress(head, mtime=0) + zeros)
  (tmp_path / "table.gz").write_bytes(zeros)
  packed = zlib.compress(bytes(2**28), 1)
  (tmp_path / "ot.bzz").write_bytes(packed)
  (tmp_path / "ot.bzs").write_bytes(struct.pack("<III", 0, len(packed), 2**28))
  command = [sys.executable, "-c", BOMBS, str(tmp_path)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  lines = [line.split(" ", 1) for line in done.stdout.strip().split("\n")]
  assert len(lines) == 4, done.stderr
  says = ("and it goes on", "expected at most", "holds more than", "does not unpack")
  for (needed, said), wanted in zip(lines, says, strict=True):
    assert wanted in said
    assert int(needed) < 64, f"{needed} MiB: {said}"


# ------------------------------------------------------------------------------- sizes and lengths


def _config(*overrides):
  return config.override(config.load(f"{ROOT}/{VAE}"), overrides)


def test_a_batch_larger_than_the_data_names_both_numbers():
  found = build.build(_config(("data.batch_size", "1204"), ("data.train_examples", "1200")))
  with pytest.raises(ConfigError, match=r"1204 examples.* has 1200") as error:
    run.check(found, Machines())
  assert error.value.status == 2


def test_no_example_is_refused(tmp_path):
  (tmp_path / "blank.txt").write_text(" \n\n \t\n", encoding="utf-8")
  (tmp_path / "empty").mkdir()
  for path, says in (
    (tmp_path / "blank.txt", "without text"),
    (tmp_path / "empty", "no such file"),
  ):
    found = text.Source(dataset="files", path=str(path), tokenizer="bytes")
    assert says in refused(found, path.name)


def test_a_text_shorter_than_a_window_is_one_padded_row(tmp_path):
  (tmp_path / "text.txt").write_text("abc", encoding="utf-8")
  found = _files(tmp_path, length=64, validation=0.0, test=0.0, tokenizer="bytes")
  load(found)
  (row,) = found.split("train").arrays["tokens"]
  assert (row >= 0).sum() == 1 + 3 + 1 + found.documents.count("line")  # marks, signs, a line's end
  assert (found.split("train").arrays["characters"]).tolist() == [4]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 30])
@pytest.mark.parametrize("overlong", ["split", "truncate", "refuse"])
def test_documents_beyond_a_row_are_cut_or_refused_as_declared_and_counted(length, overlong):
  """Every target once, or the first of them, or an error: never a target lost without a word."""
  sizes = [0, 1, 2, length - 1, length, length + 1, length + 2, 3 * length + 1]
  documents = [
    packing.Document(*(np.arange(size, dtype=np.int32) for _ in range(3))) for size in sizes
  ]
  longer = [size for size in sizes if size - 1 > length]
  if overlong == "refuse":
    with pytest.raises(
      ValueError, match=f"{longer[0] - 1} targets, more than data.length={length}"
    ):
      packing.fitted(documents, length, overlong)
    return
  found, count = packing.fitted(documents, length, overlong)
  assert count == len(longer)
  targets = sum(max(len(document.tokens) - 1, 0) for document in found)
  whole = [max(size - 1, 0) for size in sizes]
  assert targets == (sum(whole) if overlong == "split" else sum(min(n, length) for n in whole))


def test_what_is_cut_is_counted_by_every_source_that_cuts(written_formats):
  """`conditions` stand beside every number that is measured."""
  for found, label in written_formats:
    conditions = dict(found.conditions())
    assert any(label in name for name in conditions), (type(found).__module__, conditions)


@pytest.fixture
def written_formats(tmp_path):
  short = {**MARKED, "length": 13}
  for name in ("tsv", "CoNLL", "SWAG", "SQuAD", "tasks as text"):
    FORMATS[name].write(tmp_path)
  at = lambda name: str(tmp_path / name)  # noqa: E731
  _lines("text.txt", WORDS)(tmp_path)
  _lines("own.tsv", ["label\ttext", *(f"no\t{w}" for w in WORDS)])(tmp_path)
  longer = "longer than a row"
  return [
    (_files(tmp_path, packing="padded"), longer),
    (_files(tmp_path, packing="documents", overlong="truncate"), longer),
    (
      labelled_text.Source(
        dataset="tsv", path=at("own.tsv"), columns=("text",), labels=("no", "yes"), **short
      ),
      longer,
    ),
    (
      token_labels.Source(
        dataset="conll", path=at("tags.conll"), labels=("O", "X"), **MARKED | {"length": 6}
      ),
      longer,
    ),
    (choices.Source(dataset="swag", path=at("swag.csv"), **short), longer),
    (
      reading.Source(
        dataset="squad",
        path=at("squad.json"),
        **MARKED | {"length": 12},
        question_length=2,
        stride=4,
      ),
      "questions cut",
    ),
    (
      parallel.Source(
        dataset="files",
        path=at("pairs.tsv"),
        tokenizer="bytes",
        overlong="truncate",
        source_length=8,
      ),
      longer,
    ),
    (
      text_to_text.Source(
        dataset="files", path=at("pairs.tsv"), tokenizer=at("tokenizer.json"), target_length=4
      ),
      longer,
    ),
  ]


# -------------------------------------------------------------------- tokens, tokenizers, Unicode


@pytest.mark.parametrize("written", ["tokenizer.json"], indirect=True)
@pytest.mark.parametrize(
  ("change", "says"),
  [
    (lambda v: v.update({"e": v["a"]}), "the same id"),
    (lambda v: v.update({"e": 2**31}), "expected 0 to"),
    (lambda v: v.update({"e": 2**32 - 1}), "expected 0 to"),
    (lambda v: v.update({"e": -1}), "no tokenizer"),
    (lambda v: v.clear(), "no tokenizer"),
  ],
)
def test_a_tokenizer_with_wrong_ids_is_refused(written, change, says):
  form, folder, _ = written
  file = folder / "tokenizer.json"
  raw = file.read_text(encoding="utf-8")
  tree = json.loads(raw)
  change(tree["model"]["vocab"])
  try:
    file.write_text(json.dumps(tree), encoding="utf-8")
    assert says in refused(form.source(folder), "tokenizer.json")
  finally:
    file.write_text(raw, encoding="utf-8")


@pytest.mark.parametrize("written", ["tokenizer.json"], indirect=True)
def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(written):
  _, folder, _ = written
  found = _with_tokenizer(folder)
  size = found.tokenizers()["tokens"].size
  own = dict(dataset="files", path=str(folder / "text.txt"), documents="line", length=16)
  own["tokenizer"] = str(folder / "tokenizer.json")
  load(text.Source(**own, vocabulary=size))
  line = refused(text.Source(**own, vocabulary=size - 1), "tokenizer.json")
  assert f"{size} ids" in line
  assert f"data.vocabulary={size - 1}" in line


@pytest.mark.parametrize("value", [10, -2])
def test_a_value_that_nothing_in_the_model_stands_for_is_refused(value):
  """The last guard, for sources to come: of tokens, of labels and of shapes, whoever made them."""
  found = digits.Source()
  load(found)
  for name, changed in {
    "label": np.array([0, value, 1], np.int32),
    "image": np.full((3, 8, 8, 1), np.nan, np.float32),
  }.items():
    split = found.split("train")
    sound = split.arrays
    try:
      split.arrays = {**{k: v[:3] for k, v in sound.items()}, name: changed}
      assert name in refused(found, "digits")
      split.arrays = {**sound, name: sound[name][..., None]}
      assert name in refused(found, "digits")
    finally:
      split.arrays = sound
  tokens = _Tokens(np.array([[0, -1, 9 if value < 0 else value]], np.int32))
  if value < 0:
    source.sizes(tokens)
  else:
    with pytest.raises(ValueError, match=r"tokens .* values -1..10, but vocabulary is 10"):
      source.sizes(tokens)


class _Tokens:
  """As much of a source as is checked."""

  def __init__(self, tokens):
    self._split = source.Arrays({"tokens": tokens})

  def facts(self):
    return {"vocabulary": 10}

  def spec(self):
    return {"tokens": np.zeros(3, np.int32)}

  def tokenizers(self):
    return {"tokens": None}

  def split(self, name):
    del name
    return self._split


STRANGE = [
  "a\x00b",
  "\u202eabc\u202c \u2067x\u2069 \u200f",
  "e\u0301 \xe9 \u1e9b\u0323",
  "👩\u200d👩\u200d👧 🇯🇵 ✈\ufe0f",
  "復元 ﬁ ① Å Å",
  "\ufeffbom",
  "a\u2028b\u2029c\x85d\x0be",
  "\x1b[31mred\x07\x7f",
  "  two  spaces   and\ttabs \r\n",
  "<eos><bos> [CLS] <unk>",
  "\U0010ffff \ufffe \ud7a3",
  "\u0300\u0301\u0302 begins with marks",
  "",
]


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_text_of_any_characters_comes_back(kind):
  sizes = {"bpe": 400, "wordpiece": 400, "unigram": 400}
  known = [*STRANGE, "".join(STRANGE)]
  tokenizer = tokenizers.train(kind, known, sizes[kind] if kind in sizes else 0)
  draw = random.Random(0)
  texts = [*known, *("".join(draw.sample("".join(STRANGE), 12)) for _ in range(200))]
  if kind in tokenizers.LOSSLESS:  # of what they never saw too
    texts += ["".join(chr(draw.choice(range(0xD800))) for _ in range(9)) for _ in range(200)]
  for words in texts:
    again = tokenizer.decode(tokenizer.encode(words))
    if kind in ("words", "wordpiece"):  # white space is lost, as the table of kinds says
      (encoded,) = tokenizer.encode_all([words])
      same = "".join(again.split()) == "".join(words.split())
      assert same or (encoded.unknown and words not in known), ascii(words)
    else:
      assert again == words, ascii(words)
  for words, encoded in zip(texts, tokenizer.encode_all(texts), strict=True):
    if len(encoded.ids):
      assert encoded.characters.sum() == len(words)
      assert encoded.bytes.sum() == len(words.encode())
    assert encoded.unknown == 0 or kind not in tokenizers.LOSSLESS


@pytest.mark.parametrize("normal", ["NFC", "NFD"])
def test_composed_and_decomposed_letters_stay_as_they_are(normal, tmp_path):
  words = unicodedata.normalize(normal, "Ångström naïve 가")
  (tmp_path / "text.txt").write_text(words, encoding="utf-8")
  found = _files(tmp_path, documents="file", validation=0.0, test=0.0, length=64)
  (row,) = found.split("train").arrays["tokens"]
  assert found.tokenizers()["tokens"].decode(row) == words


@pytest.mark.parametrize(
  "name",
  [
    "text bytes",
    "tsv",
    "CoLA",
    "SQuAD",
    "CoNLL",
    "SWAG",
    "pairs of a file",
    "pairs of two files",
    "help",
    "tasks as text",
  ],
)
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
def test_bytes_that_are_no_utf8_are_refused_with_their_line(name, bad, tmp_path):
  form = FORMATS[name]
  form.write(tmp_path)
  file = next(
    p
    for p in sorted(tmp_path.rglob("*"))
    if (p.is_file() and p.suffix != ".json") or p.name == "squad.json"
  )
  raw = file.read_bytes()
  middle = len(raw) // 2
  place = middle + re.search(rb"[A-Za-z ]", raw[middle:]).start()
  line = raw.count(b"\n", 0, place) + 1
  for mark in (b"", b"\xef\xbb\xbf"):
    file.write_bytes(mark + raw[:place] + bad + raw[place:])
    fresh()
    said = refused(form.source(tmp_path), file.name)
    assert re.search(rf"{file.name}: byte {place + len(mark)} is not UTF-8: .*, line {line};", said)


def test_printed_text_cannot_steer_a_terminal(capsys):
  prompting.show("".join(STRANGE))
  printed = capsys.readouterr().out
  for character in printed:
    if character in "\n\t\u200c\u200d":
      continue
    assert unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp"), hex(ord(character))
  for seen in ("<U+202E>", "␛[31mred␇", "👩\u200d👩\u200d👧", "復元", "e\u0301"):
    assert seen in printed


# --------------------------------------------------------------------------------- slow, dead data


class _Slow:
  """A split that streams, and that at some step raises, sleeps or ends its thread."""

  arrays = None

  def __init__(self, at, act):
    self._at, self._act = at, act

  def __len__(self):
    return 100

  def take(self, rows):
    if rows[0] >= self._at:
      self._act()
    return {"x": rows}


def _raise(error):
  raise error


def _for(seconds):
  """What ends a wait that should have ended by itself."""
  last = time.monotonic() + seconds

  def waiting():
    assert time.monotonic() < last, "still waiting"

  return waiting


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("error", [ValueError("no disk"), SystemExit(3), TimeoutError("late")])
def test_what_a_reader_raises_is_raised_at_its_step(workers, error):
  split = _Slow(5, lambda: _raise(error))
  found = streaming.batches(
    split, lambda s: np.array([s]), start=2, stop=9, workers=workers, waiting=_for(30)
  )
  assert [int(next(found)["x"][0]) for _ in range(3)] == [2, 3, 4]
  with pytest.raises(type(error)) as raised:
    next(found)
  assert raised.value is error


def test_a_wait_for_data_ends_where_the_caller_wants():
  split = _Slow(1, lambda: time.sleep(60))
  asked = []

  def waiting():
    asked.append(None)
    if len(asked) == 3:
      raise InterruptedError

  found = streaming.batches(
    split, lambda s: np.array([s]), start=0, stop=9, workers=1, waiting=waiting
  )
  assert int(next(found)["x"][0]) == 0
  begun = time.monotonic()
  with pytest.raises(InterruptedError):
    next(found)
  assert time.monotonic() - begun < 10
  assert len(asked) == 3


class _Streamed:
  """A split that is not held in memory; after three reads it acts."""

  arrays = None

  def __init__(self, split, act):
    self._split, self._act, self._reads = split, act, 0

  def __len__(self):
    return len(self._split)

  def take(self, rows):
    self._reads += 1
    if self._reads > 3:
      self._act()
    return self._split.take(rows)


def _streaming(monkeypatch, act):
  """Digits whose training split streams, in this process."""
  known, streams = digits.Source.split, {}

  def split(self, name):
    found = known(self, name)
    if name != "train":
      return found
    return streams.setdefault(id(self), _Streamed(found, act))

  monkeypatch.setattr(digits.Source, "split", split)
  monkeypatch.setattr(digits.Source, "fingerprint", lambda self: "0" * 64)  # which reads it all


# A process in which that split does not come back from the read after the third.
CHILD = """
import sys, time
sys.path[:0] = [".", "tests"]
import pytest
import test_data_faults as faults
import launch

def act():
  print("reading", flush=True)
  time.sleep(600)

with pytest.MonkeyPatch.context() as monkeypatch:
  faults._streaming(monkeypatch, act)
  sys.exit(launch.main(sys.argv[1:]))
"""


STEPS = [("training.steps", "9"), ("training.checkpoint_every", "0"), ("training.eval_every", "0")]


def test_a_reader_that_fails_ends_the_run_in_one_line(tmp_path, monkeypatch):
  _streaming(monkeypatch, lambda: _raise(ValueError("shard-7: cut short")))
  with pytest.raises(DataError, match="shard-7: cut short") as error:
    _fit(build.build(_config(*STEPS)), tmp_path / "run")
  assert error.value.status == 3
  assert "what was saved before" in str(error.value)


@pytest.mark.parametrize(
  "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.deep)]
)
def test_a_stop_is_heard_while_a_reader_stalls(tmp_path, number):
  command = [sys.executable, "-c", CHILD, "train", f"--config={VAE}"]
  command += [f"--workdir={tmp_path / 'run'}", *(f"--config.{k}={v}" for k, v in STEPS)]
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  with subprocess.Popen(command, cwd=ROOT, **pipes) as child:
    try:
      assert any(line.startswith("reading") for line in child.stdout), child.stderr.read()
      time.sleep(1)  # the step before it is on its way
      child.send_signal(number)
      _, said = child.communicate(timeout=30)
    finally:
      child.kill()
  assert child.returncode == 75, said
  assert "everything up to that step" in said
  assert (tmp_path / "run/checkpoints/latest/3").is_dir()


# ------------------------------------------------------------- other data than the run began with


def _fit(found, path, *, changed=False, stop_at=None):
  workdir = Workdir(path)
  try:
    with Stop() as stop:
      return run.fit([run.Run(found, workdir, ["test"], changed=changed)], Machines(), stop=stop)
  finally:
    workdir.close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run of two steps on files of one's own, that is to take four."""
  root = tmp_path_factory.mktemp("trained")
  (root / "data").mkdir()
  _idx(root / "data", False)
  found = _of_files(root, 2)
  _fit(found, root / "run")
  return root


def _of_files(root, steps):
  overrides = {
    "data.directory": str(root / "data"),
    "data.validation": "4",
    "data.batch_size": "4",
    "training.steps": str(steps),
    "training.checkpoint_every": "1",
    "training.eval_every": "0",
    "training.log_every": "1",
  }
  tree = config.load(f"{ROOT}/{VAE}")
  with tree.unlocked():
    tree.data = {"name": "idx:mnist"}
  found = build.build(config.override(tree, overrides.items()))
  for stage in found.stages:
    stage.training.mesh["data"] = 1
  return found


def _flipped(file):
  raw = file.read_bytes()
  file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))


def _fewer(folder):
  for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
    raw, axes = (folder / name).read_bytes(), 3 if "idx3" in name else 1
    size = 28 * 28 if axes == 3 else 1
    (folder / name).write_bytes(raw[:4] + struct.pack(">I", 5) + raw[8 : 4 + 4 * axes + 5 * size])


CHANGES = {
  "a pixel": lambda folder: _flipped(folder / "train-images-idx3-ubyte"),
  "a label": lambda folder: _flipped(folder / "train-labels-idx1-ubyte"),
  "a test image": lambda folder: _flipped(folder / "t10k-images-idx3-ubyte"),
  "the size of the test split": _fewer,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_run_does_not_go_on_with_other_data(trained, tmp_path, change):
  root = tmp_path / "copy"
  shutil.copytree(trained, root)
  before = fingerprints.of_data(_of_files(root, 4).stages)[""]["sha256"]
  change(root / "data")
  now = fingerprints.of_data(_of_files(root, 4).stages)[""]["sha256"]
  kept = {p: p.read_bytes() for p in (root / "run").rglob("*") if p.is_file()}
  with pytest.raises(DataError) as error:
    _fit(_of_files(root, 4), root / "run")
  line = str(error.value)
  assert error.value.status == 3
  assert {*re.findall(r"\b[0-9a-f]{64}\b", line)} == {before, now}
  assert "--allow-changed-config" in line
  after = {p: p.read_bytes() for p in (root / "run").rglob("*") if p.is_file()}
  assert {p: b for p, b in after.items() if p.name != ".lock"} == {
    p: b for p, b in kept.items() if p.name != ".lock"
  }


def test_a_run_goes_on_with_the_same_data_wherever_they_lie(trained, tmp_path):
  root = tmp_path / "copy"
  shutil.copytree(trained, root)
  shutil.move(root / "data", root / "elsewhere")
  for file in (root / "elsewhere").iterdir():
    (root / "elsewhere" / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
  (root / "elsewhere").rename(root / "data")
  state, _, _ = _fit(_of_files(root, 4), root / "run")
  assert int(state.step.min()) == 4


def test_other_data_are_taken_where_it_is_said(trained, tmp_path, capsys):
  root = tmp_path / "copy"
  shutil.copytree(trained, root)
  CHANGES["a pixel"](root / "data")
  _fit(_of_files(root, 4), root / "run", changed=True)
  assert "note: from here on, other data" in capsys.readouterr().out
  _fit(_of_files(root, 4), root / "run")  # and are its own from then on
  assert [
    row["step"] for row in read_rows(root / "run/metrics.jsonl") if row["split"] == "train"
  ] == [1, 2, 3, 4]


def test_checkpoints_from_before_they_said_go_on(trained, tmp_path, monkeypatch):
  root = tmp_path / "copy"
  shutil.copytree(trained, root)
  CHANGES["a pixel"](root / "data")
  from training.checkpoint import Checkpoints

  known = Checkpoints.meta
  monkeypatch.setattr(
    Checkpoints,
    "meta",
    lambda self, *a, **k: {n: v for n, v in known(self, *a, **k).items() if n != "data"},
  )
  state, _, _ = _fit(_of_files(root, 4), root / "run")
  assert int(state.step.min()) == 4


def test_a_run_that_is_measured_on_other_data_says_so(trained, tmp_path, capsys):
  root = tmp_path / "copy"
  shutil.copytree(trained, root)
  (root / "run/config.json").write_text(json.dumps(_of_files(root, 2).config))
  look.evaluate(str(root / "run"))
  assert "other data" not in capsys.readouterr().err
  CHANGES["a test image"](root / "data")
  look.evaluate(str(root / "run"))
  lines = capsys.readouterr().err.splitlines()
  (line,) = [line for line in lines if line.startswith("warning: other data than")]
  assert len(re.findall(r"\b[0-9a-f]{64}\b", line)) == 2
  assert (root / "run/evaluation.json").is_file()


def test_values_out_of_range_stop_a_run_before_it_starts(monkeypatch):
  found = build.build(_config())
  run.check(found, Machines())
  labels = found.stages[0].source.split("train").arrays
  monkeypatch.setitem(labels, "label", labels["label"] + 1)
  with pytest.raises(
    DataError, match=r"label of the train split has values 1\.\.10, but classes is 10"
  ):
    run.check(found, Machines())
