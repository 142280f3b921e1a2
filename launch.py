"""Fukugen's command line: trains, evaluates, samples and reports experiments from config files."""

import argparse
import os
import pathlib
import sys
from collections.abc import Collection

_CONFIG_HELP = """\
A config is an experiment file, then optionally a variant: FILE.py:small. Any of its settings, and
any field of the class that reads them, can be overridden: --config.optimizer.learning_rate=3e-4
"""


def main(argv: list[str]) -> int:
  parser, commands = _parser()
  _check_command(parser, commands, argv)
  args, rest = parser.parse_known_args(argv)
  debug = args.debug
  # Imported late: --help must answer at once, and JAX alone takes half a second.
  from training.errors import Interrupted, UserError

  try:
    overrides = _overrides(parser, rest, args.known)
    if overrides and "config" not in args:
      parser.error(f"{args.command} takes no --config overrides: the workdir knows its config")
    return args.run(args, overrides) or 0
  except UserError as error:
    if debug:
      raise
    print(error, file=sys.stderr, flush=True)
    return error.status
  except KeyboardInterrupt:
    # Outside training, where a stop is heard after the step in hand and saved.
    stopped = Interrupted(
      "stopped", kept="what was saved before", do="run the same command to go on"
    )
    print(stopped, file=sys.stderr, flush=True)
    return stopped.status


def _parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
  """The command line, and the names of its commands."""
  # Without abbreviations, of which --workdi would be one.
  parser = argparse.ArgumentParser(
    prog="launch.py", description=__doc__, epilog=_CONFIG_HELP, allow_abbrev=False
  )
  parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
  commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

  def command(name: str, run, help: str) -> argparse.ArgumentParser:
    sub = commands.add_parser(
      name, help=help, description=help, epilog=_CONFIG_HELP, allow_abbrev=False
    )
    sub.set_defaults(run=run, known=sub._option_string_actions)  # filled by what follows
    sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)
    return sub

  def config(sub):
    sub.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="experiment file")

  def workdir(sub):
    sub.add_argument("--workdir", required=True, metavar="DIR", help="where the run's files are")

  def weights(sub):
    sub.add_argument(
      "--weights",
      choices=("latest", "best", "raw", "average"),
      default="latest",
      help="latest (averaged, where the run keeps an average), best on validation,"
      " raw (latest without averaging), or average (of the checkpoints kept)",
    )

  def tracking(sub):
    sub.add_argument(
      "--track", default="", metavar="NAMES", help="log to wandb, mlflow, trackio too (a,b)"
    )
    sub.add_argument(
      "--deterministic",
      action="store_true",
      help="make accelerators give the same bits every time, at some cost of speed",
    )

  command("list", _list, "print the experiments and what each claims")
  config(command("describe", _describe, "print shapes, parameters and cost; train nothing"))
  sub = command("train", _train, "train an experiment, or go on where its workdir stopped")
  config(sub)
  workdir(sub)
  sub.add_argument(
    "--allow-changed-config",
    action="store_true",
    help="go on although the run was started with another config",
  )
  tracking(sub)
  sub.add_argument(
    "--coordinator", default="", metavar="HOST:PORT", help="of the first of several processes"
  )
  sub.add_argument("--processes", type=int, default=1, help="that share the run (default 1)")
  sub.add_argument("--process", type=int, default=0, help="which of them this is, from 0")
  sub = command("verify", _verify, "train whole and killed after each save; compare the bits")
  config(sub)
  sub.add_argument("--workdir", default="", metavar="DIR", help="where the runs are left (nowhere)")
  sub.add_argument(
    "--interruptions", type=int, default=0, help="at most so many (default: after every save)"
  )
  sub = command("evaluate", _evaluate, "measure a trained run and rewrite its evaluation.json")
  workdir(sub)
  weights(sub)
  sub = command("sample", _sample, "generate examples from a trained run")
  workdir(sub)
  weights(sub)
  sub.add_argument("--count", type=int, default=48, help="how many (default 48)")
  sub.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
  _prompt_options(sub)
  sub = command("export", _export, "write a trained run's model for Transformers, or its adapters")
  workdir(sub)
  weights(sub)
  sub.add_argument("--to", required=True, metavar="hf:DIR", help="or peft:DIR, adapters alone")
  sub = command("tokenizer", _tokenizer, "train a tokenizer on an experiment's training text")
  config(sub)
  sub.add_argument("--out", required=True, metavar="FILE.json", help="where it is written")
  sub = command("probe", _probe, "measure what a trained run's features are good for")
  workdir(sub)
  weights(sub)
  sub.add_argument("--neighbours", type=int, default=5, help="of the vote (default 5)")
  workdir(command("report", _report, "draw a trained run's figures again and rewrite its report"))
  sub = command("sweep", _sweep, "run many trials of an experiment, and rank them")
  _sweep_options(sub)
  tracking(sub)
  sub = command("reproduce", _reproduce, "run what claims need, and say whether they hold")
  sub.add_argument("--config", metavar="FILE[:VARIANT]", help="experiment file")
  sub.add_argument("--all", action="store_true", help="every experiment, instead of --config")
  sub.add_argument("--variant", choices=("paper", "small", "smoke"), help="with --all (small)")
  sub.add_argument("--seeds", type=int, default=0, help="of every run (default: as claimed)")
  sub.add_argument("--workdir", default="runs/reproduce", metavar="DIR", help="where the runs lie")
  sub.add_argument("--no-record", action="store_true", help="leave docs/results/ as it is")
  _engine_options(sub)
  command("results", _results, "write the tables of results anew from the records")
  sub = command("work", _work, "run the trials that a sweep gave to a job; engines call this")
  workdir(sub)
  sub.add_argument("--job", required=True, help="the job's name")
  return parser, commands.choices


def _prompt_options(sub: argparse.ArgumentParser):
  # Their defaults are those of training.prompting.Options and decoding.sampling.Sampling.
  own = argparse.SUPPRESS
  sub.add_argument(
    "--prompt", action="append", default=[], help="text to go on from; several are one batch"
  )
  sub.add_argument("--pair", action="append", default=[], help="a prompt's second text")
  sub.add_argument(
    "--as",
    dest="asked",
    choices=("generate", "fill-mask", "similarity", "classify"),
    default="",
    help="what is asked of a prompt (default: what the model is for)",
  )
  sub.add_argument("--steps", type=int, default=own, help="new tokens at most (default 64)")
  sub.add_argument("--temperature", type=float, default=own, help="0 takes the likeliest token")
  sub.add_argument("--top-k", type=int, default=own, help="draw from the k likeliest tokens only")
  sub.add_argument("--top-p", type=float, default=own, help="nucleus: of this probability only")
  sub.add_argument(
    "--repetition-penalty", type=float, default=own, help="above 1, what was said is less likely"
  )
  sub.add_argument("--beams", type=int, default=own, help="above 1, the best of a beam search")
  sub.add_argument("--length-penalty", type=float, default=own, help="of that search")
  sub.add_argument("--stop", action="append", default=[], help="a token that ends a text")
  sub.add_argument("--cut", action="store_true", help="cut a prompt that is too long")
  sub.add_argument("--no-stream", action="store_true", help="print a text when it is whole")
  sub.add_argument("--draft", default="", metavar="DIR", help="a run whose model proposes tokens")
  sub.add_argument("--proposals", type=int, default=4, help="of the draft at a time (default 4)")


def _sweep_options(sub: argparse.ArgumentParser):
  sub.add_argument("--config", metavar="FILE[:VARIANT]", help="experiment file")
  sub.add_argument("--workdir", required=True, metavar="DIR", help="where the trials' files are")
  sub.add_argument("--sweep", metavar="NAME", default="", help="sweep_NAME() of the experiment")
  sub.add_argument("--seeds", type=int, default=0, help="run every trial with the seeds 0..N-1")
  sub.add_argument(
    "--search",
    choices=("tpe", "cmaes", "qmc", "random"),
    help="let Optuna propose trials from the experiment's space()",
  )
  sub.add_argument("--space", metavar="NAME", default="", help="space_NAME() of the experiment")
  sub.add_argument("--trials", type=int, default=20, help="of a search, in all (default 20)")
  sub.add_argument(
    "--prune",
    choices=("none", "median", "asha", "hyperband"),
    default="none",
    help="how a search stops trials early",
  )
  sub.add_argument("--storage", default="", help="where Optuna keeps its study: URL or .journal")
  sub.add_argument("--metric", default="", help="that ranks trials (default training.best)")
  sub.add_argument("--direction", choices=("least", "greatest"), default="")
  _engine_options(sub)
  sub.add_argument("--retry-failed", action="store_true", help="try failed trials again")
  sub.add_argument("--join", action="store_true", help="work on a sweep begun elsewhere")


def _engine_options(sub: argparse.ArgumentParser):
  sub.add_argument("--engine", choices=("local", "ray", "slurm"), default="local")
  sub.add_argument(
    "--jobs", type=int, default=0, help="processes at a time (default: one a device)"
  )
  sub.add_argument(
    "--engine-option",
    action="append",
    default=[],
    metavar="KEY=VALUE",
    help="a setting of the engine (docs/clusters.md); may be repeated",
  )
  # Their defaults are those of sweeps.controller.Limits.
  sub.add_argument(
    "--population",
    choices=("auto", "sequential", "vectorised", "off"),
    default=argparse.SUPPRESS,
    help="trials of one program share a process one after another, at once under vmap, or not",
  )
  sub.add_argument(
    "--timeout", type=float, default=argparse.SUPPRESS, help="seconds of one attempt at a trial"
  )
  sub.add_argument(
    "--grace", type=float, default=argparse.SUPPRESS, help="seconds to save before being killed"
  )
  sub.add_argument(
    "--retries", type=int, default=argparse.SUPPRESS, help="after a crash of a trial's process"
  )
  sub.add_argument(
    "--max-failures", type=int, default=argparse.SUPPRESS, help="that stop the sweep (0: none do)"
  )


def _check_command(parser, commands: Collection[str], argv: list[str]):
  """Before argparse does, which names no likeliest one."""
  name = next((word for word in argv if not word.startswith("-")), None)
  if name is not None and name not in commands:
    from training.config import nearest

    parser.error(
      f"there is no command {name[:80]!r}{nearest(name, commands)} (choose from"
      f" {', '.join(commands)})"
    )


def _overrides(parser, rest: list[str], known) -> list[tuple[str, str]]:
  """`--config.a.b=value` and `--config.a.b value` as (dotted key, text) pairs."""
  found, rest = [], list(rest)
  while rest:
    word = rest.pop(0)
    key, equals, value = word.partition("=")
    if not key.startswith("--config.") or (not equals and not rest):
      from training.config import nearest

      meant = nearest(key.partition(".")[0], known)
      parser.error(f"unrecognized argument: {word}{meant if key.startswith('--') else ''}")
    if not equals and rest[0].startswith("--"):
      parser.error(f"{word} has no value")
    found.append((key.removeprefix("--config."), value if equals else rest.pop(0)))
  return found


def _list(args, overrides):
  from training import catalogue

  catalogue.show()


def _describe(args, overrides):
  from training import config

  # Checked before JAX is imported, so that a typo is answered at once.
  found = config.override(config.load(args.config), overrides)
  _start_jax()
  from training import look

  look.describe(found)


def _verify(args, overrides):
  import tempfile

  from training import config, verify

  config.override(config.load(args.config), overrides)  # a typo is answered at once
  command = [f"--config={args.config}", *(f"--config.{key}={value}" for key, value in overrides)]
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(args.workdir or folder) / ("" if args.workdir else "verify")
    found = verify.verify(command, place, most=args.interruptions)
  equal = sum(one.equal for one in found)
  print(f"{equal} of {len(found)} interrupted runs ended with the same bits")
  return 0 if equal == len(found) else 1


def _train(args, overrides):
  from training import config

  default = config.load(args.config)
  found = config.override(default, overrides)
  _start_jax(deterministic=args.deterministic)
  from training import processes

  if args.coordinator or args.processes != 1 or args.process:
    processes.join(args.coordinator, args.processes, args.process)
  from training import run

  run.train(
    found,
    args.workdir,
    command=["python", *sys.argv],
    default=default.to_dict(),
    changed=args.allow_changed_config,
    name=args.config,
    track=_names(args.track),
  )


def _evaluate(args, overrides):
  _start_jax()
  from training import look

  look.evaluate(args.workdir, weights=args.weights)


def _sample(args, overrides):
  if args.count < 1:
    from training.errors import ConfigError

    raise ConfigError(f"--count={args.count} is not at least 1", do="ask for one or more")
  _start_jax()
  from training import look

  if args.prompt:
    look.prompt(
      args.workdir,
      args.prompt,
      _given(args, "temperature", "top_k", "top_p", "repetition_penalty"),
      {
        **_given(args, "steps", "beams", "length_penalty"),
        "stop": tuple(args.stop),
        "seed": args.seed,
        "cut": args.cut,
        "stream": not args.no_stream,
      },
      pairs=args.pair,
      asked=args.asked,
      draft=args.draft,
      proposals=args.proposals,
      weights=args.weights,
    )
    return
  look.sample(args.workdir, count=args.count, seed=args.seed, weights=args.weights)


def _given(args, *names: str) -> dict:
  """The options that were given; the others keep the defaults of the class that reads them."""
  return {name: getattr(args, name) for name in names if name in args}


def _export(args, overrides):
  _start_jax()
  from training import look

  look.export(args.workdir, args.to, weights=args.weights)


def _tokenizer(args, overrides):
  from training import config

  found = config.override(config.load(args.config), overrides)
  _start_jax(controller=True)
  from training import look

  look.tokenizer(found, args.out)


def _probe(args, overrides):
  _start_jax()
  from training import look

  look.probe(args.workdir, weights=args.weights, neighbours=args.neighbours)


def _report(args, overrides):
  _start_jax()
  from training import look

  look.report(args.workdir)


def _sweep(args, overrides):
  from training import config
  from training.errors import ConfigError

  if args.join:
    _start_jax(controller=True)
    from sweeps import run

    return run.join(args.workdir, engine=_engine(args), limits=_limits(args))
  if not args.config:
    raise ConfigError("sweep needs --config, or --join", do="give --config=FILE:VARIANT")
  found = config.override(config.load(args.config), overrides)
  _start_jax(controller=True, deterministic=args.deterministic)
  from sweeps import run

  path, _, variant = args.config.partition(":")
  module = config.experiment(path)
  plan = run.plan(
    module,
    found,
    title=f"{path}:{variant or 'paper'}",
    sweep=args.sweep,
    seeds=args.seeds,
    space=args.space if args.search else None,
    search={"sampler": args.search, "pruner": args.prune} if args.search else {},
    trials=args.trials,
    metric=args.metric,
    direction=args.direction,
  )
  run.sweep(
    plan,
    args.workdir,
    engine=_engine(args),
    limits=_limits(args),
    command=["python", *sys.argv],
    storage=args.storage,
    track=_names(args.track),
    retry_failed=args.retry_failed,
  )


def _reproduce(args, overrides):
  from training import config
  from training.errors import ConfigError

  if bool(args.config) == args.all or (args.config and args.variant):
    raise ConfigError("reproduce needs --config, or --all", do="give --config=FILE:VARIANT")
  if overrides:
    raise ConfigError(
      "a claim is about its experiment as it stands, without --config overrides",
      do="use train or sweep to try others",
    )
  if args.seeds < 0 or args.seeds == 1:
    raise ConfigError(f"--seeds={args.seeds}: an interval needs two or more", do="ask for more")
  if args.config:
    config.load(args.config)  # a typo is answered at once
  _start_jax(controller=True)
  from reproduction import run

  options = {
    "seeds": args.seeds,
    "workdir": args.workdir,
    "engine": _engine(args),
    "limits": _limits(args),
    "command": ["python", *sys.argv],
    "record": not args.no_record,
  }
  if args.all:
    rows = run.reproduce_all(args.variant or "small", **options)
  else:
    path, _, variant = args.config.partition(":")
    judged = run.reproduce(path, variant or "paper", **options)
    rows = [(path, claim, verdict) for claim, verdict in judged]
  run.show(rows)
  return 0 if all(verdict.outcome in ("PASS", "MEASURED") for _, _, verdict in rows) else 1


def _results(args, overrides):
  from reproduction import tables

  for path in tables.regenerate():
    print(path)


def _limits(args):
  from sweeps.controller import Limits
  from training import config

  names = ("population", "timeout", "retries", "max_failures", "grace")
  spec = {name: getattr(args, name) for name in names if name in args}
  return Limits(**config.arguments(Limits, spec, where="limits"))


def _engine(args):
  """What makes the engine, so that nothing starts before the plan is known to be good."""
  from sweeps import engines

  options = dict(option.partition("=")[::2] for option in args.engine_option)
  return lambda folder, trials: engines.make(
    args.engine, folder, trials, jobs=args.jobs, options=options
  )


def _work(args, overrides):
  _start_jax()
  from sweeps import worker

  worker.work(args.workdir, args.job)


def _names(text: str) -> list[str]:
  return [name for name in text.split(",") if name]


def _start_jax(*, controller: bool = False, deterministic: bool = False):
  """Turns on the persistent compilation cache, for every program however small."""
  cache = pathlib.Path(
    os.environ["XDG_CACHE_HOME"]
    if "XDG_CACHE_HOME" in os.environ
    else pathlib.Path.home() / ".cache"
  )
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "fukugen" / "xla"))
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
  if deterministic:
    # CPUs and TPUs are; a GPU sums with atomic operations and times its kernels to choose them.
    flags = os.environ["XLA_FLAGS"] if "XLA_FLAGS" in os.environ else ""
    os.environ["XLA_FLAGS"] = (
      f"{flags} --xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0".strip()
    )
  if controller:
    import jax

    # It computes nothing; an accelerator that it held would be missing to its workers.
    jax.config.update("jax_platforms", "cpu")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
