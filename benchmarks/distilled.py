"""What DistilBERT saves: a student of half the layers, beside its teacher.

BERT-base's shape and its student's (models/transformer/published.py), random parameters, batches of
8 texts of 128 tokens, float32; what is measured is the forward pass to features of every token. The
paper's own figures (Sanh et al. 2019, arXiv:1910.01108, table 3) are of STS-B on a CPU: 668 s and
410 s.

  student    6 layers, 66,362,880 parameters of an encoder
  teacher    12 layers

Run: python benchmarks/distilled.py --json=FILE
"""

import argparse
import functools
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402

LENGTH, BATCH = 128, 8
RIVAL = "teacher"


def model(name: str):
  import jax

  from models.transformer import encoder, published

  module = encoder.Model(**published.ENCODER[name])
  row = np.random.default_rng(0).integers(0, 30_522, (BATCH, LENGTH), np.int32)
  variables = jax.jit(lambda: module.init({"params": jax.random.key(0)}, row))()
  return module, variables, jax.device_put(row)


def forward(name: str):
  import jax

  module, variables, row = model(name)
  run_once = jax.jit(lambda variables, row: module.apply(variables, row, method="encode"))

  def run(steps: int):
    for _ in range(steps):
      run_once(variables, row).block_until_ready()

  return run


SETUPS = {
  "student": functools.partial(forward, "distilbert"),
  RIVAL: functools.partial(forward, "bert-base"),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=7, seconds=2.0)
  parser.add_argument("--worker", choices=SETUPS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    interleave.serve(SETUPS[args.worker])
    return
  contenders = [
    interleave.elsewhere(name, [__file__, f"--worker={name}"], threads=args.threads)
    for name in SETUPS
  ]
  records = interleave.race(contenders, rounds=args.rounds, seconds=args.seconds, pause=0.2)
  print(interleave.show(records, reference=RIVAL))
  interleave.write(
    args.json,
    threads={"count": args.threads, **interleave.thread_settings(args.threads)},
    contenders=interleave.results(records, reference=RIVAL),
    summary={f"{record.name} texts/s": round(BATCH / record.best, 2) for record in records},
  )


if __name__ == "__main__":
  main()
