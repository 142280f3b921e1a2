"""GPT-3: GPT-2 in eight sizes, every other layer attending to a band only.

Paper     Brown et al. 2020, "Language Models are Few-Shot Learners", arXiv:2005.14165, Table 2.1
          and appendix B.
Run       python launch.py train --config=experiments/gpt/gpt3.py:small --workdir=runs/gpt3
Takes     small: about 40 s on two CPU cores.
Data      paper (125M), 350m to 175b: text you bring as files, with GPT-2's tokenizer; 300 billion
          tokens each. The width of the bands was never published, 256 is ours; batches have their
          full size from the start, and the cosine ends with the training, not at 260 billion
          tokens. 1.3b has 16 heads and 13b 5,120 features, for the table's 24 and 5,140 do not
          agree with its heads of 128. Dropout is not mentioned and is 0.
          small: the King James Bible in 1,000 byte pairs, held-out chapters.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="bands_beside_dense_attention",
    statement="bits a character of held-out text with bands of 16 tokens in every other layer,"
    " beside dense attention in all; measured, not judged",
    paper="Brown et al. 2020, section 2.1",
    metric="bits_per_character",
    split="test",
    relation="",
    rivals=[{"model.window": 0}],
    seeds=3,
    cost="small: 6 runs of 40 s on two CPU cores",
  ),
]

_SIZES = {  # Table 2.1: layers, features, heads, sequences of 2,048 tokens a batch, rate
  "paper": (12, 768, 12, 256, 6.0e-4),
  "350m": (24, 1024, 16, 256, 3.0e-4),
  "760m": (24, 1536, 16, 256, 2.5e-4),
  "1.3b": (24, 2048, 16, 512, 2.0e-4),
  "2.7b": (32, 2560, 32, 512, 1.6e-4),
  "6.7b": (32, 4096, 32, 1024, 1.2e-4),
  "13b": (40, 5120, 40, 1024, 1.0e-4),
  "175b": (96, 12_288, 96, 1600, 0.6e-4),
}
_LENGTH, _TOKENS, _WARMUP = 2048, 300_000_000_000, 375_000_000
VARIANTS = ("350m", "760m", "1.3b", "2.7b", "6.7b", "13b", "175b")


def get_config(variant="paper"):
  smoke = variant == "smoke"
  if variant in _SIZES:
    layers, features, heads, batch, rate = _SIZES[variant]
    model = dict(layers=layers, features=features, heads=heads, window=256)
    data = dict(
      name="text:files",
      path="corpora/crawl/*.txt",
      tokenizer="corpora/crawl/tokenizer.json",
      vocabulary=50_257,
      length=_LENGTH,
      batch_size=batch,
    )
    optimizer = dict(learning_rate=rate, warmup_steps=_WARMUP // (batch * _LENGTH))
    training = dict(
      steps=_TOKENS // (batch * _LENGTH),
      eval_every=2000,
      checkpoint_every=2000,
      dtype="bfloat16",
      remat=True,
    )
  else:
    model = dict(
      layers=2 if smoke else 4,
      features=16 if smoke else 96,
      heads=2 if smoke else 4,
      window=4 if smoke else 16,
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
    optimizer = dict(learning_rate=3e-3, warmup_steps=1 if smoke else 100)
    training = (
      dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
      if smoke
      else dict(steps=600, log_every=50, eval_every=300, checkpoint_every=300)
    )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="transformer.gpt", dropout=0.0, attention_dropout=0.0, **model),
      task=dict(name="language_model"),
      data=data,
      optimizer=dict(
        name="adamw",
        b2=0.95,
        schedule="cosine",
        final_fraction=0.1,
        clip_norm=1.0,
        weight_decay=0.1,
        **optimizer,
      ),
      training=training,
    )
  )
