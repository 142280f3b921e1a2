"""Mutated configs: none is accepted that should not be, none ends in a traceback, typos are answered.

`mutating.py` makes the mistakes and says what must become of each. The same settings are then tried
as a command line, as the config.json of a run that is gone on with, and as one that is damaged.
"""

import collections
import contextlib
import json
import os
import pathlib
import sys
import warnings

import jax
import mutating
import pytest
from mutating import EXPERIMENTS, ROOT

import launch
from training import build, config, initial
from training.errors import ConfigError, DataError, ResourceError, UserError
from training.machine import Machines
from training.workdir import Workdir, differences, flat

VAE = "experiments/vae/gaussian_digits.py"
STACKED = "experiments/autoencoder/stacked_digits.py"
# Whatever else a check of a config may start: the program that holds the text of the Bible.
PROGRAMS = ("bible", "diatheke", "mod2imp")
_started = []


def _watch(event, details):
  if event in ("os.system", "os.exec", "os.posix_spawn", "pty.spawn") or (
    event == "subprocess.Popen" and os.path.basename(str(details[0])) not in PROGRAMS
  ):
    _started.append((event, details))


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def _root(monkeypatch):
  monkeypatch.chdir(ROOT)
  # In process, nothing may change where the tests compile to.
  monkeypatch.setattr(launch, "_start_jax", lambda **_: None)


@pytest.fixture
def cli(capsys):
  """Runs launch.main and gives (status, standard output, standard error)."""

  def run(*argv):
    try:
      status = launch.main([str(word) for word in argv])
    except SystemExit as stop:
      status = stop.code
    return status, *capsys.readouterr()

  return run


def is_one_line(line: str) -> bool:
  return len(line) <= 500 and len(line.splitlines()) == 1 and line.startswith("error[")


def wrong_with(mutation) -> tuple[str, str]:
  """(what became of a mutation, what is wrong with that; empty where nothing is)."""
  try:
    with warnings.catch_warnings(record=True) as said:
      warnings.simplefilter("always")
      found = build.build(mutation.made())
    if said:
      return "warned", f"warns: {said[0].message}"
    if mutating.base_of(mutation.base).shares:
      build.check_shares(found)
  except UserError as error:
    return "refused", wrong_with_refusal(mutation, error)
  except BaseException as error:  # whatever it is, it is no answer to a user
    return "raised", f"raises {type(error).__name__}: {str(error)[:100]}"
  if mutation.verdict == "invalid":
    return "accepted", "is accepted"
  told = mutation.value is not ...
  if told and not mutating.counts(found.config, mutation.path, mutation.value):
    return "accepted", "is silently ignored"
  again = build.build(json.loads(json.dumps(found.config))).config
  return "accepted", "" if again == found.config else "resolves to what builds something else"


def wrong_with_refusal(mutation, error: UserError) -> str:
  line = str(error)
  if not is_one_line(line):
    return f"is refused in no line of at most 500 characters: {line[:100]!r}"
  # A mistake of the config is said to be one; a right setting may want data that is elsewhere.
  kinds = ConfigError if mutation.verdict == "invalid" else (ConfigError, DataError)
  if not isinstance(error, kinds):
    return f"is refused as {type(error).__name__}: {line}"
  suggested = mutating.suggested(line)
  if (
    mutation.right and mutation.right not in [name.split(":")[0] for name in suggested] + suggested
  ):
    return f"does not suggest {mutation.right!r}: {line}"
  return ""


def judge(seed: int, count: int):
  """Tries mutations; fails with every one that is answered wrongly. What became of them, counted."""
  outcomes, wrong = collections.Counter(), []
  _started.clear()
  for mutation in mutating.mutations(seed, count):
    outcome, complaint = wrong_with(mutation)
    outcomes[mutation.kind, outcome] += 1
    if complaint:
      wrong.append(f"{mutation} {complaint}")
  assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(sorted(wrong)[:20])
  assert not _started
  assert not (ROOT / mutating.CANARY).exists()
  return outcomes


def test_a_thousand_mutated_configs_are_refused_or_right():
  outcomes = judge(0, 1000)
  kinds = {kind for kind, _ in outcomes}
  assert {"typo_of_a_key", "typo_of_a_name", "typo_of_a_choice", "value", "text"} <= kinds
  # A check that refused everything would pass, too.
  accepted = sum(count for (_, outcome), count in outcomes.items() if outcome == "accepted")
  assert 40 <= accepted <= 400


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(1, 101))
def test_a_hundred_thousand_mutated_configs_are_refused_or_right(seed):
  outcomes = judge(seed, 1000)
  assert sum(outcomes.values()) == 1000


def test_every_experiment_is_mutated():
  # Others have data that is not here; none may drop out because it no longer builds.
  for reference in (f"{e}:{v}" for e in EXPERIMENTS for v in config.VARIANTS):
    if mutating.base_of(reference) is None:
      with pytest.raises(DataError):
        build.build(config.load(reference))


# What the generator may not meet in a thousand.


@pytest.mark.parametrize(
  ("typed", "known", "listed"),
  [
    ("steps", ["step", "stepss", "seeps", "seed"], ["seeps", "step", "stepss"]),
    ("b", ["b1", "b2", "learning_rate"], ["b1", "b2"]),
    ("lenght", ["length", "weight"], ["length"]),
    ("Adam", ["adam", "adamw"], ["adam"]),
    ("", ["k"], ["k"]),
    ("unheard_of", ["seed", "steps"], []),
    ("x" * 10**6, ["seed", "x"], []),
    ("seed", [], []),
  ],
)
def test_the_nearest_names_are_listed_three_at_most(typed, known, listed):
  assert mutating.suggested(config.nearest(typed, known)) == listed


def test_a_letter_exchanged_with_its_neighbour_is_one_edit():
  # By Levenshtein's count "decoder_wdiths" were as near to names of other letters.
  assert config.nearest("hte", ["the", "ate"]) == "; did you mean 'ate' or 'the'?"
  assert config.nearest("bleu", ["blue", "bloom"]) == "; did you mean 'blue'?"


@pytest.mark.parametrize(
  "value",
  [16**5000, mutating.NESTED, "x" * 10**6, [1] * 10**5],
  ids=["digits", "nested", "text", "list"],
)
def test_values_too_large_to_print_are_cut(value):
  tree = mutating.plain(config.load(f"{VAE}:smoke").to_dict())
  tree["training"]["steps"] = value
  with pytest.raises(ConfigError) as error:
    build.build(tree)
  assert is_one_line(str(error.value))
  assert "which training.build.Training expects" in str(error.value)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400, 1e300], ids=ascii)
def test_an_int_fits_in_64_bits(value):
  with pytest.raises(ConfigError, match="is not int"):
    config.conform(value, int, key="k", title="t")
  assert config.conform(2**63 - 1, int, key="k", title="t") == 2**63 - 1
  assert config.conform(-(2**63), int, key="k", title="t") == -(2**63)


def test_a_mistyped_name_is_the_mistake_that_is_named():
  tree = mutating.plain(config.load(f"{VAE}:smoke").to_dict())
  tree["optimizer"] = {"momentum": 0.9, "nmae": "sgd"}
  with pytest.raises(ConfigError, match="did you mean 'name'"):
    build.build(tree)


@pytest.mark.parametrize(
  ("typed", "right"),
  [("idx_mnist", "idx:mnist"), ("idxmnist", "idx:mnist"), ("textkjv", "text:kjv")],
)
def test_a_mistyped_colon_is_answered(typed, right):
  tree = mutating.plain(config.load(f"{VAE}:smoke").to_dict())
  tree["data"] = {"name": typed}
  with pytest.raises(ConfigError) as error:
    build.build(tree)
  assert right in mutating.suggested(str(error.value))


# Settings that are each right, but not together, meet in the tracing of an evaluation.


@pytest.mark.parametrize(
  ("experiment", "key", "text", "error"),
  [
    (VAE, "model.latents", "2**62", ConfigError),  # as text
    (VAE, "model.latents", str(2**62), ConfigError),
    (VAE, "training.best", "losss", ConfigError),
    ("experiments/autoencoder/documents_kjv.py", "task.of", "", ConfigError),
  ],
)
def test_what_cannot_be_traced_is_said_in_a_line(experiment, key, text, error):
  from training import run

  with pytest.raises(error) as refused:
    run.check(
      build.build(config.override(config.load(f"{experiment}:smoke"), [(key, text)])), Machines()
    )
  assert is_one_line(str(refused.value))
  if key == "training.best":
    assert mutating.suggested(str(refused.value)) == ["loss"]


def test_memory_that_tracing_asks_for_is_said_in_a_line():
  stage = build.build(config.load(f"{VAE}:smoke")).stages[0]
  with pytest.raises(ResourceError, match="8 TiB"), build.tracing(stage):
    raise MemoryError("Unable to allocate 8 TiB")
  said = r"models\.vae\.gaussian, tasks\.elbo, data\.digits do not go together: TypeError"
  with pytest.raises(ConfigError, match=said), build.tracing(stage):
    jax.numpy.zeros((2, 3)) @ jax.numpy.zeros((2, 3))


@pytest.mark.parametrize("heads", [3, 5, 7, 1000])
def test_heads_that_do_not_divide_the_width_are_refused(heads):
  tree = mutating.plain(config.load("experiments/gpt/gpt1.py:smoke").to_dict())
  for block in (tree, *tree.get("stages", ())):
    if "model" in block:
      block["model"] |= {"features": 64, "heads": heads}
  with pytest.raises(ConfigError, match=f"do not divide into heads={heads}"):
    build.build(tree)


QUICK = (VAE, "experiments/autoencoder/deep_digits.py", "experiments/gan/mlp_digits.py")


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(8))
def test_what_a_config_admits_can_be_traced_or_is_refused_in_a_line(seed):
  kinds, checked = ("value", "boundary", "element"), 0
  for mutation in mutating.mutations(seed, 4000, kinds=kinds, variants=("smoke",)):
    number = mutation.value if isinstance(mutation.value, int) else 0
    slow = mutation.path.endswith("layers") and number > 100  # which Python unrolls
    if mutation.verdict == "invalid" or slow or not mutation.base.startswith(QUICK):
      continue
    with contextlib.suppress(UserError):
      for stage in build.build(mutation.made()).stages:
        initial.measured(stage)
        checked += 1
  assert checked > 10


# The command line.


def test_mistakes_on_the_command_line_end_in_a_line_and_2(cli, tmp_path):
  tried = 0
  for mutation in mutating.mutations(1000, 400):
    if not mutation.texts or mutation.verdict != "invalid":
      continue
    words = [f"--config.{key}={text}" for key, text in mutation.texts]
    workdir = tmp_path / "run"
    status, out, err = cli("train", f"--config={mutation.base}", f"--workdir={workdir}", *words)
    assert (status, out) == (2, ""), mutation
    assert is_one_line(err.rstrip("\n")), mutation
    assert not workdir.exists()
    tried += 1
  assert tried >= 40
  assert not (ROOT / mutating.CANARY).exists()


@pytest.mark.parametrize(
  "code",
  [
    f"__import__('os').system('touch {mutating.CANARY}')",
    f"open('{mutating.CANARY}', 'w')",
    f"!!python/object/apply:os.system ['touch {mutating.CANARY}']",
    "1 + 1",
    "{'_target_': 'os.system'}",
  ],
)
def test_code_on_the_command_line_stays_text(tmp_path, monkeypatch, code):
  found = config.override(config.load(f"{ROOT / VAE}:smoke"), [("init_from", code)])
  monkeypatch.chdir(tmp_path)
  if code.startswith("{"):
    with pytest.raises(ConfigError):
      build.build(found)
  else:
    assert build.build(found).run.init_from == code
  assert not list(tmp_path.iterdir())


TRAIN = ("train", f"--config={VAE}:smoke")


@pytest.mark.parametrize(
  ("words", "said"),
  [
    (
      ["evaluate", "--workdi=w"],
      "required: --workdir",
    ),  # which argparse would take for an abbreviation
    ([*TRAIN, "--workdir=w", "--allow-changed-confg"], "did you mean '--allow-changed-config'"),
    ([*TRAIN, "--workdir=w", "--confg.seed=3"], "did you mean '--config'"),
    (
      [*TRAIN, "--workdir=w", "--config.seed", "--config.data.path=x"],
      "--config.seed has no value",
    ),
    (["evaluate", "--workdir=w", "--weigths=best"], "did you mean '--weights'"),
    (["tran"], "train"),
    (["describe", f"--confi={VAE}:smoke"], "--config"),
  ],
)
def test_mistyped_options_are_answered_with_the_right_one(cli, words, said):
  status, out, err = cli(*words)
  assert (status, out) == (2, "")
  assert said in err.splitlines()[-1]


@pytest.mark.parametrize("argv", [["train", f"--config={VAE}:smoke"], ["sample"], ["probe"]])
def test_every_option_with_a_letter_wrong_is_answered(cli, argv):
  known = [word for word in _options(argv[0]) if word.startswith("--") and len(word) > 4]
  assert "--workdir" in known
  for word in known:
    typed = word[:-2] + word[-1] + word[-2] if word[-1] != word[-2] else word + "x"
    status, _, err = cli(*argv, "--workdir=w", f"{typed}=1")
    assert status == 2
    assert word in mutating.suggested(err), err


def _options(command: str) -> list[str]:
  args, _ = launch._parser()[0].parse_known_args([command, "--workdir=w", f"--config={VAE}"])
  return list(args.known)


# A run gone on with.


@pytest.fixture
def claimed(tmp_path):
  """Claims a directory for a config, as `train` does before its first step."""

  def claim(tree, **options):
    workdir = Workdir(tmp_path / "run")
    try:
      workdir.claim(build.build(tree).config, **options)
      return json.loads((workdir / "config.json").read_text())
    finally:
      workdir.close()

  return claim


def smoke(experiment=VAE, *assignments):
  return config.override(config.load(f"{experiment}:smoke"), assignments)


@pytest.mark.parametrize(
  ("experiment", "key", "text", "shown"),
  [
    (VAE, "task.beta", "2", "task.beta 1.0 -> 2.0"),
    (VAE, "seed", "1", "seed 0 -> 1"),
    (VAE, "optimizer.name", "sgd", "optimizer.name 'adam' -> 'sgd'"),
    (VAE, "training.mesh.data", "2", "training.mesh.data -1 -> 2"),
    (STACKED, "stages.1.training.steps", "7", "stages.1.training.steps 2 -> 7"),
    (STACKED, "stages.0.name", "first", "stages.0.name 'layer_0' -> 'first'"),
    (STACKED, "model.widths.0", "99", "stages.0.model.widths [100, 100, 100] -> [99, 100, 100]"),
  ],
)
def test_another_config_is_refused_with_the_difference(claimed, experiment, key, text, shown):
  before = claimed(smoke(experiment))
  with pytest.raises(ConfigError) as refused:
    claimed(smoke(experiment, (key, text)))
  assert shown in str(refused.value)
  assert "--allow-changed-config" in str(refused.value)
  assert is_one_line(str(refused.value))
  assert claimed(smoke(experiment)) == before  # which the refusal left
  assert claimed(smoke(experiment, (key, text)), changed=True) != before


def test_the_same_config_in_other_words_is_the_same(claimed):
  before = claimed(smoke())
  steps = before["training"]["steps"]
  assert claimed(smoke(VAE, ("training.steps", f"{steps}.0"), ("task.beta", "1"))) == before


def test_another_list_of_stages_is_refused(claimed):
  tree = mutating.plain(config.load(f"{STACKED}:smoke").to_dict())
  claimed(tree)
  tree["stages"].pop()
  with pytest.raises(ConfigError, match=r"stages\.3\.name 'supervised' -> nothing.* and \d+ more"):
    claimed(tree)


@pytest.mark.parametrize("key", ["training.ema_decay", "task.free_bits", "seed", "init_from"])
def test_a_run_from_before_a_setting_goes_on_where_it_has_its_default(claimed, tmp_path, key):
  whole = claimed(smoke())
  older = json.loads(json.dumps(whole))
  *blocks, name = key.split(".")
  del (older[blocks[0]] if blocks else older)[name]
  file = tmp_path / "run" / "config.json"
  file.write_text(json.dumps(older))
  assert claimed(smoke()) == whole
  file.write_text(json.dumps(older))
  other = {"init_from": "elsewhere"}.get(key, "0.5" if blocks else "3")
  with pytest.raises(ConfigError, match=f"{key} .* -> "):
    claimed(smoke(VAE, (key, other)))


def test_a_run_with_a_setting_that_no_longer_is_is_refused(claimed, tmp_path):
  whole = claimed(smoke())
  whole["training"]["patience"] = 3
  (tmp_path / "run" / "config.json").write_text(json.dumps(whole))
  with pytest.raises(ConfigError, match="patience 3 -> nothing"):
    claimed(smoke())


@pytest.mark.parametrize(
  ("was", "now"),
  [
    (1, 1.0),
    (True, 1),
    (0, False),
    ([1, 2], [1.0, 2]),
    ([True], [1]),
    (None, 0),
    ("1", 1),
    ([], {}),
  ],
)
def test_another_type_is_a_difference(was, now):
  assert differences(flat({"a": {"b": was}}), flat({"a": {"b": now}}))
  assert not differences(flat({"a": {"b": was}}), flat({"a": {"b": was}}))


def test_a_changed_config_is_taken_where_that_is_asked_for(cli, tmp_path):
  words = [*TRAIN, f"--workdir={tmp_path}", "--config.training.mesh.data=1"]
  assert cli(*words)[0] == 0
  status, _, err = cli(*words, "--config.task.beta=2")
  assert (status, "task.beta 1.0 -> 2.0" in err) == (2, True)
  assert json.loads((tmp_path / "config.json").read_text())["task"]["beta"] == 1.0
  assert cli(*words, "--config.task.beta=2", "--allow-changed-config")[0] == 0
  assert json.loads((tmp_path / "config.json").read_text())["task"]["beta"] == 2.0


# The config.json of a run, as evaluate, sample and report read it.

WHOLE = json.dumps({**build.build(config.load(str(ROOT / VAE) + ":smoke")).config}).encode()
DAMAGED = {
  "cut": WHOLE[:300],
  "empty": b"",
  "not_utf8": b'{"seed": "\xff\xfe"}',
  "utf16": WHOLE.decode().encode("utf-16"),
  "list": b"[]",
  "number": b"3",
  "null": b"null",
  "no_blocks": b"{}",
  "nan": WHOLE.replace(b'"beta": 1.0', b'"beta": NaN'),
  "infinite": WHOLE.replace(b'"beta": 1.0', b'"beta": 1e999'),
  "digits": WHOLE.replace(b'"seed": 0', b'"seed": ' + b"1" * 5000),
  "large_int": WHOLE.replace(b'"seed": 0', b'"seed": ' + b"1" * 4000),
  "deep": b"[" * 200_000,
  "deep_object": b'{"a":' * 100_000,
  "nested": WHOLE.replace(b'"seed": 0', b'"seed": ' + b"[" * 900 + b"]" * 900),
  "ten_megabytes": WHOLE.replace(b'"seed": 0', b'"seed": "' + b"x" * 10**7 + b'"'),
  "many_keys": b"{" + b",".join(b'"k%d":1' % i for i in range(10**5)) + b"}",
  "code": WHOLE.replace(b'"vae.gaussian"', b"\"__import__('os').system('touch config_canary')\""),
  "target": WHOLE.replace(b'"model": {', b'"model": {"_target_": "os.system", '),
  "path": WHOLE.replace(b'"vae.gaussian"', b'"../../x"'),
  "typo": WHOLE.replace(b'"hidden"', b'"hiden"'),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_config_of_a_run_ends_in_a_line_and_2(cli, tmp_path, damage):
  assert DAMAGED[damage] != WHOLE
  (tmp_path / "config.json").write_bytes(DAMAGED[damage])
  _started.clear()
  for command in ("evaluate", "sample", "report"):
    status, out, err = cli(command, f"--workdir={tmp_path}")
    assert (status, out) == (2, ""), err
    assert is_one_line(err.rstrip("\n"))
  assert not _started
  assert not (ROOT / mutating.CANARY).exists()
  assert not pathlib.Path(tmp_path, mutating.CANARY).exists()


def test_a_damaged_config_is_not_overwritten_by_going_on(claimed, tmp_path):
  claimed(smoke())
  file = tmp_path / "run" / "config.json"
  file.write_bytes(WHOLE[:300])
  with pytest.raises(ConfigError):
    claimed(smoke())
  assert file.read_bytes() == WHOLE[:300]
