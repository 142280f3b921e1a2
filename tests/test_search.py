"""Searches propose well, stop what is hopeless, and go on from their ledger as if uninterrupted."""

import json
import math
import statistics
import warnings

import optuna
import pytest

from report.trials import Trial
from sweeps.search import Search, Settings, importances
from sweeps.space import choice, grid, integers, log_uniform, random, uniform
from training.errors import ConfigError, StorageError

PLANE = {"x": uniform(-5.0, 5.0), "y": uniform(-5.0, 5.0)}
MIXED = {
  "optimizer.learning_rate": log_uniform(1e-4, 1e-1),
  "model.latents": integers(2, 32, log=True),
  "model.dropout": uniform(0.0, 0.9),
  "model.widths": choice((64,), (128, 64), None),
  "task.exact": choice(1, True),
}
STEPS = range(10, 101, 10)
STORAGES = ("sqlite:///{}/study.db", "{}/study.journal")


@pytest.fixture(autouse=True)
def no_warnings():
  """Optuna's too, which pytest itself lets pass: a user would see them at every trial."""
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    yield


def past(number, overrides, state="done", value=None, curve=()):
  """A trial as a ledger gives it back, through JSON."""
  overrides, curve = json.loads(json.dumps([overrides, curve]))
  curve = [tuple(point) for point in curve]
  return Trial(number, overrides, state, value, value, 0, 0.0, "", curve, {})


def bowl(overrides):
  return (overrides["x"] - 1.7) ** 2 + (overrides["y"] + 2.3) ** 2


def badness(overrides):
  """A made-up loss over `MIXED`, least at a learning rate of 1e-2."""
  return abs(math.log10(overrides["optimizer.learning_rate"]) + 2) + overrides["model.dropout"]


def run(search, number, overrides, steps=STEPS):
  """Plays a training whose loss falls to `badness`, until the search stops it."""
  curve = []
  for step in steps:
    value = badness(overrides) + 1 / step
    search.report(number, step, value)
    curve.append((step, value))
    if search.should_stop(number):
      search.tell(number, None, "pruned")
      return past(number, overrides, "pruned", None, curve)
  search.tell(number, badness(overrides), "done")
  return past(number, overrides, "done", badness(overrides), curve)


def finished(search):
  return [
    (t.user_attrs["trial"], t.state.name, t.value if t.state.name == "COMPLETE" else None)
    for t in search.study.trials
  ]


# Proposing


def best_of(sampler, seed, trials=40):
  search = Search(PLANE, Settings(max_resource=1, sampler=sampler, seed=seed))
  values = []
  for _ in range(trials):
    number, overrides = search.ask()
    values.append(bowl(overrides))
    search.tell(number, values[-1], "done")
  return min(values)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_learning_from_trials_beats_drawing_at_random(sampler):
  learnt = statistics.median(best_of(sampler, seed) for seed in range(9))
  drawn = statistics.median(best_of("random", seed) for seed in range(9))
  assert learnt < drawn / 2


def test_the_greatest_is_sought_where_the_greatest_is_best():
  search = Search({"x": uniform(0.0, 1.0)}, Settings(max_resource=1, direction="greatest"))
  proposed = []
  for _ in range(40):
    number, overrides = search.ask()
    proposed.append(overrides["x"])
    search.tell(number, overrides["x"], "done")
  assert statistics.mean(proposed[-15:]) > 0.75


def test_points_of_a_sequence_fill_every_cell():
  search = Search(PLANE, Settings(max_resource=1, sampler="qmc"))
  asked = [search.ask() for _ in range(17)]
  # The first is drawn alone; sixteen Sobol points have one in each of sixteen columns and rows.
  for key in PLANE:
    assert sorted(int((o[key] + 5) / 10 * 16) for _, o in asked[1:]) == list(range(16))


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc", "random"])
def test_values_lie_in_the_space_and_are_plain(sampler):
  search = Search(MIXED, Settings(max_resource=1, sampler=sampler, startup=3))
  seen = []
  for expected in range(12):
    number, overrides = search.ask()
    assert number == expected
    assert list(overrides) == list(MIXED)
    assert json.loads(json.dumps(overrides))["model.latents"] == overrides["model.latents"]
    assert 1e-4 <= overrides["optimizer.learning_rate"] <= 1e-1
    assert type(overrides["model.latents"]) is int
    assert overrides["model.widths"] in ((64,), (128, 64), None)
    seen.append(overrides["task.exact"])
    search.tell(number, badness(overrides), "done")
  assert {type(value) for value in seen} == {int, bool}


def test_other_seeds_give_other_trials():
  asked = [Search(PLANE, Settings(max_resource=1, seed=seed)).ask() for seed in (0, 0, 1)]
  assert asked[0] == asked[1] != asked[2]


def test_trials_that_are_live_at_once_keep_apart():
  """About 1.9 on average; 0.9 if each were proposed without regard to the others."""
  distances = []
  for seed in range(5):
    search = Search(PLANE, Settings(max_resource=1, seed=seed))
    for _ in range(25):
      number, overrides = search.ask()
      search.tell(number, bowl(overrides), "done")
    points = [tuple(search.ask()[1].values()) for _ in range(10)]
    for point in points:
      distances.append(min(math.dist(point, other) for other in points if other != point))
  assert statistics.mean(distances) > 1.4


def test_cmaes_asks_for_two_numbers():
  space = {"x": uniform(0.0, 1.0), "kind": choice("a", "b")}
  with pytest.raises(ConfigError, match="the space has 1"):
    Search(space, Settings(max_resource=1, sampler="cmaes"))


# Stopping


@pytest.mark.parametrize("direction", ["least", "greatest"])
@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_a_bad_curve_is_stopped_and_the_best_never(pruner, direction):
  sign = 1 if direction == "least" else -1
  settings = Settings(100, report_every=10, pruner=pruner, direction=direction, startup=4)
  search = Search(PLANE, settings)
  for quality in (5, 4, 3, 2, 1):  # each better than all before
    number, _ = search.ask()
    for step in STEPS:
      search.report(number, step, sign * quality)
      assert not search.should_stop(number)
    search.tell(number, sign * quality, "done")
  number, _ = search.ask()
  search.report(number, 10, sign * 50)
  assert search.should_stop(number)


def test_hyperband_stops_some_but_not_the_best():
  search = Search(MIXED, Settings(100, report_every=10, sampler="random", pruner="hyperband"))
  trials = [run(search, *search.ask()) for _ in range(40)]
  states = [trial.state for trial in trials]
  assert 5 < states.count("pruned") < 35
  best = min(trials, key=lambda trial: badness(trial.overrides))
  assert best.state == "done"


def test_nothing_is_stopped_without_a_pruner_before_the_first_rung_or_at_the_end():
  for pruner in ("none", "median", "asha", "hyperband"):
    search = Search(PLANE, Settings(100, min_resource=20, pruner=pruner, startup=1))
    for quality in (0, 1, 2, 3, 99):
      number, _ = search.ask()
      assert not search.should_stop(number)
      search.report(number, 19, quality)
      assert not search.should_stop(number)
      search.report(number, 100, quality)
      assert not search.should_stop(number)
      search.tell(number, quality, "done")


@pytest.mark.parametrize(
  ("steps", "every", "rung"),
  [(27, 1, 1), (100, 1, 4), (6000, 1000, 1000), (6000, 100, 300), (5, 5, 5), (1, 1, 1)],
)
def test_the_first_rung_follows_from_the_training(steps, every, rung):
  settings = Settings(steps, report_every=every)
  assert settings.first_rung == rung
  for power in range(4):  # rungs at which to stop are reported at, none of them twice
    assert settings.first_rung * 3**power % every == 0
  assert settings.first_rung * 3**3 >= steps


def test_a_step_that_is_reported_again_changes_nothing():
  search = Search(PLANE, Settings(100, pruner="asha"))
  number, _ = search.ask()
  search.report(number, 5, 1.0)
  search.report(number, 5, 2.0)
  assert search.study.trials[0].intermediate_values == {5: 1.0}


@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("pruner", ["median", "asha", "hyperband"])
def test_what_is_not_finite_is_worst_and_harms_no_other(pruner, worst):
  search = Search(PLANE, Settings(100, report_every=10, pruner=pruner, startup=1))
  lost = []
  for _ in range(4):
    number, _ = search.ask()
    lost.append(number)
    search.report(number, 10, worst)
    assert search.should_stop(number)
  search.report(lost[3], 20, 9.0)
  search.tell(lost[3], 9.0, "done")  # as if it had recovered
  number, _ = search.ask()
  for step in STEPS:
    search.report(number, step, 3.0)
    assert not search.should_stop(number)
  search.tell(number, 3.0, "done")
  search.tell(lost[0], worst, "done")
  search.tell(lost[1], None, "failed")
  search.tell(lost[2], None, "pruned")
  assert [state for _, state, _ in finished(search)] == [
    "FAIL", "FAIL", "PRUNED", "COMPLETE", "COMPLETE"
  ]  # fmt: skip


def test_a_trial_ends_once_and_with_a_value():
  search = Search(PLANE, Settings(100))
  number, _ = search.ask()
  with pytest.raises(ValueError, match="trial 0 is done without a value"):
    search.tell(number, None, "done")
  search.tell(number, 1.0, "done")
  for late in (
    lambda: search.tell(number, 1.0, "done"),
    lambda: search.report(number, 5, 1.0),
    lambda: search.should_stop(7),
  ):
    with pytest.raises(ValueError, match=r"trial \d is not live"):
      late()


# Going on


@pytest.mark.parametrize("pruner", ["none", "median", "asha", "hyperband"])
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc", "random"])
def test_an_interrupted_search_goes_on_as_an_uninterrupted_one(sampler, pruner):
  settings = Settings(100, report_every=10, sampler=sampler, pruner=pruner, startup=4)
  whole = Search(MIXED, settings)
  trials = [run(whole, *whole.ask()) for _ in range(30)]
  again = Search(MIXED, settings)
  again.restore(trials[:17])
  assert finished(again) == finished(whole)[:17]
  later = [run(again, *again.ask()) for _ in range(13)]
  assert [json.dumps(t.overrides) for t in later] == [json.dumps(t.overrides) for t in trials[17:]]
  assert [t.state for t in later] == [t.state for t in trials[17:]]


@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_live_trials_go_on_where_they_stood(pruner):
  settings = Settings(100, report_every=10, pruner=pruner, startup=4)
  whole = Search(MIXED, settings)
  trials = [run(whole, *whole.ask()) for _ in range(12)]
  live = [whole.ask() for _ in range(3)]
  curves = [[(s, badness(o) + 1 / s) for s in STEPS[: 2 * i]] for i, (_, o) in enumerate(live)]
  for (number, _), curve in zip(live, curves, strict=True):
    for step, value in curve:
      whole.report(number, step, value)
      whole.should_stop(number)
  again = Search(MIXED, settings)
  states = ("pending", "running", "interrupted")
  again.restore(
    trials
    + [
      past(number, overrides, state, None, curve)
      for (number, overrides), state, curve in zip(live, states, curves, strict=True)
    ]
  )
  for search in (whole, again):
    number, overrides = search.ask()
    assert number == 15
    live_now = [*live, (number, overrides)]
    ended = [run(search, n, o) for n, o in live_now]
    if search is whole:
      expected = [(t.id, t.overrides, t.state) for t in ended]
  assert [(t.id, t.overrides, t.state) for t in ended] == expected
  assert finished(again) == finished(whole)


def test_a_ledger_knows_more_states_than_a_study():
  search = Search(PLANE, Settings(100))
  point = {"x": 0, "y": 1.0}
  search.restore(
    [
      past(0, point, "timeout"),
      past(1, point, "done", math.nan),
      past(2, point, "done", None),
      past(4, point, "done", 2.0),
    ]
  )
  assert [state for _, state, _ in finished(search)] == ["FAIL", "FAIL", "FAIL", "COMPLETE"]
  assert search.ask()[0] == 5


@pytest.mark.parametrize(
  ("overrides", "match"),
  [
    ({"x": 0.0, "y": 9.0}, r"trial 3 has y=9.0, outside uniform\(-5.0, 5.0\)"),
    ({"x": 0.0}, "trial 3 does not set y"),
    ({"x": 0.0, "y": 0.0, "z": 1}, "trial 3 sets z"),
    ({"x": "a", "y": 0.0}, "trial 3 has x='a'"),
    ({"x": True, "y": 0.0}, "trial 3 has x=True"),
  ],
)
def test_a_ledger_of_another_space_is_refused(overrides, match):
  with pytest.raises(ConfigError, match=match):
    Search(PLANE, Settings(100)).restore([past(3, overrides, "done", 1.0)])


# Storage


@pytest.mark.parametrize("place", STORAGES)
def test_a_storage_shows_what_the_ledger_says_and_nothing_twice(place, tmp_path):
  settings = Settings(100, report_every=10, pruner="asha", startup=3)
  storage = place.format(tmp_path)
  first = Search(MIXED, settings, storage=storage)
  ledger = [run(first, *first.ask()) for _ in range(6)]
  number, overrides = first.ask()
  first.report(number, 10, 1.0)
  ledger.append(past(number, overrides, "running", None, [(10, 1.0), (20, 0.9)]))
  first.ask()  # and a crash before the ledger hears of it
  before = finished(first)

  second = Search(MIXED, settings, storage=storage)
  second.restore(ledger)
  assert finished(second) == [*before[:6], (6, "RUNNING", None), (7, "FAIL", None)]
  assert second.study.trials[6].intermediate_values == {10: 1.0, 20: 0.9}
  second.tell(6, 0.5, "done")
  assert second.ask()[0] == 7

  watched = optuna.load_study(study_name="sweep", storage=second.study._storage)
  assert [t.state.name for t in watched.trials[6:]] == ["COMPLETE", "FAIL", "RUNNING"]


@pytest.mark.parametrize("place", STORAGES)
def test_an_empty_storage_receives_the_whole_ledger(place, tmp_path):
  settings = Settings(100, report_every=10, pruner="asha", startup=3)
  memory = Search(MIXED, settings)
  ledger = [run(memory, *memory.ask()) for _ in range(6)]
  stored = Search(MIXED, settings, storage=place.format(tmp_path))
  stored.restore(ledger)
  assert finished(stored) == finished(memory)
  assert stored.ask() == memory.ask()


def test_the_ledger_is_right_where_a_storage_says_otherwise(tmp_path):
  storage = STORAGES[1].format(tmp_path)
  first = Search(PLANE, Settings(100), storage=storage)
  number, overrides = first.ask()
  first.tell(number, 1.0, "done")
  second = Search(PLANE, Settings(100), storage=storage)
  second.restore([past(number, overrides, "running")])
  second.tell(number, 2.0, "done")  # live again, since the ledger never heard of an end
  third = Search(PLANE, Settings(100), storage=storage)
  third.restore([past(number, overrides, "done", 2.0)])
  assert finished(third) == [(0, "COMPLETE", 1.0), (0, "COMPLETE", 2.0)]
  fourth = Search(PLANE, Settings(100), storage=storage)
  fourth.restore([past(number, overrides, "done", 3.0)])
  assert finished(fourth)[2:] == [(0, "COMPLETE", 3.0)]


def test_a_study_of_another_search_is_refused(tmp_path):
  storage = STORAGES[0].format(tmp_path)
  Search(PLANE, Settings(100), storage=storage).ask()
  with pytest.raises(ConfigError, match="searches another space"):
    Search(MIXED, Settings(100), storage=storage)
  with pytest.raises(ConfigError, match="another than the greatest"):
    Search(PLANE, Settings(100, direction="greatest"), storage=storage)
  Search(MIXED, Settings(100), storage=storage, name="another").ask()


@pytest.mark.parametrize(
  ("storage", "error"),
  [
    ("study", ConfigError),
    ("sqlite:////nowhere/study.db", StorageError),
    ("/nowhere/study.journal", StorageError),
    ("nosuch://me:secret@host/study", StorageError),
  ],
)
def test_a_storage_that_does_not_open_is_one_line_without_a_password(storage, error):
  with pytest.raises(error) as caught:
    Search(PLANE, Settings(100), storage=storage)
  assert "secret" not in str(caught.value)
  assert "\n" not in str(caught.value)


# Importance


def test_the_key_that_matters_comes_first():
  trials = random(MIXED, 40)
  shares = importances(
    past(n, t, "done", 3 * abs(math.log10(t["optimizer.learning_rate"]) + 2) + t["model.dropout"])
    for n, t in enumerate(trials)
  )
  assert next(iter(shares)) == "optimizer.learning_rate"
  assert list(shares.values()) == sorted(shares.values(), reverse=True)
  assert sum(shares.values()) == pytest.approx(1)
  assert all(type(share) is float for share in shares.values())


def test_orders_of_magnitude_weigh_alike():
  """Uniform in 1e-5 to 1, hardly any draw would see that the rate matters below 0.1."""
  trials = grid({"rate": [10.0**-i for i in range(6)], "other": [0.0, 1.0, 2.0]})
  shares = importances(
    past(n, t, "done", float(t["rate"] < 5e-3) + 0.3 * t["other"]) for n, t in enumerate(trials)
  )
  assert list(shares) == ["rate", "other"]


def test_a_grid_of_lists_flags_and_absent_keys_has_importances():
  trials = grid({"widths": ([64], [32, 16], None), "flag": (True, False), "fixed": (1,)})
  trials = [dict(t, extra=1) if n % 2 else t for n, t in enumerate(trials)]
  values = [10.0 * (t["widths"] == [64]) + ("extra" in t) for t in trials]
  shares = importances(
    past(n, t, "done", v) for n, (t, v) in enumerate(zip(trials, values, strict=True))
  )
  assert next(iter(shares)) == "widths"
  assert shares.keys() == {"widths", "flag", "extra"}


def test_without_differences_there_are_no_importances():
  two = [past(0, {"a": 1}, "done", 1.0), past(1, {"a": 2}, "done", 2.0)]
  assert importances(two) == {"a": 1.0}
  assert importances([]) == {}
  assert importances(two[:1]) == {}
  assert importances([two[0], past(1, {"a": 2}, "done", 1.0)]) == {}
  assert importances([two[0], past(1, {"a": 1}, "done", 2.0)]) == {}
  assert importances([two[0], past(1, {"a": 2}, "done", math.nan)]) == {}
  assert importances([two[0], past(1, {"a": 2}, "pruned", 2.0)]) == {}
