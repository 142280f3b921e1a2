"""The files of GLUE: nine tasks as its own download lays them out, and as TFDS prepares them.

Wang et al. 2019, "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language
Understanding", ICLR, arXiv:1804.07461. A directory holds one a task, with `train.tsv` and `dev.tsv`
(MNLI `dev_matched.tsv` and `dev_mismatched.tsv`). Lines are fields between tabs and quotes are
letters like any other. CoLA's files have no header. A line with fewer fields than the header is
broken, as some of QQP's are; such are left out and counted. Labels of `test.tsv` were never given
out, so that what is developed on is what everyone reports.
"""

import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from data import text, tfds
from data.verses import Example


class Layout(NamedTuple):
  """How one task lies in its files.

  Attributes:
    directory: of it.
    texts: the columns of the text or of both.
    label: the column of the label.
    labels: as the files spell them, in the order of the classes; none of a number.
    header: the columns of a file that does not name them.
    developed: names of the parts to test on.
    own: the text features of TFDS's set, where they have other names.
  """

  directory: str
  texts: tuple[str, ...]
  label: str
  labels: tuple[str, ...]
  header: tuple[str, ...] = ()
  developed: tuple[str, ...] = ("dev",)
  own: tuple[str, ...] = ()


_YES_NO = ("0", "1")
_ENTAILS = ("entailment", "not_entailment")
TASKS = {
  "cola": Layout(
    "CoLA", ("sentence",), "label", _YES_NO, header=("source", "label", "star", "sentence")
  ),
  "sst2": Layout("SST-2", ("sentence",), "label", _YES_NO),
  "mrpc": Layout(
    "MRPC", ("#1 String", "#2 String"), "Quality", _YES_NO, own=("sentence1", "sentence2")
  ),
  "stsb": Layout("STS-B", ("sentence1", "sentence2"), "score", ()),
  "qqp": Layout("QQP", ("question1", "question2"), "is_duplicate", _YES_NO),
  "mnli": Layout(
    "MNLI",
    ("sentence1", "sentence2"),
    "gold_label",
    ("entailment", "neutral", "contradiction"),
    developed=("dev_matched", "dev_mismatched"),
    own=("premise", "hypothesis"),
  ),
  "qnli": Layout("QNLI", ("question", "sentence"), "label", _ENTAILS),
  "rte": Layout("RTE", ("sentence1", "sentence2"), "label", _ENTAILS),
  "wnli": Layout("WNLI", ("sentence1", "sentence2"), "label", _YES_NO),
}
_NAMES = {  # what the classes mean, where the files say 0 and 1
  "cola": ("unacceptable", "acceptable"),
  "sst2": ("negative", "positive"),
  "mrpc": ("not equivalent", "equivalent"),
  "qqp": ("not duplicate", "duplicate"),
  "wnli": ("not entailment", "entailment"),
}


class Part(NamedTuple):
  """The examples of a file, and how many of its lines were broken."""

  examples: list[Example]
  broken: int


def class_names(task: str) -> tuple[str, ...]:
  """Of the labels, in their order; none of STS-B, whose label is a number."""
  return _NAMES[task] if task in _NAMES else TASKS[task].labels


def read(task: str, path: str) -> tuple[Part, Part]:
  """What is trained on, and what is tested on.

  Args:
    task: of GLUE.
    path: the directory that has one a task, or the task's.

  Raises:
    FileNotFoundError: a file is not there.
    ValueError: a file is not what it should be; it names the file.
  """
  layout = TASKS[task]
  folder = pathlib.Path(path).expanduser()
  folder = folder / layout.directory if (folder / layout.directory).is_dir() else folder
  train = read_tsv(folder / "train.tsv", layout)
  return train, _joined(read_tsv(folder / f"{name}.tsv", layout) for name in layout.developed)


def _joined(parts: Iterable[Part]) -> Part:
  examples, broken = [], 0
  for i, part in enumerate(parts):
    examples += [example._replace(mismatched=i > 0) for example in part.examples]
    broken += part.broken
  return Part(examples, broken)


def read_tsv(file: pathlib.Path, layout: Layout) -> Part:
  """The examples of one file.

  Raises:
    FileNotFoundError: it is not there.
    ValueError: a column is missing, or a label is none; it names the file.
  """
  if not file.is_file():
    raise FileNotFoundError(
      f"{file}: no such file. GLUE's are not packaged: https://gluebenchmark.com/tasks has them, "
      "then --config.data.path=DIRECTORY, one directory a task"
    )
  lines = text.read_utf8(file).split("\n")
  lines = lines[:-1] if not lines[-1] else lines
  if not lines:
    raise ValueError(f"{file}: is empty")
  header = layout.header or tuple(lines[0].split("\t"))
  missing = [name for name in (*layout.texts, layout.label) if name not in header]
  if missing:
    raise ValueError(f"{file}: found columns {', '.join(header)}, expected {', '.join(missing)}")
  places = [header.index(name) for name in layout.texts]
  found, broken = [], 0
  for number, line in enumerate(lines[not layout.header :], 1 + (not layout.header)):
    fields = line.split("\t")
    if len(fields) < len(header):
      broken += 1
      continue
    label = labelled(fields[header.index(layout.label)], layout.labels, f"{file}:{number}")
    found.append(Example(tuple(fields[place] for place in places), label))
  if not found:
    raise ValueError(f"{file}: found no example, and {broken} lines with too few fields")
  return Part(found, broken)


def labelled(written: str, labels: tuple[str, ...], where: str) -> int | float:
  """A label as a class, or as the number that it is.

  Raises:
    ValueError: it is neither; it says `where`.
  """
  if labels:
    if written not in labels:
      raise ValueError(f"{where}: label {written[:40]!r} is none of {', '.join(labels)}")
    return labels.index(written)
  try:
    number = float(written)
  except ValueError:
    number = math.nan
  if not math.isfinite(number):
    raise ValueError(f"{where}: label {written[:40]!r} is no number")
  return number


def read_tfds(task: str, directory: str) -> tuple[Part, Part]:
  """The same of a set that TFDS prepared as glue/TASK."""
  layout, builder = TASKS[task], tfds.open_builder(f"glue/{task}", directory, download=False)
  developed = [name.replace("dev", "validation") for name in layout.developed]

  def part(name: str) -> Part:
    feature = builder.info.features["label"]
    rows = (dict(row) for row in tfds.open_split(builder, name))
    return Part([_example(row, layout, feature) for row in rows], 0)

  return part("train"), _joined(part(name) for name in developed)


def _example(row: Mapping[str, Any], layout: Layout, feature: Any) -> Example:
  texts = tuple(bytes(row[name]).decode("utf-8") for name in layout.own or layout.texts)
  if not layout.labels:
    return Example(texts, float(row["label"]))
  # TFDS's classes may have another order, but where the files say 0 and 1 they are these.
  name = feature.int2str(int(row["label"]))
  return Example(texts, layout.labels.index(name) if name in layout.labels else int(row["label"]))
