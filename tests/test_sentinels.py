"""Warnings of silent failures: one line each, once, while training and in the report."""

import pytest

import launch
from tasks import adversarial, elbo
from tasks.objective import Sentinel
from training.sentinels import Watch

LOW = Sentinel("low", lambda row: row["x"] < 1, "raise it")


def said(values, *, steps=10, sentinels=(LOW,)):
  watch = Watch(sentinels, steps)
  return [watch.row(i + 1, {"x": x}, 0, shown=i + 1) for i, x in enumerate(values)]


def test_three_rows_running_speak_once():
  found = said([0, 0, 0, 0, 0, 0])
  assert found == [[], [], ["low at step 3: raise it"], [], [], []]


def test_a_row_in_between_starts_the_count_again():
  assert said([0, 0, 2, 0, 0, 2, 0, 0]) == [[]] * 8
  assert said([0, 0, 2, 0, 0, 0])[-1] == ["low at step 6: raise it"]


def test_the_beginning_of_a_stage_does_not_count():
  found = said([0] * 12, steps=100)
  assert found.index(["low at step 12: raise it"]) == 11
  assert sum(map(len, found)) == 1


def test_sentinels_are_counted_apart():
  other = Sentinel("high", lambda row: row["x"] > -1, "lower it")
  found = said([0, 0, 0], sentinels=(LOW, other))
  assert found[-1] == ["low at step 3: raise it", "high at step 3: lower it"]


@pytest.mark.parametrize(
  ("task", "sick", "well"),
  [
    (elbo.Task(), {"kl": 0.001}, {"kl": 2.0}),
    (
      adversarial.Task(),
      {"discriminator/real_accuracy": 1.0, "discriminator/fake_accuracy": 0.995},
      {"discriminator/real_accuracy": 1.0, "discriminator/fake_accuracy": 0.5},
    ),
  ],
)
def test_a_sick_run_is_told_from_a_well_one(task, sick, well):
  (sentinel,) = task.sentinels()
  assert sentinel.holds(sick)
  assert not sentinel.holds(well)
  assert not sentinel.holds({})


def test_a_collapsing_vae_is_warned_of_in_one_line_and_in_its_report(tmp_path, capfd):
  command = [
    "train",
    "--config=experiments/vae/gaussian_digits.py:smoke",
    f"--workdir={tmp_path}",
    "--config.training.steps=100",
    "--config.task.beta=100",
    "--config.optimizer.learning_rate=0.01",
  ]
  assert launch.main(command) == 0
  (line,) = [x for x in capfd.readouterr().err.splitlines() if "collapse" in x]
  assert line.startswith("warning: posterior collapse at step ")
  assert "task.warmup_steps" in line
  assert line.removeprefix("warning: ") in (tmp_path / "report.html").read_text()


def test_a_well_run_is_not_warned_of(tmp_path, capfd):
  command = [
    "train",
    "--config=experiments/vae/gaussian_digits.py:smoke",
    f"--workdir={tmp_path}",
    "--config.training.steps=30",
  ]
  assert launch.main(command) == 0
  assert "warning" not in capfd.readouterr().err
  assert "<h2>Warnings</h2>" not in (tmp_path / "report.html").read_text()
