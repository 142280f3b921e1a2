"""Tasks on sequences: their losses, what they score, and a run of text from the command line."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from looking import Page, opened

import launch
from models.layers.sequence import Prediction
from report import figures
from tasks import language_model, sequence_to_sequence, tokens
from tasks.objective import Examples
from tasks.views import Alignment, Alignments
from training import optim


def logits_of(shape, seed=0, scale=3.0):
  return scale * jax.random.normal(jax.random.key(seed), shape)


def test_smoothing_forms_are_the_published_ones():
  logits, targets = logits_of((2, 3, 7)), jnp.array([[1, 0, 6], [2, 2, 5]])
  hot = jax.nn.one_hot(targets, 7)
  log_p = jax.nn.log_softmax(logits)
  uniform, nll = tokens.smoothed_nll(logits, targets, smoothing=0.1)
  labels = optax.smooth_labels(hot, 0.1)
  np.testing.assert_allclose(uniform, -(labels * log_p).sum(-1), rtol=1e-5)
  others, _ = tokens.smoothed_nll(logits, targets, smoothing=0.1, form="others")
  np.testing.assert_allclose(
    others, -((0.9 * hot + 0.1 / 6 * (1 - hot)) * log_p).sum(-1), rtol=1e-5
  )
  np.testing.assert_allclose(nll, -(hot * log_p).sum(-1), rtol=1e-5)


@pytest.mark.parametrize(
  ("form", "size", "floor"),
  [
    ("others", 37_000, 1.3769476),
    ("uniform", 37_000, 1.3769132),
    ("others", 32_000, 1.3624290),
    ("uniform", 32_000, 1.3623897),
  ],
)
def test_the_least_smoothed_loss(form, size, floor):
  # Of predictions equal to the labels: gold 0.9 and the rest shared, or uniform shares everywhere.
  share = 0.1 / (size - 1) if form == "others" else 0.1 / size
  gold = 0.9 if form == "others" else 0.9 + share
  logits = jnp.full((1, 1, size), math.log(share)).at[0, 0, 3].set(math.log(gold))
  loss, _ = tokens.smoothed_nll(logits, jnp.array([[3]]), smoothing=0.1, form=form)
  assert float(loss[0, 0]) == pytest.approx(floor, abs=2e-5)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extreme_logits_have_finite_losses_and_gradients(scale):
  def loss(x):
    return tokens.smoothed_nll(x, jnp.array([[0, 2]]), smoothing=0.1)[0].sum()

  value, gradient = jax.value_and_grad(loss)(scale * jnp.eye(3)[None, :2])
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()


def batch_of_tokens(**more):
  rows = jnp.array([[5, 1, 2, 3, -1], [4, 4, 0, -1, -1], [1, 1, 1, 1, 1]])
  return {"tokens": rows, "mask": jnp.array([1.0, 1.0, 0.0]), **more}


def test_only_tokens_that_are_there_are_scored():
  counts = language_model.scored(batch_of_tokens())
  assert counts.tolist() == [[True, True, True, False], [True, True, False, False], [False] * 4]
  counts = language_model.scored(batch_of_tokens(context=jnp.array([2, 0, 0])))
  assert counts.tolist()[0] == [False, False, True, False]
  counts = language_model.scored(batch_of_tokens(segments=jnp.array([[1, 1, 2, 2, 0]] * 3)))
  assert counts.tolist()[0] == [True, False, True, False]


class Fixed:
  """Stands for a model that knows its logits."""

  def __init__(self, logits):
    self._logits = logits

  def apply(self, variables, *inputs, **options):
    return Prediction(self._logits, self._logits), {}


def test_bits_are_per_character_and_byte():
  logits = logits_of((3, 4, 6))
  batch = batch_of_tokens(characters=jnp.array([7, 4, 9]), bytes=jnp.array([8, 4, 9]))
  found = language_model.Task().measure(Fixed(logits))({}, {}, batch, jax.random.key(0))
  total = float(found["nll"].total)
  assert found["nll"].count == 5
  assert found["bits_per_character"].total / found["bits_per_character"].count == pytest.approx(
    total / math.log(2) / 11, rel=1e-5
  )
  assert float(found["bits_per_byte"].count) == 12  # the padded example's nine are nobody's
  derived = language_model.Task().derive({"nll": 2.0, "loss": 3.0})
  assert derived == {"perplexity": pytest.approx(math.exp(2))}
  assert tokens.perplexity({"nll": 1e4}) == {"perplexity": math.inf}


def test_noam_is_the_papers():
  # Equation 3 with D = 512 and 4,000 updates of warm-up.
  rate = optim.Adam(
    learning_rate=(512 * 4000) ** -0.5, schedule="inverse_sqrt", warmup_steps=4000
  ).rate(300_000)
  steps = [1, 100, 1000, 4000, 10_000, 100_000, 300_000]
  want = [1.746928e-07, 1.746928e-05, 1.746928e-04, 6.987712e-04, 4.419417e-04, 1.397542e-04]
  assert [float(rate(s - 1)) for s in steps] == pytest.approx([*want, 8.068715e-05], rel=1e-5)


def test_whole_sequences_count_only_when_all_of_them_is_right():
  test = Examples({"target": np.array([[9, 1, 2, 8, -1], [9, 3, 8, -1, -1]])})
  right = sequence_to_sequence._right
  assert right(np.array([[1, 2, 8, -1], [3, 8, -1, -1]]), test).tolist() == [True, True]
  assert right(np.array([[1, 2, 8], [3, 3, 8]]), test).tolist() == [True, False]
  assert right(np.array([[1, 2, 5, 5, 8], [3, -1, -1, -1, -1]]), test).tolist() == [False, False]


def test_alignments_are_drawn_with_their_tokens():
  weights = np.eye(3, 5)
  view = Alignments({"one": Alignment(weights, list("abc"), list("vwxyz"))}, "caption")
  assert (opened(figures.draw(view)) < 40).any()  # the black cells
  wrong = Alignments({"one": Alignment(weights, list("ab"), list("vwxyz"))}, "caption")
  with pytest.raises(ValueError, match="2 rows"):
    figures.draw(wrong)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """The arguments of an experiment on a small parallel text."""
  file = tmp_path_factory.mktemp("text") / "pairs.tsv"
  words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
  lines = [f"the number {a} and {b}\tdie Zahl {b} nach {a}" for a in words for b in words]
  file.write_text("\n".join(lines) + "\n")
  data = dict(name="parallel:files", path=str(file), tokenizer="characters", shared=True)
  data |= dict(batch_size=8, source_length=40, target_length=40)
  return ["--config=experiments/transformer/translation.py:smoke", f"--config.data={data}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, config):
  """A text model trained for four steps."""
  workdir = tmp_path_factory.mktemp("pairs") / "run"
  assert launch.main(["train", *config, f"--workdir={workdir}"]) == 0
  return workdir


def test_a_run_keeps_its_tokenizers_and_shows_its_texts(run):
  assert sorted(path.name for path in (run / "assets").iterdir())
  page = Page((run / "report.html").read_text())
  assert "reference" in page.text
  assert "decoded" in page.text
  found = json.loads((run / "evaluation.json").read_text())
  assert found["conditions"]["decoding"].startswith("beam 2")
  assert "version" in found["conditions"]["bleu signature"]
  assert {"exact_match", "bleu", "chrf"} <= set(found["splits"]["test"])


def test_prompts_are_answered_as_a_batch_and_alone(run, capsys):
  prompts = ["--prompt=the number one", "--prompt=ten and two"]
  options = ["sample", f"--workdir={run}", "--temperature=0", "--steps=11", "--no-stream"]
  assert launch.main([*options, *prompts]) == 0
  together = capsys.readouterr().out
  assert launch.main([*options, prompts[1]]) == 0
  alone = capsys.readouterr().out
  assert together.endswith(alone)
  assert (run / "samples" / "prompted_seed_0.txt").read_text().count("--- prompt") == 1


@pytest.mark.parametrize(
  ("option", "said"),
  [
    ("--temperature=-1", "temperature"),
    ("--top-p=0", "top_p"),
    ("--steps=0", "--steps=0"),
    ("--steps=500", "500 tokens"),
    ("--proposals=0", "--proposals=0"),
    ("--draft=/nowhere", "no workdir"),
  ],
)
def test_bad_options_of_a_prompt_are_one_line(run, capsys, option, said):
  assert launch.main(["sample", f"--workdir={run}", "--prompt=the number", option]) == 2
  error = capsys.readouterr().err.strip()
  assert said in error
  assert error.count("\n") == 0


def test_kept_checkpoints_are_averaged(run, capsys):
  assert launch.main(["evaluate", f"--workdir={run}", "--weights=average"]) == 0
  assert "average of 2 checkpoints" in capsys.readouterr().out


def test_another_tokenizer_is_refused(run, capsys):
  file = next((run / "assets").iterdir())
  whole = file.read_text()
  assert '"a"' in whole
  # Two letters change places: nothing else would notice.
  file.write_text(whole.replace('"a"', '"#"').replace('"e"', '"a"').replace('"#"', '"e"'))
  try:
    assert launch.main(["evaluate", f"--workdir={run}"]) == 4
    assert "not the one that the model was trained with" in capsys.readouterr().err
  finally:
    file.write_text(whole)


def test_a_tokenizer_is_trained_by_a_command(tmp_path, config, capsys):
  assert launch.main(["tokenizer", *config, f"--out={tmp_path / 'pairs.json'}"]) == 0
  files = capsys.readouterr().out.split()
  assert files
  for file in files:
    assert "vocab" in pathlib.Path(file).read_text()
  gaussian = "--config=experiments/vae/gaussian_digits.py:smoke"
  assert launch.main(["tokenizer", gaussian, f"--out={tmp_path / 'x.json'}"]) == 2
  assert "has no tokenizer" in capsys.readouterr().err
