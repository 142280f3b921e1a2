"""A GPT that is being aligned, and the one it started from, which does not change.

Ouyang et al. 2022, "Training language models to follow instructions with human feedback",
arXiv:2203.02155, section 3.5; Rafailov et al. 2023, "Direct Preference Optimization",
arXiv:2305.18290. Parameters are grouped by who they belong to: `policy` is trained, `reference` is
the policy as the stage found it.

Axes: B examples, T positions.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from models.layers.attention import Cache
from models.layers.sequence import Prediction
from models.transformer import gpt

LINEN = ("parent", "name")  # what Flax itself adds to the fields


class Model(gpt.Model):
  """The policy, a GPT of these settings, and its reference.

  Attributes:
    eos: the token that ends a reply.
    reply_length: the most tokens of a reply.
    dtype: of activations.
  """

  eos: Annotated[int, "[0, inf)"] = 1
  reply_length: Annotated[int, "[1, inf)"] = 1
  dtype: Any = jnp.float32

  def gpt(self) -> gpt.Model:
    """A GPT of these settings."""
    fields = [field.name for field in dataclasses.fields(gpt.Model) if field.name not in LINEN]
    return gpt.Model(**{name: getattr(self, name) for name in fields}, parent=None)

  def setup(self):
    self.policy = self.gpt()
    self.reference = self.gpt()

  def __call__(
    self, tokens_BT: jax.Array, segments_BT: jax.Array | None = None, *, train: bool = False
  ) -> Prediction:
    """The policy's prediction; the arguments are those of models/transformer/gpt.py."""
    if self.is_initializing():
      self.reference(tokens_BT)
    return self.policy(tokens_BT, segments_BT, train=train)

  def before(self, tokens_BT: jax.Array, segments_BT: jax.Array | None = None) -> Prediction:
    """The reference's prediction."""
    return self.reference(tokens_BT, segments_BT)

  def begin(self, examples: int, capacity: int) -> Cache:
    """See models/transformer/gpt.py."""
    return self.policy.begin(examples, capacity)

  def advance(self, tokens_BT: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    """See models/transformer/gpt.py; it is the policy that speaks."""
    return self.policy.advance(tokens_BT, cache)

  def adopt(self, fresh: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The policy of the stage before, or its GPT, as policy and as reference."""
    policy = taken_over(fresh["policy"], before["policy"] if "policy" in before else before)
    return {**fresh, "policy": policy, "reference": policy}


def taken_over(fresh: Mapping[str, Any], before: Mapping[str, Any]) -> Mapping[str, Any]:
  """`before`, which must have the names and shapes of `fresh`.

  Raises:
    ValueError: it has not.
  """
  shapes = [
    {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
    for tree in (fresh, before)
  ]
  if shapes[0] != shapes[1]:
    differ = sorted(dict(shapes[0].items() ^ shapes[1].items()))
    raise ValueError(f"the stage before has another model: {', '.join(differ[:3])} differ")
  return before
