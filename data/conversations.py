"""Conversations made of the King James Bible, and a reader who likes some replies better.

The user gives the first words of a verse and the assistant the rest of it, up to the last mark of
punctuation that there is room for; the next exchange is about the next verse. As tokens, every turn
is <bos>, its text, <eos>, so turns are told apart as in ChatGPT's dialogues by marks and not by
what they say. What the assistant says goes on where the user stopped, space and all.

The reader likes what sounds like the New Testament. How much is the log odds that a classifier
gives to a reply: naive Bayes over which tokens occur in it (Pang, Lee & Vaithyanathan 2002, "Thumbs
up?", with presence instead of counts), fitted to the replies trained on of either testament. Saying
a word twice is no better than once, and words of the Old Testament count against it. The unit is
the standard deviation over those replies. It is a program in the place of the labellers of Ouyang
et al. 2022, arXiv:2203.02155, so that what an assistant is trained for can be measured.

Axes: N conversations, P tokens of a prompt, R of a reply, T = P + R, V vocabulary.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data import bible, source, text, tokenizers
from data.tokenizers import Tokenizer

_SPLITS = ("train", "validation", "test")
_OLD = 929  # chapters of the Old Testament, which come first
_HELD_OUT = 0.05  # of the chapters, for validation and again for testing, as data/text.py has it
_PAUSES = ",;:.?!"


class Exchange(NamedTuple):
  """What the user says, and what the assistant answers."""

  user: str
  assistant: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`tokens` int32 [T + 1] of a conversation, -1 behind it; `scored` int32 [T], 1 where the target
  is the assistant's; `prompt` int32 [P], all before its last reply, with -1 in front; `text` int32
  [T + 1], a stretch of the book; and `taste` float32 [V], what the reader
  gives for each token that occurs in a reply.

  Conversations with a longer prompt are left out; chapters are held out as in data/text.py.

  Attributes:
    dataset: which book.
    tokenizer: as of data/text.py; trained on the same chapters, so it is the same one.
    vocabulary: likewise.
    exchanges: of a conversation.
    prompt_words: of a verse that the user gives.
    prompt_length: P.
    reply_length: R, with the <eos>.
    train_examples: keep only the first so many conversations, of all chapters, to train on; 0 for
      all.
    test_examples: likewise to test on, and to validate on.
  """

  dataset: Literal["kjv"] = "kjv"
  tokenizer: str = "unigram"
  vocabulary: Annotated[int, "[0, inf)"] = 512
  exchanges: Annotated[int, "[1, inf)"] = 1
  prompt_words: Annotated[int, "[1, inf)"] = 4
  prompt_length: Annotated[int, "[4, inf)"] = 16
  reply_length: Annotated[int, "[2, inf)"] = 24
  train_examples: Annotated[int, "[0, inf)"] = 0
  test_examples: Annotated[int, "[0, inf)"] = 500

  def __post_init__(self):
    self._text  # noqa: B018 - which refuses what it cannot be made of

  @property
  def length(self) -> int:
    """T."""
    return self.prompt_length + self.reply_length

  @property
  def _text(self) -> text.Source:
    return text.Source(
      dataset=self.dataset,
      tokenizer=self.tokenizer,
      vocabulary=self.vocabulary,
      length=self.length,
      validation=_HELD_OUT,
      test=_HELD_OUT,
    )

  def facts(self) -> Mapping[str, Any]:
    return {
      "vocabulary": self.vocabulary or self._tokenizer.size,
      "length": self.length,
      "reply_length": self.reply_length,
      "eos": tokenizers.SPECIAL.index("<eos>") if self.vocabulary else self._tokenizer.eos,
    }

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    sizes = {
      "tokens": self.length + 1,
      "scored": self.length,
      "prompt": self.prompt_length,
      "text": self.length + 1,
    }
    return {name: jax.ShapeDtypeStruct((size,), np.int32) for name, size in sizes.items()}

  def tokenizers(self) -> Mapping[str, Tokenizer]:
    return dict.fromkeys(("tokens", "prompt", "text"), self._tokenizer)

  def assets(self) -> Mapping[str, str]:
    """What a run keeps of the data by file name, so that its model can be used without it."""
    return self._text.assets()

  def restored(self, folder: pathlib.Path) -> "Source":
    """This source with the tokenizer that `assets` gave, instead of one to be trained."""
    return dataclasses.replace(self, tokenizer=self._text.restored(folder).tokenizer)

  @functools.cached_property
  def _tokenizer(self) -> Tokenizer:
    found = self._text.tokenizers()["tokens"]
    if found.bos is None or found.eos is None:
      raise ValueError(f"tokenizer={self.tokenizer!r} has no <bos> and <eos> to mark turns by")
    return found

  @functools.cached_property
  def _rows(self) -> dict[str, dict[str, np.ndarray]]:
    chapters = bible.chapters()
    parts = text.held_out(tuple(range(len(chapters))), _HELD_OUT, _HELD_OUT)
    most = {name: self.test_examples for name in _SPLITS} | {"train": self.train_examples}
    found = {}
    for name in _SPLITS:
      spoken, new = [], []
      for chapter in parts[name]:
        verses = chapters[chapter].verses
        own = dialogues(verses, exchanges=self.exchanges, words=self.prompt_words)
        spoken += own
        new += [chapter >= _OLD] * len(own)
      rows = self._tokenised(spoken, np.array(new))
      # Of every chapter some: rows that are spread evenly over the book.
      kept = np.linspace(0, len(new := rows["new"]) - 1, most[name] or len(new)).round().astype(int)
      rows = {key: array[np.unique(kept)] for key, array in rows.items()}
      rows["text"] = self._stretches(name, len(rows["new"]))
      found[name] = rows
    return found

  def _stretches(self, name: str, count: int) -> np.ndarray:
    """[count, T + 1] stretches of a part of the book, one after another, from its begin again."""
    stream = self._text.stream(name)
    places = np.arange(count)[:, None] * self.length + np.arange(self.length + 1)
    return stream[places % len(stream)]

  def _tokenised(self, spoken: Sequence[Sequence[Exchange]], new: np.ndarray):
    """Arrays of the conversations that fit."""
    said = [turn for dialogue in spoken for exchange in dialogue for turn in exchange]
    turns = iter(self._encoded_turns(said))
    P, R = self.prompt_length, self.reply_length
    rows: dict[str, list] = {name: [] for name in ("tokens", "scored", "prompt", "new")}
    for dialogue, is_new in zip(spoken, new, strict=True):
      own = [next(turns) for _ in range(2 * len(dialogue))]
      prompt = np.concatenate([*own[:-1], own[-1][:1]])
      reply = own[-1][1:]
      if len(prompt) > P or len(reply) < 2:
        continue
      row, scored = np.full(P + R + 1, -1, np.int32), np.zeros(P + R + 1, np.int32)
      row[: len(prompt) + len(reply)] = np.concatenate([prompt, reply])
      start = 0
      for i, turn in enumerate(own):
        scored[start + 1 : start + len(turn)] = i % 2
        start += len(turn)
      rows["tokens"].append(row)
      rows["scored"].append(scored[1:])
      rows["prompt"].append(np.pad(prompt, (P - len(prompt), 0), constant_values=-1))
      rows["new"].append(is_new)
    return {name: np.array(values, np.int32) for name, values in rows.items()}

  def _encoded_turns(self, said: Sequence[str]) -> list[np.ndarray]:
    """Every turn as <bos>, its tokens, <eos>; the assistant's, every other, cut to R tokens."""
    tokenizer = self._tokenizer
    pauses = [i for i in range(tokenizer.size) if tokenizer.decode([i]).endswith(tuple(_PAUSES))]
    found = []
    for i, encoded in enumerate(tokenizer.encode_all(said)):
      ids = encoded.ids
      if i % 2 and len(ids) > self.reply_length - 1:
        ids = ids[: self.reply_length - 1]
        ends = np.flatnonzero(np.isin(ids, pauses))
        ids = ids[: ends[-1] + 1] if len(ends) else ids[:0]
      found.append(np.array([tokenizer.bos, *ids, tokenizer.eos], np.int32))
    return found

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    return {
      name: source.Arrays({key: rows[key] for key in self.spec()})
      for name, rows in self._rows.items()
    }

  @functools.cached_property
  def taste(self) -> np.ndarray:
    """[V] what the reader gives for each token."""
    rows = self._rows["train"]
    size = self.facts()["vocabulary"]
    reply = np.where(rows["scored"], rows["tokens"][:, 1:], -1)
    occurs_NV = np.zeros((len(reply), size + 1), bool)
    occurs_NV[np.arange(len(reply))[:, None], reply] = True  # -1 is the last column
    occurs_NV = occurs_NV[:, :size]
    return preference(occurs_NV, rows["new"] > 0, unmoved=self._tokenizer.special)

  def split(self, name: str) -> source.Split:
    return self._splits[name]

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    del keys, train
    taste_V = jnp.asarray(self.taste)
    count = len(batch["tokens"])
    return {**batch, "taste": jnp.broadcast_to(taste_V, (count, len(taste_V)))}

  def conditions(self) -> Mapping[str, str]:
    found = dict(self._text.conditions())
    return {**found, "preference": "log odds of the New Testament by tokens that occur"}

  def fingerprint(self) -> str:
    digest = hashlib.sha256(self._tokenizer.fingerprint().encode() + self.taste.tobytes())
    for name in _SPLITS:
      for key, array in self.split(name).arrays.items():
        digest.update(f"{name} {key} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def dialogues(verses: Sequence[str], *, exchanges: int, words: int) -> list[tuple[Exchange, ...]]:
  """The conversations of a chapter: so many verses in a row, each cut after its first words."""
  halves = []
  for verse in verses:
    first = verse.split(" ")[:words]
    cut = len(" ".join(first))
    if cut < len(verse):
      halves.append(Exchange(verse[:cut], verse[cut:]))
  starts = range(0, len(halves) - exchanges + 1, exchanges)
  return [tuple(halves[start : start + exchanges]) for start in starts]


def preference(
  occurs_NV: np.ndarray, liked_N: np.ndarray, *, unmoved: frozenset[int] = frozenset()
) -> np.ndarray:
  """[V] log p(token occurs | liked) - log p(token occurs | not), over the score's deviation.

  Args:
    occurs_NV: which tokens occur in each reply.
    liked_N: which replies are liked.
    unmoved: tokens that count for nothing.
  """
  # One reply of each kind more that has the token and one that has not (Laplace).
  share = lambda rows: (rows.sum(0) + 1) / (len(rows) + 2)  # noqa: E731
  odds_V = np.log(share(occurs_NV[liked_N]) / share(occurs_NV[~liked_N]))
  odds_V[list(unmoved)] = 0.0
  scores_N = occurs_NV @ odds_V
  return (odds_V / max(scores_N.std(), 1e-6)).astype(np.float32)
