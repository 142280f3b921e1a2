"""How well stretches of text answer questions: SQuAD's exact match and F1.

Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1, as the official script computes them: in small
letters, without punctuation and articles, white space made single; the best over the answers that
count as right; F1 of the words that both have. Where there is no answer, the only right one is
empty (Rajpurkar et al. 2018, arXiv:1806.03822).

Axes: T tokens of a row.
"""

import collections
import re
import string
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)


def normalised(answer: str) -> str:
  """An answer as it is compared."""
  kept = "".join(sign for sign in answer.lower() if sign not in _PUNCTUATION)
  return " ".join(_ARTICLE.sub(" ", kept).split())


def exact_match(found: str, answers: Sequence[str]) -> float:
  """1 where it is one of the answers, or empty where there are none."""
  return max(float(normalised(found) == normalised(answer)) for answer in answers or ("",))


def f1(found: str, answers: Sequence[str]) -> float:
  """The best F1 of its words; where either is empty, whether both are."""
  return max(
    _f1(normalised(found).split(), normalised(answer).split()) for answer in answers or ("",)
  )


def _f1(found: list[str], answer: list[str]) -> float:
  if not found or not answer:
    return float(found == answer)
  same = (collections.Counter(found) & collections.Counter(answer)).total()
  return 2 * same / (len(found) + len(answer))


class Span(NamedTuple):
  """The best stretch of a row, or of all rows of a passage.

  Attributes:
    score: the logits of its start and its end together.
    start: its first character in the passage.
    stop: the one behind its last.
  """

  score: float
  start: int
  stop: int


def best_span(logits_T2: np.ndarray, offsets_T2: np.ndarray, most: int) -> Span | None:
  """The stretch of the passage whose start and end are likeliest, S . T_i + E . T_j, j >= i.

  Args:
    logits_T2: of each token's being the first and the last.
    offsets_T2: the characters that each token stands for, -1 where it is none of the passage's.
    most: tokens of an answer at most.
  """
  (place_P,) = np.nonzero(offsets_T2[:, 0] >= 0)
  if not len(place_P):
    return None
  start_P, end_P = logits_T2[place_P].T
  distance_PP = place_P[None, :] - place_P[:, None]
  allowed_PP = (distance_PP >= 0) & (distance_PP < most)
  score_PP = np.where(allowed_PP, start_P[:, None] + end_P[None, :], -np.inf)
  first, last = np.unravel_index(score_PP.argmax(), score_PP.shape)
  where = offsets_T2[place_P[first], 0], offsets_T2[place_P[last], 1]
  return Span(float(score_PP[first, last]), int(where[0]), int(where[1]))


def answers(
  logits_NT2: np.ndarray,
  offsets_NT2: np.ndarray,
  question_N: np.ndarray,
  passages: Sequence[str],
  *,
  most: int,
  nothing: float | None,
) -> list[str]:
  """What is answered to each question, of all its rows.

  Args:
    logits_NT2: as of `best_span`; the first token's are those of there being no answer.
    offsets_NT2: likewise.
    question_N: which question each row belongs to.
    passages: by question.
    most: see `best_span`.
    nothing: a question is left unanswered where the least score of no answer, over its rows, is
      greater than the best stretch's by more than this; with None every question is answered.
  """
  best: dict[int, Span] = {}
  none: dict[int, float] = {}
  for logits_T2, offsets_T2, question in zip(logits_NT2, offsets_NT2, question_N, strict=True):
    question = int(question)
    span = best_span(logits_T2, offsets_T2, most)
    if span is not None and (question not in best or span.score > best[question].score):
      best[question] = span
    none[question] = min(none.get(question, np.inf), float(logits_T2[0].sum()))
  found = []
  for question, passage in enumerate(passages):
    span = best.get(question)
    left = span is None or (nothing is not None and none[question] > span.score + nothing)
    found.append("" if left else passage[span.start : span.stop])
  return found
