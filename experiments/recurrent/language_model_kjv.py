"""Character language models of the Bible: gates against a plain recurrent network.

Paper     Mikolov et al. 2010 for Elman's network, Zaremba et al. 2014, arXiv:1409.2329, for the
          LSTM; the comparison at equal parameters follows Chung et al. 2014, arXiv:1412.3555.
Run       python launch.py train --config=experiments/recurrent/language_model_kjv.py:small --workdir=runs/lstm
Takes     small: about 60 s on two CPU cores.
Data      the King James Bible, held-out chapters, as bytes. paper: the medium LSTM of Zaremba et al.
          and its schedule on the same text, where theirs was 10,000 words of the Penn Treebank.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="gates_remember",
    statement="fewer bits a character of held-out chapters with LSTM cells than with Elman's, at"
    " equal steps and about equal parameters (149 thousand)",
    paper="Chung et al. 2014, on other data",
    metric="bits_per_character",
    split="test",
    relation="bits_per_character < rival.bits_per_character",
    rivals=[{"model.cell": "elman", "model.features": 236}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 60 s on two CPU cores",
  ),
  dict(
    name="bits",
    statement="bits a character of held-out chapters, by cell; measured",
    paper="none: these data have no published numbers",
    metric="bits_per_character",
    split="test",
    relation="",
    settings=[{"model.cell": "lstm"}, {"model.cell": "gru"}],
    seeds=3,
    cost="small: 6 runs of 60 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  smoke, paper = variant == "smoke", variant == "paper"
  if paper:
    model = dict(layers=2, features=650, dropout=0.5)
  else:
    features = 8 if smoke else 128
    model = dict(layers=1, features=features, embedding=max(features // 2, 4), dropout=0.0)
    model |= dict(init_scale=0.1)
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="recurrent.language_model", cell="lstm", **model),
      task=dict(name="language_model"),
      data=dict(
        name="text:kjv",
        tokenizer="bytes",
        length={"paper": 35, "small": 64, "smoke": 16}[variant],
        batch_size={"paper": 20, "small": 32, "smoke": 4}[variant],
        eval_batch_size=8 if smoke else 64,
        validation=0.0,
        train_examples=64 if smoke else 0,
        test_examples={"paper": 0, "small": 1000, "smoke": 8}[variant],
      ),
      # Zaremba et al., section 4.1: a rate of 1, divided by 1.2 every epoch after six of 39.
      optimizer=dict(
        name="sgd",
        learning_rate=1.0,
        clip_norm=5.0,
        schedule="step",
        step_at=tuple(i / 39 for i in range(6, 39)),
        step_factor=1 / 1.2,
      )
      if paper
      else dict(name="adam", learning_rate=4e-3, schedule="cosine", clip_norm=1.0),
      training=dict(
        steps={"paper": 200_000, "small": 1000, "smoke": 4}[variant],
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 0,
        checkpoint_every=2 if smoke else 0,
      ),
    )
  )
