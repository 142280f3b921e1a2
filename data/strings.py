"""Strings made up to be turned into others: small tasks of which every answer is known.

  copy        "cab" -> "cab"; Sutskever, Vinyals & Le 2014 (arXiv:1409.3215) read it reversed
  reverse     "cab" -> "bac"
  sort        "cab" -> "abc"
  dates       "Saturday, January 2, 1999" -> "1999-01-02", in seven ways of writing a date, from
              1900 to 2049
  arithmetic  "58+7" -> "65", "7-58" -> "-51"

Sources are drawn without repetition, those tested on first; no source, and of dates no day, is in
two splits. As pairs the elements are those of `parallel`; as a stream, what a model without an
encoder reads: the source, `=` and the target in one row, of which only the target is scored.
"""

import dataclasses
import datetime
import functools
import hashlib
import string
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import numpy as np

from data import pairs, source, tokenizers
from data.tokenizers import Tokenizer

_FIRST, _LAST = datetime.date(1900, 1, 1), datetime.date(2049, 12, 31)
_SYMBOLS = string.ascii_lowercase + string.ascii_uppercase + string.digits
_SEPARATOR = "="
_PARTS = ("test", "validation", "train")

# Not by strftime, whose names of months are those of the machine's language.
_MONTHS = (
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
)
_DAYS = (
  "Monday",
  "Tuesday",
  "Wednesday",
  "Thursday",
  "Friday",
  "Saturday",
  "Sunday",
)
FORMATS = (
  "{d} {month} {y}",
  "{month} {d}, {y}",
  "{d} {mon} {y}",
  "{day}, {month} {d}, {y}",
  "{d:02}.{m:02}.{y}",  # with points the day is first,
  "{m:02}/{d:02}/{y}",  # with strokes the month
  "{mon} {d}, {y}",
)
_DATE_LENGTH = len("Wednesday, September 30, 2049")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """Pairs, or a stream of `tokens` int32 [T+1] whose first `context` targets are not scored.

  Attributes:
    dataset: what is to be done.
    form: two sequences, or one.
    minimum: symbols of a source at least (of arithmetic digits of a number; not of dates).
    maximum: at most.
    symbols: how many there are; of copy, reverse and sort.
    reverse_source: whether the source is read from its end.
    train_examples: how many; test and validation likewise.
    seed: of the strings.
  """

  dataset: Literal["copy", "reverse", "sort", "dates", "arithmetic"]
  form: Literal["pairs", "stream"] = "pairs"
  minimum: Annotated[int, "[1, inf)"] = 1
  maximum: Annotated[int, "[1, inf)"] = 12
  symbols: Annotated[int, "[2, 62]"] = 26
  reverse_source: bool = False
  train_examples: Annotated[int, "[1, inf)"] = 20000
  validation_examples: Annotated[int, "[0, inf)"] = 0
  test_examples: Annotated[int, "[1, inf)"] = 1000
  seed: Annotated[int, "[0, inf)"] = 0

  def __post_init__(self):
    if self.minimum > self.maximum:
      raise ValueError(f"minimum={self.minimum} is more than maximum={self.maximum}")

  def facts(self) -> Mapping[str, Any]:
    longest = self._longest
    if self.form == "stream":  # <bos> source = target <eos>: all but one are targets
      return {"vocabulary": self._tokenizer.size, "length": sum(longest) + 2}
    lengths = {"source_length": longest[0] + 1, "target_length": longest[1] + 1}
    size = self._tokenizer.size
    return {"source_vocabulary": size, "target_vocabulary": size, **lengths}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    facts = self.facts()
    if self.form == "stream":
      shapes = {"tokens": (facts["length"] + 1,), "context": ()}
    else:
      shapes = {"source": (facts["source_length"],), "target": (facts["target_length"] + 1,)}
    shapes |= {"characters": (), "bytes": ()}
    return {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in shapes.items()}

  def tokenizers(self) -> Mapping[str, Tokenizer]:
    names = ("tokens",) if self.form == "stream" else ("source", "target")
    return dict.fromkeys(names, self._tokenizer)

  def texts(self, name: str) -> list[tuple[str, str]]:
    """The pairs of a split, as text."""
    return self._texts[name]

  def split(self, name: str) -> source.Split:
    return self._splits[name]

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    del keys, train
    return batch

  def conditions(self) -> Mapping[str, str]:
    return {"source": "reversed"} if self.reverse_source else {}

  def fingerprint(self) -> str:
    digest = hashlib.sha256(self._tokenizer.fingerprint().encode())
    for name in _PARTS:
      for key, array in self.split(name).arrays.items():
        digest.update(f"{name} {key} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

  @property
  def _alphabet(self) -> str:
    if self.dataset == "dates":
      letters = "".join(sorted({*"".join([*_MONTHS, *_DAYS, *string.digits]), *" ,./-"}))
    elif self.dataset == "arithmetic":
      letters = string.digits + "+-"
    else:
      letters = _SYMBOLS[: self.symbols]
    return letters + (_SEPARATOR if self.form == "stream" else "")

  @functools.cached_property
  def _tokenizer(self) -> Tokenizer:
    return _tokenizer(self._alphabet)

  @property
  def _longest(self) -> tuple[int, int]:
    """Characters of the longest source and target."""
    if self.dataset == "dates":
      return _DATE_LENGTH, len("2049-12-31")
    if self.dataset == "arithmetic":
      return 2 * self.maximum + 1, self.maximum + 1
    return self.maximum, self.maximum

  @functools.cached_property
  def _texts(self) -> dict[str, list[tuple[str, str]]]:
    counts = {name: getattr(self, f"{name}_examples") for name in _PARTS}
    make = {"dates": self._dates, "arithmetic": self._sums}.get(self.dataset, self._strings)
    found, start = make(sum(counts.values())), 0
    parts = {}
    for name, count in counts.items():
      parts[name] = found[start : start + count]
      start += count
    return parts

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    return {name: source.Arrays(self._arrays(self._texts[name])) for name in _PARTS}

  def _arrays(self, texts: list[tuple[str, str]]) -> pairs.Arrays:
    if self.form == "stream":
      return self._stream(texts)
    facts = self.facts()
    sources, targets = (self._tokenizer.encode_all(side) for side in _sides(texts))
    return pairs.arrays(
      sources,
      targets,
      self.tokenizers(),
      source_length=facts["source_length"],
      target_length=facts["target_length"],
      reverse_source=self.reverse_source,
    )

  def _stream(self, texts: list[tuple[str, str]]) -> pairs.Arrays:
    spec = self.spec()
    found = {name: np.zeros((len(texts), *s.shape), np.int32) for name, s in spec.items()}
    found["tokens"] -= 1
    for row, (one, other) in enumerate(texts):
      read = one[::-1] if self.reverse_source else one
      ids = self._tokenizer.encode(read + _SEPARATOR + other)
      found["tokens"][row, : len(ids) + 2] = [self._tokenizer.bos, *ids, self._tokenizer.eos]
      found["context"][row] = len(read) + 1
      found["characters"][row] = found["bytes"][row] = len(other)
    return found

  def _strings(self, count: int) -> list[tuple[str, str]]:
    """Strings of equally likely symbols, each length as likely."""
    symbols = np.array(list(_SYMBOLS[: self.symbols]))

    def draw(generator: np.random.Generator) -> str:
      size = generator.integers(self.minimum, self.maximum + 1)
      return "".join(symbols[generator.integers(0, self.symbols, size)])

    answer = {"copy": str, "reverse": lambda s: s[::-1], "sort": lambda s: "".join(sorted(s))}
    possible = sum(self.symbols**size for size in range(self.minimum, self.maximum + 1))
    return [(s, answer[self.dataset](s)) for s in self._distinct(draw, count, possible)]

  def _sums(self, count: int) -> list[tuple[str, str]]:
    """Sums and differences; each number of digits is as likely, a number has no leading zero."""

    def draw(generator: np.random.Generator) -> str:
      digits = generator.integers(self.minimum, self.maximum + 1, 2)
      a, b = (generator.integers(10 ** (int(n) - 1) if n > 1 else 0, 10 ** int(n)) for n in digits)
      return f"{a}{'+-'[generator.integers(2)]}{b}"

    numbers = 10**self.maximum - (10 ** (self.minimum - 1) if self.minimum > 1 else 0)
    return [(s, _sum(s)) for s in self._distinct(draw, count, 2 * numbers**2)]

  def _dates(self, count: int) -> list[tuple[str, str]]:
    """Days without repetition, each in one format."""
    days = (_LAST - _FIRST).days + 1
    if count > days:
      raise ValueError(f"asked for {count} dates, but there are {days} days")
    generator = self._generator()
    order, kinds = generator.permutation(days), generator.integers(0, len(FORMATS), days)
    found = []
    for offset, kind in zip(order[:count].tolist(), kinds, strict=False):
      day = _FIRST + datetime.timedelta(offset)
      found.append((_date(day, FORMATS[kind]), day.isoformat()))
    return found

  def _distinct(self, draw, count: int, possible: int) -> list[str]:
    if count > possible // 2:  # beyond that, most draws would be repetitions
      raise ValueError(
        f"asked for {count} different strings, but there are {possible}, of which half are used"
      )
    generator, found = self._generator(), {}
    for _ in range(100 * count):
      found.setdefault(draw(generator))
      if len(found) == count:
        return list(found)
    raise ValueError(f"asked for {count} different strings, but only {len(found)} came in time")

  def _generator(self) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=self.seed))


@functools.cache
def _tokenizer(alphabet: str) -> Tokenizer:
  return tokenizers.train("characters", [alphabet])


def _sides(texts: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
  return [one for one, _ in texts], [other for _, other in texts]


def _sum(expression: str) -> str:
  sign = "+" if "+" in expression else "-"
  a, b = (int(number) for number in expression.split(sign))
  return str(a + b if sign == "+" else a - b)


def _date(day: datetime.date, form: str) -> str:
  month = _MONTHS[day.month - 1]
  return form.format(
    d=day.day, m=day.month, y=day.year, month=month, mon=month[:3], day=_DAYS[day.weekday()]
  )
