"""GPT-2: norms before the layers, and smaller initial weights the deeper the network.

Paper     Radford, Wu, Child, Luan, Amodei & Sutskever 2019, "Language Models are Unsupervised
          Multitask Learners", Table 3: perplexity without fine-tuning.
Run       python launch.py train --config=experiments/gpt/gpt2.py:small --workdir=runs/gpt2
Takes     small: about 40 s on two CPU cores.
Data      paper (124M), medium, large, xl: WebText, which was never published, or what you bring as
          files, with GPT-2's tokenizer. Batch and length are the paper's; it prints neither rate
          nor updates, which here are Megatron-LM's for the same model (arXiv:1909.08053).
          small: the King James Bible in 1,000 byte pairs, held-out chapters.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="beside_gpt1",
    statement="bits a character of held-out text, beside GPT-1's block (norms after the layers) of"
    " the same size; measured, not judged",
    paper="Radford et al. 2019, section 2.3",
    metric="bits_per_character",
    split="test",
    relation="",
    rivals=[{"model.norm_place": "post"}],
    seeds=3,
    variants=("small",),
    cost="6 runs of 40 s on two CPU cores",
  ),
  dict(
    name="perplexity",
    statement="perplexity of held-out text, per token; measured, not judged",
    paper="Radford et al. 2019, Table 3",
    metric="perplexity",
    split="test",
    relation="",
    published="WikiText-2: 29.41, medium 22.76, large 19.93, xl 18.34",
    seeds=3,
    cost="small: 3 runs of 40 s on two CPU cores",
  ),
]

_SIZES = {  # Table 2: layers, features, heads
  "paper": (12, 768, 12),
  "medium": (24, 1024, 16),
  "large": (36, 1280, 20),
  "xl": (48, 1600, 25),
}
VARIANTS = ("medium", "large", "xl")


def get_config(variant="paper"):
  smoke = variant == "smoke"
  if variant in _SIZES:
    layers, features, heads = _SIZES[variant]
    model = dict(layers=layers, features=features, heads=heads)
    data = dict(
      name="text:files",
      path="corpora/webtext/*.txt",
      tokenizer="corpora/webtext/tokenizer.json",
      vocabulary=50_257,
      length=1024,
      batch_size=512,
    )
    optimizer = dict(learning_rate=1.5e-4, warmup_steps=3000, weight_decay=0.01)
    training = dict(steps=300_000, eval_every=5000, checkpoint_every=5000, dtype="bfloat16")
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
    optimizer = dict(learning_rate=3e-3, warmup_steps=1 if smoke else 100, weight_decay=0.01)
    training = (
      dict(steps=4, log_every=1, eval_every=2, checkpoint_every=2)
      if smoke
      else dict(steps=600, log_every=50, eval_every=300, checkpoint_every=300)
    )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="transformer.gpt", **model),
      task=dict(name="language_model"),
      data=data,
      optimizer=dict(name="adamw", schedule="cosine", clip_norm=1.0, **optimizer),
      training=training,
    )
  )
