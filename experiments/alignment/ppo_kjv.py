"""From GPT-3 to ChatGPT in small: pre-training, demonstrations, a reward model, PPO.

The recipe of InstructGPT, which ChatGPT shares (OpenAI, 30 November 2022), on the King James Bible:
a GPT learns the book, then to go on with a verse that the user begins; a reward model learns from
comparisons of its replies what a reader likes (data/conversations.py: what sounds like the New
Testament); PPO makes the replies what the reward model likes, held near to what they were.

Paper     Ouyang et al. 2022, arXiv:2203.02155, figure 2 and equations 1 and 2. No size of ChatGPT
          was ever published.
Run       python launch.py train --config=experiments/alignment/ppo_kjv.py:small --workdir=runs/ppo
Takes     small: about 4 min on two CPU cores. paper: GPT-3 1.3B with the paper's settings.
Data      the King James Bible by chapter, whole chapters held out.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="ppo_is_liked_better",
    statement="on held-out prompts a reader likes replies better after PPO than before, by more than"
    " half a standard deviation of what it gives for the book's own, within 20 nats a reply",
    paper="Ouyang et al. 2022, figure 1; the reader is a program of ours",
    metric="reward",
    split="test",
    relation="reward > reward_sft + 0.5 and win_rate > 0.6 and kl < 20",
    seeds=3,
    cost="small: 3 runs of 4 min on two CPU cores",
  ),
  dict(
    name="reward_model_agrees",
    statement="of two replies drawn before PPO, the reward model prefers what the reader does",
    paper="Ouyang et al. 2022, equation 1; theirs agreed with labellers held out in 69.6 % of pairs",
    metric="reward_model_accuracy",
    split="test",
    relation="reward_model_accuracy > 0.85",
    seeds=3,
    cost="the runs of ppo_is_liked_better",
  ),
  dict(
    name="kl_buys_reward",
    statement="what the weight of the KL costs in reward, and what it saves in KL",
    paper="Ouyang et al. 2022, appendix C.4 has 0.02",
    metric="reward",
    split="test",
    relation="",
    settings="sweep_kl",
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
      model=dict(
        layers=24, features=2048, heads=16, mlp_features=8192, dropout=0.0, attention_dropout=0.0
      ),
      tokens=dict(tokenizer="bpe", vocabulary=8000),
      lengths=dict(prompt_length=1024, reply_length=1024, prompt_words=4, exchanges=8),
      batch_sizes=(256, 32, 64, 64),
      steps=(20_000, 6_400, 500, 500),
      rates=(2e-4, 9.65e-6, 9e-6, 9e-6),
      task=dict(kl_weight=0.02, pretraining_weight=27.8, minibatches=8),
    )
  small = dict(
    model=dict(layers=3, features=96, heads=4, dropout=0.0, attention_dropout=0.0),
    tokens=dict(tokenizer="bpe", vocabulary=768),
    lengths=dict(prompt_length=16, reply_length=24),
    batch_sizes=(32, 32, 32, 32),
    steps=(1200, 300, 150, 40),
    rates=(2e-3, 5e-4, 1e-3, 3e-4),
    task=dict(kl_weight=0.1, minibatches=4),
  )
  if variant == "small":
    return small
  return dict(
    model=dict(layers=1, features=8, heads=2, dropout=0.0, attention_dropout=0.0),
    tokens=dict(tokenizer="characters", vocabulary=80),
    lengths=dict(
      prompt_length=12, reply_length=8, prompt_words=1, train_examples=64, test_examples=12
    ),
    batch_sizes=(8, 8, 8, 8),
    steps=(2, 2, 2, 4),
    rates=(1e-3, 1e-3, 1e-3, 1e-3),
    task=dict(kl_weight=0.05, pretraining_weight=1.0, minibatches=2),
  )


def _stages(variant, *, model, tokens, lengths, batch_sizes, steps, rates, task):
  names = ("pretraining", "demonstrations", "reward", "ppo")
  length = lengths["prompt_length"] + lengths["reply_length"]
  few = {name: count for name, count in lengths.items() if name.endswith("_examples")}
  book = dict(name="text:kjv", length=length, **tokens, **few)
  talk = dict(name="conversations", **tokens, **lengths)
  gpt, rlhf = dict(name="transformer.gpt", **model), dict(name="transformer.rlhf", **model)
  language_model = dict(name="language_model")
  blocks = (
    dict(model=gpt, task=language_model, data=book),
    dict(model=gpt, task=language_model, data=talk),
    dict(model=rlhf, task=dict(name="reward_model", replies=4), data=talk),
    dict(model=rlhf, task=dict(name="ppo", **task), data=talk),
  )
  schedules = ("cosine", "cosine", "cosine", "constant")
  often = 1 if variant == "smoke" else 10
  return [
    dict(
      name=name,
      **{**block, "data": dict(**block["data"], batch_size=batch_size)},
      optimizer=dict(
        name="adamw" if name == "pretraining" else "adam",
        learning_rate=rate,
        schedule=schedule,
        final_fraction=0.1,
        warmup_steps=min(50, count // 4),
        clip_norm=1.0,
      ),
      training=dict(
        steps=count,
        log_every=often,
        eval_every=max(count // 2, 1),
        checkpoint_every=max(count // 2, 1),
      ),
    )
    for name, block, batch_size, count, rate, schedule in zip(
      names, blocks, batch_sizes, steps, rates, schedules, strict=True
    )
  ]


def sweep_kl():
  return grid({"stages.3.task.kl_weight": (0.02, 0.5)})
