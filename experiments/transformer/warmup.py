"""Norms after the sub-layers want a warm-up of the learning rate, norms before them do not.

Paper     Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture",
          arXiv:2002.04745.
Run       python launch.py train --config=experiments/transformer/warmup.py:small --workdir=runs/warmup
Takes     small: about 60 s on two CPU cores.
Data      generated: strings to be reversed; no string is in two splits.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="pre_norm_needs_no_warmup",
    statement="without warm-up, norms before the sub-layers reach less than half the held-out loss"
    " of norms after them",
    paper="Xiong et al. 2020, sections 3 and 4",
    metric="nll",
    split="test",
    relation="nll < 0.5 * rival.nll",
    rivals=[{"model.norm_place": "post"}],
    seeds=3,
    cost="6 runs of 60 s on two CPU cores",
  ),
  dict(
    name="warmup_mends_it",
    statement="a warm-up of 200 steps lets the same network with norms after the sub-layers reach a"
    " lower loss than it does without",
    paper="Xiong et al. 2020, figure 2",
    metric="nll",
    split="test",
    relation="nll < rival.nll",
    settings=[{"model.norm_place": "post", "optimizer.warmup_steps": 200}],
    rivals=[{"model.norm_place": "post"}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 60 s on two CPU cores, three of which are the first claim's",
  ),
]


def get_config(variant="paper"):
  smoke = variant == "smoke"
  layers = {"paper": 6, "small": 6, "smoke": 1}[variant]
  features = {"paper": 512, "small": 64, "smoke": 16}[variant]
  return ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="transformer.encoder_decoder",
        encoder_layers=layers,
        decoder_layers=layers,
        features=features,
        heads=4,
        mlp_features=4 * features,
        norm_place="pre",
        dropout=0.0,
      ),
      task=dict(name="sequence_to_sequence", decoded=100),
      data=dict(
        name="strings:reverse",
        minimum=4,
        maximum=12,
        batch_size=8 if smoke else 64,
        train_examples=64 if smoke else 20_000,
        test_examples=8 if smoke else 1000,
      ),
      optimizer=dict(
        name="adam", b2=0.98, learning_rate=1e-3 if variant == "paper" else 2e-3, warmup_steps=0
      ),
      training=dict(
        steps={"paper": 20_000, "small": 600, "smoke": 4}[variant],
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 300,
        checkpoint_every=2 if smoke else 600,
      ),
    )
  )
