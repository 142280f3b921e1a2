"""LLaMA: RMSNorm, gated MLPs and rotations, beside GPT-2's block of the same size.

Paper     Touvron et al. 2023, arXiv:2302.13971, Table 2 and section 2; arXiv:2307.09288 for 70b.
Run       python launch.py train --config=experiments/gpt/llama.py:small --workdir=runs/llama
Takes     small: about 45 s on two CPU cores.
Data      paper (7B), 13b, 33b, 65b, 70b (Llama 2's): text and a SentencePiece model of 32,000 pieces
          that you bring as files; 1.0, 1.4 and 2.0 trillion tokens.
          small: the King James Bible in 1,000 byte pairs, held-out chapters. The rival has GPT-2's
          layer norms, MLP of 4 D GELUs, biases and learned positions, the same unembedding, and
          1.4 % more parameters.
"""

from ml_collections import ConfigDict

_GPT2 = dict(
  name="transformer.gpt",
  layers=4,
  features=96,
  heads=4,
  tied=False,
  dropout=0.0,
  attention_dropout=0.0,
)
CLAIMS = [
  dict(
    name="beside_gpt2",
    statement="bits a character of held-out text, beside those of GPT-2's block, at equal steps"
    " and no more parameters; measured, not judged",
    paper="Touvron et al. 2023, section 2.2, which compares nothing",
    metric="bits_per_character",
    split="test",
    relation="",
    rivals=[{"model": _GPT2}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 45 s on two CPU cores",
  ),
  dict(
    name="perplexity",
    statement="perplexity of held-out text, per token; measured, not judged",
    paper="Touvron et al. 2023, which print training losses",
    metric="perplexity",
    split="test",
    relation="",
    seeds=3,
    cost="small: 3 runs of 45 s on two CPU cores",
  ),
]

_SIZES = {  # layers, features, heads, of keys, features of the MLP, length, rate, tokens
  "paper": (32, 4096, 32, 0, 11_008, 2048, 3.0e-4, 1.0e12),
  "13b": (40, 5120, 40, 0, 13_824, 2048, 3.0e-4, 1.0e12),
  "33b": (60, 6656, 52, 0, 17_920, 2048, 1.5e-4, 1.4e12),
  "65b": (80, 8192, 64, 0, 22_016, 2048, 1.5e-4, 1.4e12),
  "70b": (80, 8192, 64, 8, 28_672, 4096, 1.5e-4, 2.0e12),
}
_BATCH = 4_194_304  # tokens
VARIANTS = ("13b", "33b", "65b", "70b")


def get_config(variant="paper"):
  smoke = variant == "smoke"
  if variant in _SIZES:
    layers, features, heads, kv_heads, wide, length, rate, tokens = _SIZES[variant]
    model = dict(layers=layers, features=features, heads=heads, kv_heads=kv_heads)
    model |= dict(mlp_features=wide, epsilon=1e-5 if variant == "70b" else 1e-6)
    data = dict(
      name="text:files",
      path="corpora/llama/*.txt",
      tokenizer="corpora/llama/tokenizer.model",
      vocabulary=32_000,
      length=length,
      batch_size=_BATCH // length,
    )
    optimizer = dict(learning_rate=rate, warmup_steps=2000)
    training = dict(
      steps=int(tokens) // _BATCH,
      eval_every=1000,
      checkpoint_every=1000,
      dtype="bfloat16",
      remat=True,
    )
  else:
    model = dict(
      layers=2 if smoke else 4,
      features=16 if smoke else 96,
      heads=2 if smoke else 4,
      kv_heads=1 if smoke else 0,
      mlp_features=24 if smoke else 256,
    )
    data = dict(
      name="text:kjv",
      tokenizer="bytes" if smoke else "bpe",
      vocabulary=0 if smoke else 1000,
      length=16 if smoke else 64,
      batch_size=4 if smoke else 16,
      eval_batch_size=8 if smoke else 64,
      validation=0.0,
      train_examples=64 if smoke else 0,
      test_examples=8 if smoke else 0,
    )
    optimizer = dict(learning_rate=3e-3, warmup_steps=1 if smoke else 100)
    training = (
      dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
      if smoke
      else dict(steps=600, log_every=50, eval_every=300, checkpoint_every=300)
    )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="transformer.llama", **model),
      task=dict(name="language_model"),
      data=data,
      optimizer=dict(
        name="adamw",
        b2=0.95,
        schedule="cosine",
        final_fraction=0.1,
        clip_norm=1.0,
        weight_decay=0.1,
        **optimizer,
      ),
      training=training,
    )
  )
