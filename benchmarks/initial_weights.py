"""Compiling and drawing a model's initial weights, by LLVM's level of optimisation.

Each experiment's first stage is drawn from one key at every level, and its weights are compared
with those of the highest, which is XLA's default.

Run: python benchmarks/initial_weights.py --json=FILE
"""

import argparse
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import numpy as np

from benchmarks import interleave
from training import config
from training.build import build
from training.initial import initial_state

EXPERIMENTS = (
  "experiments/vae/gaussian_mnist.py:paper",
  "experiments/convnet/resnet_digits.py:paper",
  "experiments/vq/hierarchical_fashion_mnist.py:small",
  "experiments/gpt/gpt2.py:paper",
)
LEVELS = (3, 2, 1, 0)


def measure(experiment: str, repeats: int) -> dict[str, dict[str, object]]:
  """By level: seconds to compile and to draw, how many weights are not the first level's."""
  init = initial_state(build(config.load(experiment)).stages[0])
  found = {level: {"compile": [], "draw": []} for level in LEVELS}
  reference = None
  for _ in range(repeats):
    for level in LEVELS:
      jax.clear_caches()  # or a second compilation is none
      lowered = jax.jit(init).lower(jax.random.key(0), None)
      before = time.perf_counter()
      compiled = lowered.compile({"xla_backend_optimization_level": level})
      found[level]["compile"].append(time.perf_counter() - before)
      before = time.perf_counter()
      state = jax.block_until_ready(compiled(jax.random.key(0), None))
      found[level]["draw"].append(time.perf_counter() - before)
      leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state.params)]
      reference = reference or leaves
      pairs = zip(leaves, reference, strict=True)
      found[level]["other"] = int(sum((a != b).sum() for a, b in pairs))
      found[level]["weights"] = sum(leaf.size for leaf in leaves)
  return {str(level): row for level, row in found.items()}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--experiments", nargs="+", default=EXPERIMENTS, metavar="FILE:VARIANT")
  parser.add_argument("--repeats", type=int, default=3, help="of each (3)")
  parser.add_argument("--json", metavar="FILE", help="write everything measured here")
  args = parser.parse_args()
  if "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", ""):
    parser.error("XLA_FLAGS sets the level that is to be measured")
  jax.config.update("jax_enable_compilation_cache", False)

  found = {}
  for experiment in args.experiments:
    found[experiment] = measure(experiment, args.repeats)
    print(experiment)
    for level, row in found[experiment].items():
      print(
        f"  level {level}: compiled in {min(row['compile']):.2f} s, drawn in {min(row['draw']):.2f}"
        f" s, {row['other']:,} of {row['weights']:,} weights other than at level {LEVELS[0]}"
      )
  interleave.write(args.json, experiments=found)


if __name__ == "__main__":
  main()
