"""What BERT, RoBERTa, ALBERT and DistilBERT have in common, as tables: see interop/mapping.py.

Letters: l layers, v vocabulary, t positions, k types, e features of an embedding, d features,
n heads of h features, f features inside the MLP, p of the pooler,
c classes, o one score.
"""

from collections.abc import Mapping
from typing import Any

from interop.family import ACTIVATIONS, Field, Only, Ours, hidden, of_heads
from interop.mapping import Row, linear, norm


def sizes(model: Mapping[str, Any]) -> dict[str, int]:
  """Of an encoder of ours, whatever its head."""
  return {
    **of_heads(model["features"], model["heads"]),
    "l": model["layers"],
    "v": model["vocabulary"],
    "t": model["length"] + model["position_offset"],
    "k": max(model["types"], 1),
    "e": model["embedding_features"] or model["features"],
    "f": hidden(model),
    "p": model["features"],
    "o": 1,
    "c": model["classes"] if "classes" in model else 1,
  }


def _head_dropout(said: Mapping[str, Any]) -> Any:
  own = said.get("classifier_dropout")
  return said.get("hidden_dropout_prob") if own is None else own


FIELDS = (
  Field("vocab_size", "vocabulary"),
  Field("num_hidden_layers", "layers"),
  Field("hidden_size", "features"),
  Field("num_attention_heads", "heads"),
  Field("intermediate_size", "mlp_features", write=hidden),
  # Theirs always have types: a model without is one whose only type adds nothing.
  Field("type_vocab_size", "types", 2, write=lambda model: max(model["types"], 1)),
  Field("layer_norm_eps", "epsilon", 1e-12),
  Field("hidden_act", "activation", "gelu", ACTIVATIONS),
  Field("initializer_range", "init_std", 0.02),
  Field("hidden_dropout_prob", "dropout", 0.1),
  Field("attention_probs_dropout_prob", "attention_dropout", 0.1),
  Only("position_embedding_type", ("absolute",)),
  Only("is_decoder", (False,)),
  Only("add_cross_attention", (False,)),
  Ours("embedding_norm", (True,)),
)

HEAD_DROPOUT = Field("classifier_dropout", "head_dropout", 0.1, read=_head_dropout)
TANH = Ours("pooler_activation", ("tanh",))

EMBEDDINGS = (
  Row("@embeddings.word_embeddings.weight", "embedding", "v e"),
  Row("@embeddings.position_embeddings.weight", "position_embedding", "t e"),
  *norm("@embeddings.LayerNorm", "first_norm", "e"),
)

TYPES = (
  Row(
    "@embeddings.token_type_embeddings.weight",
    "type_embedding",
    "k e",
    when=lambda model: model["types"] > 0,
  ),
  Row(
    "@embeddings.token_type_embeddings.weight",
    None,
    "k e",
    when=lambda model: model["types"] == 0,
  ),
)

LAYERS = (
  *(
    row
    for name in ("query", "key", "value")
    for row in linear(
      f"@encoder.layer.{{l}}.attention.self.{name}",
      f"encoder_layers/attention/{name}",
      "(n h) d -> d n h",
      "(n h) -> n h",
    )
  ),
  *linear(
    "@encoder.layer.{l}.attention.output.dense",
    "encoder_layers/attention/output",
    "d (n h) -> n h d",
    "d",
  ),
  *norm("@encoder.layer.{l}.attention.output.LayerNorm", "encoder_layers/attention_norm"),
  *linear("@encoder.layer.{l}.intermediate.dense", "encoder_layers/mlp/up", "f d -> d f", "f"),
  *linear("@encoder.layer.{l}.output.dense", "encoder_layers/mlp/down", "d f -> f d", "d"),
  *norm("@encoder.layer.{l}.output.LayerNorm", "encoder_layers/mlp_norm"),
)

POOLER = linear("@pooler.dense", "pooler", "p d -> d p", "p")

# The bias of a score changes nothing where choices are compared, and ours has none.
SCORE = (
  Row("classifier.weight", "head/kernel", "o d -> d o"),
  Row("classifier.bias", None, "o", free=True),
)

POOLED = (Ours("pooler", (True,)),)
UNPOOLED = (Ours("pooler", (False,)),)
