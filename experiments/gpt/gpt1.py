"""GPT-1: a decoder with norms after its layers learns a language from books.

Paper     Radford, Narasimhan, Salimans & Sutskever 2018, "Improving Language Understanding by
          Generative Pre-Training", section 4.1: perplexity 18.4 on BooksCorpus.
Run       python launch.py train --config=experiments/gpt/gpt1.py:small --workdir=runs/gpt1
Takes     small: about 40 s on two CPU cores.
Data      paper: BooksCorpus and GPT-1's tokenizer, which you bring as files. 100 epochs are about 3
          million updates by our estimate (985 million words). small: the King James Bible in 1,000
          byte pairs, held-out chapters.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="perplexity",
    statement="perplexity of held-out text, per token; measured, not judged",
    paper="Radford et al. 2018, section 4.1",
    metric="perplexity",
    split="test",
    relation="",
    published="18.4 on BooksCorpus, tokens of its own vocabulary",
    seeds=3,
    cost="small: 3 runs of 40 s on two CPU cores",
  ),
]


def get_config(variant="paper"):
  smoke = variant == "smoke"
  if variant == "paper":
    model = dict(layers=12, features=768, heads=12, dropout=0.1, attention_dropout=0.1)
    data = dict(
      name="text:files",
      path="corpora/books/*.txt",
      tokenizer="corpora/books/tokenizer.json",
      vocabulary=40_478,
      length=512,
      batch_size=64,
    )
    optimizer = dict(learning_rate=2.5e-4, warmup_steps=2000, weight_decay=0.01)
    training = dict(steps=3_000_000, eval_every=10_000, checkpoint_every=10_000)
  else:
    model = dict(
      layers=2 if smoke else 4,
      features=16 if smoke else 96,
      heads=2 if smoke else 4,
      dropout=0.0,
      attention_dropout=0.0,
    )
    data = dict(
      name="text:kjv",
      tokenizer="bytes" if smoke else "bpe",
      vocabulary=0 if smoke else 1000,
      length=16 if smoke else 64,
      batch_size=4 if smoke else 16,
      eval_batch_size=8 if smoke else 64,
      validation=0.0,
      train_examples=64 if smoke else 0,
      test_examples=8 if smoke else 0,
    )
    optimizer = dict(learning_rate=1.5e-3, warmup_steps=1 if smoke else 100, weight_decay=0.01)
    training = (
      dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
      if smoke
      else dict(steps=600, log_every=50, eval_every=300, checkpoint_every=300)
    )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="transformer.gpt", norm_place="post", **model),
      task=dict(name="language_model"),
      data=data,
      optimizer=dict(name="adamw", schedule="cosine", final_fraction=1e-6, **optimizer),
      training=training,
    )
  )
