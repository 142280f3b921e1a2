"""How a text goes on, of several ways: SWAG's files, or the verses of the Bible.

  swag               Zellers et al. 2018, "SWAG", arXiv:1808.05326: CSV files of a sentence, the
                     begin of the next and four ways to end it
  kjv_continuation   the first half of a verse, by words; its second half is among those of verses
                     of other chapters

Each choice is a row of its own: what is given, then the ending, as a pair of texts. Of SWAG the
begin of the second sentence belongs to each ending, as in BERT's code (Devlin et al. 2019,
arXiv:1810.04805, section 4.4).

Axes: C choices, T tokens of a row.
"""

import csv
import dataclasses
import functools
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import jax
import numpy as np

from data import marked, source
from data.marked import Chapter
from data.text import read_utf8
from data.verses import foreign

_SWAG = ("sent1", "sent2", "ending0", "ending1", "ending2", "ending3", "label")


class Choice(NamedTuple):
  """What is given, the ways to go on, and which is right."""

  given: str
  endings: tuple[str, ...]
  label: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(marked.Marked):
  """`tokens` int32 [C, T], -1 behind; `types` int32 [C, T]; `label` int32, the right choice.

  Attributes:
    dataset: "swag" or "kjv_continuation".
    path: of "swag": the file that is trained on.
    test_path: of "swag": the file that is tested on; empty holds some of the first out.
    choices: C; SWAG has 4.
  """

  dataset: Literal["swag", "kjv_continuation"]
  path: str = ""
  test_path: str = ""
  choices: Annotated[int, "[2, inf)"] = 4

  def __post_init__(self):
    if self.dataset == "swag" and not (self.path and self.choices == 4):
      raise ValueError("dataset='swag' is of files with 4 choices: give path")
    super().__post_init__()

  @property
  def of_bible(self) -> bool:
    return self.dataset == "kjv_continuation"

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    rows = jax.ShapeDtypeStruct((self.choices, self.length), np.int32)
    return {"tokens": rows, "types": rows, "label": jax.ShapeDtypeStruct((), np.int32)}

  def texts_of(self, example: Choice) -> Sequence[str]:
    return example.given, *example.endings

  @functools.cached_property
  def examples(self) -> Mapping[str, Sequence[Choice]]:
    if self.of_bible:
      return {
        name: [c for place in range(len(part)) for c in self._continued(part, place)]
        for name, part in self.chapters.items()
      }
    found: dict[str, list[Choice]] = {name: [] for name in marked.PARTS}
    share = 0.0 if self.test_path else self.test
    for choice in read_swag(self.path):
      place = marked.hashed((choice.given,)) - self.validation
      found["validation" if place < 0 else "test" if place < share else "train"].append(choice)
    if self.test_path:
      found["test"] = read_swag(self.test_path)
    return found

  def _continued(self, chapters: Sequence[Chapter], place: int):
    generator = np.random.default_rng([3, chapters[place].number])
    for verse in chapters[place].verses:
      given, right = halves(verse)
      others = [halves(foreign(chapters, place, generator))[1] for _ in range(self.choices - 1)]
      label = int(generator.integers(self.choices))
      yield Choice(given, (*others[:label], right, *others[label:]), label)

  def rows(self, examples: Sequence[Choice]) -> marked.Rows:
    shape = len(examples), self.choices, self.length
    tokens, types = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    tokenizer = self.tokenizers()["tokens"]
    given = tokenizer.encode_all([example.given for example in examples])
    endings = tokenizer.encode_all([words for example in examples for words in example.endings])
    cut = 0
    for row, one in enumerate(given):
      for choice in range(self.choices):
        ending = endings[row * self.choices + choice]
        pair = self.paired(one.ids.tolist(), ending.ids.tolist())
        tokens[row, choice], types[row, choice] = pair.tokens, pair.types
        cut += pair.cut
    label = np.array([example.label for example in examples], np.int32)
    unknown = sum(one.unknown for one in (*given, *endings))
    return marked.Rows(dict(tokens=tokens, types=types, label=label), cut, unknown, {})


def halves(verse: str) -> tuple[str, str]:
  """The first half of its words, the larger where they are odd, and the rest."""
  words = verse.split(" ")
  middle = (len(words) + 1) // 2
  return " ".join(words[:middle]), " ".join(words[middle:])


def read_swag(path: str) -> list[Choice]:
  """The questions of a file.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: it is not what it should be; it names the line.
  """
  file = pathlib.Path(path).expanduser()
  if not file.is_file():
    raise FileNotFoundError(f"{path}: no such file. SWAG's are at https://rowanzellers.com/swag")
  with source.naming(path, "not a CSV file"):
    return _questions(csv.DictReader(io.StringIO(read_utf8(file)), strict=True), path)


def _questions(reader: csv.DictReader, path: str) -> list[Choice]:
  missing = [name for name in _SWAG if name not in (reader.fieldnames or ())]
  if missing:
    raise ValueError(f"{path}: no columns {', '.join(missing)}, as SWAG's train.csv has")
  found = []
  for row in reader:
    if (
      None in row
      or any(row[name] is None for name in _SWAG)
      or row["label"] not in ("0", "1", "2", "3")
    ):
      raise ValueError(f"{path}:{reader.line_num}: found {row['label']!r}, expected a label 0 to 3")
    endings = tuple(f"{row['sent2']} {row[f'ending{i}']}" for i in range(4))
    found.append(Choice(row["sent1"], endings, int(row["label"])))
  if not found:
    raise ValueError(f"{path}: found no question under the heading")
  return found
