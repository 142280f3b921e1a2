"""Language modelling: the probability of a text, token after token.

Axes: B examples, T positions.
"""

import dataclasses
import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from decoding.generate import generate
from decoding.sampling import Sampling
from evaluation import ngram
from tasks.objective import Batch, Call, Examples, Mean, Objective, Phase, applied, on
from tasks.tokens import Smoothing, advancing, measured, perplexity
from tasks.views import Alignments, Table, View, first_and_last

_PROMPTS, _PROMPT, _CONTINUED = 6, 32, 64  # continuations shown, tokens given and drawn
_SHOWN = 24  # tokens of an attention map


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the mean -log p(token | tokens before it) in nats a token.

  Where the data says how many characters and bytes the tokens stand for, evaluation also gives the
  bits of each, which do not depend on the tokenizer.

  Attributes:
    smoothing: of the labels; see `tasks.tokens.smoothed_nll`.
    smoothing_form: likewise.
    ngram_order: of a Witten-Bell n-gram of characters fitted to the same training text, to stand
      beside the model whatever its tokens are: `ngram_bits_per_character`. 0 fits none.
  """

  smoothing: Annotated[float, "[0, 1)", "traced"] = 0.0
  smoothing_form: Smoothing = "uniform"
  ngram_order: Annotated[int, "[0, 9]"] = 0

  def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
    if "segments" in batch:
      return batch["tokens"][:, :-1], batch["segments"][:, :-1]
    return (batch["tokens"][:, :-1],)

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      found = self._measured(out, batch)
      return found.pop("loss"), (state, found if on(self.smoothing) else _without(found, "nll"))

    return (Phase("language_model", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      found = self._measured(out, batch)
      for unit in ("characters", "bytes"):
        if unit in batch:
          nats = found["nll"].total / math.log(2)
          count = jnp.where(batch["mask"] > 0, batch[unit], 0).sum().astype(jnp.float32)
          found[f"bits_per_{unit[:-1]}"] = Mean(nats, count)
      return found

    return measure

  def _measured(self, out, batch: Batch) -> dict[str, Mean]:
    return measured(
      out.logits,
      batch["tokens"][:, 1:],
      scored(batch),
      smoothing=self.smoothing,
      form=self.smoothing_form,
    )

  def derive(self, means):
    return perplexity({"nll": means["nll" if "nll" in means else "loss"]})

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """[N, D] the mean of the last layer over each text."""
    tokens = examples.arrays["tokens"]

    def one(start):
      inputs = self.inputs({k: v[start : start + 64] for k, v in examples.arrays.items()})
      there = (inputs[0] >= 0)[..., None]
      hidden = np.where(there, call(*inputs).hidden, 0.0)
      return hidden.sum(1) / np.maximum(there.sum(1), 1)

    return np.concatenate([one(start) for start in range(0, len(tokens), 64)])

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    if not self.ngram_order:
      return {}
    if "tokens" not in test.tokenizers:
      raise ValueError("an n-gram of characters needs the text of the tokens")
    texts = [test.tokenizers["tokens"].decode(_stream(part)) for part in (train, test)]
    seen, ids = np.unique([ord(c) for text in texts for c in text], return_inverse=True)
    ids = np.split(ids, [len(texts[0])])
    bits = ngram.bits(*ids, order=self.ngram_order - 1, vocabulary=len(seen))
    return {"ngram_bits_per_character": bits / max(len(texts[1]), 1)}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    if "tokens" not in test.tokenizers or not len(test.arrays["tokens"]):
      return {}
    return {"continuations": _continuations(call, test), "attention": _attention(call, test)}


def scored(batch: Batch) -> jax.Array:
  """[B, T] which targets count: tokens of examples that are there, behind the given context."""
  targets_BT = batch["tokens"][:, 1:]
  counts = (targets_BT >= 0) & (batch["mask"][:, None] > 0)
  if "segments" in batch:  # the first token of a document does not follow from the one before
    counts &= batch["segments"][:, 1:] == batch["segments"][:, :-1]
  if "context" in batch:
    counts &= jnp.arange(targets_BT.shape[1]) >= batch["context"][:, None]
  if "scored" in batch:  # what the assistant says of a conversation, say
    counts &= batch["scored"] > 0
  return counts


def continued(
  model, prompt_BP: jax.Array, *, steps: int, sampling: Sampling, stop: tuple[int, ...] = ()
) -> jax.Array:
  """[B, steps] what a bound model writes after prompts that are padded on the left."""
  module, variables, advance = advancing(model)
  cache = module.apply(variables, len(prompt_BP), prompt_BP.shape[1] + steps, method="begin")
  key = model.make_rng("sample")
  return generate(advance, cache, prompt_BP, key, steps=steps, sampling=sampling, stop=stop).tokens


def _without(found, name: str):
  return {k: v for k, v in found.items() if k != name}


def _stream(part: Examples) -> np.ndarray:
  """The tokens of a split, each once."""
  targets = part.arrays["tokens"][:, 1:]
  kept = targets >= 0
  if "context" in part.arrays:
    kept &= np.arange(targets.shape[1]) >= part.arrays["context"][:, None]
  return targets[kept]


def _room(model, tokens: np.ndarray) -> int:
  """How many tokens a model has positions for; a recurrent one is asked for a row's."""
  return model.length if hasattr(model, "length") else tokens.shape[1] - 1


def _continuations(call: Call, test: Examples) -> Table:
  tokens, tokenizer = test.arrays["tokens"], test.tokenizers["tokens"]
  rows = np.linspace(0, len(tokens) - 1, min(_PROMPTS, len(tokens))).astype(int)
  room = _room(call.model, tokens)
  given = min(_PROMPT, room // 2, tokens.shape[1] - 1)
  if given < 1:
    return Table(("", ""), (), "The model reads too few tokens to continue a text.")
  prompt = tokens[rows, :given]
  drawn = call(
    prompt,
    method=continued,
    steps=min(_CONTINUED, room - given),
    sampling=Sampling(temperature=0.8, top_p=0.95),
  )
  texts = [(tokenizer.decode(a), tokenizer.decode(b)) for a, b in zip(prompt, drawn, strict=True)]
  caption = "Continuations of held-out text, temperature 0.8, nucleus 0.95."
  return Table(("given", "continued"), texts, caption)


def _attention(call: Call, test: Examples) -> Alignments:
  tokenizer = test.tokenizers["tokens"]
  tokens = test.arrays["tokens"]
  ids = tokens[:1, : min(_SHOWN, _room(call.model, tokens))]
  ids = ids[:, : int((ids >= 0).sum())]
  _, seen = call(ids, intermediates=True)
  maps = jax.tree.leaves(seen)
  if not maps or ids.shape[1] < 2:
    return Alignments({}, "This model has no attention to show.")
  names = [tokenizer.token(int(i)) for i in ids[0]]
  caption = "Where each token (row) looks, in the first and last layer, of a held-out text."
  return first_and_last(maps[-1][:, 0], names, caption)
