"""Causal attention over long texts: laid out whole, in blocks, and PyTorch's.

One example, 8 heads of 64 features, float32, forward and backward. Time is interleaved; memory is
what each process adds to its resident size at its peak beyond the inputs, and for ours also the
temporary memory that XLA states.

  blocked   models/layers/long_attention.py
  naive     models/layers/attention.py `attend`: all weights at once
  torch     scaled_dot_product_attention, which on CPUs has a flash kernel

Run: python benchmarks/long_attention.py --json=FILE
"""

import argparse
import functools
import os
import pathlib
import resource
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402

HEADS, WIDTH = 8, 64
LENGTHS = (2048, 4096)
NAMES = ("blocked", "naive", "torch")


def inputs(length: int) -> list[np.ndarray]:
  """Queries, keys and values [1, HEADS, length, WIDTH]."""
  generator = np.random.default_rng(0)
  shape = (3, 1, HEADS, length, WIDTH)
  return list(generator.standard_normal(shape, dtype=np.float32))


def with_jax(length: int, *, naive: bool):
  import jax
  import jax.numpy as jnp

  from models.layers import attention

  where = attention.Places(jnp.arange(length, dtype=jnp.int32)[None], plain=True)

  def mixed(q, k, v):
    q, scale = q.transpose(0, 2, 1, 3), WIDTH**-0.5
    if naive:
      seen = attention.visible(where, where, causal=True)
      return attention.attend(q, k, v, seen, scale=scale)[0]
    return attention.blocked(q, k, v, where, where, causal=True, scale=scale)

  arrays = [jax.device_put(x) for x in inputs(length)]
  gradients = jax.jit(jax.grad(lambda *x: (mixed(*x) ** 2).sum(), argnums=(0, 1, 2)))
  compiled = gradients.lower(*arrays).compile()
  _say(temporary_mib=compiled.memory_analysis().temp_size_in_bytes / 2**20)

  def run(steps: int):
    for _ in range(steps):
      jax.block_until_ready(compiled(*arrays))

  return run


def with_torch(length: int):
  import torch

  torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
  q, k, v = (torch.from_numpy(x).requires_grad_() for x in inputs(length))

  def run(steps: int):
    for _ in range(steps):
      for x in (q, k, v):
        x.grad = None
      mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
      (mixed**2).sum().backward()

  return run


def _say(**found: float):
  print("".join(f"{name}: {value:.1f}" for name, value in found.items()), file=sys.stderr)


def _peak() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(name: str, length: int):
  """The contender, which says how much its first run added to the peak of its process."""
  run = with_torch(length) if name == "torch" else with_jax(length, naive=name == "naive")
  before = _peak()
  run(1)
  _say(peak_mib=_peak() - before)
  return run


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=5, seconds=2.0)
  parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
  parser.add_argument("--worker", choices=NAMES, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    interleave.serve(functools.partial(measured, args.worker, args.lengths[0]))
    return
  found = {}
  for length in args.lengths:
    contenders = [
      interleave.elsewhere(
        name, [__file__, f"--worker={name}", "--lengths", str(length)], threads=args.threads
      )
      for name in NAMES
    ]
    records = interleave.race(contenders, rounds=args.rounds, seconds=args.seconds, pause=0.2)
    print(f"{length} tokens")
    print(interleave.show(records, reference="torch"))
    found[str(length)] = interleave.results(records, reference="torch")
  interleave.write(args.json, threads={"count": args.threads}, contenders=found)


if __name__ == "__main__":
  main()
