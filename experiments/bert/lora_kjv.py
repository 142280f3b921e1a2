"""LoRA: what fine-tuning gains with a fiftieth of the parameters trained.

A BERT is pre-trained on the Bible; then only what adapts its queries and values, and the head, learn
the genre of a verse.

Paper     Hu et al. 2021, "LoRA", arXiv:2106.09685, sections 4 and 5.2, table 2.
Run       python launch.py train --config=experiments/bert/lora_kjv.py:small --workdir=runs/lora
Takes     small: about 3 min on two CPU cores, most of it pre-training.
Data      paper: RoBERTa-base from Hugging Face, SST-2 of GLUE. small: the King James Bible, of
          which whole chapters are held out; which of six parts of it a verse is of.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

_FULL = {"stages.1.model.lora": None, "stages.1.optimizer.learning_rate": 5e-4}
_FROZEN = {"stages.1.model.lora.targets": (), "stages.1.optimizer.learning_rate": 5e-3}

CLAIMS = [
  dict(
    name="as_good_as_full",
    statement="adapters and a head gain at least 95 % of what fine-tuning everything gains over the"
    " commonest genre (majority_accuracy)",
    paper="Hu et al. 2021, table 2",
    metric="accuracy",
    split="test",
    relation="accuracy - majority_accuracy > 0.95 * (rival.accuracy - rival.majority_accuracy)",
    rivals=[_FULL],
    published="87.2 against 86.4 (RoBERTa-base, mean of GLUE)",
    seeds=3,
    variants=("small",),
    cost="6 runs of 3 min on two CPU cores",
  ),
  dict(
    name="beats_the_head_alone",
    statement="adapters and a head are right more often than a head alone on the same encoder",
    paper="Hu et al. 2021, table 2 (there against training biases)",
    metric="accuracy",
    split="test",
    relation="accuracy > rival.accuracy",
    rivals=[_FROZEN],
    seeds=3,
    variants=("small",),
    cost="6 runs of 3 min on two CPU cores",
  ),
  dict(
    name="rank",
    statement="accuracy by rank; measured, not judged",
    paper="Hu et al. 2021, table 6",
    metric="accuracy",
    split="test",
    relation="",
    settings="sweep_rank",
    seeds=2,
    variants=("small",),
    cost="8 runs of 3 min on two CPU cores",
  ),
  dict(
    name="sst2",
    statement="accuracy on GLUE's SST-2, development set; measured, not judged",
    paper="Hu et al. 2021, table 2",
    metric="accuracy",
    split="test",
    relation="",
    published="95.1",
    seeds=3,
    variants=("paper",),
    cost="3 runs of hours on an accelerator",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return _published()
  smoke = variant == "smoke"
  sizes = dict(layers=1, features=16, heads=2) if smoke else dict(layers=4, features=96, heads=4)
  sizes |= dict(dropout=0.0, attention_dropout=0.0)
  text = dict(tokenizer="wordpiece", vocabulary=300 if smoke else 1000)
  text |= dict(batch_size=4, eval_batch_size=8) if smoke else dict(batch_size=32)
  few = dict(train_examples=32, test_examples=8) if smoke else dict(test_examples=1500)
  length = 24 if smoke else 64
  pretraining = dict(
    name="pretraining",
    model=dict(name="transformer.bert", **sizes),
    task=dict(name="pretrain_bert"),
    data=dict(name="sentence_pairs:kjv", length=length, **few, **text),
    optimizer=_optimizer(2e-3, 1 if smoke else 150),
    training=_training(smoke, 1200),
  )
  lora = dict(rank=4, alpha=8.0, targets=("*/query/kernel", "*/value/kernel"), trains=("head",))
  fine_tuning = dict(
    name="fine_tuning",
    model=dict(name="transformer.classifier", lora=lora, **sizes),
    task=dict(name="text_classify"),
    data=dict(name="labelled_text:kjv_genre", length=length, **few, **text),
    optimizer=_optimizer(5e-3, 1 if smoke else 50),
    training=_training(smoke, 800),
  )
  return ConfigDict(dict(seed=0, stages=[pretraining, fine_tuning]))


def sweep_rank():
  return grid({"stages.1.model.lora.rank": (1, 2, 8, 32)})


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
  checkpoint = "checkpoints/roberta-base"
  return ConfigDict(
    dict(
      seed=0,
      init_from=f"hf:{checkpoint}",
      model=dict(
        name="transformer.classifier",
        position_offset=2,
        lora=dict(rank=8, alpha=8.0, trains=("head", "pooler")),
      ),
      task=dict(name="text_classify"),
      data=dict(
        name="labelled_text:sst2",
        path="glue_data",
        tokenizer=f"{checkpoint}/tokenizer.json",
        vocabulary=50_265,
        length=512,
        types=1,
        separators=2,
        batch_size=16,
      ),
      optimizer=_optimizer(5e-4, 14_400),
      training=dict(steps=240_000, eval_every=4000, checkpoint_every=4000),
    )
  )
