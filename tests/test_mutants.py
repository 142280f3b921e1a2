"""Every guard has a test that turns red without it.

tests/mutants/*.toml lists guards: the text that makes one, what to put in its place so that it is
gone, and the test that must fail then. Every mutant is applied to a copy of the tree.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MUTANTS = [
  pytest.param(mutant, id=f"{file.stem}-{i}")
  for file in sorted(ROOT.glob("tests/mutants/*.toml"))
  for i, mutant in enumerate(tomllib.loads(file.read_text(encoding="utf-8"))["mutant"])
]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_a_mutant_takes_out_is_there_once(mutant):
  text = (ROOT / mutant["file"]).read_text(encoding="utf-8")
  assert text.count(mutant["old"]) == 1
  assert mutant["old"] != mutant["new"]
  assert (ROOT / mutant["test"].split("::")[0].split(" -k ")[0]).is_file()
  assert "'" not in mutant["test"]  # no shell reads it


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
  """A copy of what git tracks, and of what is new."""
  folder = tmp_path_factory.mktemp("mutants") / "tree"
  listed = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  for name in listed.stdout.splitlines():
    if (ROOT / name).is_file():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(ROOT / name, folder / name)
  return folder


@pytest.mark.deep
@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_the_guard_its_test_is_red(mutant, copy):
  name, _, chosen = mutant["test"].partition(" -k ")
  command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", name]
  command += ["-k", chosen] if chosen else []
  file = copy / mutant["file"]
  whole = file.read_text(encoding="utf-8")
  file.write_text(whole.replace(mutant["old"], mutant["new"]), encoding="utf-8")
  try:
    ended = subprocess.run(
      command, cwd=copy, capture_output=True, text=True, timeout=900, env=dict(os.environ)
    )
  finally:
    file.write_text(whole, encoding="utf-8")
  assert ended.returncode == 1, ended.stdout[-2000:]
