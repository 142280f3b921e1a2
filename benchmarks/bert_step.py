"""The training step of BERT-base: Fukugen's, and Hugging Face's in PyTorch.

12 layers of width 768 with 12 heads, 128 tokens, a vocabulary of 30,522, batches of 8; masked
language modelling of random tokens, 15 % of them hidden, no dropout, AdamW at 1e-4; float32.

  ours            the step as `launch.py train` runs it, masks drawn within, with the task's metrics
  transformers    `BertForMaskedLM`, eager, with scaled_dot_product_attention and the fused AdamW;
                  masks are drawn within too, and every position gets its logits, as ours does
  matmul          a 2048 x 2048 float32 product, for the machine's rate; no BERT

Run: python benchmarks/bert_step.py --json=FILE
"""

import argparse
import os
import pathlib
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402

LAYERS, WIDTH, HEADS, LENGTH, VOCABULARY, BATCH = 12, 768, 12, 128, 30_522, 8
RATE, MASK = 0.15, 2
MATMUL = 2048
RIVAL = "transformers"


def write_text(directory: pathlib.Path):
  """Characters at random: speed does not depend on what a text says."""
  drawn = np.random.default_rng(0).integers(33, 127, 100_000).astype(np.uint8)
  for i in range(20):
    part = drawn[i * 5_000 : (i + 1) * 5_000].tobytes().decode()
    (directory / f"{i}.txt").write_text(part, encoding="utf-8")


def flops() -> float:
  """Of one step's matrix products, forward and twice that backward."""
  weights = LAYERS * 12 * WIDTH**2 + WIDTH**2 + VOCABULARY * WIDTH
  attention = 2 * LAYERS * LENGTH * WIDTH  # q k^T and p v of a token
  return 6 * BATCH * LENGTH * (weights + attention)


def ours(directory: str):
  import jax
  import ml_collections

  from data import source as sources
  from training import build, initial

  config = dict(
    model=dict(
      name="transformer.encoder",
      layers=LAYERS,
      features=WIDTH,
      heads=HEADS,
      types=2,
      dropout=0.0,
      attention_dropout=0.0,
    ),
    task=dict(name="masked_language_model", rate=RATE, mask_token=MASK),
    data=dict(
      name="text:files",
      path=f"{directory}/*.txt",
      tokenizer="characters",
      vocabulary=VOCABULARY,
      length=LENGTH,
      batch_size=BATCH,
    ),
    optimizer=dict(name="adamw", learning_rate=1e-4, weight_decay=0.01),
    training=dict(steps=1_000_000_000, mesh=dict(data=1)),
  )
  (stage,) = build.build(ml_collections.ConfigDict(config)).stages
  assert stage.model.vocabulary == VOCABULARY
  parallel = build.devices(stage.training)
  state = parallel.initialise(initial.initial_state(stage), jax.random.key(0), None)
  train = stage.source.split("train")
  trainer = parallel.trainer(stage, state, resident=train.arrays)
  taken = 0

  def run(steps: int):
    nonlocal state, taken
    while steps:
      count = min(trainer.group, steps)
      feeds = [
        sources.rows(0, taken + i, examples=len(train), batch_size=BATCH) for i in range(count)
      ]
      if train.arrays is None:
        feeds = [train.take(rows) for rows in feeds]
      state = trainer(state, feeds)
      taken += count
      steps -= count
    jax.block_until_ready(state)

  return run


def transformers(directory: str):
  del directory
  import torch
  from transformers import BertConfig, BertForMaskedLM

  torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
  torch.manual_seed(0)
  config = BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
  model = BertForMaskedLM(config).train()
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

  def run(steps: int):
    for _ in range(steps):
      tokens = torch.randint(VOCABULARY, (BATCH, LENGTH))
      chosen, fate = torch.rand(tokens.shape) < RATE, torch.rand(tokens.shape)
      swapped = torch.where(fate < 0.9, torch.randint(VOCABULARY, tokens.shape), tokens)
      seen = torch.where(chosen, torch.where(fate < 0.8, MASK, swapped), tokens)
      optimizer.zero_grad()
      model(seen, labels=torch.where(chosen, tokens, -100)).loss.backward()
      optimizer.step()

  return run


SETUPS = {
  "ours": ours,
  RIVAL: transformers,
  "matmul": lambda directory: interleave.matmul(MATMUL),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=4, seconds=6.0)
  parser.add_argument("--only", nargs="+", choices=SETUPS, default=list(SETUPS), metavar="NAME")
  parser.add_argument("--worker", choices=SETUPS, help=argparse.SUPPRESS)
  parser.add_argument("--directory", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    interleave.serve(lambda: SETUPS[args.worker](args.directory))
    return

  with tempfile.TemporaryDirectory() as directory:
    write_text(pathlib.Path(directory))
    contenders = [
      interleave.elsewhere(
        name,
        [__file__, f"--worker={name}", f"--directory={directory}"],
        threads=args.threads,
        multiple=10 if name == "matmul" else 1,
      )
      for name in args.only
    ]
    records = interleave.race(contenders, rounds=args.rounds, seconds=args.seconds, pause=0.2)

  steps = [record for record in records if record.name != "matmul"]
  reference = RIVAL if RIVAL in args.only else steps[0].name
  print(interleave.show(steps, reference=reference))
  summary = {}
  for record in records:
    work = 2 * MATMUL**3 if record.name == "matmul" else flops()
    summary[f"{record.name} GFLOP/s"] = round(work / record.best / 1e9, 1)
    if record.name != "matmul":
      summary[f"{record.name} tokens/s"] = round(BATCH * LENGTH / record.best)
  for line, value in summary.items():
    print(f"{line}: {value}")
  interleave.write(
    args.json,
    threads={"count": args.threads, **interleave.thread_settings(args.threads)},
    contenders=interleave.results(records, reference=reference),
    summary=summary,
  )


if __name__ == "__main__":
  main()
