"""A policy from comparisons, without a reward model: DPO where ppo_kjv.py has PPO.

A GPT learns the King James Bible, then to go on with a verse that the user begins, and then from
pairs of its own replies which of them a reader likes better (data/conversations.py: what sounds
like the New Testament).

Paper     Rafailov et al. 2023, arXiv:2305.18290, equation 7 and figure 2: reward against KL.
Run       python launch.py train --config=experiments/alignment/dpo_kjv.py:small --workdir=runs/dpo
Takes     small: about 3 min on two CPU cores. paper: a GPT-2 large with the paper's settings.
Data      the King James Bible by chapter, whole chapters held out.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="dpo_is_liked_better",
    statement="on held-out prompts a reader likes replies better after DPO than before, by more than"
    " half a standard deviation of what it gives for the book's own, within 15 nats a reply",
    paper="Rafailov et al. 2023, figure 2; the reader is a program of ours",
    metric="reward",
    split="test",
    relation="reward > reward_sft + 0.5 and win_rate > 0.6 and kl < 15",
    seeds=3,
    cost="small: 3 runs of 3 min on two CPU cores",
  ),
  dict(
    name="beta_holds_back",
    statement="the dearer it is to leave the reference, the less KL and the less reward",
    paper="Rafailov et al. 2023, figure 2",
    metric="reward",
    split="test",
    relation="",
    settings="sweep_beta",
    seeds=2,
    variants=("paper",),
    cost="4 runs on accelerators",
  ),
]


def get_config(variant="paper"):
  return ConfigDict(dict(seed=0, stages=_stages(variant, **_sizes(variant))))


def _sizes(variant):
  if variant == "paper":
    return dict(
      model=dict(layers=36, features=1280, heads=20, dropout=0.0, attention_dropout=0.0),
      tokens=dict(tokenizer="bpe", vocabulary=8000),
      lengths=dict(prompt_length=512, reply_length=512, prompt_words=4, exchanges=4),
      batch_sizes=(512, 64, 64),
      steps=(20_000, 3_000, 3_000),
      rates=(2.5e-4, 1e-5, 1e-6),
      beta=0.1,
    )
  if variant == "small":
    return dict(
      model=dict(layers=3, features=96, heads=4, dropout=0.0, attention_dropout=0.0),
      tokens=dict(tokenizer="bpe", vocabulary=768),
      lengths=dict(prompt_length=16, reply_length=24),
      batch_sizes=(32, 32, 32),
      steps=(1200, 300, 150),
      rates=(2e-3, 5e-4, 1e-4),
      beta=0.1,
    )
  return dict(
    model=dict(layers=1, features=8, heads=2, dropout=0.0, attention_dropout=0.0),
    tokens=dict(tokenizer="characters", vocabulary=80),
    lengths=dict(
      prompt_length=12, reply_length=8, prompt_words=1, train_examples=64, test_examples=12
    ),
    batch_sizes=(8, 8, 8),
    steps=(2, 2, 4),
    rates=(1e-3, 1e-3, 1e-3),
    beta=0.1,
  )


def _stages(variant, *, model, tokens, lengths, batch_sizes, steps, rates, beta):
  length = lengths["prompt_length"] + lengths["reply_length"]
  few = {name: count for name, count in lengths.items() if name.endswith("_examples")}
  book = dict(name="text:kjv", length=length, **tokens, **few)
  talk = dict(name="conversations", **tokens, **lengths)
  gpt, pair = dict(name="transformer.gpt", **model), dict(name="transformer.aligned", **model)
  language_model = dict(name="language_model")
  blocks = (
    dict(name="pretraining", model=gpt, task=language_model, data=book),
    dict(name="demonstrations", model=gpt, task=language_model, data=talk),
    dict(name="dpo", model=pair, task=dict(name="dpo", beta=beta), data=talk),
  )
  optimizers = ("adamw", "adam", "rmsprop" if variant == "paper" else "adam")
  schedules = ("cosine", "cosine", "constant")
  settings = zip(blocks, batch_sizes, steps, rates, optimizers, schedules, strict=True)
  return [
    dict(
      block,
      data=dict(block["data"], batch_size=batch_size),
      optimizer=dict(
        name=optimizer,
        learning_rate=rate,
        schedule=schedule,
        final_fraction=0.1,
        warmup_steps=150 if block["name"] == "dpo" and variant == "paper" else min(50, count // 4),
        clip_norm=1.0,
      ),
      training=dict(
        steps=count,
        log_every=1 if variant == "smoke" else 10,
        eval_every=max(count // 2, 1),
        checkpoint_every=max(count // 2, 1),
      ),
    )
    for block, batch_size, count, rate, optimizer, schedule in settings
  ]


def sweep_beta():
  return grid({"stages.2.task.beta": (0.03, 0.3)})
