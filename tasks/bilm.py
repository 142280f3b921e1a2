"""Language modelling in both directions at once, each word told from one side.

Peters et al. 2018, arXiv:1802.05365, section 3.1: the sum of log p(t_k | t_1, ..., t_{k-1}) and
log p(t_k | t_{k+1}, ..., t_N) over the words of a text.

Axes: B examples, T words.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from evaluation import ngram
from tasks.objective import Batch, Call, Examples, Mean, Objective, Phase, applied, in_batches
from tasks.tokens import measured, perplexity, smoothed_nll
from tasks.views import Lines, View

_SHOWN = 500  # texts that a figure averages over


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Objective):
  """Minimises the mean -log p(word | one side) over both directions, in nats.

  A text's first word, which marks its begin, is told from behind it and its last from before it; an
  unknown word is told as such.

  Attributes:
    ngram_order: of a Witten-Bell n-gram fitted to the words of the same training texts, to stand
      beside the forward direction as `ngram_perplexity`. 0 fits none.
  """

  ngram_order: Annotated[int, "[0, 9]"] = 0

  def inputs(self, batch: Batch) -> tuple[jax.Array, ...]:
    return (batch["characters"],)

  def phases(self, model):
    def loss(params, state, batch, rng):
      out, state = applied(model, params, state, self.inputs(batch), rng, train=True)
      found = _measured(out, batch)
      return found["loss"], (state, {name: found[name] for name in ("ahead_nll", "back_nll")})

    return (Phase("bilm", loss),)

  def measure(self, model):
    def measure(params, state, batch, rng):
      out, _ = applied(model, params, state, self.inputs(batch), rng, train=False)
      return _measured(out, batch)

    return measure

  def derive(self, means):
    """Perplexities of both directions, and their mean, as the paper gives it."""
    ahead, back = (perplexity({"nll": means[f"{d}_nll"]})["perplexity"] for d in ("ahead", "back"))
    return {
      "ahead_perplexity": ahead,
      "back_perplexity": back,
      "mean_perplexity": (ahead + back) / 2,
    }

  def score(self, call: Call, train: Examples, test: Examples) -> dict[str, float]:
    if not self.ngram_order:
      return {}
    streams = [part.arrays["words"][part.arrays["words"] >= 0] for part in (train, test)]
    size = test.tokenizers["words"].size
    p_N = ngram.probabilities(*streams, order=self.ngram_order - 1, vocabulary=size)
    told_N = streams[1] != test.tokenizers["words"].bos  # which the model is not asked for either
    if not told_N.any():
      raise ValueError("an n-gram of words has no perplexity: the test texts have no word to tell")
    return {"ngram_perplexity": float(np.exp(-np.log(p_N[told_N]).mean()))}

  def features(self, call: Call, examples: Examples) -> np.ndarray:
    """[N, E] the mean of the last layer over the words of each text."""
    characters = examples.arrays["characters"]
    there = (characters[:, :, :1] >= 0).astype(np.float32)
    last = in_batches(call, characters, method=_last_layer, size=100)
    return (last * there).sum(1) / np.maximum(there.sum(1), 1)

  def views(self, call: Call, train: Examples, test: Examples) -> dict[str, View]:
    rows = {name: array[:_SHOWN] for name, array in test.arrays.items()}
    ahead, back = in_batches(call, rows["characters"], rows["words"], method=_by_place, size=50)
    places = np.arange(1, rows["words"].shape[1] - 1)
    with np.errstate(invalid="ignore"):  # places that no text reaches
      lines = {
        "from the left": np.nansum(ahead[:, :-1], 0) / (~np.isnan(ahead[:, :-1])).sum(0),
        "from the right": np.nansum(back[:, 1:], 0) / (~np.isnan(back[:, 1:])).sum(0),
      }
    axes = ("word of the text", "-log p, nats")
    caption = (
      "How hard a word is to tell, by its place in a test text and the side it is told from."
    )
    return {"by_place": Lines(places, lines, axes, caption)}


def _measured(out, batch: Batch) -> dict[str, Mean]:
  words_BT = batch["words"]
  there_BT = (words_BT >= 0) & (batch["mask"][:, None] > 0)
  both_BT = there_BT[:, 1:] & there_BT[:, :-1]
  ahead = measured(out.ahead[:, :-1], words_BT[:, 1:], both_BT)
  back = measured(out.back[:, 1:], words_BT[:, :-1], both_BT)
  return {
    "loss": ahead["nll"] + back["nll"],
    "ahead_nll": ahead["nll"],
    "back_nll": back["nll"],
    "accuracy": ahead["accuracy"] + back["accuracy"],
  }


def _last_layer(model, characters_BTM: jax.Array) -> jax.Array:
  return model.encode(characters_BTM)[-1].astype(jnp.float32)


def _by_place(model, characters_BTM: jax.Array, words_BT: jax.Array):
  """-log p of every inner word [B, T - 2] from either side; NaN where there is none."""
  out = model(characters_BTM)
  inner_BT = words_BT[:, 1:-1]
  pair = (smoothed_nll(logits, inner_BT)[1] for logits in (out.ahead[:, :-2], out.back[:, 2:]))
  return tuple(jnp.where(inner_BT < 0, jnp.nan, nll) for nll in pair)
