"""Sequences x1 f(x1) x2 f(x2) ... of functions that nobody was told: learning within a context.

After Garg, Tsipras, Liang & Valiant 2022, "What Can Transformers Learn In-Context? A Case Study of
Simple Function Classes", arXiv:2208.01066. A function is drawn for every sequence, its arguments
afresh each time the sequence is seen; what it is can only be read off the examples before. The
functions of the three splits are different ones, so on held-out functions nothing can be recalled.

Differs from the paper: functions of few arguments with few values, both of them tokens, instead of
linear functions of vectors.

Axes: N rows, F functions, X arguments, K examples of a sequence, B sequences.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from data import source

_SPLITS = ("test", "validation", "train")  # in this order off the permutation of all functions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(source.Source):
  """`table` int32 [arguments], the values of a row's function.

  A model sees `tokens` int32 [2 K], arguments 0..X-1 and values X..2X-1 in turn; `scored` int32
  [2 K - 1], 1 where the target is a value; and `repeated` int32 [K], 1 where the argument has
  occurred before, so that copying would do.

  Attributes:
    functions: "affine": f(x) = a x + b modulo `arguments`, a not 0, which two examples tell apart
      where `arguments` is a prime; "tables": any value for any argument, where only the same
      argument tells.
    arguments: X, how many arguments and values there are.
    examples: K, pairs of a sequence.
    tables: F, functions of the class "tables", drawn once; of "affine" all are there.
    test: share of the functions that is held out for testing.
    validation: share held out for validation.
    train_functions: only the first so many of the others are trained on; 0 means all.
    train_examples: rows to train on, which go through the functions again and again.
    test_examples: rows to test on, and to validate on.
  """

  functions: Literal["affine", "tables"] = "affine"
  arguments: Annotated[int, "[2, inf)"] = 7
  examples: Annotated[int, "[1, inf)"] = 12
  tables: Annotated[int, "[3, inf)"] = 20_000
  test: Annotated[float, "(0, 1)"] = 0.2
  validation: Annotated[float, "[0, 1)"] = 0.0
  train_functions: Annotated[int, "[0, inf)"] = 0
  train_examples: Annotated[int, "[1, inf)"] = 8192
  test_examples: Annotated[int, "[1, inf)"] = 2000

  def facts(self) -> Mapping[str, Any]:
    return {"vocabulary": 2 * self.arguments, "length": 2 * self.examples - 1}

  def spec(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return {"table": jax.ShapeDtypeStruct((self.arguments,), np.int32)}

  def conditions(self) -> Mapping[str, str]:
    found = ", ".join(f"{name} {len(self.pools[name])}" for name in reversed(_SPLITS))
    return {"functions": f"{self.functions} of {self.arguments} arguments ({found})"}

  @functools.cached_property
  def pools(self) -> dict[str, np.ndarray]:
    """By split, the tables [F, X] of its functions, no two of them alike."""
    every = _affine(self.arguments) if self.functions == "affine" else self._drawn()
    order = np.random.RandomState(0).permutation(len(every))
    first = round(self.test * len(every))
    second = first + round(self.validation * len(every))
    rest = order[second:][: self.train_functions or None]
    parts = zip(_SPLITS, (order[:first], order[first:second], rest), strict=True)
    found = {name: every[rows] for name, rows in parts}
    if not (len(found["train"]) and len(found["test"])):
      raise ValueError(f"{len(every)} functions are too few to train on some and test on others")
    return found

  def _drawn(self) -> np.ndarray:
    generator = np.random.RandomState(1)
    return np.unique(generator.randint(self.arguments, size=(self.tables, self.arguments)), axis=0)

  @functools.cached_property
  def _splits(self) -> dict[str, source.Split]:
    found = {}
    for name, pool in self.pools.items():
      rows = self.train_examples if name == "train" else self.test_examples
      places = np.arange(rows if len(pool) else 0) % max(len(pool), 1)
      found[name] = source.Arrays({"table": pool[places].astype(np.int32)})
    return found

  def split(self, name: str) -> source.Split:
    return self._splits[name]

  def transform(self, batch: source.Batch, keys: jax.Array, *, train: bool) -> source.Batch:
    shape = (self.examples,)
    draw = lambda key: jax.random.randint(key, shape, 0, self.arguments, jnp.int32)  # noqa: E731
    arguments_BK = jax.vmap(draw)(keys)
    values_BK = jnp.take_along_axis(batch["table"], arguments_BK, axis=1)
    pairs_BK2 = jnp.stack([arguments_BK, values_BK + self.arguments], axis=-1)
    tokens_BT = pairs_BK2.reshape(len(arguments_BK), 2 * self.examples)
    same_BKK = arguments_BK[:, :, None] == arguments_BK[:, None, :]
    before_KK = jnp.tri(self.examples, k=-1, dtype=bool)
    is_value_T = jnp.arange(1, 2 * self.examples, dtype=jnp.int32) % 2
    return {
      **batch,
      "tokens": tokens_BT,
      "scored": jnp.broadcast_to(is_value_T, (len(tokens_BT), len(is_value_T))),
      "repeated": (same_BKK & before_KK).any(-1).astype(jnp.int32),
    }

  def fingerprint(self) -> str:
    digest = hashlib.sha256(repr((self.functions, self.examples)).encode())
    for name in _SPLITS:
      table = self.split(name).arrays["table"]
      digest.update(f"{name} {table.shape}".encode() + table.tobytes())
    return digest.hexdigest()


def _affine(modulus: int) -> np.ndarray:
  """[m (m - 1), m] the values of a x + b modulo m, for every a but 0 and every b."""
  a, b, x = np.ogrid[1:modulus, :modulus, :modulus]
  return ((a * x + b) % modulus).reshape(-1, modulus)
