"""Models that come from Hugging Face's directories, and runs that go there.

`hf:DIR` names a directory in Hugging Face's layout, `peft:DIR` one with adapters of such a model.
What is in their files is interop's affair; here it becomes parameters to begin with, a model to
prompt, or a directory that others load. docs/huggingface.md says how to use it.
"""

import contextlib
import dataclasses
import importlib
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from data import tokenizers
from interop import huggingface, mapping, peft, tensors
from interop.errors import Unreadable
from training import config, lora
from training import workdir as workdirs
from training.build import Experiment, Stage
from training.errors import CheckpointError, ConfigError, StorageError
from training.initial import Before, handed_on, stage_shapes
from training.parallel import Caller, to_host
from training.prompting import Run
from training.restore import trained
from training.workdir import Workdir

HUGGING_FACE, PEFT = "hf:", "peft:"


def is_elsewhere(name: str) -> bool:
  """Whether a place is no workdir of ours."""
  return name.startswith((HUGGING_FACE, PEFT))


@contextlib.contextmanager
def _readable(place: str, kept: str = "it is as it was") -> Iterator[None]:
  """What interop refuses, as an error of a checkpoint that says all that is wrong."""
  about = f"see docs/huggingface.md for what {place.split(':')[0]}: reads"
  try:
    yield
  except OSError as error:
    raise CheckpointError(
      f"{place} cannot be read ({error.strerror})", kept=kept, do=about
    ) from None
  except Unreadable as error:
    for line in error.details:
      print(line, file=sys.stderr)
    raise CheckpointError(str(error), kept=kept, do=about) from None


def before(experiment: Experiment) -> Before:
  """What the place named by `init_from` hands on."""
  place = experiment.run.init_from
  if is_elsewhere(place):
    return taken_over(place, experiment.stages[0])
  workdir = Workdir(place, trained=True)
  try:
    machine, state = trained(workdir, "latest")
    return handed_on(machine.stage, state)
  finally:
    workdir.close()


def taken_over(place: str, stage: Stage) -> Before:
  """What a stage begins with: the parameters in a directory, for its model to take by name.

  Raises:
    CheckpointError: the directory cannot be read, or holds nothing of the model.
  """
  with _readable(place):
    params = _adapted(place, stage) if place.startswith(PEFT) else _read(place).params
  model, there = _shapes(stage), mapping.flat(params)
  if not hasattr(stage.model, "adopt"):
    wrong = [
      f"{name}: here {model[name]}, there {leaf.shape}"
      for name, leaf in there.items()
      if name in model and model[name] != leaf.shape
    ]
    if wrong:
      for line in wrong:
        print(line, file=sys.stderr)
      raise CheckpointError(
        f"{place} is of another size: {'; '.join(wrong[:2])}",
        kept="it is as it was",
        do="set config.model and config.data as its config.json says",
      )
  left = {"only here, so new": set(model) - set(there)}
  left |= {"only there, so unused": set(there) - set(model)}
  if not set(model) & set(there):
    raise CheckpointError(
      f"{place} has no parameter of {type(stage.model).__module__}",
      kept="it is as it was",
      do="choose the model that it is of: `sample --workdir=hf:DIR` names it",
    )
  for what, names in left.items():
    groups = sorted({name.split("/")[0] for name in names} - {lora.GROUP})
    if groups:
      print(f"note: {what}: {', '.join(groups)}", flush=True)
  return Before(params, {})


def _read(place: str) -> huggingface.Imported:
  return huggingface.read(place.removeprefix(HUGGING_FACE))


def _adapted(place: str, stage: Stage) -> dict[str, Any]:
  """Adapters, and the parameters of the model that they say they are of."""
  if not hasattr(stage.model, "lora"):
    raise Unreadable(f"{place}: adapters are for a model with model.lora")
  directory = tensors.place(place.removeprefix(PEFT))
  base = tensors.read_json(tensors.inside(directory, peft.CONFIG)).get("base_model_name_or_path")
  if not isinstance(base, str) or not tensors.place(base).is_dir():
    raise Unreadable(f"{place}: base_model_name_or_path is {base!r}, no directory here")
  model = _settings(stage)
  found = peft.read(directory, model)
  asked = stage.model.lora
  if (found.rank, found.alpha) != (asked.rank, asked.alpha):
    raise Unreadable(
      f"{place}: rank {found.rank} and alpha {found.alpha:g}, but config.model.lora has"
      f" {asked.rank} and {asked.alpha:g}"
    )
  params = {**huggingface.read(base).params, **found.params}
  own = mapping.nested(found.adapters)
  wanted = {name for name in _shapes(stage) if name.startswith(f"{lora.GROUP}/")}
  if set(mapping.flat({lora.GROUP: own})) != wanted:
    raise Unreadable(f"{place}: adapts {', '.join(found.targets)}, which model.lora.targets do not")
  return {**params, lora.GROUP: own}


def _shapes(stage: Stage) -> dict[str, tuple[int, ...]]:
  return {name: leaf.shape for name, leaf in mapping.flat(stage_shapes(stage)[0].params).items()}


def _settings(stage: Stage) -> dict[str, Any]:
  """A model's fields with its name, as interop knows it."""
  own = {f.name: getattr(stage.model, f.name) for f in dataclasses.fields(stage.model) if f.init}
  name = type(stage.model).__module__.removeprefix("models.")
  own = {k: v for k, v in own.items() if k not in ("parent", "name", "dtype", "remat")}
  return {"name": name, **own}


def export(path: str, to: str, *, weights: str = "latest"):
  """Writes a trained run for others: `hf:DIR` the model, `peft:DIR` its adapters alone.

  Raises:
    ConfigError: `to` is neither, or the run has no adapters.
    CheckpointError: no format holds the model.
    StorageError: the directory cannot be written.
  """
  if not is_elsewhere(to) or not to.partition(":")[2]:
    raise ConfigError(f"--to={to}: is neither hf:DIR nor peft:DIR", do="give one of them")
  workdir = Workdir(path, trained=True)
  try:
    machine, state = trained(workdir, weights)
    stage, params = machine.stage, to_host(state.weights)
    directory = tensors.place(to.partition(":")[2])
    with _readable(to, kept="the run is as it was"), _writable(directory):
      if to.startswith(HUGGING_FACE):
        tokenizer = _tokenizer(stage)
        merged = to_host(lora.merged(stage.model, params))
        names = stage.source.class_names if hasattr(stage.source, "class_names") else ()
        said = huggingface.write(
          directory, _settings(stage), merged, tokenizer=tokenizer, class_names=names
        )
        print(f"{directory}: {said} of Transformers, {weights} weights")
      else:
        if not hasattr(stage.model, "lora"):
          raise ConfigError("the run has no adapters to export", do="export it to hf:DIR")
        asked = stage.model.lora
        peft.write(
          directory,
          params[lora.GROUP],
          rank=asked.rank,
          alpha=asked.alpha,
          model=_settings(stage),
          params={name: params[name] for name in asked.trains},
          base=_base(workdir),
        )
        print(f"{directory}: adapters of rank {asked.rank}, {weights} weights")
  finally:
    workdir.close()


@contextlib.contextmanager
def _writable(directory: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise StorageError(
      f"cannot write {directory} ({error.strerror})", do="choose another --to"
    ) from None


def _base(workdir: Workdir) -> str:
  place = workdirs.read_config(workdir.path)["init_from"]
  return place.removeprefix(HUGGING_FACE) if place.startswith(HUGGING_FACE) else ""


def _tokenizer(stage: Stage) -> str | None:
  """What a run's source keeps of its text; of two languages, the one that both are of."""
  found = set(stage.source.assets().values())
  if len(found) > 1:
    raise Unreadable("the run has two tokenizers, and a directory of Hugging Face has one")
  return next(iter(found), None)


class Elsewhere(NamedTuple):
  """What a source says of a model from elsewhere: how its text is read.

  Attributes:
    texts: its tokenizers by element.
    separators: tokens between the texts of a pair.
    class_names: of a classifier.
  """

  texts: Mapping[str, tokenizers.Tokenizer]
  separators: int = 1
  class_names: tuple[str, ...] = ()

  def tokenizers(self) -> Mapping[str, tokenizers.Tokenizer]:
    return self.texts


class _Plain(NamedTuple):
  """As much of a stage as a caller needs, of a model without settings to trace."""

  model: nn.Module

  def at(self, numbers) -> "_Plain":
    del numbers
    return self


def opened(place: str) -> Run:
  """A directory of Hugging Face, to be prompted like a run.

  Raises:
    CheckpointError: it cannot be read.
  """
  if not place.startswith(HUGGING_FACE):
    raise ConfigError(
      f"{place}: adapters are no model", do="train with init_from, or name the run or hf:DIR"
    )
  with _readable(place):
    found = _read(place)
    if found.tokenizer is None:
      raise Unreadable(f"{place.removeprefix(HUGGING_FACE)}: has no tokenizer, so no text is read")
    try:
      texts = _texts(place, found)
    except ValueError as error:
      raise Unreadable(str(error)) from None
    model = _model(place, found)
  print(f"{found.architecture}: {found.model['name']}", file=sys.stderr)
  source = Elsewhere(texts, 2 if found.family == "roberta" else 1, found.class_names)
  reads = next(iter(texts.values()))
  # Ours, exported, have no token of their own for what is hidden.
  mask = reads.unknown if reads.mask is None else reads.mask
  return Run(Caller(_Plain(model), {}, found.params, {}, compiled={}), source, mask)


def _model(place: str, found: huggingface.Imported) -> nn.Module:
  """The model, its settings held to the ranges that a config of ours is held to."""
  settings = dict(found.model)
  module = importlib.import_module(f"models.{settings.pop('name')}")
  try:
    return module.Model(**config.arguments(module.Model, settings, where="model"))
  except (ConfigError, ValueError) as error:
    raise Unreadable(f"{place}: {error.args[0]}") from None


def _texts(place: str, found: huggingface.Imported) -> dict[str, tokenizers.Tokenizer]:
  tokenizer = tokenizers.load(found.tokenizer)
  named = ("vocabulary", "source_vocabulary", "target_vocabulary")
  most = min(found.model[name] for name in named if found.model.get(name))
  if tokenizer.size > most:
    raise Unreadable(
      f"{found.tokenizer} has ids up to {tokenizer.size - 1}, the model {most} in all"
    )
  if found.family not in ("t5", "marian"):
    return {"tokens": tokenizer}
  writes = tokenizers.load(found.tokenizer)
  directory = tensors.place(place.removeprefix(HUGGING_FACE))
  # These begin what they write with a token that is not the first of a text.
  said = tensors.read_json(tensors.inside(directory, "config.json"))
  begin = said.get("decoder_start_token_id", 0)
  if not isinstance(begin, int) or isinstance(begin, bool) or not 0 <= begin < most:
    raise Unreadable(f"{place}: decoder_start_token_id is {str(begin)[:40]!r}, no id of {most}")
  writes.bos = begin
  return {"source": tokenizer, "target": writes}
