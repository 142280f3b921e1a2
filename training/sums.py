"""Sums of a directory's files: written once it is whole, checked before anything parses it."""

import hashlib
import os
import pathlib
import re

from training import faults

SUMS = "SHA256SUMS"
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")


class Corrupt(Exception):
  """A step that cannot be used, and why."""


def numbered(directory: pathlib.Path) -> list[int]:
  """The numbers that name directories in here, greatest first; nothing else counts as a step."""
  try:
    with os.scandir(directory) as entries:
      found = [e.name for e in entries if _STEP.fullmatch(e.name) and _is_directory(e)]
  except OSError:  # not there, or no directory
    return []
  return sorted(map(int, found), reverse=True)


def _is_directory(entry: os.DirEntry) -> bool:
  return entry.is_dir(follow_symlinks=False)


def seal(directory: pathlib.Path):
  """Brings a directory to the disk, and writes its files' sums in the format of `sha256sum -c`."""
  folders, lines = [directory], []
  for path in sorted(directory.rglob("*")):
    if path.is_dir():
      folders.append(path)
    elif path.name != SUMS:
      with open(path, "rb") as file:
        os.fsync(file.fileno())
        lines.append(f"{_sha256(file)}  {path.relative_to(directory)}\n")
  for folder in folders:
    sync(folder)
  temporary = directory / f".{SUMS}.tmp"
  with open(temporary, "w", encoding="utf-8") as file:
    file.write("".join(lines))
    file.flush()
    os.fsync(file.fileno())
  faults.point("save.summed")
  temporary.rename(directory / SUMS)
  sync(directory)


def sync(directory: pathlib.Path):
  """Brings the names in a directory to the disk: a rename may otherwise be lost with the power."""
  number = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(number)
  finally:
    os.close(number)


def check(directory: pathlib.Path):
  """Looks whether a directory is what was sealed.

  Without sums, as a kill between commit and seal leaves it, the leaves' own hashes still decide.

  Raises:
    Corrupt: it is not, and which file.
  """
  try:
    for path in directory.rglob("*"):
      # Opening a pipe would wait forever, and a link leads who knows where.
      if path.is_symlink() or not (path.is_file() or path.is_dir()):
        raise Corrupt(f"{path.relative_to(directory)} is no plain file")
    sums = directory / SUMS
    if not sums.exists():
      return
    for line in sums.read_text(encoding="utf-8").splitlines():
      stated, name = line.split("  ", 1)
      if ".." in pathlib.PurePath(name).parts or pathlib.PurePath(name).is_absolute():
        raise Corrupt(f"{SUMS} names a file outside")
      with open(directory / name, "rb") as file:
        if _sha256(file) != stated:
          raise Corrupt(f"{name} does not have the SHA-256 it was written with")
  except (OSError, ValueError) as error:
    raise Corrupt(f"its files cannot be read ({_short(error)})") from error


def _short(error: Exception) -> str:
  if isinstance(error, OSError) and error.filename:
    return f"{pathlib.Path(error.filename).name}: {error.strerror}"
  return str(error)[:80]


def _sha256(file) -> str:
  return hashlib.file_digest(file, "sha256").hexdigest()
