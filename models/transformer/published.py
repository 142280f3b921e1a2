"""Sizes of Transformers as their papers print them: fields of the models, by model and name.

An experiment writes its own sizes down; the tests hold both to the same numbers, and to the exact
count of parameters that follows from them.
"""

from typing import Any

Sizes = dict[str, dict[str, Any]]


def _transformer(**changes) -> dict[str, Any]:
  """A row of Vaswani et al. 2017, Table 3: base, and what is different.

  The vocabulary is section 5.1's "about 37000 tokens". With it every row counts 1 to 4 million
  parameters less than the table says; the differences between rows agree.
  """
  return dict(source_vocabulary=37_000, target_vocabulary=37_000, **changes)


def _depth(layers: int) -> dict[str, Any]:
  return _transformer(encoder_layers=layers, decoder_layers=layers)


_BIG = dict(features=1024, heads=16, mlp_features=4096)
_FRENCH = dict(source_vocabulary=32_000, target_vocabulary=32_000)  # section 5.1, word pieces

# Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, Table 3.
ENCODER_DECODER: Sizes = {
  "base": _transformer(),
  "big": _transformer(**_BIG),
  "base-french": _FRENCH,
  "big-french": dict(_FRENCH, **_BIG),
  "A1": _transformer(heads=1),
  "A4": _transformer(heads=4),
  "A16": _transformer(heads=16),
  "A32": _transformer(heads=32),
  "B16": _transformer(head_features=16),  # keys of 16; here values are as wide as keys
  "B32": _transformer(head_features=32),
  "C2": _depth(2),
  "C4": _depth(4),
  "C8": _depth(8),
  "C256": _transformer(features=256, head_features=32),
  "C1024": _transformer(features=1024, head_features=128),
  "C1024-mlp": _transformer(mlp_features=1024),
  "C4096-mlp": _transformer(mlp_features=4096),
  "E": _transformer(positions="learned"),
}


def _gpt(layers: int, features: int, heads: int, *, vocabulary=50_257, length=1024, **changes):
  return dict(
    vocabulary=vocabulary,
    length=length,
    layers=layers,
    features=features,
    heads=heads,
    **changes,
  )


GPT: Sizes = {
  # Radford et al. 2018. 40,000 merges; the released vocabulary has 40,478 entries.
  "gpt1": _gpt(12, 768, 12, vocabulary=40_478, length=512, norm_place="post"),
  # Radford et al. 2019, Table 2, which prints 117M, 345M, 762M and 1542M.
  "gpt2": _gpt(12, 768, 12),
  "gpt2-medium": _gpt(24, 1024, 16),
  "gpt2-large": _gpt(36, 1280, 20),
  "gpt2-xl": _gpt(48, 1600, 25),
  # Brown et al. 2020, arXiv:2005.14165, Table 2.1.
  "gpt3-small": _gpt(12, 768, 12, length=2048),
  "gpt3-medium": _gpt(24, 1024, 16, length=2048),
  "gpt3-large": _gpt(24, 1536, 16, length=2048),
  # The table has 24 heads of 128, which is 3072 and not 2048, and would count 1.5B.
  "gpt3-xl": _gpt(24, 2048, 16, length=2048),
  "gpt3-2.7b": _gpt(32, 2560, 32, length=2048),
  "gpt3-6.7b": _gpt(32, 4096, 32, length=2048),
  # The table has 5140 features, but its 40 heads of 128 make 5120.
  "gpt3-13b": _gpt(40, 5120, 40, length=2048),
  "gpt3-175b": _gpt(96, 12_288, 96, length=2048),
  # Shoeybi et al. 2019, arXiv:1909.08053, Table 2; the vocabulary padded for 8 devices.
  "megatron-355m": _gpt(24, 1024, 16, vocabulary=51_200),
  "megatron-2.5b": _gpt(54, 1920, 20, vocabulary=51_200),
  "megatron-8.3b": _gpt(72, 3072, 24, vocabulary=51_200),
  # Table 1, the study of scaling.
  "megatron-1.2b": _gpt(40, 1536, 16, vocabulary=51_200),
  "megatron-4.2b": _gpt(64, 2304, 24, vocabulary=51_200),
  # Rosset 2020. Vocabulary and length were not published; these are GPT-2's.
  "turing-nlg": _gpt(78, 4256, 28),
}


def _llama(
  layers: int, features: int, heads: int, mlp_features: int, *, length=2048, **changes
) -> dict[str, Any]:
  return dict(
    vocabulary=32_000,
    length=length,
    layers=layers,
    features=features,
    heads=heads,
    mlp_features=mlp_features,
    **changes,
  )


LLAMA: Sizes = {
  # Touvron et al. 2023, arXiv:2302.13971, Table 2. Llama 2's 7B and 13B are as large.
  "7b": _llama(32, 4096, 32, 11_008),
  "13b": _llama(40, 5120, 40, 13_824),
  "33b": _llama(60, 6656, 52, 17_920),
  "65b": _llama(80, 8192, 64, 22_016),
  # Touvron et al. 2023, arXiv:2307.09288.
  "llama2-34b": _llama(48, 8192, 64, 22_016, length=4096, kv_heads=8, epsilon=1e-5),
  "llama2-70b": _llama(80, 8192, 64, 28_672, length=4096, kv_heads=8, epsilon=1e-5),
}


def _bert(
  layers: int, features: int, heads: int, *, vocabulary=30_522, types=2, **changes
) -> dict[str, Any]:
  return dict(
    vocabulary=vocabulary,
    length=512,
    layers=layers,
    features=features,
    heads=heads,
    types=types,
    **changes,
  )


def _albert(layers: int, features: int, heads: int) -> dict[str, Any]:
  small = dict(embedding_features=128, shared="all", activation="gelu_tanh")
  return _bert(layers, features, heads, vocabulary=30_000, **small)


_ROBERTA = dict(vocabulary=50_265, types=1, position_offset=2, epsilon=1e-5)

ENCODER: Sizes = {
  # Devlin et al. 2019, arXiv:1810.04805, section 3; the vocabulary of the lower-cased release.
  "bert-base": _bert(12, 768, 12),
  "bert-large": _bert(24, 1024, 16),
  # Liu et al. 2019, arXiv:1907.11692, as released.
  "roberta-base": _bert(12, 768, 12, **_ROBERTA),
  "roberta-large": _bert(24, 1024, 16, **_ROBERTA),
  # Lan et al. 2020, arXiv:1909.11942, table 1, which prints 12M, 18M, 60M and 235M.
  "albert-base": _albert(12, 768, 12),
  "albert-large": _albert(24, 1024, 16),
  "albert-xlarge": _albert(24, 2048, 32),
  "albert-xxlarge": _albert(12, 4096, 64),
  # Sanh et al. 2019, arXiv:1910.01108, table 3, which prints 66M.
  "distilbert": _bert(6, 768, 12, types=0),
  # Wang et al. 2020, arXiv:2002.10957, as sentence-transformers released it.
  "minilm-l6": _bert(6, 384, 12),
}


def _t5(
  layers: int, features: int, heads: int, mlp_features: int, *, head_features=64, **changes
) -> dict[str, Any]:
  """32,000 pieces and 100 sentinels, padded to 32,128 ids."""
  return dict(
    vocabulary=32_128,
    head_features=head_features,
    encoder_layers=layers,
    decoder_layers=layers,
    features=features,
    heads=heads,
    mlp_features=mlp_features,
    **changes,
  )


_GATED = dict(activation="gelu_tanh", gated=True, tied=False)

T5: Sizes = {
  # Raffel et al. 2020, arXiv:1910.10683, section 3.7.
  "small": _t5(6, 512, 8, 2048),
  "base": _t5(12, 768, 12, 3072),
  "large": _t5(24, 1024, 16, 4096),
  "3b": _t5(24, 1024, 32, 16_384, head_features=128),
  "11b": _t5(24, 1024, 128, 65_536, head_features=128),
  # Released later as 1.1.
  "1.1-small": _t5(8, 512, 6, 1024, **_GATED),
  "1.1-base": _t5(12, 768, 12, 2048, **_GATED),
}


def _vit(patch: int, layers: int, features: int, heads: int) -> dict[str, Any]:
  return dict(patch=patch, layers=layers, features=features, heads=heads)


# Dosovitskiy et al. 2021, arXiv:2010.11929, table 1, which prints 86M, 307M and 632M.
VIT: Sizes = {
  "b16": _vit(16, 12, 768, 12),
  "b32": _vit(32, 12, 768, 12),
  "l16": _vit(16, 24, 1024, 16),
  "l32": _vit(32, 24, 1024, 16),
  "h14": _vit(14, 32, 1280, 16),
}
