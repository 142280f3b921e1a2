"""A bidirectional encoder tells hidden tokens of the Bible from those around them.

Paper     Devlin et al. 2019, "BERT", arXiv:1810.04805, section 3.1 and appendix A.2.
Run       python launch.py train --config=experiments/transformer/masked_kjv.py:small --workdir=runs/masked
Takes     small: about 60 s on two CPU cores.
Data      paper (BERT-base): text and a vocabulary of 30,522 word pieces that you bring as files;
          [MASK] is its token 103, and there are no pairs of sentences here. small: the King James
          Bible in 1,000 word pieces, held-out chapters.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="hidden_tokens",
    statement="share of the hidden tokens of held-out text that are told right, beside the share of"
    " the commonest token (commonest_accuracy); measured, not judged",
    paper="Devlin et al. 2019, section 3.1",
    metric="accuracy",
    split="test",
    relation="",
    seeds=3,
    cost="small: 3 runs of 60 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  smoke = variant == "smoke"
  if variant == "paper":
    model = dict(layers=12, features=768, heads=12)
    task = dict(mask_token=103)
    data = dict(
      name="text:files",
      path="corpora/bert/*.txt",
      tokenizer="corpora/bert/tokenizer.json",
      vocabulary=30_522,
      length=512,
      batch_size=256,
    )
    optimizer = dict(learning_rate=1e-4, warmup_steps=10_000, weight_decay=0.01)
    training = dict(steps=1_000_000, eval_every=10_000, checkpoint_every=10_000)
  else:
    model = dict(
      layers=2 if smoke else 4,
      features=16 if smoke else 96,
      heads=2 if smoke else 4,
      dropout=0.0,
      attention_dropout=0.0,
    )
    task = dict()
    data = dict(
      name="text:kjv",
      tokenizer="characters" if smoke else "wordpiece",
      vocabulary=0 if smoke else 1000,
      length=16 if smoke else 64,
      batch_size=4 if smoke else 16,
      eval_batch_size=8 if smoke else 64,
      validation=0.0,
      train_examples=64 if smoke else 0,
      test_examples=8 if smoke else 0,
    )
    optimizer = dict(learning_rate=1e-3, warmup_steps=1 if smoke else 200, weight_decay=0.01)
    training = (
      dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
      if smoke
      else dict(steps=1000, log_every=50, eval_every=500, checkpoint_every=500)
    )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="transformer.encoder", **model),
      task=dict(name="masked_language_model", **task),
      data=data,
      optimizer=dict(name="adamw", schedule="linear", final_fraction=1e-4, **optimizer),
      training=training,
    )
  )
