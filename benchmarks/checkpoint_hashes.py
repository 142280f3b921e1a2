"""What verification costs: a save and a restore with and without the hashing and the sums.

A state of random numbers, which no compression makes smaller, is saved and restored. Measured are
the seconds that training waits for a save, those until it is sealed on the disk, and those of the
restore; and of each, apart, what hashing the leaves and summing the files takes.

Run: python benchmarks/checkpoint_hashes.py --megabytes=500 --json=FILE
"""

import argparse
import contextlib
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402

LEAVES = 20


def state_of(megabytes: int):
  """A state of so many megabytes, and its shapes."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from training.step import Rejected, State

  shape = (megabytes * 2**20 // 4 // LEAVES,)
  noise = np.random.default_rng(0)
  params = {f"leaf_{i:02}": jnp.asarray(noise.random(shape, np.float32)) for i in range(LEAVES)}
  zero = jnp.zeros((), jnp.int32)
  state = State(zero, params, {}, (), None, {}, Rejected(zero, zero), jax.random.key(0))
  shapes = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)  # noqa: E731
  return state, jax.tree.map(shapes, state)


@contextlib.contextmanager
def timed(found: dict[str, list[float]], name: str):
  before = time.perf_counter()
  yield
  found.setdefault(name, []).append(time.perf_counter() - before)


def measure(megabytes: int, repeats: int) -> dict[str, list[float]]:
  """Seconds of everything, a figure a repeat."""
  from training import checkpoint, sums
  from training.parallel import to_host

  state, abstract = state_of(megabytes)
  meta = {"stage": "", "step": 0, "devices": 1, "parallel": "jit", "best": None}
  found = {}
  for _ in range(repeats):
    with tempfile.TemporaryDirectory() as folder:
      checkpoints = checkpoint.Checkpoints(pathlib.Path(folder))
      with contextlib.closing(checkpoints):
        with timed(found, "save: until it is sealed"):
          with timed(found, "save: until training goes on"):
            checkpoints.save(0, state, meta)
          checkpoints.wait()
        with timed(found, "restore"):
          checkpoints.restore(0, abstract)
      host = to_host(state)
      with timed(found, "of these, hashing the leaves"):
        checkpoint.manifest(state, host, meta)
      with timed(found, "of these, checking the files' sums"):
        sums.check(pathlib.Path(folder) / "latest/0")
  return found


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--megabytes", type=int, default=500, help="of the state (500)")
  parser.add_argument("--repeats", type=int, default=5, help="of each (5)")
  parser.add_argument("--json", metavar="FILE", help="write everything measured here")
  args = parser.parse_args()

  found = measure(args.megabytes, args.repeats)
  gigabytes = args.megabytes / 1024
  for name, seconds in found.items():
    best = min(seconds)
    print(f"{name}: best {best:.2f} s, {best / gigabytes:.2f} s per GB", end="")
    print(f", median {statistics.median(seconds):.2f} s")
  interleave.write(args.json, megabytes=args.megabytes, seconds=found)


if __name__ == "__main__":
  main()
