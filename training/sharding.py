"""Which axis of a parameter is split along which axis of the mesh.

Tensor parallelism after Shoeybi et al. 2019, "Megatron-LM", arXiv:1909.08053, section 3: a layer's
first product is split by columns and its second by rows, so that between them nothing is
communicated, and each block costs one sum over devices after attention and one after the MLP, and
as many backwards. The embedding is split by vocabulary, and with it the logits.

Fully sharded data parallelism after Rajbhandari et al. 2020, "ZeRO", arXiv:1910.02054, stage 3: of
what is left, the largest axis that divides.

Rules are of the ends of paths, and their axes are counted from the last one, so they hold for the
parameters of a stack of layers, for averages of them and for an optimizer's moments.
"""

import math
import re
from collections.abc import Mapping, Sequence

_MODEL = "model"
# (end of the path, axes of the mesh along the last axes of the parameter)
_RULES = (
  (r"attention/(query|key|value)/kernel", (None, _MODEL, None)),  # [D, heads, H]
  (r"attention/(query|key|value)/bias", (_MODEL, None)),
  (r"attention/output/kernel", (_MODEL, None, None)),  # [heads, H, D]
  (r"mlp/(up|gate)/kernel", (None, _MODEL)),
  (r"mlp/(up|gate)/bias", (_MODEL,)),
  (r"mlp/down/kernel", (_MODEL, None)),
  (r"(^|/)((source|target)_)?(un)?embedding", (_MODEL, None)),  # [vocabulary, D], not positions
)
# What a name of models/layers/placement.py is split along.
ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
  "batch": ("data", "fsdp"),
  "heads": (_MODEL,),
  "hidden": (_MODEL,),
  "vocabulary": (_MODEL,),
}
_SMALLEST_SHARD = 1024  # leaves of fewer elements are cheaper to copy than to gather

Axes = tuple[str | tuple[str, ...] | None, ...]


def parameter(path: str, shape: Sequence[int], mesh: Mapping[str, int]) -> Axes:
  """The axis of the mesh, or None, for each axis of a leaf of the state.

  Args:
    path: of the leaf, separated by slashes.
    shape: of the leaf.
    mesh: sizes of the mesh's axes by name.
  """
  axes = _tensor_parallel(path, shape, mesh)
  size = mesh["fsdp"]
  if size > 1 and math.prod(shape) >= _SMALLEST_SHARD:
    # Along the layers of a stack nothing is split: each device would have to ask for each layer.
    first = 1 if _stacked(path) else 0
    free = [i for i in range(first, len(shape)) if axes[i] is None and shape[i] % size == 0]
    if free:
      axes[max(free, key=lambda i: shape[i])] = "fsdp"
  return tuple(axes)


def _tensor_parallel(path: str, shape: Sequence[int], mesh: Mapping[str, int]) -> list[str | None]:
  axes: list[str | None] = [None] * len(shape)
  for end, split in _RULES:
    if mesh[_MODEL] > 1 and len(split) <= len(shape) and re.search(f"{end}$", path):
      last = zip(range(len(shape) - len(split), len(shape)), split, strict=True)
      for i, axis in last:
        if axis is not None and shape[i] % mesh[axis] == 0:
          axes[i] = axis
      break
  return axes


def _stacked(path: str) -> bool:
  return any(part.endswith("layers") for part in path.split("/")[:-1])


def activation(names: Sequence[str], shape: Sequence[int], mesh: Mapping[str, int]) -> Axes:
  """The axes of the mesh for each axis of an activation whose axes are named."""
  axes = []
  for name, size in zip(names, shape, strict=True):
    split = ACTIVATIONS[name] if name in ACTIVATIONS else ()
    parts = math.prod(mesh[axis] for axis in split)
    axes.append(split if parts > 1 and size % parts == 0 else None)
  return tuple(axes)


def shard_size(shape: Sequence[int], axes: Axes, mesh: Mapping[str, int]) -> int:
  """Elements of a leaf on each device."""
  count = 1
  for i, size in enumerate(shape):
    split = axes[i] if i < len(axes) else None
    names = (split,) if isinstance(split, str) else split or ()
    count *= size // math.prod(mesh[name] for name in names)
  return count
