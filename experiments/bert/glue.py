"""A text, or a pair of texts, classified by an encoder's first token.

Paper     Devlin et al. 2019, "BERT", arXiv:1810.04805, section 4.1 and table 1.
Run       python launch.py train --config=experiments/bert/glue.py:small --workdir=runs/glue
Takes     small: about 75 s on two CPU cores. paper: minutes on an accelerator, hours for QQP and
          MNLI.
Data      paper: a task of GLUE from its own files, and a BERT-base of Hugging Face with its
          tokenizer; both you bring. Of the other tasks: --config.data.name=labelled_text:cola and
          the number of steps of three epochs (sweep_tasks has them; for STS-B also
          --config.task.name=text_regress). GLUE's dev is what is tested on; for validation, where
          the learning rate would be chosen, a twentieth of the training part is held out.
          small: which of six parts of the King James Bible a verse is of, whole chapters held out,
          by a small encoder that has not been pre-trained.
"""

from ml_collections import ConfigDict

from sweeps.space import grid, zipped

_STEPS = {  # three epochs of batches of 32, of 95 % of the training part
  "cola": 762,
  "sst2": 5998,
  "mrpc": 327,
  "qqp": 32405,
  "qnli": 9329,
  "rte": 222,
  "wnli": 57,
  "mnli": 34975,
}

CLAIMS = [
  dict(
    name="genre",
    statement="the genre of a held-out verse is told more often than by the commonest one, by at"
    " least 20 points; beside it naive Bayes on the tokens (naive_bayes_accuracy)",
    paper="Devlin et al. 2019, section 4.1; the task is ours",
    metric="accuracy",
    split="test",
    relation="accuracy > majority_accuracy + 0.2",
    seeds=3,
    variants=("small",),
    cost="3 runs of 75 s on two CPU cores",
  ),
  dict(
    name="mrpc",
    statement="F1 of paraphrases on GLUE's development set, at each of the paper's learning rates;"
    " measured, not judged",
    paper="Devlin et al. 2019, table 1 (test set, the best rate)",
    metric="f1",
    split="test",
    relation="",
    published="88.9 (BERT-base, test set)",
    settings="sweep",
    seeds=3,
    variants=("paper",),
    cost="12 runs of minutes on an accelerator",
  ),
]


def get_config(variant="paper"):
  smoke = variant == "smoke"
  if variant == "paper":
    checkpoint = "checkpoints/bert-base-uncased"
    own = dict(init_from=f"hf:{checkpoint}")
    model = dict()
    data = dict(
      name="labelled_text:mrpc",
      path="glue_data",
      tokenizer=f"{checkpoint}/tokenizer.json",
      vocabulary=30_522,
      length=128,
      batch_size=32,
    )
    optimizer = dict(learning_rate=2e-5, warmup_steps=_STEPS["mrpc"] // 10, epsilon=1e-6)
    optimizer |= dict(weight_decay=0.01, clip_norm=1.0, bias_correction=False)
    training = dict(steps=_STEPS["mrpc"], eval_every=100, checkpoint_every=0)
  else:
    own = {}
    model = dict(layers=1 if smoke else 2, features=16 if smoke else 64, heads=2 if smoke else 4)
    data = dict(
      name="labelled_text:kjv_genre",
      vocabulary=300 if smoke else 2000,
      length=16 if smoke else 48,
      batch_size=4 if smoke else 32,
      eval_batch_size=8 if smoke else 250,
      train_examples=32 if smoke else 0,
      test_examples=8 if smoke else 0,
    )
    optimizer = dict(learning_rate=1e-3, warmup_steps=1 if smoke else 100, weight_decay=0.01)
    training = (
      dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
      if smoke
      else dict(steps=1200, log_every=50, eval_every=600, checkpoint_every=600)
    )
  return ConfigDict(
    dict(
      seed=0,
      **own,
      model=dict(name="transformer.classifier", **model),
      task=dict(name="text_classify"),
      data=data,
      optimizer=dict(name="adamw", schedule="linear", final_fraction=1e-4, **optimizer),
      training=training,
    )
  )


def sweep():
  return grid({"optimizer.learning_rate": (5e-5, 4e-5, 3e-5, 2e-5)})


def sweep_epochs():
  return grid({"training.steps": tuple(n * _STEPS["mrpc"] // 3 for n in (2, 3, 4))})


def sweep_tasks():
  return zipped(
    {
      "data.name": tuple(f"labelled_text:{task}" for task in _STEPS),
      "training.steps": tuple(_STEPS.values()),
    }
  )
