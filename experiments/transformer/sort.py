"""Sorting letters: the Transformer beside the recurrent encoder-decoder with attention.

Paper     Vaswani et al. 2017, arXiv:1706.03762; Bahdanau, Cho & Bengio 2015, arXiv:1409.0473. The
          common claim that the one is simply the faster and more accurate, put to the test.
Run       python launch.py train --config=experiments/transformer/sort.py:small --workdir=runs/sort
Takes     small: about 60 s on two CPU cores.
Data      generated: strings of 8 to 24 of 26 letters; no string is in two splits.
"""

from ml_collections import ConfigDict

_BAHDANAU = dict(
  name="recurrent.bahdanau", features=128, embedding=96, alignment=96, maxout=64, init_std=0.05
)
CLAIMS = [
  dict(
    name="sorts_better_than_bahdanau",
    statement="at equal steps and about equal parameters, how many strings each sorts without an"
    " error; measured, not judged",
    paper="Vaswani et al. 2017; the task is ours",
    metric="exact_match",
    split="test",
    relation="",
    rivals=[{"model": _BAHDANAU}],
    seeds=3,
    cost="6 runs of 60 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  smoke = variant == "smoke"
  features = {"paper": 512, "small": 96, "smoke": 16}[variant]
  return ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="transformer.encoder_decoder",
        encoder_layers=6 if variant == "paper" else 2,
        decoder_layers=6 if variant == "paper" else 2,
        features=features,
        heads=4,
        mlp_features=256 if variant == "small" else 4 * features,
        norm_place="pre",
        dropout=0.0,
      ),
      task=dict(name="sequence_to_sequence"),
      data=dict(
        name="strings:sort",
        minimum=4 if smoke else 8,
        maximum=6 if smoke else 24,
        batch_size=8 if smoke else 64,
        train_examples=64 if smoke else 40_000,
        test_examples=8 if smoke else 1000,
      ),
      optimizer=dict(
        name="adam", b2=0.98, learning_rate=2e-3, schedule="inverse_sqrt", warmup_steps=100
      ),
      training=dict(
        steps={"paper": 20_000, "small": 600, "smoke": 4}[variant],
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 300,
        checkpoint_every=2 if smoke else 600,
      ),
    )
  )
