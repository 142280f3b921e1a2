"""Reading dates: seven ways to write one into ISO 8601, by a small Transformer.

Paper     Vaswani et al. 2017, arXiv:1706.03762, on the task that introductions to attention use.
Run       python launch.py train --config=experiments/transformer/dates.py:small --workdir=runs/dates
Takes     small: about 40 s on two CPU cores.
Data      generated: dates of 1900 to 2049 in seven formats; no string is in two splits.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="reads_dates",
    statement="decoded greedily, at least 97 % of unseen dates come out right, every character",
    paper="Vaswani et al. 2017; the task and the bar are ours",
    metric="exact_match",
    split="test",
    relation="exact_match > 0.97",
    seeds=3,
    cost="3 runs of 40 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  steps, layers, features = {
    "paper": (20_000, 6, 512),
    "small": (1200, 2, 96),
    "smoke": (4, 1, 16),
  }[variant]
  smoke = variant == "smoke"
  return ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="transformer.encoder_decoder",
        encoder_layers=layers,
        decoder_layers=layers,
        features=features,
        heads=8 if features == 512 else 4,
        mlp_features=2048 if features == 512 else 4 * features,
        norm_place="post" if variant == "paper" else "pre",
        dropout=0.1 if variant == "paper" else 0.0,
      ),
      task=dict(name="sequence_to_sequence", smoothing=0.1 if variant == "paper" else 0.0),
      data=dict(
        name="strings:dates",
        batch_size=8 if smoke else 64,
        train_examples=64 if smoke else 20_000,
        test_examples=8 if smoke else 1000,
        validation_examples=8 if smoke else 500,
      ),
      optimizer=dict(
        name="adam",
        b2=0.98,
        epsilon=1e-9,
        learning_rate=7e-4 if variant == "paper" else 2e-3,
        schedule="inverse_sqrt" if variant == "paper" else "cosine",
        warmup_steps=2 if smoke else {"paper": 4000, "small": 200}[variant],
      ),
      training=dict(
        steps=steps,
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 500,
        checkpoint_every=2 if smoke else 500,
      ),
    )
  )
