"""What pre-training is worth where labels are few: the genre of a verse from 20 examples of each.

Paper     Devlin et al. 2019, "BERT", arXiv:1810.04805, sections 3.1 and 5.1; Howard & Ruder 2018,
          arXiv:1801.06146, figure 3, of few labels.
Run       python launch.py train --config=experiments/bert/pretraining_kjv.py:small --workdir=runs/pretraining
Takes     small: about 6 min on two CPU cores, most of it pre-training. Of every text 30 % are hidden, not
          15 (Wettig et al. 2023, arXiv:2202.08005), and initial weights are larger, for so small
          an encoder; neither was tried alone.
Data      paper: text of your own, a sentence a line and an empty line between documents, a
          vocabulary of 30,522 word pieces, and MRPC of GLUE. small: the King James Bible, of which
          whole chapters are held out; which of six parts of it a verse is of.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="beats_scratch",
    statement="with 20 labels a class, an encoder that was pre-trained tells the genre of held-out"
    " verses more often than one pre-trained for a single step, by at least 5 points; beside it"
    " naive Bayes on the tokens (naive_bayes_accuracy)",
    paper="Devlin et al. 2019, section 5.1; the task is ours",
    metric="accuracy",
    split="test",
    relation="accuracy > rival.accuracy + 0.05",
    rivals=[{"stages.0.training.steps": 1}],
    seeds=3,
    variants=("small",),
    cost="3 runs of 6 min and 3 of 1 min on two CPU cores",
  ),
  dict(
    name="mrpc",
    statement="F1 of paraphrases after pre-training of one's own; measured, not judged",
    paper="Devlin et al. 2019, table 1 (test set)",
    metric="f1",
    split="test",
    relation="",
    published="88.9 (BERT-base, test set)",
    seeds=3,
    variants=("paper",),
    cost="3 runs of days on 64 accelerators",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return _published()
  smoke = variant == "smoke"
  sizes = dict(layers=1, features=16, heads=2) if smoke else dict(layers=4, features=96, heads=4)
  sizes |= dict(init_std=0.05)
  text = dict(tokenizer="wordpiece", vocabulary=300 if smoke else 1000)
  text |= dict(batch_size=4, eval_batch_size=8) if smoke else dict(batch_size=32)
  few = dict(train_examples=32, test_examples=8) if smoke else dict(test_examples=1500)
  pretraining = dict(
    name="pretraining",
    model=dict(name="transformer.bert", dropout=0.0, attention_dropout=0.0, **sizes),
    task=dict(name="pretrain_bert", rate=0.3),
    data=dict(name="sentence_pairs:kjv", length=24 if smoke else 64, **few, **text),
    optimizer=_optimizer(1e-3, 1 if smoke else 150),
    training=_training(smoke, 3000),
  )
  labels = few if smoke else dict(few, train_per_class=20)
  fine_tuning = dict(
    name="fine_tuning",
    model=dict(name="transformer.classifier", **sizes),
    task=dict(name="text_classify"),
    data=dict(name="labelled_text:kjv_genre", length=24 if smoke else 64, **labels, **text),
    optimizer=_optimizer(5e-4, 1 if smoke else 20),
    training=_training(smoke, 150),
  )
  return ConfigDict(dict(seed=0, stages=[pretraining, fine_tuning]))


def sweep_labels():
  return grid({"stages.1.data.train_per_class": (5, 20, 80, 320)})


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
  # 90 % of the steps at length 128 and the others at 512; after that, three epochs of MRPC.
  text = dict(tokenizer="corpora/bert/tokenizer.json", vocabulary=30_522)

  def pretraining(length, steps):
    return dict(
      name=f"length_{length}",
      model=dict(name="transformer.bert"),
      task=dict(name="pretrain_bert", mask_token=103),
      data=dict(
        name="sentence_pairs:files",
        path="corpora/bert/*.txt",
        length=length,
        batch_size=256,
        **text,
      ),
      optimizer=_optimizer(1e-4, 10_000),
      training=dict(steps=steps, eval_every=10_000, checkpoint_every=10_000),
    )

  fine_tuning = dict(
    name="fine_tuning",
    model=dict(name="transformer.classifier"),
    task=dict(name="text_classify"),
    data=dict(name="labelled_text:mrpc", path="glue_data", length=128, batch_size=32, **text),
    optimizer=_optimizer(2e-5, 33),
    training=dict(steps=327, eval_every=100, checkpoint_every=100),
  )
  stages = [pretraining(128, 900_000), pretraining(512, 100_000), fine_tuning]
  return ConfigDict(dict(seed=0, stages=stages))
