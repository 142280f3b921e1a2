"""Scores of translations by sacreBLEU, with the signatures that say exactly which ones they are.

Post 2018, "A Call for Clarity in Reporting BLEU Scores", arXiv:1804.08771. BLEU: Papineni et al.
2002; chrF: Popovic 2015.
"""

import functools
from collections.abc import Sequence

import sacrebleu.metrics


@functools.cache
def _metrics():
  return {"bleu": sacrebleu.metrics.BLEU(), "chrf": sacrebleu.metrics.CHRF()}


def scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
  """Corpus BLEU and chrF in percent, one reference each.

  BLEU counts runs of up to four words: where no reference has four, there is none.

  Raises:
    ValueError: there is nothing to score, or not one reference each.
  """
  if not hypotheses or len(hypotheses) != len(references):
    counts = f"{len(hypotheses)} translations and {len(references)} references"
    raise ValueError(f"{counts} have no score")
  metrics = dict(_metrics())
  if all(len(reference.split()) < 4 for reference in references):
    del metrics["bleu"]
  return {
    name: float(metric.corpus_score(list(hypotheses), [list(references)]).score)
    for name, metric in metrics.items()
  }


def signatures() -> dict[str, str]:
  """What every setting of the scores is, by name of the score."""
  found = {}
  for name, metric in _metrics().items():
    metric.corpus_score(["a"], [["a"]])  # a signature counts references, so it needs some
    found[f"{name} signature"] = str(metric.get_signature())
  return found
