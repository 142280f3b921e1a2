"""Finite scalar quantisation instead of a codebook: nothing to learn, nothing to collapse.

Paper     Mentzer, Minnen, Agustsson & Tschannen 2023, arXiv:2309.15505: on ImageNet, codes in use
          100 % against 81 % of a learned codebook, sampling FID 4.53 against 4.51.
Run       python launch.py train --config=experiments/vq/fsq_digits.py:small --workdir=runs/fsq
Takes     small: about 10 s on two CPU cores.
Data      paper: Fashion-MNIST with the paper's grid of 1,000 codes, since ImageNet and its networks
          are out of reach. small and smoke: scikit-learn's digits, with a grid of 32.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="all_codes_are_used",
    statement="every code is used by the test set",
    paper="Mentzer et al. 2023, table 1, of ImageNet",
    metric="codes_used",
    split="test",
    relation="codes_used > 31.5",
    published="100 % of the codes",
    seeds=3,
    variants=("small",),
    cost="3 runs of 10 s on two CPU cores",
  ),
  dict(
    name="error_beside_a_codebook",
    statement="squared error, beside a codebook of as many codes by moving averages",
    paper="Mentzer et al. 2023, who compare samples",
    metric="squared",
    split="test",
    relation="",
    settings=[{}, {"model.quantizer": "ema"}],
    seeds=3,
    cost="6 runs of 10 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  if variant == "paper":
    return ConfigDict(
      dict(
        seed=0,
        model=dict(name="vq.convolutional", quantizer="fsq", fsq_levels=(8, 5, 5, 5)),
        task=dict(name="vector_quantization"),
        data=dict(name="idx:fashion_mnist", batch_size=128, validation=5_000),
        optimizer=dict(name="adam", learning_rate=3e-4),
        training=dict(steps=100_000, eval_every=5_000, checkpoint_every=5_000),
      )
    )
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="vq.mlp", quantizer="fsq", fsq_levels=(4, 2, 2, 2), codes=32, code_features=4
      ),
      task=dict(name="vector_quantization"),
      data=dict(name="digits", batch_size=64, validation=0),
      optimizer=dict(name="adam", learning_rate=1e-3),
      training=dict(steps=4_000, eval_every=2_000, checkpoint_every=2_000),
    )
  )
  if variant == "smoke":
    config.data.batch_size = 32
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
