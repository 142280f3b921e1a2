"""Images from codes: a Gated PixelCNN over the codes of a finished VQ-VAE.

Paper     van den Oord, Vinyals & Kavukcuoglu 2017, arXiv:1711.00937, sections 3.3 and 4.1.
Run       python launch.py train --config=experiments/vq/prior_digits.py:small --workdir=runs/prior
Takes     small: about 25 s on two CPU cores.
Data      scikit-learn's digits, real-valued pixels. The prior sees codes of training images only.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="prior_beats_uniform",
    statement="samples through the prior lie nearer to the test set than codes drawn at random, by"
    " Frechet distance in 16 principal components, and it gives test codes a shorter code length",
    paper="van den Oord et al. 2017, section 3.3; the distance is ours",
    metric="frechet",
    split="test",
    relation="frechet < frechet_uniform and code_nll < code_nll_uniform",
    seeds=3,
    cost="3 runs of 25 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  steps = {"paper": (40_000, 4_000), "small": (4_000, 2_000), "smoke": (2, 2)}[variant]
  stages = [
    dict(
      name=name,
      task=dict(name=task),
      # 1,200 images are few: a prior that is not held back learns them by heart.
      optimizer=dict(name="adamw", learning_rate=1e-3, weight_decay=decay),
      training=dict(
        steps=count,
        log_every=1 if variant == "smoke" else 100,
        eval_every=max(count // 2, 1),
        checkpoint_every=max(count // 2, 1),
      ),
    )
    for name, task, decay, count in zip(
      ("codes", "prior"), ("vector_quantization", "code_prior"), (0.0, 0.3), steps, strict=True
    )
  ]
  return ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="vq.mlp",
        quantizer="ema",
        codes=32,
        code_features=4,
        prior_layers=2,
        prior_features=16,
      ),
      data=dict(name="digits", batch_size=32 if variant == "smoke" else 64),
      stages=stages,
    )
  )
