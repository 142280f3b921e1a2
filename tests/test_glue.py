"""Labelled text: GLUE's files, what the Bible makes of them, rows, metrics."""

import collections
import itertools
import json
import math
import pathlib
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from data import (
  bible,
  choices,
  glue,
  labelled_text,
  marked,
  reading,
  text,
  token_labels,
  tokenizers,
  verses,
)
from evaluation import glue as metrics
from evaluation import naive_bayes
from evaluation import reading as answers

# GLUE's files, in the columns that its own download has.

HEADERS = {
  "SST-2": "sentence\tlabel",
  "MRPC": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
  "STS-B": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
  "QQP": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
  "QNLI": "index\tquestion\tsentence\tlabel",
  "RTE": "index\tsentence1\tsentence2\tlabel",
  "WNLI": "index\tsentence1\tsentence2\tlabel",
  "MNLI": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse"
  "\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
}
LINES = {  # task -> (a line of {i}, its texts, its label)
  "cola": ("gj04\t{l}\t*\tThe {i} one.", ("The {i} one.",), "01"),
  "sst2": ("a {i} film \t{l}", ("a {i} film ",), "01"),
  "mrpc": ('{l}\t7\t8\tHe said "{i}.\t"{i}", he said.', ('He said "{i}.', '"{i}", he said.'), "01"),
  "stsb": ("{i}\tm\tf\t2012\t1\ta\tb\tOne {i}.\tTwo {i}.\t{l}", ("One {i}.", "Two {i}."), None),
  "qqp": ("{i}\t1\t2\tWhy {i}?\tHow {i}?\t{l}", ("Why {i}?", "How {i}?"), "01"),
  "qnli": ("{i}\tWho is {i}?\t{i} is.\t{l}", ("Who is {i}?", "{i} is."), glue._ENTAILS),
  "rte": ("{i}\tIt {i}.\tNot {i}.\t{l}", ("It {i}.", "Not {i}."), glue._ENTAILS),
  "wnli": ("{i}\tIt {i}.\tNot {i}.\t{l}", ("It {i}.", "Not {i}."), "01"),
  "mnli": (
    "{i}\t1\t2\tg\tp\tp\tp\tp\tIt {i}.\tNot {i}.\tx\t{l}",
    ("It {i}.", "Not {i}."),
    ("entailment", "neutral", "contradiction"),
  ),
}


def write_glue(root, task, count=40, developed=6):
  """Files of a task: example i has label i modulo the classes, or a tenth of it."""
  line, _, labels = LINES[task]
  folder = root / glue.TASKS[task].directory
  folder.mkdir(parents=True)
  spell = lambda i: labels[i % len(labels)] if labels else str(i % 50 / 10)  # noqa: E731
  for name in ("train", *glue.TASKS[task].developed):
    rows = range(count) if name == "train" else range(1000, 1000 + developed)
    header = [HEADERS[folder.name]] if folder.name in HEADERS else []
    written = [line.format(i=i, l=spell(i)) for i in rows]
    if name.startswith("dev_"):  # four more people were asked
      header = [header[0].replace("label1", "label1\tlabel2\tlabel3\tlabel4\tlabel5")]
      written = [row.replace("\tx\t", "\tx\tx\tx\tx\tx\t") for row in written]
    (folder / f"{name}.tsv").write_text("\n".join([*header, *written, ""]), encoding="utf-8")
  return root


def glue_source(root, task, **fields):
  fields = {"tokenizer": "characters", "length": 48, **fields}
  return labelled_text.Source(dataset=task, path=str(root), **fields)


@pytest.mark.parametrize("task", glue.TASKS)
def test_files_of_glue_are_read(task, tmp_path):
  write_glue(tmp_path, task)
  _, texts, labels = LINES[task]
  found = glue_source(tmp_path, task, validation=0.2)
  parts = found.examples
  written = lambda i: tuple(words.format(i=i) for words in texts)  # noqa: E731
  label = lambda i: i % len(labels) if labels else i % 50 / 10  # noqa: E731
  trained = sorted([*parts["train"], *parts["validation"]], key=str)
  assert trained == sorted([verses.Example(written(i), label(i)) for i in range(40)], key=str)
  assert parts["train"]
  assert parts["validation"]
  second = len(glue.TASKS[task].developed) - 1
  assert parts["test"] == [
    verses.Example(written(i), label(i), mismatched=bool(part))
    for part in range(second + 1)
    for i in range(1000, 1006)
  ]
  assert found.facts()["classes"] == len(set(labels)) if labels else 1
  arrays = found.split("test").arrays
  assert arrays["label"].dtype == (np.int32 if labels else np.float32)
  if task == "mnli":
    assert arrays["mismatched"].tolist() == [0] * 6 + [1] * 6
  # As the tokenizer would have it, between the marks.
  tokenizer = found.tokenizers()["tokens"]
  encoded = [tokenizer.encode(words) for words in written(1000)]
  row = [tokenizer.bos, *encoded[0], tokenizer.eos]
  kinds = [0] * len(row)
  for other in encoded[1:]:
    row, kinds = [*row, *other, tokenizer.eos], [*kinds, *[1] * (len(other) + 1)]
  assert arrays["tokens"][0].tolist() == row + [-1] * (48 - len(row))
  assert arrays["types"][0].tolist() == kinds + [0] * (48 - len(row))


def test_broken_lines_are_counted(tmp_path):
  write_glue(tmp_path, "qqp")
  file = tmp_path / "QQP/train.tsv"
  file.write_text(file.read_text() + "7\t1\t2\tWhy\n8\t1\n")
  found = glue_source(tmp_path, "qqp")
  assert found.conditions()["broken lines left out"] == "train 2, test 0"
  assert sum(len(found.examples[name]) for name in ("train", "validation")) == 40
  assert (
    "broken lines left out"
    not in glue_source(write_glue(tmp_path / "b", "rte"), "rte").conditions()
  )


def test_quotes_are_letters(tmp_path):
  write_glue(tmp_path, "mrpc", count=3)
  assert len(glue.read("mrpc", str(tmp_path))[0].examples) == 3


def test_damaged_files_of_glue_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"RTE/train.tsv|train.tsv.*gluebenchmark"):
    glue.read("rte", str(tmp_path))
  write_glue(tmp_path, "rte")
  file = tmp_path / "RTE/train.tsv"
  whole = file.read_text()
  file.write_text(whole.replace("\tlabel", "\tlabels"))
  with pytest.raises(ValueError, match=r"RTE/train\.tsv: found columns .*expected label"):
    glue.read("rte", str(tmp_path))
  file.write_text(whole.replace("not_entailment", "perhaps", 1))
  with pytest.raises(ValueError, match=r"RTE/train\.tsv:3: label 'perhaps'"):
    glue.read("rte", str(tmp_path))
  write_glue(tmp_path, "stsb")
  file = tmp_path / "STS-B/dev.tsv"
  file.write_text(file.read_text().replace("\t0.0\n", "\tnone\n", 1))
  with pytest.raises(ValueError, match=r"STS-B/dev\.tsv:2: label 'none' is no number"):
    glue.read("stsb", str(tmp_path))


def test_facts_are_known_without_files():
  found = labelled_text.Source(
    dataset="mnli", path="nowhere", tokenizer="nowhere.json", vocabulary=9, length=7
  )
  assert found.facts() == {"vocabulary": 9, "length": 7, "types": 2, "classes": 3}


@pytest.mark.parametrize("task", ["mnli", "stsb", "cola"])
def test_glue_as_tfds_prepares_it(task, tmp_path):
  tfds = pytest.importorskip("tensorflow_datasets", reason="pip install -r requirements-data.txt")
  layout = glue.TASKS[task]
  names = ["entailment", "contradiction", "neutral"] if task == "mnli" else glue.class_names(task)
  columns = layout.own or layout.texts
  label = tfds.features.ClassLabel(names=names) if names else np.float32

  class Glue(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=task)]

    def _info(self):
      texts = {column: tfds.features.Text() for column in columns}
      features = tfds.features.FeaturesDict({**texts, "label": label, "idx": np.int32})
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      parts = ["train", *(name.replace("dev", "validation") for name in layout.developed)]
      return {part: self._generate_examples(part) for part in parts}

    def _generate_examples(self, part):
      for i in range(9):
        texts = {column: f"{part} {column} {i}" for column in columns}
        yield i, {**texts, "label": names[i % len(names)] if names else i / 2, "idx": i}

  builder = Glue(data_dir=tmp_path, config=task, file_format="array_record")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    builder.download_and_prepare()
  train, tested = glue.read_tfds(task, str(tmp_path))
  assert len(train.examples) == 9
  assert len(tested.examples) == 9 * len(layout.developed)
  for example in train.examples:
    place = int(example.texts[0].split()[-1])
    assert example.texts == tuple(f"train {column} {place}" for column in columns)
    expected = glue.class_names(task).index(names[place % len(names)]) if names else place / 2
    assert example.label == expected
  assert [e.mismatched for e in tested.examples].count(True) == (9 if task == "mnli" else 0)
  source = labelled_text.Source(
    dataset=f"tfds:glue/{task}", directory=str(tmp_path), tokenizer="characters", length=32
  )
  assert len(source.split("test")) == len(tested.examples)


def test_tables_of_ones_own(tmp_path):
  rows = [f"{'good' if i % 3 else 'bad'}\tbook {i}" for i in range(60)]
  (tmp_path / "a.tsv").write_text("\n".join(["verdict\ttitle", *rows]))
  settings = dict(dataset="tsv", path=str(tmp_path / "a.tsv"), columns=("title",), length=16)
  settings |= dict(label="verdict", labels=("bad", "good"), tokenizer="characters")
  found = labelled_text.Source(**settings, validation=0.2, test=0.3)
  parts = {name: {e.texts for e in found.examples[name]} for name in marked.PARTS}
  assert sum(map(len, parts.values())) == 60
  assert all(parts.values())
  assert found.class_names == ("bad", "good")
  # A text's part depends on nothing but itself.
  (tmp_path / "a.tsv").write_text("\n".join(["verdict\ttitle", *rows[::2]]))
  fewer = labelled_text.Source(**settings, validation=0.2, test=0.3)
  assert all({e.texts for e in fewer.examples[name]} <= parts[name] for name in marked.PARTS)


@pytest.mark.parametrize(
  "fields",
  [
    dict(dataset="glue"),
    dict(dataset="cola"),
    dict(dataset="tsv", path="a.tsv"),
    dict(dataset="kjv_overlap", train_per_class=2),
    dict(dataset="kjv_genre", train_per_class=2, train_examples=3),
    dict(dataset="kjv_genre", validation=0.5, test=0.5),
    dict(dataset="kjv_genre", vocabulary=0),
  ],
)
def test_settings_that_cannot_be_are_refused(fields):
  with pytest.raises(ValueError, match=r"choose|give|leave|numbers"):
    labelled_text.Source(**{"vocabulary": 100, **fields})


# The Bible.


@pytest.fixture(scope="module")
def book():
  if not pathlib.Path("/usr/bin/bible").exists():
    pytest.skip("apt-get install bible-kjv bible-kjv-text")
  return [
    marked.Chapter(i, list(dict.fromkeys(c.book for c in bible.chapters())).index(c.book), c.verses)
    for i, c in enumerate(bible.chapters())
  ]


def test_genres_and_testaments_are_the_bibles(book):
  count = collections.Counter(example.label for example in verses.examples("genre", book))
  # Counted from the text by book.
  assert [count[i] for i in range(6)] == [5852, 7018, 4785, 5490, 4786, 3171]
  count = collections.Counter(example.label for example in verses.examples("testament", book))
  assert [count[i] for i in range(2)] == [23145, 7957]


def test_a_pair_is_next_or_of_another_chapter(book):
  part = book[40:90]
  where = {verse: [] for chapter in part for verse in chapter.verses}
  for chapter in part:
    for i, verse in enumerate(chapter.verses):
      where[verse].append((chapter.number, i))
  found = verses.examples("next", part)
  assert len(found) == sum(len(chapter.verses) - 1 for chapter in part)
  assert abs(np.mean([e.label for e in found]) - 0.5) < 4 * 0.5 / math.sqrt(len(found))
  for example in found:
    pairs = list(itertools.product(*(where[words] for words in example.texts)))
    if example.label:
      assert any(a[0] == b[0] and b[1] == a[1] + 1 for a, b in pairs)
    else:
      assert any(a[0] != b[0] for a, b in pairs)
  # The same whatever else there is, where the foreign verses are drawn from aside.
  again = verses.examples("next", book[40:60])
  assert [e.label for e in again] == [e.label for e in found[: len(again)]]


def test_overlap_is_jaccards(book):
  assert verses.overlap("The cat, the dog.", "the dog; a cow") == 2 / 5
  assert verses.overlap("x", "") == 0
  found = verses.examples("overlap", book[:30])
  labels = np.array([e.label for e in found])
  assert all(e.label == 5 * verses.overlap(*e.texts) for e in found)
  assert 0 <= labels.min() < 0.5
  assert 4.5 < labels.max() <= 5
  assert labels.std() > 0.8
  assert all(len(a.split(" ")) == len(b.split(" ")) for a, b in (e.texts for e in found))


@pytest.mark.parametrize("seed", [0, 1])
def test_few_of_each_class(book, seed):
  settings = dict(dataset="kjv_genre", tokenizer="bytes", length=8)
  few = labelled_text.Source(**settings, train_per_class=3, subset_seed=seed, test_examples=7)
  assert np.bincount(few.split("train").arrays["label"]).tolist() == [3] * 6
  assert len(few.split("test")) == 7
  assert few.conditions()["trained on"] == f"3 of each class (choice {seed})"
  more = labelled_text.Source(**settings, train_per_class=5, subset_seed=seed)
  assert {e.texts for e in few.chosen("train")} <= {e.texts for e in more.chosen("train")}
  other = labelled_text.Source(**settings, train_per_class=3, subset_seed=seed + 1)
  assert {e.texts for e in few.chosen("train")} != {e.texts for e in other.chosen("train")}


def test_the_tokenizer_is_that_of_pre_training(book):
  settings = dict(tokenizer="wordpiece", vocabulary=300)
  expected = text.Source(dataset="kjv", **settings).tokenizers()["tokens"].to_json()
  for found in (
    labelled_text.Source(dataset="kjv_genre", **settings),
    token_labels.Source(dataset="kjv_case", **settings),
    choices.Source(dataset="kjv_continuation", **settings),
    reading.Source(dataset="kjv_cloze", length=96, question_length=20, stride=64, **settings),
  ):
    assert found.assets() == {"tokenizer.json": expected}
    assert text.held_out(tuple(range(1189)), 0.05, 0.05)["test"] == tuple(
      chapter.number for chapter in found.chapters["test"]
    )


def test_a_run_keeps_its_tokenizer(book, tmp_path):
  found = labelled_text.Source(dataset="kjv_testament", tokenizer="characters", train_examples=9)
  (tmp_path / "tokenizer.json").write_text(found.assets()["tokenizer.json"])
  again = found.restored(tmp_path)
  assert again.tokenizer == str(tmp_path / "tokenizer.json")
  assert again.fingerprint() == found.fingerprint()
  other = labelled_text.Source(dataset="kjv_testament", tokenizer="characters", train_examples=8)
  assert other.fingerprint() != found.fingerprint()


# Rows.


class Letters:
  """Words of numbers, with marks."""

  bos, eos = 100, 101


def rows_of(**fields):
  found = labelled_text.Source(dataset="kjv_genre", tokenizer="characters", **fields)
  found.__dict__["_tokenizer"] = Letters()
  return found


@pytest.mark.parametrize(
  ("first", "second", "fields", "tokens", "types", "cut"),
  [
    ([1, 2], None, {}, [100, 1, 2, 101], [0] * 4, False),
    ([1, 2], [3], {}, [100, 1, 2, 101, 3, 101], [0, 0, 0, 0, 1, 1], False),
    ([1], [], {}, [100, 1, 101, 101], [0, 0, 0, 1], False),
    ([1, 2], [3], dict(types=0), [100, 1, 2, 101, 3, 101], [0] * 6, False),
    ([1], [3], dict(types=1, separators=2), [100, 1, 101, 101, 3, 101], [0] * 6, False),
    (range(1, 9), None, {}, [100, 1, 2, 3, 4, 5, 6, 101], [0] * 8, True),
    (range(1, 9), [9], {}, [100, 1, 2, 3, 4, 101, 9, 101], [0] * 6 + [1] * 2, True),
    ([1], range(2, 9), {}, [100, 1, 101, 2, 3, 4, 5, 101], [0] * 3 + [1] * 5, True),
    ([1, 2, 3], [4, 5, 6], {}, [100, 1, 2, 3, 101, 4, 5, 101], [0] * 5 + [1] * 3, True),
  ],
)
def test_marks_types_and_what_is_cut(first, second, fields, tokens, types, cut):
  found = rows_of(length=8, **fields).paired(list(first), (second and list(second)) or second)
  rest = 8 - len(tokens)
  assert found.tokens.tolist() == tokens + [-1] * rest
  assert found.types.tolist() == types + [0] * rest
  assert found.cut == cut


@settings(max_examples=200, deadline=None, derandomize=True)
@given(one=st.integers(0, 60), other=st.integers(0, 60), room=st.integers(0, 60))
def test_the_longer_text_is_cut_first(one, other, room):
  a, b = marked.longest_first(one, other, room)
  assert a + b == min(one + other, room)
  assert a <= one
  assert b <= other
  # Whoever was cut is no shorter than the other, but for the one token that cannot be shared.
  if a < one:
    assert a >= b - 0 or b == other
    assert a >= b
  if b < other:
    assert b >= a - 1


def test_overlong_texts_are_counted(tmp_path):
  write_glue(tmp_path, "rte")
  whole = glue_source(tmp_path, "rte", length=48).conditions()
  assert "examples longer than a row" not in whole
  cut = glue_source(tmp_path, "rte", length=12, validation=0.0).conditions()
  assert cut["examples longer than a row"] == "train 40, validation 0, test 6"


# Labels of words.


def words_of(found, sentences):
  """(text of each token, label) of every row."""
  tokenizer, arrays = found.tokenizers()["tokens"], found.rows(sentences).arrays
  return [
    [(tokenizer.token(int(t)), int(c)) for t, c in zip(*row, strict=True) if t >= 0]
    for row in zip(arrays["tokens"], arrays["labels"], strict=True)
  ]


SAID = [
  "And Moses' rod, the LORD said unto Abed-nego; Go  out of it.",
  "Behold, it was so: and God saw",
  "Yea",
]


@pytest.mark.parametrize("length", [60, 6])
@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "characters", "words"])
def test_a_word_has_its_class_at_its_first_token(kind, length, tmp_path):
  size = 0 if kind in ("characters", "words") else 300
  trained = tokenizers.train(kind, [words.lower() for words in SAID * 9], size)
  (tmp_path / "tokenizer.json").write_text(trained.to_json())
  found = token_labels.Source(
    dataset="kjv_case", tokenizer=str(tmp_path / "tokenizer.json"), length=length
  )
  sentences = [token_labels.uncased(words) for words in SAID]
  for sentence, row in zip(sentences, words_of(found, sentences), strict=True):
    labels = [label for _, label in row if label >= 0]
    asked = [(sentence.text[a:b], c) for (a, b), c in zip(*sentence[1:], strict=True) if c >= 0]
    if len(row) < length:
      assert len(labels) == len(asked)
    assert labels == [label for _, label in asked][: len(labels)]
    assert row[0] == ("<bos>", -1)
    assert row[-1] == ("<eos>", -1)
    pieces = [piece.strip().lstrip("\u2581\u0120") for piece, label in row if label >= 0]
    for (word, _), piece in zip(asked, pieces, strict=False):
      assert word.startswith(piece) or piece.startswith(word)


def test_capitals_are_the_verses_own():
  found = token_labels.uncased("And Moses' rod, the LORD said; Abed-nego")
  words = [found.text[a:b] for a, b in found.words]
  assert found.text == "and moses' rod, the lord said; abed-nego"
  assert words == ["and", "moses", "rod", "the", "lord", "said", "abed-nego"]
  assert found.labels == (-1, 1, 0, 0, 1, 0, 1)


def test_conll_files(tmp_path):
  file = tmp_path / "train.txt"
  file.write_text(
    "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n. . O O\n\nPeter\tNNP\tB-PER\n"
  )
  labels = ("O", "B-ORG", "B-PER")
  found = token_labels.read_conll(str(file), labels)
  assert [sentence.text for sentence in found] == ["EU rejects .", "Peter"]
  assert [sentence.labels for sentence in found] == [(1, 0, 0), (2,)]
  assert [found[0].text[a:b] for a, b in found[0].words] == ["EU", "rejects", "."]
  source = token_labels.Source(
    dataset="conll",
    path=str(file),
    test_path=str(file),
    labels=labels,
    tokenizer="characters",
    validation=0.0,
    length=16,
  )
  assert source.facts()["classes"] == 3
  first = words_of(source, found)[0]
  assert first[:4] == [("<bos>", -1), ("E", 1), ("U", -1), (" ", -1)]
  assert [label for _, label in first if label >= 0] == [1, 0, 0]
  file.write_text("EU B-LOC\n")
  with pytest.raises(ValueError, match=r"train\.txt:1: 'EU B-LOC'"):
    token_labels.read_conll(str(file), labels)


# Reading.


def squad_file(path, **changes):
  passage = "Beyonc\u00e9 was born in Houston, Texas. She sang at the age of nine in a choir there."
  asked = [
    dict(
      id="1",
      question="Where?",
      answers=[dict(text="Houston, Texas", answer_start=20), dict(text="Texas", answer_start=29)],
    ),
    dict(id="2", question="When?", answers=[dict(text="nine", answer_start=passage.index("nine"))]),
    dict(id="3", question="Why?", answers=[], is_impossible=True),
  ]
  asked[0]["answers"][0] |= changes
  data = [dict(title="B", paragraphs=[dict(context=passage, qas=asked)])]
  path.write_text(json.dumps(dict(version="v2.0", data=data)), encoding="utf-8")
  return passage


def test_squad_files(tmp_path):
  passage = squad_file(tmp_path / "a.json")
  found = reading.read_squad(str(tmp_path / "a.json"))
  assert [q.question for q in found] == ["Where?", "When?", "Why?"]
  assert [passage[q.start : q.stop] for q in found[:2]] == ["Houston, Texas", "nine"]
  assert [q.answers for q in found] == [("Houston, Texas", "Texas"), ("nine",), ()]
  assert found[2].start == -1
  squad_file(tmp_path / "b.json", answer_start=19)
  with pytest.raises(ValueError, match=r"b\.json: 1: the passage does not have 'Houston"):
    reading.read_squad(str(tmp_path / "b.json"))
  (tmp_path / "c.json").write_text("[]")
  with pytest.raises(ValueError, match=r"c\.json: no file of SQuAD"):
    reading.read_squad(str(tmp_path / "c.json"))


@pytest.mark.parametrize("kind", ["characters", "bytes", "words"])
@pytest.mark.parametrize("length", [24, 40, 128])
def test_rows_of_a_passage_hold_its_answers(kind, length, tmp_path):
  squad_file(tmp_path / "a.json")
  settings = dict(dataset="squad", path=str(tmp_path / "a.json"), question_length=6, stride=8)
  found = reading.Source(
    **settings, test_path=str(tmp_path / "a.json"), validation=0.0, tokenizer=kind, length=length
  )
  arrays, originals = found.split("test").arrays, found.originals("test")
  seen = collections.Counter()
  for row, question in enumerate(originals["question"]):
    asked, offsets = found.examples["test"][question], originals["offsets"][row]
    own = offsets[offsets[:, 0] >= 0]
    # Tokens of the passage are of type 1, and [SEP] behind it.
    assert (arrays["types"][row] == 1).sum() == len(own) + 1
    start, end = arrays["start"][row], arrays["end"][row]
    inside = len(own) and own[0, 0] <= asked.start and own[-1, 1] >= asked.stop > 0
    assert bool(start) == bool(inside) == bool(end)
    if start:
      seen[int(question)] += 1
      got = asked.passage[offsets[start, 0] : offsets[end, 1]]
      assert got == asked.answers[0]
  assert seen[0] or length == 24  # which has no room for so many letters
  assert seen[1]
  assert not seen[2]
  if length == 128 and kind != "words":
    assert len(originals["question"]) == 3
  if length == 24 and kind != "words":
    # Every token of the passage is in a row.
    for question in range(3):
      mine = originals["offsets"][originals["question"] == question].reshape(-1, 2)
      assert {b for _, b in mine if b >= 0} >= {len(originals["passage"][0])}
      assert {a for a, _ in mine if a >= 0} >= {0}


def test_windows_reach_the_end_and_no_further():
  assert reading.starts(10, 10, 4) == [0]
  assert reading.starts(11, 10, 4) == [0, 4]
  assert reading.starts(14, 10, 4) == [0, 4]
  assert reading.starts(15, 10, 4) == [0, 4, 8]


@pytest.mark.parametrize("unanswerable", [0.0, 0.5])
def test_gaps_are_filled_from_the_passage(unanswerable, book):
  found = reading.Source(
    dataset="kjv_cloze",
    tokenizer="bytes",
    length=200,
    question_length=80,
    stride=100,
    unanswerable=unanswerable,
    train_examples=300,
    test_examples=50,
  )
  asked = found.chosen("train")
  for question in asked:
    before, after = question.question.split("_")
    if question.start >= 0:
      (answer,) = question.answers
      assert question.passage[question.start : question.stop] == answer
      assert 1 <= len(answer.split(" ")) <= 3
      assert question.passage[: question.start].endswith(before.strip() + " ")
      assert after.strip() in question.passage[question.stop :]
  share = np.mean([not question.answers for question in asked])
  assert abs(share - unanswerable) < 0.12
  with pytest.raises(ValueError, match="stride"):
    reading.Source(dataset="kjv_cloze", tokenizer="bytes", length=40, question_length=20, stride=30)


# Choices.


def test_swag_files(tmp_path):
  header = (
    "video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label"
  )
  line = 'v,1,x,"He stops, looks.",He,gold,runs.,eats.,"sits, then ""waits"".",flies.,2'
  (tmp_path / "a.csv").write_text(f"{header}\n{line}\n")
  (found,) = choices.read_swag(str(tmp_path / "a.csv"))
  assert found.given == "He stops, looks."
  assert found.label == 2
  assert found.endings == ("He runs.", "He eats.", 'He sits, then "waits".', "He flies.")
  (tmp_path / "b.csv").write_text(f"{header}\n{line[:-1]}7\n")
  with pytest.raises(ValueError, match=r"b\.csv:2: found '7'"):
    choices.read_swag(str(tmp_path / "b.csv"))
  (tmp_path / "c.csv").write_text("a,b\n1,2\n")
  with pytest.raises(ValueError, match=r"c\.csv: no columns sent1"):
    choices.read_swag(str(tmp_path / "c.csv"))


def test_one_of_the_endings_is_the_verses(book):
  found = choices.Source(
    dataset="kjv_continuation",
    tokenizer="words",
    vocabulary=0,
    length=200,
    train_examples=100,
    test_examples=20,
  )
  arrays = found.split("train").arrays
  assert arrays["tokens"].shape == arrays["types"].shape == (100, 4, 200)
  own = {verse for chapter in found.chapters["train"] for verse in chapter.verses}
  for example in found.chosen("train"):
    right = f"{example.given} {example.endings[example.label]}".strip()
    assert right in own
  count = np.bincount([e.label for e in found.examples["train"]])
  assert np.abs(count / count.sum() - 0.25).max() < 4 * math.sqrt(0.1875 / count.sum())


# Metrics.


def all_binary(most):
  for size in range(1, most + 1):
    yield from itertools.product(itertools.product((0, 1), repeat=size), repeat=2)


def test_binary_metrics_are_sklearns_on_every_small_case():
  sklearn = pytest.importorskip("sklearn.metrics")
  for found, label in itertools.islice(all_binary(4), 0, None, 3):
    assert metrics.f1(found, label) == pytest.approx(
      sklearn.f1_score(label, found, zero_division=0)
    )
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      expected = sklearn.matthews_corrcoef(label, found)
    assert metrics.matthews(found, label) == pytest.approx(expected, abs=1e-12)
    assert metrics.accuracy(found, label) == sklearn.accuracy_score(label, found)


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_scipys(seed):
  generator = np.random.default_rng(seed)
  x = generator.integers(0, 5, 50) if seed else generator.normal(size=50)
  y = x + generator.normal(size=50)
  assert metrics.pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
  assert metrics.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
  assert metrics.spearman(np.exp(x), y) == pytest.approx(metrics.spearman(x, y))


@pytest.mark.parametrize("name", ["matthews", "pearson", "spearman", "f1"])
def test_constant_predictions_tell_nothing(name):
  metric = getattr(metrics, name)
  label = np.array([0, 1, 0, 1])
  assert metric(np.zeros(4), label) == 0
  assert metric(np.zeros(0), np.zeros(0)) == 0
  if name != "f1":
    assert metric(np.full(4, 1), label) == 0
    assert metric(label, np.ones(4)) == 0
    assert metric(label, label) == pytest.approx(1)
    assert metric(1 - label, label) == pytest.approx(-1)
  else:
    assert metric(np.ones(4), label) == pytest.approx(2 / 3)


def test_the_score_of_glue_is_the_mean_over_tasks():
  # BERT-base's test figures as the paper prints them: nine numbers, whose plain mean is 79.6.
  printed = dict(qqp=71.2, qnli=90.5, sst2=93.5, cola=52.1, stsb=85.8, mrpc=88.9, rte=66.4)
  found = {
    task: dict.fromkeys(metrics.METRICS[task], value / 100) for task, value in printed.items()
  }
  found["mnli"] = {"accuracy_matched": 0.846, "accuracy_mismatched": 0.834}
  values = [*printed.values(), 84.0]
  assert metrics.score(found) == pytest.approx(np.mean(values))
  assert np.mean([*printed.values(), 84.6, 83.4]) == pytest.approx(79.6, abs=0.01)
  assert set(metrics.METRICS) == set(glue.TASKS)
  with pytest.raises(ValueError, match="mrpc: no f1"):
    metrics.score({"mrpc": {"accuracy": 0.5}})
  for bad in ({}, {"ax": {"matthews": 1}}):
    with pytest.raises(ValueError, match=r"no task"):
      metrics.score(bad)


@pytest.mark.parametrize(
  ("found", "right", "exact", "f1"),
  [
    ("the Cat.", ["cat"], 1, 1),
    ("a cat sat", ["cat", "the cat sat down"], 0, 0.8),
    ("", [], 1, 1),
    ("x", [], 0, 0),
    ("", ["x"], 0, 0),
    ("the", ["a"], 1, 1),
    ("twenty-one", ["twentyone"], 1, 1),
    ("b b c", ["b c c"], 0, 2 / 3),
    ("theatre", ["atre"], 0, 0),
  ],
)
def test_squads_metrics(found, right, exact, f1):
  assert answers.exact_match(found, right) == exact
  assert answers.f1(found, right) == pytest.approx(f1)


def test_the_best_stretch_is_the_exhaustive_one():
  generator = np.random.default_rng(0)
  for _ in range(30):
    logits = generator.normal(size=(9, 2))
    offsets = np.stack([np.arange(9) * 3, np.arange(9) * 3 + 2], -1)
    offsets[generator.random(9) < 0.3] = -1
    most = int(generator.integers(1, 5))
    allowed = [
      (logits[i, 0] + logits[j, 1], offsets[i, 0], offsets[j, 1])
      for i in range(9)
      for j in range(i, min(i + most, 9))
      if offsets[i, 0] >= 0 and offsets[j, 0] >= 0
    ]
    found = answers.best_span(logits, offsets, most)
    assert found is None if not allowed else tuple(found) == pytest.approx(max(allowed))


def test_answers_are_chosen_over_rows():
  passages = ["abcdef", "xyz"]
  offsets = np.array(
    [[[-1, -1], [0, 1], [1, 2]], [[-1, -1], [4, 5], [5, 6]], [[-1, -1], [0, 3], [-1, -1]]]
  )
  logits = np.zeros((3, 3, 2))
  logits[0, 1] = 2.0
  logits[1, 1, 0] = logits[1, 2, 1] = 3.0
  logits[:, 0] = [[2.5, 2.5], [1.0, 1.0], [0.5, 0.5]]
  ask = lambda nothing: answers.answers(  # noqa: E731
    logits, offsets, np.array([0, 0, 1]), passages, most=5, nothing=nothing
  )
  assert ask(None) == ["ef", "xyz"]
  # No answer to the first scores 2 at least, over its rows; its best stretch 6.
  assert ask(0.0) == ["ef", ""]
  assert ask(1.5) == ["ef", "xyz"]
  assert ask(-4.5) == ["", ""]


def test_naive_bayes_is_sklearns():
  bayes = pytest.importorskip("sklearn.naive_bayes")
  generator = np.random.default_rng(0)
  label = generator.integers(0, 3, 60)
  tokens = (generator.integers(0, 8, (60, 5)) + label[:, None]) % 10
  tokens[generator.random(tokens.shape) < 0.2] = -1
  counts = np.stack([(tokens == v).sum(1) for v in range(10)], -1)
  prior = np.bincount(label) + 1.0
  theirs = bayes.MultinomialNB(class_prior=prior / prior.sum()).fit(counts[:40], label[:40])
  prior = np.bincount(label[:40], minlength=3) + 1.0
  theirs = bayes.MultinomialNB(class_prior=prior / prior.sum()).fit(counts[:40], label[:40])
  ours = naive_bayes.classify(tokens[:40], label[:40], tokens[40:], vocabulary=10, classes=3)
  np.testing.assert_array_equal(ours, theirs.predict(counts[40:]))
