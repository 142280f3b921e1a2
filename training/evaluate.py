"""Measuring a split: sums over every example once, on all devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from data.source import Source, padded_rows
from tasks.objective import Examples, Mean
from training.build import Stage, reading
from training.parallel import Parallel

# One fixed key for every run: a test set that is binarised, or a posterior that is sampled, is the
# same set and the same sample whatever the seed of the training.
_KEY = 2718281828
_KEPT = "what was trained"


class Measured(NamedTuple):
  """Metrics of a split as means over `examples` examples."""

  examples: int
  values: dict[str, float]


def evaluator(stage: Stage, parallel: Parallel) -> Callable[..., list[Measured]]:
  """Compiles `(params, mutable, split name, numbers) -> one Measured a member`.

  Without numbers, the stage's own.
  """
  source, shares = stage.source, parallel.shares
  batch_size = -(-source.eval_batch_size // shares) * shares
  compiled = parallel.measurer(stage)
  rng = jax.random.key(_KEY)
  own = parallel.join([stage.numbers] * parallel.members)

  def evaluate(params, mutable, name: str, numbers: Any = None) -> list[Measured]:
    with reading(source, _KEPT):
      split = source.split(name)
    numbers = own if numbers is None else numbers
    # A split smaller than a batch is not padded further than the devices need.
    size = min(batch_size, -(-len(split) // shares) * shares)
    sums, examples = {}, 0
    for rows, mask in padded_rows(len(split), size):
      with reading(source, _KEPT):
        stored = {**split.take(rows), "mask": mask}
      metrics = compiled(params, mutable, numbers, stored, rng, np.int32(examples))
      examples += int(mask.sum())
      for metric, mean in metrics.items():
        # float64: a sum over a large set outgrows float32's digits.
        part = np.array([mean.total, mean.count], np.float64).reshape(2, parallel.members)
        sums[metric] = sums[metric] + part if metric in sums else part
    found = []
    for i in range(parallel.members):
      values = {metric: _mean(*sums[metric][:, i]) for metric in sums}
      found.append(Measured(examples, {**values, **stage.task.derive(values)}))
    return found

  return evaluate


def examples(source: Source, name: str, *, most: int | None = None) -> Examples:
  """The first examples of a split as a model sees them, for figures and set-level scores."""
  with reading(source, _KEPT):
    split = source.split(name)
    count = len(split) if most is None else min(most, len(split))
    stored = split.take(np.arange(count))
  keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
    jax.random.fold_in(jax.random.key(_KEY), 0), np.arange(count)
  )
  seen = source.transform(dict(stored), keys, train=False)
  names = tuple(source.class_names) if hasattr(source, "class_names") else ()
  originals = source.originals(name) if hasattr(source, "originals") else {}
  arrays = {k: np.asarray(v) for k, v in seen.items()}
  return Examples(arrays, names, source.tokenizers(), originals)


def means(metrics: dict[str, Mean]) -> dict[str, float]:
  """Sums as means, on the host."""
  return {name: _mean(np.float64(m.total), float(m.count)) for name, m in metrics.items()}


def _mean(total: float, count: float) -> float:
  return float(total / max(count, 1e-8))
