"""Classifying images by ViT-B/16: Fukugen's, and Hugging Face's in PyTorch.

Batches of 8 images of 224 x 224 pixels, 1,000 classes, 86,567,656 random parameters, float32; what
is measured is the forward pass from images to logits.

  ours            models/transformer/vit.py, compiled, its layers unrolled as CPUs have them
  ours, a loop    the same with a loop over the layers, as on accelerators
  transformers    `ViTForImageClassification`, eager, with scaled_dot_product_attention
  matmul          a 2048 x 2048 float32 product, for the machine's rate

Run: python benchmarks/vit.py --json=FILE
"""

import argparse
import functools
import os
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402

SIDE, PATCH, CLASSES, BATCH = 224, 16, 1000, 8
LAYERS, WIDTH, HEADS = 12, 768, 12
TOKENS = 1 + (SIDE // PATCH) ** 2
MATMUL = 2048
RIVAL = "transformers"


def images() -> np.ndarray:
  return np.random.default_rng(0).random((BATCH, SIDE, SIDE, 3), np.float32)


def flops() -> float:
  """Of one batch's matrix products."""
  patches = (TOKENS - 1) * PATCH**2 * 3 * WIDTH
  layer = TOKENS * 12 * WIDTH**2 + 2 * TOKENS**2 * WIDTH
  return 2 * BATCH * (patches + LAYERS * layer + WIDTH * CLASSES)


def ours(*, unroll: int = 0):
  import jax

  from models.transformer import published, vit

  model = vit.Model((SIDE, SIDE, 3), CLASSES, unroll=unroll, **published.VIT["b16"])
  batch = jax.device_put(images())
  variables = jax.jit(lambda: model.init({"params": jax.random.key(0)}, batch))()
  forward = jax.jit(lambda variables, batch: model.apply(variables, batch).logits)

  def run(steps: int):
    for _ in range(steps):
      forward(variables, batch).block_until_ready()

  return run


def transformers():
  import torch
  from transformers import ViTConfig, ViTForImageClassification

  torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
  torch.manual_seed(0)
  config = ViTConfig(image_size=SIDE, patch_size=PATCH, num_labels=CLASSES, layer_norm_eps=1e-6)
  model = ViTForImageClassification(config).eval()
  batch = torch.tensor(np.moveaxis(images(), -1, 1).copy())

  def run(steps: int):
    with torch.inference_mode():
      for _ in range(steps):
        model(batch)

  return run


SETUPS = {
  "ours": ours,
  "ours, a loop": functools.partial(ours, unroll=1),
  RIVAL: transformers,
  "matmul": lambda: interleave.matmul(MATMUL),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=5, seconds=3.0)
  parser.add_argument("--only", nargs="+", choices=SETUPS, default=list(SETUPS), metavar="NAME")
  parser.add_argument("--worker", choices=SETUPS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    interleave.serve(SETUPS[args.worker])
    return

  contenders = [
    interleave.elsewhere(
      name,
      [__file__, f"--worker={name}"],
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
      summary[f"{record.name} images/s"] = round(BATCH / record.best, 2)
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
