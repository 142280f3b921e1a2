"""Every experiment there is, at its `smoke` variant, from the command line to the report."""

import importlib.util
import json
import math
import pathlib
import shutil
import sys

import jax
import pytest

import launch
from training import catalogue, checkpoint, config, initial, parallel, run, step
from training.build import build
from training.loop import Stop
from training.machine import Machines
from training.workdir import Workdir, read_rows

EXPERIMENTS = [str(entry.path) for entry in catalogue.entries()]
FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")


def smoke(path, **overrides):
  found = config.load(f"{path}:smoke")
  assignments = [(k.replace("__", "."), str(v)) for k, v in overrides.items()]
  found = config.override(found, assignments)
  experiment = build(found)
  for stage in experiment.stages:
    try:
      stage.source.split("train")
    except FileNotFoundError as error:  # which says how to get it
      pytest.skip(str(error))
  return experiment


def fit(experiment, path):
  workdir = Workdir(path)
  try:
    with Stop() as stop:
      state, _, _ = run.fit([run.Run(experiment, workdir, [])], Machines(), stop=stop)
  finally:
    workdir.close()
  return {k: checkpoint.fingerprint(v) for k, v in checkpoint.leaves(parallel.to_host(state))}


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_all_variants_build(path):
  for variant in config.VARIANTS:
    build(config.load(f"{path}:{variant}"))


def last_task(path):
  found = config.load(f"{path}:smoke").to_dict()
  task = (found["stages"][-1] if "stages" in found else found)["task"]
  return task["name"] if "name" in task else path  # a stage that says no task has an earlier one's


def runs():
  """Every experiment is run; on every commit the first of each task is looked at again too."""
  known = set()
  for path in EXPERIMENTS:
    yield pytest.param(path, last_task(path) not in known, id=path)
    if last_task(path) in known:
      yield pytest.param(path, True, id=f"{path} again", marks=pytest.mark.deep)
    known.add(last_task(path))


@pytest.mark.parametrize(("path", "again"), [*runs()])
def test_from_the_command_line_to_the_report(path, again, tmp_path, capsys):
  experiment = smoke(path)
  assert launch.main(["train", f"--config={path}:smoke", f"--workdir={tmp_path}"]) == 0
  rows = read_rows(tmp_path / "metrics.jsonl")
  steps = sum(stage.training.steps for stage in experiment.stages)
  assert [r["step"] for r in rows if r["split"] == "train"] == list(range(1, steps + 1))
  assert all(math.isfinite(v) for r in rows for v in r.values() if isinstance(v, float))

  measured = json.loads((tmp_path / "evaluation.json").read_text())["splits"]["test"]
  assert measured["examples"] == len(experiment.stages[-1].source.split("test"))
  assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0
  assert "jax" in json.loads((tmp_path / "environment.json").read_text())["versions"]
  assert (tmp_path / "figures/curves.png").stat().st_size > 5_000
  assert len(list((tmp_path / "figures").glob("*.png"))) >= 2
  assert list((tmp_path / "tensorboard").rglob("*tfevents*"))
  assert "data:image/png" in (tmp_path / "report.html").read_text()

  if not again:
    return
  # Looked at again, the run says the same.
  before = (tmp_path / "evaluation.json").read_text()
  assert launch.main(["evaluate", f"--workdir={tmp_path}"]) == 0
  assert (tmp_path / "evaluation.json").read_text() == before
  (tmp_path / ".default.json").write_text("{")  # what a report only adds to what it says
  assert launch.main(["report", f"--workdir={tmp_path}"]) == 0
  capsys.readouterr()
  status = launch.main(["sample", f"--workdir={tmp_path}", "--count=3", "--seed=1"])
  if experiment.stages[-1].task.sample.__qualname__.startswith("Objective"):
    assert status == 2
    assert "generates nothing" in capsys.readouterr().err
  else:
    assert status == 0
    assert (tmp_path / "samples/seed_1.png").exists()


def test_a_streamed_set_trains_and_resumes_like_one_in_memory(tmp_path):
  """Our own TFDS recipe, TFDS without TensorFlow, Grain, and a resume in the middle."""
  pytest.importorskip("tensorflow_datasets", reason="pip install -r requirements.txt")
  place = FASHION_MNIST
  if not place.exists():
    pytest.skip(f"needs Fashion-MNIST: apt-get install dataset-{place.name}")
  from data import prepare_tfds

  prepare_tfds.main(
    ["--from=idx:fashion_mnist", f"--directory={tmp_path / 'tfds'}", "--examples=800"]
  )
  path = "experiments/vae/gaussian_mnist.py"
  settings = dict(
    data__name="tfds:fashion_mnist_local",
    data__directory=tmp_path / "tfds",
    training__mesh__data=1,
  )
  memory = smoke(path, **settings)
  stream = smoke(path, **settings, data__memory_limit=0)
  assert memory.stages[0].source.split("train").arrays is not None
  assert stream.stages[0].source.split("train").arrays is None
  fit(memory, tmp_path / "memory")
  wanted = fit(stream, tmp_path / "stream")
  for a, b in zip(
    read_rows(tmp_path / "memory/metrics.jsonl"),
    read_rows(tmp_path / "stream/metrics.jsonl"),
    strict=True,
  ):
    assert a == {k: pytest.approx(v, rel=1e-5) if isinstance(v, float) else v for k, v in b.items()}
  shutil.copytree(tmp_path / "stream", tmp_path / "resumed")
  shutil.rmtree(tmp_path / "resumed/checkpoints/latest/4")
  assert fit(stream, tmp_path / "resumed") == wanted
  assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_types_are_strict_in_everything_of_ours(path):
  """No loss, transform or measure relies on an implicit change of dtype."""
  for stage in smoke(path).stages:
    state, stored = initial.stage_shapes(stage)

    def ours(params, mutable, stored, stage=stage):
      key = jax.random.key(0)
      index = jax.numpy.arange(stage.program.examples)
      with jax.numpy_dtype_promotion("strict"):
        batch = stage.program.transform(stored, jax.random.split(key, len(index)))
        batch["mask"] = jax.numpy.ones(index.shape, jax.numpy.float32)
        batch["step"] = jax.numpy.zeros(index.shape, jax.numpy.int32)
        stage.task.measure(stage.model)(params, mutable, batch, key)
        return [
          step.gradients(phase, params, mutable, batch, index, key)
          for phase in stage.program.phases
        ]

    for (grads, loss, _, _), phase in zip(
      jax.eval_shape(ours, state.params, state.mutable, stored), stage.program.phases, strict=True
    ):
      assert loss.total.dtype == "float32"
      assert jax.tree.structure(grads) == jax.tree.structure(step.trained(phase, state.params))


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_an_experiment_is_a_page_of_a_paper(path):
  """Citation, command, duration and data are in the docstring; claims are complete."""
  spec = importlib.util.spec_from_file_location("page", path)
  page = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(page)
  for word in ("Paper ", "Run ", "Takes ", "Data "):
    assert f"\n{word}" in page.__doc__, f"{path} does not say its {word.strip()}"
  assert path in page.__doc__
  for claim in page.CLAIMS:
    assert {"name", "paper", "metric", "split", "relation", "seeds"} <= claim.keys()


def test_every_page_is_found():
  assert len(EXPERIMENTS) >= 7
  assert len(EXPERIMENTS) == len(list(pathlib.Path("experiments").rglob("*.py")))
