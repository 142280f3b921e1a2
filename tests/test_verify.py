"""`launch.py verify` shows that a killed run ends with the bits of one that was not."""

import pathlib
import subprocess
import sys

import pytest

from training import verify

FAMILIES = {
  "alignment": "dpo_kjv",
  "autoencoder": "stacked_digits",
  "autoregressive": "pixelcnn_digits",
  "bert": "tokens_kjv",
  "convnet": "resnet_digits",
  "gan": "mlp_digits",
  "gpt": "gpt_kjv",
  "in_context": "affine",
  "recurrent": "elmo_kjv",
  "transformer": "sort",
  "vae": "gaussian_digits",
  "vq": "prior_digits",
}


def command(family, folder, *more):
  name = f"experiments/{family}/{FAMILIES[family]}.py:smoke"
  return [sys.executable, "launch.py", "verify", f"--config={name}", f"--workdir={folder}", *more]


def test_no_family_is_left_out():
  assert {path.parent.name for path in pathlib.Path("experiments").glob("*/*.py")} == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_experiment_of_every_family(family, tmp_path):
  ended = subprocess.run(
    command(family, tmp_path, "--interruptions=1"), capture_output=True, text=True, timeout=600
  )
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert ended.stdout.splitlines()[-1] == "1 of 1 interrupted runs ended with the same bits"


@pytest.mark.deep
@pytest.mark.parametrize(
  "name", sorted(str(path) for path in pathlib.Path("experiments").glob("*/*.py"))
)
def test_every_experiment_after_every_save(name, tmp_path):
  found = verify.verify([f"--config={name}:smoke"], tmp_path / "runs")
  assert found
  assert all(one.equal for one in found)


def test_what_differs_is_said():
  one = verify.Ended({"a": "1", "b": "2"}, "rows", "{}")
  other = verify.Ended({"a": "1", "b": "3", "c": "4"}, "rows", "{ }")
  found = verify._compared(3, 2, one, other)
  assert (found.arrays, found.rows, found.evaluation, found.equal) == (2, True, False, False)
  assert verify._compared(3, 2, one, one).equal


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
  (tmp_path / "file").touch()
  ended = subprocess.run(command("vae", tmp_path), capture_output=True, text=True, timeout=60)
  assert ended.returncode == 5
  assert ended.stderr.startswith("error[STORAGE]")


def test_an_experiment_that_cannot_be_trained_says_why(tmp_path):
  more = ("--config.data.batch_size=100000",)
  ended = subprocess.run(
    command("vae", tmp_path, *more), capture_output=True, text=True, timeout=60
  )
  assert ended.returncode == 2
  assert "batch_size" in ended.stderr
