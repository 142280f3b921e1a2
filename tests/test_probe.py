"""`launch.py probe`: what a run's features are good for."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import launch
from evaluation import probing
from training import config
from training.build import build
from training.evaluate import examples


def train(path, place):
  assert launch.main(["train", f"--config={path}:smoke", f"--workdir={place}"]) == 0


def test_separable_features_are_told_apart_and_noise_is_not():
  rng = np.random.default_rng(0)
  label = rng.integers(0, 3, 600)
  clear = np.eye(3)[label] + 0.1 * rng.normal(size=(600, 3))
  noise = rng.normal(size=(600, 3))
  for features, low, high in ((clear, 0.99, 1.0), (noise, 0.2, 0.45)):
    found = probing.classify(features[:400], features[400:], label[:400], label[400:])
    assert set(found) == {"linear_accuracy", "neighbour_accuracy"}
    assert all(low <= value <= high for value in found.values())


def test_the_vote_is_of_as_many_as_asked_for():
  train_x = np.array([[0.0], [1.0], [1.1], [5.0]])
  label = np.array([0, 1, 1, 0])
  one, three = (
    probing.classify(train_x, np.array([[0.1]]), label, np.array([0]), neighbours=n) for n in (1, 3)
  )
  assert one["neighbour_accuracy"] == 1.0
  assert three["neighbour_accuracy"] == 0.0


@pytest.mark.parametrize(
  ("name", "size"),
  [
    ("vae/gaussian_digits", 8),
    ("autoencoder/deep_digits", 8),
    ("autoencoder/stacked_digits", 100),  # the codes below its classifier
    ("vq/vq_digits", 32),  # eight codes of four numbers
  ],
)
def test_features_of_any_autoencoder_are_probed_by_one_command(name, size, tmp_path, capsys):
  path = f"experiments/{name}.py"
  train(path, tmp_path)
  capsys.readouterr()
  assert launch.main(["probe", f"--workdir={tmp_path}", "--neighbours=3"]) == 0
  assert "450 test examples" in capsys.readouterr().out
  found = json.loads((tmp_path / "probe.json").read_text())
  stage = build(config.load(f"{path}:smoke")).stages[-1]
  assert found["test"] == 450
  assert found["conditions"] == dict(stage.source.conditions())
  assert (found["features"]["size"], found["inputs"]["size"]) == (size, 64)

  # The rival's figures, by scikit-learn alone.
  sets = [examples(stage.source, name).arrays for name in ("train", "test")]
  x, held_out = (s["image"].reshape(len(s["image"]), -1) for s in sets)
  nearest = KNeighborsClassifier(3).fit(x, sets[0]["label"])
  assert found["inputs"]["neighbour_accuracy"] == nearest.score(held_out, sets[1]["label"])
  mean, std = x.mean(0), np.where(x.std(0) == 0, 1, x.std(0))
  linear = LogisticRegression(max_iter=1000).fit((x - mean) / std, sets[0]["label"])
  expected = linear.score((held_out - mean) / std, sets[1]["label"])
  assert found["inputs"]["linear_accuracy"] == pytest.approx(expected, abs=0.01)


def test_what_has_no_features_is_refused_in_one_line(tmp_path, capsys):
  train("experiments/gan/mlp_digits.py", tmp_path)
  assert launch.main(["probe", f"--workdir={tmp_path}"]) == 2
  assert "there are no features to probe" in capsys.readouterr().err


def test_a_vote_of_nobody_is_refused(tmp_path, capsys):
  assert launch.main(["probe", f"--workdir={tmp_path}", "--neighbours=0"]) == 2
  assert "--neighbours=0" in capsys.readouterr().err
