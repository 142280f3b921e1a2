"""A class for every word: which words of a verse begin with a capital.

Paper     Devlin et al. 2019, "BERT", arXiv:1810.04805, section 5.3 and table 7.
Run       python launch.py train --config=experiments/bert/tokens_kjv.py:small --workdir=runs/tokens
Takes     small: about 2.5 min on two CPU cores, most of it pre-training.
Data      paper: CoNLL-2003's files and a cased BERT-base of Hugging Face, which you bring. small:
          100 verses of the King James Bible in small letters, whole chapters held out, and a BERT
          that is pre-trained on its training chapters.
"""

from ml_collections import ConfigDict

_TAGS = ("O", *(f"{place}-{kind}" for kind in ("PER", "ORG", "LOC", "MISC") for place in "BI"))

CLAIMS = [
  dict(
    name="capitals",
    statement="F1 of the words that begin with a capital is higher than a token alone would tell,"
    " which the accuracy shows (token_alone_accuracy)",
    paper="Devlin et al. 2019, section 5.3; the task is ours",
    metric="accuracy",
    split="test",
    relation="accuracy > token_alone_accuracy",
    seeds=3,
    variants=("small",),
    cost="3 runs of 2.5 min on two CPU cores",
  ),
  dict(
    name="beside_scratch",
    statement="F1 of the words that begin with a capital, of 100 labelled verses, is higher after"
    " pre-training than after one step of it, by at least 5 points",
    paper="Devlin et al. 2019, section 5.3; the task is ours",
    metric="f1",
    split="test",
    relation="f1 > rival.f1 + 0.05",
    rivals=[{"stages.0.training.steps": 1}],
    seeds=3,
    variants=("small",),
    cost="3 runs of 2.5 min and 3 of 40 s on two CPU cores",
  ),
  dict(
    name="conll",
    statement="F1 of words of names, each word by itself (the paper's is of whole names); measured,"
    " not judged",
    paper="Devlin et al. 2019, table 7",
    metric="f1",
    split="test",
    relation="",
    seeds=3,
    variants=("paper",),
    cost="3 runs of minutes on an accelerator",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return _published()
  smoke = variant == "smoke"
  sizes = dict(layers=1, features=16, heads=2) if smoke else dict(layers=2, features=128, heads=4)
  sizes |= dict(init_std=0.05)
  text = dict(tokenizer="wordpiece", vocabulary=300 if smoke else 1000)
  text |= dict(batch_size=4, eval_batch_size=8) if smoke else dict(batch_size=32)
  few = dict(train_examples=32, test_examples=8) if smoke else dict(test_examples=1000)
  pretraining = dict(
    name="pretraining",
    model=dict(name="transformer.bert", dropout=0.0, attention_dropout=0.0, **sizes),
    task=dict(name="pretrain_bert", rate=0.3),
    data=dict(name="sentence_pairs:kjv", length=24 if smoke else 64, **few, **text),
    optimizer=_optimizer(2e-3, 1 if smoke else 150),
    training=_training(smoke, 1500),
  )
  fine_tuning = dict(
    name="fine_tuning",
    model=dict(name="transformer.token_classifier", **sizes),
    task=dict(name="label_tokens"),
    data=dict(
      name="token_labels:kjv_case",
      length=24 if smoke else 64,
      **(few if smoke else dict(few, train_examples=100)),
      **text,
    ),
    optimizer=_optimizer(5e-4, 1 if smoke else 20),
    training=_training(smoke, 150),
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
      model=dict(name="transformer.token_classifier"),
      task=dict(name="label_tokens"),
      data=dict(
        name="token_labels:conll",
        path="conll2003/train.txt",
        test_path="conll2003/test.txt",
        labels=_TAGS,
        length=256,
        batch_size=32,
        tokenizer=f"{checkpoint}/tokenizer.json",
        vocabulary=28_996,
      ),
      optimizer=dict(
        name="adamw",
        learning_rate=5e-5,
        warmup_steps=125,
        schedule="linear",
        final_fraction=1e-4,
        weight_decay=0.01,
        clip_norm=1.0,
        epsilon=1e-6,
        bias_correction=False,
      ),
      training=dict(steps=1254, eval_every=400, checkpoint_every=400),
    )
  )
