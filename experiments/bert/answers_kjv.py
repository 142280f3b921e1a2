"""Where in a passage the answer to a question stands: gaps in verses of the Bible.

Paper     Devlin et al. 2019, "BERT", arXiv:1810.04805, sections 4.2, 4.3 and table 2.
Run       python launch.py train --config=experiments/bert/answers_kjv.py:small --workdir=runs/answers
Takes     small: about 100 s on two CPU cores, a third of it pre-training.
Data      paper: SQuAD 1.1's files and a cased BERT-base of Hugging Face, which you bring (version
          2.0: its files and --config.task.unanswerable=True). small: two verses of the King James
          Bible and a few words of one of them with a gap, whole chapters held out; and a BERT that
          is pre-trained on its training chapters.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="gaps",
    statement="share of the gaps in held-out verses that are filled word for word, beside an encoder"
    " that was pre-trained for one step; measured, not judged: in so few steps few are found",
    paper="Devlin et al. 2019, section 4.2; the task is ours",
    metric="exact_match",
    split="test",
    relation="",
    rivals=[{"stages.0.training.steps": 1}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 100 s on two CPU cores",
  ),
  dict(
    name="squad",
    statement="F1 of answers on SQuAD 1.1's development set; measured, not judged",
    paper="Devlin et al. 2019, table 2",
    metric="f1",
    split="test",
    relation="",
    published="88.5, exact match 80.8 (BERT-base)",
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
    model=dict(name="transformer.token_classifier", **sizes),
    task=dict(name="answer_span", answer_length=12),
    data=dict(
      name="reading:kjv_cloze",
      length=48 if smoke else 128,
      question_length=16 if smoke else 24,
      stride=16 if smoke else 64,
      **few,
      **text,
    ),
    optimizer=_optimizer(1e-3, 1 if smoke else 100),
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
      model=dict(name="transformer.token_classifier"),
      task=dict(name="answer_span"),
      data=dict(
        name="reading:squad",
        path="squad/train-v1.1.json",
        test_path="squad/dev-v1.1.json",
        length=384,
        question_length=64,
        stride=128,
        batch_size=32,
        tokenizer=f"{checkpoint}/tokenizer.json",
        vocabulary=28_996,
      ),
      optimizer=dict(
        name="adamw",
        learning_rate=5e-5,
        warmup_steps=790,
        schedule="linear",
        final_fraction=1e-4,
        weight_decay=0.01,
        clip_norm=1.0,
        epsilon=1e-6,
        bias_correction=False,
      ),
      training=dict(steps=7900, eval_every=1000, checkpoint_every=1000),
    )
  )
