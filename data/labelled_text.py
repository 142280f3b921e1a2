"""Texts, or pairs of texts, with a class or a number: GLUE, one's own tables, the Bible.

  cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli   GLUE's tasks, its own files (data/glue.py)
  tfds:glue/TASK                                       the same, as TFDS prepares them
  tsv                                                  one's own tab-separated files
  kjv_genre, kjv_testament, kjv_next, kjv_overlap      made of the Bible (data/verses.py)

What GLUE calls dev is what is tested on here, since its test labels were never given out. Of files,
what is held out for validation is the training examples whose hash lies in the first `validation`
of all hashes, so that equal texts stay together; where there is no part to test on, the next `test`
of them. Of the Bible, whole chapters are held out. How the text becomes tokens: data/marked.py.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np

from data import glue, marked, source, verses
from data.glue import Layout, Part
from data.verses import Example

_BIBLE, _TFDS = "kjv_", "tfds:glue/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(marked.Marked):
  """`tokens` int32 [T], -1 behind; `types` int32 [T]; `label` int32, or float32 where it is a
  number; of MNLI `mismatched` int32, 1 in the second of its parts.

  Attributes:
    dataset: of the list above.
    path: of GLUE: the directory that has one a task. Of "tsv": the file that is trained on.
    test_path: of "tsv": the file that is tested on; empty holds some of the first out.
    columns: of "tsv": the names of the column with the text, or of the two.
    label: of "tsv": the column of the label.
    labels: of "tsv": what it says, in the order of the classes; none where it is a number.
    directory: of "tfds": TFDS's data directory; empty means TFDS's own.
    train_per_class: keep only so many examples of each class to train on; 0 for all.
  """

  dataset: str
  path: str = ""
  test_path: str = ""
  columns: tuple[str, ...] = ()
  label: str = "label"
  labels: tuple[str, ...] = ()
  directory: str = ""
  train_per_class: Annotated[int, "[0, inf)"] = 0

  def __post_init__(self):
    known = [*glue.TASKS, *(_TFDS + task for task in glue.TASKS)]
    known += ["tsv", *(_BIBLE + name for name in verses.SETS)]
    if self.dataset not in known:
      raise source.NoSuchName("dataset", self.dataset, known)
    if self.dataset == "tsv" and not (self.path and len(self.columns) in (1, 2)):
      raise ValueError("dataset='tsv' is of files: give path, and one or two columns")
    if self.dataset in glue.TASKS and not self.path:
      raise ValueError(f"dataset={self.dataset!r} is of GLUE's files: give path")
    if self.train_per_class and not self.class_names:
      raise ValueError("train_per_class is for classes, and these labels are numbers")
    if self.train_per_class and self.train_examples:
      raise ValueError("give train_per_class or train_examples, not both")
    super().__post_init__()

  @property
  def task(self) -> str:
    """Which of GLUE's, of the Bible's, or "tsv"."""
    return self.dataset.removeprefix(_TFDS).removeprefix(_BIBLE)

  @property
  def class_names(self) -> tuple[str, ...]:
    """In the order of the labels; none where they are numbers."""
    if self.of_bible:
      return verses.class_names(self.task)
    return self.labels if self.task == "tsv" else glue.class_names(self.task)

  @property
  def of_bible(self) -> bool:
    return self.dataset.startswith(_BIBLE)

  def facts(self) -> Mapping[str, Any]:
    return {**super().facts(), "classes": max(len(self.class_names), 1)}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    label = jax.ShapeDtypeStruct((), np.int32 if self.class_names else np.float32)
    spec = {"tokens": self.row(), "types": self.row(), "label": label}
    if self.task == "mnli":
      spec["mismatched"] = jax.ShapeDtypeStruct((), np.int32)
    return spec

  def texts_of(self, example: Example) -> Sequence[str]:
    return example.texts

  @property
  def examples(self) -> Mapping[str, Sequence[Example]]:
    return self._read[0]

  def chosen(self, name: str) -> Sequence[Example]:
    if name != "train" or not self.train_per_class:
      return super().chosen(name)
    label = np.array([example.label for example in self.examples[name]])
    order = self.shuffled(len(label))
    first = [order[label[order] == c][: self.train_per_class] for c in range(len(self.class_names))]
    return [self.examples[name][i] for i in np.sort(np.concatenate(first))]

  def laid_out(self, *texts: Sequence[int]) -> marked.Paired:
    """An example's tokens and types, from the tokens of its texts."""
    return self.paired(*texts)

  def rows(self, examples: Sequence[Example]) -> marked.Rows:
    count = len(examples)
    tokenizer = self.tokenizers()["tokens"]
    width = len(examples[0].texts) if count else 1
    encoded = [tokenizer.encode_all([e.texts[i] for e in examples]) for i in range(width)]
    paired = [
      self.laid_out(*(one.ids.tolist() for one in row)) for row in zip(*encoded, strict=True)
    ]
    spec = self.spec()
    blank = np.zeros((0, *spec["tokens"].shape), np.int32)
    arrays = {
      "tokens": np.stack([row.tokens for row in paired]) if count else blank,
      "types": np.stack([row.types for row in paired]) if count else blank,
      "label": np.array([example.label for example in examples], spec["label"].dtype),
      "mismatched": np.array([example.mismatched for example in examples], np.int32),
    }
    unknown = sum(one.unknown for side in encoded for one in side)
    return marked.Rows(arrays, sum(row.cut for row in paired), unknown, {})

  def conditions(self) -> Mapping[str, str]:
    found = dict(super().conditions())
    if any(broken := self._read[1]):
      found["broken lines left out"] = f"train {broken[0]}, test {broken[1]}"
    if self.train_per_class:
      found["trained on"] = f"{self.train_per_class} of each class (choice {self.subset_seed})"
    return found

  @functools.cached_property
  def _read(self) -> tuple[dict[str, Sequence[Example]], tuple[int, int]]:
    """Examples by part, and how many lines were broken."""
    if self.of_bible:
      parts = self.chapters.items()
      return {name: verses.examples(self.task, part) for name, part in parts}, (0, 0)
    if self.task == "tsv":
      layout = Layout("", self.columns, self.label, self.labels)
      files = [pathlib.Path(path).expanduser() for path in (self.path, self.test_path) if path]
      train, *rest = [glue.read_tsv(file, layout) for file in files]
      tested = rest[0] if rest else None
    elif self.dataset.startswith(_TFDS):
      train, tested = glue.read_tfds(self.task, self.directory)
    else:
      train, tested = glue.read(self.task, self.path)
    return self._held_out(train, tested), (train.broken, tested.broken if tested else 0)

  def _held_out(self, train: Part, tested: Part | None) -> dict[str, Sequence[Example]]:
    found: dict[str, list[Example]] = {name: [] for name in marked.PARTS}
    share = 0.0 if tested else self.test
    for example in train.examples:
      place = marked.hashed(example.texts) - self.validation
      found["validation" if place < 0 else "test" if place < share else "train"].append(example)
    return found | ({"test": tested.examples} if tested else {})
