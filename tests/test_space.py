"""Sweeps as lists of overrides, and distributions to draw them from."""

import math
import random as stdlib_random
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies

from experiments.autoencoder import deep_digits
from experiments.vae import gaussian_digits
from sweeps.space import (
  chain,
  choice,
  concrete,
  distributions,
  grid,
  integers,
  log_uniform,
  product,
  random,
  subset,
  uniform,
  zipped,
)

LISTS = strategies.dictionaries(
  strategies.sampled_from("abcd").map("block.{}".format),
  strategies.lists(strategies.integers(0, 9), min_size=1, max_size=4, unique=True),
  max_size=3,
)
SPACE = {
  "optimizer.learning_rate": log_uniform(1e-4, 1e-1),
  "task.beta": uniform(0.25, 4),
  "model.latents": integers(2, 32, log=True),
  "model.activation": choice("relu", None, (1, 2)),
}


def test_a_grid_varies_its_first_key_slowest():
  assert grid({"a": (1, 2), "b": range(2)}) == [
    {"a": 1, "b": 0},
    {"a": 1, "b": 1},
    {"a": 2, "b": 0},
    {"a": 2, "b": 1},
  ]


@hypothesis.given(LISTS)
def test_a_grid_is_the_product_of_its_keys(lists):
  whole = grid(lists)
  assert whole == product(*(grid({key: values}) for key, values in lists.items()))
  assert len(whole) == math.prod(map(len, lists.values()))
  assert concrete(whole) == whole  # none is there twice
  assert all(list(trial) == list(lists) for trial in whole)


@hypothesis.given(LISTS, LISTS)
def test_a_product_pairs_every_trial_with_every_other(left, right):
  shared = left.keys() & right.keys()
  if shared:
    with pytest.raises(ValueError, match=f"'{min(shared)}' is set by two"):
      product(grid(left), grid(right))
  else:
    assert product(grid(left), grid(right)) == grid(left | right)


def test_values_walk_in_step():
  assert zipped({"a": (1, 2), "b": iter("xy")}) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
  with pytest.raises(ValueError, match="2 for 'a', 3 for 'b'"):
    zipped({"a": (1, 2), "b": (1, 2, 3)})


def test_a_chain_keeps_the_order_of_generators_too():
  assert chain(({"a": i} for i in (3, 1)), grid({"b": (2,)})) == [{"a": 3}, {"a": 1}, {"b": 2}]


@pytest.mark.parametrize("combine", [grid, zipped])
@pytest.mark.parametrize(
  ("values", "match"), [("adam", "a list"), (3, "a list"), ((), "no values")]
)
def test_what_is_no_list_of_values_is_refused(combine, values, match):
  with pytest.raises(ValueError, match=f"'a'.*{match}"):
    combine({"b": (1,), "a": values})


@hypothesis.given(strategies.integers(0, 200), strategies.integers(0, 5))
def test_a_smaller_subset_begins_a_larger_one(trials, seed):
  whole = grid({"a": range(20), "b": range(10)})
  largest = subset(whole, 200, seed)
  assert subset(whole, trials, seed) == largest[:trials]
  assert sorted(largest, key=str) == sorted(whole, key=str)


def test_subsets_differ_by_seed_and_are_no_larger_than_the_sweep():
  whole = grid({"a": range(50)})
  assert subset(whole, 10, seed=0) != subset(whole, 10, seed=1)
  with pytest.raises(ValueError, match="51 trials of a sweep that has 50"):
    subset(whole, 51, seed=0)


@hypothesis.given(strategies.integers(0, 30), strategies.integers(0, 2**40))
def test_a_shorter_random_sweep_begins_a_longer_one(trials, seed):
  longer = random(SPACE, 30, seed)
  assert random(SPACE, trials, seed) == longer[:trials]
  assert all(list(trial) == list(SPACE) for trial in longer)
  assert concrete(longer) == longer


def test_random_sweeps_differ_by_seed():
  assert random(SPACE, 3, seed=0) != random(SPACE, 3, seed=1)


@pytest.mark.parametrize(
  ("kind", "middle"),
  [
    (uniform(-2, 4), 1.0),
    (log_uniform(1e-4, 1e-2), 1e-3),
    (integers(1, 9), 5),
    (integers(1, 12, log=True), 2.5),  # the geometric mean of 0.5 and 12.5
  ],
  ids=repr,
)
def test_draws_stay_within_the_ends_and_half_are_below_the_middle(kind, middle):
  generator = stdlib_random.Random(0)
  draws = [kind.draw(generator) for _ in range(4000)]
  assert kind.low <= min(draws) <= max(draws) <= kind.high
  below = sum(draw < middle for draw in draws) + sum(draw == middle for draw in draws) / 2
  assert below / 4000 == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_reach_both_ends(log):
  draws = random({"a": integers(1, 3, log)}, 100)
  assert {trial["a"] for trial in draws} == {1, 2, 3}
  assert all(type(trial["a"]) is int for trial in draws)


def test_every_choice_is_drawn():
  draws = random({"a": choice("x", None, [1, 2])}, 50)
  assert all(value in [trial["a"] for trial in draws] for value in ("x", None, [1, 2]))


@pytest.mark.parametrize("kind", [*SPACE.values(), integers(0, 5)], ids=repr)
def test_a_distribution_prints_as_it_is_written(kind):
  assert eval(repr(kind)) == kind


@pytest.mark.parametrize(
  ("make", "arguments", "match"),
  [
    (uniform, (1.0, 1.0), r"uniform\(1.0, 1.0\): the low end"),
    (uniform, (0.0, math.inf), "finite"),
    (uniform, ("0", 1.0), "finite"),
    (uniform, (False, 1.0), "finite"),
    (log_uniform, (0.0, 1.0), "above 0"),
    (log_uniform, (1.0, 0.1), "low end is below"),
    (integers, (1.0, 3), "whole"),
    (integers, (4, 3), "low end is below"),
    (integers, (0, 3, True), "above 0"),
    (choice, (), "two values"),
    (choice, ([1, 2, 3],), "two values"),
    (choice, (1, 1.0), "twice"),
    (choice, ((1, 2), [1, 2]), "twice"),
    (choice, ("a", {1}), "JSON"),
  ],
)
def test_distributions_check_their_arguments(make, arguments, match):
  with pytest.raises(ValueError, match=match):
    make(*arguments)


def test_true_and_one_are_two_choices():
  assert choice(1, True).values == (1, True)


@pytest.mark.parametrize(
  ("space", "match"),
  [
    ({}, "a space is a dict"),
    ([], "a space is a dict"),
    ({"task.beta": 4.0}, "'task.beta' is 4.0"),
    ({3: uniform(0, 1)}, "not 3"),
    ({"task.": uniform(0, 1)}, "'task.'"),
  ],
)
def test_what_is_no_space_is_refused(space, match):
  with pytest.raises(ValueError, match=match):
    distributions(space)
  with pytest.raises(ValueError, match=match):
    random(space)


def test_equal_trials_run_once_in_the_order_they_came():
  sweep = ({"a": value, "b": 0} for value in (2, 1, 2.0, True, [1], (1,), 1))
  kept = [{"a": 2, "b": 0}, {"a": 1, "b": 0}, {"a": True, "b": 0}, {"a": [1], "b": 0}]
  assert concrete(sweep) == kept
  assert concrete([{"a": 1, "b": 2}, {"b": 2, "a": 1}]) == [{"a": 1, "b": 2}]


def test_a_concrete_trial_is_no_ones_else():
  trial = {"a": 1}
  concrete([trial])[0]["a"] = 2
  assert trial == {"a": 1}


@pytest.mark.parametrize(
  ("trial", "match"),
  [
    (("a", 1), r"trial 1 .* no dict"),
    ({1: 2}, "trial 1 .* not 1"),
    ({"": 2}, "trial 1 .* not ''"),
    ({"a..b": 2}, "trial 1 .* not 'a..b'"),
    ({"a": math.nan}, "'a' is nan"),
    ({"a": {1, 2}}, "set"),
    ({"a": [1, object()]}, "'a' is .*list"),
    ({"a": {2: 1}}, "'a' is .*dict"),
    ({"a": uniform(0, 1)}, r"uniform\(0, 1\) \(Real\)"),
  ],
)
def test_what_is_no_trial_is_refused_by_its_number(trial, match):
  with pytest.raises(ValueError, match=match):
    concrete([{"a": 1}, trial])


def test_experiments_say_which_trials_to_run():
  assert len(concrete(gaussian_digits.sweep())) == 8
  assert [t["task.beta"] for t in gaussian_digits.sweep_beta()] == [0.25, 0.5, 1.0, 2.0, 4.0]
  assert [t["model.code"] for t in deep_digits.sweep_code()] == [2, 4, 8, 16, 32]
  assert len(distributions(gaussian_digits.space())) == 3


def test_the_vocabulary_imports_nothing_but_the_standard_library():
  code = (
    "import sys; import sweeps.space; "
    "print([m for m in sys.modules if m.split('.')[0] in ('jax', 'numpy', 'optuna', 'training')])"
  )
  seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert seen.stdout.strip() == "[]"
