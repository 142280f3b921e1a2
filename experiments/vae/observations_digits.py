"""One VAE on digits of 17 grey levels under four observation models.

Paper     Kingma & Welling 2013, arXiv:1312.6114, appendix C (Gaussian); van den Oord et al. 2016,
          arXiv:1601.06759, section 3.1 (categorical); Salimans et al. 2017, arXiv:1701.05517, eq. 2
          (discretised logistic). None of them has numbers of these data.
Run       python launch.py train --config=experiments/vae/observations_digits.py:small --workdir=runs/observations
Takes     small: about 10 s on two CPU cores. paper: the network and optimizer of Kingma & Welling.
Data      scikit-learn's digits, whose pixels are counts from 0 to 16.
"""

from ml_collections import ConfigDict

from sweeps.space import grid

CLAIMS = [
  dict(
    name="discrete",
    statement="bits a pixel below 0.6 log2(17), and more likely than independent histograms of the"
    " pixels",
    paper="none: these data have no published numbers",
    metric="bits_per_dim",
    split="test",
    relation="bits_per_dim < 0.6 * log(17) / log(2) and elbo > -independent_nll",
    settings=[{"model.likelihood": "categorical"}, {"model.likelihood": "logistic"}],
    seeds=3,
    cost="small: 6 runs of 10 s on two CPU cores",
  ),
  dict(
    name="densities",
    statement="the bound on the log density of the pixels in [0, 1], of which bits make no sense",
    paper="Kingma & Welling 2013, appendix C",
    metric="elbo",
    split="test",
    relation="",
    settings=[
      {"model.likelihood": "gaussian"},
      {"model.likelihood": "gaussian_fixed", "model.observation_std": 0.15},
      {"model.likelihood": "gaussian_fixed", "model.observation_std": 1.0},
    ],
    seeds=3,
    cost="small: 9 runs of 10 s on two CPU cores",
  ),
  dict(
    name="collapse",
    statement="with a standard deviation of 1 a pixel in [0, 1] has nothing to tell: the posterior"
    " is the prior",
    paper="the divergence and the squared error in nats, Kingma & Welling 2013, eq. 10",
    metric="kl",
    split="test",
    relation="kl < 0.05",
    settings=[{"model.likelihood": "gaussian_fixed", "model.observation_std": 1.0}],
    seeds=3,
    variants=("small",),
    cost="the same runs",
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="vae.gaussian", likelihood="categorical", hidden=500, latents=20, init_std=0.01
      ),
      task=dict(name="elbo"),
      data=dict(name="digits", batch_size=100),
      optimizer=dict(name="adagrad", learning_rate=0.01),
      training=dict(
        steps=20_000,
        log_every=200,
        eval_every=2_000,
        checkpoint_every=5_000,
        best="elbo",
        best_is="greatest",
      ),
    )
  )
  if variant != "paper":
    config.model = ConfigDict(
      dict(name="vae.gaussian", likelihood="categorical", hidden=128, latents=8)
    )
    config.optimizer = ConfigDict(dict(name="adam", learning_rate=1e-3, schedule="cosine"))
    config.training.update(
      dict(steps=3_000, log_every=100, eval_every=1_000, checkpoint_every=1_000)
    )
  if variant == "smoke":
    config.training.update(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config


def sweep_likelihood():
  """Densities and probabilities do not compare: look at the pictures, or at the probe."""
  return grid({"model.likelihood": ("categorical", "logistic", "gaussian", "gaussian_fixed")})
