"""Steps dispatched one by one against steps in a compiled loop, with and without convolutions.

A loop on the device saves the cost of a dispatch a step, which is most of a small network's step.
But inside a loop XLA's CPU backend runs a convolution on a slow path, which costs far more than any
dispatch: that is why training/parallel.py puts no program with a convolution into a loop there.

Contenders are the small ResNet and the dense VAE of the experiments, the same pure step and the
same batch every time, either from a Python loop or from within lax.fori_loop.

Run: python benchmarks/fused_steps.py --json=FILE
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

EXPERIMENTS = {
  "resnet": "experiments/convnet/resnet_digits.py:small",
  "vae": "experiments/vae/gaussian_digits.py:small",
}
STEPS = 4  # of one dispatch; few, so that the slow contender's turns stay short


def prepare(experiment: str, *, looped: bool) -> interleave.Run:
  """A run of the experiment's training step."""
  import jax

  from training import build, config, initial
  from training.step import train_step

  (stage,) = build.build(config.load(str(ROOT / experiment))).stages
  state = jax.jit(initial.initial_state(stage), static_argnums=1)(jax.random.key(0), None)
  split = stage.source.split("train")
  stored = jax.device_put(split.take(np.arange(stage.program.examples)))

  def one(state, stored):
    return train_step(state, stored, stage.program)

  def many(state, stored, count):
    return jax.lax.fori_loop(0, count, lambda _, state: one(state, stored), state)

  step = jax.jit(many if looped else one, donate_argnums=0)

  def run(steps: int):
    nonlocal state
    for _ in range(steps // STEPS):
      if looped:
        state = step(state, stored, np.int32(STEPS))
      else:
        for _ in range(STEPS):
          state = step(state, stored)
    jax.block_until_ready(state)

  return run


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=8, seconds=1.0)
  args = parser.parse_args()
  os.environ.update(interleave.thread_settings(args.threads))

  found = {}
  for name, experiment in EXPERIMENTS.items():
    contenders = [
      interleave.Contender(
        name=f"{name}, {way}",
        setup=functools.partial(prepare, experiment, looped=way == "in a loop"),
        multiple=STEPS,
      )
      for way in ("one by one", "in a loop")
    ]
    records = interleave.race(contenders, rounds=args.rounds, seconds=args.seconds)
    reference = f"{name}, one by one"
    print(interleave.show(records, reference=reference), flush=True)
    found |= interleave.results(records, reference=reference)
  interleave.write(args.json, threads=args.threads, steps_a_dispatch=STEPS, contenders=found)


if __name__ == "__main__":
  main()
