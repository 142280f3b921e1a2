"""The importance-weighted autoencoder on binarised MNIST, with one and two layers of latents.

Paper     Burda, Grosse & Salakhutdinov 2015, arXiv:1509.00519, table 1: test negative
          log-likelihood, from 5,000 samples.
Run       python launch.py train --config=experiments/vae/importance_mnist.py --workdir=runs/iwae --config.data.name=tfds:mnist
          or, with the four IDX files of MNIST in DIR, --config.data.directory=DIR instead
          two layers: add --config.model.hidden='(200, 100)' --config.model.latents='(100, 50)'
Takes     small: about 40 s on two CPU cores.
Data      paper: MNIST, 59,600 to train and 400 to validate. small and smoke: Fashion-MNIST
          (`apt-get install dataset-fashion-mnist`), 500 test images. Binarised afresh each time an
          image is seen.
"""

from ml_collections import ConfigDict

_VAE, _FIVE, _FIFTY = ({"task.samples": k} for k in (1, 5, 50))
_TWO_LAYERS = {"model.hidden": (200, 100), "model.latents": (100, 50)}
_TABLE = dict(paper="Burda et al. 2015, table 1", metric="nll", split="test", seeds=3)


def _rows(layers, own, published):
  """The claims of the rows of table 1 with so many layers."""
  fifty = float(published.split(" / ")[0])
  table = dict(published=f"with 50, 5 and 1 samples: {published}", variants=("paper",), **_TABLE)
  return [
    dict(
      name=f"{layers}_fifty",
      statement=f"-log p(x) with 50 samples and {layers} layer(s) within 1 nat of the paper's",
      relation=f"{fifty - 1:.2f} < nll < {fifty + 1:.2f}",
      settings=[{**_FIFTY, **own}],
      **table,
    ),
    dict(
      name=f"{layers}_fifty_below_five",
      statement=f"-log p(x) lower with 50 samples than with 5, {layers} layer(s)",
      relation="nll < rival.nll",
      settings=[{**_FIFTY, **own}],
      rivals=[{**_FIVE, **own}],
      **table,
    ),
    dict(
      name=f"{layers}_five_below_vae",
      statement=f"-log p(x) lower with 5 samples than with 1, {layers} layer(s)",
      relation="nll < rival.nll",
      settings=[{**_FIVE, **own}],
      rivals=[{**_VAE, **own}],
      **table,
    ),
  ]


CLAIMS = [
  *_rows("one", {}, "84.78 / 85.54 / 86.76"),
  *_rows("two", _TWO_LAYERS, "82.90 / 83.89 / 85.33"),
  dict(
    name="fashion_mnist",
    statement="-log p(x) of 500 Fashion-MNIST images after 1,000 batches of 100, one and two"
    " layers, 5 samples",
    relation="",
    published="of MNIST only",
    settings=[{}, _TWO_LAYERS],
    variants=("small",),
    cost="small: 6 runs of 40 s on two CPU cores",
    **_TABLE,
  ),
]

# Section 5: stage i of 0 ... 7 is 3^i epochs at 10^(-i/7) of the first rate.
_EPOCHS = sum(3**i for i in range(8))
_EPOCH = 59_600 // 20


def get_config(variant="paper"):
  config = ConfigDict(
    dict(
      seed=0,
      model=dict(name="vae.importance", hidden=(200,), latents=(50,)),
      task=dict(name="importance", samples=50, nll_samples=5000),
      data=dict(name="idx:mnist", batch_size=20, validation=400, binarize="dynamic"),
      optimizer=dict(
        name="adam",
        learning_rate=1e-3,
        schedule="step",
        step_at=tuple(sum(3**j for j in range(i)) / _EPOCHS for i in range(1, 8)),
        step_factor=10 ** (-1 / 7),
        # 1e-4 for the paper's gradient, a sum over the batch of 20; ours is a mean.
        epsilon=1e-4 / 20,
      ),
      training=dict(
        steps=_EPOCHS * _EPOCH,
        log_every=_EPOCH,
        eval_every=41 * _EPOCH,
        checkpoint_every=41 * _EPOCH,
      ),
    )
  )
  if variant != "paper":
    config.task.update(dict(samples=5, nll_samples=500))
    config.data = ConfigDict(
      dict(
        name="idx:fashion_mnist",
        batch_size=100,
        train_examples=20_000,
        validation=500,
        test_examples=500,
        binarize="dynamic",
      )
    )
    config.optimizer = ConfigDict(dict(name="adam", learning_rate=1e-3, schedule="cosine"))
    config.training = ConfigDict(dict(steps=1_000, eval_every=500, checkpoint_every=500))
  if variant == "smoke":
    config.task.nll_samples = 5
    config.data.update(dict(train_examples=512, validation=200, test_examples=200))
    config.training = ConfigDict(dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2))
  return config
