"""Masked language modelling: tokens are hidden, and told from those on both sides.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv:1810.04805, section 3.1; algorithm 12 of Phuong & Hutter 2022,
arXiv:2207.09238, where all that is chosen is hidden.

Masks are drawn anew every time that a text is seen, as in RoBERTa (arXiv:1907.11692); evaluation
draws them from a fixed key.

Axes: B examples, T positions.
"""

import dataclasses
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models.layers import batch_axis
from tasks import attention_maps
from tasks.objective import Batch, Call, Examples, Objective, Phase, applied
from tasks.tokens import measured, perplexity
from tasks.views import Table, View

_SHOWN, _TOKENS = 6, 32  # texts shown, tokens of each


class Hidden(NamedTuple):
  """Texts as the model sees them.

  Attributes:
    tokens: [B, T], some replaced.
    chosen: [B, T] which are to be told.
  """

  tokens: jax.Array
  chosen: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the mean -log p(token | the text with some of it hidden) over the tokens chosen.

  Attributes:
    rate: the share of tokens chosen.
    ngrams: how many neighbours are chosen together at most: n of them 1 / n times as often as one
      alone (Lan et al. 2020, arXiv:1909.11942, section 4.1, with 3); 1 is each by itself. Runs that
      meet are one, so a little less than `rate` is chosen.
    masked: of those, the share that the mask token replaces.
    swapped: the share that a random token replaces; the rest stays as it is.
    mask_token: stands for what is hidden. 2 is <unk> of the tokenizers that are trained here with
      one, "wordpiece" say; "bytes" and "bpe" have none.
  """

  rate: Annotated[float, "(0, 1]"] = 0.15
  ngrams: Annotated[int, "[1, inf)"] = 1
  masked: Annotated[float, "[0, 1]"] = 0.8
  swapped: Annotated[float, "[0, 1]"] = 0.1
  mask_token: Annotated[int, "[0, inf)"] = 2

  logged = ("accuracy",)  # beside the loss, while training

  def __post_init__(self):
    if self.masked + self.swapped > 1:
      raise ValueError(f"masked={self.masked} and swapped={self.swapped} are more than all")

  def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
    return (batch["tokens"][:, 1:],)  # as many as a model of the data has positions for

  def text(self, batch: Batch) -> jax.Array | None:
    """[B, T] whether each token is text, and not one that marks a place; None where all are."""
    del batch

  def hide(
    self,
    tokens_BT: jax.Array,
    key: jax.Array,
    vocabulary: int,
    text_BT: jax.Array | None = None,
  ) -> Hidden:
    """Chooses tokens of `text_BT`, each example by its own noise, and replaces them."""
    text_BT = tokens_BT >= 0 if text_BT is None else text_BT & (tokens_BT >= 0)

    def one(key, tokens_T, text_T):
      choice, fate, token = jax.random.split(key, 3)
      chosen_T = self._chosen(choice, tokens_T.shape) & text_T
      fate_T = jax.random.uniform(fate, tokens_T.shape)
      random_T = jax.random.randint(token, tokens_T.shape, 0, vocabulary, jnp.int32)
      swapped_T = jnp.where(fate_T < self.masked + self.swapped, random_T, tokens_T)
      seen_T = jnp.where(fate_T < self.masked, self.mask_token, swapped_T)
      return jnp.where(chosen_T, seen_T, tokens_T), chosen_T

    return Hidden(*jax.vmap(one)(batch_axis.keys(key, len(tokens_BT)), tokens_BT, text_BT))

  def _chosen(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if self.ngrams == 1:
      return jax.random.bernoulli(key, self.rate, shape)
    starts, lengths = jax.random.split(key)
    share_N = 1 / np.arange(1, self.ngrams + 1) / (1 / np.arange(1, self.ngrams + 1)).sum()
    mean = float((share_N * np.arange(1, self.ngrams + 1)).sum())
    begun_T = jax.random.bernoulli(starts, self.rate / mean, shape)
    length_T = 1 + jax.random.choice(lengths, self.ngrams, shape, p=jnp.asarray(share_N))
    found_T = begun_T
    for i in range(1, self.ngrams):
      longer_T = begun_T & (length_T > i)
      found_T |= jnp.roll(longer_T, i) & (jnp.arange(shape[0]) >= i)
    return found_T

  def phases(self, model):
    if self.mask_token >= model.vocabulary:
      raise ValueError(f"mask_token={self.mask_token} is none of {model.vocabulary} tokens")

    def loss(params, state, batch, rng):
      found, state = self._measured(model, params, state, batch, rng, train=True)
      return found["loss"], (state, {name: found[name] for name in self.logged})

    return (Phase("masked_language_model", loss),)

  def measure(self, model):
    return lambda params, state, batch, rng: self._measured(
      model, params, state, batch, rng, train=False
    )[0]

  def _measured(self, model, params, state, batch: Batch, rng: jax.Array, *, train: bool):
    out, found, state = self._told(model, params, state, batch, rng, train=train)
    del out
    return found, state

  def _told(self, model, params, state, batch: Batch, rng: jax.Array, *, train: bool):
    """(the model's output, metrics of the tokens to be told, its state)."""
    tokens_BT, *rest = self.inputs(batch)
    noise, rng = jax.random.split(rng)
    hidden = self.hide(tokens_BT, noise, model.vocabulary, self.text(batch))
    out, state = applied(model, params, state, (hidden.tokens, *rest), rng, train=train)
    scored_BT = hidden.chosen & (batch["mask"][:, None] > 0)
    return out, measured(out.logits, tokens_BT, scored_BT), state

  def derive(self, means):
    return perplexity({"nll": means["nll" if "nll" in means else "loss"]})

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """[N, D] the mean over each text, nothing hidden."""
    inputs = self.inputs(examples.arrays)

    def one(start):
      part, *rest = jax.tree.map(lambda x: x[start : start + 64], inputs)
      there = (part >= 0)[..., None]
      return np.where(there, call(part, *rest).hidden, 0.0).sum(1) / np.maximum(there.sum(1), 1)

    return np.concatenate([one(start) for start in range(0, len(inputs[0]), 64)])

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    """How often the commonest token of the training part is the right one."""
    seen, held_out = (self.inputs(part.arrays)[0] for part in (train, test))
    commonest = np.bincount(seen[seen >= 0]).argmax()
    there = held_out[held_out >= 0]
    return {"commonest_accuracy": float((there == commonest).mean()) if there.size else 0.0}

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    if "tokens" not in test.tokenizers:
      return {}
    tokenizer = test.tokenizers["tokens"]
    cut = lambda tree: jax.tree.map(lambda x: x[:_SHOWN, :_TOKENS], tree)  # noqa: E731
    tokens_BT, *rest = cut(self.inputs(test.arrays))
    text_BT, key = cut(self.text(test.arrays)), jax.random.key(0)
    hidden = self.hide(jnp.asarray(tokens_BT), key, call.model.vocabulary, text_BT)
    found_BT = call(np.asarray(hidden.tokens), *rest).logits.argmax(-1)
    filled_BT = np.where(hidden.chosen, found_BT, tokens_BT)
    rows = [
      (
        tokenizer.decode(text),
        ", ".join(tokenizer.token(int(t)) for t in text[chosen]),
        ", ".join(tokenizer.token(int(t)) for t in filled[chosen]),
      )
      for text, chosen, filled in zip(tokens_BT, np.asarray(hidden.chosen), filled_BT, strict=True)
    ]
    caption = "Held-out text, the tokens of it that were hidden, and what the model took them for."
    found: dict[str, View] = {"masked": Table(("text", "hidden", "told"), rows, caption)}
    what = "a held-out text with some hidden"
    inputs = (np.asarray(hidden.tokens), *rest)
    return found | attention_maps.of_text(call, tokenizer, inputs, what)
