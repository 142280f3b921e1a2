"""LLaMA (Touvron et al. 2023), in the layout of Hugging Face, whose halves of a head rotate.

Meta's files, and our `rotary="pairs"`, have the two coordinates of a rotation side by side: their
queries and keys are the same ones in another order.

Letters: l layers, v vocabulary, d features, n heads of h features, g heads of keys and values,
s the two coordinates of p rotations (h = 2 p), f features inside the MLP.
"""

from collections.abc import Mapping
from typing import Any

from interop.errors import Unreadable
from interop.family import Family, Field, Head, Only, Ours, of_heads
from interop.mapping import Row

_LAYER = "@layers.{l}"


def _hidden(model: Mapping[str, Any]) -> int:
  # Two thirds of 4 D, up to a multiple of 256, where nothing is said.
  return model["mlp_features"] or -(-(8 * model["features"] // 3) // 256) * 256


def _sizes(model: Mapping[str, Any]) -> dict[str, int]:
  heads = of_heads(model["features"], model["heads"])
  if heads["h"] % 2:
    raise Unreadable(f"heads of {heads['h']} features do not rotate")
  return {
    **heads,
    "l": model["layers"],
    "v": model["vocabulary"],
    "g": model["kv_heads"] or model["heads"],
    "s": 2,
    "p": heads["h"] // 2,
    "f": _hidden(model),
  }


def _rotation(said: Mapping[str, Any]) -> Mapping[str, Any]:
  """The parameters of rotations, which are a dict of their own since Transformers 5."""
  found = {**(said.get("rope_parameters") or {}), **(said.get("rope_scaling") or {})}
  kind = found.get("rope_type", found.get("type", "default"))
  if kind != "default" or "factor" in found:
    raise Unreadable(
      f"config.json: rope_scaling, or rope_parameters, is of type {str(kind)[:40]!r}, and our"
      " rotations know the default alone"
    )
  return found


def _base(said: Mapping[str, Any]) -> Any:
  found = _rotation(said)
  return found["rope_theta"] if "rope_theta" in found else said.get("rope_theta")


def _by_rotation(name: str, theirs: str, heads: str) -> tuple[Row, Row]:
  path = f"decoder_layers/attention/{name}/kernel"
  halves = f"({heads} h) d -> d {heads} h"
  pairs = f"({heads} s p) d -> d {heads} (p s)"
  return (
    Row(theirs, path, halves, when=lambda model: model["rotary"] == "halves"),
    Row(theirs, path, pairs, when=lambda model: model["rotary"] == "pairs"),
  )


FAMILY = Family(
  kind="llama",
  prefix="model.",
  sizes=_sizes,
  fields=(
    Field("vocab_size", "vocabulary"),
    Field("max_position_embeddings", "length", 2048),
    Field("num_hidden_layers", "layers"),
    Field("hidden_size", "features"),
    Field("num_attention_heads", "heads"),
    Field(
      "num_key_value_heads",
      "kv_heads",
      0,
      write=lambda model: model["kv_heads"] or model["heads"],
    ),
    Field("intermediate_size", "mlp_features", write=_hidden),
    Field("rms_norm_eps", "epsilon", 1e-6),
    Field("rope_theta", "rotary_base", 10_000.0, read=_base),
    Field("initializer_range", "init_std", 0.02),
    Field(
      "head_dim",
      "features",
      read=lambda said: (
        (said.get("head_dim") or 0) * said["num_attention_heads"] or said["hidden_size"]
      ),
      write=lambda model: model["features"] // model["heads"],
    ),
    Only("hidden_act", ("silu", "swish")),
    Only("attention_bias", (False,)),
    Only("mlp_bias", (False,)),
    Only("tie_word_embeddings", (False,)),
    Ours("rotary", ("halves", "pairs")),
  ),
  rows=(
    Row("@embed_tokens.weight", "embedding", "v d"),
    *_by_rotation("query", f"{_LAYER}.self_attn.q_proj.weight", "n"),
    *_by_rotation("key", f"{_LAYER}.self_attn.k_proj.weight", "g"),
    Row(
      f"{_LAYER}.self_attn.v_proj.weight",
      "decoder_layers/attention/value/kernel",
      "(g h) d -> d g h",
    ),
    Row(
      f"{_LAYER}.self_attn.o_proj.weight",
      "decoder_layers/attention/output/kernel",
      "d (n h) -> n h d",
    ),
    Row(f"{_LAYER}.input_layernorm.weight", "decoder_layers/attention_norm/scale", "d"),
    # The activation is of the projection that Hugging Face calls the gate.
    Row(f"{_LAYER}.mlp.gate_proj.weight", "decoder_layers/mlp/up/kernel", "f d -> d f"),
    Row(f"{_LAYER}.mlp.up_proj.weight", "decoder_layers/mlp/gate/kernel", "f d -> d f"),
    Row(f"{_LAYER}.mlp.down_proj.weight", "decoder_layers/mlp/down/kernel", "d f -> f d"),
    Row(f"{_LAYER}.post_attention_layernorm.weight", "decoder_layers/mlp_norm/scale", "d"),
    Row("@norm.weight", "final_norm/scale", "d"),
  ),
  heads=(
    Head("LlamaForCausalLM", "transformer.llama", (Row("lm_head.weight", "unembedding", "v d"),)),
  ),
  buffers=("@layers.{l}.self_attn.rotary_emb.inv_freq", "@rotary_emb.inv_freq"),
)
