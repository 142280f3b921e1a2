"""ViT (Dosovitskiy et al. 2021).

Its pixels are 2x - 1 of ours, which the reader of a file has to know: see docs/huggingface.md.

Letters: l layers, t positions, d features, n heads of h features, f features inside the MLP,
i and j the sides of a patch, k channels, r features of the layer below the classifier, c classes.
"""

import math
from collections.abc import Mapping
from typing import Any

from interop.errors import Unreadable
from interop.family import CLASSES, Family, Field, Head, Only, Ours, hidden, of_heads
from interop.mapping import Row, linear, norm


def _sizes(model: Mapping[str, Any]) -> dict[str, int]:
  *sides, channels = model["data_shape"]
  patch = model["patch"]
  if not patch or any(side % patch for side in sides):
    raise Unreadable(f"images of {sides} do not divide into patches of {patch}")
  return {
    **of_heads(model["features"], model["heads"]),
    "l": model["layers"],
    "t": 1 + math.prod(side // patch for side in sides),
    "f": hidden(model),
    "i": patch,
    "j": patch,
    "k": channels,
    "r": model["head_hidden"],
    "c": model["classes"] if "classes" in model else 0,
  }


def _shape(said: Mapping[str, Any]) -> tuple[int, ...]:
  size = said["image_size"]
  sides = list(size) if isinstance(size, list) else [size, size]
  if len(sides) != 2:
    raise ValueError
  return (*sides, 3 if said.get("num_channels") is None else said["num_channels"])


def _side(model: Mapping[str, Any]) -> int | list[int]:
  height, width, _ = model["data_shape"]
  return height if height == width else [height, width]


_LAYER = "@encoder.layer.{l}"
_BARE = (Ours("head_hidden", (0,)),)
_TOLD = (
  Field(
    "pooler_output_size",
    "head_hidden",
    read=lambda said: (
      said["hidden_size"] if said.get("pooler_output_size") is None else said["pooler_output_size"]
    ),
  ),
  Only("pooler_act", ("tanh",)),
)

FAMILY = Family(
  kind="vit",
  prefix="vit.",
  sizes=_sizes,
  fields=(
    Field("image_size", "data_shape", read=_shape, write=_side),
    Field("num_channels", "data_shape", read=_shape, write=lambda model: model["data_shape"][-1]),
    Field("patch_size", "patch"),
    Field("num_hidden_layers", "layers"),
    Field("hidden_size", "features"),
    Field("num_attention_heads", "heads"),
    Field("intermediate_size", "mlp_features", write=hidden),
    Field("layer_norm_eps", "epsilon", 1e-12),
    Field("hidden_dropout_prob", "dropout", 0.0),
    Field("attention_probs_dropout_prob", "attention_dropout", 0.0),
    Only("hidden_act", ("gelu", "gelu_python")),
    Only("qkv_bias", (True,)),
    Ours("positions", ("learned",)),
  ),
  rows=(
    Row("@embeddings.cls_token", "class_token", "1 1 d -> d"),
    Row("@embeddings.position_embeddings", "position_embedding", "1 t d -> t d"),
    *linear(
      "@embeddings.patch_embeddings.projection", "patch_embedding", "d k i j -> i j k d", "d"
    ),
    *(
      row
      for name in ("query", "key", "value")
      for row in linear(
        f"{_LAYER}.attention.attention.{name}",
        f"encoder_layers/attention/{name}",
        "(n h) d -> d n h",
        "(n h) -> n h",
      )
    ),
    *linear(
      f"{_LAYER}.attention.output.dense", "encoder_layers/attention/output", "d (n h) -> n h d", "d"
    ),
    *norm(f"{_LAYER}.layernorm_before", "encoder_layers/attention_norm"),
    *linear(f"{_LAYER}.intermediate.dense", "encoder_layers/mlp/up", "f d -> d f", "f"),
    *linear(f"{_LAYER}.output.dense", "encoder_layers/mlp/down", "d f -> f d", "d"),
    *norm(f"{_LAYER}.layernorm_after", "encoder_layers/mlp_norm"),
    *norm("@layernorm", "final_norm"),
  ),
  heads=(
    Head(
      "ViTForImageClassification",
      "transformer.vit",
      linear("classifier", "head", "c d -> d c", "c"),
      (*_BARE, *CLASSES),
    ),
    # Without a classifier; what they call a pooler is the layer below it.
    Head(
      "ViTModel",
      "transformer.vit",
      linear("@pooler.dense", "representation", "r d -> d r", "r"),
      _TOLD,
      base=True,
    ),
    Head("ViTModel", "transformer.vit", (), _BARE, base=True),
  ),
)
