"""A small GPT beats a 6-gram at predicting the Bible, in bits of held-out characters.

Paper     Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; Witten & Bell
          1991 for the n-gram. The comparison is ours.
Run       python launch.py train --config=experiments/gpt/gpt_kjv.py:small --workdir=runs/gpt_kjv
Takes     small: about 3 min on two CPU cores.
Data      the King James Bible, held-out chapters. The GPT reads 2,000 byte pairs learned from the
          chapters trained on, the n-gram characters; both pay for the same characters. The GPT is
          evaluated in rows that overlap, so that each token has half a row before it. paper: 124M
          parameters on the same text.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="gpt_beats_6_gram",
    statement="fewer bits a character of held-out chapters than a Witten-Bell 6-gram of characters",
    paper="Radford et al. 2019; the rival is ours",
    metric="bits_per_character",
    split="test",
    relation="bits_per_character < ngram_bits_per_character",
    seeds=3,
    cost="small: 3 runs of 3 min on two CPU cores",
  ),
]


def get_config(variant="paper"):
  smoke, paper = variant == "smoke", variant == "paper"
  if paper:
    model = dict(layers=12, features=768, heads=12, dropout=0.1, attention_dropout=0.1)
  else:
    model = dict(
      layers=2 if smoke else 6,
      features=16 if smoke else 128,
      heads=2 if smoke else 4,
      init_std=0.05,
      dropout=0.0,
      attention_dropout=0.0,
    )
  length = {"paper": 512, "small": 128, "smoke": 16}[variant]
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="transformer.gpt", positions="rotary", **model),
      task=dict(name="language_model", ngram_order=2 if smoke else 6),
      data=dict(
        name="text:kjv",
        tokenizer="bytes" if smoke else "bpe",
        vocabulary=0 if smoke else 2000,
        length=length,
        stride=length // 2,
        batch_size={"paper": 32, "small": 8, "smoke": 4}[variant],
        eval_batch_size=8 if smoke else 32,
        validation=0.0,
        train_examples=64 if smoke else 0,
        test_examples=8 if smoke else 0,
      ),
      optimizer=dict(
        name="adamw",
        learning_rate=6e-4 if paper else 4e-3,
        b2=0.95,
        schedule="cosine",
        warmup_steps={"paper": 500, "small": 100, "smoke": 1}[variant],
        clip_norm=1.0,
        weight_decay=0.1,
      ),
      training=dict(
        steps={"paper": 5000, "small": 800, "smoke": 4}[variant],
        log_every=1 if smoke else 100,
        eval_every=2 if smoke else 400,
        checkpoint_every=2 if smoke else 400,
      ),
    )
  )
