"""Discrete codes on digits: all of them are used, and moving averages learn them best.

Paper     van den Oord, Vinyals & Kavukcuoglu 2017, arXiv:1711.00937, which has no such data set;
          appendix A.1 for the moving averages.
Run       python launch.py train --config=experiments/vq/vq_digits.py:small --workdir=runs/vq
Takes     small: about 10 s on two CPU cores.
Data      scikit-learn's digits, real-valued pixels. 8 codes of 5 bits stand for an image.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

# Whole blocks in place of others: |KL - C| holds what the code may say to the bits of 8 codes of 32.
_VAE_OF_EQUAL_BITS = {
  "model": dict(
    name="vae.gaussian",
    hidden=128,
    latents=32,
    likelihood="gaussian_fixed",
    observation_std=0.1,
  ),
  "task": dict(name="elbo", capacity=27.73, capacity_steps=1_000, beta=10.0),
}

CLAIMS = [
  dict(
    name="all_codes_are_used",
    statement="perplexity above 24 of 32 codes over the test set, and every code is used",
    paper="van den Oord et al. 2017, appendix A.1; the bounds are ours",
    metric="perplexity",
    split="test",
    relation="perplexity > 24 and codes_used > 31.5",
    seeds=3,
    variants=("small",),
    cost="3 runs of 10 s on two CPU cores",
  ),
  dict(
    name="averages_beside_gradient",
    statement="squared error with a codebook of moving averages, beside one learned by gradient from"
    " the same small start",
    paper="van den Oord et al. 2017, appendix A.1, which does not compare the two",
    metric="squared",
    split="test",
    relation="",
    rivals=[{"model.quantizer": "gradient"}],
    seeds=3,
    cost="6 runs of 10 s on two CPU cores",
  ),
  dict(
    name="quantizing_costs",
    statement="squared error above that of the same network without a quantiser",
    paper="van den Oord et al. 2017, section 3.1",
    metric="squared",
    split="test",
    relation="squared > rival.squared",
    rivals=[{"model.quantizer": "none"}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 10 s on two CPU cores",
  ),
  dict(
    name="beside_a_vae_of_equal_bits",
    statement="squared error, beside a VAE whose divergence is held at the 40 bits (27.7 nats) of the"
    " eight codes",
    paper="van den Oord et al. 2017, section 4.1, who compare bits per dimension",
    metric="squared",
    split="test",
    relation="",
    rivals=[_VAE_OF_EQUAL_BITS],
    seeds=3,
    variants=("small",),
    cost="6 runs of 15 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  # The paper's settings where they carry over: beta 0.25, decay 0.99.
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="vq.mlp", quantizer="ema", codes=32, code_features=4, fsq_levels=(4, 2, 2, 2)
      ),
      task=dict(name="vector_quantization", commitment=0.25),
      data=dict(name="digits", batch_size=64, validation=0),
      optimizer=dict(name="adam", learning_rate=1e-3),
      training=dict(steps=4_000, eval_every=2_000, checkpoint_every=2_000),
    )
  )
  if variant == "paper":
    config.training.update(dict(steps=40_000, eval_every=4_000, checkpoint_every=4_000))
  if variant == "smoke":
    config.data.batch_size = 32
    config.model.revive = 0.1
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config


def sweep():
  """The four ways to quantise."""
  return grid({"model.quantizer": ("ema", "gradient", "fsq", "none")})
