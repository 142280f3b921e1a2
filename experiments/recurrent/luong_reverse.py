"""Ways to attend: dot, general and concat scores, a window, and input feeding.

Paper     Luong, Pham & Manning 2015, arXiv:1508.04025, sections 3 and 5.3 and table 4, which finds
          general scores best for local and dot for global attention, and input feeding a help.
          The task is ours: strings written backwards.
Run       python launch.py train --config=experiments/recurrent/luong_reverse.py:small --workdir=runs/luong
Takes     small: about 45 s on two CPU cores.
Data      generated: strings of 4 to 16 of 26 letters; no string is in two splits. paper: the
          published network and schedule on strings of up to 50.
"""

from ml_collections import ConfigDict

from sweeps.space import chain, grid, zipped

CLAIMS = [
  dict(
    name="attends",
    statement="with general scores the network learns to write strings backwards: fewer than one"
    " character in ten is wrong",
    paper="Luong et al. 2015; the task and the bar are ours",
    metric="accuracy",
    split="test",
    relation="accuracy > 0.9",
    seeds=3,
    cost="3 runs of 45 s on two CPU cores",
  ),
  dict(
    name="scores",
    statement="nats a token by score, with a window of 5 on either side, and without input feeding;"
    " measured",
    paper="Luong et al. 2015, table 4 and section 3.3",
    metric="nll",
    split="test",
    relation="",
    settings="sweep_attention",
    seeds=3,
    variants=("small",),
    cost="15 runs of 45 s on two CPU cores, three of which are the first claim's",
  ),
]


def sweep_attention():
  """Every score, the window, and no input feeding."""
  return chain(
    grid({"model.score": ("general", "dot", "concat")}),
    zipped({"model.score": ("general",), "model.window": (5,)}),
    zipped({"model.score": ("general",), "model.feeding": (False,)}),
  )


def get_config(variant="paper"):
  smoke, paper = variant == "smoke", variant == "paper"
  model = dict(name="recurrent.luong", score="general")
  if not paper:
    features = 8 if smoke else 128
    model |= dict(layers=1, features=features, embedding=features // 2)
    model |= dict(dropout=0.1 if smoke else 0.0)
  return ConfigDict(
    dict(
      seed=0,
      model=model,
      task=dict(name="sequence_to_sequence"),
      data=dict(
        name="strings:reverse",
        minimum=2 if smoke else 4,
        maximum={"paper": 50, "small": 16, "smoke": 6}[variant],
        batch_size={"paper": 128, "small": 64, "smoke": 8}[variant],
        train_examples=64 if smoke else 40_000,
        test_examples=8 if smoke else 1000,
      ),
      # Section 4.1: a rate of 1, halved every epoch after eight of twelve.
      optimizer=dict(
        name="sgd",
        learning_rate=1.0,
        clip_norm=5.0,
        schedule="step",
        step_at=tuple(i / 12 for i in range(8, 12)),
        step_factor=0.5,
      )
      if paper
      else dict(name="adam", learning_rate=3e-3, schedule="cosine", clip_norm=5.0),
      training=dict(
        steps={"paper": 100_000, "small": 500, "smoke": 4}[variant],
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 0,
        checkpoint_every=2 if smoke else 0,
      ),
    )
  )
