"""A model's directory as Hugging Face publishes it: read into our settings and parameters, or made.

  config.json                         what the model is; interop/families has a table for each kind
  model.safetensors                   its tensors, or shards of them with an index, or
  flax_model.msgpack                  those of the Flax models that Transformers had before 5
  tokenizer.json, vocab.txt, ...      how text becomes ids: interop/tokenizers.py
  modules.json, 1_Pooling             how a sentence becomes a vector: interop/sentences.py

What is in a file that no parameter of ours holds, what is missing, or a setting that no model of
ours has, is an error: `Unreadable`, a line. Nothing is guessed but which architecture of its family
a file is, where it contains other tensors than config.json says.
"""

import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from interop import mapping, sentences, tensors, tokenizers
from interop.errors import Unreadable
from interop.family import Family, Head, families, json_name
from interop.tensors import Stored

# Of models that hold several, the one that is worth having elsewhere, and what it is.
_OWN = {
  "transformer.aligned": ("policy", "transformer.gpt"),
  "transformer.rlhf": ("policy", "transformer.gpt"),
  "transformer.distilled": ("student", "transformer.encoder"),
}
_LONG = 512  # tokens, of a model without a bound
_OLD_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class Imported(NamedTuple):
  """A model from elsewhere.

  Attributes:
    model: the settings of ours, with its `name`.
    params: its parameters, a tree of NumPy arrays in float32.
    tokenizer: a file that data/tokenizers.py reads, or None.
    family: the `model_type`.
    architecture: the class of Transformers that it is.
    class_names: of a classifier, in the order of its classes; none where config.json names none.
  """

  model: dict[str, Any]
  params: dict[str, Any]
  tokenizer: pathlib.Path | None
  family: str
  architecture: str
  class_names: tuple[str, ...] = ()


def read(directory: str | pathlib.Path) -> Imported:
  """The model in a directory.

  Raises:
    Unreadable: there is none, it is damaged, or none of ours is like it.
  """
  directory = tensors.place(directory)
  if not directory.is_dir():
    raise Unreadable(f"{directory}: no such directory; models are read from directories")
  path = tensors.inside(directory, "config.json")
  said = tensors.read_json(path)
  family = _family(said, path)
  stored = tensors.renamed(tensors.weights(directory), _renamed, directory)
  head, base = _architecture(family, said, path, stored)
  model = family.model_of(said, head, path)
  sizes, rows = _table(family, model, head, path, base=base)
  kept = _parameters(family, stored, rows, sizes, directory, base=base)
  params = mapping.read(rows, kept, sizes, directory)
  if head.model == "transformer.sentence_encoder":
    model |= sentences.read(directory)
  found = tokenizers.find(directory)
  names = _class_names(said, model["classes"]) if "classes" in model else ()
  return Imported(model, mapping.nested(params), found, family.kind, head.architecture, names)


def _class_names(said: Mapping[str, Any], classes: int) -> tuple[str, ...]:
  """What `id2label` says, if it names every class by a text."""
  own = said.get("id2label")
  names = [own.get(str(i)) for i in range(classes)] if isinstance(own, dict) else [None]
  return tuple(names) if all(isinstance(name, str) for name in names) else ()


def _family(said: Mapping[str, Any], path: pathlib.Path) -> Family:
  kind, known = said.get("model_type"), families()
  if not isinstance(kind, str) or kind not in known:
    raise Unreadable(
      f"{path}: model_type is {json_name(kind)}; those with a model of ours: {', '.join(known)}"
    )
  return known[kind]


def _renamed(name: str) -> str:
  """Names of 2018, which had TensorFlow's for norms."""
  for old, new in _OLD_NORMS.items():
    if name.endswith(old):
      return name.removesuffix(old) + new
  return name


def _architecture(
  family: Family, said: Mapping[str, Any], path: pathlib.Path, stored: Mapping[str, Stored]
) -> tuple[Head, bool]:
  """The architecture whose tensors are those of a file, and whether names have no prefix.

  config.json's own comes first; where none fits, it is that one which is complained of.
  """
  declared = said.get("architectures")
  if not isinstance(declared, list) or not declared or not isinstance(declared[0], str):
    declared = [family.heads[0].architecture]
  heads = sorted(family.heads, key=lambda head: head.architecture != declared[0])
  best, reason = None, None
  for head in heads:
    own = head.architecture == heads[0].architecture
    try:
      model = family.model_of(said, head, path)
      for base in (head.base, not head.base):
        sizes, rows = _table(family, model, head, path, base=base)
        if len(stored) < max(sizes[a] for a in ("l", "m") if a in sizes):
          _one_layer_at_least(rows, sizes, len(stored), path)
        names = set(mapping.expected(rows, sizes))
        wrong = len(names ^ set(_kept(family, stored, names, sizes, base=base)))
        if not wrong:
          return head, base
        if best is None or (own and wrong < best[0]):
          best = wrong, head, base
    except Unreadable as error:
      if own:
        raise
      reason = reason or error
  if declared[0] not in {head.architecture for head in family.heads}:
    raise Unreadable(
      f"{path}: architectures is {json_name(declared[0])}; those with a model of ours:"
      f" {', '.join(dict.fromkeys(head.architecture for head in family.heads))}"
    )
  return best[1:]


def _one_layer_at_least(rows, sizes, count: int, path: pathlib.Path) -> None:
  """Raises Unreadable where config.json speaks of more layers than a file has tensors."""
  if any("{" in row.theirs for row in rows):
    layers = max(sizes[letter] for letter in ("l", "m") if letter in sizes)
    raise Unreadable(f"{path}: {layers:,} layers, and the file has {count} tensors in all")


def _table(family: Family, model, head: Head, where: object, *, base: bool):
  """(sizes, rows) of a model.

  Raises:
    Unreadable: a size is zero, or does not divide as it must.
  """
  try:
    sizes, rows = family.sizes(model), family.table(model, head, base=base)
  except Unreadable as error:
    raise Unreadable(f"{where}: {error}") from error
  used = set(re.findall(r"[a-z]", " ".join(row.axes for row in rows)))
  nothing = sorted(letter for letter in used if sizes[letter] < 1)
  if nothing:
    raise Unreadable(f"{where}: a size is zero: letter {nothing[0]} of {type(family).__name__}")
  return sizes, rows


def _kept(
  family: Family, stored: Mapping[str, Stored], names: set[str], sizes, *, base: bool
) -> Iterator[str]:
  """The names of a file that are, or should be, parameters."""
  prefix = "" if base else family.prefix
  repeated = {name.replace("@", prefix) for name in family.copies}
  buffers = _pattern(family.buffers, prefix)
  for name in stored:
    if name in names or not (name in repeated or (buffers and buffers.fullmatch(name))):
      yield name


def _pattern(names, prefix: str) -> re.Pattern | None:
  patterns = (re.sub(r"\\\{\w\\\}", r"\\d+", re.escape(n.replace("@", prefix))) for n in names)
  return re.compile("|".join(patterns)) if names else None


def _parameters(
  family: Family, stored: Mapping[str, Stored], rows, sizes, directory, *, base: bool
) -> dict[str, Stored]:
  """Those tensors of a file that are parameters; of the others, what they must be is checked."""
  prefix = "" if base else family.prefix
  names = set(mapping.expected(rows, sizes))
  for name, origin in family.copies.items():
    copy, origin = (x.replace("@", prefix) for x in (name, origin))
    if copy in stored and copy not in names and origin in stored:
      same = stored[copy].shape == stored[origin].shape
      if not same or not np.array_equal(stored[copy].array(), stored[origin].array()):
        raise Unreadable(f"{directory}: {copy} is not {origin}, with which our model ties it")
  for name, check in family.checks.items():
    name = name.replace("@", prefix)
    if name in stored and not check(stored[name].array(), sizes):
      raise Unreadable(f"{directory}: {name} is not what our model computes there")
  return {name: stored[name] for name in _kept(family, stored, names, sizes, base=base)}


def write(
  directory: str | pathlib.Path,
  model: Mapping[str, Any],
  params: Mapping[str, Any],
  *,
  tokenizer: str | pathlib.Path | None = None,
  architecture: str | None = None,
  class_names: Sequence[str] = (),
) -> str:
  """Writes a directory that `from_pretrained` of Transformers reads; returns the architecture.

  Args:
    directory: it is made; files of these names in it are replaced.
    model: all settings of ours, with its `name` and what the data says of it.
    params: its parameters.
    tokenizer: a tokenizer.json, its path or its text.
    architecture: the class of Transformers, where several are the same model of ours.
    class_names: of a classifier, in the order of its classes.

  Raises:
    Unreadable: no format holds the model.
  """
  directory = tensors.place(directory)
  model = dict(model)
  if model["name"] in _OWN:
    own, model["name"] = _OWN[model["name"]]
    params = params[own]
  if model["name"] == "transformer.sentence_encoder":
    # The classifier of pairs that it was trained through is none of a sentence's vector.
    params = {name: tree for name, tree in params.items() if name != "head"}
  leaves = {path: np.asarray(leaf) for path, leaf in mapping.flat(params).items()}
  family, head = target(model, leaves, architecture)
  said = family.config_of(model, head)
  if class_names and "id2label" in said:
    said["id2label"] = {str(i): name for i, name in enumerate(class_names)}
    said["label2id"] = {name: i for i, name in enumerate(class_names)}
  sizes, rows = _table(family, model, head, model["name"], base=head.base)
  arrays = mapping.write(rows, leaves, sizes, model["name"])
  length = model["length"] if "length" in model else 0
  files = tokenizers.files(tokenizer, family.kind, length or _LONG)
  said |= tokenizers.special_ids(files, said)
  files["config.json"] = (json.dumps(said, indent=2, sort_keys=True) + "\n").encode()
  if head.model == "transformer.sentence_encoder":
    files |= sentences.files(model)
  directory.mkdir(parents=True, exist_ok=True)
  tensors.write_safetensors(directory / tensors.WEIGHTS, arrays)
  for name, content in files.items():
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(content)
  return head.architecture


def head_of(model: Mapping[str, Any]) -> tuple[Family, Head]:
  """The family and the architecture of a model of ours, by its settings alone.

  Raises:
    Unreadable: there is none, with what each of those that come near objects to.
  """
  return min(_able(model, None), key=lambda one: one[0])[2:]


def target(
  model: Mapping[str, Any], leaves: Mapping[str, np.ndarray], architecture: str | None = None
) -> tuple[Family, Head]:
  """The family and the architecture that a model of ours is written as.

  Of several that could hold it, it is the one that needs the fewest tensors of zeros.

  Raises:
    Unreadable: none can; with what each of them objects to.
  """
  able = _able(model, architecture)
  wrong = [len(set(leaves) ^ paths) for _, paths, _, _ in able]
  least = [one for one, count in zip(able, wrong, strict=True) if count == min(wrong)]
  return min(least, key=lambda one: one[0])[2:]


def _able(model: Mapping[str, Any], architecture: str | None):
  """(tensors of zeros, paths of ours, family, architecture) of all that know a model's settings."""
  found, objections = [], []
  for family in families().values():
    for head in family.heads:
      if head.model != model["name"] or architecture not in (None, head.architecture):
        continue
      try:
        family.config_of(model, head)
        _, rows = _table(family, model, head, model["name"], base=head.base)
      except Unreadable as error:
        objections.append(str(error))
        continue
      paths = {path for row in rows for path in row.paths}
      found.append((sum(not row.paths for row in rows), paths, family, head))
  if not found and objections:
    raise Unreadable(f"{model['name']}: {'; '.join(dict.fromkeys(objections))}")
  if not found:
    named = f" as {architecture}" if architecture else ""
    raise Unreadable(f"no format of Hugging Face is known for {model['name']}{named}")
  return found
