"""Megatron-LM and Turing-NLG: GPT-2 beyond what one device holds.

Paper     Shoeybi et al. 2019, arXiv:1909.08053, Tables 2 and 3 and section 4.2; Rosset 2020,
          "Turing-NLG: A 17-billion-parameter language model by Microsoft".
Run       python launch.py train --config=experiments/gpt/megatron.py:small --workdir=runs/megatron
Takes     small: about 40 s on two CPU cores.
Data      paper (8.3B), 2.5b, 355m, turing-nlg: text you bring as files, with GPT-2's tokenizer, its
          vocabulary padded to 51,200 so that 8 devices share it evenly. Turing-NLG's vocabulary,
          length and batch were not published and are Megatron's. Set training.mesh to split a model
          over devices (docs/scale.md). bfloat16 stands for the paper's float16.
          small: the King James Bible in 1,000 byte pairs with 1,024 entries, held-out chapters.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="perplexity",
    statement="perplexity of held-out text, per token; measured, not judged. The paper's is per"
    " word of the original text",
    paper="Shoeybi et al. 2019, Table 3; Rosset 2020",
    metric="perplexity",
    split="test",
    relation="",
    published="WikiText-103: 355M 19.31, 2.5B 12.76, 8.3B 10.81, Turing-NLG 10.21",
    seeds=3,
    cost="small: 3 runs of 40 s on two CPU cores",
  ),
]

_SIZES = {  # layers, features, heads
  "paper": (72, 3072, 24),
  "2.5b": (54, 1920, 20),
  "355m": (24, 1024, 16),
  "turing-nlg": (78, 4256, 28),
}
VARIANTS = ("2.5b", "355m", "turing-nlg")


def get_config(variant="paper"):
  smoke = variant == "smoke"
  if variant in _SIZES:
    layers, features, heads = _SIZES[variant]
    model = dict(layers=layers, features=features, heads=heads)
    model |= dict(dropout=0.1, attention_dropout=0.1)
    data = dict(
      name="text:files",
      path="corpora/megatron/*.txt",
      tokenizer="corpora/megatron/tokenizer.json",
      vocabulary=51_200,
      length=1024,
      batch_size=512,
    )
    optimizer = dict(learning_rate=1.5e-4, warmup_steps=3000, final_fraction=1 / 15)
    training = dict(
      steps=300_000, eval_every=1000, checkpoint_every=1000, dtype="bfloat16", remat=True
    )
  else:
    model = dict(
      layers=2 if smoke else 4,
      features=16 if smoke else 96,
      heads=2 if smoke else 4,
      dropout=0.0,
      attention_dropout=0.0,
    )
    data = dict(
      name="text:kjv",
      tokenizer="bytes" if smoke else "bpe",
      vocabulary=384 if smoke else 1024,
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
      model=dict(name="transformer.gpt", **model),
      task=dict(name="language_model"),
      data=data,
      optimizer=dict(
        name="adamw", schedule="cosine", clip_norm=1.0, weight_decay=0.01, **optimizer
      ),
      training=training,
    )
  )
