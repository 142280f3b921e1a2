"""RoBERTa (Liu et al. 2019): BERT with other heads, whose positions begin behind the padding's id.

Letters as in interop/encoders.py.
"""

from collections.abc import Mapping
from typing import Any

from interop import encoders
from interop.errors import Unreadable
from interop.family import CLASSES, Family, Field, Head, Ours
from interop.mapping import Row, linear, norm


def _offset(said: Mapping[str, Any]) -> int:
  return (1 if said.get("pad_token_id") is None else said["pad_token_id"]) + 1


def _padding(model: Mapping[str, Any]) -> int:
  if not model["position_offset"]:
    raise Unreadable("roberta has position_offset of 1 at least, not 0")
  return model["position_offset"] - 1


_MASKED = (
  *linear("lm_head.dense", "projection", "e d -> d e", "e"),
  *norm("lm_head.layer_norm", "final_norm", "e"),
  Row("lm_head.bias", "output_bias", "v"),
)
_GELU = (Ours("activation", ("gelu",)),)  # whatever the layers' is, the head's is this
_HEADED = (encoders.HEAD_DROPOUT, encoders.TANH)

FAMILY = Family(
  kind="roberta",
  prefix="roberta.",
  sizes=encoders.sizes,
  fields=(
    *encoders.FIELDS,
    Field("pad_token_id", "position_offset", read=_offset, write=_padding),
    Field(
      "max_position_embeddings",
      "length",
      read=lambda said: said["max_position_embeddings"] - _offset(said),
      write=lambda model: model["length"] + model["position_offset"],
    ),
    Ours("embedding_features", (0,)),
    Ours("shared", ("none",)),
  ),
  rows=(*encoders.EMBEDDINGS, *encoders.TYPES, *encoders.LAYERS),
  heads=(
    Head("RobertaForMaskedLM", "transformer.encoder", _MASKED, _GELU),
    # roberta-base has a pooler that it does not use; a classifier may begin with it.
    Head("RobertaForMaskedLM", "transformer.encoder", (*encoders.POOLER, *_MASKED), _GELU),
    Head(
      "RobertaForSequenceClassification",
      "transformer.classifier",
      (
        *linear("classifier.dense", "pooler", "p d -> d p", "p"),
        *linear("classifier.out_proj", "head", "c d -> d c", "c"),
      ),
      (*_HEADED, *CLASSES),
    ),
    Head(
      "RobertaForTokenClassification",
      "transformer.token_classifier",
      linear("classifier", "head", "c d -> d c", "c"),
      (*_HEADED, *CLASSES),
    ),
    Head(
      "RobertaForQuestionAnswering",
      "transformer.token_classifier",
      linear("qa_outputs", "head", "c d -> d c", "c"),
      (*_HEADED, *CLASSES),
    ),
    Head(
      "RobertaForMultipleChoice",
      "transformer.multiple_choice",
      (*encoders.POOLER, *encoders.SCORE),
      _HEADED,
    ),
    Head(
      "RobertaModel", "transformer.sentence_encoder", encoders.POOLER, encoders.POOLED, base=True
    ),
    Head("RobertaModel", "transformer.sentence_encoder", (), encoders.UNPOOLED, base=True),
  ),
  copies={
    "lm_head.decoder.weight": "@embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
  },
  buffers=("@embeddings.position_ids",),
)
