"""A training step by length: the Transformer and recurrent encoder-decoders of about its size.

Sources and targets of 24, 96 and 192 tokens out of 30, batches of 32, Adam; about 430,000
parameters each (experiments/transformer/sort.py), float32. The ratio of two counts: it grows
with length where the one computes positions at once and the other one after another.

Run: python benchmarks/sequence_length.py --json=FILE
"""

import argparse
import functools
import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402

VOCABULARY, BATCH, LENGTHS = 30, 32, (24, 96, 192)
NAMES = ("transformer", "gru attention", "gru")


def model(name: str):
  """The contender's network."""
  from models.recurrent import bahdanau
  from models.transformer import encoder_decoder

  if name == "transformer":
    return encoder_decoder.Model(
      VOCABULARY,
      VOCABULARY,
      encoder_layers=2,
      decoder_layers=2,
      features=96,
      heads=4,
      mlp_features=256,
      norm_place="pre",
      dropout=0.0,
    )
  attention = name == "gru attention"
  sizes = dict(features=120, embedding=96, alignment=96, maxout=64, attention=attention)
  return bahdanau.Model(VOCABULARY, VOCABULARY, **sizes)


def contender(name: str, length: int) -> interleave.Contender:
  """A contender that takes training steps at one length."""

  def setup():
    import jax
    import optax

    network, optimizer = model(name), optax.adam(1e-3)
    generator = np.random.default_rng(0)
    draw = lambda n: generator.integers(0, VOCABULARY, (BATCH, n), dtype=np.int32)  # noqa: E731
    source, target = jax.device_put(draw(length)), jax.device_put(draw(length + 1))

    def loss(params):
      logits = network.apply({"params": params}, source, target[:, :-1], train=True).logits
      return optax.softmax_cross_entropy_with_integer_labels(logits, target[:, 1:]).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state):
      params, moments = state
      updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
      return optax.apply_updates(params, updates), moments

    params = jax.jit(network.init)({"params": jax.random.key(0)}, source, target[:, :-1])["params"]
    state = params, jax.jit(optimizer.init)(params)

    def run(steps: int):
      nonlocal state
      for _ in range(steps):
        state = step(state)
      jax.block_until_ready(state)

    return run

  return interleave.Contender(name=name, setup=setup)


def parameters(name: str) -> int:
  """How many the contender has."""
  import math

  import jax

  tokens = np.zeros((1, 4), np.int32)
  shapes = jax.eval_shape(lambda: model(name).init({"params": jax.random.key(0)}, tokens, tokens))
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=5, seconds=1.0)
  parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
  args = parser.parse_args()
  sizes = {name: parameters(name) for name in NAMES}
  print(json.dumps(sizes))
  found, summary = {}, {}
  for length in args.lengths:
    records = interleave.race(
      [contender(name, length) for name in NAMES], rounds=args.rounds, seconds=args.seconds
    )
    print(f"length {length}\n{interleave.show(records, reference=NAMES[0])}")
    found[length] = interleave.results(records, reference=NAMES[0])
    summary[length] = {
      record.name: interleave.ratio(records[0], record)._asdict() for record in records[1:]
    }
  interleave.write(args.json, parameters=sizes, lengths=found, transformer_over=summary)


if __name__ == "__main__":
  main()
