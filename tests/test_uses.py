"""What autoencoders are for: finding anomalies, forecasting demand, retrieving documents."""

import importlib.util
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import close, created, gradients, shapes, size, torch_gradients

from data import bible, demand, digits, documents, images, series, source
from evaluation import forecast, pca, ranking, retrieval
from models.autoencoder import deep, lenet
from tasks import anomaly, reconstruction
from tasks import forecast as forecasting
from tasks import retrieval as retrieving
from tasks.objective import Examples

MNIST = (28, 28, 1)


def needs(package):
  here = importlib.util.find_spec(package) is not None
  return pytest.mark.skipif(not here, reason=f"needs `pip install --no-deps {package}`")


needs_bible = pytest.mark.skipif(
  shutil.which("bible") is None, reason="needs `apt-get install bible-kjv bible-kjv-text`"
)


@pytest.fixture(autouse=True)
def _fresh():
  """No test sees what another has loaded."""
  loaders = (series._load, demand._load, documents._load, bible.chapters)
  for load in loaders:
    load.cache_clear()
  yield
  for load in loaders:
    load.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
  """Writes a file of a Python package that hides an installed one of that name."""
  monkeypatch.syspath_prepend(str(tmp_path))

  def write(name, file, text):
    place = tmp_path / name / file
    place.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
    place.write_text(text)
    importlib.invalidate_caches()
    return place

  return write


# Ranking.


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_scikit_learns(ties):
  metrics = pytest.importorskip("sklearn.metrics")
  generator = np.random.default_rng(0)
  positive = generator.random(200) < 0.3
  score = generator.normal(size=200) + positive
  score = np.round(score) if ties else score
  assert ranking.auroc(score, positive) == pytest.approx(metrics.roc_auc_score(positive, score))


def test_auroc_of_known_rankings():
  positive = np.array([False, False, True, True])
  assert ranking.auroc(np.arange(4), positive) == 1
  assert ranking.auroc(-np.arange(4), positive) == 0
  assert ranking.auroc(np.zeros(4), positive) == 0.5
  assert ranking.auroc(np.array([0, 2, 1, 3]), positive) == 0.75


def test_auroc_refuses_what_has_no_area():
  with pytest.raises(ValueError, match="0 negatives"):
    ranking.auroc(np.arange(3), np.ones(3, bool))
  with pytest.raises(ValueError, match="not finite"):
    ranking.auroc(np.array([0, np.nan]), np.array([True, False]))


def test_roc_encloses_the_area():
  generator = np.random.default_rng(1)
  positive = generator.random(300) < 0.5
  score = np.round(generator.normal(size=300) + positive, 1)
  share = np.linspace(0, 1, 20_001)
  curve = ranking.roc(score, positive, share)
  assert np.trapezoid(curve, share) == pytest.approx(ranking.auroc(score, positive), abs=1e-3)
  assert (np.diff(curve) >= 0).all()
  assert curve[-1] == 1


# Forecasts.


def test_ridge_is_scikit_learns():
  linear = pytest.importorskip("sklearn.linear_model")
  generator = np.random.default_rng(0)
  x = generator.normal(size=(50, 4)) * [1, 5, 0.1, 2] + 3
  y = generator.normal(size=(50, 2))
  standard = (x - x.mean(0)) / x.std(0)
  theirs = linear.Ridge(alpha=0.3 * 50).fit(standard, y)
  np.testing.assert_allclose(forecast.ridge(x, y, 0.3)(x), theirs.predict(standard), rtol=1e-9)


def test_ridge_of_a_constant_feature_is_finite():
  x = np.stack([np.arange(9.0), np.ones(9)], 1)
  fitted = forecast.ridge(x, 2 * x[:, :1] + 1, 1e-12)
  np.testing.assert_allclose(fitted(x)[:, 0], 2 * x[:, 0] + 1, rtol=1e-6)


def test_the_penalty_never_sees_across_the_gap(monkeypatch):
  seen = []
  fit = forecast.ridge
  monkeypatch.setattr(forecast, "ridge", lambda x, y, p: seen.append(len(x)) or fit(x, y, p))
  generator = np.random.default_rng(0)
  forecast.chronological_ridge(generator.normal(size=(100, 3)), generator.normal(size=(100, 1)), 20)
  assert set(seen[:-1]) == {55}  # 75 before the last quarter, less the gap
  assert seen[-1] == 100
  with pytest.raises(ValueError, match="too few"):
    forecast.chronological_ridge(np.zeros((40, 3)), np.zeros((40, 1)), 30)


def test_the_penalty_is_large_where_there_is_nothing_to_learn():
  generator = np.random.default_rng(0)
  x, y = generator.normal(size=(80, 30)), generator.normal(size=(80, 1))
  noise = forecast.chronological_ridge(x, y, 5)
  signal = forecast.chronological_ridge(x, x[:, :1] * 3, 5)
  assert np.abs(noise.weights).max() < 0.1
  assert signal.weights[0, 0] == pytest.approx(3 * x[:, 0].std(), rel=1e-3)


def test_forecast_errors():
  actual, found = np.array([100.0, 200.0]), np.array([110.0, 180.0])
  assert forecast.mae(actual, found) == 15
  assert forecast.smape(actual, found) == pytest.approx(100 * (10 / 105 + 20 / 190) / 2)
  assert forecast.smape(actual, -actual) == 200
  assert forecast.smape(np.zeros(2), np.zeros(2)) == 0


# Retrieval.


def test_average_precision_is_scikit_learns():
  metrics = pytest.importorskip("sklearn.metrics")
  generator = np.random.default_rng(0)
  queries, codes = generator.normal(size=(7, 3)), generator.normal(size=(40, 3))
  asked, labels = generator.integers(0, 4, 7), generator.integers(0, 4, 40)
  relevant = retrieval.relevance(queries, codes, asked, labels)
  cosine = metrics.pairwise.cosine_similarity(queries, codes)
  theirs = [
    metrics.average_precision_score(labels == label, row)
    for label, row in zip(asked, cosine, strict=True)
  ]
  assert retrieval.average_precision(relevant) == pytest.approx(np.mean(theirs), rel=1e-9)
  assert retrieval.precision_at(relevant, 40) == pytest.approx(
    np.mean([(labels == label).mean() for label in asked])
  )


def test_a_query_without_a_relevant_document_is_left_out():
  codes = np.eye(3)
  relevant = retrieval.relevance(np.eye(3), codes, np.array([0, 1, 9]), np.array([0, 1, 1]))
  np.testing.assert_array_equal(relevant, [[True, False, False], [True, False, True]])


def test_precision_curve_by_hand():
  relevant = np.array([[True, False, True, False]])
  found = retrieval.precision_curve(relevant, np.array([0.1, 0.5, 0.51, 1.0]))
  np.testing.assert_allclose(found, [1, 1, 2 / 3, 2 / 3])


def test_tf_idf_and_lsi_are_scikit_learns():
  text = pytest.importorskip("sklearn.feature_extraction.text")
  generator = np.random.default_rng(0)
  train, test = generator.poisson(0.6, (30, 50)) * 1.0, generator.poisson(0.6, (9, 50)) * 1.0
  theirs = text.TfidfTransformer().fit(train)
  np.testing.assert_allclose(retrieval.tf_idf(test, train), theirs.transform(test).toarray())
  codes, asked = retrieval.latent_semantic_codes(train, test, 4)
  _, _, right = np.linalg.svd(train, full_matrices=False)
  for found, x in ((codes, train), (asked, test)):
    np.testing.assert_allclose(np.abs(found), np.abs(x @ right[:4].T), rtol=1e-6, atol=1e-9)


# One class of a labelled set.


def test_one_class_to_train_and_every_class_to_test():
  whole = digits.Source(validation=0)
  one = digits.Source(validation=20, normal=3)
  label = whole.split("train").arrays["label"]
  kept = [one.split(name).arrays for name in ("train", "validation")]
  assert [len(x["label"]) for x in kept] == [(label == 3).sum() - 20, 20]
  assert all((x["label"] == 3).all() for x in kept)
  np.testing.assert_array_equal(
    np.concatenate([x["image"] for x in kept]), whole.split("train").arrays["image"][label == 3]
  )
  for name, array in whole.split("test").arrays.items():
    np.testing.assert_array_equal(one.split("test").arrays[name], array)
  assert len({s.fingerprint() for s in (one, whole, digits.Source(validation=20, normal=4))}) == 3


def test_one_class_of_a_set_that_streams():
  class Stream(source.Arrays):
    def __init__(self, arrays):
      super().__init__(arrays)
      self.held, self.arrays = self.arrays, None

    def __len__(self):
      return len(self.held["label"])

    def take(self, rows):
      return {name: array[rows] for name, array in self.held.items()}

  class Streamed(digits.Source):
    def part(self, name):
      part = super().part(name)
      return part and Stream(part.arrays)

  memory, stream = (kind(validation=5, normal=7) for kind in (digits.Source, Streamed))
  assert stream.split("train").arrays is None
  assert memory.fingerprint() == stream.fingerprint()


def test_a_class_that_is_not_there():
  with pytest.raises(ValueError, match="there are 10 classes"):
    digits.Source(normal=10).split("train")
  assert images.ImageSource.__dataclass_fields__["normal"].default == -1


# Anomalies.


class Given:
  """A trained model whose reconstruction is given, to see what a task makes of it."""

  def __init__(self, reconstruct, codes=2):
    self.reconstruct, self.codes = reconstruct, codes

  def __call__(self, x, *, seed=0):
    flat = np.asarray(x).reshape(len(x), -1)
    return deep.Output(x, self.reconstruct(x), flat[:, : self.codes])


def normal_and_other(seed=0):
  generator = np.random.default_rng(seed)
  normal = generator.normal(0.5, 0.1, (40, 3, 3, 1)).astype(np.float32)
  other = generator.normal(0.9, 0.1, (20, 3, 3, 1)).astype(np.float32)
  train = Examples({"image": normal[:30], "label": np.full(30, 4)})
  label = np.r_[np.full(10, 4), generator.integers(5, 9, 20)]
  return train, Examples({"image": np.r_[normal[30:], other], "label": label})


def test_scores_are_of_the_whole_test_split_and_grow_with_abnormality():
  train, test = normal_and_other()
  task = anomaly.Task()
  np.testing.assert_array_equal(anomaly.anomalies(train, test), np.arange(30) >= 10)
  mean = train.arrays["image"].mean(0)
  found = task.score(Given(lambda x: np.broadcast_to(mean, x.shape)), train, test)
  assert set(found) == {"auroc", "pca_auroc", "centroid_auroc"}
  assert found["auroc"] == pytest.approx(found["centroid_auroc"], abs=1e-9)
  assert found["auroc"] > 0.95
  # What reconstructs everything but the normal class ranks it last.
  worst = task.score(
    Given(lambda x: np.where(x.mean((1, 2, 3), keepdims=True) > 0.7, x, x + 1)), train, test
  )
  assert worst["auroc"] < 0.05


def test_no_detector_sees_a_test_example_while_it_is_fitted():
  train, test = normal_and_other()
  half = Examples({k: v[:15] for k, v in test.arrays.items()})
  call = Given(lambda x: x * 0)
  whole, part = (anomaly.Task()._scores(call, train, e) for e in (test, half))
  for name, score in whole.items():
    np.testing.assert_allclose(score[:15], part[name], rtol=1e-6, err_msg=name)
  np.testing.assert_allclose(
    whole["pca_auroc"].mean(), pca.squared_error(train.arrays["image"], test.arrays["image"], 2)
  )


def test_anomaly_views():
  train, test = normal_and_other()
  views = anomaly.Task().views(Given(lambda x: x * 0.9), train, test)
  assert set(views) == {"roc", "extremes"}
  assert {len(row) for row in views["extremes"].rows.values()} == {12}
  flat = [Examples({"window": e.arrays["image"].reshape(-1, 9), **e.arrays}) for e in (train, test)]
  views = anomaly.Task(of="window").views(Given(lambda x: x * 0.9), *flat)
  assert np.isnan(views["error"].lines["of anomalies"]).sum() == 10


# Series.

BLEEDING = "datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_{}.csv"


def bleeding(package, points=1300, anomalous=(1250, 1253), change=None):
  value = 60 + 40 * np.abs(np.sin(np.arange(points) / 30))
  label = (np.arange(points) >= anomalous[0]) & (np.arange(points) < anomalous[1])
  value[label] += 100
  rows = [f"{i},{v:.5f},{int(a)}" for i, (v, a) in enumerate(zip(value, label, strict=True))]
  heading = "timestamp,value,is_anomaly"
  package("aeon", BLEEDING.format("TRAIN"), "\n".join([heading, *rows[:1200]]))
  if change:
    rows = change(rows)
  return package("aeon", BLEEDING.format("TEST"), "\n".join([heading, *rows]))


def test_series_of_hand_made_files(package):
  bleeding(package)
  found = series.Source(dataset="internal_bleeding", window=10, validation=50, test_stride=1)
  train, validation, test = (found.split(n).arrays for n in ("train", "validation", "test"))
  assert [len(x["label"]) for x in (train, validation, test)] == [1141, 41, 91]
  assert train["window"].dtype == np.float32
  assert [train["window"].min(), train["window"].max()] == pytest.approx([0, 1], abs=0.01)
  # The anomaly is beyond the range that scales it, and it is in the windows that touch it alone.
  assert test["window"].max() > 2
  np.testing.assert_array_equal(np.flatnonzero(test["label"]), np.arange(41, 53))
  strided = series.Source(dataset="internal_bleeding", window=10, test_stride=4)
  np.testing.assert_array_equal(strided.split("test").arrays["window"], test["window"][::4])
  # A window is in one split whole: the last of one ends where the next begins.
  assert len(strided.split("train").arrays["label"]) == 1191
  assert strided.fingerprint() != found.fingerprint()


def test_nothing_of_the_test_part_scales_the_training_part(package):
  bleeding(package)
  before = series.Source(dataset="internal_bleeding").split("train").arrays["window"]
  series._load.cache_clear()
  bleeding(package, change=lambda rows: [*rows[:1250], "1250,9999,1", *rows[1251:]])
  after = series.Source(dataset="internal_bleeding").split("train").arrays["window"]
  np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda rows: ["0,1,0", *rows[1:]], "does not begin with"),
    (lambda rows: [*rows[:-1], "9,oops,0"], "not a table"),
    (lambda rows: [*rows[:-1], "9,nan,0"], "finite"),
    (lambda rows: [*rows[:-1], "9,1,2"], "labels 0 or 1"),
    (lambda rows: rows[:1200], "more than 1200"),
  ],
)
def test_unsound_series_are_refused_by_name(package, change, message):
  file = bleeding(package, change=change)
  with pytest.raises(ValueError, match=message) as error:
    series.Source(dataset="internal_bleeding").split("train")
  assert file.name in str(error.value)


def test_an_anomaly_in_the_training_part_is_refused(package):
  bleeding(package, anomalous=(100, 103))
  with pytest.raises(ValueError, match="holds an anomaly"):
    series.Source(dataset="internal_bleeding").split("train")


@pytest.mark.parametrize(
  ("found", "package_name"),
  [
    (lambda: series.Source(dataset="internal_bleeding").split("train"), "aeon"),
    (lambda: series.Source(dataset="mitdb").split("train"), "sktime"),
    (lambda: demand.Source().split("train"), "pmdarima"),
  ],
)
def test_what_is_missing_says_how_to_get_it(monkeypatch, found, package_name):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(FileNotFoundError, match=f"pip install --no-deps {package_name}"):
    found()


@needs("aeon")
def test_the_archives_series():
  found = series.Source(dataset="internal_bleeding", window=64)
  train, test = (found.split(name).arrays for name in ("train", "test"))
  assert (len(train["label"]), len(test["label"])) == (1137, 6238)
  assert test["label"].sum() == 75  # 12 points, seen by windows of 64
  assert not train["label"].any()


@needs("sktime")
def test_the_ecg():
  found = series.Source(dataset="mitdb", window=64)
  assert len(found.split("train").arrays["label"]) == 4937
  assert found.split("test").arrays["label"].sum() == 415


# Demand.


def taylor(package, values):
  text = f"def load_taylor():\n  short = [1, 2]\n  return np.array({list(values)})\n"
  return package("pmdarima", "datasets/taylor.py", text)


def test_demand_of_a_hand_made_file(package):
  values = 1000 + np.arange(4032)
  taylor(package, values.tolist())
  found = demand.Source(window=4, horizon=6, validation=400)
  parts = {name: found.split(name).arrays for name in ("train", "validation", "test")}
  examples = {name: len(arrays["future"]) for name, arrays in parts.items()}
  assert examples == {"train": 2624 - 345, "validation": 400 - 345, "test": 1008 - 345}
  ends = {"train": (0, 2624), "validation": (2624, 3024), "test": (3024, 4032)}
  for name, arrays in parts.items():
    first, last = ends[name]
    # The oldest and the newest half hour of each part are the part's own: none crosses.
    assert arrays["past"].min() == values[first]
    assert arrays["future"].max() == values[last - 1]
    now = arrays["past"][:, 0, -1]
    np.testing.assert_array_equal(arrays["past"][:, 1, -1], now - 336)
    np.testing.assert_array_equal(arrays["future"], now[:, None] + np.arange(1, 7))
    np.testing.assert_array_equal(arrays["seasonal"], arrays["future"] - 336)
  stored = {k: jnp.asarray(v[:2]) for k, v in parts["train"].items()}
  seen = found.transform(stored, jax.random.split(jax.random.key(0), 2), train=True)
  assert set(seen) == {"window", "seasonal", "future"}
  np.testing.assert_allclose(seen["window"][1, 0], 10 * np.log(1337 / 1001), rtol=1e-5)


@pytest.mark.parametrize(
  ("values", "message"),
  [([1.0] * 7, "found 7 values"), ([0.0] * 4032, "above 0"), (["a"] * 4032, "not of numbers")],
)
def test_unsound_demand_is_refused_by_name(package, values, message):
  file = taylor(package, values)
  with pytest.raises(ValueError, match=message) as error:
    demand.Source().split("train")
  assert str(file) in str(error.value)


def test_a_program_that_is_none_is_refused_by_name(tmp_path):
  (tmp_path / "taylor.py").write_text("def broken(:")
  with pytest.raises(ValueError, match="not Python"):
    demand.read(tmp_path / "taylor.py")


@needs("pmdarima")
def test_taylors_demand():
  whole = demand._load()
  assert whole.shape == (4032,)
  assert [*whole[:3], *whole[-2:]] == [22262, 21756, 22247, 24610, 23132]
  assert len(demand.Source().split("test").arrays["future"]) == 577


def weeks(count, level, seed=0):
  """Examples of a demand that is its week before times exp(level)."""
  generator = np.random.default_rng(seed)
  window = generator.normal(size=(count, 5)).astype(np.float32)
  seasonal = generator.uniform(50, 100, (count, 3)).astype(np.float32)
  return Examples(
    {"window": window, "seasonal": seasonal, "future": seasonal * np.exp(level(window))}
  )


def test_a_code_forecasts_what_it_keeps():
  # The first two numbers of a window are its code; the future depends on the first or the last.
  call = Given(lambda x: x, codes=2)
  for kept, column in ((True, 0), (False, 4)):
    train, test = (weeks(80, lambda w, c=column: 0.1 * w[:, [c]], seed=s) for s in (0, 1))
    found = forecasting.Task().score(call, train, test)
    assert found["lags_smape"] < 0.01 * found["seasonal_smape"]
    assert (found["smape"] < 0.01 * found["seasonal_smape"]) == kept
    naive = np.abs(test.arrays["future"] - test.arrays["seasonal"]).mean()
    assert found["seasonal_mae"] == pytest.approx(naive, rel=1e-5)
  views = forecasting.Task().views(call, train, test)
  assert {"forecasts", "error_by_step"} <= set(views)
  assert len(views["forecasts"].lines["demand"]) == 21


def test_no_forecast_sees_the_future_of_the_test_split():
  train, test = (weeks(60, lambda w: 0.1 * w[:, [0]], seed=s) for s in (0, 1))
  blind = Examples({**test.arrays, "future": test.arrays["future"] * 0 + 1})
  call, task = Given(lambda x: x), forecasting.Task()
  found, again = (task._forecasts(call, train, e) for e in (test, blind))
  for name, value in found.items():
    np.testing.assert_array_equal(value, again[name], err_msg=name)


# Documents.

VERSES = """Ge1:1 In the beginning God created the heaven and the earth.
Ge1:2 And the earth was without form.
Ge2:1 Thus the heavens were finished.
1Sm1:1 Now there was a certain man.
"""


def test_chapters_of_verses():
  found = bible.parse(VERSES, file="bible")
  assert [chapter.book for chapter in found] == ["Ge", "Ge", "1Sm"]
  assert documents.words(found[0].verses)[-4:] == ["earth", "was", "without", "form"]
  assert documents.words(found[2].verses) == ["now", "there", "was", "a", "certain", "man"]
  assert found[2].text == "Now there was a certain man.\n"
  with pytest.raises(ValueError, match="bible:2: not a verse"):
    bible.parse("Ge1:1 In the\nnonsense", file="bible")


def test_vocabulary_is_the_commonest_without_what_is_everywhere():
  texts = [["a", "b", "b", "c"], ["a", "b"], ["a", "d"], ["a", "d", "e"]]
  assert documents.vocabulary(texts, 3) == {"b": 0, "d": 1, "c": 2}
  with pytest.raises(ValueError, match="have 4 of them"):
    documents.vocabulary(texts, 5)
  found = documents.counts(texts, {"b": 0, "d": 1})
  np.testing.assert_array_equal(found, [[2, 0], [1, 0], [0, 1], [0, 1]])


@pytest.fixture
def install(tmp_path, monkeypatch):
  """Puts a program `bible` that prints a text in the place of Debian's."""

  def write(text, status=0):
    (tmp_path / "text").write_text(text)
    program = tmp_path / "bible"
    program.write_text(f"#!/bin/sh\n/bin/cat '{tmp_path / 'text'}'\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

  return write


def whole_bible():
  """31,102 verses; in each of 1,189 chapters the word of its book of 66, its own and a common one."""
  names = [f"{i // 26 or ''}{chr(65 + i % 26)}" for i in range(66)]
  word = lambda n: "w" + "".join(chr(97 + int(d)) for d in str(n))  # noqa: E731
  lines = []
  for i in range(1189):
    book = i * 66 // 1189
    chapter = f"{names[book]}{i + 1}"
    lines.append(f"{chapter}:1 Common {'book' + word(book)} {word(i)} {word(i)}")
    lines += [f"{chapter}:{verse} Common" for verse in range(2, 27 + (i < 188))]
  return "\n".join(lines)


def test_documents_of_a_hand_made_bible(install):
  install(whole_bible())
  found = documents.Source(dataset="kjv", words=100, validation=32)
  parts = {name: found.split(name).arrays for name in ("train", "validation", "test")}
  assert [len(x["label"]) for x in parts.values()] == [800, 32, 357]
  assert len(found.class_names) == 66
  # No word is in most chapters, and none that only a test chapter has is in the vocabulary.
  assert (parts["train"]["counts"].sum(0) > 0).all()
  assert parts["train"]["counts"].max() == 2
  assert all((x["counts"] > 0).sum() < x["counts"].size / 10 for x in parts.values())
  labels = np.concatenate([x["label"] for x in parts.values()])
  np.testing.assert_array_equal(np.bincount(labels), np.bincount(np.arange(1189) * 66 // 1189))


@pytest.mark.parametrize(
  ("text", "status", "message"),
  [
    (VERSES, 0, "found 4 verses of 3 chapters of 2 books"),
    ("", 3, "status 3"),
    ("oops", 0, "not a verse"),
  ],
)
def test_an_unsound_bible_is_refused_by_name(install, text, status, message):
  install(text, status)
  with pytest.raises(ValueError, match=message) as error:
    documents.Source(dataset="kjv").split("train")
  assert "bible" in str(error.value)


def test_a_missing_bible_says_how_to_get_it(monkeypatch):
  monkeypatch.setenv("PATH", os.devnull)
  with pytest.raises(FileNotFoundError, match="apt-get install bible-kjv"):
    documents.Source(dataset="kjv").split("train")


def test_words_are_dropped_while_training_alone():
  found = documents.Source(dataset="kjv", words=400, word_dropout=0.5)
  counts = jnp.asarray(np.random.default_rng(0).poisson(2.0, (6, 400)), jnp.float32)
  counts = counts.at[5].set(0.0)  # a document without a word of the vocabulary
  keys = jax.random.split(jax.random.key(0), 6)
  train, test = (found.transform({"counts": counts}, keys, train=t) for t in (True, False))
  np.testing.assert_array_equal(train["counts"], counts)
  clean = np.asarray(test["document"])
  np.testing.assert_allclose(np.square(clean[:5]).sum(1), 4, rtol=1e-5)
  assert not clean[5].any()
  kept = np.asarray(train["document"])[clean > 0] > 0
  assert 0.4 < kept.mean() < 0.6
  assert np.isin(np.asarray(train["document"]), [0, *np.unique(clean)]).all()
  # Each document drops words of its own.
  rows = np.asarray(train["document"]) > 0
  assert (rows[0] != rows[1])[(clean[0] > 0) & (clean[1] > 0)].any()


@needs_bible
def test_the_king_james_bible():
  found = documents.Source(dataset="kjv")
  train, test = (found.split(name).arrays for name in ("train", "test"))
  assert (len(train["label"]), len(test["label"])) == (832, 357)
  assert found.class_names[:2] == ("Ge", "Exo")
  assert train["counts"].sum(1).min() > 0
  assert not set(documents.vocabulary([w for _, w in documents._load()[0]], 2000)) & {"the", "and"}


def topics(count=24, seed=0):
  generator = np.random.default_rng(seed)
  label = generator.integers(0, 3, count)
  rate = np.where(np.arange(12) // 4 == label[:, None], 4.0, 0.3)
  counts = generator.poisson(rate).astype(np.float32) + 0.0
  return Examples({"counts": counts, "document": np.sqrt(counts), "label": label}, ("a", "b", "c"))


def test_retrieval_scores_codes_and_the_best_of_the_rivals():
  train, test = topics(seed=0), topics(seed=1)
  topic = lambda x: np.square(x).reshape(len(x), 3, 4).sum(-1)  # noqa: E731

  class Call(Given):
    def __call__(self, x, *, seed=0):
      return deep.Output(
        x, x, topic(x) if self.codes else np.random.default_rng(seed).random((len(x), 3))
      )

  good, bad = (retrieving.Task().score(Call(None, codes), train, test) for codes in (1, 0))
  assert good["average_precision"] > 0.95 > bad["average_precision"]
  rivals = [f"lsi_{name}_average_precision" for name in ("counts", "tf_idf", "roots")]
  assert good["lsi_average_precision"] == max(good[name] for name in rivals)
  assert {name: good[name] for name in rivals} == {name: bad[name] for name in rivals}
  views = retrieving.Task().views(Call(None, 1), train, test)
  assert set(views) == {"precision_recall", "codes"}
  assert set(views["codes"].names) == {"a", "b", "c"}


def words_batch(examples=5, words=9, seed=0):
  generator = np.random.default_rng(seed)
  counts = generator.poisson(1.0, (examples, words)).astype(np.float32)
  counts[:, 0] += 1
  return {
    "counts": jnp.asarray(counts),
    "document": jnp.asarray(generator.random((examples, words), np.float32)),
    "mask": jnp.ones(examples, jnp.float32),
  }


def test_multinomial_loss_and_gradient_are_pytorchs():
  torch = pytest.importorskip("torch", reason="parity is against PyTorch: `pip install torch`")
  from test_models import to_torch, torch_dense

  model = deep.Model((9,), (7,), 3, "tanh", "softmax")
  params, mutable = created(model, (9,))
  batch = words_batch()
  (phase,) = retrieving.Task().phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)
  p, x = to_torch(params), torch.tensor(np.asarray(batch["document"], np.float64))
  h = torch_dense(p["encoder_1"], torch.tanh(torch_dense(p["encoder_0"], x)))
  logits = torch_dense(p["decoder_1"], torch.tanh(torch_dense(p["decoder_0"], h)))
  counts = torch.tensor(np.asarray(batch["counts"], np.float64))
  # PyTorch's cross-entropy of probabilities: -sum_i p_i log q_i.
  expected = torch.nn.functional.cross_entropy(logits, counts / counts.sum(1, keepdim=True))
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p))


@pytest.mark.parametrize("scale", [-1e4, 1e4])
@pytest.mark.parametrize(
  ("model", "task", "element"),
  [
    (deep.Model((9,), (7,), 3, "tanh", "softmax"), retrieving.Task(), "document"),
    (deep.Model((9,), (7,), 3, "tanh", "linear"), forecasting.Task(), "window"),
    (deep.Model((9,), (7,), 3, "tanh", "linear"), anomaly.Task(of="window"), "window"),
  ],
  ids=["retrieval", "forecast", "anomaly"],
)
def test_loss_and_gradient_are_finite_at_extreme_inputs(model, task, element, scale):
  params, mutable = created(model, (9,))
  batch = words_batch()
  batch = {**batch, "window": batch["document"], element: batch["document"] * scale}
  (phase,) = task.phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


# Ruff et al.'s autoencoder.


def test_lenet_autoencoder_size():
  params = shapes(lenet.Model(MNIST), MNIST)["params"]
  assert size(params) == 8_472
  encoder = {k: v for k, v in params.items() if k.startswith("encoder") or k == "to_code"}
  assert size(encoder) == 7_272
  assert not any("bias" in jax.tree_util.keystr(k) for k, _ in jax.tree.leaves_with_path(params))
  with pytest.raises(ValueError, match="28x28"):
    shapes(lenet.Model((32, 32, 3)), (32, 32, 3))


def test_lenet_autoencoder_is_pytorchs():
  torch = pytest.importorskip("torch", reason="parity is against PyTorch: `pip install torch`")
  from test_models import to_torch

  functional = torch.nn.functional
  model = lenet.Model(MNIST)
  params, mutable = created(model, MNIST)
  generator = np.random.default_rng(0)
  image = generator.random((3, *MNIST), np.float32)
  batch = {"image": jnp.asarray(image), "mask": jnp.ones(3, jnp.float32)}
  (phase,) = reconstruction.Task().phases(model)
  grads, loss, _, _ = gradients(phase, params, mutable, batch)

  p = to_torch(params)
  norm = lambda x: functional.leaky_relu(  # noqa: E731
    functional.batch_norm(x, None, None, training=True, eps=1e-4), 0.01
  )
  up = lambda x: functional.interpolate(x, scale_factor=2)  # noqa: E731
  kernel = lambda name: p[name]["kernel"].permute(3, 2, 0, 1)  # noqa: E731
  # PyTorch's kernels of transposed convolutions: [in, out, H, W], and flipped against ours.
  flipped = lambda name: p[name]["kernel"].flip(0, 1).permute(2, 3, 0, 1)  # noqa: E731
  x = torch.tensor(image, dtype=torch.float64).permute(0, 3, 1, 2)
  h = functional.max_pool2d(norm(functional.conv2d(x, kernel("encoder_0"), padding=2)), 2)
  h = functional.max_pool2d(norm(functional.conv2d(h, kernel("encoder_1"), padding=2)), 2)
  code = h.permute(0, 2, 3, 1).reshape(3, -1) @ p["to_code"]["kernel"]
  h = up(functional.leaky_relu(code.reshape(3, 4, 4, 2).permute(0, 3, 1, 2), 0.01))
  h = up(norm(functional.conv_transpose2d(h, flipped("decoder_0"), padding=2)))
  h = up(norm(functional.conv_transpose2d(h, flipped("decoder_1"), padding=3)))
  found = torch.sigmoid(functional.conv_transpose2d(h, flipped("decoder_2"), padding=2))
  expected = (found - x).square().sum((1, 2, 3)).mean()
  close(loss, expected.detach())
  close(grads, torch_gradients(expected, p), rtol=2e-5)


def test_no_third_partys_data_is_here():
  kept = {".csv", ".arff", ".ts", ".gz", ".npz"}
  root = pathlib.Path(__file__).resolve().parent.parent
  rooms = ("data", "tests", "experiments", "evaluation")
  assert not [p for r in rooms for p in (root / r).rglob("*") if p.suffix in kept]
