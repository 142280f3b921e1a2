"""Files that a reader sees old or new, never in part."""

import os
import threading
from pathlib import Path


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
  """Writes a file whole or not at all; missing folders are made.

  Args:
    path: where to.
    data: what it will hold.

  Returns:
    The path.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
  try:
    temporary.write_bytes(data)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return path
