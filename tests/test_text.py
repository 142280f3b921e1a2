"""Text, pairs and strings as rows: every token is scored once, nothing of a test part is trained on."""

import dataclasses
import datetime
import importlib.util
import itertools
import pathlib
import struct
import zlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import bible, packing, pairs, parallel, source, strings, sword, text, tokenizers

PARTS = ("train", "validation", "test")
REFUSED = r"dataset=|stride=|tokenizer=|validation and test"
PROSE = [
  "".join(f"{word} of the {other} was {k % 3}.\n" for other in ("earth", "sea", "sky"))
  for k, word in enumerate(["light", "dark", "ground", "morning", "naïveté", "Grüße", "I", "x"] * 5)
]

needs_tfds = pytest.mark.skipif(
  any(importlib.util.find_spec(name) is None for name in ("tensorflow_datasets", "array_record")),
  reason="needs `pip install tensorflow-datasets array-record`",
)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
  """Forty documents of three lines each, a file a document."""
  folder = tmp_path_factory.mktemp("book")
  for index, document in enumerate(PROSE):
    (folder / f"{index:02}.txt").write_text(document, encoding="utf-8")
  return folder


def text_source(book, **fields):
  fields = {"tokenizer": "characters", "length": 32, "validation": 0.1, "test": 0.2, **fields}
  return text.Source(dataset="files", path=str(book), **fields)


def as_specified(dataset, name="train"):
  """The arrays of a split, which have the shapes and types that the source says."""
  arrays = dataset.split(name).take(np.arange(len(dataset.split(name))))
  spec = dataset.spec()
  assert set(arrays) == set(spec)
  for key, array in arrays.items():
    assert (array.shape[1:], array.dtype) == (spec[key].shape, spec[key].dtype)
  return arrays


def scored(arrays):
  """The targets that are scored, row by row."""
  for row, tokens in enumerate(arrays["tokens"]):
    keep = tokens[1:] >= 0
    keep[: arrays["context"][row] if "context" in arrays else 0] = False
    if "segments" in arrays:
      keep &= arrays["segments"][row, 1:] == arrays["segments"][row, :-1]
    yield tokens[1:][keep]


# Packing.


def document(count, start=0):
  return packing.Document(*(np.arange(start, start + count, dtype=np.int32) for _ in range(3)))


@settings(max_examples=80, deadline=None)
@given(count=st.integers(0, 60), length=st.integers(1, 12), stride=st.integers(0, 12))
def test_windows_score_every_token_but_the_first_once(count, length, stride):
  stride = min(stride, length)
  rows = packing.windows(document(count), length, stride)
  found = [token for row in scored(rows) for token in row]
  assert found == list(range(1, count))
  assert rows["characters"].sum() == sum(range(1, count))
  for row, context in zip(rows["tokens"], rows["context"], strict=True):
    assert (np.diff(row[row >= 0]) == 1).all()
    assert context <= length - 1
    if stride and context:  # no scored target is predicted from less than that
      assert context == length - stride


@settings(max_examples=80, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), max_size=20), length=st.integers(1, 12))
def test_packed_and_padded_documents_are_scored_once(sizes, length):
  documents = [document(size + 1, 100 * index) for index, size in enumerate(sizes)]
  expected = sorted(t for one in documents for t in one.tokens[1:].tolist())
  fitted, longer = packing.fitted(documents, length, "split")
  assert longer == sum(size > length for size in sizes)
  for rows in (packing.packed(fitted, length), packing.padded(fitted, length)):
    assert sorted(t for row in scored(rows) for t in row) == expected
    assert rows["characters"].sum() == sum(expected)
  rows = packing.packed(fitted, length)
  for tokens, segments in zip(rows["tokens"], rows["segments"], strict=True):
    assert ((segments == 0) == (tokens < 0)).all()
    for segment in range(1, segments.max() + 1):
      assert (np.diff(tokens[segments == segment]) == 1).all()  # one document, whole


@settings(max_examples=80, deadline=None)
@given(sizes=st.lists(st.integers(1, 10), max_size=30))
def test_first_fit_takes_the_first_bin_that_has_room(sizes):
  bins = []
  for item, size in enumerate(sizes):
    for one in bins:
      if sum(sizes[i] for i in one) + size <= 10:
        one.append(item)
        break
    else:
      bins.append([item])
  assert packing.first_fit(sizes, 10) == bins


def test_overlong_documents():
  documents = [document(4), document(12)]
  assert [len(d.tokens) for d in packing.fitted(documents, 5, "truncate")[0]] == [4, 6]
  with pytest.raises(ValueError, match=r"11 targets, more than data.length=5"):
    packing.fitted(documents, 5, "refuse")


# Text.


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe", "words"])
@pytest.mark.parametrize(
  "fields", [{}, {"stride": 8}, {"packing": "documents"}, {"packing": "padded"}]
)
def test_rows_stand_for_the_whole_text(book, kind, fields):
  dataset = text_source(book, tokenizer=kind, vocabulary=290 if kind == "bpe" else 0, **fields)
  tokenizer = dataset.tokenizers()["tokens"]
  for name in PARTS:
    arrays = as_specified(dataset, name)
    assert arrays["characters"].sum() == sum(map(len, dataset.texts(name)))
    assert arrays["bytes"].sum() == sum(len(t.encode()) for t in dataset.texts(name))
    targets = [token for row in scored(arrays) for token in row]
    if kind != "words" and dataset.packing == "stream":
      assert tokenizer.decode(targets) == "".join(dataset.texts(name))
    assert sum(token == tokenizer.eos for token in targets) == len(dataset.texts(name))
  assert dataset.facts() == {"vocabulary": dataset.vocabulary or tokenizer.size, "length": 32}


def test_rows_trained_on_do_not_overlap(book):
  dataset = text_source(book, stride=8)
  assert not dataset.split("train").arrays["context"].any()
  assert dataset.split("test").arrays["context"].tolist()[1:3] == [24, 24]
  assert len(dataset.split("test")) > len(text_source(book).split("test"))


def test_held_out_documents_are_neighbours_and_nothing_is_lost(book):
  dataset = text_source(book)
  together = [document for name in PARTS for document in dataset.texts(name)]
  assert sorted(together) == sorted(PROSE)
  numbered = tuple(str(index) for index in range(100))
  parts = text.held_out(numbered, 0.1, 0.2)
  assert {name: len(part) for name, part in parts.items()} == {
    "train": 70,
    "validation": 10,
    "test": 20,
  }
  assert parts["test"][:4] == ("8", "9", "18", "19")
  assert text.held_out(numbered, 0.0, 0.0)["train"] == numbered
  few = text.held_out(("a", "b"), 0.0, 0.5)
  assert few == {"train": ("a",), "validation": (), "test": ("b",)}


def test_the_tokenizer_is_of_the_training_part_only(tmp_path):
  (tmp_path / "text").write_text("a\n" * 9 + "b\n" + "a\n" * 9 + "c\n", encoding="utf-8")
  dataset = text_source(tmp_path / "text", documents="line", validation=0.0, test=0.1)
  assert dataset.texts("test") == ("b\n", "c\n")
  tokenizer = dataset.tokenizers()["tokens"]
  assert tokenizer.encode("b") == [tokenizer.unknown]
  assert dataset.conditions()["unknown tokens"] == "train 0, validation 0, test 2"


def test_a_run_keeps_its_tokenizer_and_needs_no_text_for_it(book, tmp_path):
  dataset = text_source(book, tokenizer="bpe", vocabulary=290)
  for name, content in dataset.assets().items():
    (tmp_path / name).write_text(content, encoding="utf-8")
  elsewhere = dataclasses.replace(dataset, path=str(tmp_path / "gone")).restored(tmp_path)
  for one in (elsewhere.tokenizers()["tokens"], dataset.restored(tmp_path).tokenizers()["tokens"]):
    assert one.fingerprint() == dataset.tokenizers()["tokens"].fingerprint()
  assert dataset.restored(tmp_path).fingerprint() == dataset.fingerprint()
  assert dataset.restored(tmp_path).conditions() == dataset.conditions()
  with pytest.raises(FileNotFoundError):
    elsewhere.split("train")


def test_facts_are_known_without_the_text(tmp_path):
  dataset = text_source(tmp_path / "gone", tokenizer="bpe", vocabulary=290)
  assert dataset.facts() == {"vocabulary": 290, "length": 32}
  with pytest.raises(FileNotFoundError, match="no such file"):
    dataset.split("train")


def test_the_fingerprint_sees_what_a_model_sees(book):
  settings = [
    {},
    {"length": 31},
    {"tokenizer": "bytes"},
    {"packing": "padded"},
    {"stride": 8},
    {"test": 0.1},
  ]
  assert len({text_source(book, **one).fingerprint() for one in settings}) == len(settings)
  assert text_source(book).fingerprint() == text_source(book, eval_batch_size=7).fingerprint()


def test_a_tokenizer_larger_than_the_model_is_refused(book, tmp_path):
  made = tokenizers.train_on(PROSE, kind="bpe", vocabulary=300, out=tmp_path / "tokenizer.json")
  assert made.size == 300
  with pytest.raises(ValueError, match=r"300 ids, more than data.vocabulary=299"):
    text_source(book, tokenizer=str(tmp_path / "tokenizer.json"), vocabulary=299).tokenizers()
  larger = text_source(book, tokenizer=str(tmp_path / "tokenizer.json"), vocabulary=512)
  assert larger.facts()["vocabulary"] == 512


def test_documents_longer_than_a_row_are_reported(book):
  dataset = text_source(book, packing="padded", overlong="truncate")
  count = len(dataset.texts("train"))
  assert dataset.conditions()["documents longer than a row"].startswith(f"train {count}, ")
  with pytest.raises(ValueError, match=r"more than data\.length"):
    text_source(book, packing="padded", overlong="refuse").split("train")


@pytest.mark.parametrize(
  ("content", "unit", "expected"),
  [
    ("a b\r\nc\n", "file", ("a b\nc\n",)),
    ("\ufeffa\nb\n", "line", ("a\n", "b\n")),
    ("a\nb\n\n \n\nc\n", "paragraph", ("a\nb\n", "c\n")),
    ("a\u2028b\x00\u202ec\n", "line", ("a\u2028b\x00\u202ec\n",)),
  ],
)
def test_files_are_read(tmp_path, content, unit, expected):
  (tmp_path / "one.txt").write_bytes(content.encode())
  for path in (tmp_path, tmp_path / "one.txt", tmp_path / "*.txt"):
    assert text.read_files(str(path), unit) == expected


def test_damaged_files_are_named(tmp_path):
  (tmp_path / "bad").write_bytes(b"good \xff\xfe")
  with pytest.raises(ValueError, match=r"bad: byte 5 is not UTF-8"):
    text.read_files(str(tmp_path), "file")
  (tmp_path / "bad").write_bytes(b" \n")
  with pytest.raises(ValueError, match="without text"):
    text.read_files(str(tmp_path), "line")


@pytest.mark.parametrize(
  "fields",
  [
    {"dataset": "bible"},
    {"dataset": "files", "path": ""},
    {"stride": 40},
    {"stride": 4, "packing": "padded"},
    {"tokenizer": "bpe"},
    {"tokenizer": "nonsense"},
    {"validation": 0.5, "test": 0.5},
  ],
)
def test_settings_that_cannot_be_are_refused(fields):
  with pytest.raises(ValueError, match=REFUSED):
    text.Source(**{"dataset": "kjv", "tokenizer": "bytes", "length": 32, **fields})


def test_the_bible_is_whole():
  try:
    documents = [chapter.text for chapter in bible.chapters()]
  except FileNotFoundError as error:
    pytest.skip(str(error))
  assert (len(documents), sum(map(len, documents))) == (1189, 4_137_849)
  assert documents[0].startswith("In the beginning God created the heaven and the earth.\nAnd")
  assert documents[-1].endswith("Amen.\n")
  assert not any(":1 " in document for document in documents)


@needs_tfds
def test_a_tfds_set_of_text(tmp_path):
  import tensorflow_datasets as tfds

  class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {"review": tfds.features.Text(), "stars": np.int64}
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples(PROSE), "test": self._generate_examples(["Ünï\0"])}

    def _generate_examples(self, documents):
      for index, one in enumerate(documents):
        yield index, {"review": one, "stars": index}

  Toy(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
  fields = {"directory": str(tmp_path), "tokenizer": "bytes", "length": 32}
  dataset = text.Source(dataset="tfds:toy", feature="review", validation=0.25, **fields)
  assert dataset.texts("test") == ("Ünï\0",)
  assert len(dataset.texts("validation")) == 10
  assert sorted(dataset.texts("train") + dataset.texts("validation")) == sorted(PROSE)
  for feature in ("stars", "text"):
    with pytest.raises(ValueError, match=f"no text '{feature}'"):
      text.Source(dataset="tfds:toy", feature=feature, **fields).split("train")


# Strings.


def answer(task, given):
  if task == "arithmetic":
    return str(eval(given))
  return {"copy": given, "reverse": given[::-1], "sort": "".join(sorted(given))}[task]


@pytest.mark.parametrize("task", ["copy", "reverse", "sort", "dates", "arithmetic"])
@pytest.mark.parametrize("reverse_source", [False, True])
def test_strings_as_pairs_and_as_a_stream(task, reverse_source):
  fields = {"train_examples": 200, "validation_examples": 20, "test_examples": 50, "maximum": 4}
  dataset = strings.Source(dataset=task, reverse_source=reverse_source, **fields)
  stream = dataclasses.replace(dataset, form="stream")
  seen = set()
  for name in PARTS:
    texts = dataset.texts(name)
    assert len(texts) == fields[f"{name}_examples"]
    assert stream.texts(name) == texts
    given = {one for one, _ in texts}
    assert len(given) == len(texts)
    assert not given & seen
    seen |= given
    if task != "dates":
      assert all(answer(task, one) == other for one, other in texts)
    check_pairs(dataset, name, reverse_source)
    check_stream(stream, name, reverse_source)


def check_pairs(dataset, name, reverse_source):
  arrays, read, write = as_specified(dataset, name), *dataset.tokenizers().values()
  facts = dataset.facts()
  assert arrays["source"].max() < facts["source_vocabulary"]
  for row, (one, other) in enumerate(dataset.texts(name)):
    ids, target = (arrays[side][row][arrays[side][row] >= 0] for side in ("source", "target"))
    assert ids[-1] == read.eos
    assert read.decode(ids) == (one[::-1] if reverse_source else one)
    assert (target[0], target[-1]) == (write.bos, write.eos)
    assert write.decode(target) == other
    assert arrays["characters"][row] == len(other)


def check_stream(dataset, name, reverse_source):
  arrays, tokenizer = as_specified(dataset, name), dataset.tokenizers()["tokens"]
  for targets, (one, other), tokens in zip(
    scored(arrays), dataset.texts(name), arrays["tokens"], strict=True
  ):
    assert tokenizer.decode(targets) == other
    assert targets[-1] == tokenizer.eos
    read = one[::-1] if reverse_source else one
    assert tokenizer.decode(tokens) == f"{read}={other}"


def test_dates_are_days_of_150_years_in_seven_formats():
  dataset = strings.Source(dataset="dates", train_examples=3000, test_examples=1000)
  known, days = {form: 0 for form in strings.FORMATS}, []
  for question, iso in (pair for name in PARTS for pair in dataset.texts(name)):
    day = datetime.date.fromisoformat(iso)
    days.append(day)
    written = [form for form in known if strings._date(day, form) == question]
    assert len(written) == 1 + (
      len(question.split()) == 3 and day.month == 5
    )  # May is its own short form
    known[written[0]] += 1
  assert len(set(days)) == 4000  # no day twice, so none in two splits
  assert min(days).year in (1900, 1901)
  assert max(days).year in (2048, 2049)
  assert min(known.values()) > 400
  # With the C locale's names; what Python reads back is the day.
  assert datetime.datetime.strptime("Sep 30, 2049", "%b %d, %Y").date().isoformat() == "2049-09-30"


def test_a_date_is_written_in_one_way_only():
  """No two days have a way of writing in common, so that every question has one answer."""
  days = [strings._FIRST + datetime.timedelta(offset) for offset in range(0, 54787, 7)]
  meant = {}
  for day, form in itertools.product(days, strings.FORMATS):
    assert meant.setdefault(strings._date(day, form), day) == day
  written = list(meant)
  assert max(map(len, written)) <= strings._DATE_LENGTH


def test_more_training_strings_leave_the_test_strings():
  few, many = (strings.Source(dataset="sort", train_examples=n) for n in (10, 1000))
  assert few.texts("test") == many.texts("test")
  assert strings.Source(dataset="sort", seed=1).texts("test") != few.texts("test")


def test_more_strings_than_there_are():
  with pytest.raises(ValueError, match="there are 6"):
    strings.Source(dataset="copy", symbols=2, maximum=2, train_examples=2, test_examples=2).split(
      "train"
    )
  with pytest.raises(ValueError, match="54787 days"):
    strings.Source(dataset="dates", train_examples=60000).split("train")
  with pytest.raises(ValueError, match="minimum=3"):
    strings.Source(dataset="copy", minimum=3, maximum=2)


# Parallel text.

WORDS = {"light": "Licht", "water": "Wasser", "ground": "Grund", "evening": "Abend", "day": "Tag"}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
  """A file of 125 distinct pairs, some of them twice and some not worth keeping."""
  found = [
    (f"the {' '.join(words)}", f"das {' '.join(WORDS[w] for w in words)}")
    for words in itertools.product(WORDS, repeat=3)
  ]
  junk = [("same same same", "same same same"), ("two words", "zwei Worte"), ("", "nichts")]
  path = tmp_path_factory.mktemp("lines") / "pairs.tsv"
  content = "".join(f"{one}\t{other}\n" for one, other in [*found, *found[:9], *junk])
  path.write_text(content, encoding="utf-8")
  return path


def parallel_source(lines, **fields):
  sizes = {"source_length": 40, "target_length": 40, "validation": 0.2, "test": 0.2}
  fields = {"tokenizer": "characters", **sizes, **fields}
  return parallel.Source(dataset="files", path=str(lines), **fields)


@pytest.mark.parametrize("reverse_source", [False, True])
def test_pairs_are_split_by_source_and_read_once(lines, reverse_source):
  dataset = parallel_source(lines, reverse_source=reverse_source)
  parts = {name: dataset.texts(name) for name in PARTS}
  assert sum(map(len, parts.values())) == len({p for part in parts.values() for p in part}) == 125
  for one, other in itertools.combinations(parts.values(), 2):
    assert not {pair[0] for pair in one} & {pair[0] for pair in other}
  assert all(10 < len(parts[name]) < 45 for name in ("validation", "test"))
  tokenizer = dataset.tokenizers()
  for name in PARTS:
    arrays = as_specified(dataset, name)
    for row, (one, other) in enumerate(parts[name]):
      read = tokenizer["source"].decode(arrays["source"][row])
      assert read == (one[::-1] if reverse_source else one)
      assert tokenizer["target"].decode(arrays["target"][row]) == other
      assert arrays["bytes"][row] == len(other.encode())
      assert arrays["source"][row][arrays["source"][row] >= 0][-1] == tokenizer["source"].eos


def test_all_translations_of_a_source_are_in_one_split():
  found = [(f"source {k}", f"target {copy}") for k in range(60) for copy in range(3)]
  parts = parallel.held_out(found, validation=0.2, test=0.3)
  sources = [{one for one, _ in part} for part in parts.values()]
  assert sum(map(len, sources)) == 60
  assert all(sources)


def test_adding_pairs_moves_no_other(lines, tmp_path):
  more = tmp_path / "more.tsv"
  more.write_text(lines.read_text(encoding="utf-8") + "a b c d\tx\n", encoding="utf-8")
  for name in PARTS:
    assert set(parallel_source(lines).texts(name)) <= set(parallel_source(more).texts(name))


def test_two_files_are_as_one(lines, tmp_path):
  sides = [line.split("\t") for line in lines.read_text(encoding="utf-8").splitlines()]
  for index, name in enumerate(("en", "de")):
    content = "".join(f"{pair[index]}\n" for pair in sides)
    (tmp_path / name).write_text(content, encoding="utf-8")
  paths = {"source_path": str(tmp_path / "en"), "target_path": str(tmp_path / "de")}
  assert parallel_source("", **paths).fingerprint() == parallel_source(lines).fingerprint()
  swapped = parallel_source(lines, swap=True)
  assert ("das Licht Licht Licht", "the light light light") in [
    pair for name in PARTS for pair in swapped.texts(name)
  ]
  with (tmp_path / "de").open("a", encoding="utf-8") as file:
    file.write("mehr\n")
  with pytest.raises(ValueError, match="lines, but"):
    parallel_source("", **paths).split("train")


def test_one_tokenizer_or_two(lines, tmp_path):
  two = parallel_source(lines, tokenizer="bpe", vocabulary=280)
  one = parallel_source(lines, tokenizer="bpe", vocabulary=280, shared=True)
  found = {side: t.fingerprint() for side, t in one.tokenizers().items()}
  assert found["source"] == found["target"]
  assert len({t.fingerprint() for t in two.tokenizers().values()}) == 2
  for dataset in (one, two):
    for name, content in dataset.assets().items():
      (tmp_path / name).write_text(content, encoding="utf-8")
    again = dataset.restored(tmp_path)
    assert again.fingerprint() == dataset.fingerprint()
    assert again.conditions() == dataset.conditions()


def test_pairs_longer_than_a_row(lines):
  whole = parallel_source(lines)
  cut = parallel_source(lines, target_length=20, overlong="truncate")
  short = parallel_source(lines, target_length=20)
  fits = lambda pair: len(pair[1]) + 1 <= 20  # noqa: E731
  for name in PARTS:
    assert short.texts(name) == [pair for pair in whole.texts(name) if fits(pair)]
    assert cut.texts(name) == whole.texts(name)
    target = as_specified(cut, name)["target"]
    eos = cut.tokenizers()["target"].eos
    assert ((target == eos).sum(-1) == 1).all()  # what is cut still ends
    assert (cut.split(name).arrays["characters"] <= 19).all()
  count = sum(not fits(pair) for pair in whole.texts("train"))
  assert short.conditions()["pairs longer than a row"].startswith(f"train {count}, ")
  with pytest.raises(ValueError, match="longer than"):
    parallel_source(lines, target_length=20, overlong="refuse").split("train")
  assert not parallel_source(lines, max_words=3, validation=0.0, test=0.0)._parts["train"]


def test_limits_on_examples(lines, book):
  few = {"train_examples": 7, "test_examples": 3}
  dataset = parallel_source(lines, **few)
  for found in (dataset, text_source(book, **few)):
    assert [len(found.split(name)) for name in ("train", "validation", "test")] == [7, 3, 3]
  assert dataset.texts("test") == parallel_source(lines).texts("test")[:3]


def test_batches_of_pairs_of_about_one_length():
  generator = np.random.default_rng(0)
  sizes = np.concatenate([generator.integers(2, 40, 90), [2] * 7])
  arrays = {"source": np.full((97, 40), -1), "target": np.full((97, 41), -1)}
  for row, size in enumerate(sizes):
    arrays["source"][row, :size] = row
    arrays["target"][row, : size // 2 + 1] = row
  split = pairs.Bucketed(arrays, 4)
  seen, shapes, padding = [], set(), []
  steps = 12 * 97 // 8  # twelve times through
  for step in range(steps):
    rows = split.batch_rows(3, step, 8)
    seen.extend(rows.tolist())
    batch = split.take(rows)
    shapes.add((batch["source"].shape[1], batch["target"].shape[1]))
    padding.append((batch["source"] < 0).mean())
    assert len(rows) == 8
    assert ((batch["source"] >= 0).sum(-1) == sizes[rows]).all()  # nothing was cut
    assert ((batch["target"] >= 0).sum(-1) == sizes[rows] // 2 + 1).all()
  counts = np.bincount(seen, minlength=97)
  assert counts.min() >= 11
  assert counts.max() <= 13
  assert len(shapes) <= 4
  assert np.mean(padding) < 0.75 * (arrays["source"] < 0).mean()
  np.testing.assert_array_equal(split.batch_rows(3, 41, 8), split.batch_rows(3, 41, 8))
  orders = [tuple(split.batch_rows(seed, step, 8)) for seed in (3, 4) for step in range(5)]
  assert len(set(orders)) == 10


def test_buckets_that_no_batch_divides_are_seen_alike():
  arrays = {name: np.full((5, 9), -1) for name in ("source", "target")}
  for row in range(5):
    arrays["source"][row, : row + 1] = row
  split = pairs.Bucketed(arrays, 2)
  counts = np.bincount(np.concatenate([split.batch_rows(0, step, 2) for step in range(100)]))
  assert counts.tolist() == [40] * 5
  assert split.batch_rows(0, 7, 12).shape == (12,)  # a batch may be larger than the set


def test_buckets_hold_the_same_pairs(lines):
  plain, bucketed = parallel_source(lines), parallel_source(lines, buckets=3)
  assert bucketed.fingerprint() == plain.fingerprint()
  split = bucketed.split("test")
  everything = split.take(np.arange(len(split)))
  width = everything["source"].shape[1]
  expected = plain.split("test").arrays["source"]
  assert width <= 40
  np.testing.assert_array_equal(everything["source"], expected[:, :width])
  assert (expected[:, width:] < 0).all()
  assert source.batch_rows(bucketed.split("train"), 0, 0, 4).shape == (4,)


def test_the_help_of_libreoffice(tmp_path):
  pages = {
    "en-US": '<p id="par_id1" class="x">Click <em>this &amp; that</em> now.</p>'
    '<h2 id="hd_id2">Opening old files</h2><p>No number here</p><p id="par_id3">Left as is</p>',
    "de": '<h2 id="hd_id2">Alte\n Dateien öffnen</h2><p id="par_id1">Jetzt <b>dies</b> klicken.</p>'
    '<p id="par_id3">Left as is</p>',
  }
  for language, page in pages.items():
    folder = tmp_path / "libreoffice/help" / language / "text/swriter"
    folder.mkdir(parents=True)
    (folder / "page.html").write_text(page, encoding="utf-8")
  found = parallel.read_help(str(tmp_path), "de")
  assert parallel.clean(found, 3, 0) == [
    ("Click this & that now.", "Jetzt dies klicken."),
    ("Opening old files", "Alte Dateien öffnen"),
  ]
  with pytest.raises(FileNotFoundError, match="apt-get download libreoffice-help-en-us"):
    parallel.Source(dataset="libreoffice-fr", directory=str(tmp_path), tokenizer="bytes").split(
      "train"
    )


def write_module(root, name, testaments):
  folder = root / "sword/modules/texts/ztext" / name
  folder.mkdir(parents=True)
  for part, verses in testaments.items():
    raw = [verse.encode() for verse in verses]
    block = zlib.compress(b"".join(raw))
    starts = np.cumsum([0, *map(len, raw)])
    index = b"".join(struct.pack("<IIH", 0, s, len(v)) for s, v in zip(starts, raw, strict=False))
    (folder / f"{part}.bzv").write_bytes(index)
    (folder / f"{part}.bzs").write_bytes(struct.pack("<III", 0, len(block), 0))
    (folder / f"{part}.bzz").write_bytes(block)


def test_bibles_of_sword(tmp_path):
  english = {"ot": ["", "In <w>the</w> beginning<note>a <b>note</b></note>", "And"], "nt": ["Last"]}
  spanish = {
    "ot": ["", "EN <w>el</w><transChange>gran</transChange><w>principio</w>", ""],
    "nt": ["Fin"],
  }
  write_module(tmp_path, "engKJV2006eb", english)
  with pytest.raises(FileNotFoundError, match="apt-get download sword-text-kjv sword-text-sparv"):
    sword.verses(str(tmp_path))
  write_module(tmp_path, "spaRV1909eb", spanish)
  assert sword.verses(str(tmp_path)) == (
    ("In the beginning", "EN el gran principio"),
    ("Last", "Fin"),
  )


@pytest.mark.parametrize(
  ("dataset", "count", "first"),
  [
    ("libreoffice-de", 29_116, None),
    ("bible-en-es", 31_084, "In the beginning God created the heaven and the earth."),
  ],
)
def test_debian_has_these_pairs(dataset, count, first):
  try:
    if first:
      found = sword.verses("/usr/share")
      assert found[0] == (first, "EN el principio crió Dios los cielos y la tierra.")
    else:
      found = parallel.clean(parallel.read_help("/usr/share", "de"), 3, 0)
  except FileNotFoundError as error:
    pytest.skip(str(error))
  assert len(found) == count


@pytest.mark.parametrize(
  "fields",
  [
    {},
    {"path": "a", "source_path": "b", "target_path": "c"},
    {"source_path": "b"},
    {"path": "a", "tokenizer": "bpe"},
    {"path": "a", "tokenizer": "one.json"},
    {"path": "a", "tokenizer": "bytes", "test": 0.7, "validation": 0.3},
  ],
)
def test_settings_of_pairs_that_cannot_be_are_refused(fields):
  with pytest.raises(ValueError, match=REFUSED):
    parallel.Source(dataset="files", **fields)


def test_lines_that_are_no_pair_are_named(tmp_path):
  (tmp_path / "x.tsv").write_text("a\tb\nc\n", encoding="utf-8")
  with pytest.raises(ValueError, match=r"x.tsv:2: found 1 fields"):
    parallel.read_files(str(tmp_path / "x.tsv"), "", "")


def test_every_source_keeps_what_it_stores(book, lines):
  datasets = [text_source(book), parallel_source(lines), strings.Source(dataset="copy")]
  for dataset in datasets:
    batch = dataset.split("train").take(np.arange(4))
    keys = jax.random.split(jax.random.key(0), 4)
    out = dataset.transform(dict(batch), keys, train=True)
    for name, array in batch.items():
      np.testing.assert_array_equal(out[name], array)
    assert pathlib.Path(next(iter(dataset.assets()), "none")).suffix in ("", ".json")
