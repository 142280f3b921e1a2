"""LoRA: what fine-tuning gains with a fiftieth of the parameters trained.

A BERT is pre-trained on the Bible; then only what adapts its queries and values, and the head, learn
which words of a verse, in small letters, began with a capital.

Paper     Hu et al. 2021, "LoRA", arXiv:2106.09685, sections 4 and 5.2, table 2.
Run       python launch.py train --config=experiments/bert/lora_kjv.py:small --workdir=runs/lora
Takes     small: about 2.5 min on two CPU cores, most of it pre-training.
Data      paper: RoBERTa-base from Hugging Face, SST-2 of GLUE. small: the King James Bible, of
          which whole chapters are held out; the capitals of 200 of its verses.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

_FULL = {"stages.1.model.lora": None, "stages.1.optimizer.learning_rate": 5e-4}
_FROZEN = {"stages.1.model.lora.targets": (), "stages.1.optimizer.learning_rate": 1e-2}

CLAIMS = [
  dict(
    name="as_good_as_full",
    statement="adapters and a head, under 2 % of the parameters, reach at least 95 % of the F1 that"
    " fine-tuning everything reaches; without fine-tuning it is 0",
    paper="Hu et al. 2021, table 2",
    metric="f1",
    split="test",
    relation="f1 > 0.95 * rival.f1",
    rivals=[_FULL],
    published="87.2 against 86.4 (RoBERTa-base, mean of GLUE)",
    seeds=3,
    variants=("small",),
    cost="6 runs of 2.5 min on two CPU cores",
  ),
  dict(
    name="beats_the_head_alone",
    statement="adapters and a head have a higher F1 than a head alone on the same encoder",
    paper="Hu et al. 2021, table 2 (there against training biases)",
    metric="f1",
    split="test",
    relation="f1 > rival.f1",
    rivals=[_FROZEN],
    seeds=3,
    variants=("small",),
    cost="6 runs of 2.5 min on two CPU cores",
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
  sizes = dict(layers=1, features=16, heads=2) if smoke else dict(layers=2, features=128, heads=4)
  sizes |= dict(dropout=0.0, attention_dropout=0.0, init_std=0.05)
  text = dict(tokenizer="wordpiece", vocabulary=300 if smoke else 1000)
  text |= dict(batch_size=4, eval_batch_size=8) if smoke else dict(batch_size=32)
  few = dict(train_examples=32, test_examples=8) if smoke else dict(test_examples=1000)
  labelled = few if smoke else dict(few, train_examples=200)
  length = 24 if smoke else 64
  pretraining = dict(
    name="pretraining",
    model=dict(name="transformer.bert", **sizes),
    task=dict(name="pretrain_bert", rate=0.3),
    data=dict(name="sentence_pairs:kjv", length=length, **few, **text),
    optimizer=_optimizer(2e-3, 1 if smoke else 150),
    training=_training(smoke, 1500),
  )
  lora = dict(rank=8, alpha=16.0, targets=("*/query/kernel", "*/value/kernel"), trains=("head",))
  fine_tuning = dict(
    name="fine_tuning",
    model=dict(name="transformer.token_classifier", lora=lora, **sizes),
    task=dict(name="label_tokens"),
    data=dict(name="token_labels:kjv_case", length=length, **labelled, **text),
    optimizer=_optimizer(1e-2, 1 if smoke else 20),
    training=_training(smoke, 300),
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
