"""Reading dates with attention, beside the encoder-decoder of one vector that it replaced.

Paper     Bahdanau, Cho & Bengio 2015, arXiv:1409.0473 (RNNsearch), and Cho et al. 2014,
          arXiv:1406.1078 (RNNencdec), on the task that introductions to attention use.
Run       python launch.py train --config=experiments/recurrent/bahdanau_dates.py:small --workdir=runs/dates
Takes     small: about 45 s on two CPU cores.
Data      generated: dates of 1900 to 2049 in seven formats; no day is in two splits. paper: the
          published networks and optimizer on the same dates.
"""

from ml_collections import ConfigDict

_CHO = dict(name="recurrent.cho", features=128, embedding=48, maxout=48, init_std=0.1)
CLAIMS = [
  dict(
    name="reads_dates",
    statement="decoded greedily, more than 97 % of unseen dates come out right, every character",
    paper="Bahdanau et al. 2015; the task and the bar are ours",
    metric="exact_match",
    split="test",
    relation="exact_match > 0.97",
    seeds=3,
    cost="3 runs of 45 s on two CPU cores",
  ),
  dict(
    name="faster_than_one_vector",
    statement="after equally few steps and with about as many parameters (257 thousand), attention"
    " gets more dates right than the encoder-decoder of Cho et al.",
    paper="Bahdanau et al. 2015, table 1; the task is ours",
    metric="exact_match",
    split="test",
    relation="exact_match > rival.exact_match",
    published="BLEU 26.75 for RNNsearch-50 and 17.82 for RNNencdec-50",
    rivals=[{"model": _CHO}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 45 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  smoke, paper = variant == "smoke", variant == "paper"
  model = dict(name="recurrent.bahdanau")
  if not paper:
    features = 8 if smoke else 96
    model |= dict(features=features, embedding=features // 2, alignment=features)
    model |= dict(maxout=features // 2, init_std=0.1)
  return ConfigDict(
    dict(
      seed=0,
      model=model,
      task=dict(name="sequence_to_sequence"),
      data=dict(
        name="strings:dates",
        batch_size={"paper": 80, "small": 64, "smoke": 8}[variant],
        train_examples=64 if smoke else 20_000,
        test_examples=8 if smoke else 1000,
      ),
      # Appendix B.2 has Adadelta and a norm of 1.
      optimizer=dict(name="adadelta", learning_rate=1.0, clip_norm=1.0)
      if paper
      else dict(name="adam", learning_rate=3e-3, schedule="cosine", clip_norm=1.0),
      training=dict(
        steps={"paper": 20_000, "small": 600, "smoke": 4}[variant],
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 0,
        checkpoint_every=2 if smoke else 0,
      ),
    )
  )
