"""Named tensors in files: safetensors, in one piece or in shards, and Flax's msgpack.

A file is not trusted. Everything it says of itself is checked against its size before anything is
allocated; nothing outside of its directory is opened; nothing that could run code (pickles: .bin,
.pt, .ckpt, .pkl) is opened at all.

The format of safetensors: eight bytes, the length of a header, little-endian; the header, JSON, for
each name a dtype, a shape and where in the rest of the file its bytes are; the bytes, without gaps.
"""

import json
import math
import os
import pathlib
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgpack
import numpy as np

from interop.errors import Unreadable

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLAX = "flax_model.msgpack"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".ot")
_MAX_HEADER = 100_000_000  # bytes, as the reference implementation has it
_MAX_JSON = 100_000_000
_DEEPEST = 32  # levels of names in a msgpack file
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_OTHERS = {
  "I64": "<i8",
  "I32": "<i4",
  "I16": "<i2",
  "I8": "i1",
  "U64": "<u8",
  "U32": "<u4",
  "U16": "<u2",
  "U8": "u1",
  "BOOL": "?",
}
_DTYPES = _FLOATS | _OTHERS
_BY_NAME = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_ARRAY, _CHUNKED = 1, "__msgpack_chunked_array__"  # Flax's extension type, and its mark


class Stored(NamedTuple):
  """A tensor that is in a file.

  Attributes:
    dtype: as safetensors calls it.
    shape: its axes.
    raw: gives its bytes.
  """

  dtype: str
  shape: tuple[int, ...]
  raw: Callable[[], Any]

  def array(self) -> np.ndarray:
    """The tensor in float32.

    Raises:
      Unreadable: it is not of floating-point numbers.
    """
    if self.dtype not in _FLOATS:
      raise Unreadable(f"a tensor of {self.dtype}, where floating-point numbers belong")
    found = np.frombuffer(self.raw(), _FLOATS[self.dtype]).reshape(self.shape)
    if self.dtype == "BF16":  # the upper half of a float32
      return (found.astype(np.uint32) << 16).view(np.float32)
    return found.astype(np.float32, copy=False)


def inside(directory: pathlib.Path, name: str) -> pathlib.Path:
  """The file `name` of a directory, which neither the name nor a link may lead out of.

  Raises:
    Unreadable: it does, or there is no such file.
  """
  if not name or name != pathlib.PurePosixPath(name).name or "\\" in name or "\0" in name:
    raise Unreadable(f"{directory}: {name!r} is no plain name of a file")
  path = directory / name
  if not path.resolve().is_relative_to(directory.resolve()):
    raise Unreadable(
      f"{path} is a link that leaves the directory: copy the files themselves"
      " (hf download --local-dir)"
    )
  if not path.is_file():
    raise Unreadable(f"{path}: no such file")
  return path


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """The object that a JSON file holds.

  Raises:
    Unreadable: it holds none.
  """
  if path.stat().st_size > _MAX_JSON:
    raise Unreadable(f"{path}: {path.stat().st_size:,} bytes of JSON, more than {_MAX_JSON:,}")
  return _object(path.read_bytes(), path)


def _object(text: bytes, path: pathlib.Path) -> dict[str, Any]:
  def once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
      raise ValueError("a name stands twice")
    return found

  try:
    found = json.loads(text.decode("utf-8"), object_pairs_hook=once)
  except (ValueError, RecursionError) as error:
    raise Unreadable(f"{path}: no JSON: {str(error)[:100]}") from error
  if not isinstance(found, dict):
    raise Unreadable(f"{path}: JSON, but no object")
  return found


def weights(directory: pathlib.Path) -> dict[str, Stored]:
  """The tensors of a model's directory, by name.

  Raises:
    Unreadable: it has none, or such as are not read.
  """
  there = {path.name for path in directory.iterdir()}
  if WEIGHTS in there:
    return safetensors(inside(directory, WEIGHTS))
  if INDEX in there:
    return _sharded(directory)
  if FLAX in there:
    return flax(inside(directory, FLAX))
  pickles = sorted(name for name in there if name.endswith(_PICKLES))
  if pickles:
    raise Unreadable(
      f"{directory / pickles[0]} may run code when it is read, and is not: convert it to"
      " safetensors where it comes from (transformers: model.save_pretrained)"
    )
  raise Unreadable(f"{directory}: no {WEIGHTS}, {INDEX} or {FLAX}")


def _sharded(directory: pathlib.Path) -> dict[str, Stored]:
  index = inside(directory, INDEX)
  places = read_json(index).get("weight_map")
  if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
    raise Unreadable(f"{index}: no weight_map from names to files")
  found: dict[str, Stored] = {}
  for file in sorted(set(places.values())):
    if not file.endswith(".safetensors"):
      raise Unreadable(f"{index}: {file!r} is no safetensors file")
    shard = safetensors(inside(directory, file))
    wrong = [name for name in shard if name not in places or places[name] != file]
    wrong += [name for name, place in places.items() if place == file and name not in shard]
    if wrong:
      raise Unreadable(f"{index} and {file} do not agree on where {wrong[0]!r} is", wrong)
    found |= shard
  return found


def safetensors(path: pathlib.Path) -> dict[str, Stored]:
  """The tensors of one file, whose bytes stay on the disk until they are asked for.

  Raises:
    Unreadable: the file contradicts itself.
  """
  size = path.stat().st_size
  with path.open("rb") as file:
    start = file.read(8)
    if len(start) < 8:
      raise Unreadable(f"{path}: {size} bytes are no safetensors file")
    (length,) = struct.unpack("<Q", start)
    if length > min(size - 8, _MAX_HEADER):
      raise Unreadable(
        f"{path}: a header of {length:,} bytes, in a file of {size:,}; at most {_MAX_HEADER:,}"
      )
    header = _object(file.read(length), path)
  header.pop("__metadata__", None)
  whole = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
  found, ends = {}, []
  for name, entry in header.items():
    dtype, shape, begin, end = _entry(entry, f"{path}: {name!r}", size - 8 - length)
    part = slice(8 + length + begin, 8 + length + end)
    found[name] = Stored(dtype, shape, lambda part=part: whole[part])
    ends.append((begin, end, name))
  reached = 0
  for begin, end, name in sorted(ends):
    if begin != reached:
      kind = "overlap" if begin < reached else "leave a gap"
      raise Unreadable(f"{path}: the bytes of {name!r} and of what is before it {kind}")
    reached = end
  if reached != size - 8 - length:
    raise Unreadable(f"{path}: {size - 8 - length:,} bytes of tensors, of which {reached:,} belong")
  return found


def _entry(entry: Any, what: str, room: int) -> tuple[str, tuple[int, ...], int, int]:
  """(dtype, shape, begin, end) of one tensor's line in a header."""
  if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
    raise Unreadable(f"{what} is not described by dtype, shape and data_offsets")
  dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
  if not isinstance(dtype, str) or dtype not in _DTYPES:
    raise Unreadable(f"{what} is of an unknown dtype, {str(dtype)[:40]!r}")
  if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
    raise Unreadable(f"{what} has a shape or offsets that are no natural numbers")
  begin, end = offsets
  if not begin <= end <= room:
    raise Unreadable(f"{what} is at bytes {begin} to {end}, of {room}")
  needed = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
  if end - begin != needed:
    raise Unreadable(f"{what} has {end - begin} bytes, and its shape {shape} needs {needed}")
  return dtype, tuple(shape), begin, end


def _counts(values: Any) -> bool:
  return isinstance(values, list | tuple) and all(
    isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values
  )


def flax(path: pathlib.Path) -> dict[str, Stored]:
  """The tensors of a flax_model.msgpack, in the names and layout of PyTorch's files.

  The Flax models of Transformers 4 were PyTorch's with other names: `kernel`, whose last axis is
  the output, for a matrix whose first is; `scale` and `embedding` for `weight`.

  Raises:
    Unreadable: it is no such file.
  """
  try:
    tree = msgpack.unpackb(path.read_bytes(), ext_hook=_flax_array, raw=False)
  except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
    raise Unreadable(f"{path}: no msgpack of Flax: {str(error)[:100]}") from error
  if isinstance(tree, dict) and set(tree) == {"params"}:
    tree = tree["params"]
  found = {}
  for names, array in _leaves(tree, path, ()):
    *before, last = names
    if last == "kernel":
      # Linear [in, out], and convolutions [height, width, in, out].
      array, last = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T, "weight"
    elif last in ("scale", "embedding"):
      last = "weight"
    found[".".join([*before, last])] = Stored(
      "F32", array.shape, lambda array=array: np.ascontiguousarray(array).data
    )
  return found


def _flax_array(code: int, data: bytes) -> np.ndarray:
  if code != _ARRAY:
    raise ValueError(f"an extension of type {code}")
  shape, dtype, raw = msgpack.unpackb(data, raw=True)
  name = dtype.decode("ascii", "replace") if isinstance(dtype, bytes) else ""
  if name not in _BY_NAME:
    raise ValueError(f"an array of dtype {name[:40]!r}")
  kind = _BY_NAME[name]
  if not _counts(shape) or len(raw) != math.prod(shape) * np.dtype(_FLOATS[kind]).itemsize:
    raise ValueError(f"an array of {len(raw)} bytes, which are not those of its shape")
  return Stored(kind, tuple(shape), lambda: raw).array()


def _leaves(tree: Any, path: pathlib.Path, names: tuple[str, ...]) -> Iterable:
  if isinstance(tree, np.ndarray):
    yield names, tree
  elif not isinstance(tree, dict) or len(names) > _DEEPEST:
    raise Unreadable(f"{path}: {'.'.join(names)[:100] or 'its root'} is no tree of arrays")
  elif _CHUNKED in tree:
    yield names, _joined(tree, path, names)
  else:
    for name, part in tree.items():
      if not isinstance(name, str):
        raise Unreadable(f"{path}: {name!r} is no name")
      yield from _leaves(part, path, (*names, name))


def _joined(tree: dict, path: pathlib.Path, names: tuple[str, ...]) -> np.ndarray:
  """An array that Flax had cut, since no object of msgpack may be so large."""
  try:
    shape, chunks = ([tree[k][str(i)] for i in range(len(tree[k]))] for k in ("shape", "chunks"))
    return np.concatenate(chunks).reshape(shape)
  except (KeyError, TypeError, ValueError) as error:
    raise Unreadable(f"{path}: the parts of {'.'.join(names)} make no array") from error


def write_safetensors(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes float32 tensors in the order of their names, whole or not at all."""
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  place = 0
  for name in sorted(arrays):
    shape, size = list(arrays[name].shape), 4 * arrays[name].size
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
    place += size
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # so that tensors begin at a multiple of eight
  part = path.with_name(f".{path.name}.{os.getpid()}")
  with part.open("wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for name in sorted(arrays):
      file.write(np.ascontiguousarray(arrays[name], "<f4").data)
  part.replace(path)
