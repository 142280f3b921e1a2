"""The report of a sweep: who is best, what the figures draw, what the page and the table hold."""

import csv
import math
import re

import numpy as np
import pytest
from looking import Page, clear_border, opened
from matplotlib.colors import to_rgb

from report import parallel_coordinates, sweep, sweep_figures, wording
from report.trials import Trial, counts, over_seeds, ranked, varied


def _trial(number=0, value=None, state="done", *, overrides=None, **changes) -> Trial:
  """A trial that learned towards its value, in four evaluations."""
  curve = [] if value is None else [(step, value + 1 / step) for step in (1, 2, 3)] + [(4, value)]
  fields = dict(
    id=number,
    overrides={"task.beta": float(number)} if overrides is None else overrides,
    state=state,
    value=value,
    best=value,
    step=4,
    seconds=61.5,
    error="",
    curve=curve,
    metrics={},
  )
  return Trial(**fields | changes)


def _sweep() -> list[Trial]:
  """Twelve trials over four settings with two seeds; the third fails, the fourth is pruned."""
  trials = []
  for number in range(12):
    overrides = {
      "optimizer.learning_rate": 10 ** (-4 + number / 4),
      "model.latents": 2 + number % 5,
      "optimizer.schedule": ("cosine", "constant")[number % 2],
      "seed": number // 6,
      "training.steps": 4,
    }
    trial = _trial(number, 20.0 + (number - 6) ** 2, overrides=overrides)
    metrics = {"validation/loss": trial.value, "test/loss": trial.value + 0.125}
    trials.append(trial._replace(metrics=metrics))
  error = "Traceback:\n  somewhere\nXlaRuntimeError: out of memory\n"
  trials[2] = trials[2]._replace(state="failed", value=None, error=error, metrics={})
  trials[3] = trials[3]._replace(state="pruned", step=2, curve=trials[3].curve[:2], metrics={})
  return trials


def _write(folder, trials, **changes):
  settings = dict(
    title="vae/digits: sweep",
    metric="loss",
    direction="least",
    importances={"optimizer.learning_rate": 0.75, "model.latents": 0.25},
    command="python launch.py sweep --config=a.py --workdir=runs/a",
    environment={"versions": {"jax": "0.10.2"}},
    split="validation",
  )
  return sweep.write(folder, trials=trials, **settings | changes)


# Order


@pytest.mark.parametrize(("direction", "best"), [("least", [1, 3, 2]), ("greatest", [2, 1, 3])])
def test_trials_rank_by_value_then_unfinished_then_failed(direction, best):
  trials = [
    _trial(0, state="failed"),
    _trial(1, 1.0),
    _trial(2, 5.0),
    _trial(3, 1.0),  # a tie
    _trial(4, math.nan),
    _trial(5),
    _trial(6, math.inf),
    _trial(7, 0.0, "running"),
    _trial(8, 9.0, "pruned"),
    _trial(9, state="pending"),
  ]
  order = [trial.id for trial in ranked(reversed(trials), direction)]
  assert order == [*best, 4, 5, 6, 8, 7, 9, 0]


def test_an_unknown_direction_is_refused():
  with pytest.raises(ValueError, match="'up'"):
    ranked([], "up")


def test_states_are_counted_in_words():
  assert counts(["pruned", *["done"] * 18, "failed"]) == "18 done, 1 failed, 1 pruned of 20"


def test_what_varies_is_told_from_what_does_not():
  trials = [_trial(overrides=x) for x in ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "c": None})]
  assert varied(trials) == ["b", "c"]
  assert varied(trials[:1]) == ["a", "b"]  # of a single trial nothing varies, and all is shown


def test_seeds_are_gathered_into_mean_and_deviation():
  settings = [(0.5, 0), (0.5, 1), (1.0, 0), (1.0, 1), (1.0, 2), (2.0, 0)]
  trials = [
    _trial(i, float(i), overrides={"task.beta": beta, "seed": seed})
    for i, (beta, seed) in enumerate(settings)
  ]
  trials[3] = trials[3]._replace(state="pruned")  # its value is of an earlier step than the others'
  trials[5] = trials[5]._replace(value=math.nan)
  groups = over_seeds(trials, "greatest")
  assert [group.overrides for group in groups] == [{"task.beta": b} for b in (1.0, 0.5, 2.0)]
  assert [(group.mean, group.count, group.total) for group in groups[:2]] == [
    (3, 2, 3),
    (0.5, 2, 2),
  ]
  assert groups[0].deviation == pytest.approx(math.sqrt(2))
  assert (groups[2].count, groups[2].deviation) == (0, None)


# Figures


def _lines(figure) -> dict[str, object]:
  return {line.get_gid(): line for axes in figure.axes for line in axes.lines if line.get_gid()}


def _parallel(trials, importances=(), **settings):
  settings = dict(metric="loss", direction="least") | settings
  return parallel_coordinates.draw(trials, importances=dict(importances), **settings)


def _labels(figure) -> dict[tuple[int, str], float]:
  """Height of every tick's label, by its axis and its text."""
  return {
    (text.xy[0], text.get_text()): text.xy[1]
    for text in figure.axes[0].texts
    if hasattr(text, "xy")
  }


def test_parallel_coordinates_lead_each_trial_through_its_settings_to_its_value():
  trials = _sweep()
  figure = _parallel(trials)
  lines = _lines(figure)
  assert set(lines) == {f"trial {trial.id}" for trial in trials}
  titles = [text.get_text() for text in figure.axes[0].texts if not hasattr(text, "xy")]
  assert titles == ["learning_rate", "latents", "schedule", "loss"]  # no seed, nothing constant
  values = [trial.value for trial in trials if trial.finite]
  for trial in trials:
    expected = [
      trial.id / 11,  # log-uniform over 562, so on a logarithmic axis
      (trial.overrides["model.latents"] - 2) / 4,
      0.75 if trial.overrides["optimizer.schedule"] == "cosine" else 0.25,
    ]
    heights = lines[f"trial {trial.id}"].get_ydata()
    np.testing.assert_allclose(heights[:3], expected, atol=1e-9)
    if trial.finite:
      share = (trial.value - min(values)) / (max(values) - min(values))
      assert heights[3] == pytest.approx(share)
  labels = _labels(figure)
  assert labels[0, "0.001"] == pytest.approx(4 / 11)
  assert labels[1, "6"] == 1
  assert labels[2, "cosine"] == 0.75
  assert lines["trial 2"].get_ydata()[3] == labels[3, "no value"] < 0
  assert clear_border(opened(figure))


@pytest.mark.parametrize("direction", ["least", "greatest"])
def test_the_best_line_is_dark_thick_and_over_the_others(direction):
  trials = _sweep()
  lines = _lines(_parallel(trials, direction=direction))
  order = [trial for trial in ranked(trials, direction) if trial.state == "done"]
  best, *others = [lines[f"trial {trial.id}"] for trial in order]
  assert all(best.get_zorder() > x.get_zorder() for x in others)
  assert all(best.get_linewidth() > x.get_linewidth() for x in others)
  # viridis is dark where it is low in green
  greens = [to_rgb(x.get_color())[1] for x in (best, *others)]
  assert greens == sorted(greens)
  dashed = [lines[f"trial {trial.id}"].is_dashed() for trial in trials]
  assert [number for number, is_dashed in enumerate(dashed) if is_dashed] == [2, 3]


def test_only_the_most_important_settings_have_an_axis():
  keys = [f"model.k{i}" for i in range(10)]
  trials = [_trial(n, float(n), overrides={key: n for key in keys} | {"seed": n}) for n in range(3)]
  importances = {key: i / 45 for i, key in enumerate(keys)}
  axes, left_out = parallel_coordinates.axes_of(trials, importances)
  assert axes == keys[2:]
  assert left_out == [*keys[:2], "seed"]
  assert clear_border(opened(_parallel(trials, importances)))
  seeds = [_trial(n, float(n), overrides={"seed": n}) for n in range(3)]
  assert parallel_coordinates.axes_of(seeds, {}) == (["seed"], [])


def test_a_value_far_out_does_not_flatten_the_others():
  trials = [_trial(n, -20.0 - n) for n in range(11)] + [_trial(11, -1e9)]
  figure = _parallel(trials, direction="greatest")
  lines, labels = _lines(figure), _labels(figure)
  heights = [lines[f"trial {n}"].get_ydata()[1] for n in range(12)]
  np.testing.assert_allclose(heights, [*np.linspace(1, 0, 11), 0], atol=1e-9)
  assert labels[1, "≤ -30"] == 0
  curves = sweep_figures.learning_curves(
    trials, metric="elbo", direction="greatest", split="validation"
  )
  low, high = curves.axes[0].get_ylim()
  assert -40 < low < -30
  assert -20 < high < 0


def test_a_setting_that_a_trial_leaves_alone_passes_below_its_axis():
  trials = [_trial(0, 1.0, overrides={"a": 1}), _trial(1, 2.0, overrides={"a": 2, "b": "x"})]
  figure = _parallel(trials)
  assert _lines(figure)["trial 0"].get_ydata()[1] == _labels(figure)[1, "default"] < 0


@pytest.mark.parametrize(
  "trials",
  [
    [],
    [_trial(0, 1.0)],
    [_trial(0, overrides={})],
    [_trial(n, 1.0) for n in range(3)],
    [_trial(n, state="pending") for n in range(3)],
    [_trial(n, math.nan) for n in range(2)],
    [_trial(n, 10.0**n, overrides={"k$_$" * 20: f"${n}" * 30}) for n in range(40)],
    [_trial(n, 1.0, overrides={"a": v}) for n, v in enumerate((True, None, [1], 2, math.inf))],
  ],
  ids=["none", "one", "no override", "equal", "pending", "nan", "long names", "kinds"],
)
def test_figures_of_unusual_sweeps_draw(trials):
  assert clear_border(opened(_parallel(trials)))
  settings = dict(metric="loss", direction="least", split="validation")
  assert clear_border(opened(sweep_figures.learning_curves(trials, **settings)))


def test_learning_curves_draw_every_trial_and_label_the_best():
  trials = _sweep()
  figure = sweep_figures.learning_curves(
    trials, metric="loss", direction="least", split="validation"
  )
  lines = _lines(figure)
  for trial in trials:
    steps, values = zip(*trial.curve, strict=True)
    assert tuple(lines[f"trial {trial.id}"].get_xdata()) == steps
    np.testing.assert_array_equal(lines[f"trial {trial.id}"].get_ydata(), values)
  assert tuple(np.ravel(lines["pruned 3"].get_data())) == trials[3].curve[-1]
  labels = [text.get_text() for text in figure.axes[0].texts]
  assert labels == ["#6  20", "#5  21", "#7  21", "#4  24", "#8  24"]
  # The labels stand in the order of the values and do not touch.
  heights = [text.get_position()[1] for text in figure.axes[0].texts]
  gaps = np.diff(sorted(heights))
  assert gaps.min() > 0.06
  assert min(heights) == heights[0]
  assert figure.axes[0].get_ylabel() == "validation loss"
  assert {text.get_text() for text in figure.axes[0].get_legend().get_texts()} == {
    "pruned",
    "failed",
  }
  assert clear_border(opened(figure))


def test_the_axis_of_learning_curves_is_logarithmic_only_where_that_helps():
  settings = dict(metric="loss", direction="least", split="validation")
  narrow = sweep_figures.learning_curves([_trial(n, 1.0 + n) for n in range(3)], **settings)
  wide = sweep_figures.learning_curves([_trial(n, 10.0**-n) for n in range(6)], **settings)
  scales = [figure.axes[0].get_yscale() for figure in (narrow, wide)]
  assert scales == ["linear", "log"]


def test_importances_are_bars_from_the_greatest_down():
  figure = sweep_figures.importances({"a.small": 0.1, "a.great": 0.7, "b": 0.2, "c": math.nan})
  (axes,) = figure.axes
  assert [label.get_text() for label in axes.get_yticklabels()] == ["a.great", "b", "a.small"]
  assert [bar.get_width() for bar in axes.patches] == [0.7, 0.2, 0.1]
  assert [text.get_text() for text in axes.texts] == ["0.70", "0.20", "0.10"]
  assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first at the top
  assert clear_border(opened(figure))
  assert clear_border(opened(sweep_figures.importances({})))


# Files


def test_results_read_back(tmp_path):
  trials = _sweep()
  trials[5] = trials[5]._replace(error='commas, "quotes"\nand lines')
  _write(tmp_path, trials)
  with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert list(rows[0]) == [
    *("id", "state", "value", "best", "step", "seconds"),
    *("optimizer.learning_rate", "model.latents", "optimizer.schedule", "seed"),
    *("validation/loss", "test/loss", "error"),
  ]
  assert [int(row["id"]) for row in rows] == [t.id for t in ranked(trials, "least")]
  for row in rows:
    trial = trials[int(row["id"])]
    assert float(row["optimizer.learning_rate"]) == trial.overrides["optimizer.learning_rate"]
    assert row["optimizer.schedule"] == trial.overrides["optimizer.schedule"]
    assert row["value"] == ("" if trial.value is None else str(trial.value))
    assert row["test/loss"] == (str(trial.metrics["test/loss"]) if trial.metrics else "")
    assert (row["state"], row["error"]) == (trial.state, trial.error)


def test_the_page_holds_every_trial_in_order(tmp_path):
  trials = _sweep()
  path = _write(tmp_path, trials)
  assert path == tmp_path / "report.html"
  text = path.read_text(encoding="utf-8")
  table = text[text.index('class="numbers ranking"') : text.index("Over seeds")]
  cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr")[2:]]
  rows = [row for row in cells if len(row) > 1]
  assert [int(row[1]) for row in rows] == [trial.id for trial in ranked(trials, "least")]
  assert [row[0] for row in rows] == [*map(str, range(1, 11)), "", ""]
  assert rows[0][1:] == [
    *("6", "20.000", "20.000", "20.125", "0.003162", "3", "cosine", "1", "4", "1 min 02 s", "done")
  ]
  assert rows[-1][-1] == "failed"
  assert "XlaRuntimeError: out of memory" in cells[-1][0]
  page = Page(text)
  for expected in (
    "10 done, 1 failed, 1 pruned of 12.",
    "Ranked by loss on the validation split at the end of training: the least is the best.",
    "Numbers on the test split are for information; nothing was chosen by them.",
    "training.steps 4 in every trial",
    "The seed, which was varied too, has no axis.",
    "Dotted: pruned,",
    "Optuna's fANOVA",
    "Trial 6 overrides:",
    "0.0031622776601683794",  # every digit, to be run again
    "python launch.py sweep --config=a.py --workdir=runs/a",
    "versions.jax",
  ):
    assert expected in page.text, expected
  assert "somewhere" not in page.text  # of a traceback the last line is enough
  assert len(page.having("img")) == 3
  names = sorted(entry.name for entry in (tmp_path / "figures").iterdir())
  assert names == ["importances.png", "learning_curves.png", "parallel_coordinates.png"]
  assert not list(tmp_path.rglob(".*"))


def test_the_page_shows_means_over_seeds(tmp_path):
  trials = [
    _trial(n, float(v), overrides={"task.beta": beta, "seed": n % 2})
    for n, (v, beta) in enumerate([(4, 0.5), (6, 0.5), (1, 2.0), (2, 2.0)])
  ]
  trials[3] = trials[3]._replace(state="failed", value=None)
  text = _write(tmp_path, trials).read_text(encoding="utf-8")
  table = text[text.index("Over seeds") : text.index("Best trial")]
  rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in table.split("<tr>")[2:]]
  assert rows == [
    ["1", "2", "1.0000", '<span class="faint">none</span>', "1 of 2"],
    ["2", "0.5", "5.0000", "1.4142", "2"],
  ]


@pytest.mark.parametrize(
  ("split", "metrics", "sentence"),
  [
    ("test", {"test/loss": 1.0}, "As the test split chooses"),
    ("validation", {"test/loss": 1.0}, "nothing was chosen by them"),
    ("validation", {"validation/loss": 1.0}, ""),
  ],
)
def test_the_page_says_what_the_test_split_was_used_for(tmp_path, split, metrics, sentence):
  path = _write(tmp_path, [_trial(n, 1.0, metrics=metrics) for n in range(2)], split=split)
  text = Page(path.read_text(encoding="utf-8")).text
  for possible in ("As the test split chooses", "nothing was chosen by them"):
    assert (possible in text) == (possible == sentence)


def test_hostile_text_stays_text_and_nothing_is_fetched(tmp_path):
  attack = "</td><script>alert('x')</script><img src=http://example.org/a.png onerror=\"b()\">"
  trials = [
    _trial(n, None, "failed", overrides={attack: attack * n}, error=f"\x1b[31m\n{attack}")
    for n in range(2)
  ] + [_trial(2, 1.0, overrides={attack: [attack]}, metrics={f"test/{attack}": 1.0})]
  named = dict(title=attack, metric=attack, command=attack, split=attack)
  path = _write(tmp_path, trials, environment={attack: attack}, importances={attack: 1.0}, **named)
  text = path.read_text(encoding="utf-8")
  page = Page(text)
  assert page.text.count(attack) >= 9
  assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
  assert [attack in image["alt"] for image in page.having("img")] == [False, True, False]
  for _, attributes in page.tags:
    assert not any(name.startswith("on") for name in attributes)
    for name in ("src", "href", "srcset"):
      assert attributes.get(name, "data:").startswith("data:")
  assert "default-src 'none'" in text
  style = text[text.index("<style>") : text.index("</style>")]
  assert "url(" not in style
  assert "@import" not in style
  with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
    assert attack in next(csv.reader(file))


def test_a_sweep_without_a_result_is_reported_too(tmp_path):
  text = _write(tmp_path, [_trial(n, state="pending") for n in range(2)], importances={})
  page = Page(text.read_text(encoding="utf-8"))
  assert "2 pending of 2." in page.text
  assert "No trial is done with a finite value yet." in page.text
  empty = Page(_write(tmp_path, [], importances={}).read_text(encoding="utf-8"))
  assert "There are no trials." in empty.text


def test_the_same_trials_give_the_same_files(tmp_path):
  trials = _sweep()
  for name, given in (("a", trials), ("b", trials[::-1])):
    _write(tmp_path / name, given)
  for file in ("results.csv", "figures/learning_curves.png"):
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


# Wording


@pytest.mark.parametrize(
  ("value", "written"),
  [
    (0.00031622776601, "0.0003162"),
    (3e-5, "3e-5"),
    (1e20, "1e20"),
    (12345.6, "12346"),
    (4.0, "4"),
    (-0.5, "-0.5"),
    (100000, "100000"),
    (True, "true"),
    (None, "null"),
    ([1, 2], "[1, 2]"),
    ("adam", "adam"),
    (math.nan, "nan"),
    (9999.96, "10000"),
  ],
)
def test_values_are_brief_and_legible(value, written):
  assert wording.brief(value) == written


def test_short_names_tell_keys_apart():
  keys = ["encoder.hidden", "decoder.hidden", "task.beta", "beta.hidden_size", "seed"]
  assert list(wording.short_names(keys).values()) == [
    "encoder.hidden",
    "decoder.hidden",
    "beta",
    "hidden_size",
    "seed",
  ]
  assert wording.short_names(["beta", "task.beta"]) == {"beta": "beta", "task.beta": "task.beta"}


@pytest.mark.parametrize(
  ("seconds", "written"),
  [
    (5.14, "5.1 s"),
    (15.4, "15 s"),
    (59.7, "1 min 00 s"),
    (185, "3 min 05 s"),
    (7380, "2 h 03 min"),
  ],
)
def test_durations_are_said_in_two_units(seconds, written):
  assert wording.duration(seconds) == written
