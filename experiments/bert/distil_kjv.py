"""DistilBERT: half the layers taught by all of them, then both fine-tuned on the same labels.

A teacher is pre-trained; a student of every other of its layers learns from it; and what was learnt
is fine-tuned to tell which words of a verse, in small letters, began with a capital. The teacher's own run is the same without the student:
its second stage goes on with pre-training, for as many steps.

Paper     Sanh et al. 2019, "DistilBERT", arXiv:1910.01108, tables 1, 3 and 4.
Run       python launch.py train --config=experiments/bert/distil_kjv.py:small --workdir=runs/distil
Takes     small: about 4 min on two CPU cores. Sizes and speed: benchmarks/distilled.py.
Data      paper: BERT-base from Hugging Face as the teacher, text of your own, SST-2 of GLUE. small:
          the King James Bible, of which whole chapters are held out; the capitals of 200 of its
          verses.
"""

from ml_collections import ConfigDict

_TEACHER = {
  "stages.1.model": dict(name="transformer.encoder", layers=2, features=128, heads=4)
  | dict(dropout=0.0, attention_dropout=0.0, init_std=0.05),
  "stages.1.task": dict(name="masked_language_model", rate=0.3),
  "stages.2.model.layers": 2,
}
_RANDOM = {"stages.1.model.start": "random"}

CLAIMS = [
  dict(
    name="keeps_the_teacher",
    statement="fine-tuned, the student has at least 95 % of its teacher's F1",
    paper="Sanh et al. 2019, table 1 (97 % of BERT-base's score on GLUE)",
    metric="f1",
    split="test",
    relation="f1 > 0.95 * rival.f1",
    rivals=[_TEACHER],
    published="77.0 of 79.5",
    seeds=3,
    variants=("small",),
    cost="6 runs of 4 min on two CPU cores",
  ),
  dict(
    name="start",
    statement="a student that begins as layers of its teacher has a higher F1 than one that begins"
    " at random",
    paper="Sanh et al. 2019, table 4 (-3.69 on GLUE)",
    metric="f1",
    split="test",
    relation="f1 > rival.f1",
    rivals=[_RANDOM],
    seeds=3,
    variants=("small",),
    cost="6 runs of 4 min on two CPU cores",
  ),
  dict(
    name="sst2",
    statement="accuracy on GLUE's SST-2, development set; measured, not judged",
    paper="Sanh et al. 2019, table 1",
    metric="accuracy",
    split="test",
    relation="",
    published="91.3",
    seeds=3,
    variants=("paper",),
    cost="3 runs of days on 8 accelerators",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return _published()
  smoke = variant == "smoke"
  sizes = dict(features=16, heads=2) if smoke else dict(features=128, heads=4)
  sizes |= dict(dropout=0.0, attention_dropout=0.0, init_std=0.05)
  layers = 1
  text = dict(tokenizer="wordpiece", vocabulary=300 if smoke else 1000)
  text |= dict(batch_size=4, eval_batch_size=8) if smoke else dict(batch_size=32)
  few = dict(train_examples=32, test_examples=8) if smoke else dict(test_examples=1000)
  labelled = few if smoke else dict(few, train_examples=200)
  length = 24 if smoke else 64
  book = dict(name="text:kjv", length=length, **text)
  book |= few if smoke else {}
  teacher = dict(
    name="teacher",
    model=dict(name="transformer.encoder", layers=2 * layers, **sizes),
    task=dict(name="masked_language_model", rate=0.3),
    data=book,
    optimizer=_optimizer(2e-3, 1 if smoke else 150),
    training=_training(smoke, 1500),
  )
  student = dict(
    name="student",
    model=dict(name="transformer.distilled", layers=layers, **sizes),
    task=dict(name="distill", rate=0.3),
    data=book,
    optimizer=_optimizer(1e-3, 1 if smoke else 50),
    training=_training(smoke, 700),
  )
  fine_tuning = dict(
    name="fine_tuning",
    model=dict(name="transformer.token_classifier", layers=layers, **sizes),
    task=dict(name="label_tokens"),
    data=dict(name="token_labels:kjv_case", length=length, types=0, **labelled, **text),
    optimizer=_optimizer(5e-4, 1 if smoke else 20),
    training=_training(smoke, 150),
  )
  return ConfigDict(dict(seed=0, stages=[teacher, student, fine_tuning]))


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
  # Batch and length of the paper's section 3; rates and epochs of fine-tuning are BERT's.
  text = dict(tokenizer="checkpoints/bert-base-uncased/tokenizer.json", vocabulary=30_522)
  student = dict(
    name="student",
    model=dict(name="transformer.distilled", layers=6, teacher_types=2),
    task=dict(name="distill", mask_token=103),
    data=dict(name="text:files", path="corpora/bert/*.txt", length=512, batch_size=4096, **text),
    optimizer=_optimizer(5e-4, 4000),
    training=dict(steps=80_000, eval_every=4000, checkpoint_every=4000),
  )
  fine_tuning = dict(
    name="fine_tuning",
    model=dict(name="transformer.classifier", layers=6, pooler_activation="relu"),
    task=dict(name="text_classify"),
    data=dict(
      name="labelled_text:sst2", path="glue_data", length=128, types=0, batch_size=32, **text
    ),
    optimizer=_optimizer(2e-5, 600),
    training=dict(steps=5998, eval_every=1000, checkpoint_every=1000),
  )
  init_from = "hf:checkpoints/bert-base-uncased"
  return ConfigDict(dict(seed=0, init_from=init_from, stages=[student, fine_tuning]))
