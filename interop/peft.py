"""Adapters of low rank as PEFT keeps them: adapter_model.safetensors and adapter_config.json.

Hu et al. 2021, "LoRA", arXiv:2106.09685. Ours lie as they act on rows, x (W + (alpha / r) a b) with
a [in, r] and b [r, out], those of a stack of layers with its first axis; theirs are lora_A [r, in]
and lora_B [out, r] of each layer. Where one matrix of theirs is several of ours (GPT-2's queries,
keys and values), the adapters of several are one of so many times the rank, in blocks.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from interop import huggingface, mapping, tensors
from interop.errors import Unreadable
from interop.mapping import Row, Sizes

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_BEFORE = "base_model.model."
_LARGEST = 1e9  # rank or alpha
_TASKS = {
  "ForCausalLM": "CAUSAL_LM",
  "LMHeadModel": "CAUSAL_LM",
  "ForSequenceClassification": "SEQ_CLS",
  "ForTokenClassification": "TOKEN_CLS",
  "ForQuestionAnswering": "QUESTION_ANS",
  "ForConditionalGeneration": "SEQ_2_SEQ_LM",
  "MTModel": "SEQ_2_SEQ_LM",
}
# What would change the sum W + (alpha / r) B A, and what it is where it changes nothing.
_PLAIN = {
  "use_dora": (False, None),
  "use_rslora": (False, None),
  "lora_bias": (False, None),
  "bias": ("none", None),
  "alora_invocation_tokens": (None,),
  "layers_to_transform": (None,),
  "trainable_token_indices": (None,),
  "target_parameters": (None, []),
  "megatron_config": (None,),
  "loftq_config": (None, {}),
}


class Adapters(NamedTuple):
  """Adapters from elsewhere.

  Attributes:
    adapters: by the path of the kernel that they belong to, "a" [L, in, r] and "b" [L, r, out].
    rank: r.
    alpha: the product counts alpha / r times.
    targets: the paths.
    params: parameters that were trained themselves, a new head for instance.
  """

  adapters: dict[str, dict[str, np.ndarray]]
  rank: int
  alpha: float
  targets: tuple[str, ...]
  params: dict[str, Any]


class _Matrix(NamedTuple):
  """One of their matrices as the product of inputs and outputs.

  Attributes:
    row: of the table.
    inputs: the letters of its inputs, in our order.
    outputs: likewise of outputs, of one of ours where it holds several.
    input: which of their two axes has the inputs.
  """

  row: Row
  inputs: tuple[str, ...]
  outputs: tuple[str, ...]
  input: int

  @property
  def stacked(self) -> bool:
    """Whether ours has a first axis of layers, though they be one."""
    return "{" in self.row.theirs or () in mapping.sides(self.row.axes)[1]

  @property
  def module(self) -> str:
    """Theirs, with a layer in braces."""
    return self.row.theirs.removesuffix(".weight")


def _matrices(rows: Sequence[Row]) -> dict[str, _Matrix]:
  """Those that have adapters, by the path of ours."""
  found = {}
  for row in rows:
    left, right = mapping.sides(row.axes)
    if not row.theirs.endswith(".weight") or len(left) != 2 or not row.paths:
      continue
    ours = [group for group in right if group]
    ours = ours[len(row.paths) > 1 :]
    for path in row.paths:
      *_, layer, leaf = ("", *path.split("/"))
      if leaf == "kernel" and len(ours) > 1:
        count = 2 if layer in ("query", "key", "value") and len(ours) == 3 else 1
        inputs, outputs = (
          tuple(a for group in groups for a in group) for groups in (ours[:-count], ours[-count:])
        )
        found[path] = _Matrix(row, inputs, outputs, int(set(left[1]) == set(inputs)))
  return found


def _order(matrix: _Matrix, sizes: Sizes, ours: tuple[str, ...], axis: int) -> np.ndarray:
  """Of each of our features of one side, its place among theirs; of one of ours, where several."""
  theirs = [a for a in mapping.sides(matrix.row.axes)[0][axis] if a in ours]
  places = np.arange(int(np.prod([sizes[a] for a in theirs]))).reshape([sizes[a] for a in theirs])
  return places.transpose([theirs.index(a) for a in ours]).reshape(-1)


def write(
  directory: str | pathlib.Path,
  adapters: Mapping[str, Any],
  *,
  rank: int,
  alpha: float,
  model: Mapping[str, Any],
  params: Mapping[str, Any] | None = None,
  base: str = "",
) -> None:
  """Writes adapters for `peft.PeftModel.from_pretrained`.

  Args:
    directory: it is made.
    adapters: a tree, or by path, that ends in "a" and "b" at the kernels that it adapts.
    rank: r.
    alpha: see above.
    model: all settings of the model that they belong to, as in interop/huggingface.py.
    params: parameters that were trained themselves, whole layers of a head.
    base: where the model is, for who reads the adapters.

  Raises:
    Unreadable: PEFT has no place for them.
  """
  family, head = huggingface.head_of(model)
  sizes, rows = family.sizes(model), family.table(model, head, base=head.base)
  matrices, leaves = _matrices(rows), mapping.flat(adapters)
  pairs: dict[str, dict[str, np.ndarray]] = {}
  for path, leaf in leaves.items():
    kernel, _, letter = path.rpartition("/")
    if kernel not in matrices or letter not in ("a", "b"):
      raise Unreadable(f"PEFT has no place for adapters of {kernel or path}")
    pairs.setdefault(kernel, {})[letter] = np.asarray(leaf, np.float32)
  arrays: dict[str, np.ndarray] = {}
  ranks = {}
  for row in dict.fromkeys(matrices[path].row for path in pairs):
    one = matrices[next(path for path in row.paths if path in pairs)]
    own = [pairs[path] if path in pairs else None for path in row.paths]
    found, width = _joined(one, own, sizes, rank)
    arrays |= found
    if width != rank:
      ranks[_module(row)] = width
  whole = _whole(rows, mapping.flat(params or {}), sizes)
  said = {
    "peft_type": "LORA",
    "task_type": next((v for k, v in _TASKS.items() if head.architecture.endswith(k)), None),
    "base_model_name_or_path": base or None,
    "r": rank,
    "lora_alpha": alpha,
    "lora_dropout": 0.0,
    "bias": "none",
    "fan_in_fan_out": any(matrices[path].input == 0 for path in pairs),
    "target_modules": sorted({_module(matrices[path].row) for path in pairs}),
    "rank_pattern": ranks,
    "alpha_pattern": {name: alpha * width / rank for name, width in ranks.items()},
    "modules_to_save": sorted({name.rpartition(".")[0] for name in whole}) or None,
    "inference_mode": True,
  }
  directory = tensors.place(directory)
  directory.mkdir(parents=True, exist_ok=True)
  tensors.write_safetensors(
    directory / WEIGHTS, {f"{_BEFORE}{name}": array for name, array in (arrays | whole).items()}
  )
  (directory / CONFIG).write_text(json.dumps(said, indent=2, sort_keys=True), encoding="utf-8")


def _module(row: Row) -> str:
  """What PEFT looks for at the end of a module's name: what is behind the layer's number."""
  return row.theirs.removesuffix(".weight").rpartition("}.")[2]


def _joined(
  matrix: _Matrix, own: Sequence[Mapping[str, np.ndarray] | None], sizes: Sizes, rank: int
) -> tuple[dict[str, np.ndarray], int]:
  """(lora_A and lora_B of each layer, their rank) of a matrix, of one of ours or several."""
  names = matrix.row.names(sizes)
  into = np.argsort(_order(matrix, sizes, matrix.inputs, matrix.input))
  out = np.argsort(_order(matrix, sizes, matrix.outputs, 1 - matrix.input))
  there = [one for one in own if one is not None]
  for one in there:
    shapes = (len(names), len(into), rank), (len(names), rank, len(out))
    stacked = [one[k] if matrix.stacked else one[k][None] for k in ("a", "b")]
    if set(one) != {"a", "b"} or tuple(x.shape for x in stacked) != shapes:
      raise Unreadable(f"adapters of {matrix.module} are not of {shapes[0]} and {shapes[1]}")
  together = len(there) == len(own) and all(np.array_equal(x["a"], there[0]["a"]) for x in there)
  width = rank if together else rank * len(there)
  found = {}
  for layer, name in enumerate(names):
    parts = [
      None
      if one is None
      else tuple((one[k][layer] if matrix.stacked else one[k]) for k in ("a", "b"))
      for one in own
    ]
    a = [part[0][into].T for part in parts if part]
    b = np.zeros((len(own), len(out), width), np.float32)
    column = 0
    for index, part in enumerate(parts):
      if part:
        b[index, :, column : column + rank] = part[1][:, out].T
        column += 0 if together else rank
    module = name.removesuffix(".weight")
    found[f"{module}.lora_A.weight"] = a[0] if together else np.concatenate(a)
    found[f"{module}.lora_B.weight"] = b.reshape(-1, width)
  return found, width


def _whole(rows: Sequence[Row], params: Mapping[str, Any], sizes: Sizes) -> dict[str, np.ndarray]:
  found = {}
  for row in rows:
    if row.paths and set(row.paths) <= set(params):
      arrays = [np.asarray(params[path], np.float32) for path in row.paths]
      found |= dict(zip(row.names(sizes), mapping.to_theirs(row, arrays, sizes), strict=True))
  left = set(params) - {path for row in rows for path in row.paths}
  if left:
    raise Unreadable(f"PEFT has no place for {', '.join(sorted(left)[:3])}")
  return found


def read(directory: str | pathlib.Path, model: Mapping[str, Any]) -> Adapters:
  """The adapters in a directory, of a model of ours with these settings.

  Raises:
    Unreadable: they are damaged, belong to another model, or do more than our adapters.
  """
  directory = tensors.place(directory)
  path = tensors.inside(directory, CONFIG)
  said = tensors.read_json(path)
  for key, plain in _PLAIN.items():
    if key in said and not any(said[key] is p or said[key] == p for p in plain):
      raise Unreadable(f"{path}: {key} is {said[key]!r}, which our adapters do not know"[:200])
  rank, alpha = said.get("r"), said.get("lora_alpha")
  if said.get("peft_type") != "LORA" or not _is_number(rank, whole=True) or rank < 1:
    raise Unreadable(f"{path}: no LoRA with a rank")
  if not _is_number(alpha):
    raise Unreadable(f"{path}: lora_alpha is {str(alpha)[:40]!r}")
  family, head = huggingface.head_of(model)
  sizes, rows = family.sizes(model), family.table(model, head, base=head.base)
  stored = tensors.renamed(
    tensors.safetensors(tensors.inside(directory, WEIGHTS)),
    lambda name: name.removeprefix(_BEFORE),
    directory,
  )
  matrices = {matrix.row: matrix for matrix in _matrices(rows).values()}
  adapters: dict[str, dict[str, np.ndarray]] = {}
  used: set[str] = set()
  for row, matrix in matrices.items():
    modules = [name.removesuffix(".weight") for name in row.names(sizes)]
    names = [f"{module}.lora_{letter}.weight" for module in modules for letter in "AB"]
    if not any(name in stored for name in names):
      continue
    width = stored[names[0]].shape[0] if names[0] in stored and stored[names[0]].shape else 0
    shapes = _shapes(matrix, sizes, width)
    mapping.compare(
      {name: shapes[index % 2] for index, name in enumerate(names)},
      {name: stored[name].shape for name in names if name in stored},
      directory,
    )
    _check_scale(said, row, width, path)
    adapters |= _parted(matrix, [stored[name].array() for name in names], sizes, rank)
    used |= set(names)
  left = {name: tensor for name, tensor in stored.items() if name not in used}
  own = [row for row in rows if row.names(sizes)[0] in left]
  params = mapping.read(own, left, sizes, directory)
  return Adapters(adapters, rank, float(alpha), tuple(adapters), mapping.nested(params))


def _is_number(value: Any, *, whole: bool = False) -> bool:
  kinds = int if whole else int | float
  known = isinstance(value, kinds) and not isinstance(value, bool)
  return known and abs(value) <= _LARGEST


def _shapes(matrix: _Matrix, sizes: Sizes, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
  shape = matrix.row.shapes(sizes)[0]
  return (width, shape[matrix.input]), (shape[1 - matrix.input], width)


def _check_scale(said: Mapping[str, Any], row: Row, width: int, path: pathlib.Path) -> None:
  """Raises Unreadable where a module's own rank and alpha are not in the proportion of all."""
  rank, alpha = said["r"], said["lora_alpha"]
  own = {}
  for key, usual in (("rank_pattern", rank), ("alpha_pattern", alpha)):
    patterns = said.get(key) or {}
    if not isinstance(patterns, dict) or not all(map(_is_number, patterns.values())):
      raise Unreadable(f"{path}: {key} is not numbers by name")
    name = next((p for p in patterns if row.theirs.removesuffix(".weight").endswith(p)), None)
    own[key] = usual if name is None else patterns[name]
  if own["rank_pattern"] != width or not np.isclose(own["alpha_pattern"] * rank, alpha * width):
    raise Unreadable(f"{path}: rank or alpha of {_module(row)} are not in the proportion of all")


def _parted(
  matrix: _Matrix, arrays: Sequence[np.ndarray], sizes: Sizes, rank: int
) -> dict[str, dict[str, np.ndarray]]:
  """Our adapters of a matrix, by path, from lora_A and lora_B of every layer in turn."""
  into = _order(matrix, sizes, matrix.inputs, matrix.input)
  out = _order(matrix, sizes, matrix.outputs, 1 - matrix.input)
  paths = matrix.row.paths
  a_LIR = np.stack([array.T[into] for array in arrays[::2]])
  b_PLOR = np.stack([array.reshape(len(paths), len(out), -1) for array in arrays[1::2]], axis=1)
  found = {}
  for path, b_LOR in zip(paths, b_PLOR, strict=True):
    columns = np.flatnonzero(b_LOR.any((0, 1)))
    if len(paths) > 1 and a_LIR.shape[-1] > rank:
      if not len(columns):
        continue  # an adapter of the others alone
      first = columns[0] // rank * rank
      if columns[-1] >= first + rank:
        raise Unreadable(f"adapters of {matrix.module} are of rank {a_LIR.shape[-1]}, not {rank}")
      own = slice(first, first + rank)
    else:
      own = slice(None)
    found[path] = {
      "a": np.ascontiguousarray(a_LIR[..., own]),
      "b": np.ascontiguousarray(b_LOR[:, out][..., own].transpose(0, 2, 1)),
    }
    if not matrix.stacked:
      found[path] = {letter: array[0] for letter, array in found[path].items()}
  return found
