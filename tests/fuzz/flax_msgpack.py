"""A fuzz target: flax_model.msgpack is read, or refused in a line.

    pip install -r requirements-fuzz.txt
    python tests/fuzz/flax_msgpack.py tests/fuzz/corpus/flax_msgpack -max_total_time=300

`check` holds without atheris too: tests/test_security.py plays the corpus back.
"""

import importlib
import math
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))

if __name__ == "__main__":
  import atheris

  with atheris.instrument_imports(include=["interop", "json"]):
    importlib.import_module("interop.tensors")

import numpy as np

from interop import tensors
from interop.errors import Unreadable

_FILE = pathlib.Path(tempfile.mkdtemp()) / tensors.FLAX


def check(data: bytes) -> bool:
  """Whether the file is read; if it is, every tensor has the bytes of its shape."""
  _FILE.write_bytes(data)
  try:
    found = tensors.flax(_FILE)
    arrays = {name: stored.array() for name, stored in found.items()}
  except Unreadable as error:
    return _refused(str(error))
  for name, array in arrays.items():
    assert array.shape == found[name].shape
    assert array.dtype == np.float32
    # An array takes two bytes of the file for every number at least.
    assert 2 * math.prod(array.shape) <= len(data)
  return True


def _refused(line: str) -> bool:
  assert len(line) <= 400
  assert line.isprintable()
  return False


if __name__ == "__main__":
  atheris.Setup(sys.argv, lambda data: check(data) and None)
  atheris.Fuzz()
