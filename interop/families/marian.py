"""Marian (Junczys-Dowmunt et al. 2018): Vaswani et al. 2017 as Hugging Face has it.

Letters: l layers of the encoder, m of the decoder, v vocabulary, t positions, d features, n heads
of h features, f features inside the MLPs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from interop.family import ACTIVATIONS, Family, Field, Head, Only, Ours, of_heads
from interop.mapping import Row, linear, norm


def _sizes(model: Mapping[str, Any]) -> dict[str, int]:
  return {
    **of_heads(model["features"], model["heads"]),
    "l": model["encoder_layers"],
    "m": model["decoder_layers"],
    "v": model["target_vocabulary"],
    "f": model["mlp_features"],
  }


def _attention(theirs: str, ours: str) -> tuple[Row, ...]:
  heads = ("(n h) d -> d n h", "(n h) -> n h")
  rows: list[Row] = []
  for name in ("query", "key", "value"):
    rows += linear(f"{theirs}.{name[0]}_proj", f"{ours}/{name}", *heads)
  return (*rows, *linear(f"{theirs}.out_proj", f"{ours}/output", "d (n h) -> n h d", "d"))


def _stack(side: str, letter: str) -> tuple[Row, ...]:
  layer, ours = f"@{side}.layers.{{{letter}}}", f"{side}_layers"
  return (
    *_attention(f"{layer}.self_attn", f"{ours}/attention"),
    *norm(f"{layer}.self_attn_layer_norm", f"{ours}/attention_norm"),
    *linear(f"{layer}.fc1", f"{ours}/mlp/up", "f d -> d f", "f"),
    *linear(f"{layer}.fc2", f"{ours}/mlp/down", "d f -> f d", "d"),
    *norm(f"{layer}.final_layer_norm", f"{ours}/mlp_norm"),
  )


def _both(theirs: str, ours: str) -> tuple[Field, Field]:
  return tuple(Field(f"{side}_{theirs}", ours) for side in ("encoder", "decoder"))


def _sinusoids(array: np.ndarray, sizes: Mapping[str, int]) -> bool:
  """Whether a table of positions is the one that ours computes."""
  if array.ndim != 2 or array.shape[1] != sizes["d"] or sizes["d"] % 2:
    return False
  angle = np.arange(len(array))[:, None] * 10_000.0 ** (-np.arange(0, sizes["d"], 2) / sizes["d"])
  waves = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
  return bool(np.abs(array - waves).max(initial=0) < 1e-4)


FAMILY = Family(
  kind="marian",
  prefix="model.",
  sizes=_sizes,
  fields=(
    Field("vocab_size", "source_vocabulary"),
    Field(
      "decoder_vocab_size",
      "target_vocabulary",
      read=lambda said: said.get("decoder_vocab_size") or said["vocab_size"],
    ),
    Field("max_position_embeddings", "source_length"),
    Field(
      "max_position_embeddings",
      "target_length",
      write=lambda model: max(model["source_length"], model["target_length"]),
    ),
    Field("d_model", "features"),
    Field("encoder_layers", "encoder_layers"),
    Field("decoder_layers", "decoder_layers"),
    *_both("attention_heads", "heads"),
    *_both("ffn_dim", "mlp_features"),
    Field("activation_function", "activation", "gelu", ACTIVATIONS),
    Field("dropout", "dropout", 0.1),
    Field("attention_dropout", "attention_dropout", 0.0),
    Only("share_encoder_decoder_embeddings", (True,)),
    Only("tie_word_embeddings", (True,)),
    Only("scale_embedding", (True,), absent=False),
    Only("static_position_embeddings", (True,)),
    Only("normalize_before", (False,)),
    Only("normalize_embedding", (False,)),
    Only("add_final_layer_norm", (False,)),
    Ours("shared", (True,)),
    Ours("tied", (True,)),
    Ours("head_features", (0,)),
    Ours("norm_place", ("post",)),
    Ours("epsilon", (1e-5,)),
    Ours("positions", ("sinusoidal",)),
    Ours("layout", ("concatenated",)),
  ),
  rows=(
    Row("@shared.weight", "target_embedding", "v d"),
    *_stack("encoder", "l"),
    *_stack("decoder", "m"),
    *_attention("@decoder.layers.{m}.encoder_attn", "decoder_layers/cross_attention"),
    *norm("@decoder.layers.{m}.encoder_attn_layer_norm", "decoder_layers/cross_norm"),
  ),
  heads=(
    Head(
      "MarianMTModel",
      "transformer.encoder_decoder",
      (Row("final_logits_bias", None, "1 v"),),
    ),
  ),
  copies={
    "@encoder.embed_tokens.weight": "@shared.weight",
    "@decoder.embed_tokens.weight": "@shared.weight",
    "lm_head.weight": "@shared.weight",
  },
  buffers=("@encoder.embed_positions.weight", "@decoder.embed_positions.weight"),
  checks={
    "@encoder.embed_positions.weight": _sinusoids,
    "@decoder.embed_positions.weight": _sinusoids,
  },
  written={
    "is_encoder_decoder": True,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
  },
)
