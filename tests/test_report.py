"""Figures that open, a report that stands alone, event files that read back."""

import base64
import concurrent.futures
import io
import json
import math
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from looking import Page, clear_border, opened
from PIL import Image

from report import figures, html, tensorboard
from tasks.views import Bars, Confusion, Images, Lines, Scatter

NAMES = tuple(str(digit) for digit in range(10))


def _images(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).random(shape)


# Figures


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("shape", [(1, 8, 8), (20, 8, 8, 1), (20, 64, 64, 3), (3, 28, 20)])
def test_image_grids_of_every_size_draw(rows, shape):
  view = Images({f"a longer label of row {i}": _images(*shape) for i in range(rows)}, "caption")
  array = opened(figures.draw(view))
  assert clear_border(array)


def test_every_image_pixel_is_shown_unchanged_and_equally_large():
  image = np.array([[0, 51], [102, 204]]) / 255
  array = opened(figures.draw(Images({"": image[None]}, "caption")))
  block = 90  # the largest whole multiple of two pixels that fits 180
  areas = {value: int((array == value).all(axis=-1).sum()) for value in (0, 51, 102, 204)}
  assert areas == dict.fromkeys(areas, block * block)


def test_pixels_that_are_not_numbers_are_red_and_others_are_clipped():
  images = np.array([[[np.nan, -0.5], [1.5, 0.0]]])
  array = opened(figures.draw(Images({"row": images}, "caption")))
  assert (array == (200, 16, 46)).all(axis=-1).sum() == 90 * 90


@pytest.mark.parametrize(
  ("images", "match"),
  [
    (np.zeros((4, 4)), "shape"),
    (np.zeros((2, 4, 4, 2)), "shape"),
    (np.zeros((0, 4, 4)), "shape"),
    (np.full((1, 4, 4), 255, np.uint8), r"\[0, 1\]"),
  ],
)
def test_images_of_a_wrong_kind_are_refused(images, match):
  with pytest.raises(ValueError, match=match):
    figures.draw(Images({"row": images}, "caption"))


def test_a_grid_without_rows_is_refused():
  with pytest.raises(ValueError, match="no rows"):
    figures.draw(Images({}, "caption"))


@pytest.mark.parametrize("classes", [None, 3, 10, 25])
@pytest.mark.parametrize("examples", [1, 2000])
def test_scatters_draw(classes, examples):
  generator = np.random.default_rng(0)
  points = generator.normal(size=(examples, 2))
  labels = None if classes is None else generator.integers(0, classes, examples)
  view = Scatter(points, labels, ("latent 1", "latent 2"), "caption")
  array = opened(figures.draw(view))
  assert clear_border(array)


def test_a_scatter_names_its_axes_and_classes_and_has_equal_aspect():
  view = Scatter(np.eye(2), np.array([0, 2]), ("$a", "b$"), "caption", ("$cat$", "dog", "emu"))
  figure = figures.draw(view)
  axes = figure.axes[0]
  assert (axes.get_xlabel(), axes.get_ylabel()) == ("$a", "b$")
  assert [text.get_text() for text in figure.legends[0].get_texts()] == ["$cat$", "dog", "emu"]
  assert axes.get_aspect() == 1
  opened(figure)


def test_a_scatter_with_points_that_are_not_numbers_or_without_points_draws():
  points = np.array([[np.nan, 0], [1, np.inf], [1, 1]])
  opened(figures.draw(Scatter(points, np.zeros(3), ("a", "b"), "caption")))
  opened(figures.draw(Scatter(np.zeros((0, 2)), np.zeros(0), ("a", "b"), "caption")))


def test_a_label_without_a_name_is_refused():
  with pytest.raises(ValueError, match="labels must lie in"):
    figures.draw(Scatter(np.zeros((1, 2)), np.array([3]), ("a", "b"), "caption", ("x", "y")))


@pytest.mark.parametrize("classes", [1, 2, 10, 26, 100])
def test_confusion_matrices_draw(classes):
  counts = np.random.default_rng(0).integers(0, 2000, (classes, classes))
  names = [f"a class called {i}" for i in range(classes)]
  array = opened(figures.draw(Confusion(counts, names, "caption")))
  assert clear_border(array)


def test_a_confusion_matrix_writes_its_counts_and_accuracy():
  counts = np.array([[8, 2, 0], [0, 10, 0], [0, 0, 0]])  # the third class has no example
  figure = figures.draw(Confusion(counts, ("a", "b", "c"), "caption"))
  written = [text.get_text() for text in figure.axes[0].texts]
  assert written == [str(count) for count in counts.flat]
  titles = [text.get_text() for text in figure.texts]
  assert {"true", "predicted", "accuracy 0.9 (18 of 20)"} == set(titles)
  shares = figure.axes[0].images[0].get_array()
  np.testing.assert_allclose(shares, [[0.8, 0.2, 0], [0, 1, 0], [0, 0, 0]])
  opened(figure)


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("length", [1, 2, 500])
def test_lines_draw(count, length):
  x = np.arange(length)
  rows = {f"line ${i}": np.sin(x + i) for i in range(count)}
  rows["line $0"] = np.where(x % 7 == 3, np.nan, rows["line $0"])
  assert clear_border(opened(figures.draw(Lines(x, rows, ("hour", "$ sold"), "caption"))))


def test_lines_that_cannot_be_drawn_are_refused():
  x = np.arange(3)
  with pytest.raises(ValueError, match="of shape"):
    figures.draw(Lines(x, {"a": np.zeros(4)}, ("x", "y"), ""))
  with pytest.raises(ValueError, match="told apart"):
    figures.draw(Lines(x, {str(i): x for i in range(8)}, ("x", "y"), ""))


@pytest.mark.parametrize("count", [1, 8, 40, 41, 512])
def test_bars_draw(count):
  values = {f"unit {i}": float(i % 5) for i in range(count)}
  assert clear_border(opened(figures.draw(Bars(values, ("unit", "nats"), "caption"))))


def test_bars_are_as_high_as_their_values_in_their_order():
  figure = figures.draw(Bars({"b": 2.0, "a": 0.5, "c": math.nan}, ("unit", "nats"), ""))
  (axes,) = figure.axes
  assert [patch.get_height() for patch in axes.patches] == [2.0, 0.5, 0.0]
  assert [text.get_text() for text in axes.get_xticklabels()] == ["b", "a", "c"]
  assert [text.get_text() for text in axes.texts] == ["nan"]


def test_an_unknown_view_is_refused():
  with pytest.raises(TypeError, match="dict"):
    figures.draw({})


def _rows() -> list[dict]:
  rows = []
  for step in range(10, 501, 10):
    stage = "warm-up" if step <= 200 else "adversarial"
    rows.append(
      {
        "step": step,
        "split": "train",
        "stage": stage,
        "learning_rate": 1e-3,
        "kl": float("nan") if step in (100, 110) else step / 100 - 2,
        "loss": 1000 * 0.98**step,
        "note": "not a number",
        "flag": True,
      }
    )
    if step % 100 == 0:
      rows.append({"step": step, "split": "validation", "stage": stage, "loss": 0.5, "kl": 1.0})
  rows.append({"step": 500, "split": "test", "loss": 0.4, "accuracy": 0.9})
  return rows


def test_curves_have_one_panel_a_metric_with_learning_rate_last():
  figure = figures.curves(_rows())
  panels = [axes for axes in figure.axes if axes.axison]
  titles = [axes.get_title(loc="left") for axes in panels]
  assert titles == ["loss", "kl", "accuracy", "learning_rate"]
  assert [axes.get_yscale() for axes in panels] == ["log", "linear", "linear", "linear"]
  legend = [text.get_text() for text in figure.legends[0].get_texts()]
  assert legend == ["train", "validation", "test", "not finite"]
  assert "warm-up, then adversarial from step 200" in figure.get_supxlabel()
  # Every panel marks the boundary, and draws no split that it has no value of.
  boundaries = [[line for line in axes.lines if line.get_linestyle() == "--"] for axes in panels]
  assert [len(lines) for lines in boundaries] == [1, 1, 1, 1]
  data = [len([x for x in axes.lines if x.get_linestyle() == "-"]) for axes in panels]
  assert data == [3, 2, 1, 1]
  assert len({line.get_color() for line in panels[0].lines if line.get_linestyle() == "-"}) == 3
  array = opened(figure)
  assert clear_border(array)


def test_values_that_are_not_finite_break_the_line_and_are_marked():
  figure = figures.curves(_rows())
  kl = figure.axes[1]
  line = kl.lines[0].get_ydata()
  assert np.isnan(line[9:11]).all()
  assert np.isfinite(np.delete(line, [9, 10])).all()
  (crosses,) = [x for x in kl.lines if x.get_marker() == "x"]
  assert list(crosses.get_xdata()) == [100, 110]


@pytest.mark.parametrize(
  "rows",
  [
    [],
    [{"step": 0, "split": "train"}],
    [{"step": 0, "split": "train", "loss": 1.0}],
    [{"step": 7, "split": "train", "loss": float("inf")}],
    [{"step": 1, "split": "held out", "loss": 0.0}, {"step": 2, "split": "train", "loss": -1.0}],
    [{"step": i, "split": "train", "stage": f"s{i}", f"m{i}": i} for i in range(20)],
  ],
  ids=["nothing", "no metric", "one point", "only inf", "odd split", "many metrics and stages"],
)
def test_curves_of_unusual_runs_draw(rows):
  opened(figures.curves(rows))


def test_the_last_of_several_values_for_a_step_counts():
  rows = [{"step": s, "split": "train", "loss": v} for s, v in [(1, 5.0), (2, 6.0), (2, 7.0)]]
  assert list(figures.curves(rows).axes[0].lines[0].get_ydata()) == [5, 7]


def test_a_long_name_is_cut_and_not_lost():
  name = "a_metric_whose_name_has_no_space_and_is_far_too_long/for_any_panel"
  figure = figures.curves([{"step": 1, "split": "train", name: 1.0}])
  assert figure.axes[0].get_title(loc="left").startswith("a_metric_whose_name")


def test_samples_over_time_are_in_order_and_few_enough_for_a_page():
  samples = {step: _images(30, 8, 8, 1) for step in range(5000, -1, -100)}
  figure = figures.samples_over_time(samples)
  labels = [text.get_text() for text in figure.texts]
  assert len(labels) == 20
  assert (labels[0], labels[-1]) == ("step 0", "step 5,000")
  assert labels == sorted(labels, key=lambda x: int(x[5:].replace(",", "")))
  opened(figure)


def test_saved_figures_are_whole_and_the_same_each_time(tmp_path):
  paths = [figures.save(figures.curves(_rows()), tmp_path / "new" / f"{name}.png") for name in "ab"]
  first, second = (path.read_bytes() for path in paths)
  assert first == second
  assert b"matplotlib" not in first.lower()
  with Image.open(paths[0]) as image:
    assert np.allclose(image.info["dpi"], 150, atol=0.1)
  assert sorted(path.name for path in paths[0].parent.iterdir()) == ["a.png", "b.png"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
  path = figures.save(figures.curves([]), tmp_path / "a.png")
  before = path.read_bytes()

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr("os.replace", fail)
  with pytest.raises(OSError, match="disk full"):
    figures.save(figures.curves(_rows()), path)
  assert path.read_bytes() == before
  assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_figures_drawn_in_threads_equal_those_drawn_alone():
  def work(_):
    return figures.pixels(figures.curves(_rows()))

  alone = work(0)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for array in pool.map(work, range(4)):
      np.testing.assert_array_equal(array, alone)


def test_drawing_needs_no_pyplot():
  code = (
    "import sys; from report import figures, html, tensorboard; figures.curves([]);"
    "assert 'matplotlib.pyplot' not in sys.modules; assert 'tensorboardX' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


# The report


CONFIG = {
  "seed": 0,
  "model": {"name": "vae.conv", "channels": [32, 64], "norm": None},
  "task": {"name": "vae.elbo", "beta": 4.0, "phases": [{"trains": "all"}]},
}
COMMAND = "python launch.py run experiments/vae/digits.py:small --workdir runs/a"


def _run(tmp_path, **files):
  """A run's folder with a config and the given files: objects as JSON, bytes and text as is."""
  for name, content in ({"config.json": CONFIG} | files).items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
      path.write_bytes(content)
    else:
      path.write_text(content if isinstance(content, str) else json.dumps(content))
  return tmp_path


def _complete(tmp_path):
  workdir = _run(
    tmp_path,
    **{
      "environment.json": {
        "command": COMMAND,
        "seed": 3,
        "commit": "0123456789abcdef+",
        "versions": {"jax": "0.10.2"},
      },
      "evaluation.json": {
        "step": 500,
        "weights": "average",
        "splits": {
          "validation": {"examples": 50, "loss": 1.5},
          "test": {"examples": 12345, "loss": 0.123456789, "kl": float("nan")},
        },
      },
      "figures/captions.json": {"curves": 'Losses, "as logged".', "samples_2": "Later."},
    },
  )
  for name in ("samples_10", "samples_2", "curves", "confusion"):
    figures.save(figures.curves([]), workdir / "figures" / f"{name}.png")
  return workdir


def test_a_report_holds_every_part_of_the_run(tmp_path):
  workdir = _complete(tmp_path)
  path = html.write(workdir, default_config=CONFIG)
  assert path == workdir / "report.html"
  page = Page(path.read_text(encoding="utf-8"))
  for expected in (
    "vae/digits (small)",
    "Model vae.conv, task vae.elbo; seed 3; commit 0123456789ab with changes; "
    "evaluated at step 500.",
    "0.12346",
    "12,345",
    "average",
    "nan (not finite)",
    "not measured",
    'Losses, "as logged".',
    "Nothing is changed from the default.",
    "task.phases[0].trains",
    "versions.jax",
    COMMAND,
  ):
    assert expected in page.text, expected
  assert "There are no" not in page.text
  assert not list(workdir.glob(".*.tmp"))


def test_a_report_stands_alone(tmp_path):
  workdir = _complete(tmp_path)
  text = html.write(workdir).read_text(encoding="utf-8")
  page = Page(text)
  assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
  for _, attributes in page.tags:
    assert not any(name.startswith("on") for name in attributes)
    for name in ("src", "href", "srcset", "poster", "action"):
      assert attributes.get(name, "data:").startswith("data:")
  style = text[text.index("<style>") : text.index("</style>")]
  assert "url(" not in style
  assert "@import" not in style
  images = page.having("img")
  embedded = [base64.b64decode(image["src"].partition(",")[2]) for image in images]
  order = ["curves", "confusion", "samples_2", "samples_10"]
  assert embedded == [(workdir / "figures" / f"{name}.png").read_bytes() for name in order]
  assert [image["alt"].partition(":")[0] for image in images] == [
    "Curves",
    "Confusion",
    "Samples 2",
    "Samples 10",
  ]
  # A figure of 750 x 180 pixels, drawn for 150 to the inch, at the 96 of a browser.
  assert (images[0]["width"], images[0]["height"]) == ("480", "115")


def test_hostile_text_stays_text(tmp_path):
  attack = "</pre><script>alert('x')</script><img src=http://example.org/a.png onerror=\"b()\">"
  workdir = _run(
    tmp_path,
    **{
      "config.json": {"a": attack, attack: 1, "model": {"name": attack}, "url": "https://a.b/c"},
      "environment.json": {"command": attack, "commit": attack, "seed": attack, attack: attack},
      "evaluation.json": {"step": attack, "weights": attack, "splits": {attack: {attack: attack}}},
      "figures/captions.json": {"x": attack, "<b>": attack},
    },
  )
  figures.save(figures.curves([]), workdir / "figures" / "x.png")
  figures.save(figures.curves([]), workdir / "figures" / "<b>.png")
  plain = Page(html.write(_run(tmp_path / "plain")).read_text(encoding="utf-8"))
  page = Page(html.write(workdir, default_config={attack: attack}).read_text(encoding="utf-8"))
  allowed = {tag for tag, _ in plain.tags} | {"img", "figure", "figcaption", "b", "pre", "span"}
  allowed |= {"table", "thead", "tbody", "tr", "td", "th", "ul", "li", "code", "wbr", "div"}
  assert {tag for tag, _ in page.tags} <= allowed
  assert all(image["src"].startswith("data:") for image in page.having("img"))
  assert {image["alt"] for image in page.having("img")} == {f"X: {attack}", f"<b>: {attack}"}
  assert not any("onerror" in attributes for _, attributes in page.tags)
  assert page.text.count(attack) >= 8


def test_missing_parts_are_stated(tmp_path):
  page = Page(html.write(_run(tmp_path)).read_text(encoding="utf-8"))
  for sentence in (
    "There are no evaluation numbers: evaluation.json was not written.",
    "There are no figures: the run wrote none into figures/.",
    "No default configuration was given",
    "The environment is not known: environment.json was not written.",
    "The command is not known: environment.json was not written.",
  ):
    assert sentence in page.text
  assert tmp_path.name in page.text  # in place of the experiment's name


def test_broken_parts_are_stated_and_cost_nothing_else(tmp_path):
  workdir = _run(
    tmp_path,
    **{
      "evaluation.json": '{"step": 5',
      "environment.json": [1],
      "figures/captions.json": "",
      "figures/torn.png": b"\x89PNG",
    },
  )
  figures.save(figures.curves([]), workdir / "figures" / "whole.png")
  page = Page(html.write(workdir).read_text(encoding="utf-8"))
  assert "evaluation.json could not be read" in page.text
  assert "environment.json holds list, not an object" in page.text
  assert "figures/captions.json could not be read" in page.text
  assert "torn.png could not be read" in page.text
  assert len(page.having("img")) == 1


def test_what_differs_from_the_default_is_listed_and_highlighted(tmp_path):
  default = {
    "seed": 0.0,  # the same number
    "model": {"name": "vae.conv", "channels": (32, 32), "norm": None},
    "task": {"name": "vae.elbo", "beta": 1.0, "phases": [{"trains": "all"}], "clip": "4.0"},
  }
  text = html.write(_run(tmp_path), default_config=default).read_text(encoding="utf-8")
  assert re.findall(r'<tr class="changed"><th>(.*?)</th><td>(.*?)</td><td>(.*?)</td>', text) == [
    ("model.<wbr>channels", "[32, 64]", "[32, 32]"),
    ("task.<wbr>beta", "4.0", "1.0"),
  ]
  listed = Page(text[text.index('<ul class="changes">') : text.index("</ul>")]).text.split("\n")
  assert [line for line in listed if line] == [
    "model.channels: [32, 32] → [32, 64]",
    "task.beta: 1.0 → 4.0",
    "task.clip: 4.0 → (absent)",
  ]


@pytest.mark.parametrize(
  ("default", "value", "changed"),
  [
    (1, 1.0, False),
    (1, True, True),
    (1, "1", True),
    ((1, 2), [1, 2], False),
    ([1], [1, 2], True),
    (None, "null", True),
    (float("nan"), float("nan"), False),
    ({}, {}, False),
    ({}, {"a": 1}, True),
  ],
)
def test_settings_differ_as_json_would(tmp_path, default, value, changed):
  workdir = _run(tmp_path, **{"config.json": {"x": value}})
  text = html.write(workdir, default_config={"x": default}).read_text(encoding="utf-8")
  assert ("Nothing is changed" not in text) == changed


def test_a_folder_that_is_no_run_is_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"config\.json"):
    html.write(tmp_path)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json could not be read"):
    html.write(tmp_path)
  assert not (tmp_path / "report.html").exists()


# TensorBoard


def _events(folder) -> list:
  """The events of one TensorBoard run in the order that TensorBoard reads them."""
  from tensorboardX.proto import event_pb2

  events = []
  for path in sorted(folder.glob("*tfevents*")):
    data = path.read_bytes()
    while data:
      # A record is its length, a checksum of that, the event, and a checksum of the event.
      (length,) = struct.unpack("<Q", data[:8])
      events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
      data = data[16 + length :]
  return events


def _shown(folder) -> dict[str, list[tuple[int, float]]]:
  """Tag to points as TensorBoard shows them.

  A session that starts hides its step and later, except the first session, which hides nothing.
  """
  from tensorboardX.proto import event_pb2

  points: dict[str, list[tuple[int, float]]] = {}
  sessions = 0
  for event in _events(folder):
    if event.session_log.status == event_pb2.SessionLog.START:
      sessions += 1
      for tag, known in points.items() if sessions > 1 else ():
        points[tag] = [point for point in known if point[0] < event.step]
    for value in event.summary.value:
      points.setdefault(value.tag, []).append((event.step, value.simple_value))
  return points


def test_scalars_read_back_by_split(tmp_path):
  events = tensorboard.Events(tmp_path)
  for step in (1, 2):
    values = {"loss": np.float32(step / 2), "discriminator/loss": step}
    events.scalars(step, "train", values)
  events.scalars(2, "validation", {"loss": 0.25})
  events.close()
  events.close()
  train = _shown(tmp_path / "tensorboard" / "train")
  assert train == {"loss": [(1, 0.5), (2, 1.0)], "discriminator/loss": [(1, 1.0), (2, 2.0)]}
  assert _shown(tmp_path / "tensorboard" / "validation") == {"loss": [(2, 0.25)]}
  with pytest.raises(ValueError, match="closed"):
    events.scalars(3, "train", {"loss": 0.0})


def test_a_resumed_run_shows_no_stale_point(tmp_path):
  crashed = tensorboard.Events(tmp_path)
  for step in (100, 200, 300):
    crashed.scalars(step, "train", {"loss": 1.0})
    crashed.scalars(step, "validation", {"loss": 1.0})
  crashed.close()
  folder = tmp_path / "tensorboard"
  (first,) = (folder / "train").glob("*tfevents*")
  with open(first, "ab") as file:
    file.write(first.read_bytes()[:30])  # a record torn by the kill
  # Restored from step 200, at once: the names of the files must differ within the same second.
  resumed = tensorboard.Events(tmp_path, purge_step=201)
  resumed.scalars(250, "train", {"loss": 2.0})
  resumed.close()
  assert _shown(folder / "train") == {"loss": [(100, 1), (200, 1), (250, 2)]}
  # Nothing was logged again for validation, and still its last point is gone.
  assert _shown(folder / "validation") == {"loss": [(100, 1), (200, 1)]}
  # Also for a reader that does not know of sessions.
  for split, steps in {"train": [100, 200, 250], "validation": [100, 200]}.items():
    assert [x.step for x in _events(folder / split) if x.HasField("summary")] == steps
  assert not list(folder.glob("*/.*"))


def test_a_new_session_hides_stale_points_from_a_viewer_that_is_open(tmp_path, monkeypatch):
  monkeypatch.setattr(tensorboard, "_remove_from", lambda *_: None)  # it has read them already
  for purge_step, steps in ((None, (1, 2, 3)), (2, (2,))):
    events = tensorboard.Events(tmp_path, purge_step=purge_step)
    for step in steps:
      events.scalars(step, "train", {"loss": 1.0})
    events.close()
  assert _shown(tmp_path / "tensorboard" / "train") == {"loss": [(1, 1.0), (2, 1.0)]}


def test_opening_again_without_a_purge_hides_nothing(tmp_path):
  for step in (1, 2):
    events = tensorboard.Events(tmp_path)
    events.scalars(step, "test", {"loss": 1.0})
    events.close()
  assert _shown(tmp_path / "tensorboard" / "test") == {"loss": [(1, 1.0), (2, 1.0)]}


def test_images_read_back(tmp_path):
  figure = figures.curves([])
  colours = np.array([[[1.2, 0, 0], [0, -0.2, 1]]])
  events = tensorboard.Events(tmp_path)
  events.image("figure", figure, 1)
  events.image("floats", colours, 2)
  events.image("bytes", np.array([[0, 255]], np.uint8), 3)
  with pytest.raises(ValueError, match="strange"):
    events.image("strange", np.zeros((2, 2, 2)), 4)
  events.close()
  read = {}
  for event in _events(tmp_path / "tensorboard" / "figures"):
    for value in event.summary.value:
      with Image.open(io.BytesIO(value.image.encoded_image_string)) as image:
        read[value.tag, event.step] = np.asarray(image)
  assert set(read) == {("figure", 1), ("floats", 2), ("bytes", 3)}
  np.testing.assert_array_equal(read["figure", 1], figures.pixels(figure))
  np.testing.assert_array_equal(read["floats", 2], [[[255, 0, 0], [0, 0, 255]]])
  np.testing.assert_array_equal(read["bytes", 3], [[[0] * 3, [255] * 3]])
