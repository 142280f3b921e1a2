"""What the heads of an encoder share: the vector of a whole text, and how pre-training is taken on.

Devlin et al. 2019, arXiv:1810.04805, section 3.2: all parameters of the pre-trained encoder are
fine-tuned with a new head. Zhang, Wu, Katiyar, Weinberger & Artzi 2021, "Revisiting Few-sample BERT
Fine-tuning", arXiv:2006.05987, section 5: the top layers start anew, since they have specialised in
what they were pre-trained for.

Axes: T positions, D features, L layers.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from models.layers.dropout import Dropout
from models.transformer import encoder

_OWN = ("pooler", "head")  # what a stage before need not have


class FineTuned(encoder.Encoder):
  """An encoder for another model to put a head on.

  Attributes:
    pooler_activation: of the layer between the first token and the head: tanh, or DistilBERT's
      relu.
    head_dropout: of what the head reads.
    reinitialised: how many of the top layers, and with any the pooler, are not taken over from the
      stage before.
  """

  pooler_activation: Literal["tanh", "relu"] = "tanh"
  head_dropout: Annotated[float, "[0, 1)", "traced"] = 0.1
  reinitialised: Annotated[int, "[0, inf)"] = 0

  def __post_init__(self):
    super().__post_init__()
    if self.reinitialised > self.layers:
      raise ValueError(f"reinitialised={self.reinitialised} of layers={self.layers}")
    if self.reinitialised and self.shared != "none":
      raise ValueError(f"reinitialised={self.reinitialised}, but layers share {self.shared}")

  def head_drop(self) -> Dropout:
    """Dropout in front of the head."""
    return Dropout(self.head_dropout)

  def pooled(self, h_BTD: jax.Array) -> jax.Array:
    """[B, D] the first token's features through the pooler, for models that have one."""
    activation = {"tanh": jnp.tanh, "relu": jax.nn.relu}[self.pooler_activation]
    return activation(self.pooler(h_BTD[:, 0]))

  def adopt(self, fresh: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """`fresh` with the encoder of `before`, by name, and its pooler and head where they fit.

    Of a longer table of positions the first rows are taken; of a shorter one all, the other rows
    being new. Of a distilled pair (models/transformer/distilled.py) it is the student's encoder.

    Raises:
      ValueError: `before` has another encoder.
    """
    before = before["student"] if "student" in before else before
    found = dict(fresh)
    for name, tree in fresh.items():
      if name == "position_embedding" and name in before:
        rows = min(len(tree), len(before[name]))
        found[name] = jnp.asarray(tree).at[:rows].set(before[name][:rows])
      elif name == "encoder_layers" and name in before:
        _check(tree, before[name], name)
        kept = self.layers - self.reinitialised
        found[name] = jax.tree.map(
          lambda new, old: jnp.concatenate([old[:kept], new[kept:]]) if self.reinitialised else old,
          tree,
          before[name],
        )
      elif name in _OWN:
        anew = name == "pooler" and self.reinitialised
        if name in before and _shapes(before[name]) == _shapes(tree) and not anew:
          found[name] = before[name]
      elif name not in before:
        raise ValueError(f"the stage before has no {name}: it has {', '.join(sorted(before))}")
      else:
        _check(tree, before[name], name)
        found[name] = before[name]
    return found


def _shapes(tree) -> dict[str, tuple[int, ...]]:
  return {jax.tree_util.keystr(path): x.shape for path, x in jax.tree.leaves_with_path(tree)}


def _check(fresh, before, name: str):
  ours, theirs = _shapes(fresh), _shapes(before)
  if ours != theirs:
    where, _ = min(ours.items() ^ theirs.items())
    pair = (tree[where] if where in tree else "absent" for tree in (ours, theirs))
    raise ValueError("{}{} is {}, but of the stage before {}".format(name, where, *pair))
