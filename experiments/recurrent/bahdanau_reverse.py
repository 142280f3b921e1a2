"""Attention against one vector: what becomes of an encoder-decoder as strings grow longer.

Paper     Bahdanau, Cho & Bengio 2015, arXiv:1409.0473, figure 2: one vector of fixed size loses
          with the length of the sentence, attention does not. The task is ours: strings written
          backwards.
Run       python launch.py train --config=experiments/recurrent/bahdanau_reverse.py:small --workdir=runs/reverse
Takes     small: about 60 s on two CPU cores.
Data      generated: strings of 4 to 16 of 26 letters; no string is in two splits. paper: the
          published network and optimizer on the same task, strings of up to 50 letters.
"""

from ml_collections import ConfigDict

from sweeps.space import grid, product

# The same network with one vector, and with as many parameters more in its units as attention has.
_WITHOUT = {"model.attention": False, "model.features": 132}
CLAIMS = [
  dict(
    name="attention_holds_on_longer_strings",
    statement="of the longer half of the test strings, more come out right with attention than with"
    " one vector, at equal steps and parameters (424,925 and 420,741)",
    paper="Bahdanau et al. 2015, figure 2; the task is ours",
    metric="exact_match_long",
    split="test",
    relation="exact_match_long > rival.exact_match_long + 0.1",
    rivals=[_WITHOUT],
    seeds=3,
    variants=("small",),
    cost="6 runs of 60 s on two CPU cores",
  ),
  dict(
    name="attention_at_the_published_size",
    statement="likewise; the network without attention is smaller by the alignment's parameters",
    paper="Bahdanau et al. 2015, figure 2 and table 1; the task is ours",
    metric="exact_match_long",
    split="test",
    relation="exact_match_long > rival.exact_match_long",
    published="BLEU 26.75 with attention and 17.82 without, trained on sentences of up to 50 words",
    rivals=[{"model.attention": False}],
    seeds=3,
    variants=("paper",),
    cost="6 runs on an accelerator",
  ),
  dict(
    name="by_length",
    statement="whole strings right by the length of the longest string, with and without attention;"
    " measured",
    paper="Bahdanau et al. 2015, figure 2",
    metric="exact_match",
    split="test",
    relation="",
    settings="sweep_length",
    seeds=3,
    variants=("small",),
    cost="12 runs of 30 to 60 s on two CPU cores, six of which are the first claim's",
  ),
]


def sweep_length():
  """Longest strings, with and without attention."""
  return product(grid({"data.maximum": (8, 16)}), ({}, _WITHOUT))


def get_config(variant="paper"):
  smoke, paper = variant == "smoke", variant == "paper"
  model = dict(name="recurrent.bahdanau")
  if not paper:
    features = 8 if smoke else 128
    model |= dict(features=features, embedding=features // 2, alignment=features // 2)
    model |= dict(maxout=features // 2, init_std=0.1)
  return ConfigDict(
    dict(
      seed=0,
      model=model,
      task=dict(name="sequence_to_sequence"),
      data=dict(
        name="strings:reverse",
        minimum=2 if smoke else 4,
        maximum={"paper": 50, "small": 16, "smoke": 6}[variant],
        batch_size={"paper": 80, "small": 64, "smoke": 8}[variant],
        train_examples=64 if smoke else 40_000,
        test_examples=8 if smoke else 1000,
      ),
      # Appendix B.2 has Adadelta and a norm of 1.
      optimizer=dict(name="adadelta", learning_rate=1.0, clip_norm=1.0)
      if paper
      else dict(name="adam", learning_rate=3e-3, schedule="cosine", clip_norm=1.0),
      training=dict(
        steps={"paper": 100_000, "small": 500, "smoke": 4}[variant],
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 0,
        checkpoint_every=2 if smoke else 0,
      ),
    )
  )
