"""Sentence vectors from pairs seen one at a time: verses of one chapter lie near each other.

Paper     Reimers & Gurevych 2019, "Sentence-BERT", arXiv:1908.10084, section 3 and table 1.
Run       python launch.py train --config=experiments/bert/sentences_kjv.py:small --workdir=runs/sentences
Takes     small: about 3 min on two CPU cores, half of it pre-training.
Data      paper: BERT-base from Hugging Face, pairs with a class in a TSV file (SNLI and MultiNLI).
          small: pairs of verses of the King James Bible, whether the second follows the first,
          whole chapters held out; and a BERT that is pre-trained on its training chapters.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="fine_tuning",
    statement="after siamese fine-tuning the cosine of two held-out verses' vectors says more about"
    " whether one follows the other than before it (a rate of 0)",
    paper="Reimers & Gurevych 2019, table 1 (against averaged BERT vectors)",
    metric="spearman",
    split="test",
    relation="spearman > rival.spearman + 0.05",
    rivals=[{"stages.1.optimizer.learning_rate": 0.0}],
    published="74.89 against 54.81",
    seeds=3,
    variants=("small",),
    cost="6 runs of 3 min on two CPU cores",
  ),
  dict(
    name="first_token",
    statement="the same without fine-tuning, of the mean and of the first token; measured, not"
    " judged",
    paper="Reimers & Gurevych 2019, table 1",
    metric="spearman",
    split="test",
    relation="",
    settings=[
      {"stages.1.optimizer.learning_rate": 0.0},
      {"stages.1.optimizer.learning_rate": 0.0, "stages.1.model.pooling": "first"},
    ],
    published="54.81 and 29.19",
    seeds=3,
    variants=("small",),
    cost="6 runs of 3 min on two CPU cores",
  ),
  dict(
    name="nli",
    statement="accuracy of pairs of sentences by their vectors; measured, not judged",
    paper="Reimers & Gurevych 2019, section 3",
    metric="accuracy",
    split="test",
    relation="",
    seeds=3,
    variants=("paper",),
    cost="3 runs of an hour on an accelerator",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return _published()
  smoke = variant == "smoke"
  sizes = dict(layers=1, features=16, heads=2) if smoke else dict(layers=3, features=96, heads=4)
  sizes |= dict(dropout=0.0, attention_dropout=0.0)
  text = dict(tokenizer="wordpiece", vocabulary=300 if smoke else 2000)
  text |= dict(batch_size=4, eval_batch_size=8) if smoke else dict(batch_size=32)
  few = dict(train_examples=32, test_examples=8) if smoke else dict(test_examples=1500)
  pretraining = dict(
    name="pretraining",
    model=dict(name="transformer.bert", **sizes),
    task=dict(name="pretrain_bert"),
    data=dict(name="sentence_pairs:kjv", length=24 if smoke else 64, **few, **text),
    optimizer=_optimizer(2e-3, 1 if smoke else 150),
    training=_training(smoke, 1000),
  )
  siamese = dict(
    name="siamese",
    model=dict(name="transformer.sentence_encoder", **sizes),
    task=dict(name="siamese", loss="regression"),
    data=dict(name="text_pairs:kjv_next", length=24 if smoke else 48, **few, **text),
    optimizer=_optimizer(3e-4, 1 if smoke else 50),
    training=_training(smoke, 500),
  )
  return ConfigDict(dict(seed=0, stages=[pretraining, siamese]))


def _optimizer(rate, warmup):
  return dict(
    name="adamw",
    learning_rate=rate,
    warmup_steps=warmup,
    schedule="linear",
    final_fraction=1e-4,
    weight_decay=0.01,
    clip_norm=1.0,
  )


def _training(smoke, steps):
  if smoke:
    return dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
  return dict(steps=steps, log_every=50, eval_every=steps // 2, checkpoint_every=steps // 2)


def _published():
  checkpoint = "checkpoints/bert-base-uncased"
  return ConfigDict(
    dict(
      seed=0,
      init_from=f"hf:{checkpoint}",
      model=dict(name="transformer.sentence_encoder", classified=True),
      task=dict(name="siamese"),
      data=dict(
        name="text_pairs:tsv",
        path="nli/train.tsv",
        test_path="nli/dev.tsv",
        columns=("sentence1", "sentence2"),
        label="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        tokenizer=f"{checkpoint}/tokenizer.json",
        vocabulary=30_522,
        length=128,
        batch_size=16,
      ),
      optimizer=_optimizer(2e-5, 6000),
      training=dict(steps=60_000, eval_every=5000, checkpoint_every=5000),
    )
  )
