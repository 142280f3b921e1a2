"""Prompts: how they are read, what is printed when, and that real models write what they should."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import tokenizers
from decoding.sampling import GREEDY, Sampling
from models.recurrent import language_model
from models.transformer import encoder_decoder, gpt
from training import prompting
from training.errors import ConfigError
from training.parallel import Caller
from training.prompting import Draft, Options, Run, Text, complete

ROW = (jax.ShapeDtypeStruct((1, 2), jnp.int32),)
WORDS = "In the beginning was the Word, 日本語 and été 😀."


@functools.cache
def tokenizer(kind="bytes", size=0):
  return tokenizers.train(kind, [WORDS], size)


class Stage:
  """What a caller asks of a stage."""

  def __init__(self, model):
    self.model = model

  def at(self, numbers):
    return self


def run_of(model, inputs, found, *, seed=0, **source):
  generator = np.random.default_rng(seed)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
  draw = lambda x: generator.normal(size=x.shape).astype(np.float32) * 0.4  # noqa: E731
  variables = jax.tree.map(draw, shapes)
  caller = Caller(Stage(model), {}, variables["params"], {}, compiled={})
  return Run(caller, types.SimpleNamespace(tokenizers=lambda: found, **source))


@functools.cache
def gpt_run(seed=0, kind="bytes", size=0, length=48):
  found = tokenizer(kind, size)
  model = gpt.Model(vocabulary=found.size, length=length, layers=2, features=16, heads=2)
  return run_of(model, ROW, {"tokens": found}, seed=seed, packing="documents")


@functools.cache
def gru_run():
  model = language_model.Model(tokenizer().size, cell="gru", layers=1, features=8)
  return run_of(model, ROW, {"tokens": tokenizer()}, packing="documents")


@functools.cache
def translator(seed=0, *, reverse_source=False):
  found, lengths = tokenizer(), dict(source_length=20, target_length=12)
  model = encoder_decoder.Model(
    found.size,
    found.size,
    **lengths,
    encoder_layers=1,
    decoder_layers=1,
    features=16,
    heads=2,
    mlp_features=16,
  )
  both = {"source": found, "target": found}
  return run_of(model, 2 * ROW, both, seed=seed, reverse_source=reverse_source)


def continued_by_hand(run, ids, steps):
  """Greedy tokens by whole forward passes, without a cache."""
  ids, before = list(ids), len(ids)
  row = np.full((1, before + steps), -1, np.int32)
  for _ in range(steps):
    row[0, : len(ids)] = ids
    ids.append(int(np.argmax(run.call(row).logits[0, len(ids) - 1])))
    if ids[-1] == tokenizer().eos:
      break
  return tuple(ids[before:])


# Text as it comes.


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12), st.text(max_size=4), st.integers(1, 5), st.binary(max_size=3))
def test_what_is_given_out_is_never_taken_back(text, prompt, size, noise):
  decode = lambda ids: bytes(ids).decode("utf-8", "replace")  # noqa: E731
  ids, before = list(text.encode() + noise), list(prompt.encode())
  chunks = [ids[i : i + size] for i in range(0, len(ids), size)]
  assert "".join(Text(decode, before).parts(chunks)) == decode(before + ids)[len(prompt) :]


def test_a_character_of_several_tokens_comes_whole():
  found = tokenizer()
  parts = list(Text(found.decode).parts([[token] for token in found.encode("a日é😀b")]))
  assert "\ufffd" not in "".join(parts)
  assert "".join(parts) == "a日é😀b"
  assert sum(bool(part) for part in parts) > 2  # and not all at the end


def test_text_that_later_tokens_join_is_not_repeated():
  joined = {(): "", (1,): "he", (1, 2): "he '", (1, 2, 3): "he's", (1, 2, 3, 4): "he's in"}
  assert "".join(Text(lambda ids: joined[tuple(ids)]).parts([[1], [2], [3], [4]])) == "he's in"
  assert "".join(Text(lambda ids: joined[tuple(ids)], [1, 2]).parts([[3, 4]])) == "'s in"


def test_a_model_does_not_steer_the_terminal(capsys):
  prompting.show("a\x1b[2J\x00\x7f\x9bé\n\t日")
  assert capsys.readouterr().out == "a␛[2J␀␡\ufffdé\n\t日"


# Reading prompts.


def test_prompts_begin_as_documents_do():
  run, bytes_ = gpt_run(), tokenizer()
  reading = prompting._Reading(run)
  assert reading.encoded("hi", Options(steps=4)) == [bytes_.bos, *b"hi"]
  run.source.packing = "stream"
  assert reading.encoded("hi", Options(steps=4)) == [bytes_.eos, *b"hi"]
  run.source.packing = "documents"
  batch = reading.batch([[1, 2, 3], [4]])
  assert batch.shape == (2, 16)
  assert [list(row[row >= 0]) for row in batch] == [[1, 2, 3], [4]]
  assert (batch[:, -1] >= 0).all()


def test_sources_are_read_as_they_are_trained_on():
  eos = tokenizer().eos
  assert prompting._Reading(translator()).encoded("abc", Options(steps=4)) == [*b"abc", eos]
  turned = prompting._Reading(translator(reverse_source=True))
  assert turned.encoded("abc", Options(steps=4)) == [*b"cba", eos]
  batch = turned.batch([[1, 2, 3], [4]])
  assert (batch[:, 0] >= 0).all()
  assert batch.shape[1] <= 20


def test_a_prompt_too_long_is_refused_or_cut():
  reading, text = prompting._Reading(gpt_run()), "x" * 40 + "y" * 40
  assert len(reading.encoded("x" * 37, Options(steps=11))) == 38  # 10 of them are read again
  with pytest.raises(ConfigError, match=r"59 tokens.*48 positions"):
    reading.encoded("x" * 48, Options(steps=11))
  with pytest.raises(ConfigError, match="49 tokens"):
    reading.encoded("x", Options(steps=49, cut=True))
  assert reading.encoded(text, Options(steps=11, cut=True)) == [*b"y" * 38]
  reading = prompting._Reading(translator())
  with pytest.raises(ConfigError, match=r"81 tokens.*20 positions"):
    reading.encoded(text, Options(steps=4))
  assert reading.encoded(text, Options(steps=4, cut=True)) == [*b"x" * 19, tokenizer().eos]


def test_what_cannot_be_is_refused():
  reading = prompting._Reading(gpt_run())
  assert reading.stops(["\n", "\n"]) == (tokenizer().eos, 10)
  with pytest.raises(ConfigError, match="2 tokens"):
    reading.stops(["ab"])
  for wrong in ({"steps": 0}, {"beams": 0}, {"length_penalty": -1.0}):
    with pytest.raises(ConfigError):
      Options(**wrong)
  run = gpt_run()
  with pytest.raises(ConfigError, match="no tokenizer"):
    complete(Run(run.call, types.SimpleNamespace(tokenizers=dict)), ["a"], Options())
  other = gpt_run(kind="characters")
  with pytest.raises(ConfigError, match="draft's tokenizer"):
    complete(run, ["a"], Options(steps=2), draft=Draft(other))


# Real models.


def test_a_text_is_what_whole_forward_passes_give(capsys):
  prompts = ["In the", "W", "beginning of"]
  found = complete(gpt_run(), prompts, Options(steps=9, sampling=GREEDY))
  for prompt, one in zip(prompts, found, strict=True):
    ids = [tokenizer().bos, *prompt.encode()]
    assert one.tokens == continued_by_hand(gpt_run(), ids, 9)
    assert one.text == tokenizer().decode(one.tokens)
  assert capsys.readouterr().out.count("--- ") == 3


def test_streaming_prints_the_same_text(capsys):
  options = dict(steps=21, sampling=Sampling(temperature=0.9), seed=3)
  (streamed,) = complete(gpt_run(), ["In the"], Options(**options))
  printed = capsys.readouterr().out
  (whole,) = complete(gpt_run(), ["In the"], Options(**options, stream=False))
  assert streamed.log_probability == pytest.approx(whole.log_probability, rel=1e-4)
  assert streamed._replace(log_probability=whole.log_probability) == whole
  assert printed == capsys.readouterr().out
  assert len(streamed.tokens) == 21 or streamed.stopped
  (other,) = complete(gpt_run(), ["In the"], Options(**{**options, "seed": 4}, stream=False))
  assert other.tokens != whole.tokens


@pytest.mark.parametrize("draft", ["transformer", "recurrent"])
def test_a_draft_changes_no_greedy_text(draft, capsys):
  prompts, options = ["In the", "W"], Options(steps=9, sampling=GREEDY)
  alone = complete(gpt_run(), prompts, options)
  run = gpt_run() if draft == "transformer" else gru_run()
  drafted = complete(gpt_run(), prompts, options, draft=Draft(run, 3))
  assert [one.tokens for one in drafted] == [one.tokens for one in alone]
  assert [one.log_probability for one in drafted] == pytest.approx(
    [one.log_probability for one in alone], abs=1e-4
  )
  said = capsys.readouterr().out
  assert ("100.0% of" in said) == (draft == "transformer")


def test_a_source_is_turned_into_a_target(tmp_path):
  prompts = ["abc", "In the beginning"]
  options = Options(steps=6, sampling=GREEDY)
  found = complete(translator(), prompts, options)
  for prompt, one in zip(prompts, found, strict=True):
    ids, eos = [tokenizer().bos], tokenizer().eos
    source = np.array([[*prompt.encode(), eos]], np.int32)
    while len(ids) < 7 and ids[-1] != eos:
      row = np.full((1, 7), -1, np.int32)
      row[0, : len(ids)] = ids
      logits = translator().call(source, row).logits
      ids.append(int(np.argmax(logits[0, len(ids) - 1])))
    assert one.tokens == tuple(ids[1:])
  drafted = complete(translator(), prompts, options, draft=Draft(translator(1), 2))
  assert [one.tokens for one in drafted] == [one.tokens for one in found]
  (best,) = complete(translator(), prompts[:1], Options(steps=6, beams=4))
  assert best.log_probability >= found[0].log_probability - 1e-4
  file = prompting.save(tmp_path / "samples", [*found, best], options)
  text = file.read_text(encoding="utf-8")
  assert text.count("--- prompt") == 3
  assert best.text in text
