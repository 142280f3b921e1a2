"""The training step of a GRU with attention: Fukugen's, a plain scan's and PyTorch's two ways.

The network is models/recurrent/bahdanau.py with 256 units everywhere (256 of embedding, state and
alignment, 128 maxout), 1,000 words on either side; batches of 64 pairs of 30 and 30 tokens, all of
them full; Adam at 1e-3 on the mean negative log-likelihood of a token.

  ours            the model as it is, one step a dispatch
  plain scan      the same model with jax.lax.scan in place of models/layers/recurrence.py
  torch eager     the twin: inputs of all steps projected before the loop and logits read after
                  it, as ours; its cells are written out, since PyTorch's GRU is another one
  torch compile   the same through torch.compile

Run: python benchmarks/seq2seq_step.py --json=FILE
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

VOCABULARY, UNITS, MAXOUT, BATCH, LENGTH = 1000, 256, 128, 64, 30
TORCH = ("torch eager", "torch compile")


def pairs() -> tuple[np.ndarray, np.ndarray]:
  """[BATCH, LENGTH] sources and [BATCH, LENGTH + 1] targets; speed does not depend on which."""
  generator = np.random.default_rng(0)
  source = generator.integers(0, VOCABULARY, (BATCH, LENGTH), dtype=np.int32)
  return source, generator.integers(0, VOCABULARY, (BATCH, LENGTH + 1), dtype=np.int32)


# --------------------------------------------------------------------------------- Fukugen


def model():
  """models/recurrent/bahdanau.py at the size of the race."""
  from models.recurrent import bahdanau

  return bahdanau.Model(
    VOCABULARY, VOCABULARY, features=UNITS, embedding=UNITS, alignment=UNITS, maxout=MAXOUT
  )


def loss(network, params, source, target):
  """The mean negative log-likelihood of a token."""
  import optax

  logits = network.apply({"params": params}, source, target[:, :-1], train=True).logits
  return optax.softmax_cross_entropy_with_integer_labels(logits, target[:, 1:]).mean()


def ours(*, plain: bool = False):
  import jax
  import optax

  if plain:
    _scan_plainly()
  network, optimizer = model(), optax.adam(1e-3)
  source, target = (jax.device_put(x) for x in pairs())

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, source, target):
    params, moments = state
    gradients = jax.grad(functools.partial(loss, network))(params, source, target)
    updates, moments = optimizer.update(gradients, moments, params)
    return optax.apply_updates(params, updates), moments

  @jax.jit
  def init(key):
    params = network.init({"params": key}, source, target[:, :-1])["params"]
    return params, optimizer.init(params)

  state = init(jax.random.key(0))

  def run(steps: int):
    nonlocal state
    for _ in range(steps):
      state = step(state, source, target)
    jax.block_until_ready(state)

  return run


def _scan_plainly():
  """The loop as it would be without models/layers/recurrence.py."""
  import jax

  from models.layers import cells, recurrence
  from models.recurrent import bahdanau

  def unroll(step, weights, shared, carry, xs, *, reverse=False):
    def body(carry, x):
      return step(lambda name, a: recurrence._dot(a, weights[name]), shared, carry, x)

    return jax.lax.scan(body, carry, xs, reverse=reverse)

  cells.unroll = bahdanau.unroll = unroll


# --------------------------------------------------------------------------------- PyTorch


def torch_model():
  """The twin of models/recurrent/bahdanau.py, of its parameters and their names."""
  import torch

  class Gru(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.input = torch.nn.Linear(UNITS, 3 * UNITS)
      self.gates = torch.nn.Linear(UNITS, 2 * UNITS, bias=False)
      self.new = torch.nn.Linear(UNITS, UNITS, bias=False)

    def step(self, x, h):
      r, z = torch.sigmoid(x[:, : 2 * UNITS] + self.gates(h)).chunk(2, dim=1)
      return torch.lerp(h, torch.tanh(x[:, 2 * UNITS :] + self.new(r * h)), z)

    def forward(self, x_TBD, *, reverse=False):
      x = self.input(x_TBD)
      h, found = x.new_zeros(x.shape[1], UNITS), []
      for x_BG in reversed(x.unbind(0)) if reverse else x.unbind(0):
        h = self.step(x_BG, h)
        found.append(h)
      return torch.stack(found[::-1] if reverse else found)

  class Bahdanau(torch.nn.Module):
    def __init__(self):
      super().__init__()
      linear = functools.partial(torch.nn.Linear, bias=False)
      self.source_embedding = torch.nn.Embedding(VOCABULARY, UNITS)
      self.target_embedding = torch.nn.Embedding(VOCABULARY, UNITS)
      self.forward_, self.backward_, self.decoder = Gru(), Gru(), Gru()
      self.start = torch.nn.Linear(UNITS, UNITS)
      self.context = linear(2 * UNITS, 3 * UNITS)
      self.query, self.key = linear(UNITS, UNITS), torch.nn.Linear(2 * UNITS, UNITS)
      self.score = torch.nn.Parameter(torch.zeros(UNITS))
      self.readout_state = torch.nn.Linear(UNITS, 2 * MAXOUT)
      self.readout_token = linear(UNITS, 2 * MAXOUT)
      self.readout_context = linear(2 * UNITS, 2 * MAXOUT)
      self.output = torch.nn.Linear(MAXOUT, VOCABULARY)

    def forward(self, source, target):
      x = self.source_embedding(source.T)
      ahead, back = self.forward_(x), self.backward_(x, reverse=True)
      annotations = torch.cat([ahead, back], dim=2).transpose(0, 1).contiguous()
      keys, h = self.key(annotations), torch.tanh(self.start(back[0]))
      y = self.target_embedding(target.T)
      before, contexts = [], []
      for x_BG in self.decoder.input(y).unbind(0):
        scores = torch.tanh(self.query(h)[:, None] + keys) @ self.score
        weights = torch.softmax(scores, dim=1)
        context = torch.bmm(weights[:, None], annotations)[:, 0]
        before.append(h)
        contexts.append(context)
        h = self.decoder.step(x_BG + self.context(context), h)
      wide = self.readout_state(torch.stack(before)) + self.readout_token(y)
      wide = wide + self.readout_context(torch.stack(contexts))
      return self.output(wide.unflatten(2, (-1, 2)).amax(3)).transpose(0, 1)

  return Bahdanau()


def torch_loss(network, source, target):
  """As `loss`."""
  import torch

  logits = network(source, target[:, :-1])
  return torch.nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())


def with_torch(*, compiled: bool = False):
  import torch

  torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
  torch.manual_seed(0)
  source, target = (torch.from_numpy(x.astype(np.int64)) for x in pairs())
  network = torch_model()
  optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
  value = torch.compile(torch_loss) if compiled else torch_loss

  def run(steps: int):
    for _ in range(steps):
      optimizer.zero_grad()  # to None, which is PyTorch's faster default
      value(network, source, target).backward()
      optimizer.step()

  return run


# ------------------------------------------------------------------------------------ race

SETUPS = {
  "ours": ours,
  "plain scan": functools.partial(ours, plain=True),
  TORCH[0]: with_torch,
  TORCH[1]: functools.partial(with_torch, compiled=True),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=10, seconds=2.0)
  parser.add_argument("--only", nargs="+", choices=SETUPS, default=list(SETUPS), metavar="NAME")
  parser.add_argument("--worker", choices=SETUPS, help=argparse.SUPPRESS)
  parser.add_argument("--directory", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    interleave.serve(lambda: _ready(args.worker, args.directory))
    return

  with tempfile.TemporaryDirectory() as directory:
    contenders = [
      interleave.elsewhere(
        name, [__file__, f"--worker={name}", f"--directory={directory}"], threads=args.threads
      )
      for name in args.only
    ]
    records = interleave.race(contenders, rounds=args.rounds, seconds=args.seconds, pause=0.2)
  reference = args.only[0]
  print(interleave.show(records, reference=reference))
  by_name = {record.name: record for record in records}
  rivals = [by_name[name] for name in TORCH if name in by_name]
  summary = {}
  if "ours" in by_name and rivals:
    best = min(rivals, key=lambda record: record.best)
    summary[f"ours over {best.name}"] = interleave.ratio(by_name["ours"], best)
    for rival in rivals:
      summary[f"ours over {rival.name}"] = interleave.ratio(by_name["ours"], rival)
  for line, value in summary.items():
    print(f"{line}: {value}")
  interleave.write(
    args.json,
    threads={"count": args.threads, **interleave.thread_settings(args.threads)},
    contenders=interleave.results(records, reference=reference),
    summary={line: value._asdict() for line, value in summary.items()},
  )


def _ready(name: str, directory: str):
  # Compiled code goes to a fresh place, so that first runs are cold.
  os.environ.update(TORCHINDUCTOR_CACHE_DIR=str(pathlib.Path(directory) / "torch"))
  os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
  return SETUPS[name]()


if __name__ == "__main__":
  main()
