"""Eight small VAEs in one program against eight processes: `python benchmarks/population.py`.

The trials differ in learning rate and beta. Each way is the whole sweep command from an empty
directory; what the command takes when all is done already (imports, plan, report) is the same for
all ways and measured too, so that it can be subtracted. The ways are interleaved, and the
compilation cache is warm for all of them.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import interleave

ROOT = pathlib.Path(__file__).parent.parent
WAYS = {
  "one process, one after another": ["--population=sequential", "--jobs=1"],
  "one process, vectorised": ["--population=vectorised", "--jobs=1"],
  "a process a core, one after another": ["--population=sequential"],
  "a process a core, vectorised": ["--population=vectorised"],
  "a process each": ["--population=off", "--jobs=1"],
  "a process each, one a core at a time": ["--population=off"],
}
REFERENCE = "a process each"


def seconds(folder: str, steps: int, words: list[str]) -> float:
  """Seconds of the sweep command."""
  command = [
    sys.executable,
    str(ROOT / "launch.py"),
    "sweep",
    "--config=experiments/vae/gaussian_digits.py:small",
    f"--workdir={folder}",
    f"--config.training.steps={steps}",
    "--config.training.eval_every=0",
    "--config.training.checkpoint_every=0",
    *words,
  ]
  before = time.perf_counter()
  subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
  return time.perf_counter() - before


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  parser.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
  parser.add_argument("--steps", type=int, default=200, help="training steps of a trial (200)")
  parser.add_argument("--json", metavar="FILE", help="write everything measured here")
  args = parser.parse_args()

  found = {way: [] for way in WAYS}
  done = []
  for turn in range(args.rounds + 1):  # the first fills the compilation cache
    for way, words in WAYS.items():
      with tempfile.TemporaryDirectory() as folder:
        took = seconds(folder, args.steps, words)
        again = seconds(folder, args.steps, words)
      if turn:
        found[way].append(took)
        done.append(again)
  fixed = statistics.median(done)
  rows = {}
  print(f"8 VAEs of {args.steps} steps; the command with nothing to do: {fixed:.1f} s")
  for way in WAYS:
    whole = statistics.median(found[way])
    reference = statistics.median(found[REFERENCE])
    rows[way] = {
      "seconds": found[way],
      "median": whole,
      "speed": reference / whole,
      "speed_without_fixed_part": (reference - fixed) / (whole - fixed),
    }
    print(
      f"{way:46s} {whole:6.1f} s  {rows[way]['speed']:.2f}x"
      f"  trials alone {whole - fixed:6.1f} s  {rows[way]['speed_without_fixed_part']:.2f}x"
    )
  interleave.write(args.json, steps=args.steps, nothing_to_do=done, ways=rows)


if __name__ == "__main__":
  main()
