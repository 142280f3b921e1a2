"""A trained run looked at: measured, drawn, sampled from, reported."""

import contextlib
import dataclasses
import json
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from decoding.sampling import Sampling
from evaluation import probing
from report import figures, html
from report.tensorboard import Events
from report.writer import Writer
from tasks.views import Table
from training import fingerprints, processes, sentinels
from training import step as steps
from training import workdir as workdirs
from training.build import Stage, build, reading
from training.checkpoint import Checkpoints
from training.errors import CheckpointError, ConfigError, NumericsError, StorageError
from training.evaluate import examples
from training.machine import Machine
from training.parallel import local
from training.restore import trained
from training.workdir import Workdir

_FOR_FIGURES = 2000  # test examples that figures look at
_LARGEST_SAMPLES = 2**30  # bytes of a file of samples, unpacked
# What a damaged file of them raises; the last two where it is encrypted, or says that it is huge.
_UNPACKED_WRONG = (
  OSError,
  ValueError,
  KeyError,
  EOFError,
  zipfile.BadZipFile,
  zlib.error,
  RuntimeError,
  MemoryError,
)
_FOR_SCORES = 60_000  # training examples that rivals and probes are fitted to, the first ones


def evaluate(path: str, *, weights: str = "latest"):
  """Measures a trained run again and rewrites its evaluation.json."""
  workdir = Workdir(path, trained=True)
  try:
    machine, state = trained(workdir, weights)
    fingerprints.warn(machine.stage, Checkpoints(workdir / "checkpoints"))
    (found,) = measure(machine, state, [machine.stage])
    for line in write_evaluation(workdir, machine.stage, state, found, weights):
      print(line, flush=True)
  finally:
    workdir.close()


def sample(path: str, *, count: int = 48, seed: int = 0, weights: str = "latest"):
  """Generates examples from a trained run into samples/."""
  workdir = Workdir(path, trained=True)
  try:
    machine, state = trained(workdir, weights)
    task = machine.stage.task
    drawn = task.sample(machine.call(state, machine.stage.numbers), count, seed)
    if drawn is None:
      raise ConfigError(
        f"the task {type(task).__module__} generates nothing to sample",
        where=str(workdir.path),
        kept="the run is as it was",
        do="`report` shows what it does instead",
      )
    file = workdir / "samples" / f"seed_{seed}.png"
    file.parent.mkdir(exist_ok=True)
    figures.save(figures.draw(drawn), file)
    images = np.concatenate(list(drawn.rows.values()))
    np.savez(file.with_suffix(".npz"), images=images)
    print(f"{len(images)} samples: {file} and {file.with_suffix('.npz').name}")
  finally:
    workdir.close()


def prompt(
  path: str,
  prompts: Sequence[str],
  sampling: Mapping[str, Any],
  options: Mapping[str, Any],
  *,
  pairs: Sequence[str] = (),
  asked: str = "",
  draft: str = "",
  proposals: int = 4,
  weights: str = "latest",
):
  """Gives prompts to a trained run: a decoder completes them, an encoder answers about them.

  Args:
    path: the workdir, or `hf:DIR`.
    prompts: texts.
    sampling: fields of `decoding.sampling.Sampling`.
    options: the other fields of `training.prompting.Options`.
    pairs: second texts, of what is asked of pairs.
    asked: "generate" or a question of training/asking.py; empty for what the model is for.
    draft: workdir of a run whose model proposes tokens, or empty.
    proposals: of the draft at a time.
    weights: see `training.restore.trained`.
  """
  from training import asking, elsewhere, prompting  # only runs of text need them

  if proposals < 1:
    raise ConfigError(f"--proposals={proposals} is not at least 1", do="ask for one or more")
  try:
    settings = prompting.Options(sampling=Sampling(**sampling), **options)
  except ValueError as error:
    raise ConfigError(str(error), do="change that option") from None
  with contextlib.ExitStack() as held:

    def opened(path: str) -> tuple[pathlib.Path | None, prompting.Run]:
      """(where the run's samples go, the run)."""
      if elsewhere.is_elsewhere(path):
        return None, elsewhere.opened(path)
      workdir = Workdir(path, trained=True)
      held.callback(workdir.close)
      machine, state = trained(workdir, weights)
      source, task = machine.stage.source, machine.stage.task
      found = source.tokenizers()
      mask = found["tokens"].mask if "tokens" in found else None
      mask = task.mask_token if hasattr(task, "mask_token") else mask
      return workdir / "samples", prompting.Run(
        machine.call(state, machine.stage.numbers), source, mask
      )

    folder, run = opened(path)
    asked = asked or asking.question(run.call.model) or "generate"
    if asked != "generate":
      lines = asking.answer(run, asked, prompts, pairs, folder=folder)
      if folder is not None:
        file = folder / f"{asked}.txt"
        folder.mkdir(exist_ok=True)
        workdirs.write_text(file, "".join(f"{line}\n" for line in lines))
        print(f"saved: {file}", file=sys.stderr)
      return
    drafting = prompting.Draft(opened(draft)[1], proposals) if draft else None
    completions = prompting.complete(run, prompts, settings, draft=drafting)
    if folder is not None:
      file = prompting.save(folder, completions, settings)
      print(f"saved: {file}", file=sys.stderr)


def export(path: str, to: str, *, weights: str = "latest"):
  """Writes a trained run for others: see `training.elsewhere.export`."""
  from training import elsewhere

  elsewhere.export(path, to, weights=weights)


def tokenizer(config: Mapping[str, Any], out: str):
  """Trains the tokenizers of an experiment's data and writes them: OUT, or OUT per element."""
  source = build(config).stages[0].source
  with reading(source):
    found = source.assets()
  if not found:
    raise ConfigError(
      f"{type(source).__module__} has no tokenizer", do="give an experiment whose data is text"
    )
  out = pathlib.Path(out)
  for name, text in found.items():
    file = out if len(found) == 1 else out.with_name(f"{out.stem}.{name}")
    try:
      file.parent.mkdir(parents=True, exist_ok=True)
      workdirs.write_text(file, text)
    except OSError as error:
      raise StorageError(
        f"cannot write {file} ({error.strerror})", do="choose another --out"
      ) from None
    print(file)


def probe(path: str, *, weights: str = "latest", neighbours: int = 5):
  """Measures a trained run's features by a linear and a nearest-neighbour classifier: probe.json.

  Both are fitted to the training split and measured on the test split, beside the same classifiers
  on the data as it is.
  """
  if neighbours < 1:
    raise ConfigError(f"--neighbours={neighbours} is not at least 1", do="ask for one or more")
  workdir = Workdir(path, trained=True)
  try:
    machine, state = trained(workdir, weights)
    task, source = machine.stage.task, machine.stage.source
    call = machine.call(state, machine.stage.numbers)
    sets = [examples(source, "train", most=_FOR_SCORES), examples(source, "test")]
    features = [task.features(call, part) for part in sets]
    labels = [part.arrays["label"] for part in sets if "label" in part.arrays]
    if features[0] is None or len(labels) < 2:
      what = "features" if features[0] is None else "labels"
      raise ConfigError(
        f"there are no {what} to probe",
        where=str(workdir.path),
        kept="the run is as it was",
        do="probe a run of a task with features on data with labels",
      )
    inputs = [task.inputs(part.arrays)[0].reshape(len(part.arrays["label"]), -1) for part in sets]
    found = {
      name: {"size": pair[0].shape[1], **probing.classify(*pair, *labels, neighbours=neighbours)}
      for name, pair in {"features": features, "inputs": inputs}.items()
    }
    sizes = {"train": len(labels[0]), "test": len(labels[1])}
    conditions = dict(source.conditions())
    workdirs.write_json(
      workdir / "probe.json",
      {"weights": weights, "neighbours": neighbours, **sizes, "conditions": conditions, **found},
    )
    about = [f"{count} {name} examples" for name, count in sizes.items()]
    print(", ".join([*about, *(f"{k} {v}" for k, v in conditions.items())]))
    for name, values in found.items():
      print(f"{name}: " + "  ".join(f"{k} {v:.5g}" for k, v in values.items()))
  finally:
    workdir.close()


def report(path: str):
  """Draws the figures of a trained run again and rewrites its report.html."""
  workdir = Workdir(path, trained=True)
  try:
    machine, state = trained(workdir, "latest")
    with contextlib.closing(Events(workdir.path, purge_step=None)) as events:
      _draw(workdir, machine, state, events)
    print(f"report: {_report(workdir)}")
  finally:
    workdir.close()


def describe(config: Mapping[str, Any]):
  """Prints what a config would train: shapes, parameters, cost of a step. Trains nothing."""
  from training import describe  # rich, which no other command needs

  describe.describe(build(config))


def finish(workdir: Workdir, machine: Machine, state: steps.State, events: Writer):
  """Evaluates, draws and reports a run that has just been trained."""
  (found,) = measure(machine, state, [machine.stage])
  for line in write_evaluation(workdir, machine.stage, state, found, "latest"):
    print(line, flush=True)
  state = local(state)
  if processes.first():
    _draw(workdir, machine, state, events)
    print(f"report: {_report(workdir)}")


def _report(workdir: Workdir):
  try:
    default = json.loads((workdir / ".default.json").read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError):
    default = None  # the report says less: not which settings are other than the file's
  stages = build(workdirs.read_config(workdir.path)).stages
  return html.write(
    workdir.path,
    default_config=default if isinstance(default, dict) else None,
    warnings=sentinels.warnings(stages, workdirs.read_rows(workdir / "metrics.jsonl")),
  )


def measure(
  machine: Machine, state: steps.State, stages: Sequence[Stage]
) -> list[dict[str, dict[str, float]]]:
  """Metrics by split of every member of a population, `stages` being their own."""
  source, parallel = machine.stage.source, machine.parallel
  numbers = parallel.join([stage.numbers for stage in stages])
  found = [{} for _ in stages]
  for name in ("validation", "test"):
    if len(source.split(name)):
      measured = machine.evaluate(state.weights, state.mutable, name, numbers)
      for splits, (count, values) in zip(found, measured, strict=True):
        splits[name] = {"examples": count, **values}
  if len(source.split("test")):
    sets = examples(source, "train", most=_FOR_SCORES), examples(source, "test")
    for i, stage in enumerate(stages):
      call = machine.call(parallel.member(state, i), stage.numbers)
      try:
        found[i]["test"] |= stage.task.score(call, *sets)
      except ValueError as error:  # of evaluation/: what is there cannot be scored
        raise NumericsError(
          f"the test set cannot be scored: {error}",
          kept="the trained run",
          do="see metrics.jsonl for when it went wrong",
        ) from error
  return found


def write_evaluation(workdir: Workdir, stage: Stage, state: steps.State, found, weights: str):
  """Writes evaluation.json.

  Returns:
    A line a split, for the terminal.
  """
  if weights == "latest" and state.ema is not None:
    weights = "latest, averaged (ema)"
  conditions = {**stage.source.conditions(), **stage.task.conditions()}
  result = {"step": int(state.step), "stage": stage.name, "weights": weights}
  result |= {"conditions": conditions, "splits": found}
  workdirs.write_json(workdir / "evaluation.json", result)
  lines = []
  for name, values in found.items():
    shown = "  ".join(f"{k} {v:.5g}" for k, v in values.items() if k != "examples")
    # Signatures are for whoever compares scores; the file and the report have them.
    shown_conditions = {k: v for k, v in conditions.items() if not k.endswith("signature")}
    about = [f"{values['examples']} examples", *(f"{k} {v}" for k, v in shown_conditions.items())]
    lines.append(f"{name} ({', '.join(about)}, {weights} weights): {shown}")
  return lines


def _draw(workdir: Workdir, machine: Machine, state: steps.State, events: Writer):
  stage = machine.stage
  folder = workdir / "figures"
  folder.mkdir(exist_ok=True)
  rows = workdirs.read_rows(workdir / "metrics.jsonl")
  drawn = {"curves": figures.curves(rows)}
  captions = {"curves": "Metrics by training step."}
  sets = [examples(stage.source, name, most=_FOR_FIGURES) for name in ("train", "test")]
  tables = {}
  for name, view in stage.task.views(machine.call(state, stage.numbers), *sets).items():
    if isinstance(view, Table):
      tables[name] = dataclasses.asdict(view)
    else:
      drawn[name], captions[name] = figures.draw(view), view.caption
  over_time = {
    int(file.stem.removeprefix("step_")): _samples(file)
    for file in sorted((workdir / "samples").glob("step_*.npz"))
  }
  if over_time:
    drawn["samples_over_time"] = figures.samples_over_time(over_time)
    captions["samples_over_time"] = "The same noise at every evaluation, by training step."
  for name, figure in drawn.items():
    figures.save(figure, folder / f"{name}.png")
    events.image(name, figure, rows[-1]["step"] if rows else 0)
  workdirs.write_json(folder / "captions.json", captions)
  workdirs.write_json(folder / "tables.json", tables)


def _samples(file: pathlib.Path) -> np.ndarray:
  """The images that training left in a file, which may be somebody else's."""
  try:
    with zipfile.ZipFile(file) as members, members.open("images.npy") as member:
      size = members.getinfo("images.npy").file_size
      if size > _LARGEST_SAMPLES:
        raise ValueError(f"{size:,} bytes, more than {_LARGEST_SAMPLES:,}")
      return np.lib.format.read_array(member, allow_pickle=False)
  except _UNPACKED_WRONG as error:
    raise CheckpointError(
      f"{file} holds no samples ({error})", kept="the run is as it was", do="remove it"
    ) from None
