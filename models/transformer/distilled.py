"""DistilBERT: a student of a masked language model, and the teacher that it learns from.

Sanh, Debut, Chaumond & Wolf 2019, "DistilBERT, a distilled version of BERT", arXiv:1910.01108,
section 3: the student is its teacher without types of tokens and with every other layer, and begins
as these. Parameters are grouped by who they belong to; `teacher` never changes.

Axes: B examples, T positions.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from models.layers.sequence import Prediction
from models.transformer import encoder
from models.transformer.aligned import LINEN, taken_over


class Lesson(NamedTuple):
  """What both say of a text: the logits, and the last layer's features [B, T, D] float32."""

  student: Prediction
  teacher: Prediction
  student_features: jax.Array
  teacher_features: jax.Array


class Model(encoder.Model):
  """The student, of these settings, and a teacher with more layers.

  Attributes:
    teacher_layers: of the teacher; 0 is twice the student's.
    teacher_types: of the teacher.
    start: "teacher", the student begins as every other layer of the teacher (every so-many-th,
      where that is not twice as deep), its embeddings and its head; "random", as any model does.
    dtype: of activations.
  """

  teacher_layers: Annotated[int, "[0, inf)"] = 0
  teacher_types: Annotated[int, "[0, inf)"] = 0
  start: Literal["teacher", "random"] = "teacher"
  dtype: Any = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    if self.depth % self.layers:
      raise ValueError(f"teacher_layers={self.depth} are no multiple of layers={self.layers}")

  @property
  def depth(self) -> int:
    """Layers of the teacher."""
    return self.teacher_layers or 2 * self.layers

  def _encoder(self, **changes) -> encoder.Model:
    fields = [f.name for f in dataclasses.fields(encoder.Model) if f.name not in LINEN]
    own = {name: getattr(self, name) for name in fields} | changes
    return encoder.Model(**own, parent=None)

  def setup(self):
    self.student = self._encoder()
    self.teacher = self._encoder(layers=self.depth, types=self.teacher_types)

  def __call__(
    self,
    tokens_BT: jax.Array,
    segments_BT: jax.Array | None = None,
    types_BT: jax.Array | None = None,
    *,
    train: bool = False,
  ) -> Prediction:
    """The student's prediction; the arguments are those of models/transformer/encoder.py."""
    if self.is_initializing():
      self.teacher(tokens_BT)
    return self.student(tokens_BT, segments_BT, types_BT, train=train)

  def encode(self, tokens_BT: jax.Array, segments_BT=None, types_BT=None, *, train: bool = False):
    """The student's features."""
    return self.student.encode(tokens_BT, segments_BT, types_BT, train=train)

  def lesson(self, tokens_BT: jax.Array, *, train: bool = False) -> Lesson:
    """What both say; nothing of the teacher drops out."""
    found = []
    for model, drops in ((self.student, train), (self.teacher, False)):
      features_BTD = model.encode(tokens_BT, train=drops)
      found += [(model.told(features_BTD), features_BTD.astype(jnp.float32))]
    (student, own), (teacher, theirs) = found
    return Lesson(student, teacher, own, theirs)

  def adopt(self, fresh: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The masked language model of the stage before as the teacher, some of it as the student."""
    known = fresh["teacher"]
    teacher = taken_over(known, {name: before[name] for name in known if name in before})
    if self.start == "random":
      return {**fresh, "teacher": teacher}
    student = {name: teacher[name] for name in fresh["student"]}
    if self.shared == "none":
      every = self.depth // self.layers
      layers = jax.tree.map(lambda leaf: leaf[::every], teacher["encoder_layers"])
      student["encoder_layers"] = layers
    return {**fresh, "student": student, "teacher": teacher}
