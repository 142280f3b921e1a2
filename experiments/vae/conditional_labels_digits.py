"""Digits given their label: the latent is left with the style, and the label saves nats.

Paper     Kingma, Rezende, Mohamed & Welling 2014, arXiv:1406.5298, the generative model M2 with
          every label known; figure 1 has the analogies.
Run       python launch.py train --config=experiments/vae/conditional_labels_digits.py:small --workdir=runs/labels
Takes     small: about 15 s on two CPU cores.
Data      paper: MNIST. small and smoke: scikit-learn's digits. Binarised afresh each time an image
          is seen.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="label_saves_nats",
    statement="given its label, an image takes more than 2 nats less; a label itself is log 10 ="
    " 2.303, the most it could save were both models perfect",
    paper="Kingma et al. 2014, section 2",
    metric="nll",
    split="test",
    relation="nll < rival.nll - 2",
    rivals=[{"model.name": "vae.gaussian", "task.name": "elbo"}],
    seeds=5,
    cost="small: 10 runs of 15 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="vae.labelled", hidden=500, latents=50),
      task=dict(name="labelled", nll_samples=1000),
      data=dict(name="idx:mnist", batch_size=100, binarize="dynamic"),
      optimizer=dict(name="adam", learning_rate=3e-4),
      training=dict(steps=500_000, eval_every=25_000, checkpoint_every=25_000),
    )
  )
  if variant != "paper":
    config.model.update(dict(hidden=128, latents=8))
    config.data = ConfigDict(dict(name="digits", batch_size=100, binarize="dynamic"))
    config.optimizer = ConfigDict(dict(name="adam", learning_rate=1e-3, schedule="cosine"))
    config.training.update(
      dict(steps=6_000, log_every=100, eval_every=1_000, checkpoint_every=2_000)
    )
  if variant == "smoke":
    config.task.nll_samples = 5
    config.training.update(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
