"""Learning in context: functions that a GPT never saw are read off examples, weights frozen.

Sequences x1 f(x1) x2 f(x2) ... with f(x) = a x + b modulo 7, a and b drawn for each; eight of the
42 functions are only in the test set. Before the first example an answer is a guess; two examples
of different arguments say all.

Paper     Brown et al. 2020, arXiv:2005.14165, figure 1.2 (accuracy rises with the number of examples
          in the context); Garg et al. 2022, arXiv:2208.01066, for the form and the paper's size.
Run       python launch.py train --config=experiments/in_context/affine.py:small --workdir=runs/in_context
Takes     small: about 60 s on two CPU cores.
Data      generated: functions in the splits are different ones, arguments are drawn afresh.
"""

from ml_collections import ConfigDict

from sweeps.space import chain, grid

CLAIMS = [
  dict(
    name="learns_in_context",
    statement="on functions never trained on, the last answer of a sequence is right far more often"
    " than the first, without any change of weights",
    paper="Brown et al. 2020, section 1; Garg et al. 2022, section 3",
    metric="accuracy_last",
    split="test",
    relation="accuracy_last > accuracy_first + 0.5 and accuracy_first < 0.25",
    seeds=3,
    cost="small: 3 runs of 60 s on two CPU cores",
  ),
  dict(
    name="more_than_copying",
    statement="on functions never trained on, of arguments that have not occurred, against 1 in 7 by"
    " chance",
    paper="ours",
    metric="accuracy_new",
    split="test",
    relation="",
    settings="sweep_functions",
    seeds=3,
    variants=("small",),
    cost="small: 6 runs of 60 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  steps, layers, features, heads = {
    "paper": (500_000, 12, 256, 8),
    "small": (2000, 2, 64, 4),
    "smoke": (4, 1, 8, 2),
  }[variant]
  smoke, small = variant == "smoke", variant == "small"
  return ConfigDict(
    dict(
      seed=0,
      model=dict(
        name="transformer.gpt",
        layers=layers,
        features=features,
        heads=heads,
        positions="rotary" if small else "learned",
        # From 0.02 small networks may take any number of steps to begin to look back.
        init_std=0.1 if small else 0.02,
        dropout=0.0,
        attention_dropout=0.0,
      ),
      task=dict(name="in_context"),
      data=dict(
        name="functions",
        arguments=7 if small else 5 if smoke else 29,
        examples=12 if small else 4 if smoke else 40,
        batch_size=8 if smoke else 64,
        train_examples=64 if smoke else 8192,
        test_examples=12 if smoke else 2000,
      ),
      optimizer=dict(
        name="adamw",
        learning_rate=3e-3 if small else 1e-4,
        schedule="cosine",
        warmup_steps=100 if small else 0,
        weight_decay=0.01,
        clip_norm=1.0,
      ),
      training=dict(
        steps=steps,
        log_every=1 if smoke else 100,
        eval_every=2 if smoke else max(steps // 5, 1),
        checkpoint_every=2 if smoke else max(steps // 5, 1),
      ),
    )
  )


def sweep_functions():
  """All 34 functions to train on, and 4 of them."""
  return chain(({},), grid({"data.train_functions": (4,)}))
