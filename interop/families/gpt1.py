"""GPT-1 (Radford et al. 2018): norms behind the sub-layers. Letters as in families/gpt2.py."""

from interop.families import gpt2
from interop.family import Family, Field, Head, Ours
from interop.mapping import Row

FAMILY = Family(
  kind="openai-gpt",
  prefix="transformer.",
  sizes=gpt2.sizes,
  fields=(
    *gpt2.SETTINGS,
    # What they call "gelu" here is its approximation by tanh.
    Field(
      "afn",
      "activation",
      "gelu_tanh",
      (("gelu_tanh", "gelu"), ("relu", "relu"), ("silu", "silu"), ("silu", "swish")),
    ),
    Ours("mlp_features", (0,)),
    Ours("norm_place", ("post",)),
    Ours("tied", (True,)),
  ),
  rows=(
    Row("@tokens_embed.weight", "embedding", "v d"),
    Row("@positions_embed.weight", "position_embedding", "t d"),
    *gpt2.LAYERS,
  ),
  heads=(
    Head("OpenAIGPTLMHeadModel", "transformer.gpt"),
    Head("OpenAIGPTModel", "transformer.gpt", base=True),
  ),
  copies={"lm_head.weight": "@tokens_embed.weight"},
  buffers=("@h.{l}.attn.bias", "@position_ids"),
)
