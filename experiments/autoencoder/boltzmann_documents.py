"""Ten numbers for a document: a deep autoencoder of counts of words, from Boltzmann machines.

Paper     Hinton & Salakhutdinov 2006, Science 313:504-507: 2000-500-250-125-10, softmax output,
          multinomial cross-entropy, on 804,414 Reuters stories. Differs: other documents; the lowest
          machine sees counts, N words being N draws (Salakhutdinov & Hinton 2009, "Replicated
          softmax"); Adam trains the unrolled network, where theirs had conjugate gradients.
Run       python launch.py train --config=experiments/autoencoder/boltzmann_documents.py:small --workdir=runs/documents
          without pretraining, from N(0, 0.01): add --config.model.init_std=0.01 and
          --config.stages.0.training.steps=1, and likewise for stages 1 and 2
Takes     small: about 15 s on two CPU cores.
Data      the chapters of the King James Bible, data/documents.py: 832 to train, 357 to test.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="pretraining_helps",
    statement="cross-entropy of the words below 0.97 of that of the same network from N(0, 0.01)"
    " without pretraining",
    paper="Hinton & Salakhutdinov 2006, of other documents",
    metric="multinomial",
    split="test",
    relation="multinomial < 0.97 * rival.multinomial",
    rivals=[{"model.init_std": 0.01, **{f"stages.{i}.training.steps": 1 for i in range(3)}}],
    seeds=3,
    cost="6 runs of 15 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  paper = variant == "paper"
  widths, words = ((500, 250, 125), 2000) if paper else ((128, 64), 500)
  pretraining, supervised = {"paper": (5_000, 5_000), "small": (1_000, 1_000), "smoke": (2, 3)}[
    variant
  ]
  top = len(widths)
  machines = [
    dict(
      name=f"rbm_{layer}",
      task=dict(name="contrastive_divergence", layer=layer, of="counts"),
      optimizer=dict(
        name="sgd",
        # Counts go far beyond 1, and linear units bound nothing.
        learning_rate={0: 2e-4, top: 1e-3}[layer] if layer in (0, top) else 0.05,
        momentum=0.9,
        weight_decay=2e-4,
      ),
      training=dict(steps=pretraining, best="squared", **_periods(variant, pretraining)),
    )
    for layer in range(top + 1)
  ]
  unrolled = dict(
    name="unrolled",
    model=dict(name="autoencoder.deep", widths=widths, code=10, output="softmax"),
    task=dict(name="reconstruction", error="multinomial", of="counts"),
    optimizer=dict(name="adam", learning_rate=1e-3),
    training=dict(steps=supervised, **_periods(variant, supervised)),
  )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="autoencoder.boltzmann", widths=widths, code=10, visible="softmax"),
      data=dict(name="documents:kjv", words=words, batch_size=20 if variant == "smoke" else 50),
      stages=(*machines, unrolled),
    )
  )


def _periods(variant, steps):
  if variant == "smoke":
    return dict(log_every=1, eval_every=2, checkpoint_every=2)
  return dict(eval_every=max(steps // 5, 1), checkpoint_every=max(steps // 2, 1))
