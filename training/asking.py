"""Questions to a trained encoder: what is hidden, how alike are texts, of which class are they.

Decoders write (training/prompting.py); encoders read. What a run is asked, its model says: a masked
language model fills masks, a classifier names classes, a sentence encoder compares; any encoder's
texts can be compared, by the mean of their tokens' features where it has no better vector.

A text is read as the data has it: between the first and the last token of a text, the second of a
pair behind it; of data that is one stream (data/text.py) as it stands.

Axes: B texts, T tokens, V vocabulary, D features.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.tokenizers import MASKS
from report import figures
from tasks.views import every_head
from training.errors import ConfigError
from training.prompting import Run, show

Question = Literal["fill-mask", "similarity", "classify"]
_BEST = 5  # tokens shown for a mask
_DRAWN = 48  # tokens of a figure of attention


class Read(NamedTuple):
  """Texts as the model sees them: tokens and types [B, T], -1 and 0 behind."""

  tokens: np.ndarray
  types: np.ndarray


def question(model: Any) -> Question | None:
  """What a model is asked; None where it writes, or is no encoder."""
  if hasattr(model, "advance") or not hasattr(model, "encode"):
    return None
  if hasattr(model, "told"):
    return "fill-mask"
  if hasattr(model, "vectors"):
    return "similarity"
  return "classify"


def answer(
  run: Run,
  asked: Question,
  prompts: Sequence[str],
  pairs: Sequence[str] = (),
  *,
  folder: pathlib.Path | None = None,
) -> list[str]:
  """Answers a question about texts; prints the answers and returns the lines.

  Args:
    run: whose model answers.
    asked: the question.
    prompts: the texts; of a comparison, the first is compared with the others.
    pairs: the second texts of pairs, as many as prompts or none.
    folder: where a figure of the first text's attention goes; None for none.

  Raises:
    ConfigError: the model does not answer that, or a text does not fit it.
  """
  if pairs and len(pairs) != len(prompts):
    raise ConfigError(
      f"{len(pairs)} --pair for {len(prompts)} --prompt", do="give each prompt its pair, or none"
    )
  if question(run.call.model) is None or "tokens" not in run.source.tokenizers():
    raise ConfigError("the run's model is no encoder of text", do="sample without --as")
  read = _read(run, prompts, pairs)
  lines = _ANSWERS[asked](run, read, prompts)
  for line in lines:
    show(f"{line}\n")
  if folder is not None and (file := _attention(run, read, folder)):
    print(f"attention: {file}", file=sys.stderr)
  return lines


def _read(run: Run, prompts: Sequence[str], pairs: Sequence[str]) -> Read:
  tokenizer = run.source.tokenizers()["tokens"]
  stream = hasattr(run.source, "packing") and run.source.packing == "stream"
  begin = [] if stream or tokenizer.bos is None else [tokenizer.bos]
  end = [] if stream or tokenizer.eos is None else [tokenizer.eos]
  separators = run.source.separators if hasattr(run.source, "separators") else 1
  rows = []
  for i, prompt in enumerate(prompts):
    first = [*begin, *_encoded(run, prompt), *end]
    second = [*end * (separators - 1), *_encoded(run, pairs[i]), *end] if pairs else []
    rows.append((first + second, [0] * len(first) + [1] * len(second)))
    if not rows[-1][0]:
      raise ConfigError("a prompt is empty", do="give some text")
  width, length = max(len(ids) for ids, _ in rows), run.call.model.length
  if width > length:
    raise ConfigError(
      f"a prompt takes {width} tokens, and the model tells {length} positions apart",
      kept="the run is as it was",
      do="give fewer words",
    )
  tokens, types = np.full((len(rows), width), -1, np.int32), np.zeros((len(rows), width), np.int32)
  for row, (ids, kinds) in enumerate(rows):
    tokens[row, : len(ids)], types[row, : len(ids)] = ids, kinds
  return Read(tokens, types if run.call.model.types == 2 else np.zeros_like(types))


def _encoded(run: Run, text: str) -> list[int]:
  """A text's tokens, with the mask token where it spells one, by whatever name."""
  tokenizer = run.source.tokenizers()["tokens"]
  for name in MASKS:
    text = text.replace(name, MASKS[0])
  first, *others = text.split(MASKS[0])
  if others and run.mask is None:
    raise ConfigError("nothing stands for a hidden token here", do="ask without [MASK]")
  ids = tokenizer.encode(first.rstrip() if others else first)
  for i, part in enumerate(others, 1):
    ids += [run.mask, *tokenizer.encode(part.rstrip() if i < len(others) else part)]
  return ids


def _filled(run: Run, read: Read, prompts: Sequence[str]) -> list[str]:
  if not hasattr(run.call.model, "told"):
    raise ConfigError("the model fills no masks", do="ask a masked language model")
  tokenizer = run.source.tokenizers()["tokens"]
  hidden = read.tokens == (-2 if run.mask is None else run.mask)
  if not hidden.any(1).all():
    raise ConfigError("a prompt hides nothing", do=f"put {MASKS[0]} for what is to be told")
  logits_BTV = run.call(read.tokens, None, read.types).logits[..., : tokenizer.size]
  lines = []
  for row, prompt in enumerate(prompts):
    lines.append(prompt)
    for place in np.flatnonzero(hidden[row]):
      p_V = np.asarray(jax.nn.softmax(logits_BTV[row, place]))
      for index in np.argsort(-p_V, kind="stable")[:_BEST]:
        lines.append(f"  {p_V[index]:.3f}  {tokenizer.token(int(index))}")
  return lines


def _similar(run: Run, read: Read, prompts: Sequence[str]) -> list[str]:
  if len(prompts) < 2:
    raise ConfigError("one text is compared with nothing", do="give --prompt twice or more")
  vectors_BD = run.call(read.tokens, read.types, method=_vectors)
  unit_BD = vectors_BD / np.maximum(np.linalg.norm(vectors_BD, axis=-1, keepdims=True), 1e-12)
  cosine_B = unit_BD[1:] @ unit_BD[0]
  order = np.argsort(-cosine_B, kind="stable")
  return [prompts[0], *(f"  {cosine_B[i]:+.3f}  {prompts[i + 1]}" for i in order)]


def _vectors(model, tokens_BT, types_BT):
  """[B, D] a text's own vector, or the mean of its tokens' features."""
  if hasattr(model, "vectors"):
    return model.vectors(tokens_BT, None, types_BT)
  h_BTD = model.encode(tokens_BT, None, types_BT).astype(jnp.float32)
  there_BT1 = (tokens_BT >= 0)[..., None]
  return jnp.where(there_BT1, h_BTD, 0.0).sum(1) / there_BT1.sum(1)


def _classified(run: Run, read: Read, prompts: Sequence[str]) -> list[str]:
  if question(run.call.model) != "classify":
    raise ConfigError("the model has no classes", do="ask a classifier")
  found = run.call(read.tokens, None, read.types)
  if not hasattr(found, "logits") or found.logits.ndim not in (2, 3):
    raise ConfigError("the model has no classes of texts or tokens", do="ask a classifier")
  names = run.source.class_names if hasattr(run.source, "class_names") else ()
  name = lambda c: names[c] if c < len(names) else f"class {c}"  # noqa: E731
  lines = []
  for row, prompt in enumerate(prompts):
    lines.append(prompt)
    logits = found.logits[row]
    if logits.ndim == 2:  # of every token
      tokenizer = run.source.tokenizers()["tokens"]
      for token, best in zip(read.tokens[row], logits.argmax(-1), strict=True):
        if token >= 0 and token not in tokenizer.special:
          lines.append(f"  {tokenizer.token(int(token))}  {name(int(best))}")
    elif len(logits) == 1:
      lines.append(f"  {logits[0]:.4g}")
    else:
      p_C = np.asarray(jax.nn.softmax(logits))
      lines += [f"  {p_C[c]:.3f}  {name(int(c))}" for c in np.argsort(-p_C, kind="stable")]
  return lines


_ANSWERS = {"fill-mask": _filled, "similarity": _similar, "classify": _classified}


def _attention(run: Run, read: Read, folder: pathlib.Path) -> pathlib.Path | None:
  """Draws how the tokens of the first text attend to one another."""
  count = min(int((read.tokens[0] >= 0).sum()), _DRAWN)
  one = [x[:1, :count] for x in read]
  maps = jax.tree.leaves(run.call(one[0], None, one[1], intermediates=True)[1])
  if not maps or count < 2:
    return None
  tokenizer = run.source.tokenizers()["tokens"]
  words = " ".join(tokenizer.token(int(token)) for token in one[0][0])
  folder.mkdir(exist_ok=True)
  file = folder / "attention.png"
  figures.save(figures.draw(every_head(maps[-1][:, 0], words)), file)
  return file
