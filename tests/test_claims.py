"""Claims: their statistics, their language, their verdicts, their records and tables."""

import ast
import dataclasses
import functools
import itertools
import json
import math
import pathlib
import re
import sys
import types

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reproduction import claims, records, statistics, tables
from reproduction.claims import Claim
from reproduction.relation import parse
from training import catalogue, config, initial
from training.build import build
from training.errors import ConfigError
from training.workdir import environment

EXPERIMENTS = [str(entry.path) for entry in catalogue.entries()]


# Statistics


def test_an_interval_is_students():
  values = [1.0, 2.0, 4.0, 9.0]
  found = statistics.interval(values)
  assert found.mean == 4.0
  assert found.deviation == pytest.approx(math.sqrt((9 + 4 + 0 + 25) / 3))
  low, high = scipy.stats.t.interval(0.95, 3, loc=4.0, scale=scipy.stats.sem(values))
  assert (found.low, found.high) == pytest.approx((low, high))
  assert found.count == 4


def test_sums_are_in_float64():
  values = np.array([2**24, *[1] * 999], np.float32)
  assert statistics.mean(values) == (2**24 + 999) / 1000
  found = statistics.interval([1e9 + 1, 1e9 + 2, 1e9 + 3])
  assert (found.mean, found.deviation) == (1e9 + 2, pytest.approx(1.0))


def test_one_value_leaves_the_mean_open_and_none_has_no_mean():
  found = statistics.interval([3.0])
  assert (found.mean, found.low, found.high) == (3.0, -math.inf, math.inf)
  assert math.isnan(found.deviation)
  with pytest.raises(ValueError, match="no values"):
    statistics.interval([])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_no_interval(bad):
  assert all(math.isnan(x) for x in statistics.interval([1.0, bad, 2.0])[:4])


def _coverage(samples: np.ndarray, kind: str) -> float:
  """How often the interval of a sample holds the true mean, 3."""
  intervals = [statistics.interval(row, kind) for row in samples]
  return float(np.mean([low < 3 < high for _, low, high, *_ in intervals]))


def test_intervals_cover_as_often_as_their_docstring_says():
  samples = np.random.default_rng(7).normal(3.0, 2.0, size=(4000, 5))
  assert _coverage(samples, "t") == pytest.approx(0.95, abs=0.015)
  # Too narrow for five values, which is why it is not the default.
  assert _coverage(samples[:1500], "bootstrap") == pytest.approx(0.842, abs=0.03)


def test_the_bootstrap_agrees_with_student_on_many_values_and_with_itself():
  values = np.random.default_rng(0).normal(size=400)
  student, bootstrap = statistics.interval(values), statistics.interval(values, "bootstrap")
  assert (bootstrap.low, bootstrap.high) == pytest.approx((student.low, student.high), abs=0.01)
  assert statistics.interval(values, "bootstrap") == bootstrap
  skewed = statistics.interval(np.exp(2 * values[:20]), "bootstrap")
  assert skewed.high - skewed.mean > 1.1 * (skewed.mean - skewed.low)


def test_pairing_finds_a_difference_that_two_samples_hide():
  seeds = np.array([10.0, 14.0, 8.0, 12.0, 16.0])
  better = seeds + np.array([0.9, 1.1, 1.0, 0.8, 1.2])
  found = statistics.interval(better - seeds)
  assert found.low > 0
  assert found.mean == pytest.approx(1.0)
  assert scipy.stats.ttest_ind(seeds, better).pvalue > 0.5


# The language of relations


def _differences(relation, **values):
  arrays = {k.replace("rival_", "rival."): np.array([float(v)]) for k, v in values.items()}
  return [float(c.difference(arrays)[0]) for c in parse(relation)]


@pytest.mark.parametrize(
  ("relation", "differences"),
  [
    ("squared < 0.75 * pca_squared", [2.0]),
    ("pca_squared > squared", [3.0]),
    ("squared > rival.squared + 0.5", [-2.5]),
    ("0.5 < squared < 2.5", [0.5, 1.5]),
    ("squared < 3 and -pca_squared < squared - 1 and squared > 0", [2.0, 4.0, 1.0]),
    ("abs(1 - pca_squared) < sqrt(16) / (squared + 1)", [-1.0]),
    ("log(squared) < 1e-1", [0.1]),
  ],
)
def test_a_comparison_is_the_difference_of_its_sides(relation, differences):
  found = _differences(relation, squared=1, pca_squared=4, rival_squared=3)
  assert found == pytest.approx(differences)


def test_an_empty_relation_asserts_nothing():
  assert parse("") == parse("  ") == ()


@pytest.mark.parametrize(
  ("relation", "said"),
  [
    ("elbo", "'elbo' is no comparison"),
    ("elbo >= 3", "only < and >"),
    ("elbo == 3", "only < and >"),
    ("elbo > 3 or elbo < 1", "is no comparison"),
    ("not elbo > 3", "is no comparison"),
    ("elbo > rival", "'rival' is neither"),
    ("elbo > rival.a.b", "'rival.a.b' is neither"),
    ("elbo > other.elbo", "'other.elbo' is neither"),
    ("elbo > exp(3)", "'exp(3)' is neither"),
    ("elbo > log(3, 2)", "'log(3, 2)' is neither"),
    ("elbo > abs(3, x=3)", "'abs(3, x=3)' is neither"),
    ("elbo > 2 ** 3", "'2 ** 3' is neither"),
    ("elbo > +3", "'+3' is neither"),
    ("elbo > True", "'True' is neither"),
    ("elbo > '3'", "is neither"),
    ("elbo > 3j", "is neither"),
    ("elbo > [3][0]", "is neither"),
    ("elbo > (lambda: 3)()", "is neither"),
    ("__import__('os').system('true') > elbo", "is neither"),
    ("1 < 2", "compares no metric"),
    ("0.9 < 0.95 < accuracy", "'0.9 < 0.95' compares no metric"),
    ("elbo >", "invalid syntax"),
    ("elbo > 3; elbo < 2", "invalid syntax"),
    ("elbo > 1" + "0" * 400, "too large"),
    ("elbo > \0", "null"),
    ("elbo > 3if 1 else 2", ""),
    ("elbo > " + "-" * 5000 + "1", ""),
    ("elbo > " + "(" * 5000 + "1" + ")" * 5000, ""),
  ],
)
def test_what_is_no_such_arithmetic_is_refused_in_one_line(relation, said):
  with pytest.raises(ConfigError) as caught:
    parse(relation)
  assert said in str(caught.value)
  assert "\n" not in str(caught.value)


_NUMBERS = st.floats(-100, 100, allow_nan=False).map(lambda x: f"{x!r}")
_EXPRESSIONS = st.recursive(
  st.one_of(_NUMBERS, st.sampled_from(["elbo", "kl", "rival.elbo"])),
  lambda inner: st.one_of(
    st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join),
    inner.map(lambda x: f"-({x})"),
    inner.map(lambda x: f"abs({x})"),
  ),
  max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(_EXPRESSIONS, _EXPRESSIONS, *[st.floats(-50, 50)] * 3)
def test_arithmetic_is_pythons(less, greater, elbo, kl, theirs):
  scope = {"elbo": elbo, "kl": kl, "rival": types.SimpleNamespace(elbo=theirs), "abs": abs}
  try:
    wanted = eval(f"({greater}) - ({less})", {}, scope)
  except ZeroDivisionError:
    assume(False)
  assume(any(name in less + greater for name in ("elbo", "kl")))
  with np.errstate(all="ignore"):
    (found,) = _differences(f"{less} < {greater}", elbo=elbo, kl=kl, rival_elbo=theirs)
    (flipped,) = _differences(f"{greater} > {less}", elbo=elbo, kl=kl, rival_elbo=theirs)
  assert found == pytest.approx(wanted, nan_ok=True)
  assert flipped == pytest.approx(wanted, nan_ok=True)


# Verdicts


def _claim(relation, **fields):
  return Claim(
    name="it", paper="Somebody 1900", metric="elbo", split="test", relation=relation, **fields
  )


def _runs(**settings):
  """Runs of settings of `beta`, each a list of elbos by seed; `plain` is the config as it is."""
  return {
    claims.key({} if name == "plain" else {"beta": int(name.removeprefix("b"))}): {
      seed: value if isinstance(value, dict) else {"elbo": value}
      for seed, value in enumerate(values)
    }
    for name, values in settings.items()
  }


BETAS = dict(settings=({"beta": 1},), rivals=({"beta": 1}, {"beta": 2}, {"beta": 4}))


def test_a_claim_passes_when_every_interval_lies_above_zero():
  runs = _runs(b1=[5, 6, 7], b2=[4, 4.9, 6.1], b4=[1, 2, 2.9])
  verdict = claims.judge(_claim("elbo > rival.elbo", seeds=3, **BETAS), runs)
  assert verdict.outcome == "PASS"
  (setting,) = verdict.settings
  assert setting.metrics["elbo"] == statistics.interval([5, 6, 7])
  assert setting.weakest.rival == {"beta": 2}
  assert setting.weakest.interval == statistics.interval(np.array([5, 6, 7]) - [4, 4.9, 6.1])
  assert [r.overrides for r in verdict.rivals] == [{"beta": 2}, {"beta": 4}]
  assert verdict.rivals[1].metrics["elbo"].mean == pytest.approx(5.9 / 3)
  assert verdict.why.startswith(
    "weakest: elbo > rival.elbo at beta=1 against beta=2: difference 1 "
  )


def test_one_rival_that_is_better_contradicts_the_claim():
  runs = _runs(b1=[5, 6, 7], b2=[6, 7.1, 8.1], b4=[1, 2, 2.9])
  verdict = claims.judge(_claim("elbo > rival.elbo", seeds=3, **BETAS), runs)
  assert verdict.outcome == "FAIL"
  assert verdict.why.startswith("contradicted: elbo > rival.elbo at beta=1 against beta=2")


@pytest.mark.parametrize("rival", [[4, 7, 5.5], [4.5, 8, 6.7]])
def test_a_difference_that_the_seeds_do_not_show_is_not_decided(rival):
  runs = _runs(b1=[5, 6, 7], b2=rival, b4=[1, 2, 2.9])
  verdict = claims.judge(_claim("elbo > rival.elbo", seeds=3, **BETAS), runs)
  assert verdict.outcome == "FAIL"
  assert verdict.why.startswith(
    "not decided by 3 seeds: elbo > rival.elbo at beta=1 against beta=2"
  )


def test_every_setting_and_every_comparison_must_hold():
  claim = _claim("2 < elbo < 6", seeds=3, settings=({"beta": 1}, {"beta": 2}))
  good, high = [4.0, 4.1, 4.2], [7.0, 7.1, 7.2]
  assert claims.judge(claim, _runs(b1=good, b2=good)).outcome == "PASS"
  verdict = claims.judge(claim, _runs(b1=good, b2=high))
  assert verdict.outcome == "FAIL"
  assert verdict.why.startswith("contradicted: elbo < 6 at beta=2")
  assert claims.judge(claim, _runs(b1=[x - 5 for x in good], b2=good)).why.startswith(
    "contradicted: 2 < elbo at beta=1"
  )


def test_rivals_are_compared_with_the_same_seed():
  shared = [10.0, 14.0, 8.0, 12.0]
  claim = _claim("elbo > rival.elbo", seeds=4, rivals=({"beta": 2},))
  better = [x + d for x, d in zip(shared, (0.9, 1.1, 1.0, 0.8), strict=True)]
  assert claims.judge(claim, _runs(plain=better, b2=shared)).outcome == "PASS"
  assert claims.judge(claim, _runs(plain=better, b2=shared[::-1])).outcome == "FAIL"


def test_one_seed_decides_nothing():
  claim = dataclasses.replace(_claim("elbo > 1"), seeds=1)
  verdict = claims.judge(claim, _runs(plain=[5.0]))
  assert verdict.outcome == "FAIL"
  assert verdict.why == "not decided by 1 seed: elbo > 1: difference 4"


def test_missing_runs_are_counted():
  claim = _claim("elbo > rival.elbo", seeds=3, **BETAS)
  verdict = claims.judge(claim, _runs(b1=[5, 6, 7], b2=[1, 2]))
  assert verdict == ("NOT RUN", "4 of 9 runs are missing", (), ())


def test_without_a_relation_a_claim_is_measured():
  verdict = claims.judge(_claim("", seeds=3), _runs(plain=[5, 6, 7, 1000]))
  assert verdict.outcome == "MEASURED"
  assert verdict.settings[0].metrics == {"elbo": statistics.interval([5, 6, 7])}


@pytest.mark.parametrize(
  ("relation", "values", "said"),
  [
    ("", [5, math.nan, 7], "elbo is not finite"),
    ("elbo > 1", [5, math.inf, 7], "elbo is not finite"),
    ("log(elbo) > -9", [5, 0, 7], "not finite with every seed: log(elbo) > -9"),
    ("1 / elbo > -9", [5, 0, 7], "not finite with every seed: 1 / elbo > -9"),
  ],
)
def test_what_is_not_finite_fails_with_its_reason(relation, values, said):
  verdict = claims.judge(_claim(relation, seeds=3), _runs(plain=values))
  assert verdict.outcome == "FAIL"
  assert said in verdict.why


def test_a_rival_that_diverged_fails_the_claim():
  runs = _runs(plain=[5, 6, 7], b2=[1, math.nan, 2])
  verdict = claims.judge(_claim("elbo > rival.elbo", seeds=3, rivals=({"beta": 2},)), runs)
  assert verdict.outcome == "FAIL"
  assert "not finite" in verdict.why
  assert "beta=2" in verdict.why


def test_a_metric_that_no_run_measured_is_named():
  with pytest.raises(ConfigError, match=r"reads 'elbos'.*did you mean 'elbo'"):
    claims.judge(_claim("elbos > 1", seeds=2), _runs(plain=[5, 6]))


def test_the_bootstrap_is_used_where_it_is_asked_for():
  runs = _runs(plain=[1.0, 2.0, 9.0])
  (setting,) = claims.judge(_claim("", seeds=3, interval="bootstrap"), runs).settings
  assert setting.metrics["elbo"] == statistics.interval([1.0, 2.0, 9.0], "bootstrap")


# CLAIMS


def _page(*listed, **functions):
  page = types.ModuleType("page")
  page.__file__ = "experiments/toy/page.py"
  vars(page).update(functions, CLAIMS=list(listed))
  return page


FIELDS = dict(name="it", paper="A 1900", metric="elbo", split="test", relation="")


def test_sweeps_stand_for_their_settings():
  page = _page(
    FIELDS | dict(settings=[{"b": 1.0}], rivals="sweep_b", relation="elbo > rival.elbo", seeds=3.0),
    FIELDS | dict(name="other", variants=("paper",)),
    sweep_b=lambda: ({"b": b} for b in (1, 2, 2.0)),
  )
  (claim,) = claims.read(page, "small")
  assert claim.settings == ({"b": 1.0},)
  assert claim.rivals == ({"b": 1}, {"b": 2})
  assert (claim.seeds, type(claim.seeds)) == (3, int)
  assert claims.needed(claim) == [{"b": 1.0}, {"b": 2}]
  assert [c.name for c in claims.read(page, "paper")] == ["it", "other"]
  assert claims.read(types.ModuleType("without"), "paper") == []


def test_the_key_of_overrides_is_their_values():
  assert claims.key({"a": 1.0, "b": (1, 2)}) == claims.key({"b": [1.0, 2], "a": 1})
  assert len({claims.key({"a": x}) for x in (1, True, "1", 1.5, None, [1])}) == 6


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    (dict(metrik="elbo"), "CLAIMS.0.metrik: reproduction.claims.Claim has no field 'metrik'; did you mean 'metric'?"),
    (dict(seeds="five"), "CLAIMS.0.seeds='five' is not int in [2"),
    (dict(seeds=1), "CLAIMS.0.seeds=1 is not int in [2"),
    (dict(split="train"), "CLAIMS.0.split='train' is not one of 'test', 'validation'"),
    (dict(relation="elbo >= 2"), "only < and >"),
    (dict(settings="sweep_c"), "CLAIMS.0.settings: there is no function sweep_c(); did you mean 'sweep_b'?"),
    (dict(settings=[{"b": {1, 2}}]), "CLAIMS.0.settings: trial 0"),
    (dict(settings=[{"seed": 3}]), "seed=3 sets the seed"),
    (dict(settings=[]), "CLAIMS.0.settings names no setting"),
    (dict(rivals=[{"b": 2}], relation="elbo > 1"), "CLAIMS.0.rivals speaks of rivals, CLAIMS.0.relation of none"),
    (dict(relation="elbo > rival.elbo"), "CLAIMS.0.relation speaks of rivals, CLAIMS.0.rivals of none"),
    (dict(relation="elbo > rival.elbo", rivals=[{}]), "is its own only rival"),
  ],
)  # fmt: skip
def test_a_claim_that_is_none_is_refused_in_one_line(fields, said):
  with pytest.raises(ConfigError) as caught:
    claims.read(_page(FIELDS | fields, sweep_b=lambda: [{"b": 1}]), "small")
  assert said in str(caught.value)
  assert "experiments/toy/page.py" in str(caught.value)
  assert "config." not in str(caught.value).split(";")[0]
  assert "\n" not in str(caught.value)


def test_a_measured_claim_shows_its_rivals_and_judges_nothing():
  page = _page(FIELDS | dict(rivals=[{"b": 2}], seeds=2))
  (claim,) = claims.read(page, "small")
  runs = {
    claims.key({}): {0: {"elbo": 1.0}, 1: {"elbo": 2.0}},
    claims.key({"b": 2}): {0: {"elbo": 5.0}, 1: {"elbo": 7.0}},
  }
  verdict = claims.judge(claim, runs)
  assert verdict.outcome == "MEASURED"
  (own,), (rival,) = verdict.settings, verdict.rivals
  assert own.metrics["elbo"].mean == 1.5
  assert rival.metrics["elbo"].mean == 6.0


def test_claims_of_one_name_and_claims_that_are_no_dicts_are_refused():
  with pytest.raises(ConfigError, match="two claims of one name"):
    claims.read(_page(FIELDS, FIELDS), "small")
  with pytest.raises(ConfigError, match=r"CLAIMS\.0 is 'it', not a dict"):
    claims.read(_page("it"), "small")
  missing = {k: v for k, v in FIELDS.items() if k != "metric"}
  with pytest.raises(ConfigError, match=r"CLAIMS\.0\.metric is missing"):
    claims.read(_page(missing), "small")


@functools.cache
def _scored() -> re.Pattern:
  """What a `score` may name, read off the code: to run it takes a trained model.

  Every text in the rooms that score, whatever it is for.
  """
  files = [*pathlib.Path("tasks").glob("*.py"), *pathlib.Path("evaluation").glob("*.py")]
  texts = set()
  for node in itertools.chain(*(ast.walk(ast.parse(f.read_text())) for f in files)):
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
      texts.add(node.value)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
      texts.add(node.target.id)  # a field of a named tuple of scores
    elif isinstance(node, ast.JoinedStr):  # f"active_units_{i}"
      parts = [re.escape(p.value) if isinstance(p, ast.Constant) else r"\w+" for p in node.values]
      if any(part != r"\w+" for part in parts):
        texts.add("".join(parts))
  return re.compile("|".join(texts))


@pytest.mark.parametrize("path", EXPERIMENTS)
def test_experiments_claim_what_they_measure(path):
  module = config.experiment(path)
  for variant in ("paper", "small"):
    found = claims.read(module, variant)
    assert found, f"{path} claims nothing for {variant}"
    stage = build(module.get_config(variant)).stages[-1]
    measured, scored = initial.measured(stage), _scored()
    for claim in found:
      read = {n.removeprefix("rival.") for c in parse(claim.relation) for n in c.names}
      for name in ({claim.metric} | read) - measured:
        assert scored.fullmatch(name), f"nothing measures {name}"
      assert set(claim.relation and [claim.metric]) <= read
      for overrides in claims.needed(claim):
        assignments = [(name, repr(value)) for name, value in overrides.items()]
        build(config.override(module.get_config(variant), assignments))


# Records and tables

EXPERIMENT = '''"""A toy: it plays.

Paper   none.
"""

from ml_collections import ConfigDict

CLAIMS = [
  dict(
    name="plays",
    statement="more is | better",
    paper="Somebody 1900, table 1",
    published="5 against 3",
    metric="elbo",
    split="test",
    relation="elbo > rival.elbo and elbo > floor",
    settings=[{"task.beta": 1.0}],
    rivals="sweep_beta",
    seeds=3,
  ),
  dict(name="kl", paper="none", metric="kl", split="validation", relation="", seeds=3, cost="much"),
]


def get_config(variant="paper"):
  return ConfigDict(dict(task=dict(beta=1.0), training=dict(steps={"paper": 9, "small": 3}[variant])))


def sweep_beta():
  return [{"task.beta": b} for b in (1, 2)]
'''


@pytest.fixture
def root(tmp_path, monkeypatch):
  # Files of one size, written within a second, are one file to Python's bytecode cache.
  monkeypatch.setattr(sys, "dont_write_bytecode", True)
  (tmp_path / "experiments/toy").mkdir(parents=True)
  (tmp_path / "docs").mkdir()
  (tmp_path / "experiments/toy/model_toy.py").write_text(EXPERIMENT)
  (tmp_path / "README.md").write_text(
    "# Toy\n\n<!-- results:begin -->\nold\n<!-- results:end -->\n\nEnd.\n"
  )
  return tmp_path


def _module(root):
  return config.experiment(str(root / "experiments/toy/model_toy.py"))


def _evaluations(seeds=3, **changed):
  """evaluation.json by setting and seed: beta 1 has an elbo of 5.0 and more, beta 2 of 3.0."""
  elbos = {1: 5.0, 2: 3.0}
  return {
    claims.key(overrides): {
      seed: {
        "step": 3,
        "conditions": {"binarisation": "fixed"},
        "splits": {
          "test": {
            "examples": 1450,
            "elbo": elbos[overrides["task.beta"] if overrides else 1] + 0.1 * seed**2,
            "floor": 1.0,
          },
          "validation": {"examples": 50, "kl": 0.5 + 0.001 * seed},
        },
      }
      for seed in range(seeds)
    }
    for overrides in ({"task.beta": 1}, {"task.beta": 2}, {})
  } | changed


def _record(root, evaluations=None, *, seeds=3):
  module = _module(root)
  return records.record(
    module,
    "small",
    [dataclasses.replace(claim, seeds=seeds) for claim in claims.read(module, "small")],
    _evaluations(seeds) if evaluations is None else evaluations,
    environment=environment(seed=0, command=["python", "launch.py", "reproduce"])
    | {"data": "0123456789abcdef"},
    seconds=12.34,
  )


def test_a_record_is_read_as_it_was_written(root):
  fresh = _record(root)
  path = records.write(root, fresh)
  assert path == root / "docs/results/toy/model_toy.small.json"
  (root / "docs/results/speed.json").write_text("{}")  # a benchmark's, which is no record
  found = records.all_records(root)
  assert list(found) == [("experiments/toy/model_toy.py", "small")]
  found = found["experiments/toy/model_toy.py", "small"]
  assert found == json.loads(json.dumps(fresh))
  assert found["seconds"] == 12.3
  assert {"commit", "versions", "devices", "cores", "host", "data", "date"} <= found.keys()
  plays, kl = found["claims"]
  assert plays["runs"][0]["mean"] == pytest.approx(5.0 + 0.5 / 3)
  assert plays["runs"][0]["seeds"][2] == {
    "seed": 2, "step": 3, "examples": 1450, "conditions": {"binarisation": "fixed"}, "metrics": {"elbo": 5.4, "floor": 1.0},
  }  # fmt: skip
  assert len(plays["runs"]) == 2
  assert kl["runs"][0]["seeds"][1]["metrics"] == {"kl": 0.501}
  assert (plays["outcome"], kl["outcome"]) == ("PASS", "MEASURED")
  for entry in (plays, kl):
    verdict = claims.judge(records.claim_of(entry), records.runs_of(entry))
    assert (verdict.outcome, verdict.why) == (entry["outcome"], entry["why"])


def test_a_record_without_runs_and_of_one_seed_is_json(root):
  for fresh in (_record(root, {}), _record(root, seeds=1)):
    text = records.write(root, fresh).read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
  assert [entry["outcome"] for entry in _record(root, {})["claims"]] == ["NOT RUN", "NOT RUN"]


def test_a_split_that_was_not_evaluated_is_named(root):
  evaluations = _evaluations()
  del evaluations["{}"][0]["splits"]["validation"]
  with pytest.raises(ConfigError, match="'kl' reads the validation split"):
    _record(root, evaluations)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}'])
def test_what_is_no_record_is_refused(root, text):
  path = root / "docs/results/toy/model_toy.small.json"
  path.parent.mkdir(parents=True)
  path.write_text(text)
  with pytest.raises(ConfigError, match="record of"):
    records.all_records(root)


def test_the_digest_follows_what_is_claimed_and_run(root):
  file = root / "experiments/toy/model_toy.py"
  before = records.digest(_module(root), "small")
  assert records.digest(_module(root), "paper") != before
  changes = {
    "beta=1.0)": "beta=1.5)",  # the config
    '"small": 3': '"small": 4',
    "elbo > floor": "elbo > 2 * floor",  # a claim
    "b in (1, 2)": "b in (1, 2, 4)",  # a sweep
    'metric="kl", split="validation"': 'metric="kl", split="test"',
  }
  for old, new in changes.items():
    assert EXPERIMENT.count(old) == 1
    file.write_text(EXPERIMENT.replace(old, new))
    assert records.digest(_module(root), "small") != before, f"{new} left the digest as it was"
  for old, new in {
    "it plays": "it works",
    "Somebody": "Nobody",
    '"paper": 9': '"paper": 7',
  }.items():
    assert old in EXPERIMENT
    file.write_text(EXPERIMENT.replace(old, new))
    assert records.digest(_module(root), "small") == before, f"{new} changed the digest"


def test_a_record_is_stale_once_its_experiment_has_changed(root):
  file, fresh = root / "experiments/toy/model_toy.py", _record(root)
  assert records.stale(fresh, root) == ""
  assert records.stale(_record(root, seeds=2), root) == "claim 'plays': 2 of 6 runs are missing"
  file.write_text(EXPERIMENT.replace("seeds=3,\n", "seeds=5,\n"))
  assert records.stale(fresh, root) == "claim 'plays': 4 of 10 runs are missing"
  file.write_text(EXPERIMENT.replace("seeds=3,\n", "seeds=2,\n"))
  assert records.stale(fresh, root) == ""
  file.write_text(EXPERIMENT.replace("(1, 2)", "(1, 4)"))
  assert "changed since" in records.stale(fresh, root)
  file.write_text(EXPERIMENT.replace('name="kl"', 'name="kl_of_q"'))
  assert "claim 'kl' is gone" in records.stale(fresh, root)
  file.write_text(
    EXPERIMENT.replace(
      "CLAIMS = [",
      "CLAIMS = [\n  dict(name='new', paper='', metric='kl', split='test', relation=''),",
    )
  )
  assert "claim 'new' is new" in records.stale(fresh, root)
  file.unlink()
  assert records.stale(fresh, root) == "experiments/toy/model_toy.py is gone"


def _tables(root):
  return [text for _, text in sorted(tables.regenerated(root).items())]


def test_the_tables_say_what_the_records_say(root):
  records.write(root, _record(root))
  readme, pages = _tables(root)
  half = statistics.interval([5.0, 5.1, 5.4])
  shown = tables.number(half)
  assert readme.startswith("# Toy\n\n<!-- results:begin -->\n| experiment | claim | ours")
  assert readme.endswith("<!-- results:end -->\n\nEnd.\n")
  assert "old" not in readme
  assert (
    "| `toy/model_toy` small | more is \\| better "
    f"| beta 1: {shown}, floor 1; against beta 2: {tables.number(half._replace(mean=half.mean - 2, low=half.low - 2, high=half.high - 2))} "
    "(elbo on test, 1,450 examples, binarisation fixed, 3 seeds) | 5 against 3 (Somebody 1900, table 1) | PASS |"
  ) in readme
  assert "MEASURED" not in readme
  assert "Measured and not judged, in [docs/results.md](docs/results.md): 1." in readme
  assert "Not run: the `paper` variant of all experiments." in readme
  assert ": MEASURED.**" in pages
  assert "**plays: PASS.** More is | better." in pages
  assert "`elbo > rival.elbo and elbo > floor`" in pages
  assert f"| `task.beta=1.0` | {shown} | 1 | 0.21 |" in pages
  assert "| rival `task.beta=2` |" in pages
  assert "`python launch.py reproduce`, commit" in pages
  assert "12 s of runs" in pages
  assert (
    "not run; it takes 6 runs: `python launch.py reproduce --config=experiments/toy/model_toy.py:paper`"
    in pages
  )
  assert "not run; it takes 3 runs:" in pages
  assert "(much)" in pages


def test_tables_are_written_once_and_stay(root):
  records.write(root, _record(root))
  tables.regenerate(root)
  assert {path: path.read_text() for path in tables.regenerated(root)} == tables.regenerated(root)
  assert (root / "docs/results.md").read_text().startswith("# Results\n")


def test_tables_trust_the_runs_and_not_the_verdict(root):
  fresh = _record(root)
  for run, entry in itertools.product(range(3), fresh["claims"][0]["runs"][:1]):
    entry["seeds"][run]["metrics"]["elbo"] -= 3
  assert fresh["claims"][0]["outcome"] == "PASS"
  records.write(root, fresh)
  readme, pages = _tables(root)
  assert "table 1) | FAIL |" in readme
  assert "contradicted: elbo > rival.elbo" in pages


def test_tables_withhold_the_verdict_of_a_stale_record(root):
  records.write(root, _record(root))
  file = root / "experiments/toy/model_toy.py"
  file.write_text(EXPERIMENT.replace('"small": 3', '"small": 4'))
  readme, pages = _tables(root)
  assert "PASS" not in readme
  assert "| stale: the config, the claims or their sweeps have changed since |" in readme
  # A corrected citation changes the table and asks for no new run.
  file.write_text(EXPERIMENT.replace("Somebody 1900", "Nobody 1901"))
  assert "5 against 3 (Nobody 1901, table 1) | PASS |" in _tables(root)[0]


def test_a_readme_without_a_place_for_the_results_is_refused(root):
  (root / "README.md").write_text("# Toy\n")
  with pytest.raises(ConfigError, match="no place for the results"):
    tables.regenerate(root)
  assert not (root / "docs/results.md").exists()


@pytest.mark.parametrize(
  ("mean", "half", "shown"),
  [
    (-23.2387, 0.0614, "-23.24 ± 0.06"),
    (0.98333, 0.00141, "0.9833 ± 0.0014"),
    (0.1634, 0.0248, "0.163 ± 0.025"),
    (1234.5, 96.0, "1234 ± 96"),
    (-251.08, 1.2, "-251.1 ± 1.2"),
    (3.40271, 0.0, "3.403"),
    (5.0, math.inf, "5"),
    (1.5e-9, 2e-10, "1.5e-09 ± 2e-10"),
  ],
)
def test_a_number_has_the_digits_that_its_interval_justifies(mean, half, shown):
  assert tables.number(statistics.Interval(mean, mean - half, mean + half, 1.0, 5)) == shown


def test_an_interval_that_leans_is_shown_by_its_ends():
  assert tables.number(statistics.Interval(1.0, 0.62, 2.18, 1.0, 5)) == "1.0 [0.6, 2.2]"


def test_a_verdict_reads_the_same_before_and_after_it_is_recorded():
  assert claims.label({"model.lora.targets": ()}) == claims.label({"model.lora.targets": []})


def test_the_records_of_this_repository_bear_their_tables_out():
  found = records.all_records()
  if not found:
    pytest.skip("no claim has been reproduced yet")
  for record in found.values():
    assert records.stale(record) == ""
    for entry in record["claims"]:
      verdict = claims.judge(records.claim_of(entry), records.runs_of(entry))
      assert (verdict.outcome, verdict.why) == (entry["outcome"], entry["why"])
  for path, text in tables.regenerated().items():
    assert path.read_text(encoding="utf-8") == text, f"{path} is not what the records say"


def test_the_catalogue_counts_what_is_asserted(root):
  (entry,) = catalogue.entries(root / "experiments")
  assert (entry.title, entry.claims) == ("A toy: it plays.", 1)
