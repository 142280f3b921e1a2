"""ALBERT: shared layers and small embeddings, and which question about two stretches of text.

Two encoders are pre-trained on pairs of stretches. One is asked whether they are in their order, the
other whether the second belongs to the first at all. A second stage learns nothing (its rate is 0):
it asks the encoder one of the two questions of held-out pairs.

Paper     Lan et al. 2020, "ALBERT", arXiv:1909.11942, sections 3.1 and 4.6, tables 1 and 5.
Run       python launch.py train --config=experiments/bert/albert_kjv.py:small --workdir=runs/albert
Takes     small: about 3 min on two CPU cores.
Data      paper (ALBERT-base): text of your own, a sentence a line and an empty line between
          documents, and a vocabulary of 30,000 pieces; AdamW, not LAMB. small: the King James
          Bible, of which whole chapters are held out, and their verses.
"""

from ml_collections import ConfigDict

_NEXT = {"stages.0.data.relation": "next"}

CLAIMS = [
  dict(
    name="order",
    statement="who was trained to tell the order of two stretches tells it, of held-out text, more"
    " often than who was trained to tell foreign stretches, by at least 5 points",
    paper="Lan et al. 2020, table 5",
    metric="relation_accuracy",
    split="test",
    relation="relation_accuracy > rival.relation_accuracy + 0.05",
    rivals=[_NEXT],
    published="86.5 against 52.0 (SOP)",
    seeds=3,
    cost="small: 6 runs of 3 min on two CPU cores",
  ),
  dict(
    name="next_is_blind_to_order",
    statement="who was trained to tell foreign stretches tells the order hardly better than chance",
    paper="Lan et al. 2020, table 5",
    metric="relation_accuracy",
    split="test",
    relation="relation_accuracy < 0.55",
    settings=[_NEXT],
    published="52.0",
    seeds=3,
    cost="small: 3 runs of 3 min on two CPU cores",
  ),
]


def get_config(variant="paper"):
  smoke = variant == "smoke"
  if variant == "paper":
    sizes = dict(layers=12, features=768, heads=12, embedding_features=128)
    task = dict(mask_token=4, ngrams=3)
    data = dict(
      name="sentence_pairs:files",
      path="corpora/albert/*.txt",
      tokenizer="corpora/albert/tokenizer.json",
      vocabulary=30_000,
      length=512,
      batch_size=4096,
    )
    optimizer = dict(learning_rate=1.76e-3, warmup_steps=3125)
    training = dict(steps=125_000, eval_every=5000, checkpoint_every=5000)
  else:
    sizes = (
      dict(layers=2, features=16, heads=2, embedding_features=8)
      if smoke
      else dict(layers=2, features=128, heads=4, embedding_features=48, init_std=0.05)
    )
    task = dict(rate=0.3)
    data = dict(
      name="sentence_pairs:kjv",
      tokenizer="wordpiece",
      vocabulary=300 if smoke else 1000,
      length=24 if smoke else 64,
      batch_size=4 if smoke else 32,
      eval_batch_size=8 if smoke else 100,
      validation=0.02,
      train_examples=32 if smoke else 0,
      test_examples=8 if smoke else 0,
    )
    optimizer = dict(learning_rate=2e-3, warmup_steps=1 if smoke else 150)
    training = (
      dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
      if smoke
      else dict(steps=2000, log_every=50, eval_every=1000, checkpoint_every=1000)
    )
  model = dict(name="transformer.bert", shared="all", activation="gelu_tanh", **sizes)
  model |= dict(dropout=0.0, attention_dropout=0.0)
  optimizer |= dict(
    name="adamw", schedule="linear", final_fraction=1e-4, weight_decay=0.01, clip_norm=1.0
  )
  block = dict(model=model, task=dict(name="pretrain_bert", **task))
  data = dict(data, relation="order")
  asked = dict(
    block,
    name="asked",
    data=dict(data),
    optimizer=dict(name="sgd", learning_rate=0.0),
    training=dict(training, steps=2 if smoke else 1, log_every=1, eval_every=1, checkpoint_every=1),
  )
  pretraining = dict(block, name="pretraining", data=data, optimizer=optimizer, training=training)
  return ConfigDict(dict(seed=0, stages=[pretraining, asked]))
