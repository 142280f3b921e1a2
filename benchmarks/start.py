"""How long launch.py takes to answer: to `--help`, and to the first training step.

The first step is timed from the start of the process to the line in which launch.py reports it: of
a fresh run with an empty compilation cache, of a fresh run with the cache that this left behind,
and of the latter run launched again, which checks and restores its checkpoint before. Each is ended
at that line, whereupon it saves.

Run: python benchmarks/start.py --json=FILE
"""

import argparse
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402

EXPERIMENT = "experiments/vae/gaussian_digits.py:small"
_LINE = "first step after"  # launch.py says this once the first step is done
_PATIENCE = 60.0  # seconds for the rest of a run to stop


def until_help() -> float:
  """Seconds to the end of `launch.py --help`."""
  before = time.perf_counter()
  subprocess.run(
    [sys.executable, "launch.py", "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
  )
  return time.perf_counter() - before


def until_first_step(cache: str, workdir: str) -> float:
  """Seconds to the first step of a run in `workdir` whose compilation cache is below `cache`."""
  # A cache directory named in the environment would go before XDG_CACHE_HOME.
  environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
  before = time.perf_counter()
  process = subprocess.Popen(
    [sys.executable, "launch.py", "train", f"--config={EXPERIMENT}", f"--workdir={workdir}"],
    cwd=ROOT,
    env={**environment, "XDG_CACHE_HOME": cache},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,  # says that the run was interrupted, which it always is
    text=True,
  )
  said = []
  try:
    for line in process.stdout:
      said.append(line)
      if _LINE in line:
        return time.perf_counter() - before
  finally:
    # The polite signal, not a kill: a killed run could leave a torn file in the cache.
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=_PATIENCE)
  raise RuntimeError(f"launch.py ended before its first step:\n{''.join(said)}")


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--repeats", type=int, default=7, help="of each (7)")
  parser.add_argument("--json", metavar="FILE", help="write everything measured here")
  args = parser.parse_args()

  found = {"--help": [], "first step, cold cache": [], "first step, warm cache": []}
  found["first new step, launched again"] = []
  for _ in range(args.repeats):
    found["--help"].append(until_help())
    with tempfile.TemporaryDirectory() as folder:
      cache = f"{folder}/cache"
      found["first step, cold cache"].append(until_first_step(cache, f"{folder}/cold"))
      found["first step, warm cache"].append(until_first_step(cache, f"{folder}/warm"))
      found["first new step, launched again"].append(until_first_step(cache, f"{folder}/warm"))
  for name, seconds in found.items():
    print(f"{name}: best {min(seconds):.2f} s, median {statistics.median(seconds):.2f} s")
  interleave.write(args.json, seconds=found)


if __name__ == "__main__":
  main()
