"""Span corruption: spans of a text are left out of it, and told in their order.

Raffel et al. 2020, arXiv:1910.10683, section 3.1.4. Of "Thank you for inviting me to your party
last week ." the source is "Thank you <X> me to your party <Y> week ." and the target "<X> for
inviting <Y> last <Z>": a span is replaced by a sentinel, which stands before it in the target, and
one more ends the target. How many tokens are left out, and of how many spans, follows from the
length of the text; how they are cut is random, as in the released code
(`random_spans_noise_mask`): text and spans take turns, text first, and every way of cutting either
is as likely. So a text ends with a span.

Sentinels are ids, the first the highest. Source and target end with `end`, as those of the released
code do, whose targets lack the sentinel behind the last span. Spans are drawn anew every time that
a text is seen; evaluation draws them from a fixed key. All documents in a row are one text.

Axes: B examples, N tokens of a text, S of a source, T of a target, K spans.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.layers import batch_axis
from tasks.objective import Batch, Call, Examples, Objective, Phase, applied
from tasks.sequence_to_sequence import decoded
from tasks.tokens import measured, perplexity
from tasks.views import Table, View

_SHOWN = 6  # texts
_FIXED = 0  # the key of what is corrupted for a look


class Corrupted(NamedTuple):
  """A text without its spans, and the spans.

  Attributes:
    source: [B, S], -1 behind its end.
    target: [B, T + 1], likewise; the decoder reads all but its last, and tells all but its first.
  """

  source: jax.Array
  target: jax.Array


class Amounts(NamedTuple):
  """How much of a text of some length is left out."""

  tokens: jax.Array
  spans: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises -log p(target | source) in nats a token of the target, sentinels and end included.

  Attributes:
    density: the share of the tokens that is left out.
    mean_span: tokens of a span on average.
    sentinel_tokens: how many there are; a text may have one span less.
    first_sentinel: its id, from which the others count down; 0 is the model's last id. Of T5's
      32,128 ids it is 32,099.
    start: what begins a target for the decoder: T5's padding, or <bos> of tokenizers trained here.
    end: ends source and target: </s> of T5, <eos> of tokenizers trained here.
  """

  density: Annotated[float, "(0, 1)"] = 0.15
  mean_span: Annotated[float, "[1, inf)"] = 3.0
  sentinel_tokens: Annotated[int, "[2, inf)"] = 100
  first_sentinel: Annotated[int, "[0, inf)"] = 0
  start: Annotated[int, "[0, inf)"] = 0
  end: Annotated[int, "[0, inf)"] = 1

  def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
    """A source and what is read of its target, for their shapes: ids of sentinels are a model's."""
    found = self.corrupted(batch["tokens"][:, 1:], jax.random.key(_FIXED), self.sentinel_tokens)
    return found.source, found.target[:, :-1]

  def conditions(self) -> Mapping[str, str]:
    return {"spans": f"{self.density:.0%} of the tokens, {self.mean_span:g} a span on average"}

  def amounts(self, length) -> Amounts:
    """What is left out of a text of `length` tokens; nothing where that is less than two."""
    length = jnp.asarray(length, jnp.int32)
    rounded = lambda x: jnp.round(x).astype(jnp.int32)  # noqa: E731  half to even
    tokens = rounded(length.astype(jnp.float32) * self.density)
    tokens = jnp.minimum(jnp.maximum(tokens, 1), jnp.maximum(length - 1, 0))
    spans = jnp.maximum(rounded(tokens.astype(jnp.float32) / self.mean_span), 1)
    return Amounts(tokens, jnp.minimum(jnp.minimum(spans, length - tokens), tokens))

  def spans(self, length: jax.Array, key: jax.Array, room: int) -> jax.Array:
    """[room] which of the first `length` tokens are left out."""
    gone_key, kept_key = jax.random.split(key)
    tokens, spans = self.amounts(length)
    gone_K = _cut(tokens, spans, gone_key, room)
    kept_K = _cut(length - tokens, spans, kept_key, room)
    ends = jnp.cumsum(jnp.stack([kept_K, gone_K], axis=1).reshape(-1))
    place_N = jnp.arange(room, dtype=jnp.int32)
    piece_N = jnp.searchsorted(ends, place_N, side="right")
    return (piece_N % 2 == 1) & (place_N < length)

  def corrupted(self, tokens_BN: jax.Array, key: jax.Array, vocabulary: int) -> Corrupted:
    """Leaves spans out of texts [B, N], each example by its own noise.

    Args:
      tokens_BN: -1 behind a text.
      key: of all examples.
      vocabulary: ids of the model.

    Raises:
      ValueError: a text of N tokens has more spans than there are sentinels.
    """
    room = tokens_BN.shape[1]
    with jax.ensure_compile_time_eval():
      tokens, spans = (int(x) for x in self.amounts(room))
    if spans >= self.sentinel_tokens:
      raise ValueError(
        f"a text of {room} tokens loses {spans} spans, one less than there must be sentinels:"
        f" task.sentinel_tokens={self.sentinel_tokens}"
      )
    widths = room - tokens + spans + 1, tokens + spans + 3

    def one(key, tokens_N):
      gone_N = self.spans((tokens_N >= 0).sum(dtype=jnp.int32), key, room)
      return self.apart(tokens_N, gone_N, widths, vocabulary)

    return Corrupted(*jax.vmap(one)(batch_axis.keys(key, len(tokens_BN)), jnp.asarray(tokens_BN)))

  def apart(
    self, tokens_N: jax.Array, gone_N: jax.Array, widths: tuple[int, int], vocabulary: int
  ) -> tuple[jax.Array, jax.Array]:
    """A text's source and target, of these widths, when the tokens that are `gone` are left out."""
    there_N = tokens_N >= 0
    gone_N &= there_N
    begins_N = gone_N & ~jnp.pad(gone_N[:-1], (1, 0))
    count = lambda x_N: jnp.cumsum(x_N, dtype=jnp.int32)  # noqa: E731
    sentinel_N = self._first(vocabulary) - count(begins_N) + 1
    kept_N = there_N & (~gone_N | begins_N)
    source = jnp.full(widths[0], -1, jnp.int32)
    source = _put(source, count(kept_N) - 1, jnp.where(begins_N, sentinel_N, tokens_N), kept_N)
    source = source.at[kept_N.sum()].set(self.end, mode="drop")
    target = jnp.full(widths[1], -1, jnp.int32).at[0].set(self.start)
    place_N = count(gone_N) + count(begins_N)  # behind `start` and the span's sentinel
    target = _put(target, place_N - 1, sentinel_N, begins_N)
    target = _put(target, place_N, tokens_N, gone_N)
    last = jnp.stack([self._first(vocabulary) - begins_N.sum(dtype=jnp.int32), jnp.int32(self.end)])
    behind = gone_N.sum() + begins_N.sum() + 1 + jnp.arange(2)
    return source, target.at[behind].set(last, mode="drop")

  def _first(self, vocabulary: int) -> int:
    return self.first_sentinel or vocabulary - 1

  def phases(self, model):
    first = self._first(model.ids)
    if not self.sentinel_tokens <= first + 1 <= model.ids:
      raise ValueError(
        f"{self.sentinel_tokens} sentinels from id {first} downwards are not all among the model's"
        f" {model.ids} ids"
      )

    def loss(params, state, batch, rng):
      found, state = self._measured(model, params, state, batch, rng, train=True)
      return found.pop("loss"), (state, {"accuracy": found["accuracy"]})

    return (Phase("span_corruption", loss),)

  def measure(self, model):
    return lambda params, state, batch, rng: self._measured(
      model, params, state, batch, rng, train=False
    )[0]

  def _measured(self, model, params, state, batch: Batch, rng: jax.Array, *, train: bool):
    noise, rng = jax.random.split(rng)
    source_BS, target_BT = self.corrupted(batch["tokens"][:, 1:], noise, model.ids)
    inputs = source_BS, target_BT[:, :-1]
    out, state = applied(model, params, state, inputs, rng, train=train)
    told_BT = target_BT[:, 1:]
    scored_BT = (told_BT >= 0) & (batch["mask"][:, None] > 0)
    return measured(out.logits, told_BT, scored_BT), state

  def derive(self, means):
    return perplexity({"nll": means["nll" if "nll" in means else "loss"]})

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    if "tokens" not in test.tokenizers:
      return {}
    decode = test.tokenizers["tokens"].decode
    tokens_BN = test.arrays["tokens"][:_SHOWN, 1:]
    found = self.corrupted(tokens_BN, jax.random.key(_FIXED), call.model.ids)
    source_BS, target_BT = (np.asarray(side) for side in found)
    told_BT = call(
      source_BS,
      method=decoded,
      steps=target_BT.shape[1] - 1,
      bos=self.start,
      stop=(self.end,),
      beams=1,
      length_penalty=0.0,
    )
    first = self._first(call.model.ids)
    names = {first - i: f"<{i}>" for i in range(self.sentinel_tokens)}
    rows = [
      (decode(text), *(spelled(side, names, decode) for side in (source, target, told)))
      for text, source, target, told in zip(tokens_BN, source_BS, target_BT, told_BT, strict=True)
    ]
    caption = "Held-out text, what is left of it, what was left out, and what the model tells."
    return {"spans": Table(("text", "source", "target", "told"), rows, caption)}


def _cut(length: jax.Array, pieces: jax.Array, key: jax.Array, room: int) -> jax.Array:
  """[room] lengths of that many pieces of something of `length`, 0 behind them.

  Every way of cutting it into pieces that are not empty is as likely.
  """
  # The next piece begins at pieces - 1 of the places 1, ..., length - 1, whichever.
  place = jnp.arange(room, dtype=jnp.int32)
  inside = (place >= 1) & (place < length)
  lot = jnp.where(inside, jax.random.uniform(key, (room,)), 2.0)
  begins = inside & (jnp.argsort(jnp.argsort(lot)) < pieces - 1)
  piece = jnp.cumsum(begins, dtype=jnp.int32)
  return jax.ops.segment_sum((place < length).astype(jnp.int32), piece, num_segments=room)


def _put(row: jax.Array, places: jax.Array, values: jax.Array, chosen: jax.Array) -> jax.Array:
  """`row` with the chosen values at their places."""
  return row.at[jnp.where(chosen, places, len(row))].set(values, mode="drop")


def spelled(ids: np.ndarray, names: Mapping[int, str], decode) -> str:
  """Text of ids some of which have names."""
  found, run = [], []
  for token in [int(i) for i in ids if i >= 0]:
    if token in names:
      found += [decode(run), names[token]]
      run = []
    else:
      run.append(token)
  return " ".join(part for part in [*found, decode(run)] if part)
