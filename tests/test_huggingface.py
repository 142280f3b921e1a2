"""The same weights in Hugging Face's models, in float64: logits, greedy texts and beams.

Nothing is downloaded: tiny models with our random weights.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import close
from test_transformer import created

from decoding import beam
from decoding.generate import generate
from decoding.sampling import GREEDY
from models.layers.transformer import unstacked
from models.transformer import encoder, encoder_decoder, gpt, llama

FOUND = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
pytestmark = pytest.mark.skipif(
  not FOUND, reason="parity is against Hugging Face: `pip install -r requirements-oracles.txt`"
)

V, T, D, N, F, L = 19, 12, 16, 4, 24, 2
EOS = 1
SIZES = dict(layers=L, features=D, heads=N, dropout=0.0, attention_dropout=0.0)


def tokens(shape, seed=0):
  return np.random.default_rng(seed).integers(2, V, shape, np.int32)


ROW, SOURCE, TARGET = tokens((2, 7)), tokens((2, 6), 1), tokens((2, 5), 2)
SOURCE[1, 4:] = -1


def fill(model, weights):
  """`model` in float64 with arrays by name; every parameter must be given, and in its shape."""
  import torch

  model = model.double().eval()
  missing = {name: p for name, p in model.named_parameters()}
  for name, array in weights.items():
    target = missing.pop(name)
    array = np.asarray(array, np.float64)
    assert tuple(target.shape) == array.shape, name
    target.data = torch.tensor(array)
  assert not missing, sorted(missing)
  model.tie_weights()
  return model


def torch_ids(array):
  import torch

  return torch.tensor(np.maximum(array, 0), dtype=torch.long)


def torch_mask(array):
  import torch

  return torch.tensor(array >= 0, dtype=torch.long)


def in_heads(kernel):
  """[out, in] as PyTorch has it, of a kernel [in, heads, width]."""
  return kernel.reshape(kernel.shape[0], -1).T


def out_of_heads(kernel):
  """[out, in] of a kernel [heads, width, out]."""
  return kernel.reshape(-1, kernel.shape[-1]).T


def attention(params, names):
  """Weights of an attention by Hugging Face's names of its four projections."""
  found = {}
  for ours, theirs in zip(("query", "key", "value", "output"), names, strict=True):
    turn = out_of_heads if ours == "output" else in_heads
    found[f"{theirs}.weight"] = turn(params[ours]["kernel"])
    if "bias" in params[ours]:
      found[f"{theirs}.bias"] = params[ours]["bias"].reshape(-1)
  return found


def dense(params, name):
  return {f"{name}.weight": params["kernel"].T, f"{name}.bias": params["bias"]}


def norm(params, name):
  return {f"{name}.weight": params["scale"], f"{name}.bias": params["bias"]}


def layers(stack, layer):
  """Weights of all layers of a stack; `layer(params, index)` gives those of one."""
  found = {}
  for index in range(L):
    found |= layer(jax.tree.map(lambda x, i=index: x[i], stack), index)
  return found


def openai_layer(params, index, prefix):
  """GPT-1 and 2 keep matrices as [in, out], and queries, keys and values in one."""
  heads = [params["attention"][name] for name in ("query", "key", "value")]
  return {
    f"{prefix}.attn.c_attn.weight": np.concatenate([in_heads(h["kernel"]).T for h in heads], 1),
    f"{prefix}.attn.c_attn.bias": np.concatenate([h["bias"].reshape(-1) for h in heads]),
    f"{prefix}.attn.c_proj.weight": out_of_heads(params["attention"]["output"]["kernel"]).T,
    f"{prefix}.attn.c_proj.bias": params["attention"]["output"]["bias"],
    f"{prefix}.mlp.c_fc.weight": params["mlp"]["up"]["kernel"],
    f"{prefix}.mlp.c_fc.bias": params["mlp"]["up"]["bias"],
    f"{prefix}.mlp.c_proj.weight": params["mlp"]["down"]["kernel"],
    f"{prefix}.mlp.c_proj.bias": params["mlp"]["down"]["bias"],
    **norm(params["attention_norm"], f"{prefix}.ln_1"),
    **norm(params["mlp_norm"], f"{prefix}.ln_2"),
  }


@functools.cache
def gpt2():
  import transformers

  ours = gpt.Model(V, T, **SIZES)
  params = created(ours, ROW)
  config = transformers.GPT2Config(
    vocab_size=V, n_positions=T, n_embd=D, n_layer=L, n_head=N, bos_token_id=0, eos_token_id=EOS
  )
  weights = layers(
    params["decoder_layers"], lambda p, i: openai_layer(p, i, f"transformer.h.{i}")
  ) | {
    "transformer.wte.weight": params["embedding"],
    "transformer.wpe.weight": params["position_embedding"],
    **norm(params["final_norm"], "transformer.ln_f"),
  }
  return ours, params, fill(transformers.GPT2LMHeadModel(config), weights)


@functools.cache
def gpt1():
  import transformers

  ours = gpt.Model(V, T, norm_place="post", **SIZES)
  params = created(ours, ROW)
  config = transformers.OpenAIGPTConfig(vocab_size=V, n_positions=T, n_embd=D, n_layer=L, n_head=N)
  weights = layers(
    params["decoder_layers"], lambda p, i: openai_layer(p, i, f"transformer.h.{i}")
  ) | {
    "transformer.tokens_embed.weight": params["embedding"],
    "transformer.positions_embed.weight": params["position_embedding"],
  }
  return ours, params, fill(transformers.OpenAIGPTLMHeadModel(config), weights)


@functools.cache
def llama2():
  import transformers

  ours = llama.Model(
    V, T, layers=L, features=D, heads=N, kv_heads=2, mlp_features=F, rotary="halves"
  )
  params = created(ours, ROW)
  config = transformers.LlamaConfig(
    vocab_size=V,
    max_position_embeddings=T,
    hidden_size=D,
    intermediate_size=F,
    num_hidden_layers=L,
    num_attention_heads=N,
    num_key_value_heads=2,
    rms_norm_eps=1e-6,
    bos_token_id=0,
    eos_token_id=EOS,
  )

  def layer(p, i):
    prefix = f"model.layers.{i}"
    names = [f"{prefix}.self_attn.{x}_proj" for x in "qkvo"]
    mlp = {f"{prefix}.mlp.{x}_proj.weight": p["mlp"][y]["kernel"].T for x, y in _LLAMA_MLP}
    return (
      attention(p["attention"], names)
      | mlp
      | {
        f"{prefix}.input_layernorm.weight": p["attention_norm"]["scale"],
        f"{prefix}.post_attention_layernorm.weight": p["mlp_norm"]["scale"],
      }
    )

  weights = layers(params["decoder_layers"], layer) | {
    "model.embed_tokens.weight": params["embedding"],
    "model.norm.weight": params["final_norm"]["scale"],
    "lm_head.weight": params["unembedding"],
  }
  return ours, params, fill(transformers.LlamaForCausalLM(config), weights)


# The activation is of the projection that Hugging Face calls the gate.
_LLAMA_MLP = (("gate", "up"), ("up", "gate"), ("down", "down"))


@functools.cache
def marian():
  import transformers

  ours = encoder_decoder.Model(
    V,
    V,
    encoder_layers=L,
    decoder_layers=L,
    features=D,
    heads=N,
    mlp_features=F,
    epsilon=1e-5,
    layout="concatenated",
    dropout=0.0,
  )
  params = created(ours, SOURCE, TARGET)
  side = dict(layers=L, attention_heads=N, ffn_dim=F)
  config = transformers.MarianConfig(
    vocab_size=V,
    d_model=D,
    max_position_embeddings=T,
    activation_function="relu",
    scale_embedding=True,
    bos_token_id=0,
    eos_token_id=EOS,
    pad_token_id=0,
    decoder_start_token_id=0,
    forced_eos_token_id=None,
    **{f"{end}_{k}": v for end in ("encoder", "decoder") for k, v in side.items()},
  )

  def layer(p, i, end):
    prefix = f"model.{end}.layers.{i}"
    projections = [f"{x}_proj" for x in ("q", "k", "v")] + ["out_proj"]
    found = attention(p["attention"], [f"{prefix}.self_attn.{x}" for x in projections])
    found |= norm(p["attention_norm"], f"{prefix}.self_attn_layer_norm")
    if end == "decoder":
      found |= attention(p["cross_attention"], [f"{prefix}.encoder_attn.{x}" for x in projections])
      found |= norm(p["cross_norm"], f"{prefix}.encoder_attn_layer_norm")
    found |= dense(p["mlp"]["up"], f"{prefix}.fc1") | dense(p["mlp"]["down"], f"{prefix}.fc2")
    return found | norm(p["mlp_norm"], f"{prefix}.final_layer_norm")

  theirs = transformers.MarianMTModel(config)
  weights = {"model.shared.weight": params["target_embedding"]}
  for end in ("encoder", "decoder"):
    weights |= layers(params[f"{end}_layers"], functools.partial(layer, end=end))
    waves = getattr(theirs.model, end).embed_positions.weight
    weights[f"model.{end}.embed_positions.weight"] = waves.detach().double().numpy()
  named = {name for name, _ in theirs.named_parameters()}
  return ours, params, fill(theirs, {k: v for k, v in weights.items() if k in named})


@functools.cache
def bert():
  import transformers

  ours = encoder.Model(V, T, types=2, mlp_features=F, **SIZES)
  params = created(ours, ROW)
  config = transformers.BertConfig(
    vocab_size=V,
    max_position_embeddings=T,
    hidden_size=D,
    num_hidden_layers=L,
    num_attention_heads=N,
    intermediate_size=F,
  )

  def layer(p, i):
    prefix = f"bert.encoder.layer.{i}"
    names = [f"{prefix}.attention.self.{x}" for x in ("query", "key", "value")]
    return (
      attention(p["attention"], [*names, f"{prefix}.attention.output.dense"])
      | norm(p["attention_norm"], f"{prefix}.attention.output.LayerNorm")
      | dense(p["mlp"]["up"], f"{prefix}.intermediate.dense")
      | dense(p["mlp"]["down"], f"{prefix}.output.dense")
      | norm(p["mlp_norm"], f"{prefix}.output.LayerNorm")
    )

  start = "bert.embeddings"
  weights = layers(params["encoder_layers"], layer) | {
    f"{start}.word_embeddings.weight": params["embedding"],
    f"{start}.position_embeddings.weight": params["position_embedding"],
    f"{start}.token_type_embeddings.weight": params["type_embedding"],
    **norm(params["first_norm"], f"{start}.LayerNorm"),
    **dense(params["projection"], "cls.predictions.transform.dense"),
    **norm(params["final_norm"], "cls.predictions.transform.LayerNorm"),
    "cls.predictions.bias": params["output_bias"],
  }
  return ours, params, fill(transformers.BertForMaskedLM(config), weights)


@pytest.mark.parametrize("make", [gpt1, gpt2, llama2])
def test_logits_of_decoders(make):
  import torch

  ours, params, theirs = make()
  with torch.no_grad():
    wanted = theirs(torch_ids(ROW)).logits.numpy()
  close(jax.jit(ours.apply)({"params": params}, ROW).logits, wanted)


def test_logits_of_the_encoder_decoder():
  import torch

  ours, params, theirs = marian()
  with torch.no_grad():
    wanted = theirs(
      input_ids=torch_ids(SOURCE),
      attention_mask=torch_mask(SOURCE),
      decoder_input_ids=torch_ids(TARGET),
    ).logits.numpy()
  close(jax.jit(ours.apply)({"params": params}, SOURCE, TARGET).logits, wanted)


def test_logits_of_the_encoder():
  import torch

  ours, params, theirs = bert()
  row = ROW.copy()
  row[1, 5:] = -1
  kinds = np.array([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0, 0]], np.int32)
  with torch.no_grad():
    wanted = theirs(
      torch_ids(row), attention_mask=torch_mask(row), token_type_ids=torch_ids(kinds)
    ).logits.numpy()
  found = jax.jit(ours.apply)({"params": params}, row, None, kinds).logits
  close(found[0], wanted[0])
  close(found[1, :5], wanted[1, :5])


def decoded(run, *begun, ours, params):
  """`run(advance, cache)` compiled, on a cache begun for so many examples or for a source."""
  variables = unstacked({"params": params})
  advance = functools.partial(ours.apply, variables, method="advance")
  return jax.jit(lambda: run(advance, ours.apply(variables, *begun, method="begin")))()


@pytest.mark.parametrize("make", [gpt2, llama2])
def test_greedy_texts_token_for_token(make):
  ours, params, theirs = make()
  prompt = ROW[:, :4].copy()
  prompt[1, :2] = -1  # a shorter one
  wanted = theirs.generate(
    torch_ids(prompt),
    attention_mask=torch_mask(prompt),
    do_sample=False,
    max_new_tokens=8,
    pad_token_id=0,
    eos_token_id=EOS,
  )[:, 4:].numpy()
  found = decoded(
    lambda advance, cache: (
      generate(
        advance,
        cache,
        jnp.asarray(prompt),
        jax.random.key(0),
        steps=8,
        sampling=GREEDY,
        stop=(EOS,),
      ).tokens
    ),
    2,
    T,
    ours=ours,
    params=params,
  )
  wanted = np.pad(wanted, ((0, 0), (0, 8 - wanted.shape[1])))
  np.testing.assert_array_equal(np.maximum(found, 0), wanted)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_beams_and_their_scores(alpha):
  ours, params, theirs = marian()
  steps, beams, stop = 6, 3, 2  # a token that ends some texts and not others
  wanted = theirs.generate(
    torch_ids(SOURCE),
    attention_mask=torch_mask(SOURCE),
    num_beams=beams,
    num_return_sequences=beams,
    do_sample=False,
    max_new_tokens=steps,
    length_penalty=alpha,
    eos_token_id=stop,
    early_stopping="never",  # theirs else stops before it may
    return_dict_in_generate=True,
    output_scores=True,
  )
  found = decoded(
    lambda advance, cache: beam.search(
      advance,
      cache,
      jnp.zeros((2, 1), jnp.int32),
      beams=beams,
      steps=steps,
      length_penalty=alpha,
      stop=(stop,),
      form="power",  # log p / length^alpha, as theirs
    ),
    jnp.asarray(SOURCE),
    steps,
    ours=ours,
    params=params,
  )
  np.testing.assert_allclose(
    found.scores.reshape(-1), wanted.sequences_scores.numpy(), rtol=1e-5, atol=1e-6
  )
  theirs_BKN = wanted.sequences[:, 1:].numpy().reshape(2, beams, -1)
  longest = theirs_BKN.shape[-1]
  ours_BKN = np.where(found.tokens < 0, stop, found.tokens)[:, :, :longest]  # they pad so
  np.testing.assert_array_equal(ours_BKN, theirs_BKN)
  assert len(np.unique((np.asarray(found.tokens) >= 0).sum(-1))) > 1
