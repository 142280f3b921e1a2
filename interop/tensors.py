"""Named tensors in files: safetensors, in one piece or in shards, and Flax's msgpack.

A file is not trusted (docs/security.md). Everything it says of itself is checked against its size
before anything is allocated; nothing outside of its directory is opened; nothing that could run
code (pickles: .bin, .pt, .ckpt, .pkl) is opened at all.

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
# Bytes of JSON, a header for instance. Python makes up to 30 times as much of them; a model's take
# some hundred bytes a tensor.
_MAX_JSON = 2_000_000
_DEEPEST = 32  # axes of a tensor, and levels of names in a msgpack file
_NAMES = 100_000  # in a msgpack file
_LARGEST = 2**63  # bytes that NumPy can count
_LONGEST_NAME = 255  # bytes of a file's name
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
      found = (found.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
      found = found.astype(np.float32, copy=False)
    if not np.isfinite(found).all():
      raise Unreadable("a tensor with what is no finite number of float32")
    return found


def place(path: str | pathlib.Path) -> pathlib.Path:
  """A path that may begin with ~, or ~ and a name; it stays as it is where nobody has the name."""
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError:
    return pathlib.Path(path)


def inside(directory: pathlib.Path, name: str) -> pathlib.Path:
  """The file `name` of a directory, which neither the name nor a link may lead out of.

  Raises:
    Unreadable: it does, or there is no such file.
  """
  path = _within(directory, name)
  if not path.is_file():
    raise Unreadable(f"{path}: no such file")
  return path


def folder(directory: pathlib.Path, name: str) -> pathlib.Path:
  """The folder `name` of a directory, likewise.

  Raises:
    Unreadable: as above.
  """
  path = _within(directory, name)
  if not path.is_dir():
    raise Unreadable(f"{path}: no such folder")
  return path


def _within(directory: pathlib.Path, name: str) -> pathlib.Path:
  plain = name and name == pathlib.PurePosixPath(name).name and not set(name) & {"\\", "\0"}
  if not plain or len(name.encode(errors="replace")) > _LONGEST_NAME:
    raise Unreadable(f"{directory}: {name[:100]!r} is no plain name in it")
  path = directory / name
  try:
    stays = path.resolve().is_relative_to(directory.resolve())
  except (OSError, ValueError, RuntimeError) as error:  # half a surrogate pair, links in a circle
    raise Unreadable(f"{directory}: {name[:100]!r} leads nowhere ({error})") from error
  if not stays:
    raise Unreadable(
      f"{path} is a link that leaves the directory: copy the files themselves"
      " (hf download --local-dir)"
    )
  return path


def read_json(path: pathlib.Path, *, most: int = _MAX_JSON) -> dict[str, Any]:
  """The object that a JSON file of at most so many bytes holds.

  Raises:
    Unreadable: it holds none.
  """
  found = read_any_json(path, most=most)
  if not isinstance(found, dict):
    raise Unreadable(f"{path}: JSON, but no object")
  return found


def read_any_json(path: pathlib.Path, *, most: int = _MAX_JSON) -> Any:
  """Whatever a JSON file of at most so many bytes holds.

  Raises:
    Unreadable: it holds no JSON.
  """
  with path.open("rb") as file:
    text = file.read(most + 1)
  if len(text) > most:
    raise Unreadable(f"{path}: {path.stat().st_size:,} bytes of JSON, more than {most:,}")
  return _json(text, path)


def _json(text: bytes, path: pathlib.Path) -> Any:
  """JSON by its standard: Python's own reader takes more, and other programs then read less."""

  def once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
      raise ValueError("a name stands twice")
    for name in found:
      name.encode()  # half a surrogate pair is no text
    return found

  def refuse(word):
    raise ValueError(f"{word} is no number")

  # The standard's -0 is no natural number.
  whole = lambda word: float(word) if word == "-0" else int(word)  # noqa: E731
  try:
    return json.loads(
      text.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse, parse_int=whole
    )
  except (ValueError, RecursionError) as error:
    raise Unreadable(f"{path}: no JSON: {str(error)[:100]}") from error


def renamed(
  found: Mapping[str, Stored], rename: Callable[[str], str], where: object
) -> dict[str, Stored]:
  """Tensors by other names.

  Raises:
    Unreadable: two would have one name.
  """
  result = {rename(name): tensor for name, tensor in found.items()}
  if len(result) < len(found):
    raise Unreadable(f"{where}: two tensors are the same one under an old name and a new one")
  return result


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
    if length > min(size - 8, _MAX_JSON):
      raise Unreadable(
        f"{path}: a header of {length:,} bytes, in a file of {size:,}; at most {_MAX_JSON:,}"
      )
    header = _json(file.read(length), path)
  if not isinstance(header, dict):
    raise Unreadable(f"{path}: JSON, but no object")
  _check_metadata(header.pop("__metadata__", None), path)
  whole = np.memmap(path, np.uint8, "r")
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


def _check_metadata(said: Any, path: pathlib.Path) -> None:
  """Raises Unreadable where it is not text by name; what it says is not looked at."""
  texts = said.values() if isinstance(said, dict) else () if said is None else (said,)
  try:
    for text in texts:
      text.encode()
  except (AttributeError, UnicodeEncodeError) as error:
    raise Unreadable(f"{path}: its __metadata__ is not text by name") from error


def _entry(entry: Any, what: str, room: int) -> tuple[str, tuple[int, ...], int, int]:
  """(dtype, shape, begin, end) of one tensor's line in a header."""
  if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
    raise Unreadable(f"{what} is not described by dtype, shape and data_offsets")
  dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
  if not isinstance(dtype, str) or dtype not in _DTYPES:
    raise Unreadable(f"{what} is of an unknown dtype, {str(dtype)[:40]!r}")
  if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
    raise Unreadable(f"{what} has a shape or offsets that are no natural numbers")
  if len(shape) > _DEEPEST:
    raise Unreadable(f"{what} has {len(shape)} axes, more than {_DEEPEST}")
  begin, end = offsets
  if not begin <= end <= room:
    raise Unreadable(f"{what} is at bytes {begin} to {end}, of {room}")
  needed = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
  if end - begin != needed:
    raise Unreadable(f"{what} has {end - begin} bytes, and its shape {shape} needs {needed}")
  # Of no elements, it still counts its axes.
  if math.prod(size or 1 for size in shape) * 8 >= _LARGEST:
    raise Unreadable(f"{what} has the axes {shape}, which no memory has")
  return dtype, tuple(shape), begin, end


def _counts(values: Any) -> bool:
  return isinstance(values, list | tuple) and all(
    isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST
    for value in values
  )


def flax(path: pathlib.Path) -> dict[str, Stored]:
  """The tensors of a flax_model.msgpack, in the names and layout of PyTorch's files.

  The Flax models of Transformers 4 were PyTorch's with other names: `kernel`, whose last axis is
  the output, for a matrix whose first is; `scale` and `embedding` for `weight`.

  Raises:
    Unreadable: it is no such file.
  """
  names = 0

  def once(pairs):
    nonlocal names
    names += len(pairs)
    found = dict(pairs)
    if names > _NAMES or len(found) < len(pairs) or not all(isinstance(k, str) for k in found):
      raise ValueError("too many names, a name that stands twice, or one that is no text")
    return found

  try:
    tree = msgpack.unpackb(
      path.read_bytes(),
      ext_hook=_flax_array,
      object_pairs_hook=once,
      max_map_len=_NAMES,
      max_array_len=0,  # it would be allocated as long as it says it is, and a tree has none
    )
  except (Unreadable, ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
    raise Unreadable(f"{path}: no msgpack of Flax: {str(error)[:100]}") from error
  if isinstance(tree, dict) and set(tree) == {"params"}:
    tree = tree["params"]
  if not isinstance(tree, dict) or _CHUNKED in tree:
    raise Unreadable(f"{path}: its root is no tree of arrays")
  found = {}
  for names, array in _leaves(tree, path, ()):
    *before, last = names
    if last == "kernel":
      # Linear [in, out], and convolutions [height, width, in, out].
      array, last = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T, "weight"
    elif last in ("scale", "embedding"):
      last = "weight"
    name = ".".join([*before, last])
    if name in found:
      raise Unreadable(f"{path}: {name} is there under two names")
    found[name] = Stored("F32", array.shape, lambda array=array: np.ascontiguousarray(array).data)
  return found


def _flax_array(code: int, data: bytes) -> np.ndarray:
  if code != _ARRAY:
    raise ValueError(f"an extension of type {code}")
  shape, dtype, raw = msgpack.unpackb(data, raw=True, max_array_len=_DEEPEST, max_map_len=0)
  name = dtype.decode("ascii", "replace") if isinstance(dtype, bytes) else ""
  if name not in _BY_NAME:
    raise ValueError(f"an array of dtype {name[:40]!r}")
  if not isinstance(raw, bytes):
    raise ValueError("an array whose content is no bytes")
  dtype, shape, *_ = _entry(
    {"dtype": _BY_NAME[name], "shape": shape, "data_offsets": [0, len(raw)]}, "an array", len(raw)
  )
  return Stored(dtype, shape, lambda: raw).array()


def _leaves(tree: Any, path: pathlib.Path, names: tuple[str, ...]) -> Iterable:
  if isinstance(tree, np.ndarray):
    yield names, tree
  elif not isinstance(tree, dict) or len(names) > _DEEPEST:
    raise Unreadable(f"{path}: {'.'.join(names)[:100]} is no tree of arrays")
  elif _CHUNKED in tree:
    yield names, _joined(tree, path, names)
  else:
    for name, part in tree.items():
      yield from _leaves(part, path, (*names, name))


def _joined(tree: dict, path: pathlib.Path, names: tuple[str, ...]) -> np.ndarray:
  """An array that Flax had cut, since no object of msgpack may be so large."""
  shape, chunks = (_numbered(tree[k] if k in tree else None) for k in ("shape", "chunks"))
  what = f"{path}: {'.'.join(names)}, in parts,"
  if not chunks or not all(isinstance(part, np.ndarray) and part.ndim == 1 for part in chunks):
    raise Unreadable(f"{what} make no array")
  size = sum(part.nbytes for part in chunks)
  _entry({"dtype": "F32", "shape": shape, "data_offsets": [0, size]}, what, size)
  return np.concatenate(chunks).reshape(shape)


def _numbered(tree: Any) -> list | None:
  """The values of a dict by "0", "1" and so on, as Flax writes a list; None of anything else."""
  if not isinstance(tree, dict) or set(tree) != {str(i) for i in range(len(tree))}:
    return None
  return [tree[str(i)] for i in range(len(tree))]


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
