"""The training step of a GPT: Fukugen's, and PyTorch's with fused attention.

6 layers of width 384 with 6 heads, 256 tokens of context, a vocabulary of 65, batches of 12, tied
embeddings, tanh GELU, no dropout, AdamW at 1e-3; all in float32 (the size of nanoGPT's character
model, with a smaller batch). Every contender computes the same loss of random tokens.

  ours            the step as `launch.py train` runs it, with the task's metrics
  ours, a loop    the same with a loop over the layers, as on accelerators
  torch ...       eager with the fused AdamW and scaled_dot_product_attention; compiled likewise
  matmul          a 2048 x 2048 float32 product, for the machine's rate; no GPT

Run: python benchmarks/gpt_step.py --json=FILE
"""

import argparse
import functools
import os
import pathlib
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402

LAYERS, WIDTH, HEADS, LENGTH, VOCABULARY, BATCH = 6, 384, 6, 256, 65, 12
MATMUL = 2048
TORCH = ("torch eager", "torch compile")


def write_text(directory: pathlib.Path):
  """A text of VOCABULARY different characters at random: speed does not depend on what it says."""
  letters = [chr(33 + i) for i in range(VOCABULARY - 3)]  # and three special tokens
  drawn = np.random.default_rng(0).integers(0, len(letters), 200_000)
  for i in range(20):
    part = "".join(letters[j] for j in drawn[i * 10_000 : (i + 1) * 10_000])
    (directory / f"{i}.txt").write_text(part, encoding="utf-8")


def flops() -> float:
  """Of one step's matrix products, forward and twice that backward; attention's unmasked half."""
  weights = LAYERS * 12 * WIDTH**2 + VOCABULARY * WIDTH
  attention = LAYERS * LENGTH * WIDTH  # q k^T and p v of a token: 2 x LENGTH x WIDTH, half masked
  return 6 * BATCH * LENGTH * (weights + attention)


# --------------------------------------------------------------------------------- Fukugen


def ours(directory: str, *, unroll: int = 0):
  import jax
  import ml_collections

  from data import source as sources
  from training import build, initial

  config = dict(
    model=dict(
      name="transformer.gpt",
      layers=LAYERS,
      features=WIDTH,
      heads=HEADS,
      dropout=0.0,
      attention_dropout=0.0,
      unroll=unroll,
    ),
    task=dict(name="language_model"),
    data=dict(
      name="text:files",
      path=f"{directory}/*.txt",
      tokenizer="characters",
      length=LENGTH,
      batch_size=BATCH,
    ),
    optimizer=dict(name="adamw", learning_rate=1e-3, weight_decay=0.1),
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


# --------------------------------------------------------------------------------- PyTorch


def torch_gpt():
  """The twin of models/transformer/gpt.py."""
  import torch
  from torch import nn
  from torch.nn import functional

  class Block(nn.Module):
    def __init__(self):
      super().__init__()
      self.attention_norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
      self.qkv, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
      self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
      B, T, _ = x.shape
      qkv = self.qkv(self.attention_norm(x)).view(B, T, 3, HEADS, WIDTH // HEADS)
      q, k, v = qkv.permute(2, 0, 3, 1, 4)
      mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
      x = x + self.output(mixed.transpose(1, 2).reshape(B, T, WIDTH))
      wide = functional.gelu(self.up(self.mlp_norm(x)), approximate="tanh")
      return x + self.down(wide)

  class Gpt(nn.Module):
    def __init__(self):
      super().__init__()
      self.embedding = nn.Embedding(VOCABULARY, WIDTH)
      self.position_embedding = nn.Embedding(LENGTH, WIDTH)
      self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
      self.final_norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens):
      x = self.embedding(tokens) + self.position_embedding.weight
      for layer in self.layers:
        x = layer(x)
      return self.final_norm(x) @ self.embedding.weight.T

  gpt = Gpt()
  for parameter in gpt.parameters():
    if parameter.ndim > 1:
      torch.nn.init.normal_(parameter, std=0.02)
  return gpt


def with_torch(directory: str, *, compiled: bool = False):
  import torch

  torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
  torch.manual_seed(0)
  gpt = torch_gpt()
  optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
  forward = torch.compile(gpt) if compiled else gpt

  def run(steps: int):
    for _ in range(steps):
      tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1))
      logits = forward(tokens[:, :-1])
      optimizer.zero_grad()
      loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1)
      )
      loss.backward()
      optimizer.step()

  return run


# ------------------------------------------------------------------------------------ race

SETUPS = {
  "ours": ours,
  "ours, a loop": functools.partial(ours, unroll=1),
  TORCH[0]: with_torch,
  TORCH[1]: functools.partial(with_torch, compiled=True),
  "matmul": lambda directory: interleave.matmul(MATMUL),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=6, seconds=3.0)
  parser.add_argument("--only", nargs="+", choices=SETUPS, default=list(SETUPS), metavar="NAME")
  parser.add_argument("--worker", choices=SETUPS, help=argparse.SUPPRESS)
  parser.add_argument("--directory", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    interleave.serve(lambda: _ready(args.worker, args.directory))
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

  by_name = {record.name: record for record in records}
  steps = [record for record in records if record.name != "matmul"]
  rivals = [record for record in steps if record.name in TORCH]
  best = min(rivals or steps, key=lambda record: record.best)
  print(interleave.show(steps, reference=best.name))
  summary = {}
  for record in steps:
    summary[f"{record.name} tokens/s"] = round(BATCH * LENGTH / record.best)
    summary[f"{record.name} GFLOP/s"] = round(flops() / record.best / 1e9, 1)
  if "matmul" in by_name:
    peak = 2 * MATMUL**3 / by_name["matmul"].best
    summary["matmul GFLOP/s"] = round(peak / 1e9, 1)
    for record in steps:
      share = flops() / record.best / peak
      summary[f"{record.name} model FLOPs utilisation"] = round(share, 3)
  for line, value in summary.items():
    print(f"{line}: {value}")
  interleave.write(
    args.json,
    threads={"count": args.threads, **interleave.thread_settings(args.threads)},
    contenders=interleave.results(records, reference=best.name),
    summary=summary,
  )


def _ready(name: str, directory: str):
  cache = pathlib.Path(directory) / f"cache{list(SETUPS).index(name)}"  # torch minds a space
  os.environ.update(XDG_CACHE_HOME=str(cache), TORCHINDUCTOR_CACHE_DIR=str(cache / "torch"))
  os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would go before ours
  import launch

  launch._start_jax()
  return SETUPS[name](directory)


if __name__ == "__main__":
  main()
