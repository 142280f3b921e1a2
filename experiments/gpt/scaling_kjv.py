"""Larger models of one family predict held-out text better, after the same steps.

Paper     Kaplan et al. 2020, "Scaling Laws for Neural Language Models", arXiv:2001.08361; Brown et
          al. 2020, arXiv:2005.14165, figure 3.1: the loss falls smoothly with the size of GPT-3.
Run       python launch.py train --config=experiments/gpt/scaling_kjv.py:small --workdir=runs/scaling
Takes     small: 15 to 60 s on two CPU cores, by size.
Data      the King James Bible in 1,000 byte pairs, held-out chapters. paper: WebText, which you bring
          as files.
"""

import itertools

from ml_collections import ConfigDict

_HEAD = 16
_FEATURES = {"paper": (128, 256, 512, 1024), "small": (16, 32, 64, 128)}


def _size(features):
  return {"model.features": features, "model.heads": features // _HEAD}


CLAIMS = [
  dict(
    name=f"{larger}_beats_{smaller}",
    statement=f"held-out bits a character are fewer with {larger} features than with {smaller},"
    " after as many steps",
    paper="Kaplan et al. 2020, figure 1; Brown et al. 2020, figure 3.1",
    metric="bits_per_character",
    split="test",
    relation="bits_per_character < rival.bits_per_character",
    settings=[_size(larger)],
    rivals=[_size(smaller)],
    seeds=3,
    variants=(variant,),
    cost="4 sizes of 15 to 60 s on two CPU cores, each with 3 seeds" if variant == "small" else "",
  )
  for variant, sizes in _FEATURES.items()
  for smaller, larger in itertools.pairwise(sizes)
]


def get_config(variant="paper"):
  smoke, paper = variant == "smoke", variant == "paper"
  features = {"paper": 1024, "small": 128, "smoke": 32}[variant]
  if paper:
    data = dict(
      name="text:files",
      path="corpora/webtext/*.txt",
      tokenizer="corpora/webtext/tokenizer.json",
      vocabulary=50_257,
      length=1024,
      batch_size=512,
    )
  else:
    data = dict(
      name="text:kjv",
      tokenizer="bytes" if smoke else "bpe",
      vocabulary=0 if smoke else 1000,
      length=16 if smoke else 64,
      batch_size=4 if smoke else 8,
      eval_batch_size=8 if smoke else 64,
      validation=0.0,
      train_examples=64 if smoke else 0,
      test_examples=8 if smoke else 0,
    )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="transformer.gpt",
        layers={"paper": 12, "small": 4, "smoke": 2}[variant],
        features=features,
        heads=features // _HEAD,
        positions="rotary",
        dropout=0.0,
        attention_dropout=0.0,
      ),
      task=dict(name="language_model"),
      data=data,
      optimizer=dict(
        name="adamw",
        learning_rate=6e-4 if paper else 3e-3,
        b2=0.95,
        schedule="cosine",
        warmup_steps={"paper": 3000, "small": 100, "smoke": 1}[variant],
        clip_norm=1.0,
        weight_decay=0.1,
      ),
      training=dict(
        steps={"paper": 250_000, "small": 1000, "smoke": 4}[variant],
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 500,
        checkpoint_every=2 if smoke else 500,
      ),
    )
  )
