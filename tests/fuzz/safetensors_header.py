"""A fuzz target: what interop reads of a safetensors file, against the reference implementation.

    pip install -r requirements-fuzz.txt
    python tests/fuzz/safetensors_header.py tests/fuzz/corpus/safetensors_header -max_total_time=300

An input is a header and, after a zero byte, the tensors' bytes; one that begins with R is a whole
file behind it. `check` holds without atheris too: tests/test_security.py plays the corpus back.
"""

import contextlib
import importlib
import pathlib
import struct
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))

if __name__ == "__main__":
  import atheris

  with atheris.instrument_imports(include=["interop", "json"]):
    importlib.import_module("interop.tensors")

import safetensors

from interop import tensors
from interop.errors import Unreadable

_FILE = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"


def unpacked(data: bytes) -> bytes:
  """The file that an input stands for."""
  if data[:1] == b"R":
    return data[1:]
  header, _, content = data.partition(b"\0")
  return struct.pack("<Q", len(header)) + header + content


def check(data: bytes) -> bool:
  """Whether the file is read; if it is, the reference implementation reads the same."""
  content = unpacked(data)
  _FILE.write_bytes(content)
  try:
    ours = tensors.safetensors(_FILE)
  except Unreadable as error:
    return _refused(str(error))
  theirs = dict(safetensors.deserialize(content))
  assert set(ours) == set(theirs)
  for name, stored in ours.items():
    assert stored.dtype == theirs[name]["dtype"]
    assert list(stored.shape) == list(theirs[name]["shape"])
    assert bytes(stored.raw()) == bytes(theirs[name]["data"])
    with contextlib.suppress(Unreadable):  # of integers, or not finite
      assert stored.array().shape == stored.shape
  return True


def _refused(line: str) -> bool:
  assert len(line) <= 400
  assert line.isprintable()
  return False


if __name__ == "__main__":
  atheris.Setup(sys.argv, lambda data: check(data) and None)
  atheris.Fuzz()
