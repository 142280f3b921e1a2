"""Writing text token by token: GPT-2's smallest model here and in Hugging Face's transformers.

The network has the shape of GPT-2's smallest (124 million parameters in float32, their values drawn
at random, on which speed does not depend); a prompt of 32 tokens is continued greedily by 64, with
the keys and values of earlier tokens kept. A step is one new token, the prompt's share included.

  ours              decoding.generate on models/transformer/gpt.py, its layers taken apart once, as
                    `launch.py sample` does
  transformers      GPT2LMHeadModel.generate with its cache, PyTorch eager
  transformers loop the same model called token by token, without what `generate` does besides
  floor             reading as many bytes as the network's matrices have, by as many threads: what
                    no program of one text can be faster than, while it reads every weight a token

Run: python benchmarks/decode.py --batch 1 --json=FILE
"""

import argparse
import functools
import os
import pathlib
import sys
import tempfile
import threading

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's own folder is all that Python looks into

from benchmarks import interleave  # noqa: E402

SHAPE = dict(vocabulary=50_257, length=1024, layers=12, features=768, heads=12)
PROMPT, NEW = 32, 64
REFERENCE = "transformers"


def prompts(batch: int, vocabulary: int = SHAPE["vocabulary"]) -> np.ndarray:
  """[batch, PROMPT] token ids."""
  return np.random.default_rng(0).integers(0, vocabulary, (batch, PROMPT), dtype=np.int32)


# --------------------------------------------------------------------------------- Fukugen


def ours(batch: int):
  import jax

  from models.layers.transformer import unstacked

  model, variables = our_model(**SHAPE)
  variables = jax.jit(unstacked)(variables)
  text = jax.jit(our_text(model, new=NEW))
  prompt = jax.device_put(prompts(batch))

  def run(steps: int):
    for _ in range(steps // NEW):
      text(variables, prompt).block_until_ready()

  return run


def our_model(**shape):
  """The network, and variables of its shapes that need no compiling."""
  import jax

  from models.transformer import gpt

  model = gpt.Model(**shape)
  inputs = jax.ShapeDtypeStruct((1, 2), np.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)
  generator = np.random.default_rng(0)
  draw = lambda x: 0.02 * generator.standard_normal(x.shape, dtype=np.float32)  # noqa: E731
  return model, jax.device_put(jax.tree.map(draw, shapes))


def our_text(model, *, new: int):
  """`(variables, prompts) -> [B, new]` greedy continuations."""
  import jax

  from decoding.sampling import GREEDY
  from tasks.language_model import continued

  def text(variables, prompt):
    rngs = {"params": jax.random.key(0)}
    return model.apply(variables, prompt, method=continued, steps=new, sampling=GREEDY, rngs=rngs)

  return text


# ---------------------------------------------------------------------------- transformers


def their_model(**shape):
  """Hugging Face's GPT-2 of these sizes, which never ends a text by itself."""
  import transformers

  config = transformers.GPT2Config(
    vocab_size=shape["vocabulary"],
    n_positions=shape["length"],
    n_layer=shape["layers"],
    n_embd=shape["features"],
    n_head=shape["heads"],
    bos_token_id=None,
    eos_token_id=None,
  )
  return transformers.GPT2LMHeadModel(config).eval()


def their_text(model, prompt: np.ndarray, *, new: int) -> np.ndarray:
  """[B, new] greedy continuations."""
  import torch

  ids = torch.from_numpy(prompt).long()
  with torch.inference_mode():
    found = model.generate(
      ids,
      attention_mask=torch.ones_like(ids),
      max_new_tokens=new,
      do_sample=False,
      use_cache=True,
      pad_token_id=0,
    )
  return found[:, prompt.shape[1] :].numpy()


def their_loop(model, prompt: np.ndarray, *, new: int) -> np.ndarray:
  """The same by calling the model token by token."""
  import torch

  ids, cache, found = torch.from_numpy(prompt).long(), None, []
  with torch.inference_mode():
    for _ in range(new):
      out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
      ids, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
      found.append(ids)
  return torch.cat(found, 1).numpy()


def with_torch(batch: int, *, write=their_text):
  import torch

  torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
  torch.manual_seed(0)
  model, prompt = their_model(**SHAPE), prompts(batch)

  def run(steps: int):
    for _ in range(steps // NEW):
      write(model, prompt, new=NEW)

  return run


def to_theirs(params, model):
  """Puts our parameters into Hugging Face's model."""
  import torch

  stack = params["decoder_layers"]
  block, D = stack["attention"], params["embedding"].shape[1]
  tensor = lambda x: torch.from_numpy(np.array(x))  # noqa: E731
  state = {
    "transformer.wte.weight": params["embedding"],
    "transformer.wpe.weight": params["position_embedding"],
    "lm_head.weight": params["embedding"],
    "transformer.ln_f.weight": params["final_norm"]["scale"],
    "transformer.ln_f.bias": params["final_norm"]["bias"],
  }
  for i in range(len(stack["attention_norm"]["scale"])):
    three = [block[name] for name in ("query", "key", "value")]
    own = {
      "ln_1.weight": stack["attention_norm"]["scale"][i],
      "ln_1.bias": stack["attention_norm"]["bias"][i],
      "attn.c_attn.weight": np.concatenate([x["kernel"][i].reshape(D, -1) for x in three], 1),
      "attn.c_attn.bias": np.concatenate([x["bias"][i].reshape(-1) for x in three]),
      "attn.c_proj.weight": block["output"]["kernel"][i].reshape(-1, D),
      "attn.c_proj.bias": block["output"]["bias"][i],
      "ln_2.weight": stack["mlp_norm"]["scale"][i],
      "ln_2.bias": stack["mlp_norm"]["bias"][i],
      "mlp.c_fc.weight": stack["mlp"]["up"]["kernel"][i],
      "mlp.c_fc.bias": stack["mlp"]["up"]["bias"][i],
      "mlp.c_proj.weight": stack["mlp"]["down"]["kernel"][i],
      "mlp.c_proj.bias": stack["mlp"]["down"]["bias"][i],
    }
    state |= {f"transformer.h.{i}.{name}": value for name, value in own.items()}
  missing, unexpected = model.load_state_dict(
    {name: tensor(value) for name, value in state.items()}, strict=False
  )
  assert not unexpected, unexpected
  assert not [name for name in missing if "attn.bias" not in name], missing


# ----------------------------------------------------------------------------------- floor


def matrix_bytes() -> int:
  """Of what every token multiplies: the embedding, as the output's matrix, and the blocks."""
  D, L, V = SHAPE["features"], SHAPE["layers"], SHAPE["vocabulary"]
  return 4 * (V * D + 12 * L * D * D)


def floor(batch: int):
  """Reads the bytes once a step: the greatest of the numbers, each thread of its own part."""
  del batch
  count = int(os.environ["OMP_NUM_THREADS"])
  parts = np.array_split(np.ones(matrix_bytes() // 4, np.float32), count)

  def run(steps: int):
    for _ in range(steps):
      threads = [threading.Thread(target=part.max) for part in parts]  # NumPy lets go of the lock
      for thread in threads:
        thread.start()
      for thread in threads:
        thread.join()

  return run


# ------------------------------------------------------------------------------------ race

SETUPS = {
  "ours": ours,
  REFERENCE: with_torch,
  "transformers loop": functools.partial(with_torch, write=their_loop),
  "floor": floor,
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  interleave.add_options(parser, rounds=6, seconds=4.0)
  parser.add_argument("--batch", type=int, default=1, help="texts at a time (1)")
  parser.add_argument("--only", nargs="+", choices=SETUPS, default=list(SETUPS), metavar="NAME")
  parser.add_argument("--worker", choices=SETUPS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    interleave.serve(lambda: _ready(args.worker, args.batch))
    return

  contenders = [
    interleave.elsewhere(
      name,
      [__file__, f"--worker={name}", f"--batch={args.batch}"],
      threads=args.threads,
      multiple=1 if name == "floor" else NEW,
    )
    for name in args.only
  ]
  records = interleave.race(contenders, rounds=args.rounds, seconds=args.seconds, pause=0.2)
  by_name = {record.name: record for record in records}
  reference = REFERENCE if REFERENCE in by_name else records[0].name
  print(interleave.show(records, reference=reference))
  summary = _summary(by_name, args.batch)
  for line, value in summary.items():
    print(f"{line}: {value}")
  interleave.write(
    args.json,
    threads={"count": args.threads, **interleave.thread_settings(args.threads)},
    batch=args.batch,
    contenders=interleave.results(records, reference=reference),
    summary=summary,
  )


def _ready(name: str, batch: int):
  os.environ["HF_HUB_OFFLINE"] = "1"
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp()  # so that first runs are cold
  import launch

  launch._start_jax()
  return SETUPS[name](batch)


def _summary(records: dict[str, interleave.Record], batch: int) -> dict[str, float]:
  found = {}
  for name, record in records.items():
    if name != "floor":
      found[f"{name}, tokens a second"] = round(batch / record.best, 2)
  if "floor" in records:
    rate = matrix_bytes() / records["floor"].best
    found["memory read, GB/s"] = round(rate / 1e9, 2)
    for name, record in records.items():
      if name != "floor":
        found[f"{name}, times the floor"] = round(record.best / records["floor"].best, 2)
  return found


if __name__ == "__main__":
  main()
