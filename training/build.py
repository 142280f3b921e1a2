"""From a config to the objects of each stage.

There is no registry: `model.name = "vae.gaussian"` means `Model` of models/vae/gaussian.py,
`task.name = "elbo"` means `Task` of tasks/elbo.py, `data.name = "idx:mnist"` means `Source` of
data/idx.py with `dataset="mnist"`.
"""

import contextlib
import copy
import dataclasses
import functools
import importlib
import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from data.source import NoSuchName, Source
from tasks.objective import Objective, Phase
from training import lora, optim, parallel, step
from training.config import UNTOUCHED, arguments, choices, hints, nearest, shown, traced
from training.errors import ConfigError, DataError, ResourceError, UserError

BLOCKS = ("model", "task", "data", "optimizer", "training")
MESH = {"data": -1, "fsdp": 1, "model": 1}  # devices along each axis; -1 is all that are left
_EXECUTION = ("dtype", "remat")  # fields of a model that `config.training` decides


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
  """How long, how often, on what.

  Attributes:
    steps: training steps of the stage.
    log_every: steps between rows of training metrics.
    eval_every: steps between evaluations on the validation split; 0 evaluates only at the end.
    checkpoint_every: steps between checkpoints; 0 saves only at the end.
    keep: checkpoints kept besides the best.
    best: validation metric that chooses the best checkpoint.
    best_is: whether less or more of it is better.
    parallel: "jit" over a mesh, or "pmap".
    mesh: devices along "data" (-1: all that are left), "fsdp" and "model"; see docs/scale.md.
    microbatches: gradient accumulation; the batch is read in so many parts.
    dtype: of activations; parameters, statistics and sums stay float32.
    ema_decay: of the average of parameters that evaluation then uses; 0 keeps none.
    remat: recompute the activations of each block in the backward pass, for memory.
    most_rejected: a step whose loss or gradient is not finite changes nothing; so many of them in a
      row end the run.
    largest_gradient: a step whose gradient has a larger norm is rejected like one that is not
      finite; 0 rejects none. Unlike `optimizer.clip_norm`, which shrinks it.
    stalled_after: seconds that a step, a wait for data or for another process, an evaluation or a
      save may take before the run is ended; 0 waits for ever.
  """

  steps: Annotated[int, "[1, 2147483647]"] = 1000  # a state counts them in int32
  log_every: Annotated[int, "[1, inf)"] = 100
  eval_every: Annotated[int, "[0, inf)"] = 500
  checkpoint_every: Annotated[int, "[0, inf)"] = 500
  keep: Annotated[int, "[2, inf)"] = 2
  best: str = "loss"
  best_is: Literal["least", "greatest"] = "least"
  parallel: Literal["jit", "pmap"] = "jit"
  mesh: dict[Literal["data", "fsdp", "model"], Annotated[int, "[-1, inf)"]] = dataclasses.field(
    default_factory=lambda: dict(MESH)
  )
  microbatches: Annotated[int, "[1, inf)"] = 1
  dtype: Literal["float32", "bfloat16"] = "float32"
  ema_decay: Annotated[float, "[0, 1)"] = 0.0
  remat: bool = False
  most_rejected: Annotated[int, "[1, 2147483647]"] = 10
  largest_gradient: Annotated[float, "[0, inf)"] = 0.0
  stalled_after: Annotated[float, "[0, inf)"] = 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """The top of a config.

  Attributes:
    seed: the one number from which all randomness of the run derives.
    init_from: a workdir whose trained parameters are taken over by name, or `hf:DIR`, or
      `peft:DIR` (docs/huggingface.md); empty for none.
  """

  seed: Annotated[int, "[0, 4294967295]"] = 0
  init_from: str = ""


class Stage(NamedTuple):
  """One part of a run, built.

  Attributes:
    numbers: the hyperparameters that are arguments of the compiled programs, by key. Only those
      that are not zero: a zero switches something off, which is another program.
    structure: what is left of the config without those numbers. Stages of one structure share
      their compiled programs.
  """

  name: str
  model: nn.Module
  task: Objective
  source: Source
  optimizers: tuple[optim.Optimizer, ...]  # one a phase
  training: Training
  program: step.Program
  rates: tuple[Any, ...]  # learning-rate schedules, one a phase
  numbers: dict[str, np.float32]
  structure: str

  def at(self, numbers: Mapping[str, Any]) -> "Stage":
    """The stage with other numbers, which may be tracers, in the places of its own."""
    model = _with(self.model, "model", numbers)
    task = _with(self.task, "task", numbers)
    names = [phase.name for phase in self.program.phases]
    optimizers = tuple(
      _with(optimizer, f"optimizer.{name}", numbers)
      for optimizer, name in zip(self.optimizers, names, strict=True)
    )
    return self._replace(
      model=model,
      task=task,
      optimizers=optimizers,
      program=_program(
        lora.phases(model, task.phases(model)), optimizers, self.source, self.training
      ),
    )


class Experiment(NamedTuple):
  """A checked config and what it builds."""

  config: dict[str, Any]  # resolved: every default filled in; JSON
  run: Run
  stages: tuple[Stage, ...]

  @property
  def structure(self) -> str:
    """Experiments of one structure differ in numbers and seed, and share compiled programs."""
    return json.dumps([self.run.init_from, *(stage.structure for stage in self.stages)])

  @property
  def ends(self) -> list[int]:
    """The last step of every stage, counted through all stages."""
    return list(itertools.accumulate(stage.training.steps for stage in self.stages))


def build(config: Mapping[str, Any], *, assets: pathlib.Path | None = None) -> Experiment:
  """Checks a whole config and builds its stages.

  Args:
    config: nested settings.
    assets: where a run keeps what its sources made, which is then read and not made anew.

  Raises:
    ConfigError: any key that nothing reads, wrong type, value out of range, missing block.
  """
  config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
  stages = config.pop("stages", ({},))
  if not isinstance(stages, tuple | list) or not stages:
    _refuse("stages", stages, "a list of blocks")
  shared = {name: _block(config.pop(name), name) for name in BLOCKS if name in config}
  top = arguments(Run, config, where="", beside=(*BLOCKS, "stages"))
  resolved, built = [], []
  for i, blocks in enumerate(stages):
    where = f"stages.{i}." if len(stages) > 1 else ""
    blocks = dict(_block(blocks, f"stages.{i}"))
    name = blocks.pop("name", f"stage{i}" if len(stages) > 1 else "")
    if not isinstance(name, str):
      _refuse(f"stages.{i}.name", name, "a name")
    for block in blocks:
      if block not in BLOCKS:
        raise ConfigError(
          f"config.{where}{block} is read by nothing{nearest(block, (*BLOCKS, 'name'))}",
          kept=UNTOUCHED,
          do=f"a stage has the blocks {', '.join(BLOCKS)}",
        )
      _block(blocks[block], f"{where}{block}")
    merged = {
      block: _merge(
        shared[block] if block in shared else {}, blocks[block] if block in blocks else {}
      )
      for block in BLOCKS
    }
    stage, full = _stage(name, merged, where=where, assets=assets)
    built.append(stage)
    resolved.append({"name": name, **full})
  _check_shared(shared, stages)
  names = [stage.name for stage in built]
  if len(set(names)) < len(names):
    _refuse("stages", names, "a list of stages with different names")
  if len(resolved) > 1:
    whole = {**top, "stages": resolved}
  else:
    whole = {**top, **{block: resolved[0][block] for block in BLOCKS}}
  return Experiment(whole, Run(**top), tuple(built))


def _block(value, key: str) -> Mapping:
  return value if isinstance(value, Mapping) else _refuse(key, value, "a block of settings")


def _refuse(key: str, value, what: str):
  raise ConfigError(
    f"config.{key}={shown(value)} is not {what}", kept=UNTOUCHED, do=f"make it {what}"
  )


def _check_shared(shared: Mapping[str, Mapping], stages):
  """Refuses a shared setting that every stage overrides: nothing would read it."""
  for block, spec in shared.items():
    for key in spec:
      own = [stage[block] if block in stage else {} for stage in stages]
      if all(
        key in o or ("name" in o and "name" in spec and o["name"] != spec["name"]) for o in own
      ):
        raise ConfigError(
          f"config.{block}.{key} is read by nothing: every stage has its own",
          kept=UNTOUCHED,
          do=f"set --config.stages.N.{block}.{key}=VALUE",
        )


def _merge(below: Mapping, above: Mapping) -> dict:
  """A stage's block over the shared one; another name means another class, so nothing is shared."""
  if "name" in above and "name" in below and above["name"] != below["name"]:
    return dict(above)
  return {**below, **above}


def _stage(name: str, blocks: Mapping[str, dict], *, where: str, assets: pathlib.Path | None):
  training_args = arguments(Training, blocks["training"], where=f"{where}training")
  training_args["mesh"] = {**MESH, **training_args["mesh"]}
  training = Training(**training_args)

  source, data_args = _source(blocks["data"], where=f"{where}data")
  if assets is not None and assets.is_dir():
    with reading(source):
      source = source.restored(assets)
  model, model_args = _model(blocks["model"], source, training, where=f"{where}model")
  task_class, task_spec, task_name = _locate(
    "tasks", "Task", blocks["task"], f"{where}task", ("objective", "views")
  )
  task_args = arguments(task_class, task_spec, where=f"{where}task", beside=("name",))
  task = _construct(task_class, task_args, f"{where}task")
  try:
    phases = lora.phases(model, task.phases(model))
  except ValueError as error:
    raise ConfigError(
      f"config.{where}task: {error}", kept=UNTOUCHED, do="change the task or the model"
    ) from None
  optimizers, optimizer_args = _optimizers(blocks["optimizer"], phases, where=f"{where}optimizer")
  program = _program(phases, optimizers, source, training)
  full = {
    "model": {"name": blocks["model"]["name"], **model_args},
    "task": {"name": task_name, **task_args},
    "data": {"name": blocks["data"]["name"], **data_args},
    "optimizer": optimizer_args,
    "training": training_args,
  }
  owners = {"model": model, "task": task}
  owners |= {f"optimizer.{p.name}": o for p, o in zip(phases, optimizers, strict=True)}
  with np.errstate(over="ignore"):  # what outgrows float32 is inf there, and the loss says so
    numbers = {
      f"{key}.{field}": np.float32(getattr(owner, field))
      for key, owner in owners.items()
      for field in traced(type(owner))
      if getattr(owner, field)
    }
  return Stage(
    name=name,
    model=model,
    task=task,
    source=source,
    optimizers=optimizers,
    training=training,
    program=program,
    rates=tuple(
      o.rate(training.steps * phase.repeats) for o, phase in zip(optimizers, phases, strict=True)
    ),
    numbers=numbers,
    structure=_structure(name, full, owners),
  ), full


def _program(phases: tuple[Phase, ...], optimizers, source: Source, training: Training):
  return step.Program(
    phases=phases,
    optimizers=tuple(
      o.transformation(training.steps * phase.repeats)
      for o, phase in zip(optimizers, phases, strict=True)
    ),
    transform=lambda batch, keys: source.transform(dict(batch), keys, train=True),
    batch_size=source.batch_size,
    microbatches=training.microbatches,
    ema_decay=training.ema_decay,
    most_rejected=training.most_rejected,
    largest_gradient=training.largest_gradient,
  )


def _with(owner, key: str, numbers: Mapping[str, Any]):
  """A copy of a frozen dataclass or module with the numbers that are its own, unchecked."""
  twin = copy.copy(owner)
  for name, value in numbers.items():
    block, _, field = name.rpartition(".")
    if block == key:
      object.__setattr__(twin, field, value)
  return twin


def _structure(name: str, full: Mapping[str, Any], owners: Mapping[str, Any]) -> str:
  """A stage's resolved config with `null` for every number that is an argument."""
  blocks = {**full, "name": name, "optimizer": []}
  for key, owner in owners.items():
    numbers = {field for field in traced(type(owner)) if getattr(owner, field)}
    spec = dataclasses.asdict(owner) if key.startswith("optimizer.") else full[key]
    blank = {field: None if field in numbers else value for field, value in spec.items()}
    if key.startswith("optimizer."):
      blocks["optimizer"].append({"class": type(owner).__name__, **blank})
    else:
      blocks[key] = blank
  return json.dumps(blocks, sort_keys=True, default=str)


def _locate(room: str, attribute: str, spec: Mapping, where: str, not_these: tuple[str, ...] = ()):
  """The class that a block's `name` means, and the rest of the block."""
  spec, known = dict(spec), _names(room, attribute, not_these)
  name = spec.pop("name", None)
  if not isinstance(name, str) or name not in known:
    near = (*known, *_with_colon(name, known)) if room == "data" else known
    raise ConfigError(
      f"config.{where}.name {_unnamed(name, spec, near, f'which names no file of {room}/')}",
      kept=UNTOUCHED,
      do=f"choose one of {', '.join(known)}",
    )
  return getattr(importlib.import_module(f"{room}.{name}"), attribute), spec, name


@functools.cache
def _names(room: str, attribute: str, not_these: tuple[str, ...]) -> tuple[str, ...]:
  """What a block may be named: the files of a room with such a class. Nothing is imported."""
  files = pathlib.Path(__file__).parent.parent / room
  return tuple(
    sorted(
      ".".join(path.relative_to(files).with_suffix("").parts)
      for path in files.rglob("*.py")
      if path.stem not in ("__init__", *not_these)
      and f"\nclass {attribute}(" in path.read_text(encoding="utf-8")
    )
  )


def _with_colon(name, files: Iterable[str]) -> list[str]:
  """Names of data that differ from `name` in nothing but the colon, which may be mistyped."""
  found = []
  for file in files if isinstance(name, str) else ():
    rest = name.removeprefix(file)
    if rest != name and len(rest) > 1:
      kinds = hints(importlib.import_module(f"data.{file}").Source)
      known = choices(kinds["dataset"]) if "dataset" in kinds else ()
      found += [f"{file}:{dataset}" for dataset in known or (rest, rest[1:])]
  return found


def _unnamed(name, spec: Mapping, known: Iterable[str], said: str) -> str:
  """What is wrong with the name of a block, which is none of those `known`."""
  if isinstance(name, str):
    return f"is {shown(name)}, {said}{nearest(name, known)}"
  if name is not None:
    return f"is {shown(name)}, {said}"
  typed = [key for key in spec if nearest(key, ["name"])]
  return "is missing" + (f", but there is {shown(typed[0])}; did you mean 'name'?" if typed else "")


def _construct(cls, args, where):
  """`cls(**args)`; what a class finds wrong among its own fields is the user's to mend."""
  try:
    return cls(**args)
  except NoSuchName as error:
    said = f"config.{where}.{error.setting}={shown(error.value)} names nothing"
    raise ConfigError(
      f"{said}{nearest(error.value, error.known)}",
      kept=UNTOUCHED,
      do=f"choose one of {', '.join(error.known)}{error.others}",
    ) from None
  except ValueError as error:
    raise ConfigError(
      f"config.{where}: {error}", kept=UNTOUCHED, do="change these fields"
    ) from None


def _source(spec, *, where):
  spec = dict(spec)
  if isinstance(name := spec["name"] if "name" in spec else None, str) and ":" in name:
    if "dataset" in spec:
      raise ConfigError(
        f"config.{where}.dataset: config.{where}.name={name!r} says it already",
        kept=UNTOUCHED,
        do="leave one of them out",
      )
    spec["name"], spec["dataset"] = name.split(":", 1)
  cls, spec, _ = _locate("data", "Source", spec, where, ("source",))
  args = arguments(cls, spec, where=where, beside=("name",))
  source = _construct(cls, args, where)
  if ":" in (name or ""):
    args.pop("dataset")
  return source, args


def _model(spec, source: Source, training: Training, *, where):
  cls, spec, _ = _locate("models", "Model", spec, where)
  for field in _EXECUTION:
    if field in spec:
      raise ConfigError(
        f"config.{where}.{field} is decided by config.training.{field}",
        kept=UNTOUCHED,
        do=f"set --config.training.{field}=VALUE",
      )
  adapters = spec.pop("lora", None)
  known = {f.name for f in dataclasses.fields(cls)}
  if training.remat and "remat" not in known:
    raise ConfigError(
      f"config.training.remat: {cls.__module__}.Model has no blocks to recompute",
      kept=UNTOUCHED,
      do="leave training.remat off for this model",
    )
  facts = data_facts(source)
  execution = {"dtype": jnp.dtype(training.dtype), "remat": training.remat}
  args = arguments(cls, spec, where=where, given={**facts, **execution}, beside=("name", "lora"))
  for fact, value in facts.items():
    if fact in args and fact in spec and args[fact] != value:
      raise ConfigError(
        f"config.{where}.{fact} is {args[fact]}, but the data's is {value}",
        kept=UNTOUCHED,
        do=f"leave {fact} out: the data decides it",
      )
  model = _construct(cls, args, where)
  args = {name: value for name, value in args.items() if name not in _EXECUTION}
  if adapters is None:
    return model, args
  settings = arguments(lora.Lora, _block(adapters, f"{where}.lora"), where=f"{where}.lora")
  return lora.adapted(model, lora.Lora(**settings)), {**args, "lora": settings}


def data_facts(source: Source) -> dict[str, Any]:
  """What a model must know of the data, by the name of its field."""
  with reading(source):
    return dict(source.facts())


@contextlib.contextmanager
def reading(source: Source, kept: str = UNTOUCHED):
  """Turns what a source raises into a one-line error, which says what is kept."""
  room = type(source).__module__
  try:
    yield
  except FileNotFoundError as error:
    raise DataError(str(error), where=room, kept=kept, do="then run again") from None
  except (ValueError, OSError) as error:
    raise DataError(str(error), where=room, kept=kept, do="mend it or change config.data") from None


@contextlib.contextmanager
def tracing(stage: Stage):
  """Says in one line that a stage cannot be computed: each setting is right, but not all at once.

  What fails then is whichever line of the model, the task or the transform meets the sizes first.
  """
  try:
    yield
  except UserError:
    raise
  except MemoryError as error:
    raise ResourceError(
      f"tracing asks for too much memory: {error}"[:300], kept=UNTOUCHED, do="choose smaller sizes"
    ) from error
  except Exception as error:
    parts = (part.__module__ for part in map(type, (stage.model, stage.task, stage.source)))
    said = " ".join(str(error).split())[:200]
    raise ConfigError(
      f"config: {', '.join(parts)} do not go together: {type(error).__name__} {said}",
      kept=UNTOUCHED,
      do="change their sizes; --debug shows where",
    ) from error


def _optimizers(spec, phases: tuple[Phase, ...], *, where):
  """One optimizer a phase: the block's settings, and over them those of `per_phase`."""
  spec = dict(spec)
  per_phase = _block(spec.pop("per_phase", {}), f"{where}.per_phase")
  names = [phase.name for phase in phases]
  for name in per_phase:
    if name not in names:
      raise ConfigError(
        f"config.{where}.per_phase.{name}: the task has no such phase{nearest(name, names)}",
        kept=UNTOUCHED,
        do=f"its phases are {', '.join(names) or 'none'}",
      )
    _block(per_phase[name], f"{where}.per_phase.{name}")
  _, resolved = _optimizer(spec, where)
  optimizers = []
  for name in names:
    own = per_phase[name] if name in per_phase else {}
    optimizer, full = _optimizer(_merge(spec, own), f"{where}.per_phase.{name}" if own else where)
    optimizers.append(optimizer)
    if own:
      resolved.setdefault("per_phase", {})[name] = full
  return tuple(optimizers), resolved


def _optimizer(spec, where):
  spec = {"name": "adam", **spec}
  name = spec.pop("name")
  if not isinstance(name, str) or name not in optim.NAMES:
    raise ConfigError(
      f"config.{where}.name {_unnamed(name, spec, optim.NAMES, 'which is no optimizer')}",
      kept=UNTOUCHED,
      do=f"choose one of {', '.join(optim.NAMES)}",
    )
  args = arguments(optim.NAMES[name], spec, where=where, beside=("name", "per_phase"))
  return optim.NAMES[name](**args), {"name": name, **args}


def devices(training: Training) -> parallel.Parallel:
  """The devices of a stage, as its config asks.

  Raises:
    ConfigError: more devices asked for than there are, or a mesh that pmap cannot have.
  """
  mesh = {**MESH, **training.mesh}
  have = jax.device_count()
  need = max(mesh["data"], 1) * mesh["fsdp"] * mesh["model"]
  if 0 in mesh.values() or min(mesh["fsdp"], mesh["model"]) < 1 or need > have:
    raise ConfigError(
      f"config.training.mesh={training.mesh} does not fit {have} device(s)",
      kept=UNTOUCHED,
      do="data * fsdp * model must be at most the number of devices, fsdp and model at least 1",
    )
  if training.parallel == "jit":
    return parallel.Mesh(mesh["data"], mesh["fsdp"], mesh["model"])
  for axis in ("fsdp", "model"):
    if mesh[axis] != 1:
      raise ConfigError(
        f"config.training.mesh.{axis}: pmap copies parameters to every device",
        kept=UNTOUCHED,
        do="use training.parallel=jit to split them",
      )
  return parallel.Pmap(mesh["data"])


def check_shares(experiment: Experiment):
  """Refuses a batch that does not divide into the devices at hand and the microbatches asked for.

  Apart from `build`, so that a config can be checked on a machine without those devices.
  """
  for i, stage in enumerate(experiment.stages):
    shares, microbatches = devices(stage.training).shares, stage.training.microbatches
    if stage.program.batch_size % (shares * microbatches):
      where = f"stages.{i}." if len(experiment.stages) > 1 else ""
      raise ConfigError(
        f"config.{where}data.batch_size={stage.program.batch_size} does not divide into"
        f" {shares} device(s) x {microbatches} microbatch(es)",
        kept=UNTOUCHED,
        do=f"choose a multiple of {shares * microbatches}",
      )
