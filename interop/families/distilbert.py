"""DistilBERT (Sanh et al. 2019): BERT without types. Letters as in interop/encoders.py."""

from interop import encoders
from interop.family import ACTIVATIONS, CLASSES, Family, Field, Head, Only, Ours, hidden
from interop.mapping import Row, linear, norm

_LAYER = "@transformer.layer.{l}"
_LAYERS = (
  *(
    row
    for letter, name in (("q", "query"), ("k", "key"), ("v", "value"))
    for row in linear(
      f"{_LAYER}.attention.{letter}_lin",
      f"encoder_layers/attention/{name}",
      "(n h) d -> d n h",
      "(n h) -> n h",
    )
  ),
  *linear(
    f"{_LAYER}.attention.out_lin", "encoder_layers/attention/output", "d (n h) -> n h d", "d"
  ),
  *norm(f"{_LAYER}.sa_layer_norm", "encoder_layers/attention_norm"),
  *linear(f"{_LAYER}.ffn.lin1", "encoder_layers/mlp/up", "f d -> d f", "f"),
  *linear(f"{_LAYER}.ffn.lin2", "encoder_layers/mlp/down", "d f -> f d", "d"),
  *norm(f"{_LAYER}.output_layer_norm", "encoder_layers/mlp_norm"),
)
_MASKED = (
  *linear("vocab_transform", "projection", "e d -> d e", "e"),
  *norm("vocab_layer_norm", "final_norm", "e"),
  Row("vocab_projector.bias", "output_bias", "v"),
)
_POOLER = linear("pre_classifier", "pooler", "p d -> d p", "p")
_HEAD = linear("classifier", "head", "c d -> d c", "c")
_RELU = (
  Field("seq_classif_dropout", "head_dropout", 0.2),
  Ours("pooler_activation", ("relu",)),
)

FAMILY = Family(
  kind="distilbert",
  prefix="distilbert.",
  sizes=encoders.sizes,
  fields=(
    Field("vocab_size", "vocabulary"),
    Field("max_position_embeddings", "length"),
    Field("n_layers", "layers"),
    Field("dim", "features"),
    Field("n_heads", "heads"),
    Field("hidden_dim", "mlp_features", write=hidden),
    Field("activation", "activation", "gelu", ACTIVATIONS),
    Field("initializer_range", "init_std", 0.02),
    Field("dropout", "dropout", 0.1),
    Field("attention_dropout", "attention_dropout", 0.1),
    # Sinusoids are stored like any other table of positions, and trained no further.
    Only("sinusoidal_pos_embds", (False, True)),
    Ours("epsilon", (1e-12,)),
    Ours("types", (0,)),
    Ours("embedding_norm", (True,)),
    Ours("position_offset", (0,)),
    Ours("embedding_features", (0,)),
    Ours("shared", ("none",)),
  ),
  rows=(*encoders.EMBEDDINGS, *_LAYERS),
  heads=(
    Head("DistilBertForMaskedLM", "transformer.encoder", _MASKED),
    Head(
      "DistilBertForSequenceClassification",
      "transformer.classifier",
      (*_POOLER, *_HEAD),
      (*_RELU, *CLASSES),
    ),
    Head(
      "DistilBertForTokenClassification",
      "transformer.token_classifier",
      _HEAD,
      (
        Field("dropout", "head_dropout", 0.1, write=lambda model: float(model["dropout"])),
        Ours("pooler_activation", ("relu", "tanh")),
        *CLASSES,
      ),
    ),
    Head(
      "DistilBertForQuestionAnswering",
      "transformer.token_classifier",
      linear("qa_outputs", "head", "c d -> d c", "c"),
      (
        Field("qa_dropout", "head_dropout", 0.1),
        Ours("pooler_activation", ("relu", "tanh")),
        *CLASSES,
      ),
    ),
    Head(
      "DistilBertForMultipleChoice",
      "transformer.multiple_choice",
      (*_POOLER, *encoders.SCORE),
      _RELU,
    ),
    Head("DistilBertModel", "transformer.sentence_encoder", (), encoders.UNPOOLED, base=True),
  ),
  copies={"vocab_projector.weight": "@embeddings.word_embeddings.weight"},
  buffers=("@embeddings.position_ids",),
)
