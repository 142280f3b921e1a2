"""Translation from English to German: the Transformer beside the recurrent encoder-decoder.

Paper     Vaswani et al. 2017, arXiv:1706.03762, Table 2 (paper: 27.3 BLEU on WMT'14, whose pairs
          you bring as two files); Bahdanau, Cho & Bengio 2015, arXiv:1409.0473.
Run       python launch.py train --config=experiments/transformer/translation.py:small --workdir=runs/translation
Takes     small: about 5 min on two CPU cores.
Data      small: the help pages of LibreOffice, which Debian packages (docs/data.md): 16,052 pairs of
          sentences of at most 16 words; no English sentence is in two splits.
"""

from ml_collections import ConfigDict

_BAHDANAU = {
  "model": dict(
    name="recurrent.bahdanau", features=288, embedding=160, alignment=128, maxout=160, init_std=0.1
  ),
  "task.smoothing": 0.0,
  "optimizer": dict(name="adam", learning_rate=3e-3, schedule="cosine", clip_norm=1.0),
}
CLAIMS = [
  dict(
    name="transformer_and_bahdanau",
    statement="BLEU on held-out pairs of the Transformer and of the recurrent encoder-decoder with"
    " attention, at about equal parameters (3.9 and 4.1 million), equal data and steps; measured,"
    " not judged",
    paper="Vaswani et al. 2017, Table 2",
    metric="bleu",
    split="test",
    relation="",
    published="27.3, transformer base, WMT'14 En-De",
    rivals=[_BAHDANAU],
    seeds=2,
    variants=("small",),
    cost="4 runs of 4 to 5 min on two CPU cores",
  ),
  dict(
    name="bleu",
    statement="BLEU on pairs held out of the files that are brought, where the paper's is of"
    " newstest2014; measured, not judged",
    paper="Vaswani et al. 2017, Table 2",
    metric="bleu",
    split="test",
    relation="",
    published="27.3, transformer base",
    seeds=2,
    variants=("paper",),
    cost="2 runs of 12 h on 8 accelerators",
  ),
]


def get_config(variant="paper"):
  smoke = variant == "smoke"
  if variant == "paper":
    model = dict(features=512, heads=8, mlp_features=2048, encoder_layers=6, decoder_layers=6)
    data = dict(
      name="parallel:files",
      source_path="wmt14.en",
      target_path="wmt14.de",
      vocabulary=37_000,
      source_length=128,
      target_length=128,
      buckets=16,
      batch_size=800,  # about 25,000 tokens of either language
    )
  else:
    model = dict(
      features=16 if smoke else 192,
      heads=4,
      mlp_features=32 if smoke else 768,
      encoder_layers=1 if smoke else 3,
      decoder_layers=1 if smoke else 3,
      norm_place="pre",
    )
    data = dict(
      name="parallel:libreoffice-de",
      vocabulary=300 if smoke else 4000,
      source_length=64 if smoke else 32,
      target_length=72 if smoke else 40,
      max_words=6 if smoke else 16,
      buckets=2 if smoke else 4,
      batch_size=8 if smoke else 64,
      train_examples=64 if smoke else 0,
      test_examples=8 if smoke else 0,
      eval_batch_size=8 if smoke else 128,
    )
  return ConfigDict(
    dict(
      seed=0,
      model=dict(name="transformer.encoder_decoder", dropout=0.1, **model),
      task=dict(
        name="sequence_to_sequence",
        smoothing=0.1,
        smoothing_form="others",
        beams=2 if smoke else 4,
        length_penalty=0.6,
      ),
      data=dict(tokenizer="bpe", shared=True, **data),
      optimizer=dict(
        name="adam",
        b2=0.98,
        epsilon=1e-9,
        learning_rate=7e-4 if variant == "paper" else 3e-3,
        schedule="inverse_sqrt" if variant == "paper" else "cosine",
        warmup_steps={"paper": 4000, "small": 200, "smoke": 2}[variant],
        clip_norm=0.0 if variant == "paper" else 1.0,
      ),
      training=dict(
        steps={"paper": 100_000, "small": 800, "smoke": 4}[variant],
        log_every=1 if smoke else 50,
        eval_every=2 if smoke else 400,
        checkpoint_every=2 if smoke else 400,
        keep=5,  # evaluate --weights=average averages them
      ),
    )
  )
