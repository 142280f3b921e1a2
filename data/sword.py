"""Bibles as the SWORD project packs them, verse by verse, without its library.

A module keeps each testament in three files: the verses of a block of text one after another,
blocks compressed (.bzz); where each block begins (.bzs); and for every verse of the versification
which block it is in and where (.bzv). Modules of one versification share the numbering of verses,
so that two are paired by number.
"""

import functools
import pathlib
import re
import struct
import zlib

from data import source

_PACKAGES = {"engKJV2006eb": "sword-text-kjv", "spaRV1909eb": "sword-text-sparv"}
_BLOCK, _VERSE = struct.Struct("<III"), struct.Struct("<IIH")
_MOST_BYTES = 2**24  # of a block, unpacked
_NOTE = re.compile(r"<(note|title)\b.*?</\1>", re.DOTALL)
_BREAK = re.compile(r"<(?:l|lg|p|lb|milestone|chapter|verse|div)\b[^>]*>")
_JOINED = re.compile(r"(\w</\w+>)(<\w+[^>]*>)(?=\w)")  # words that only their marks keep apart
_TAG = re.compile(r"<[^>]*>")


@functools.lru_cache(maxsize=2)
def verses(directory: str) -> tuple[tuple[str, str], ...]:
  """The verses of the King James Bible and of the Reina-Valera of 1909 that both have.

  Raises:
    FileNotFoundError: a package is not there.
  """
  root = pathlib.Path(directory).expanduser() / "sword"
  english, spanish = (_module(root, name) for name in _PACKAGES)
  return tuple((words, spanish[key]) for key, words in english.items() if key in spanish)


def _module(root: pathlib.Path, name: str) -> dict[tuple[str, int], str]:
  """The text of every verse that has any, by testament and number."""
  files = sorted(root.glob(f"modules/texts/ztext/{name}/*.bzv"), reverse=True)  # the old one first
  if not files:
    packages = " ".join(_PACKAGES.values())
    raise FileNotFoundError(
      f"{root} has no module {name!r}. It is in a Debian package, which need not be installed: "
      f"`apt-get download {packages} && for deb in sword-text-*.deb; do dpkg -x $deb DIR; done`, "
      "then --config.data.directory=DIR/usr/share"
    )
  found = {}
  for file in files:
    texts = _blocks(file.with_suffix(".bzs"), file.with_suffix(".bzz"))
    with source.naming(file, "no index of verses"):
      for number, (block, start, size) in enumerate(_VERSE.iter_unpack(file.read_bytes())):
        if not size:
          continue
        if start + size > len(texts[block]):
          raise ValueError(f"{file}: verse {number} goes on behind the end of its block {block}")
        if words := _plain(texts[block][start : start + size].decode("utf-8")):
          found[file.stem, number] = words
  if not found:
    raise ValueError(f"{files[0]}: found no verse")
  return found


def _blocks(index: pathlib.Path, packed: pathlib.Path) -> list[bytes]:
  """The blocks of text, each as long as the index says."""
  data, found = packed.read_bytes(), []
  with source.naming(packed, f"not the blocks of {index.name}"):
    for start, size, length in _BLOCK.iter_unpack(index.read_bytes()):
      unpacking = zlib.decompressobj()
      most = min(length or _MOST_BYTES, _MOST_BYTES)  # 0 says nothing
      # One byte more than there should be: whether it goes on, which takes no memory to find out.
      text = unpacking.decompress(data[start : start + size], most + 1)
      if len(text) != (length or len(text)) or not unpacking.eof:
        raise ValueError(f"{packed}: the block at {start} does not unpack to {most} bytes")
      found.append(text)
  return found


def _plain(marked: str) -> str:
  """A verse without notes, headings and marks."""
  words = _JOINED.sub(r"\1 \2", _BREAK.sub(" ", _NOTE.sub("", marked)))
  words = _TAG.sub("", words)
  return " ".join(words.replace("¶", "").split())
