"""How a sentence becomes a vector: the files that Sentence-Transformers puts beside an encoder.

Reimers & Gurevych 2019, "Sentence-BERT", arXiv:1908.10084, section 3: of the tokens' features the
mean, the largest, or those of the first token; all-MiniLM-L6-v2 then divides by the length.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from interop import tensors
from interop.errors import Unreadable

MODULES = "modules.json"
_KIND = "sentence_transformers.models."
_MODES = {
  "pooling_mode_mean_tokens": "mean",
  "pooling_mode_cls_token": "first",
  "pooling_mode_max_tokens": "max",
}


def read(directory: pathlib.Path) -> dict[str, Any]:
  """Settings of models/transformer/sentence_encoder.py; none where the files are not there.

  Raises:
    Unreadable: they ask for what our model does not do.
  """
  if not (directory / MODULES).exists():
    return {}
  path = tensors.inside(directory, MODULES)
  modules = tensors.read_any_json(path)
  try:
    kinds = [module["type"].split(".")[-1] for module in modules]
    places = [module["path"] for module in modules]
  except (KeyError, TypeError, AttributeError) as error:
    raise Unreadable(f"{path}: no list of modules with type and path") from error
  if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]) or places[0]:
    raise Unreadable(
      f"{path}: modules {', '.join(map(str, kinds))[:100]}, and our sentence encoder knows"
      " Transformer, Pooling and Normalize, in this order"
    )
  return {"pooling": _pooling(directory, places[1]), "normalised": len(kinds) > 2}


def _pooling(directory: pathlib.Path, place: str) -> str:
  if not isinstance(place, str):
    raise Unreadable(f"{directory / MODULES}: {place!r} is no folder in it")
  path = tensors.inside(tensors.folder(directory, place), "config.json")
  said = tensors.read_json(path)
  asked = [key for key, value in said.items() if key.startswith("pooling_mode") and value]
  if len(asked) == 1 and said[asked[0]] is not True:  # newer files name it
    asked = [f"pooling_mode_{said[asked[0]]}_tokens".replace("cls_tokens", "cls_token")]
  if len(asked) != 1 or asked[0] not in _MODES:
    raise Unreadable(
      f"{path}: {', '.join(asked)[:100] or 'no pooling'}, and our sentence encoder knows one of"
      f" {', '.join(_MODES)}"
    )
  return _MODES[asked[0]]


def files(model: Mapping[str, Any]) -> dict[str, bytes]:
  """The files beside an encoder, by name, from its settings."""
  kinds = ["Transformer", "Pooling", "Normalize"][: 3 if model["normalised"] else 2]
  modules = [
    {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"{_KIND}{kind}"}
    for i, kind in enumerate(kinds)
  ]
  pooling = {key: mode == model["pooling"] for key, mode in _MODES.items()}
  pooling |= {"pooling_mode_mean_sqrt_len_tokens": False}
  pooling |= {"word_embedding_dimension": model["features"]}
  found = {
    MODULES: modules,
    "1_Pooling/config.json": pooling,
    "sentence_bert_config.json": {"max_seq_length": model["length"], "do_lower_case": False},
  }
  return {name: json.dumps(content, indent=2).encode() for name, content in found.items()}
