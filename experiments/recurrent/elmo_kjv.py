"""ELMo: a language model's layers, mixed as the task likes, tell what kind of book a verse is from.

Paper     Peters et al. 2018, arXiv:1802.05365, table 2: a learned mix of all layers against their
          average and against the last one alone.
Run       python launch.py train --config=experiments/recurrent/elmo_kjv.py:small --workdir=runs/elmo
Takes     small: about 2 min on two CPU cores. paper: the network of 93.6 million parameters.
Data      the King James Bible by verse, whole chapters held out; six kinds of books. The paper's
          language model read the 1 Billion Word Benchmark, ten times.
"""

from ml_collections import ConfigDict

_LAST, _AVERAGE = {"stages.1.model.mix": "last"}, {"stages.1.model.mix": "average"}

CLAIMS = [
  dict(
    name="a_learned_mix",
    statement="with 1,200 labels a learned mix of the layers tells more held-out verses than their"
    " average",
    paper="Peters et al. 2018, table 2",
    metric="accuracy",
    split="test",
    relation="accuracy > rival.accuracy",
    rivals=[_AVERAGE],
    published="SQuAD dev F1: 85.2 and 85.0 (recalled, not checked)",
    seeds=3,
    variants=("small",),
    cost="6 runs of 2 min on two CPU cores",
  ),
  dict(
    name="mixes",
    statement="accuracy with a learned mix of the layers, with their average, and with the last one,"
    " which here is no worse than the mix",
    paper="Peters et al. 2018, table 2",
    metric="accuracy",
    split="test",
    relation="",
    settings=[{}, _AVERAGE, _LAST],
    seeds=3,
    cost="small: 9 runs of 2 min on two CPU cores",
  ),
]


def get_config(variant="paper"):
  smoke, paper = variant == "smoke", variant == "paper"
  if paper:
    model, rows = dict(), dict(vocabulary=10_000, length=100, characters=50)
  elif smoke:
    model = dict(features=4, cells=6, character_features=4, filters=((1, 4), (2, 4)), highways=1)
    rows = dict(vocabulary=50, length=8, characters=8)
  else:
    model = dict(features=64, cells=128, filters=((1, 16), (2, 32), (3, 64)), highways=1)
    rows = dict(vocabulary=5000, length=40, characters=14)
  few = dict(train_examples=64, test_examples=16, eval_batch_size=8) if smoke else {}
  steps = {"paper": (10 * 27_812 // 128, 2_000), "small": (600, 400), "smoke": (2, 4)}[variant]
  batch_size = {"paper": 128, "small": 32, "smoke": 4}[variant]
  data = dict(name="words:kjv", batch_size=batch_size, **rows, **{"eval_batch_size": 100, **few})

  def stage(name, kind, task, count, optimizer, **changes):
    return dict(
      name=name,
      model=dict(name=f"recurrent.{kind}", dropout=0.1 if paper else 0.0, **model),
      task=task,
      data={**data, **changes},
      optimizer=optimizer,
      training=dict(
        steps=count,
        log_every=1 if smoke else 50,
        eval_every=max(count // 2, 1),
        checkpoint_every=max(count // 2, 1),
      ),
    )

  learning = dict(name="adam", learning_rate=4e-3, schedule="cosine", clip_norm=1.0)
  if paper:
    learning = dict(name="adagrad", learning_rate=0.2, initial=1.0, clip_norm=10.0)
  return ConfigDict(
    dict(
      seed=0,
      stages=[
        stage("bilm", "elmo", dict(name="bilm"), steps[0], learning),
        stage(
          "classifier",
          "elmo_classifier",
          dict(name="classify_words"),
          steps[1],
          dict(name="adam", learning_rate=1e-2, schedule="cosine"),
          **({} if smoke else dict(train_examples=1200)),
        ),
      ],
    )
  )
