"""T5 and T5 1.1 (Raffel et al. 2020): no biases, and one of distances for all layers of a stack.

Letters: l layers of the encoder, m of the decoder, v vocabulary, d features, n heads of h features,
f features inside the MLPs, b buckets of distances.
"""

from collections.abc import Mapping
from typing import Any

from interop.errors import Unreadable
from interop.family import Family, Field, Head
from interop.mapping import Row

_KINDS = {  # (activation, gated) by feed_forward_proj
  "relu": ("relu", False),
  "gated-gelu": ("gelu_tanh", True),  # which is not what "gelu" is elsewhere
  "gated-relu": ("relu", True),
  "gated-silu": ("silu", True),
  "gelu": ("gelu", False),
  "gelu_new": ("gelu_tanh", False),
  "silu": ("silu", False),
}


def _kind(said: Mapping[str, Any], index: int) -> Any:
  return _KINDS[said.get("feed_forward_proj", "relu")][index]


def _name(model: Mapping[str, Any]) -> str:
  for name, kind in _KINDS.items():
    if kind == (model["activation"], model["gated"]):
      return name
  raise Unreadable(f"t5 has no activation={model['activation']!r} with gated={model['gated']}")


def _tied(said: Mapping[str, Any]) -> Any:
  # Transformers 5 sets tie_word_embeddings always, and remembers here what it was.
  scaled = said.get("scale_decoder_outputs")
  return said.get("tie_word_embeddings") if scaled is None else scaled


def _vocabulary(model: Mapping[str, Any]) -> int:
  names = ("vocabulary", "source_vocabulary", "target_vocabulary")
  return model["extra_ids"] + max(model[name] for name in names)


def _sizes(model: Mapping[str, Any]) -> dict[str, int]:
  return {
    "l": model["encoder_layers"],
    "m": model["decoder_layers"],
    "v": _vocabulary(model),
    "d": model["features"],
    "n": model["heads"],
    "h": model["head_features"] or model["features"] // model["heads"],
    "f": model["mlp_features"],
    "b": model["buckets"],
  }


def _attention(theirs: str, ours: str) -> tuple[Row, ...]:
  return (
    *(
      Row(f"{theirs}.{name[0]}.weight", f"{ours}/{name}/kernel", "(n h) d -> d n h")
      for name in ("query", "key", "value")
    ),
    Row(f"{theirs}.o.weight", f"{ours}/output/kernel", "d (n h) -> n h d"),
  )


def _stack(side: str, letter: str, *, mlp: int) -> tuple[Row, ...]:
  """A stack's rows; `mlp` is the number of the sub-layer that is the MLP."""
  block, ours = f"{side}.block.{{{letter}}}.layer", f"{side}_layers"
  gated = {"when": lambda model: model["gated"]}
  plain = {"when": lambda model: not model["gated"]}
  dense = f"{block}.{mlp}.DenseReluDense"
  return (
    *_attention(f"{block}.0.SelfAttention", f"{ours}/attention"),
    Row(f"{block}.0.layer_norm.weight", f"{ours}/attention_norm/scale", "d"),
    Row(
      f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
      f"{side}_bias/bias",
      "b n",
    ),
    Row(f"{dense}.wi.weight", f"{ours}/mlp/up/kernel", "f d -> d f", **plain),
    Row(f"{dense}.wi_0.weight", f"{ours}/mlp/up/kernel", "f d -> d f", **gated),
    Row(f"{dense}.wi_1.weight", f"{ours}/mlp/gate/kernel", "f d -> d f", **gated),
    Row(f"{dense}.wo.weight", f"{ours}/mlp/down/kernel", "d f -> f d"),
    Row(f"{block}.{mlp}.layer_norm.weight", f"{ours}/mlp_norm/scale", "d"),
    Row(f"{side}.final_layer_norm.weight", f"{side}_norm/scale", "d"),
  )


FAMILY = Family(
  kind="t5",
  prefix="",
  sizes=_sizes,
  fields=(
    Field("vocab_size", "vocabulary", write=_vocabulary),
    Field("num_layers", "encoder_layers"),
    Field(
      "num_decoder_layers",
      "decoder_layers",
      read=lambda said: said.get("num_decoder_layers") or said["num_layers"],
    ),
    Field("d_model", "features"),
    Field("num_heads", "heads"),
    Field(
      "d_kv",
      "head_features",
      64,
      write=lambda model: model["head_features"] or model["features"] // model["heads"],
    ),
    Field("d_ff", "mlp_features"),
    Field("feed_forward_proj", "activation", "", read=lambda said: _kind(said, 0), write=_name),
    Field("feed_forward_proj", "gated", False, read=lambda said: _kind(said, 1), write=_name),
    Field("tie_word_embeddings", "tied", True, read=_tied),
    Field("relative_attention_num_buckets", "buckets", 32),
    Field("relative_attention_max_distance", "furthest", 128),
    Field("layer_norm_epsilon", "epsilon", 1e-6),
    Field("dropout_rate", "dropout", 0.1),
    Field("dropout_rate", "attention_dropout", 0.1, write=lambda model: float(model["dropout"])),
    Field("vocab_size", "extra_ids", read=lambda said: 0, write=_vocabulary),
    Field("vocab_size", "source_vocabulary", read=lambda said: 0, write=_vocabulary),
    Field("vocab_size", "target_vocabulary", read=lambda said: 0, write=_vocabulary),
  ),
  rows=(
    Row("shared.weight", "embedding", "v d"),
    Row("lm_head.weight", "unembedding", "v d", when=lambda model: not model["tied"]),
    *_stack("encoder", "l", mlp=1),
    *_stack("decoder", "m", mlp=2),
    *_attention("decoder.block.{m}.layer.1.EncDecAttention", "decoder_layers/cross_attention"),
    Row("decoder.block.{m}.layer.1.layer_norm.weight", "decoder_layers/cross_norm/scale", "d"),
  ),
  heads=(Head("T5ForConditionalGeneration", "transformer.t5"),),
  copies={
    "encoder.embed_tokens.weight": "shared.weight",
    "decoder.embed_tokens.weight": "shared.weight",
    "lm_head.weight": "shared.weight",
  },
  # A mistake of the first release, which nothing reads.
  buffers=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
  written={"is_encoder_decoder": True, "pad_token_id": 0, "decoder_start_token_id": 0},
)
