"""A number for a pair of texts: how many words two verses share.

Paper     Devlin et al. 2019, "BERT", arXiv:1810.04805, section 4.1 and table 1 (STS-B).
Run       python launch.py train --config=experiments/bert/similarity_kjv.py:small --workdir=runs/similarity
Takes     small: about 80 s on two CPU cores, a third of it pre-training.
Data      paper: STS-B of GLUE from its own files and a cased BERT-base of Hugging Face, which you
          bring. small: a verse of the King James Bible, and the same with some of its words
          replaced by others, whole chapters held out; and a BERT that is pre-trained on its
          training chapters.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="beside_scratch",
    statement="Spearman's correlation, beside that of an encoder that was pre-trained for one step;"
    " measured, not judged: in so few steps neither learns to compare two texts",
    paper="Devlin et al. 2019, section 4.1; the task is ours",
    metric="spearman",
    split="test",
    relation="",
    rivals=[{"stages.0.training.steps": 1}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 80 s on two CPU cores",
  ),
  dict(
    name="stsb",
    statement="Spearman's correlation on GLUE's development set; measured, not judged",
    paper="Devlin et al. 2019, table 1 (test set, the best rate)",
    metric="spearman",
    split="test",
    relation="",
    published="85.8 (BERT-base, test set)",
    seeds=3,
    variants=("paper",),
    cost="3 runs of minutes on an accelerator",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return _published()
  smoke = variant == "smoke"
  sizes = dict(layers=1, features=16, heads=2) if smoke else dict(layers=2, features=64, heads=4)
  text = dict(tokenizer="wordpiece", vocabulary=300 if smoke else 1000)
  text |= dict(batch_size=4, eval_batch_size=8) if smoke else dict(batch_size=32)
  few = dict(train_examples=32, test_examples=8) if smoke else dict(test_examples=1000)
  pretraining = dict(
    name="pretraining",
    model=dict(name="transformer.bert", dropout=0.0, attention_dropout=0.0, **sizes),
    task=dict(name="pretrain_bert"),
    data=dict(name="sentence_pairs:kjv", length=24 if smoke else 64, **few, **text),
    optimizer=_optimizer(2e-3, 1 if smoke else 100),
    training=_training(smoke, 400),
  )
  fine_tuning = dict(
    name="fine_tuning",
    model=dict(name="transformer.classifier", **sizes),
    task=dict(name="text_regress"),
    data=dict(
      name="labelled_text:kjv_overlap",
      length=24 if smoke else 96,
      **few,
      **text,
    ),
    optimizer=_optimizer(5e-4, 1 if smoke else 100),
    training=_training(smoke, 400),
  )
  return ConfigDict(dict(seed=0, stages=[pretraining, fine_tuning]))


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
  checkpoint = "checkpoints/bert-base-cased"
  return ConfigDict(
    dict(
      seed=0,
      init_from=f"hf:{checkpoint}",
      model=dict(name="transformer.classifier"),
      task=dict(name="text_regress"),
      data=dict(
        name="labelled_text:stsb",
        path="glue_data",
        length=128,
        batch_size=32,
        tokenizer=f"{checkpoint}/tokenizer.json",
        vocabulary=28_996,
      ),
      optimizer=dict(
        name="adamw",
        learning_rate=2e-5,
        warmup_steps=51,
        schedule="linear",
        final_fraction=1e-4,
        weight_decay=0.01,
        clip_norm=1.0,
        epsilon=1e-6,
        bias_correction=False,
      ),
      training=dict(steps=512, eval_every=100, checkpoint_every=100),
    )
  )
