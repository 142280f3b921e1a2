"""GPT-2 (Radford et al. 2019), whose matrices are kept as [inputs, outputs].

Letters: l layers, v vocabulary, t positions, d features, n heads of h features, z the queries, keys
and values that are one matrix, f features inside the MLP.
"""

from collections.abc import Mapping
from typing import Any

from interop.family import ACTIVATIONS, Family, Field, Head, Only, Ours, hidden, of_heads
from interop.mapping import Row, linear, norm

LAYER = "@h.{l}"


def together(kind: str) -> tuple[str, ...]:
  """Paths of queries, keys and values."""
  return tuple(f"decoder_layers/attention/{name}/{kind}" for name in ("query", "key", "value"))


LAYERS = (
  Row(f"{LAYER}.attn.c_attn.weight", together("kernel"), "d (z n h) -> z d n h"),
  Row(f"{LAYER}.attn.c_attn.bias", together("bias"), "(z n h) -> z n h"),
  *linear(f"{LAYER}.attn.c_proj", "decoder_layers/attention/output", "(n h) d -> n h d", "d"),
  *norm(f"{LAYER}.ln_1", "decoder_layers/attention_norm"),
  *linear(f"{LAYER}.mlp.c_fc", "decoder_layers/mlp/up", "d f", "f"),
  *linear(f"{LAYER}.mlp.c_proj", "decoder_layers/mlp/down", "f d", "d"),
  *norm(f"{LAYER}.ln_2", "decoder_layers/mlp_norm"),
)


def sizes(model: Mapping[str, Any]) -> dict[str, int]:
  """Of a GPT of ours."""
  return {
    **of_heads(model["features"], model["heads"]),
    "l": model["layers"],
    "v": model["vocabulary"],
    "t": model["length"],
    "f": hidden(model),
    "z": 3,
  }


SETTINGS = (
  Field("vocab_size", "vocabulary"),
  Field("n_positions", "length"),
  Field("n_layer", "layers"),
  Field("n_embd", "features"),
  Field("n_head", "heads"),
  Field("layer_norm_epsilon", "epsilon", 1e-5),
  Field("initializer_range", "init_std", 0.02),
  Field("resid_pdrop", "dropout", 0.1),
  Field("embd_pdrop", "dropout", 0.1, read=lambda said: said.get("resid_pdrop")),
  Field("attn_pdrop", "attention_dropout", 0.1),
  Ours("head_features", (0,)),
  Ours("positions", ("learned",)),
  Ours("window", (0,)),
)

FAMILY = Family(
  kind="gpt2",
  prefix="transformer.",
  sizes=sizes,
  fields=(
    *SETTINGS,
    Field("n_inner", "mlp_features", 0, write=hidden),
    Field("activation_function", "activation", "gelu_tanh", ACTIVATIONS),
    Field("tie_word_embeddings", "tied", True),
    Only("scale_attn_weights", (True,)),
    Only("scale_attn_by_inverse_layer_idx", (False,)),
    Only("add_cross_attention", (False,)),
    Ours("norm_place", ("pre",)),
  ),
  rows=(
    Row("@wte.weight", "embedding", "v d"),
    Row("@wpe.weight", "position_embedding", "t d"),
    *LAYERS,
    *norm("@ln_f", "final_norm"),
  ),
  heads=(
    Head(
      "GPT2LMHeadModel",
      "transformer.gpt",
      (Row("lm_head.weight", "unembedding", "v d", when=lambda model: not model["tied"]),),
    ),
    Head("GPT2Model", "transformer.gpt", fields=(Ours("tied", (True,)),), base=True),
  ),
  copies={"lm_head.weight": "@wte.weight"},
  buffers=("@h.{l}.attn.bias", "@h.{l}.attn.masked_bias"),  # who sees whom
)
