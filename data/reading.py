"""Questions about passages, whose answers are stretches of them: SQuAD, or gaps in the Bible.

  squad       Rajpurkar et al. 2016, arXiv:1606.05250, and 2018, arXiv:1806.03822 (version 2, where
              some questions have no answer): JSON files
  kjv_cloze   a few verses in a row, and words of one of them with a gap; the answer is what fills
              it. The gap is a sign that the Bible has not, so that a tokenizer trained on it takes
              it for <unk>, which stands for what is hidden in pre-training too

A row is `[CLS] question [SEP] passage [SEP]`. A passage that does not fit goes into several rows,
each beginning `stride` tokens after the one before; where a row does not hold the answer, it is at
[CLS] (Devlin et al. 2019, "BERT", arXiv:1810.04805, sections 4.2 and 4.3; the strides are its
code's). Questions longer than `question_length` are cut. An answer in a passage is its characters;
the tokens that touch them are what is to be found.

Axes: T tokens of a row.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np

from data import marked, source
from data.marked import Chapter
from data.text import read_utf8
from data.verses import foreign

_GAP = "_"


class Question(NamedTuple):
  """A question about a passage.

  Attributes:
    passage: where the answer is looked for.
    question: what is asked.
    start: the character at which the answer to learn begins; -1 where there is none.
    stop: the one behind its end.
    answers: all that count as right; none where there is no answer.
  """

  passage: str
  question: str
  start: int
  stop: int
  answers: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(marked.Marked):
  """`tokens` int32 [T], -1 behind; `types` int32 [T]; `start` and `end` int32, the first and last
  token of the answer, 0 where this row has none.

  Beside the arrays, a split's `originals`: `passage` and `answers` by question, and by row
  `question`, which it is, and `offsets` int32 [T, 2], the characters of the passage that each token
  stands for, -1 for other tokens.

  Attributes:
    dataset: "squad" or "kjv_cloze".
    path: of "squad": the file that is trained on.
    test_path: of "squad": the file that is tested on; empty holds some of the first out.
    question_length: tokens of a question.
    stride: tokens between the begins of two rows of a passage.
    verses: of "kjv_cloze": in a passage.
    context: of "kjv_cloze": words on either side of the gap.
    unanswerable: of "kjv_cloze": the share of questions that are about other verses.
  """

  dataset: Literal["squad", "kjv_cloze"]
  path: str = ""
  test_path: str = ""
  question_length: Annotated[int, "[1, inf)"] = 64
  stride: Annotated[int, "[1, inf)"] = 128
  verses: Annotated[int, "[1, inf)"] = 2
  context: Annotated[int, "[1, inf)"] = 4
  unanswerable: Annotated[float, "[0, 1]"] = 0.0

  def __post_init__(self):
    if self.dataset == "squad" and not self.path:
      raise ValueError("dataset='squad' is of files: give path")
    room = self.length - self.question_length - 2 - self.separators
    if not 1 <= self.stride <= room:
      raise ValueError(f"stride={self.stride}, but a row has room for {room} tokens of a passage")
    super().__post_init__()

  @property
  def of_bible(self) -> bool:
    return self.dataset == "kjv_cloze"

  def facts(self) -> Mapping[str, Any]:
    return {**super().facts(), "classes": 2}  # a token starts an answer, a token ends it

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    number = jax.ShapeDtypeStruct((), np.int32)
    return {"tokens": self.row(), "types": self.row(), "start": number, "end": number}

  def texts_of(self, example: Question) -> Sequence[str]:
    return example.passage, example.question

  @functools.cached_property
  def examples(self) -> Mapping[str, Sequence[Question]]:
    if self.of_bible:
      return {name: self._gaps(part) for name, part in self.chapters.items()}
    found: dict[str, list[Question]] = {name: [] for name in marked.PARTS}
    share = 0.0 if self.test_path else self.test
    for question in read_squad(self.path):
      place = marked.hashed((question.passage,)) - self.validation
      found["validation" if place < 0 else "test" if place < share else "train"].append(question)
    if self.test_path:
      found["test"] = read_squad(self.test_path)
    return found

  def _gaps(self, chapters: Sequence[Chapter]) -> list[Question]:
    found = []
    for place, chapter in enumerate(chapters):
      generator = np.random.default_rng([2, chapter.number])
      for first in range(0, len(chapter.verses) - self.verses + 1, self.verses):
        passage = chapter.verses[first : first + self.verses]
        about = passage
        if generator.random() < self.unanswerable:
          about = (foreign(chapters, place, generator),)
        question = gap(passage, about, self.context, generator)
        if question is not None:
          found.append(question)
    return found

  def rows(self, examples: Sequence[Question]) -> marked.Rows:
    tokenizer = self.tokenizers()["tokens"]
    asked = tokenizer.encode_all([example.question for example in examples])
    read = tokenizer.encode_all([example.passage for example in examples])
    made: dict[str, list] = {name: [] for name in (*self.spec(), "question", "offsets")}
    cut = 0
    for number, (example, question, passage) in enumerate(zip(examples, asked, read, strict=True)):
      ids = question.ids[: self.question_length].tolist()
      cut += len(question.ids) > self.question_length
      where_N2 = marked.spans(example.passage, passage)
      room = self.length - len(ids) - 2 - self.separators
      for first in starts(len(passage.ids), room, self.stride):
        part = slice(first, first + room)
        row = self.paired(ids, passage.ids[part].tolist())
        before = len(ids) + 1 + self.separators  # tokens in front of the passage
        offsets = np.full((self.length, 2), -1, np.int32)
        offsets[before : before + len(where_N2[part])] = where_N2[part]
        start, end = answer_tokens(offsets, example, where_N2)
        values = (row.tokens, row.types, start, end, number, offsets)
        for name, value in zip(made, values, strict=True):
          made[name].append(value)
    count = len(made["start"])
    arrays = {
      name: np.array(made[name], np.int32).reshape(count, *self.spec()[name].shape)
      for name in self.spec()
    }
    originals = {
      "passage": [example.passage for example in examples],
      "answers": [example.answers for example in examples],
      "question": np.array(made["question"], np.int32),
      "offsets": np.array(made["offsets"], np.int32).reshape(count, self.length, 2),
    }
    return marked.Rows(arrays, cut, sum(one.unknown for one in (*asked, *read)), originals)

  def conditions(self) -> Mapping[str, str]:
    found = dict(super().conditions())
    if "examples longer than a row" in found:
      found["questions cut"] = found.pop("examples longer than a row")
    counts = {name: (len(self.chosen(name)), len(self.split(name))) for name in marked.PARTS}
    found["questions"] = ", ".join(
      f"{name} {n} in {rows} rows" for name, (n, rows) in counts.items()
    )
    return found


def starts(tokens: int, room: int, stride: int) -> list[int]:
  """Where the rows of a passage begin: the last is the first that reaches its end."""
  found = [0]
  while found[-1] + room < tokens:
    found.append(found[-1] + stride)
  return found


def answer_tokens(offsets: np.ndarray, example: Question, where_N2: np.ndarray) -> tuple[int, int]:
  """First and last token of a row that touch the answer; (0, 0) unless the row holds all of it.

  Args:
    offsets: [T, 2] of the row.
    example: whose answer it is.
    where_N2: of all tokens of the passage.
  """
  if example.start < 0:
    return 0, 0
  touched = lambda where: (where[:, 0] < example.stop) & (where[:, 1] > example.start)  # noqa: E731
  (tokens,) = np.nonzero(touched(offsets))
  if not len(tokens) or len(tokens) < touched(where_N2).sum():
    return 0, 0
  return int(tokens[0]), int(tokens[-1])


def gap(
  passage: Sequence[str], about: Sequence[str], context: int, generator: np.random.Generator
) -> Question | None:
  """A gap of one to three words in one of the verses `about`, with the words around it.

  It is a question about `passage` that has no answer where `about` is another text. None where the
  verse is too short to have two words beside the gap.
  """
  verse = int(generator.integers(len(about)))
  words = about[verse].split(" ")
  size = int(generator.integers(1, 4))
  if len(words) < size + 2:
    return None
  first = int(generator.integers(1, len(words) - size))
  before, after = words[max(first - context, 0) : first], words[first + size :][:context]
  question = " ".join([*before, _GAP, *after])
  text = " ".join(passage)
  if about is not passage:
    return Question(text, question, -1, -1, ())
  start = sum(len(other) + 1 for other in about[:verse]) + len(" ".join(words[:first])) + 1
  # As in SQuAD, an answer does not end with a mark of punctuation.
  answer = " ".join(words[first : first + size]).rstrip(",;:.?!")
  return Question(text, question, start, start + len(answer), (answer,)) if answer else None


def read_squad(path: str) -> list[Question]:
  """The questions of a file of version 1.1 or 2.0.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: it is not what it should be; it names the file.
  """
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise FileNotFoundError(f"{path}: no such file. SQuAD's are at https://rajpurkar.github.io")
  with source.naming(path, "no file of SQuAD"):
    found = [
      _question(_text(paragraph["context"]), asked, path)
      for article in json.loads(read_utf8(file))["data"]
      for paragraph in article["paragraphs"]
      for asked in paragraph["qas"]
    ]
    if not found:
      raise ValueError(f"{path}: found no question")
  return found


def _question(passage: str, asked: Mapping[str, Any], path: str) -> Question:
  none = "is_impossible" in asked and asked["is_impossible"]
  question, answers = _text(asked["question"]), [] if none else asked["answers"]
  if not answers:
    return Question(passage, question, -1, -1, ())
  texts = tuple(_text(answer["text"]) for answer in answers)
  start, text = answers[0]["answer_start"], texts[0]
  if type(start) is not int or start < 0 or passage[start : start + len(text)] != text:
    raise ValueError(f"{path}: {asked['id']}: the passage does not have {text[:40]!r} at {start!r}")
  return Question(passage, question, start, start + len(text), texts)


def _text(value: Any) -> str:
  if not isinstance(value, str):
    raise TypeError(f"{value!r} is no text")
  return value
