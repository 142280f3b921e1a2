"""The benchmarks' arithmetic, and that their rivals do the same work."""

import json
import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from benchmarks import interleave, vae_step
from benchmarks.interleave import Contender, Record, Timing


def record(name, *seconds, steps=10):
  timings = [Timing(s, 2 * s) for s in seconds]
  counts = [steps] * len(timings)
  return Record(name=name, setup_seconds=1.0, first_seconds=2.0, steps=counts, timings=timings)


def test_best_and_median_are_of_one_step():
  found = record("a", 3.0, 1.0, 2.5)
  assert found.best == pytest.approx(0.1)
  assert found.median == pytest.approx(0.25)
  assert found.cpu == pytest.approx(0.2)
  assert found.cores == pytest.approx(2.0)


def test_ratio_is_of_speeds_and_spreads_over_rounds():
  # Twice, four times and once as fast; different steps a turn must not matter.
  found = interleave.ratio(record("a", 1.0, 1.0, 3.0), record("b", 4.0, 8.0, 6.0, steps=20))
  assert found.least == pytest.approx(1.0)
  assert found.median == pytest.approx(2.0)
  assert found.greatest == pytest.approx(4.0)
  assert found.best == pytest.approx(2.0)  # 0.2 s a step at b's best over 0.1 s at a's


@pytest.mark.parametrize("order", ["random", "rotate"])
def test_every_round_runs_every_contender_once(order):
  rounds = list(interleave.orders(5, 20, order=order))
  assert all(sorted(turns) == list(range(5)) for turns in rounds)
  # Nobody always goes first, into a machine that the same contender has just warmed.
  assert len({turns[0] for turns in rounds}) == 5


def test_the_random_order_is_a_function_of_the_seed():
  first, again, other = (list(interleave.orders(4, 9, order="random", seed=s)) for s in (1, 1, 2))
  assert first == again != other


def test_race_takes_turns_and_leaves_the_first_run_out():
  calls = []

  def contender(name, seconds):
    def setup():
      def run(steps):
        # The first call is slow, as a compilation is.
        calls.append((name, steps))
        first = [n for n, _ in calls].count(name) == 1
        return Timing(100.0 if first else seconds * steps, 0.0)

      return run

    return Contender(name=name, setup=setup, multiple=4)

  fast, slow = interleave.race(
    [contender("fast", 0.001), contender("slow", 0.1)], rounds=3, seconds=2.0
  )
  assert (fast.steps, slow.steps) == ([2000] * 3, [20] * 3)
  assert fast.step_seconds == pytest.approx([0.001] * 3)
  assert slow.step_seconds == pytest.approx([0.1] * 3)
  turns = [name for name, steps in calls if (name, steps) in (("fast", 2000), ("slow", 20))][-6:]
  assert all(set(turns[i : i + 2]) == {"fast", "slow"} for i in (0, 2, 4))
  assert "slow" in interleave.show([fast, slow], reference="slow")


def test_a_slow_trial_does_not_shorten_the_whole_race():
  delays = iter([1.0, 1.0, 0.1, 0.1, 0.1])  # seconds a step: first run, trial, three turns
  contender = Contender(name="a", setup=lambda: lambda steps: Timing(next(delays) * steps, 0.0))
  (found,) = interleave.race([contender], rounds=3, seconds=2.0)
  assert found.steps == [2, 20, 20]
  assert found.step_seconds == pytest.approx([0.1] * 3)


def test_a_run_without_a_timing_is_timed_from_outside():
  assert interleave.timed(lambda steps: time.sleep(0.01 * steps), 2).seconds >= 0.02


def test_a_contender_in_another_process(tmp_path):
  script = tmp_path / "worker.py"
  script.write_text(
    f"import sys; sys.path.insert(0, {str(interleave.ROOT)!r})\n"
    "from benchmarks.interleave import Timing, serve\n"
    "print('a framework that talks')\n"
    "serve(lambda: lambda steps: Timing(0.5 * steps, 1.0))\n"
  )
  run = interleave.elsewhere("worker", [str(script)], threads=1).setup()
  assert run(4) == Timing(2.0, 1.0)

  script.write_text("raise SystemExit(3)")
  with pytest.raises(RuntimeError, match=r"'worker' ended with status 3"):
    interleave.elsewhere("worker", [str(script)], threads=1).setup()


def test_json_has_the_machine_and_every_round(tmp_path):
  records = [record("a", 1.0, 2.0), record("b", 2.0, 2.0)]
  file = tmp_path / "found.json"
  interleave.write(str(file), contenders=interleave.results(records, reference="b"))
  found = json.loads(file.read_text())
  assert found["contenders"]["a"]["step_ms"] == pytest.approx([100.0, 200.0])
  assert found["contenders"]["a"]["speed_over_reference"]["greatest"] == pytest.approx(2.0)
  assert {"cpu", "versions", "date", "command"} <= found["machine"].keys()


def test_flops_are_those_of_the_weights():
  weights = 784 * 400 + 400 * 40 + 20 * 400 + 400 * 784
  images = 784 * 400  # the gradient by the images is not needed
  assert vae_step.flops() == 2 * 128 * (3 * weights - images)


def test_our_loop_and_our_steps_still_run(tmp_path, monkeypatch):
  monkeypatch.setattr(vae_step, "WARM", 200)
  vae_step.write_idx(tmp_path)
  assert vae_step.our_loop(str(tmp_path))(100).seconds > 0
  for fused in (True, False):
    vae_step.ours(str(tmp_path), fused=fused)(2)


# What makes each as short as it can be; a race is one round of a tenth of a second.
SHORT = {
  "checkpoint_hashes": ("--megabytes=20", "--repeats=1"),
  "initial_weights": ("--repeats=1", "--experiments", "experiments/vae/gaussian_digits.py:smoke"),
  "long_attention": ("--lengths", "2048"),
  "population": ("--rounds=1", "--steps=20"),
  "sequence_length": ("--lengths", "16"),
  "start": ("--repeats=1",),
}
RACE = ("--rounds=1", "--seconds=0.1")
NAMES = sorted(
  path.stem for path in interleave.ROOT.glob("benchmarks/*.py") if path.stem != "interleave"
)


@pytest.mark.deep
@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_runs(name, tmp_path):
  pytest.importorskip("torch", reason="the rivals are PyTorch's")
  pytest.importorskip("transformers", reason="and transformers'; requirements-oracles.txt")
  script = f"benchmarks/{name}.py"
  races = "interleave.add_options" in (interleave.ROOT / script).read_text()
  options = (*SHORT.get(name, ()), *(RACE if races else ()), f"--json={tmp_path / 'found.json'}")
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # as users run them
  ended = subprocess.run(
    [sys.executable, script, *options],
    cwd=interleave.ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 0, ended.stderr[-2000:]
  assert json.loads((tmp_path / "found.json").read_text())["machine"]


def test_the_rival_in_pytorch_computes_our_loss():
  torch = pytest.importorskip("torch", reason="the rival is PyTorch, which is not installed")
  from tasks.elbo import Task
  from training import initial

  stage = vae_step.stage_of()
  params = jax.jit(lambda key: initial.initial_state(stage)(key, None).params)(jax.random.key(0))
  image = np.random.default_rng(0).random((16, 28, 28, 1), np.float32)
  batch = {"image": image, "mask": np.ones(16, np.float32)}
  key = jax.random.key(1)
  (phase,) = Task().phases(stage.model)

  def mean(params):
    loss, _ = phase.loss(params, {}, batch, key)
    return loss.total / loss.count

  ours, grads = jax.value_and_grad(mean)(params)
  # The noise that our model drew, solved from its latent.
  out = stage.model.apply({"params": params}, image, rngs={"params": key})
  ((mean, log_variance), _, latent) = out.layers[0]
  noise = (latent - mean) / np.exp(0.5 * log_variance)

  vae = vae_step.torch_vae()
  with torch.no_grad():
    for name, layer in vae.named_children():
      layer.weight.copy_(torch.tensor(np.asarray(params[name]["kernel"]).T))
      layer.bias.copy_(torch.tensor(np.asarray(params[name]["bias"])))
  theirs = vae_step.torch_loss(
    vae, torch.tensor(image.reshape(16, -1)), torch.tensor(np.asarray(noise))
  )
  theirs.backward()
  assert theirs.item() == pytest.approx(float(ours), rel=1e-5)
  for name, layer in vae.named_children():
    found = layer.weight.grad.numpy().T
    np.testing.assert_allclose(found, grads[name]["kernel"], rtol=1e-3, atol=1e-4)
