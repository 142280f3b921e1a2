"""ALBERT (Lan et al. 2020): a layer, again and again. Letters as in interop/encoders.py."""

from interop import encoders
from interop.family import CLASSES, Family, Field, Head, Only, Ours
from interop.mapping import Row, linear, norm

_LAYER = "@encoder.albert_layer_groups.0.albert_layers.0"
_LAYERS = (
  *linear("@encoder.embedding_hidden_mapping_in", "embedding_projection", "d e -> e d", "d"),
  *(
    row
    for name in ("query", "key", "value")
    for row in linear(
      f"{_LAYER}.attention.{name}",
      f"encoder_layers/attention/{name}",
      "(n h) d -> 1 d n h",
      "(n h) -> 1 n h",
    )
  ),
  *linear(
    f"{_LAYER}.attention.dense",
    "encoder_layers/attention/output",
    "d (n h) -> 1 n h d",
    "d -> 1 d",
  ),
  *norm(f"{_LAYER}.attention.LayerNorm", "encoder_layers/attention_norm", "d -> 1 d"),
  *linear(f"{_LAYER}.ffn", "encoder_layers/mlp/up", "f d -> 1 d f", "f -> 1 f"),
  *linear(f"{_LAYER}.ffn_output", "encoder_layers/mlp/down", "d f -> 1 f d", "d -> 1 d"),
  *norm(f"{_LAYER}.full_layer_layer_norm", "encoder_layers/mlp_norm", "d -> 1 d"),
)
_POOLER = linear("@pooler", "pooler", "p d -> d p", "p")
_MASKED = (
  *linear("predictions.dense", "projection", "e d -> d e", "e"),
  *norm("predictions.LayerNorm", "final_norm", "e"),
  Row("predictions.bias", "output_bias", "v"),
)
_RELATION = linear("sop_classifier.classifier", "relation", "r d -> d r", "r")
_HEAD = linear("classifier", "head", "c d -> d c", "c")
_HEADED = (Field("classifier_dropout_prob", "head_dropout", 0.1), encoders.TANH)

FAMILY = Family(
  kind="albert",
  prefix="albert.",
  sizes=lambda model: {**encoders.sizes(model), "r": 2},
  fields=(
    *encoders.FIELDS,
    Field("max_position_embeddings", "length"),
    Field("embedding_size", "embedding_features"),
    Only("num_hidden_groups", (1,)),
    Only("inner_group_num", (1,)),
    Ours("position_offset", (0,)),
    Ours("shared", ("all",)),
  ),
  rows=(*encoders.EMBEDDINGS, *encoders.TYPES, *_LAYERS),
  heads=(
    Head("AlbertForMaskedLM", "transformer.encoder", _MASKED),
    Head("AlbertForPreTraining", "transformer.bert", (*_POOLER, *_MASKED, *_RELATION)),
    # The files that came with the paper have the pooler and not the head that reads it.
    Head("AlbertForMaskedLM", "transformer.encoder", (*_POOLER, *_MASKED)),
    Head(
      "AlbertForSequenceClassification",
      "transformer.classifier",
      (*_POOLER, *_HEAD),
      (*_HEADED, *CLASSES),
    ),
    Head(
      "AlbertForTokenClassification", "transformer.token_classifier", _HEAD, (*_HEADED, *CLASSES)
    ),
    Head(
      "AlbertForQuestionAnswering",
      "transformer.token_classifier",
      linear("qa_outputs", "head", "c d -> d c", "c"),
      (*_HEADED, *CLASSES),
    ),
    Head(
      "AlbertForMultipleChoice",
      "transformer.multiple_choice",
      (*_POOLER, *encoders.SCORE),
      _HEADED,
    ),
    Head("AlbertModel", "transformer.sentence_encoder", _POOLER, encoders.POOLED, base=True),
    Head("AlbertModel", "transformer.sentence_encoder", (), encoders.UNPOOLED, base=True),
  ),
  copies={
    "predictions.decoder.weight": "@embeddings.word_embeddings.weight",
    "predictions.decoder.bias": "predictions.bias",
  },
  buffers=("@embeddings.position_ids",),
)
