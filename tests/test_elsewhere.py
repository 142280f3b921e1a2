"""Weights from and to Hugging Face's directories by the command line's own ways, and questions."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest
from test_models import close
from test_prompting import run_of
from test_resume import one_device

from data import tokenizers
from interop import huggingface
from models.transformer import (
  bert,
  classifier,
  encoder,
  gpt,
  sentence_encoder,
  t5,
  token_classifier,
)
from training import asking, config, elsewhere, look
from training import workdir as workdirs
from training.build import build
from training.errors import CheckpointError, ConfigError
from training.loop import Stop
from training.machine import Machines
from training.run import Run, fit
from training.workdir import Workdir

WORDS = "in the beginning god created the heaven and the earth"


# Runs to and from directories


def trained(found, path):
  """A run as `train` leaves it, without its figures."""
  experiment = one_device(build(found))
  workdir = Workdir(path)
  try:
    workdir.claim(experiment.config, changed=False)
    with Stop() as stop:
      state, _, _ = fit([Run(experiment, workdir, ["test"])], Machines(), stop=stop)
  finally:
    workdir.close()
  return experiment, state


def smoke(name, **top):
  return config.load(f"experiments/bert/{name}.py:smoke").to_dict() | top


def adapted_classifier(**more):
  """The experiment with adapters, which here tell the genre of a verse."""
  found = smoke("lora_kjv", **more)
  stage = found["stages"][1]
  stage["model"]["name"] = "transformer.classifier"
  stage["task"]["name"] = "text_classify"
  stage["data"]["name"] = "labelled_text:kjv_genre"
  return found


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
  """A classifier whose encoder has adapters, with an average of its parameters; and both exports."""
  path = tmp_path_factory.mktemp("adapted")
  found = adapted_classifier()
  found["stages"][1]["training"] |= dict(ema_decay=0.5)
  experiment, state = trained(found, path / "run")
  for kind in ("hf", "peft"):
    look.export(str(path / "run"), f"{kind}:{path / kind}")
  return path, experiment, state


def test_an_averaged_adapted_run_is_the_same_in_transformers(adapted):
  pytest.importorskip("torch", reason="PyTorch is not installed")
  transformers = pytest.importorskip("transformers", reason="requirements-oracles.txt")
  import torch

  path, experiment, state = adapted
  stage = experiment.stages[1]
  batch = stage.source.split("test").take(np.arange(4))
  assert state.ema is not None
  out = stage.model.apply({"params": state.ema}, *stage.task.inputs(batch))
  theirs = transformers.AutoModelForSequenceClassification.from_pretrained(path / "hf").eval()
  with torch.no_grad():
    found = theirs(
      torch.tensor(np.maximum(batch["tokens"], 0)).long(),
      attention_mask=torch.tensor(batch["tokens"] >= 0),
      token_type_ids=torch.tensor(batch["types"]).long(),
    ).logits.numpy()
  close(out.logits, found)
  raw = stage.model.apply({"params": state.params}, *stage.task.inputs(batch))
  assert np.abs(raw.logits - found).max() > 1e-5
  assert theirs.config.id2label[0] == "law"


def test_its_tokenizer_reads_as_ours_in_transformers(adapted):
  transformers = pytest.importorskip("transformers", reason="requirements-oracles.txt")
  path, experiment, _ = adapted
  theirs = transformers.AutoTokenizer.from_pretrained(path / "hf")
  ours = experiment.stages[1].source.tokenizers()["tokens"]
  text = "And the earth was without form"
  assert theirs(text)["input_ids"] == [ours.bos, *ours.encode(text), ours.eos]


def test_an_export_comes_back_bit_for_bit(adapted, tmp_path):
  path, experiment, _ = adapted
  run = elsewhere.opened(f"hf:{path / 'hf'}")
  assert isinstance(run.call.model, classifier.Model)
  assert run.source.class_names[0] == "law"
  found = huggingface.read(path / "hf")
  huggingface.write(
    tmp_path / "again",
    found.model,
    found.params,
    tokenizer=found.tokenizer,
    class_names=found.class_names,
  )
  for name in ("model.safetensors", "config.json", "tokenizer.json"):
    assert (tmp_path / "again" / name).read_bytes() == (path / "hf" / name).read_bytes()


def stage_from(place, **model):
  """The second stage of the experiment alone, which begins with what is elsewhere."""
  found = adapted_classifier(init_from=place)
  (_, alone) = found.pop("stages")
  alone.pop("name")
  alone["model"] |= model
  found |= alone
  found["training"] |= dict(steps=1)
  return found


def test_a_run_begins_with_what_is_elsewhere(adapted, capsys):
  path, _, state = adapted
  found = build(stage_from(f"hf:{path / 'hf'}", lora=None))
  before = elsewhere.before(found)
  assert set(before.params) == {name for name in state.params if name != "lora"}
  key = "position_embedding"
  np.testing.assert_array_equal(before.params[key], state.ema[key])
  state = Machines().of(found.stages[0]).initial([jax.random.key(0)], [before])
  np.testing.assert_array_equal(state.params[key], before.params[key])


def test_adapters_begin_with_those_of_a_directory(adapted, tmp_path):
  path, _, state = adapted
  shutil.copytree(path / "peft", tmp_path / "peft")
  said = json.loads((tmp_path / "peft/adapter_config.json").read_text())
  said["base_model_name_or_path"] = str(path / "hf")
  (tmp_path / "peft/adapter_config.json").write_text(json.dumps(said))
  found = build(stage_from(f"peft:{tmp_path / 'peft'}"))
  before = elsewhere.before(found)
  first = Machines().of(found.stages[0]).initial([jax.random.key(0)], [before])
  for group in ("lora", "head"):
    jax.tree.map(np.testing.assert_array_equal, first.params[group], state.ema[group])


@pytest.mark.parametrize(
  ("place", "model", "said"),
  [
    ("hf:{}/nowhere", {}, "no such directory"),
    ("hf:{}/hf", dict(features=32), "embedding is"),
    ("peft:{}/peft", {}, "base_model_name_or_path"),
    ("peft:{}/peft", dict(lora=None), "model.lora"),
  ],
)
def test_what_does_not_fit_is_refused_in_a_line(adapted, place, model, said):
  path, _, _ = adapted
  found = build(stage_from(place.format(path), **model))

  def begun():
    before = elsewhere.before(found)
    return Machines().of(found.stages[0]).initial([jax.random.key(0)], [before])

  with pytest.raises((CheckpointError, ConfigError), match=said) as error:
    begun()
  assert "\n" not in str(error.value)


def test_a_checkpoint_without_its_tensors_exits_with_4(adapted, tmp_path):
  path, _, _ = adapted
  shutil.copytree(path / "hf", tmp_path / "hf")
  data = bytearray((tmp_path / "hf/model.safetensors").read_bytes())
  length = int.from_bytes(data[:8], "little")
  header = json.loads(data[8 : 8 + length])
  name = "bert.embeddings.LayerNorm.weight"
  header["bert.embeddings.LayerNorn.weight"] = header.pop(name)
  text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
  (tmp_path / "hf/model.safetensors").write_bytes(data[:8] + text + data[8 + length :])
  with pytest.raises(CheckpointError, match=name) as error:
    elsewhere.opened(f"hf:{tmp_path / 'hf'}")
  assert error.value.status == 4
  assert "LayerNorn" in str(error.value)


@pytest.mark.parametrize(
  ("to", "said"), [("DIR", "neither"), ("hf:", "neither"), ("onnx:x", "neither")]
)
def test_exports_go_to_known_places(adapted, to, said):
  with pytest.raises(ConfigError, match=said):
    look.export(str(adapted[0] / "run"), to)


def written(directory, model, *inputs, **settings):
  """A model with random weights in Hugging Face's layout, with the tokenizer of the tests."""
  found = model.Model(**settings)
  params = found.init({"params": jax.random.key(0)}, *inputs)["params"]
  own = {f.name: getattr(found, f.name) for f in dataclasses.fields(found) if f.init}
  kept = {k: v for k, v in own.items() if k not in ("parent", "dtype", "remat")}
  kept["name"] = model.__name__.removeprefix("models.")
  huggingface.write(directory, kept, params, tokenizer=tokenizer().to_json())
  return found, params


def test_models_from_elsewhere_write(tmp_path, capsys):
  size, row = tokenizer().size, np.zeros((1, 4), np.int32)
  sizes = dict(features=16, heads=2, dropout=0.0, attention_dropout=0.0)
  model, params = written(
    tmp_path / "gpt", gpt, row, vocabulary=size, length=32, layers=1, init_std=0.5, **sizes
  )
  place, prompt = f"hf:{tmp_path / 'gpt'}", "in the beginning"
  look.prompt(place, [prompt], dict(temperature=0), dict(steps=5, stream=False))
  ids = [tokenizer().bos, *tokenizer().encode(prompt)]
  for _ in range(5):
    logits = model.apply({"params": params}, np.array([ids], np.int32)).logits
    ids.append(int(logits[0, -1].argmax()))
    if ids[-1] == tokenizer().eos:
      break
  assert capsys.readouterr().out.split() == tokenizer().decode(ids).split()[3:]
  written(
    tmp_path / "t5", t5, row, row, vocabulary=size, encoder_layers=1, decoder_layers=1,
    mlp_features=16, **sizes,
  )  # fmt: skip
  run = elsewhere.opened(f"hf:{tmp_path / 't5'}")
  assert run.source.tokenizers()["target"].bos == 0  # what T5 begins to write with
  look.prompt(f"hf:{tmp_path / 't5'}", [prompt], dict(temperature=0), dict(steps=3, stream=False))
  assert capsys.readouterr().out


# Questions


def tokenizer():
  return tokenizers.train("wordpiece", [WORDS] * 3, 60)


def asked(module, **options):
  found = tokenizer()
  sizes = dict(vocabulary=found.size, length=24, layers=2, features=16, heads=2, types=2)
  model = module.Model(**sizes, **options)
  source = {key: options.pop(key) for key in ("class_names",) if key in options}
  shape = jax.ShapeDtypeStruct((1, 4), np.int32)
  return run_of(model, (shape,), {"tokens": found}, **source)._replace(mask=found.unknown)


@pytest.mark.parametrize(
  ("module", "question"),
  [
    (encoder, "fill-mask"),
    (bert, "fill-mask"),
    (classifier, "classify"),
    (token_classifier, "classify"),
    (sentence_encoder, "similarity"),
    (gpt, None),
  ],
)
def test_a_model_says_what_it_is_asked(module, question):
  assert asking.question(module.Model(vocabulary=5, length=4, features=8, heads=2)) == question


def test_a_mask_is_filled_with_the_likeliest_tokens(capsys):
  run = asked(encoder)
  found = tokenizer()
  lines = asking.answer(run, "fill-mask", ["in the [MASK] god", "the <mask>"])
  assert capsys.readouterr().out == "".join(f"{line}\n" for line in lines)
  ids = [found.bos, *found.encode("in the"), found.unknown, *found.encode("god"), found.eos]
  alone = run.call(np.array([ids], np.int32), None, np.zeros((1, len(ids)), np.int32))
  p = jax.nn.softmax(alone.logits[0, ids.index(found.unknown)])
  best = np.argsort(-p)[:5]
  assert lines[1:6] == [f"  {p[i]:.3f}  {found.token(int(i))}" for i in best]
  assert len(lines) == 12


def test_texts_are_ranked_by_the_cosine_of_their_vectors():
  run, texts = asked(sentence_encoder), ["the earth", "in the beginning", "the earth", "created"]
  lines = asking.answer(run, "similarity", texts)
  assert lines[:2] == ["the earth", "  +1.000  the earth"]
  cosines = [float(line.split()[0]) for line in lines[1:]]
  assert cosines == sorted(cosines, reverse=True)
  # Any encoder compares, by the mean of its features.
  assert len(asking.answer(asked(encoder), "similarity", texts)) == 4


def test_classes_are_named_with_their_probabilities():
  run = asked(classifier, classes=3)
  run = run._replace(source=types.SimpleNamespace(**vars(run.source), class_names=("a", "b", "c")))
  lines = asking.answer(run, "classify", ["the earth"], ["created"])
  shares = {line.split()[1]: float(line.split()[0]) for line in lines[1:]}
  assert set(shares) == {"a", "b", "c"}
  assert sum(shares.values()) == pytest.approx(1, abs=2e-3)
  assert asking.answer(run, "classify", ["the earth"], ["heaven"]) != lines
  every = asking.answer(asked(token_classifier, classes=2), "classify", ["the earth"])
  assert [line.split()[0] for line in every[1:]] == ["the", "earth"]


def test_padding_changes_no_answer():
  run = asked(classifier, classes=3)
  (alone, *_), texts = [asking.answer(run, "classify", ["the earth"])], ["the earth", WORDS]
  assert asking.answer(run, "classify", texts)[:4] == alone


def test_attention_is_drawn_for_every_layer_and_head(tmp_path):
  asking.answer(asked(classifier), "classify", ["in the beginning"], folder=tmp_path / "samples")
  assert (tmp_path / "samples/attention.png").stat().st_size > 1000


@pytest.mark.parametrize(
  ("module", "question", "prompts", "pairs", "said"),
  [
    (encoder, "fill-mask", ["the earth"], [], "hides nothing"),
    (encoder, "classify", ["the earth"], [], "no classes"),
    (classifier, "fill-mask", ["the [MASK]"], [], "fills no masks"),
    (sentence_encoder, "similarity", ["the earth"], [], "twice"),
    (classifier, "classify", ["the earth"], ["a", "b"], "2 --pair for 1 --prompt"),
    (classifier, "classify", [WORDS * 5], [], "24 positions"),
    (gpt, "fill-mask", ["the [MASK]"], [], "no encoder"),
  ],
)
def test_questions_without_an_answer_are_refused(module, question, prompts, pairs, said):
  if module is gpt:
    model = gpt.Model(vocabulary=60, length=24, layers=1, features=8, heads=2)
    run = run_of(model, (jax.ShapeDtypeStruct((1, 2), np.int32),), {"tokens": tokenizer()})
  else:
    run = asked(module)
  with pytest.raises(ConfigError, match=said):
    asking.answer(run, question, prompts, pairs)


def test_a_runs_own_mask_is_its_tasks(tmp_path, capsys):
  found = config.load("experiments/transformer/masked_kjv.py:smoke").to_dict()
  trained(found, tmp_path / "run")
  look.prompt(str(tmp_path / "run"), ["In the [MASK]"], {}, {})
  assert capsys.readouterr().out.splitlines()[-6] == "In the [MASK]"
  assert (tmp_path / "run/samples/fill-mask.txt").read_text().startswith("In the [MASK]\n")
  assert workdirs.read_config(tmp_path / "run")["task"]["mask_token"] == 2
