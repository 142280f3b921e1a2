"""Reading the source from its end: deep LSTMs copy strings better when they see them reversed.

Paper     Sutskever, Vinyals & Le 2014, arXiv:1409.3215, section 3.3: reversed sources, perplexity
          4.7 instead of 5.8. The task is ours: strings to be copied, whose words correspond in
          order as those of two European languages mostly do.
Run       python launch.py train --config=experiments/recurrent/sutskever_copy.py:small --workdir=runs/copy
Takes     small: about 45 s on two CPU cores.
Data      generated: strings of 1 to 10 of 26 letters; no string is in two splits. paper: the
          published network and schedule on strings of up to 50.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="reversed_sources",
    statement="a lower perplexity of test targets, after equal steps, where the source is reversed",
    paper="Sutskever et al. 2014, section 3.3; the task is ours",
    metric="perplexity",
    split="test",
    relation="perplexity < rival.perplexity",
    published="4.7 reversed and 5.8 not",
    rivals=[{"data.reverse_source": False}],
    seeds=3,
    cost="small: 6 runs of 45 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  smoke, paper = variant == "smoke", variant == "paper"
  model = dict(name="recurrent.sutskever")
  if not paper:
    features = 8 if smoke else 96
    model |= dict(layers=2, features=features, embedding=features // 2)
  return ConfigDict(
    dict(
      seed=0,
      model=model,
      task=dict(name="sequence_to_sequence", beams=12 if paper else 1),
      data=dict(
        name="strings:copy",
        minimum=1,
        maximum={"paper": 50, "small": 10, "smoke": 4}[variant],
        reverse_source=True,
        batch_size={"paper": 128, "small": 64, "smoke": 8}[variant],
        train_examples=64 if smoke else 40_000,
        test_examples=8 if smoke else 1000,
      ),
      # Section 3.4: a rate of 0.7, halved every half epoch after five of seven and a half. The
      # paper's gradient is of a sentence's sum, ours of the mean over tokens.
      optimizer=dict(
        name="sgd",
        learning_rate=0.7,
        clip_norm=5.0,
        schedule="step",
        step_at=tuple(i / 15 for i in range(10, 15)),
        step_factor=0.5,
      )
      if paper
      else dict(name="adam", learning_rate=4e-3, schedule="cosine", clip_norm=5.0),
      training=dict(
        steps={"paper": 100_000, "small": 700, "smoke": 4}[variant],
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 0,
        checkpoint_every=2 if smoke else 0,
      ),
    )
  )
