"""BERT (Devlin et al. 2019): letters as in interop/encoders.py."""

from interop import encoders
from interop.family import CLASSES, Family, Field, Head, Ours
from interop.mapping import Row, linear, norm

_MASKED = (
  *linear("cls.predictions.transform.dense", "projection", "e d -> d e", "e"),
  *norm("cls.predictions.transform.LayerNorm", "final_norm", "e"),
  Row("cls.predictions.bias", "output_bias", "v"),
)
_RELATION = linear("cls.seq_relationship", "relation", "r d -> d r", "r")
_HEAD = linear("classifier", "head", "c d -> d c", "c")
_HEADED = (encoders.HEAD_DROPOUT, encoders.TANH)

FAMILY = Family(
  kind="bert",
  prefix="bert.",
  sizes=lambda model: {**encoders.sizes(model), "r": 2},
  fields=(
    *encoders.FIELDS,
    Field("max_position_embeddings", "length"),
    Ours("position_offset", (0,)),
    Ours("embedding_features", (0,)),
    Ours("shared", ("none",)),
  ),
  rows=(*encoders.EMBEDDINGS, *encoders.TYPES, *encoders.LAYERS),
  heads=(
    Head("BertForMaskedLM", "transformer.encoder", _MASKED),
    # bert-base-uncased, for one, says that it is a BertForMaskedLM, and has all of these.
    Head("BertForPreTraining", "transformer.bert", (*encoders.POOLER, *_MASKED, *_RELATION)),
    Head(
      "BertForSequenceClassification",
      "transformer.classifier",
      (*encoders.POOLER, *_HEAD),
      (*_HEADED, *CLASSES),
    ),
    Head("BertForTokenClassification", "transformer.token_classifier", _HEAD, (*_HEADED, *CLASSES)),
    Head(
      "BertForQuestionAnswering",
      "transformer.token_classifier",
      linear("qa_outputs", "head", "c d -> d c", "c"),
      (*_HEADED, *CLASSES),
    ),
    Head(
      "BertForMultipleChoice",
      "transformer.multiple_choice",
      (*encoders.POOLER, *encoders.SCORE),
      _HEADED,
    ),
    Head("BertModel", "transformer.sentence_encoder", encoders.POOLER, encoders.POOLED, base=True),
    Head("BertModel", "transformer.sentence_encoder", (), encoders.UNPOOLED, base=True),
  ),
  copies={
    "cls.predictions.decoder.weight": "@embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
  },
  buffers=("@embeddings.position_ids",),
)
