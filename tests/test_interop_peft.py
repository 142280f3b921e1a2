"""Adapters of low rank in PEFT's files: what they add to the tensors of the model's own file."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_interop import built
from test_models import close

from interop import huggingface, peft, tensors
from interop.errors import Unreadable
from interop.mapping import flat, nested
from training.lora import Lora

V, T, D, N, L, R, ALPHA = 19, 12, 16, 4, 3, 2, 6.0
_ENCODER = dict(layers=L, features=D, heads=N, length=T, vocabulary=V)
_PAIR = dict(encoder_layers=L, decoder_layers=L, features=D, heads=N, mlp_features=24)
_BOTH = dict(source_vocabulary=V, target_vocabulary=V)
_ROW = np.arange(10, dtype=np.int32).reshape(2, 5)

PAPER = ("*/query/kernel", "*/value/kernel")
ALL = ("*/query/kernel", "*/key/kernel", "*/value/kernel", "*/output/kernel", "*/mlp/*/kernel")

CASES = {
  "bert": ("encoder", _ENCODER | dict(types=2), PAPER),
  "bert, all": ("encoder", _ENCODER | dict(types=2), ALL),
  "albert": (
    "encoder",
    _ENCODER | dict(types=2, embedding_features=8, shared="all"),
    (*ALL, "embedding_projection/kernel"),
  ),
  "gpt2, queries and values": ("gpt", _ENCODER, PAPER),
  "gpt2, all": ("gpt", _ENCODER, ALL),
  "llama of Meta": ("llama", _ENCODER | dict(kv_heads=2, mlp_features=24), ALL),
  "llama": ("llama", _ENCODER | dict(kv_heads=2, mlp_features=24, rotary="halves"), ALL),
  "t5": ("t5", _PAIR | dict(vocabulary=V, head_features=6), PAPER),
  "marian": (
    "encoder_decoder",
    _PAIR | _BOTH | dict(epsilon=1e-5, layout="concatenated"),
    PAPER,
  ),
}


def drawn(case):
  """(settings, parameters, adapters away from where they start) of a case."""
  name, fields, targets = CASES[case]
  model = built({"name": f"transformer.{name}", **fields})
  inputs = (_ROW, _ROW) if name in ("t5", "encoder_decoder") else (_ROW,)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs))["params"]
  generator = np.random.default_rng(0)
  draw = lambda x: generator.normal(0, 0.3, x.shape).astype(np.float32)  # noqa: E731
  params = jax.tree.map(draw, shapes)
  lora = Lora(rank=R, alpha=ALPHA, targets=targets)
  adapters = jax.tree.map(draw, jax.eval_shape(lambda: lora.adapters(params, jax.random.key(1))))
  settings = {field: getattr(model, field) for field in model.__dataclass_fields__}
  return settings | {"name": f"transformer.{name}"}, params, lora, adapters


def added(folder, base):
  """The tensors of a model's file with (alpha / r) B A added, as PEFT merges them."""
  config = json.loads((folder / peft.CONFIG).read_text())
  stored = {
    name.removeprefix("base_model.model."): x.array()
    for name, x in tensors.safetensors(folder / peft.WEIGHTS).items()
  }
  found = dict(base)
  for name in [name for name in stored if name.endswith(".lora_A.weight")]:
    module = name.removesuffix(".lora_A.weight")
    assert any(f".{module}".endswith(f".{target}") for target in config["target_modules"])
    a, b = stored[name], stored[f"{module}.lora_B.weight"]
    pattern = lambda key, usual: next(  # noqa: E731
      (v for k, v in config[key].items() if module.endswith(f".{k}")),
      usual,
    )
    rank, alpha = (
      pattern("rank_pattern", config["r"]),
      pattern("alpha_pattern", config["lora_alpha"]),
    )
    assert a.shape[0] == b.shape[1] == rank
    product = alpha / rank * b @ a
    found[f"{module}.weight"] = found[f"{module}.weight"] + (
      product.T if config["fan_in_fan_out"] else product
    )
  return found


@pytest.mark.parametrize("case", CASES)
def test_they_add_what_ours_do(case, tmp_path):
  settings, params, lora, adapters = drawn(case)
  merged = lora.merged({**params, "lora": adapters})
  huggingface.write(tmp_path / "base", settings, params)
  huggingface.write(tmp_path / "merged", settings, merged)
  peft.write(tmp_path / "peft", adapters, rank=R, alpha=ALPHA, model=settings)
  read = lambda name: {k: x.array() for k, x in tensors.weights(tmp_path / name).items()}  # noqa: E731
  wanted = read("merged")
  assert any(np.abs(wanted[k] - v).max() > 0.1 for k, v in read("base").items())
  close(added(tmp_path / "peft", read("base")), wanted, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_adapters_go_there_and_back(case, tmp_path):
  settings, _, _, adapters = drawn(case)
  peft.write(tmp_path, adapters, rank=R, alpha=ALPHA, model=settings)
  found = peft.read(tmp_path, settings)
  assert (found.rank, found.alpha, found.params) == (R, ALPHA, {})
  ours = {
    f"{path}/{letter}": array
    for path, pair in found.adapters.items()
    for letter, array in pair.items()
  }
  close(ours, flat(adapters), rtol=0)
  assert set(found.targets) == {path.rsplit("/", 1)[0] for path in flat(adapters)}


def test_one_matrix_of_theirs_is_read_as_three_of_ours(tmp_path):
  """As PEFT itself trains c_attn: one A for queries, keys and values."""
  settings, params, lora, adapters = drawn("gpt2, all")
  leaves = flat(adapters)
  for name in ("key", "value"):
    leaves[f"decoder_layers/attention/{name}/kernel/a"] = leaves[
      "decoder_layers/attention/query/kernel/a"
    ]
  peft.write(tmp_path / "x", nested(leaves), rank=R, alpha=ALPHA, model=settings)
  config = json.loads((tmp_path / "x" / peft.CONFIG).read_text())
  assert config["rank_pattern"] == {}
  assert config["target_modules"] == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
  assert config["fan_in_fan_out"] is True
  found = peft.read(tmp_path / "x", settings)
  close(flat(found.adapters), leaves, rtol=0)


def test_a_head_that_was_trained_goes_along(tmp_path):
  settings = built({"name": "transformer.classifier", **_ENCODER, "types": 2, "classes": 3})
  settings = {field: getattr(settings, field) for field in settings.__dataclass_fields__}
  settings["name"] = "transformer.classifier"
  generator = np.random.default_rng(0)
  head = {"head": {"kernel": generator.normal(size=(D, 3)), "bias": generator.normal(size=3)}}
  head = jax.tree.map(np.float32, head)
  _, _, _, adapters = drawn("bert")
  peft.write(tmp_path, adapters, rank=R, alpha=ALPHA, model=settings, params=head)
  config = json.loads((tmp_path / peft.CONFIG).read_text())
  assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["classifier"])
  close(peft.read(tmp_path, settings).params, head, rtol=0)


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"use_dora": True}, "use_dora"),
    ({"use_rslora": True}, "use_rslora"),
    ({"bias": "all"}, "bias"),
    ({"peft_type": "IA3"}, "no LoRA"),
    ({"r": "2"}, "no LoRA"),
    ({"lora_alpha": None}, "lora_alpha"),
    ({"r": 3}, "proportion"),
    ({"alpha_pattern": {"self.query": 1.0}}, "proportion"),
    ({"layers_to_transform": [0]}, "layers_to_transform"),
  ],
)
def test_adapters_that_ours_are_not(change, named, tmp_path):
  settings, _, _, adapters = drawn("bert")
  peft.write(tmp_path, adapters, rank=R, alpha=ALPHA, model=settings)
  config = json.loads((tmp_path / peft.CONFIG).read_text()) | change
  (tmp_path / peft.CONFIG).write_text(json.dumps(config))
  with pytest.raises(Unreadable, match=named) as error:
    peft.read(tmp_path, settings)
  assert "\n" not in str(error.value)


def test_adapters_of_another_model(tmp_path):
  settings, _, _, adapters = drawn("bert")
  peft.write(tmp_path, adapters, rank=R, alpha=ALPHA, model=settings)
  with pytest.raises(Unreadable, match="of another shape"):
    peft.read(tmp_path, settings | {"features": 8})
  with pytest.raises(Unreadable, match="unused"):
    peft.read(tmp_path, settings | {"layers": L - 1})
  with pytest.raises(Unreadable, match="missing"):
    peft.read(tmp_path, settings | {"layers": L + 1})
  embedded = {"embedding": {"a": np.zeros((V, R)), "b": np.zeros((R, D))}}
  with pytest.raises(Unreadable, match="no place for adapters of embedding"):
    peft.write(tmp_path, embedded, rank=R, alpha=ALPHA, model=settings)


@pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft")),
  reason="parity is against PEFT: `pip install --no-deps -r requirements-oracles.txt`",
)
@pytest.mark.parametrize("case", ["bert", "gpt2, queries and values", "gpt2, all"])
def test_peft_reads_them(case, tmp_path):
  import peft as theirs
  import torch
  import transformers

  settings, params, lora, adapters = drawn(case)
  kind = huggingface.write(tmp_path / "base", settings, params)
  peft.write(tmp_path / "peft", adapters, rank=R, alpha=ALPHA, model=settings)
  base = getattr(transformers, kind).from_pretrained(tmp_path / "base")
  model = theirs.PeftModel.from_pretrained(base, tmp_path / "peft").double().eval()
  with torch.no_grad():
    wanted = model(torch.tensor(_ROW, dtype=torch.long)).logits.numpy()
  merged = lora.merged({**params, "lora": jax.tree.map(jnp.asarray, adapters)})
  close(jax.jit(built(settings).apply)({"params": merged}, _ROW).logits, wanted)
