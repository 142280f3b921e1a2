"""The same weights in Hugging Face's models, in float64: logits, greedy texts and beams.

Nothing is downloaded: tiny models with our random weights, handed over in files (interop/).
"""

import functools
import importlib.util
import tempfile
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import close
from test_transformer import created

from decoding import beam
from decoding.generate import generate
from decoding.sampling import GREEDY
from interop import huggingface
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


def torch_ids(array):
  import torch

  return torch.tensor(np.maximum(array, 0), dtype=torch.long)


def torch_mask(array):
  import torch

  return torch.tensor(array >= 0, dtype=torch.long)


def settings(name, model):
  """The model block of a config, with all that the data would have said."""
  return {**{field.name: getattr(model, field.name) for field in fields(model)}, "name": name}


def handed_over(name, model, params, **options):
  """Hugging Face's model from the files that we write, in float64: nothing missing, nothing over."""
  import transformers

  with tempfile.TemporaryDirectory() as folder:
    kind = huggingface.write(folder, settings(name, model), params)
    make = getattr(transformers, kind).from_pretrained
    theirs, seen = make(folder, output_loading_info=True, **options)
  assert not any(seen.values()), seen
  return theirs.double().eval()


@functools.cache
def gpt2():
  ours = gpt.Model(V, T, **SIZES)
  params = created(ours, ROW)
  return ours, params, handed_over("transformer.gpt", ours, params)


@functools.cache
def gpt1():
  ours = gpt.Model(V, T, norm_place="post", **SIZES)
  params = created(ours, ROW)
  return ours, params, handed_over("transformer.gpt", ours, params)


@functools.cache
def llama2(rotary="halves"):
  ours = llama.Model(
    V,
    T,
    layers=L,
    features=D,
    heads=N,
    kv_heads=2,
    mlp_features=F,
    rotary=rotary,
    rotary_base=500.0,
  )
  params = created(ours, ROW)
  return ours, params, handed_over("transformer.llama", ours, params)


def llama2_of_meta():
  return llama2("pairs")


@functools.cache
def marian():
  ours = encoder_decoder.Model(
    V,
    V,
    source_length=T,
    target_length=T,
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
  return ours, params, handed_over("transformer.encoder_decoder", ours, params)


@functools.cache
def bert():
  ours = encoder.Model(V, T, types=2, mlp_features=F, **SIZES)
  params = created(ours, ROW)
  return ours, params, handed_over("transformer.encoder", ours, params)


@pytest.mark.parametrize("make", [gpt1, gpt2, llama2, llama2_of_meta])
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
