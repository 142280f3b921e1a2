"""From one sequence to another: translation, and every task that can be written so.

Training is by teacher forcing: the decoder reads the right tokens so far. Testing decodes.

Axes: B examples, S source and T target positions.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from decoding import beam
from decoding.generate import generate
from decoding.sampling import GREEDY
from evaluation import translation
from tasks.objective import Batch, Call, Examples, Mean, Objective, Phase, applied, in_batches, on
from tasks.tokens import Smoothing, advancing, measured, perplexity
from tasks.views import Alignment, Alignments, Lines, Table, View

_EXAMPLES, _MAPS, _BUCKETS = 8, 3, 8  # rows of the table, attention maps, lengths of the curve


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises -log p(target | source) in nats a token of the target.

  Attributes:
    smoothing: of the labels; see `tasks.tokens.smoothed_nll`.
    smoothing_form: likewise.
    beams: 1 decodes greedily.
    length_penalty: alpha of the beam search (Wu et al. 2016).
    decoded: test examples that are decoded, the first ones; 0 for all.
    decoded_steps: tokens at most of a decoded text; 0 for the data's target length.
  """

  smoothing: Annotated[float, "[0, 1)", "traced"] = 0.0
  smoothing_form: Smoothing = "uniform"
  beams: Annotated[int, "[1, inf)"] = 1
  length_penalty: Annotated[float, "[0, inf)"] = 0.6
  decoded: Annotated[int, "[0, inf)"] = 0
  decoded_steps: Annotated[int, "[0, inf)"] = 0

  def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
    return batch["source"], batch["target"][:, :-1]

  def conditions(self) -> Mapping[str, str]:
    how = "greedy" if self.beams == 1 else f"beam {self.beams}, penalty {self.length_penalty}"
    return {"decoding": how, **translation.signatures()}

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      found = self._measured(out, batch)
      if not on(self.smoothing):
        del found["nll"]  # it is the loss
      return found.pop("loss"), (state, found)

    return (Phase("sequence_to_sequence", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      return self._measured(out, batch)

    return measure

  def _measured(self, out, batch: Batch) -> dict[str, Mean]:
    targets_BT = batch["target"][:, 1:]
    scored_BT = (targets_BT >= 0) & (batch["mask"][:, None] > 0)
    return measured(
      out.logits, targets_BT, scored_BT, smoothing=self.smoothing, form=self.smoothing_form
    )

  def derive(self, means):
    return perplexity({"nll": means["nll" if "nll" in means else "loss"]})

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """Whole sequences right, of all and of the longer half; BLEU and chrF where there is text."""
    test = first(test, self.decoded)
    got = self._decoded(call, test)
    right = _right(got, test)
    length = (test.arrays["source"] >= 0).sum(1)
    long = length > np.median(length)
    found = {"exact_match": float(right.mean())}
    if long.any():
      found["exact_match_long"] = float(right[long].mean())
    if "target" in test.tokenizers:
      found |= translation.scores(*_texts(got, test))
    return found

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    test = first(test, self.decoded)
    got = self._decoded(call, test)
    found: dict[str, View] = {"by_length": _by_length(got, test)}
    if {"source", "target"} <= set(test.tokenizers):
      found["examples"] = _table(got, test)
      found["alignment"] = _alignments(call, first(test, _MAPS))
    return found

  def decode(
    self, call: Call, source: np.ndarray, bos: int, stop: tuple[int, ...], steps: int
  ) -> np.ndarray:
    """[N, steps] decoded targets, -1 behind their end."""
    options = dict(steps=steps, bos=bos, stop=stop, beams=self.beams)
    return in_batches(
      call, source, size=128, method=decoded, length_penalty=self.length_penalty, **options
    )

  def _decoded(self, call: Call, test: Examples) -> np.ndarray:
    target = test.arrays["target"]
    bos, eos = _ends(target)
    steps = self.decoded_steps or target.shape[1] - 1
    return self.decode(call, test.arrays["source"], bos, (eos,), steps)


def _right(got: np.ndarray, test: Examples) -> np.ndarray:
  """[N] whether the decoded target is the right one, its end included."""
  want = test.arrays["target"][:, 1:]
  width = max(want.shape[1], got.shape[1])
  fill = lambda x: np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=-1)  # noqa: E731
  return (fill(want) == fill(got)).all(1)


def _texts(got: np.ndarray, test: Examples) -> tuple[list[str], list[str]]:
  """(hypotheses, references)."""
  decode = test.tokenizers["target"].decode
  return [decode(row) for row in got], [decode(row) for row in test.arrays["target"]]


def _by_length(got: np.ndarray, test: Examples) -> Lines:
  right = _right(got, test).astype(float)
  length = (test.arrays["source"] >= 0).sum(1)
  edges = np.unique(np.quantile(length, np.linspace(0, 1, _BUCKETS + 1)).astype(int))
  bucket = np.clip(np.searchsorted(edges, length, side="right") - 1, 0, max(len(edges) - 2, 0))
  used = np.unique(bucket)
  return Lines(
    np.array([length[bucket == i].mean() for i in used]),
    {"whole sequence right": np.array([right[bucket == i].mean() for i in used])},
    ("tokens of the source", "share of test examples"),
    "How decoding fares with length, by buckets of equally many test examples.",
  )


def _table(got: np.ndarray, test: Examples) -> Table:
  source = [test.tokenizers["source"].decode(row) for row in test.arrays["source"][:_EXAMPLES]]
  rows = list(zip(source, *reversed(_texts(got[:_EXAMPLES], first(test, _EXAMPLES))), strict=True))
  caption = "The first test examples: what was given, what is right, what was decoded."
  return Table(("source", "reference", "decoded"), rows, caption)


def _alignments(call: Call, test: Examples) -> Alignments:
  items = {}
  for i in range(len(test.arrays["source"])):
    source, target = (_row(test.arrays[name][i]) for name in ("source", "target"))
    _, seen = call(source[None], target[None, :-1], intermediates=True)
    maps = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(seen)}
    # A Transformer attends to itself as well; a recurrent decoder to the source alone.
    crossing = {name: leaf for name, leaf in maps.items() if "cross" in name} or maps
    if crossing:
      (weights,) = crossing.values()  # [L, 1, H, T, S], or [1, T, S]
      weights = weights[-1, 0].mean(0) if weights.ndim == 5 else weights[0]
      names = [
        [test.tokenizers[name].token(int(t)) for t in row]
        for name, row in (("target", target[1:]), ("source", source))
      ]
      items[f"test example {i + 1}"] = Alignment(weights, *names)
  return Alignments(items, "Which source token (column) each target token (row) looks at.")


def first(examples: Examples, count: int) -> Examples:
  """The first examples; all of them where `count` is 0."""
  if not count:
    return examples
  return examples._replace(arrays={k: v[:count] for k, v in examples.arrays.items()})


def decoded(
  model,
  source_BS: jax.Array,
  *,
  steps: int,
  bos: int,
  stop: tuple[int, ...],
  beams: int,
  length_penalty: float,
) -> jax.Array:
  """[B, steps] targets that a bound model decodes, greedily or by beam search."""
  module, variables, advance = advancing(model)
  cache = module.apply(variables, source_BS, steps, method="begin")
  prompt_B1 = jnp.full((len(source_BS), 1), bos, jnp.int32)
  if beams == 1:
    key = jax.random.key(0)  # nothing is random in what is greedy
    return generate(advance, cache, prompt_B1, key, steps=steps, sampling=GREEDY, stop=stop).tokens
  return beam.search(
    advance, cache, prompt_B1, beams=beams, steps=steps, length_penalty=length_penalty, stop=stop
  ).tokens[:, 0]


def _ends(target_NT: np.ndarray) -> tuple[int, int]:
  """The tokens that begin and end every target."""
  last = (target_NT >= 0).sum(1) - 1
  return int(target_NT[0, 0]), int(target_NT[0, last[0]])


def _row(ids: np.ndarray) -> np.ndarray:
  return ids[ids >= 0]
