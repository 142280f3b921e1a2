"""How a text goes on, of four ways: second halves of verses of the Bible.

Paper     Devlin et al. 2019, "BERT", arXiv:1810.04805, section 4.4 and table 4.
Run       python launch.py train --config=experiments/bert/choices_kjv.py:small --workdir=runs/choices
Takes     small: about 80 s on two CPU cores, a third of it pre-training.
Data      paper: SWAG's files and a cased BERT-base of Hugging Face, which you bring. small: the
          first half of a verse of the King James Bible, and the second halves of it and of three
          verses of other chapters, whole chapters held out; and a BERT that is pre-trained on its
          training chapters.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="continuations",
    statement="the right second half of a held-out verse is chosen more often than by chance, by at"
    " least 5 points",
    paper="Devlin et al. 2019, section 4.4; the task is ours",
    metric="accuracy",
    split="test",
    relation="accuracy > chance_accuracy + 0.05",
    seeds=3,
    variants=("small",),
    cost="3 runs of 80 s on two CPU cores",
  ),
  dict(
    name="beside_scratch",
    statement="how often the right half is chosen, beside an encoder that was pre-trained for one"
    " step; measured, not judged",
    paper="Devlin et al. 2019, section 4.4; the task is ours",
    metric="accuracy",
    split="test",
    relation="",
    rivals=[{"stages.0.training.steps": 1}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 80 s on two CPU cores",
  ),
  dict(
    name="swag",
    statement="how often the right ending is chosen on SWAG's validation set; measured, not judged",
    paper="Devlin et al. 2019, table 4",
    metric="accuracy",
    split="test",
    relation="",
    published="86.3 (BERT-large, test set)",
    seeds=3,
    variants=("paper",),
    cost="3 runs of an hour on an accelerator",
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
    model=dict(name="transformer.multiple_choice", **sizes),
    task=dict(name="choose"),
    data=dict(
      name="choices:kjv_continuation",
      length=24 if smoke else 48,
      **few,
      **text,
    ),
    optimizer=_optimizer(1e-3, 1 if smoke else 50),
    training=_training(smoke, 300),
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
      model=dict(name="transformer.multiple_choice"),
      task=dict(name="choose"),
      data=dict(
        name="choices:swag",
        path="swag/train.csv",
        test_path="swag/val.csv",
        length=128,
        batch_size=16,
        tokenizer=f"{checkpoint}/tokenizer.json",
        vocabulary=28_996,
      ),
      optimizer=dict(
        name="adamw",
        learning_rate=2e-5,
        warmup_steps=1310,
        schedule="linear",
        final_fraction=1e-4,
        weight_decay=0.01,
        clip_norm=1.0,
        epsilon=1e-6,
        bias_correction=False,
      ),
      training=dict(steps=13100, eval_every=2000, checkpoint_every=2000),
    )
  )
