"""T5: a text-to-text Transformer that learned to fill in spans, fine-tuned on a task put as text.

Stage "pretraining" leaves spans out of the King James Bible and tells them; stage "finetuning"
reads "genre: <verse>" and writes in one word of what kind the verse's book is: law, history,
wisdom, prophets, gospels or epistles. It sees 100 verses of each. Without pretraining, the first
stage has one step.

Paper     Raffel et al. 2020, arXiv:1910.10683, sections 3.1 and 3.2.1, Table 1.
Run       python launch.py train --config=experiments/transformer/t5_kjv.py:small --workdir=runs/t5
          without pretraining: add --config.stages.0.training.steps=1
Takes     small: about 2.5 min on two CPU cores.
Data      small: the King James Bible, whole chapters held out from both stages. paper (T5-base): C4
          and T5's SentencePiece model, and the task as lines "input<TAB>answer", which you bring as
          files. 128 rows of 568 tokens are sources of 512. The rate, which the paper keeps at 0.01
          for 10,000 steps before it falls as 1 / sqrt(step), rises to that here.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="pretraining_by_denoising",
    statement="held-out verses are put to the right genre more often by a model that was trained to"
    " fill in spans of the text before than by one that was not, the word decoded greedily",
    paper="Raffel et al. 2020, Table 1",
    metric="exact_match",
    split="test",
    relation="exact_match > rival.exact_match",
    rivals=[{"stages.0.training.steps": 1}],
    seeds=3,
    variants=("small",),
    cost="small: 6 runs of at most 2.5 min on two CPU cores",
  ),
  dict(
    name="answers",
    statement="answers to held-out inputs of the task that is brought, right to the last letter;"
    " measured, not judged",
    paper="Raffel et al. 2020, Table 1",
    metric="exact_match",
    split="test",
    relation="",
    seeds=3,
    variants=("paper",),
    cost="3 runs on accelerators",
  ),
]


def get_config(variant="paper"):
  return ConfigDict(dict(seed=0, stages=_stages(variant)))


def _stages(variant):
  smoke = variant == "smoke"
  if variant == "paper":
    size = dict(
      encoder_layers=12,
      decoder_layers=12,
      features=768,
      heads=12,
      mlp_features=3072,
      dropout=0.1,
      attention_dropout=0.1,
    )
    # 32,000 pieces, 100 sentinels, and room that makes the number of ids a multiple of 128.
    tokens = dict(tokenizer="corpora/c4/spiece.model", vocabulary=32_128)
    corruption = dict(sentinel_tokens=100, first_sentinel=32_099)
    book = dict(name="text:files", path="corpora/c4/*.txt", length=568, batch_size=128)
    task = dict(
      name="text_to_text:files",
      path="corpora/task.tsv",
      source_length=512,
      target_length=62,
      batch_size=128,
    )
    optimizers = (
      dict(learning_rate=1e-2, schedule="inverse_sqrt", warmup_steps=10_000),
      dict(learning_rate=1e-3),
    )
    steps, every = (524_288, 262_144), (5000, 5000)
  else:
    size = dict(
      extra_ids=8,
      encoder_layers=1 if smoke else 2,
      decoder_layers=1 if smoke else 2,
      features=16 if smoke else 128,
      heads=2 if smoke else 4,
      mlp_features=32 if smoke else 384,
      dropout=0.0,
      attention_dropout=0.0,
    )
    tokens = dict(
      tokenizer="bpe",
      vocabulary=300 if smoke else 1000,
      validation=0.0 if smoke else 0.05,
    )
    corruption = dict(sentinel_tokens=8)
    book = dict(
      name="text:kjv",
      length=24 if smoke else 64,
      batch_size=4 if smoke else 32,
      eval_batch_size=8 if smoke else 64,
      train_examples=64 if smoke else 0,
      test_examples=8 if smoke else 0,
    )
    task = dict(
      name="text_to_text:kjv_genre",
      source_length=24 if smoke else 64,
      target_length=8,
      batch_size=4 if smoke else 32,
      eval_batch_size=8 if smoke else 128,
      train_per_answer=8 if smoke else 100,
      test_examples=8 if smoke else 0,
    )
    optimizers = (
      dict(learning_rate=5e-2, schedule="cosine", warmup_steps=1 if smoke else 100),
      dict(learning_rate=1e-2, schedule="cosine", warmup_steps=1 if smoke else 20),
    )
    steps, every = ((2, 4), (2, 2)) if smoke else ((1200, 200), (600, 100))
  model = dict(name="transformer.t5", **size)
  blocks = (
    dict(name="pretraining", task=dict(name="span_corruption", **corruption), data=book),
    dict(name="finetuning", task=dict(name="sequence_to_sequence"), data=task),
  )
  return [
    dict(
      block,
      model=model,
      data=dict(block["data"], **tokens),
      optimizer=dict(name="adafactor", **optimizer),
      training=dict(
        steps=count,
        log_every=1 if smoke else 50,
        eval_every=often,
        checkpoint_every=often,
      ),
    )
    for block, optimizer, count, often in zip(blocks, optimizers, steps, every, strict=True)
  ]
