"""VQ-VAE-2: codes on two scales, and a prior on each.

Paper     Razavi, van den Oord & Vinyals 2019, arXiv:1906.00446, figure 2.
Run       python launch.py train --config=experiments/vq/hierarchical_fashion_mnist.py:small --workdir=runs/vq2
Takes     small: about 120 s on two CPU cores, most of it for drawing samples.
Data      Fashion-MNIST (`apt-get install dataset-fashion-mnist`); small: 4,000 images of it. Codes of
          14x14 and, above them, 7x7. The priors see codes of training images only.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="prior_beats_uniform",
    statement="samples through the two priors lie nearer to the test set than codes drawn at random,"
    " by Frechet distance in 16 principal components",
    paper="Razavi et al. 2019, section 3.2; the distance is ours",
    metric="frechet",
    split="test",
    relation="frechet < frechet_uniform",
    seeds=3,
    cost="small: 3 runs of 120 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  steps = {"paper": (50_000, 50_000), "small": (500, 500), "smoke": (2, 2)}[variant]
  stages = [
    dict(
      name=name,
      task=dict(name=task),
      training=dict(
        steps=count,
        log_every=1 if variant == "smoke" else 100,
        # Each evaluation of the prior draws samples, position by position.
        eval_every=count if variant == "small" else max(count // 2, 1),
        checkpoint_every=max(count // 2, 1),
      ),
    )
    for name, task, count in zip(
      ("codes", "prior"), ("vector_quantization", "code_prior"), steps, strict=True
    )
  ]
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="vq.hierarchical",
        features=(128,),
        codes=512,
        code_features=64,
        prior_layers=8,
        prior_features=128,
      ),
      data=dict(name="idx:fashion_mnist", batch_size=128, validation=5_000),
      optimizer=dict(name="adam", learning_rate=3e-4),
      stages=stages,
    )
  )
  if variant == "paper":
    return config
  config.model.update(
    dict(
      features=(16,),
      residual_blocks=1,
      residual_features=16,
      codes=64,
      code_features=8,
      revive=0.3,
      prior_layers=2,
      prior_features=16,
    )
  )
  config.data.update(dict(batch_size=32, train_examples=4_000, test_examples=1_000, validation=500))
  config.optimizer.learning_rate = 2e-3
  if variant == "smoke":
    config.model.update(
      dict(features=(4,), residual_features=4, codes=8, prior_layers=1, prior_features=4)
    )
    config.data.update(dict(train_examples=128, test_examples=50, validation=50))
    config.stages[-1]["task"]["samples"] = 20
  return config
