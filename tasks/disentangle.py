"""What a VAE's latents say of the factors that a data set knows of its examples.

Used by every objective of VAEs where the data has `factors` [N, K]. Metrics are of the posterior
means of the test split. The parts of the divergence are of the aggregate posterior, the mixture of
the posteriors of (the first 10,000) training examples.
"""

import numpy as np

from evaluation import disentanglement
from tasks.objective import Call, Examples, Objective, in_batches
from tasks.views import Lines

_POSTERIORS = 10_000


def scores(task: Objective, call: Call, train: Examples, test: Examples) -> dict[str, float]:
  """`mig`, `higgins` and `factor_vae`, and the parts of the divergence in nats."""
  inputs = (x[:_POSTERIORS] for x in task.inputs(train.arrays))
  posterior = in_batches(call, *inputs, method="encode")
  parts = disentanglement.decomposition(*posterior, np.random.default_rng(0))
  found = disentanglement.scores(task.features(call, test), test.arrays["factors"])
  return {**found, **parts._asdict()}


def information(task: Objective, call: Call, test: Examples) -> Lines:
  """How much each latent tells of each factor."""
  factors_NK = test.arrays["factors"]
  shares_ZK = disentanglement.shares(task.features(call, test), factors_NK)
  return Lines(
    np.arange(1, len(shares_ZK) + 1),
    {f"factor {k + 1}": share_Z for k, share_Z in enumerate(shares_ZK.T)},
    ("latent", "share of the factor's entropy"),
    "Mutual information of each latent with each factor: one peak a factor is disentangled.",
  )
