"""The training step of a dense VAE: Fukugen's, PyTorch's three ways, and a bare scan's.

The network is experiments/vae/gaussian_mnist.py:small, 784-400-20 with tanh, on batches of 128;
Adam at 1e-3; pixels as they are (not binarised), so that every contender computes the same loss.
All hold 60,000 uint8 images in memory, gather a batch of rows and divide by 255 within the step.

  ours            the step as `launch.py train` runs it, many in one dispatch
  ours, unfused   the same, one step a dispatch
  our loop        all of training/loop.py, a row of metrics every 100 steps. The clock starts when
                  the row of step 1,000 is written and stops when the last one is: compilation and
                  the growth of the dispatches lie before, the final checkpoint after; there is no
                  other evaluation or checkpoint
  bare scan       a hand-written lax.scan over the same loss and Optax's Adam, without Fukugen, Flax
                  or metrics: the yardstick for what our step and loop add
  torch ...       eager; eager with the fused Adam; torch.compile with the fused Adam
  matmul          a 2048 x 2048 float32 product, for the machine's rate; no VAE

Run: python benchmarks/vae_step.py --json=FILE
"""

import argparse
import functools
import gzip
import math
import os
import pathlib
import struct
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402
from benchmarks.interleave import Timing  # noqa: E402

EXAMPLES, BATCH, PIXELS, HIDDEN, LATENTS = 60_000, 128, 784, 400, 20
FUSED = 64  # steps of one dispatch, as training/parallel.py has it
WARM = 1_000  # steps of the loop before its clock starts
MATMUL = 2048
TORCH = ("torch eager", "torch eager, fused Adam", "torch compile, fused Adam")


def images() -> np.ndarray:
  """[EXAMPLES, 28, 28] uint8: sparse noise, since speed does not depend on what they show."""
  generator = np.random.default_rng(0)
  bright = generator.integers(0, 256, (EXAMPLES, 28, 28), dtype=np.uint8)
  return bright * (generator.random((EXAMPLES, 28, 28), dtype=np.float32) < 0.3)


def write_idx(directory: pathlib.Path):
  """`images()` as the training files that data/idx.py reads."""
  arrays = {"images-idx3": images(), "labels-idx1": np.zeros(EXAMPLES, np.uint8)}
  for name, array in arrays.items():
    header = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    with gzip.open(directory / f"train-{name}-ubyte.gz", "wb", compresslevel=1) as file:
      file.write(header + array.tobytes())


def flops() -> float:
  """Of one step's matrix products: forward, and backward by weights and by inputs."""
  first = PIXELS * HIDDEN
  weights = first + HIDDEN * 2 * LATENTS + LATENTS * HIDDEN + HIDDEN * PIXELS
  return 2 * BATCH * (3 * weights - first)  # the images need no gradient


# --------------------------------------------------------------------------------- Fukugen


def stage_of(directory: str = "", **overrides: str):
  """The experiment's only stage; `training__steps="100"` overrides training.steps."""
  from training import build, config

  settings = {
    "data.binarize": "none",
    "data.validation": "0",
    "data.directory": directory,
    "optimizer.schedule": "constant",
    "training.steps": "1_000_000_000",
    **{name.replace("__", "."): value for name, value in overrides.items()},
  }
  found = config.load(str(ROOT / "experiments/vae/gaussian_mnist.py") + ":small")
  (stage,) = build.build(config.override(found, list(settings.items()))).stages
  return stage


def _started(stage):
  """(devices, state at step 0), as training/run.py makes them."""
  import jax

  from training import build, initial

  parallel = build.devices(stage.training)
  return parallel, parallel.initialise(initial.initial_state(stage), jax.random.key(0), None)


def ours(directory: str, *, fused: bool):
  import jax

  from data import source as sources

  stage = stage_of(directory)
  parallel, state = _started(stage)
  trainer = parallel.trainer(stage, state, resident=stage.source.split("train").arrays)
  assert trainer.fused, "the dense VAE is a program that is fused"
  taken = 0

  def run(steps: int):
    nonlocal state, taken
    while steps:
      count = min(trainer.group, steps) if fused else 1
      feeds = [
        sources.rows(0, taken + i, examples=EXAMPLES, batch_size=BATCH) for i in range(count)
      ]
      state = trainer(state, feeds)
      taken += count
      steps -= count
    jax.block_until_ready(state)

  if not fused:
    # What the trainer compiles where nothing may be fused, with the same data on the device.
    trainer = _unfused(parallel, stage, state)
  return run


def _unfused(parallel, stage, state):
  from unittest import mock

  from training import parallel as rooms

  # A program with a convolution is run unfused on this backend; this one is taken for such.
  with mock.patch.object(rooms, "_convolves", return_value=True):
    trainer = parallel.trainer(stage, state, resident=stage.source.split("train").arrays)
  assert not trainer.fused
  return trainer


def our_loop(directory: str):
  """Trains a fresh run each time: config, state, compilation, loop, final checkpoint."""
  from report.tensorboard import Events
  from training import loop
  from training.checkpoint import Checkpoints
  from training.machine import Machine
  from training.workdir import Workdir

  class Clock(Events):
    """Our writer of events, which also notes when the row of each step was written."""

    def __init__(self, workdir):
      super().__init__(workdir)
      self.rows = {}

    def scalars(self, step, split, values):
      super().scalars(step, split, values)
      if split == "speed":  # the last thing that is done about a row
        self.rows[step] = time.perf_counter(), time.process_time()

  def run(steps: int) -> Timing:
    stage = stage_of(
      directory,
      training__steps=str(WARM + steps),
      training__log_every="100",
      training__eval_every="0",
      training__checkpoint_every="0",
    )
    parallel, state = _started(stage)
    with tempfile.TemporaryDirectory() as folder:
      workdir = Workdir(folder)
      checkpoints, events = Checkpoints(workdir / "checkpoints"), Clock(workdir.path)
      try:
        with loop.Stop() as stop:
          member = loop.Member(stage, 0, workdir, checkpoints, events, data={})
          loop.run_stage(Machine(stage, parallel), state, [member], offset=0, stop=stop)
      finally:
        events.close()
        checkpoints.close()
        workdir.close()
    (wall, cpu), (wall_end, cpu_end) = events.rows[WARM], events.rows[WARM + steps]
    return Timing(wall_end - wall, cpu_end - cpu)

  return run


# ------------------------------------------------------------------------------- bare scan


def bare_scan(directory: str):
  import jax
  import jax.numpy as jnp
  import optax

  from data import source as sources

  optimizer = optax.adam(1e-3)
  sizes = {
    "encoder": (PIXELS, HIDDEN),
    "posterior": (HIDDEN, 2 * LATENTS),
    "decoder": (LATENTS, HIDDEN),
    "output": (HIDDEN, PIXELS),
  }
  glorot = jax.nn.initializers.glorot_uniform()

  @jax.jit
  def init(key):
    keys = dict(zip(sizes, jax.random.split(key, len(sizes)), strict=True))
    return {k: (glorot(keys[k], shape), jnp.zeros(shape[1])) for k, shape in sizes.items()}

  def dense(params, name, x):
    kernel, bias = params[name]
    return x @ kernel + bias

  def loss(params, x, key):
    moments = dense(params, "posterior", jnp.tanh(dense(params, "encoder", x)))
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    logits = dense(params, "output", jnp.tanh(dense(params, "decoder", z)))
    nll = jnp.maximum(logits, 0) - logits * x + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum()
    return (nll.sum() + kl) / BATCH

  @functools.partial(jax.jit, donate_argnums=0)
  def advance(carry, data, rows):
    def step(carry, rows):
      params, state, key = carry
      key, noise = jax.random.split(key)
      x = data[rows].astype(jnp.float32) / 255
      value, grads = jax.value_and_grad(loss)(params, x, noise)
      updates, state = optimizer.update(grads, state, params)
      return (optax.apply_updates(params, updates), state, key), value

    return jax.lax.scan(step, carry, rows)

  data = jnp.asarray(images().reshape(EXAMPLES, PIXELS))
  params = init(jax.random.key(0))
  carry, taken = (params, jax.jit(optimizer.init)(params), jax.random.key(1)), 0

  def run(steps: int):
    nonlocal carry, taken
    for _ in range(steps // FUSED):
      rows = np.stack(
        [sources.rows(0, taken + i, examples=EXAMPLES, batch_size=BATCH) for i in range(FUSED)]
      )
      carry, _ = advance(carry, data, rows)
      taken += FUSED
    jax.block_until_ready(carry)

  return run


# --------------------------------------------------------------------------------- PyTorch


def torch_vae():
  """The twin of models/vae/gaussian.py."""
  import torch

  class Vae(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.encoder = torch.nn.Linear(PIXELS, HIDDEN)
      self.posterior = torch.nn.Linear(HIDDEN, 2 * LATENTS)
      self.decoder = torch.nn.Linear(LATENTS, HIDDEN)
      self.output = torch.nn.Linear(HIDDEN, PIXELS)

    def forward(self, x, noise):
      mean, log_variance = self.posterior(torch.tanh(self.encoder(x))).chunk(2, dim=-1)
      z = mean + torch.exp(0.5 * log_variance) * noise
      return self.output(torch.tanh(self.decoder(z))), mean, log_variance

  return Vae()


def torch_loss(vae, x, noise):
  """The negative bound in nats per example, of x [B, PIXELS] with noise [B, LATENTS]."""
  import torch

  logits, mean, log_variance = vae(x, noise)
  nll = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
  kl = 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance).sum()
  return (nll + kl) / len(x)


def with_torch(directory: str, *, fused: bool = False, compiled: bool = False):
  import torch

  torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
  torch.manual_seed(0)
  data = torch.from_numpy(images().reshape(EXAMPLES, PIXELS))
  vae = torch_vae()
  optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=fused)
  loss = torch.compile(torch_loss) if compiled else torch_loss

  def run(steps: int):
    order = torch.randint(EXAMPLES, (steps, BATCH))
    for rows in order:
      x = data[rows].float() / 255
      optimizer.zero_grad()  # to None, which is PyTorch's faster default
      loss(vae, x, torch.randn(BATCH, LATENTS)).backward()
      optimizer.step()

  return run


# ------------------------------------------------------------------------------------ race

SETUPS = {
  "ours": functools.partial(ours, fused=True),
  "ours, unfused": functools.partial(ours, fused=False),
  "our loop": our_loop,
  "bare scan": bare_scan,
  TORCH[0]: with_torch,
  TORCH[1]: functools.partial(with_torch, fused=True),
  TORCH[2]: functools.partial(with_torch, fused=True, compiled=True),
  "matmul": lambda directory: interleave.matmul(MATMUL),
}
_MULTIPLE = {"ours": FUSED, "our loop": 1_000, "bare scan": FUSED, "matmul": 10}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=12, seconds=2.0)
  parser.add_argument("--only", nargs="+", choices=SETUPS, default=list(SETUPS), metavar="NAME")
  parser.add_argument("--worker", choices=SETUPS, help=argparse.SUPPRESS)
  parser.add_argument("--directory", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    interleave.serve(lambda: _ready(args.worker, args.directory))
    return

  with tempfile.TemporaryDirectory() as directory:
    write_idx(pathlib.Path(directory))
    contenders = [
      interleave.elsewhere(
        name,
        [__file__, f"--worker={name}", f"--directory={directory}"],
        threads=args.threads,
        multiple=_MULTIPLE[name] if name in _MULTIPLE else 1,
      )
      for name in args.only
    ]
    records = interleave.race(contenders, rounds=args.rounds, seconds=args.seconds, pause=0.2)

  by_name = {record.name: record for record in records}
  reference = "bare scan" if "bare scan" in by_name else records[0].name
  vaes = [record for record in records if record.name != "matmul"]
  print(interleave.show(vaes, reference=reference))
  summary = _summary(by_name)
  for line, value in summary.items():
    print(f"{line}: {value}")
  interleave.write(
    args.json,
    threads={"count": args.threads, **interleave.thread_settings(args.threads)},
    contenders=interleave.results(records, reference=reference),
    summary={
      line: getattr(value, "_asdict", lambda v=value: v)() for line, value in summary.items()
    },
  )


def _ready(name: str, directory: str):
  # The compilation cache and every other setting that launch.py makes, but in a fresh place, so
  # that first runs are cold.
  cache = pathlib.Path(directory) / f"cache{list(SETUPS).index(name)}"  # torch minds a space
  os.environ.update(XDG_CACHE_HOME=str(cache), TORCHINDUCTOR_CACHE_DIR=str(cache / "torch"))
  os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would go before ours
  import launch

  launch._start_jax()
  return SETUPS[name](directory)


def _summary(records: dict[str, interleave.Record]) -> dict[str, object]:
  """The ratios that the claims are made of, as far as their contenders ran."""
  found = {}
  rivals = [records[name] for name in TORCH if name in records]
  best = min(rivals, key=lambda record: record.best, default=None)
  for name in ("ours", "our loop"):
    if name in records and best:
      found[f"{name} over {best.name}"] = interleave.ratio(records[name], best)
    if name in records and "bare scan" in records:
      found[f"{name} over bare scan"] = interleave.ratio(records[name], records["bare scan"])
  if "matmul" in records:
    peak = 2 * MATMUL**3 / records["matmul"].best
    found["matmul GFLOP/s"] = round(peak / 1e9, 1)
    for name, record in records.items():
      if name != "matmul":
        rate = flops() / record.best
        found[f"{name} GFLOP/s"] = round(rate / 1e9, 1)
        found[f"{name} fraction of matmul"] = round(rate / peak, 3)
  assert all(not isinstance(value, float) or math.isfinite(value) for value in found.values())
  return found


if __name__ == "__main__":
  main()
