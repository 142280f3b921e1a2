"""Prompts for a trained run: text in, text out, printed as it comes.

Models of one sequence continue a prompt; models with an encoder read it as their source and write
the target. Which it is, the run's data says: its tokenizers are of `tokens`, or of `source` and
`target`. Several prompts are one batch; an example's noise depends on the seed, its place among the
prompts and the step, and on nothing else.

A prompt begins as a document does in the data: behind <eos> where documents are one stream, else
behind <bos>. One that the model has too few positions for is refused, or cut: of a text to be
continued the end is kept, of a source its beginning, as the data keeps it.

Axes: B prompts, P tokens of a prompt, N new tokens.
"""

import dataclasses
import functools
import pathlib
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from data.source import Source
from decoding import beam, speculative
from decoding.generate import Generated, generate
from decoding.sampling import PURE, Sampling
from models.layers import attention
from models.layers.transformer import unstacked
from tasks.tokens import advancing
from training.errors import ConfigError
from training.parallel import Caller

_CHUNK = 8  # tokens between two prints
_NARROWEST = 16  # prompts are padded to a power of two of tokens, so that few widths are compiled
_LAG = 2  # how many tokens may change how the ones before them read


class Run(NamedTuple):
  """A trained run.

  Attributes:
    call: its model, compiled.
    source: its data, which has the tokenizers.
    mask: the token that stands for what is hidden, or None.
  """

  call: Caller
  source: Source
  mask: int | None = None


class Draft(NamedTuple):
  """A run whose model proposes tokens to another's (`decoding.speculative`).

  Attributes:
    run: the proposing one.
    proposals: tokens proposed at a time.
  """

  run: Run
  proposals: int = 4


class Completion(NamedTuple):
  """What became of a prompt.

  Attributes:
    prompt: the text given.
    text: the text that follows it, or that it was turned into.
    tokens: of that text, a stop token last where it has one.
    log_probability: of those tokens under the model as it is, in nats.
    stopped: whether a stop token ended it, and not the number of steps.
  """

  prompt: str
  text: str
  tokens: tuple[int, ...]
  log_probability: float
  stopped: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How prompts are completed.

  Attributes:
    steps: new tokens at most.
    sampling: how they are drawn.
    beams: above 1, the best of a beam search instead.
    length_penalty: of that search.
    stop: texts of one token each that end a text, besides the end of a document.
    seed: of the noise.
    cut: whether a prompt that is too long is cut instead of refused.
    stream: whether a text is printed as it comes, where there is one prompt and no search.
  """

  steps: int = 64
  sampling: Sampling = PURE
  beams: int = 1
  length_penalty: float = 0.0
  stop: tuple[str, ...] = ()
  seed: int = 0
  cut: bool = False
  stream: bool = True

  def __post_init__(self):
    for name in ("steps", "beams"):
      if getattr(self, name) < 1:
        raise ConfigError(f"--{name}={getattr(self, name)} is not at least 1", do="ask for more")
    if self.length_penalty < 0:
      raise ConfigError(f"--length-penalty={self.length_penalty} is negative", do="give 0 or more")


def complete(
  run: Run, prompts: Sequence[str], options: Options, *, draft: Draft | None = None
) -> list[Completion]:
  """Completes prompts and prints what comes.

  Args:
    run: whose model writes.
    prompts: at least one.
    options: how.
    draft: whose model proposes tokens, so that the text comes faster; it has the same distribution.

  Raises:
    ConfigError: the model writes no text, a prompt does not fit it, or the draft does not.
  """
  reading = _Reading(run)
  ids = [reading.encoded(prompt, options) for prompt in prompts]
  stop = reading.stops(options.stop)
  if draft is not None:
    _check_draft(reading, _Reading(draft.run), ids, options)
    texts = _with_draft(reading, ids, options, stop, draft)
  elif options.beams > 1:
    texts = _searched(reading, ids, options, stop)
  else:
    texts = _generated(reading, ids, options, stop)
  return [
    Completion(prompt, reading.text(one, row), tuple(row), log_p, stopped)
    for prompt, one, (row, log_p, stopped) in zip(prompts, ids, texts, strict=True)
  ]


def save(folder: pathlib.Path, completions: Sequence[Completion], options: Options) -> pathlib.Path:
  """Writes prompts and texts to prompted_seed_N.txt in the folder; returns the file."""
  folder.mkdir(exist_ok=True)
  file = folder / f"prompted_seed_{options.seed}.txt"
  parts = [f"{options}\n"]
  for i, found in enumerate(completions, 1):
    parts.append(f"--- prompt {i}\n{found.prompt}\n--- {_about(found)}\n{found.text}\n")
  file.write_text("".join(parts), encoding="utf-8", newline="")
  return file


def _about(found: Completion) -> str:
  ended = "ended" if found.stopped else "not ended"
  mean = found.log_probability / max(len(found.tokens), 1)
  return f"{len(found.tokens)} tokens, {ended}, log p {mean:.3f} a token"


# ---------------------------------------------------------------------------------- text to tokens


class _Reading:
  """How a run reads prompts and is read."""

  def __init__(self, run: Run):
    self.call, self.source = run.call, run.source
    found = run.source.tokenizers()
    self.encodes = "source" in found
    if not found or not hasattr(run.call.model, "advance"):
      what = "its data has no tokenizer" if not found else "its model generates nothing"
      raise ConfigError(
        f"the run takes no prompts: {what}",
        kept="the run is as it was",
        do="sample without --prompt, or from a run of text",
      )
    self.reads, self.writes = (
      (found["source"], found["target"]) if self.encodes else (found["tokens"],) * 2
    )

  @functools.cached_property
  def variables(self) -> Any:
    """The model's, its layers taken apart once and not in every call."""
    return self.call.on_device(method=_apart)

  def limit(self, name: str) -> int | None:
    """How many positions the model tells apart; None where it does not count them."""
    return getattr(self.call.model, name, None)

  @property
  def bos(self) -> int | None:
    """What a target begins with; None where there is no target of its own."""
    return self.writes.bos if self.encodes else None

  def encoded(self, prompt: str, options: Options) -> list[int]:
    ids = self.reads.encode(prompt)
    if self.reads.unknown is not None and self.reads.unknown in ids:
      count = ids.count(self.reads.unknown)
      print(f"note: {count} of {len(ids)} tokens of a prompt are unknown", file=sys.stderr)
    return self._as_source(ids, options) if self.encodes else self._as_begin(ids, options)

  def _as_source(self, ids: list[int], options: Options) -> list[int]:
    _refuse(options.steps, self.limit("target_length"), "--steps", cut=False)
    limit = self.limit("source_length")
    _refuse(len(ids) + 1, limit, "a prompt", cut=options.cut)
    ids = ids if limit is None else ids[: limit - 1]
    if getattr(self.source, "reverse_source", False):
      ids = ids[::-1]
    return ids if self.reads.eos is None else [*ids, self.reads.eos]

  def _as_begin(self, ids: list[int], options: Options) -> list[int]:
    stream = getattr(self.source, "packing", "") == "stream"
    begin = self.reads.eos if stream else self.reads.bos
    ids = ids if begin is None else [begin, *ids]
    if not ids:
      raise ConfigError(
        "a prompt is empty, and nothing marks the beginning of a text", do="give one"
      )
    limit = self.limit("length")
    if limit is None:
      return ids
    # The last new token is not read again.
    _refuse(options.steps, limit, "--steps", cut=False)
    _refuse(len(ids) + options.steps - 1, limit, "a prompt with --steps", cut=options.cut)
    return ids[-(limit - options.steps + 1) :]

  def stops(self, texts: Iterable[str]) -> tuple[int, ...]:
    """The tokens that end a text."""
    found = [] if self.writes.eos is None else [self.writes.eos]
    for text in texts:
      ids = self.writes.encode(text)
      if len(ids) != 1 or ids[0] == self.writes.unknown:
        what = "unknown" if ids == [self.writes.unknown] else f"{len(ids)} tokens"
        raise ConfigError(
          f"--stop={text!r} is {what}, not one token", do="stop at what is one token"
        )
      found += ids
    return tuple(dict.fromkeys(found))

  def batch(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
    """[B, P] padded on the side where the model does not go on."""
    width, limit = max(map(len, ids)), self.limit("source_length") if self.encodes else None
    wide = max(1 << (width - 1).bit_length(), _NARROWEST)
    wide = wide if limit is None else max(min(wide, limit), width)
    found = np.full((len(ids), wide), -1, np.int32)
    for row, one in zip(found, ids, strict=True):
      row[slice(len(one)) if self.encodes else slice(wide - len(one), None)] = one
    return found

  def text(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text of new tokens, as it reads behind the prompt where it continues one."""
    before = [] if self.encodes else list(prompt)
    return "".join([*Text(self.writes.decode, before).parts([ids])])


def _refuse(count: int, limit: int | None, what: str, *, cut: bool):
  if limit is not None and count > limit and not cut:
    raise ConfigError(
      f"{what} takes {count} tokens, and the model tells {limit} positions apart",
      kept="the run is as it was",
      do="give fewer" if what == "--steps" else "give fewer, or let --cut shorten the prompt",
    )


class Text:
  """Text that grows with its tokens, given out as far as later tokens cannot change it.

  A character may be the bytes of several tokens, and some tokenizers join a token to the one before
  it: so the last tokens are held back, and what does not decode yet.

  Args:
    decode: ids to text.
    before: the tokens that the new ones follow; not given out.
  """

  def __init__(self, decode, before: Sequence[int] = ()):
    self._decode, self._ids = decode, list(before)
    self._shown = decode(self._ids)

  def parts(self, chunks: Iterable[Sequence[int]]) -> Iterator[str]:
    """Yields the text of each chunk of tokens as far as it is sure, and at the end the rest."""
    for chunk in chunks:
      self._ids += [int(token) for token in chunk]
      sure = _common(self._decode(self._ids[:-_LAG]), self._decode(self._ids))
      yield self._new(sure.rstrip("\ufffd"))
    yield self._new(self._decode(self._ids))

  def _new(self, text: str) -> str:
    if self._shown.startswith(text):
      return ""
    new = text[len(_common(text, self._shown)) :]
    self._shown = text
    return new


def _common(one: str, other: str) -> str:
  same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
  return one[: min(len(one), len(other)) if same is None else same]


# ---------------------------------------------------------------------------------- tokens to text

_Found = list[tuple[list[int], float, bool]]  # of each prompt: tokens, log probability, stopped


def _generated(reading: _Reading, ids, options: Options, stop: tuple[int, ...]) -> _Found:
  streamed = options.stream and len(ids) == 1
  chunk = min(_CHUNK, options.steps) if streamed else options.steps
  given = reading.batch(ids)
  settings = dict(steps=chunk, sampling=options.sampling, stop=stop)
  chunks: list[tuple[np.ndarray, np.ndarray]] = []  # tokens and their log probabilities

  def generating() -> Iterator[np.ndarray]:
    rounds = -(-options.steps // chunk)
    room = (1 if reading.encodes else given.shape[1]) + rounds * chunk
    run = functools.partial(
      reading.call.on_device, reading.variables, seed=options.seed, **settings
    )
    state = run(given, method=_begun, bos=reading.bos, capacity=room)
    for number in range(rounds):
      if number:
        state = run(state, method=_continued)
      left = options.steps - number * chunk
      chunks.append(tuple(np.asarray(x)[:, :left] for x in (state.tokens, state.log_probabilities)))
      yield chunks[-1][0]
      if np.asarray(state.stopped).all():
        return

  if streamed:
    before = [] if reading.encodes else ids[0]
    rows = (row[row >= 0] for (row,) in generating())
    for part in Text(reading.writes.decode, before).parts(rows):
      show(part)
    show("\n")
  else:
    for _ in generating():
      pass
  tokens, log_ps = (np.concatenate(parts, 1) for parts in zip(*chunks, strict=True))
  stopped = [bool(row[row >= 0][-1] in stop) for row in tokens]
  found = [
    ([int(t) for t in row if t >= 0], float(log_p.sum()), end)
    for row, log_p, end in zip(tokens, log_ps, stopped, strict=True)
  ]
  if not streamed:
    _show_all(reading, ids, found)
  return found


def _searched(reading: _Reading, ids, options: Options, stop: tuple[int, ...]) -> _Found:
  given = reading.batch(ids)
  best = reading.call(
    reading.variables,
    given,
    method=_beams,
    bos=reading.bos,
    beams=options.beams,
    steps=options.steps,
    length_penalty=options.length_penalty,
    stop=stop,
  )
  found = [
    ([int(t) for t in row[0] if t >= 0], float(log_p[0]), bool(finished[0]))
    for row, log_p, finished in zip(best.tokens, best.log_probabilities, best.finished, strict=True)
  ]
  _show_all(reading, ids, found)
  return found


def _with_draft(
  reading: _Reading, ids, options: Options, stop: tuple[int, ...], draft: Draft
) -> _Found:
  given = reading.batch(ids)
  drafted = reading.call(
    reading.variables,
    _Reading(draft.run).variables,
    given,
    method=_speculated,
    seed=options.seed,
    draft=draft.run.call.model,
    bos=reading.bos,
    steps=options.steps,
    proposals=draft.proposals,
    sampling=options.sampling,
    stop=stop,
  )
  found = [
    ([int(t) for t in row if t >= 0], float(log_p.sum()), bool(stopped))
    for row, log_p, stopped in zip(
      drafted.tokens, drafted.log_probabilities, drafted.stopped, strict=True
    )
  ]
  _show_all(reading, ids, found)
  examined, rounds = int(drafted.examined.sum()), int(drafted.rounds.sum())
  if rounds:
    tokens = sum(len(row) for row, _, _ in found) - len(found)  # the first comes with the prompt
    show(
      f"draft: {drafted.accepted.sum() / examined:.1%} of {examined} proposals accepted,"
      f" {tokens / rounds:.2f} tokens a pass of the model\n"
    )
  return found


def _check_draft(reading: _Reading, other: _Reading, ids, options: Options):
  """Refuses a draft of other tokens, or whose positions do not suffice."""
  same = reading.encodes == other.encodes and all(
    a.fingerprint() == b.fingerprint()
    for a, b in ((reading.reads, other.reads), (reading.writes, other.writes))
  )
  if not same:
    raise ConfigError(
      "the draft's tokenizer is not that of the run",
      kept="both runs are as they were",
      do="draft with a run of the same data and tokenizer",
    )
  if options.beams > 1:
    raise ConfigError("a draft proposes what is sampled, no beams", do="leave out one of the two")
  longest = max(map(len, ids))
  new = longest + options.steps - 1
  names = {"source_length": longest, "target_length": options.steps} if reading.encodes else {}
  for name, count in (names or {"length": new}).items():
    _refuse(count, other.limit(name), "the draft", cut=False)


# ---------------------------------------------------------------- functions of a bound model


def _apart(model) -> Any:
  return unstacked(model.variables)


def _advancing(model, variables):
  return advancing(model.unbind()[0].bind(variables))


def _prompted(module, variables, given, *, bos: int | None, capacity: int):
  """(prompt [B, P], a cache with room for so many tokens)."""
  if bos is None:
    return given, module.apply(variables, len(given), capacity, method="begin")
  cache = module.apply(variables, given, capacity, method="begin")
  return jnp.full((len(given), 1), bos, jnp.int32), cache


def _begun(model, variables, given, *, bos, capacity: int, **options) -> Generated:
  key = model.make_rng("sample")
  module, variables, advance = _advancing(model, variables)
  prompt, cache = _prompted(module, variables, given, bos=bos, capacity=capacity)
  return generate(advance, cache, prompt, key, **options)


def _continued(model, variables, before: Generated, **options) -> Generated:
  key = model.make_rng("sample")
  _, _, advance = _advancing(model, variables)
  return generate(advance, before.cache, before.tokens[:, -1:], key, after=before, **options)


def _beams(model, variables, given, *, bos, steps: int, **options) -> beam.Hypotheses:
  module, variables, advance = _advancing(model, variables)
  room = (1 if bos is not None else given.shape[1]) + steps
  prompt, cache = _prompted(module, variables, given, bos=bos, capacity=room)
  return beam.search(advance, cache, prompt, steps=steps, **options)


def _speculated(
  model, variables, draft_variables, given, *, draft, bos, steps: int, proposals: int, **options
) -> speculative.Speculated:
  key = model.make_rng("sample")
  pairs = [_advancing(model, variables), advancing(draft.bind(draft_variables))]
  width = 1 if bos is not None else given.shape[1]
  room = speculative.capacity(width, steps, proposals)
  begun = [_prompted(*pair[:2], given, bos=bos, capacity=room) for pair in pairs]
  caches = tuple(cache for _, cache in begun)
  return speculative.generate(
    pairs[0][2],
    pairs[1][2],
    caches,
    begun[0][0],
    key,
    steps=steps,
    proposals=proposals,
    forget=tuple(_forget(cache) for cache in caches),
    **options,
  )


def _forget(cache) -> speculative.Forget | None:
  """How a cache takes back tokens; None where it cannot: a recurrent network's, say."""
  if isinstance(cache, attention.Cache):
    return attention.forget
  if isinstance(getattr(cache, "target", None), attention.Cache):  # beside an encoder's memory
    return lambda c, keep_BN: c._replace(target=attention.forget(c.target, keep_BN))
  return None


# ----------------------------------------------------------------------------------- the terminal


def _show_all(reading: _Reading, ids, found: _Found):
  for number, (prompt, (row, _, _)) in enumerate(zip(ids, found, strict=True), 1):
    if len(ids) > 1:
      show(f"--- {number}\n")
    show(reading.text(prompt, row) + "\n")


def show(text: str):
  """Prints text at once; what would steer a terminal is printed as a picture of it."""
  text = "".join(_picture(c) for c in text)
  encoding = sys.stdout.encoding or "utf-8"
  sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
  sys.stdout.flush()


def _picture(character: str) -> str:
  code = ord(character)
  if character in "\n\t" or 0x20 <= code < 0x7F:
    return character
  if code < 0xA0:
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"
  # What is invisible may turn around the text about it, but for what joins emoji and letters.
  invisible = unicodedata.category(character) in ("Cf", "Zl", "Zp")
  return f"<U+{code:04X}>" if invisible and character not in "\u200c\u200d" else character
