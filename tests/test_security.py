"""What comes from others: nothing of it runs, leads elsewhere, or is believed about its own size."""

import ast
import contextlib
import json
import os
import pathlib
import pickle
import random
import shutil
import struct
import sys
import time
import tracemalloc
import zipfile

import jax
import msgpack
import numpy as np
import pytest

import launch
from data import tokenizers
from interop import huggingface, sentences, tensors
from interop.errors import Unreadable
from models.transformer import gpt, llama, t5
from report import html
from reproduction import relation
from sweeps.ledger import Ledger
from sweeps.search import Search, Settings
from sweeps.space import uniform
from training import build, config, elsewhere, look
from training.errors import CheckpointError, ConfigError, StorageError
from training.workdir import Workdir, read_config

FUZZ = pathlib.Path("tests/fuzz")
ROW = np.zeros((1, 6), np.int32)
MEMORY = 64 * 2**20  # bytes that refusing a file may take
SECONDS = 4.0  # that it may take: some tenths, but for a machine that is busy


# ------------------------------------------------------------------ what the source never says

IMPORTS = {
  *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml"),
  *("ruamel", "code", "codeop", "runpy", "imp", "builtins", "pkgutil", "zipimport", "jsonpickle"),
}
BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint"}
CALLS = {
  *("os.system", "os.popen", "pty.spawn", "subprocess.getoutput", "subprocess.getstatusoutput"),
  *("torch.load", "torch.jit.load", "torch.hub.load", "pd.read_pickle", "pandas.read_pickle"),
  *("tempfile.mktemp", "shutil.unpack_archive", "np.lib.format.open_memmap", "Unpickler"),
}
# Reads arrays, where `allow_pickle=False` has to be said; what allows it by default is elsewhere.
ARRAYS = {f"{numpy}.{name}" for numpy in ("np", "numpy", "jnp") for name in ("load",)}
ARRAYS |= {f"{numpy}.lib.format.read_array" for numpy in ("np", "numpy")}
MODULES = {"import_module", "spec_from_file_location", "exec_module", "load_module"}
MODULES |= {"SourceFileLoader", "module_from_spec", "reload"}
# Where a module is imported by a name that is computed, and why no file of others decides it.
RESOLVED = {
  ("training/config.py", "experiment"): "an experiment file is code, and the user's own",
  ("training/build.py", "_locate"): "the name is that of a file in the room",
  ("training/build.py", "_with_colon"): "the file is one of the room",
  ("training/elsewhere.py", "_model"): "the name stands in a table of interop/families",
  ("interop/family.py", "families"): "the names are those of files in interop/families",
  ("sweeps/engines/__init__.py", "package"): "an engine names its own package",
  ("sweeps/engines/__init__.py", "make"): "the name is one of three that --engine takes",
  ("report/trackers.py", "_import"): "a tracker names its own packages",
}


class _Offences(ast.NodeVisitor):
  """Collects what a file should not say, and where it imports by computed names."""

  def __init__(self):
    self.found: list[str] = []
    self.resolved: set[str] = set()
    self._functions: list[str] = [""]

  def visit_FunctionDef(self, node):
    self._functions.append(node.name)
    self.generic_visit(node)
    self._functions.pop()

  def visit_Import(self, node):
    for alias in node.names:
      if alias.name.split(".")[0] in IMPORTS:
        self._add(node, f"import {alias.name}")

  def visit_ImportFrom(self, node):
    names = [f"{node.module or ''}.{alias.name}" for alias in node.names]
    for name in names:
      if name.split(".")[0] in IMPORTS or name in CALLS or name in ARRAYS:
        self._add(node, f"from {name}")
      if name.startswith("importlib.") and name.split(".")[-1] in MODULES:
        self._add(node, f"from {name}")

  def visit_Name(self, node):
    if node.id in BUILTINS:
      self._add(node, node.id)

  def visit_Attribute(self, node):
    name = ast.unparse(node)
    if name in CALLS:
      self._add(node, name)
    if node.attr in MODULES:
      self.resolved.add(self._functions[-1])
    self.generic_visit(node)

  def visit_Call(self, node):
    said = {word.arg: word.value for word in node.keywords}
    name = ast.unparse(node.func)
    if "shell" in said:
      self._add(node, "shell=")
    no_pickle = (
      isinstance(said.get("allow_pickle"), ast.Constant) and not said["allow_pickle"].value
    )
    if ("allow_pickle" in said or name in ARRAYS) and not no_pickle:
      self._add(node, f"{name} without allow_pickle=False")
    taken_out = name.rpartition(".")[2] in ("extract", "extractall")
    kind = said.get("filter")
    if taken_out and not (isinstance(kind, ast.Constant) and kind.value == "data"):
      self._add(node, f"{name} without filter='data'")
    self.generic_visit(node)

  def _add(self, node, what):
    self.found.append(f"{node.lineno}: {what}")


def offences(source: str) -> _Offences:
  visitor = _Offences()
  visitor.visit(ast.parse(source))
  return visitor


def sources():
  hidden = ("tests", "runs", "build", "dist")
  return sorted(
    path
    for path in pathlib.Path().rglob("*.py")
    if path.parts[0] not in hidden and not any(part.startswith(".") for part in path.parts)
  )


def test_nothing_in_the_source_runs_what_is_in_a_file():
  files = sources()
  assert len(files) > 200
  resolved = set()
  for path in files:
    found = offences(path.read_text(encoding="utf-8"))
    assert not found.found, f"{path}:{found.found[0]}"
    resolved |= {(str(path), function) for function in found.resolved}
  assert resolved == set(RESOLVED)


@pytest.mark.parametrize(
  "line",
  [
    *(
      "import pickle",
      "import dill as d",
      "from pickle import loads",
      "import yaml",
      "import shelve",
    ),
    *(
      "from joblib import load",
      "import marshal",
      "eval('1')",
      "f = exec",
      "compile('1', '', 'eval')",
    ),
    *(
      "__import__('os')",
      "os.system('ls')",
      "subprocess.run('ls', shell=True)",
    ),
    *("torch.load(path)", "np.load(path)", "np.load(path, allow_pickle=True)", "x(allow_pickle=y)"),
    *("tar.extractall(path)", "archive.extract(name)", "tar.extractall(path, filter='tar')"),
    *("tempfile.mktemp()", "from os import system", "from importlib import import_module"),
    *("shutil.unpack_archive(path)", "import code", "from torch import load"),
  ],
)
def test_what_the_source_may_not_say_is_seen(line):
  assert offences(line).found


def test_what_the_source_may_say_is_not_complained_of():
  allowed = "re.compile('x'); np.load(p, allow_pickle=False); t.extractall(p, filter='data')"
  assert not offences(f"{allowed}; model.eval(); ast.literal_eval('1'); f.lower().compile()").found
  assert offences("def f():\n  importlib.import_module(name)").resolved == {"f"}


# ------------------------------------------------------------------ safetensors


def entry(dtype="F32", shape=(2, 2), offsets=(0, 16)):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


GOOD = {
  "__metadata__": {"format": "pt"},
  "a": entry(),
  "b.weight": entry("F16", (3,), (16, 22)),
  "c": entry("BF16", (1, 1), (22, 24)),
  "d": entry("I64", (), (24, 32)),
  "e": entry("F64", (0, 4), (32, 32)),
}
CONTENT = bytes(range(32))
WORDS = [
  *(
    b"NaN",
    b"-Infinity",
    b"-0",
    b"-1",
    b"1e0",
    b"0.0",
    b"null",
    b"true",
    b'""',
    b"[]",
    b"{}",
    b"01",
  ),
  *(b"18446744073709551616", b"9223372036854775808", b"4611686018427387904", b"9" * 5000),
  *(b'"F64"', b'"F8_E4M3"', b'"O"', b'"\\ud800"', b'"../../etc/passwd"', b'"__metadata__"'),
  *(
    b"[" * 2000,
    b'{"a":' * 2000,
    b"\xff",
    b"\0",
    b"\xef\xbb\xbf",
    b'"\\u0000"',
    b'"a"',
    b'"\x1b[2J"',
  ),
]


def mutated(generator: random.Random) -> bytes:
  """A file of which something is not as it should be; about one in ten is still whole."""
  header = json.dumps(GOOD, separators=(",", ":")).encode()
  content, length = CONTENT, None
  for _ in range(generator.randint(1, 3)):
    kind = generator.randrange(9)
    at = generator.randrange(len(header))
    if kind == 0:  # a value becomes another
      tokens = [i for i, c in enumerate(header) if c in b'0123456789"[{'] or [0]
      at = generator.choice(tokens)
      stop = next((i for i in range(at + 1, len(header)) if header[i] in b",]}:"), at)
      header = header[:at] + generator.choice(WORDS) + header[stop:]
    elif kind == 1:
      header = header[:at] + bytes([generator.randrange(256)]) + header[at + 1 :]
    elif kind == 2:
      header = header[:at] + header[at + generator.randint(1, 9) :] or b"{}"
    elif kind == 3:
      header = header[:at] + generator.choice(WORDS) + header[at:]
    elif kind == 4:  # offsets and sizes by one
      digits = [i for i, c in enumerate(header) if c in b"0123456789"] or [0]
      at = generator.choice(digits)
      header = header[:at] + bytes([generator.choice(b"0123456789")]) + header[at + 1 :]
    elif kind == 5:
      length = generator.choice(
        [0, 1, 7, len(header) - 1, len(header) + 1, 2**31, 2**63, 2**64 - 1]
      )
    elif kind == 6:
      content = generator.choice([b"", content[:-1], content + b"\0", content * 3])
    elif kind == 7:  # the same entry once more
      header = header[:-1] + b',"f":' + json.dumps(entry()).encode() + b"}"
    else:
      header = header + generator.choice([b" ", b"\n", b"\0", b"}", b"{}"])
  length = len(header) if length is None else length
  file = struct.pack("<Q", length) + header + content
  return file[: generator.randrange(len(file))] if generator.random() < 0.05 else file


def target(name: str):
  """The `check` of a fuzz target."""
  sys.path.insert(0, str(FUZZ))
  try:
    return __import__(name).check
  finally:
    sys.path.remove(str(FUZZ))


def cheaply(check, *given):
  """What `check` gives, which may take neither memory nor time; it is called twice."""
  began = time.process_time()
  check(*given)
  assert time.process_time() - began < SECONDS
  tracemalloc.start()  # by itself: tracing makes it several times slower
  try:
    result = check(*given)
    assert tracemalloc.get_traced_memory()[1] < MEMORY
  finally:
    tracemalloc.stop()
  return result


@pytest.mark.parametrize(
  ("seed", "count"), [(0, 1000), pytest.param(1, 30_000, marks=pytest.mark.deep)]
)
def test_mutated_safetensors_are_refused_or_read_as_the_reference_reads_them(seed, count):
  pytest.importorskip("safetensors", reason="`pip install -r requirements-oracles.txt`")
  check, generator = target("safetensors_header"), random.Random(seed)
  read = sum(cheaply(check, b"R" + mutated(generator)) for _ in range(count))
  assert 0.02 * count < read < 0.5 * count  # both ways were taken


@pytest.mark.parametrize("name", ["safetensors_header", "flax_msgpack"])
def test_what_fuzzing_found_stays_mended(name):
  pytest.importorskip("safetensors", reason="`pip install -r requirements-oracles.txt`")
  check, files = target(name), sorted((FUZZ / "corpus" / name).iterdir())
  assert len(files) >= 20
  assert len({cheaply(check, file.read_bytes()) for file in files}) == 2


COSTLY = {
  "lists": b'{"a":[' + b"[]," * 600_000 + b"[]]}",
  "objects": b'{"a":[' + b'{"a":0},' * 220_000 + b"{}]}",
  "names": b"{" + b",".join(b'"%x":0' % i for i in range(170_000)) + b"}",
  "axes": json.dumps({"a": entry(shape=[2**62] * 90_000)}).encode(),
  "digits": b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,16]}}'
  % b",".join([b"9" * 4000] * 400),
  "far": '{{"a":"{}"}}'.format("\U0001f600" * 480_000).encode(),
  "large": b'{"a":"' + b"x" * 3_000_000 + b'"}',
}


@pytest.mark.parametrize("kind", COSTLY)
def test_a_header_takes_no_memory(kind, tmp_path):
  file = tmp_path / "x"
  file.write_bytes(struct.pack("<Q", len(COSTLY[kind])) + COSTLY[kind] + bytes(16))

  def refused():
    with pytest.raises(Unreadable):
      tensors.safetensors(file)

  cheaply(refused)


def test_a_header_has_two_megabytes_at_most(tmp_path):
  for size, read in ((1_900_000, True), (2_100_000, False)):
    header = json.dumps({"__metadata__": {"a": "x" * size}, "a": entry()}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with contextlib.nullcontext() if read else pytest.raises(Unreadable, match="at most 2,000,000"):
      assert set(tensors.safetensors(tmp_path / "x")) == {"a"}


@pytest.mark.parametrize(
  ("values", "dtype"),
  [([np.nan], "<f4"), ([np.inf], "<f2"), ([1e300], "<f8"), ([0, -np.inf], "<f4")],
)
def test_weights_are_finite(values, dtype, tmp_path):
  raw = np.array(values, dtype).tobytes()
  kind = {"<f4": "F32", "<f2": "F16", "<f8": "F64"}[dtype]
  header = json.dumps({"a": entry(kind, [len(values)], (0, len(raw)))}).encode()
  (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + raw)
  with pytest.raises(Unreadable, match="no finite number"):
    tensors.safetensors(tmp_path / "x")["a"].array()


# ------------------------------------------------------------------ flax_model.msgpack


def array(*what):
  return msgpack.ExtType(1, msgpack.packb(what))


def test_mutated_msgpack_is_refused_or_whole():
  check, generator, read = target("flax_msgpack"), random.Random(0), 0
  parts = {"shape": {"0": 2, "1": 1}, "chunks": {"0": array([2], "float32", bytes(8))}}
  tree = {
    "a": {"kernel": array([2, 1], "float32", bytes(8)), "bias": array([1], "bfloat16", bytes(2))},
    "b": {"__msgpack_chunked_array__": True, **parts},
    "c": {"scale": array([], "float64", bytes(8))},
  }
  good = msgpack.packb(tree)
  for _ in range(500):
    file = bytearray(good)
    for _ in range(generator.randint(1, 3)):
      at = generator.randrange(len(file))
      file[at : at + generator.randrange(2)] = bytes([generator.randrange(256)])
    read += cheaply(check, bytes(file[: generator.choice([None, None, len(file) - 1])]))
  assert 10 < read < 400


@pytest.mark.parametrize(
  "content",
  [
    (b"\xdd" + struct.pack(">I", 10**6)) * 400 + bytes(10**6),  # lists in lists, each that long
    b"\xdf" + struct.pack(">I", 2**32 - 1),
    b"\xc6" + struct.pack(">I", 2**32 - 1),
    msgpack.packb({str(i): None for i in range(100_001)}),
    msgpack.packb({"a": array([2**62, 0], "float32", b"")}),
    msgpack.packb({"a": array([1] * 64, "float32", bytes(4))}),
    msgpack.packb({"a": array([1], "float32", ["\0"] * 4)}),
    msgpack.packb({"a": array([1], ["float32"], bytes(4))}),
    msgpack.packb({1: array([1], "float32", bytes(4))}),
    b"\x82\xa1a\xc0\xa1a\xc0",  # a name twice
    msgpack.packb(
      {"__msgpack_chunked_array__": True, "shape": array([1], "float32", bytes(4)), "chunks": {}}
    ),
    msgpack.packb(
      {
        "__msgpack_chunked_array__": True,
        "shape": {"0": -1},
        "chunks": {"0": array([1], "float32", bytes(4))},
      }
    ),
  ],
)
def test_msgpack_that_lies_is_refused(content):
  assert cheaply(target("flax_msgpack"), content) is False


# ------------------------------------------------------------------ indexes and links


def shards(tmp_path, index: bytes):
  model = tmp_path / "model"
  model.mkdir()
  header = json.dumps({"a": entry()}).encode()
  (model / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
  (model / tensors.INDEX).write_bytes(index)
  return model


@pytest.mark.parametrize(
  "place",
  [
    *("\ud800.safetensors", "x" * 300 + ".safetensors", "circle.safetensors", "pipe.safetensors"),
    *("folder.safetensors", "gone.safetensors", "..", ".", "//x.safetensors", "x.safetensors/"),
  ],
)
def test_a_shard_that_cannot_be_opened_is_refused(place, tmp_path):
  index = json.dumps({"weight_map": {"a": place}}).encode()
  model = shards(tmp_path, index)
  (model / "circle.safetensors").symlink_to(model / "circle.safetensors")
  os.mkfifo(model / "pipe.safetensors")  # opening it would wait for ever
  (model / "folder.safetensors").mkdir()
  (model / "gone.safetensors").symlink_to(tmp_path / "outside")
  with pytest.raises(Unreadable):
    tensors.weights(model)


@pytest.mark.parametrize(
  "index",
  [
    b"{" * 100_000,
    json.dumps({"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}).encode(),
    b'{"weight_map":{"a":"x.safetensors","a":"x.safetensors"}}',
    b'{"weight_map":{"a":["x.safetensors"]}}',
    b'{"weight_map":NaN}',
    json.dumps(
      {"weight_map": {f"{'n' * 30}{i}": "x.safetensors" for i in range(170_000)}}
    ).encode(),
    json.dumps({"weight_map": {f"n{i}": "x.safetensors" for i in range(60_000)}}).encode(),
  ],
)
def test_an_index_that_lies_is_refused(index, tmp_path):
  model = shards(tmp_path, index)

  def refused():
    with pytest.raises(Unreadable) as error:
      tensors.weights(model)
    assert len(error.value.details) <= 101

  cheaply(refused)


@pytest.mark.parametrize(
  "place", ["../1_Pooling", "/etc", "x\0", "\ud800", 5, "", "out", "y" * 300]
)
def test_a_folder_of_pooling_is_the_directorys_own(place, tmp_path):
  model = tmp_path / "model"
  (tmp_path / "1_Pooling").mkdir()
  model.mkdir()
  (model / "out").symlink_to(tmp_path / "1_Pooling")
  for folder in (tmp_path / "1_Pooling", model):
    (folder / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
  kinds = ("x.Transformer", ""), ("x.Pooling", place)
  modules = [{"type": kind, "path": path} for kind, path in kinds]
  (model / sentences.MODULES).write_text(json.dumps(modules))
  with pytest.raises(Unreadable):
    sentences.read(model)


# ------------------------------------------------------------------ a model's directory, whole

TOKENIZER = tokenizers.train("words", ["in the beginning god created the heaven"], 0)
V = TOKENIZER.size
MODELS = {
  "gpt": (gpt.Model(V, 12, layers=2, features=8, heads=2), (ROW,)),
  "llama": (
    llama.Model(V, 12, layers=1, features=8, heads=2, mlp_features=16, rotary="halves"),
    (ROW,),
  ),
  "t5": (
    t5.Model(
      vocabulary=V,
      encoder_layers=1,
      decoder_layers=1,
      features=8,
      heads=2,
      head_features=4,
      mlp_features=16,
    ),
    (ROW, ROW),
  ),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """Directories of small models with a tokenizer, as they should be."""
  folder = tmp_path_factory.mktemp("published")
  generator = np.random.default_rng(0)
  for name, (model, inputs) in MODELS.items():
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs))["params"]
    params = jax.tree.map(lambda x: generator.normal(0, 0.2, x.shape).astype(np.float32), shapes)
    settings = {field: getattr(model, field) for field in model.__dataclass_fields__}
    settings["name"] = type(model).__module__.removeprefix("models.")
    huggingface.write(folder / name, settings, params, tokenizer=TOKENIZER.to_json())
  return folder


def in_a_line(error) -> str:
  line = str(error)
  assert len(line) <= 500
  assert line.isprintable()
  return line


VALUES = [None, True, -1, 0, 1, 10**8, 10**400, -0.5, 1e308, "x", "\x1b[2J\n", [], [{}], {"a": 1}]


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.deep)])
@pytest.mark.parametrize("name", MODELS)
def test_whatever_config_json_says_is_refused_or_a_model(name, every, published, tmp_path):
  """Every key in turn, with values of all kinds; what is taken is a model that can be traced."""
  shutil.copytree(published / name, tmp_path, dirs_exist_ok=True)
  said = json.loads((tmp_path / "config.json").read_text())
  model, inputs = MODELS[name]
  taken = refused = 0
  keys = (*said, "rope_scaling", "rope_parameters", "head_dim", "decoder_start_token_id")
  for number, key in enumerate(keys):
    for value in VALUES[number % every :: every]:
      (tmp_path / "config.json").write_text(json.dumps(said | {key: value}))
      try:
        run = elsewhere.opened(f"hf:{tmp_path}")
      except CheckpointError as error:
        in_a_line(error)
        refused += 1
        continue
      taken += 1
      if run.call.model != model:
        jax.eval_shape(lambda: run.call.model.init(jax.random.key(0), *inputs))
  assert taken > 20
  assert refused > 20


def renamed_tensors(folder, change):
  """The file of weights with its header changed."""
  file = folder / tensors.WEIGHTS
  content = file.read_bytes()
  (length,) = struct.unpack("<Q", content[:8])
  header = json.dumps(change(json.loads(content[8 : 8 + length]))).encode()
  file.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])


def damage(folder, kind):
  config_file = folder / "config.json"
  said = json.loads(config_file.read_text())
  match kind:
    case "header":
      (folder / tensors.WEIGHTS).write_bytes(struct.pack("<Q", 2**63) + b"{}")
    case "names":
      renamed_tensors(
        folder,
        lambda header: {f"{name}\x1b[2J\n": v for name, v in header.items() if name[0] != "_"},
      )
    case "many names":
      renamed_tensors(
        folder,
        lambda header: (
          header
          | {
            f"transformer.h.{i}.attn.c_attn.weight" + "x" * 60: entry(shape=[0], offsets=[0, 0])
            for i in range(5000)
          }
        ),
      )
    case "layers":
      config_file.write_text(json.dumps(said | {"n_layer": 10**9}))
    case "width":
      config_file.write_text(json.dumps(said | {"n_embd": 10**8}))
    case "vocabulary":
      config_file.write_text(json.dumps(said | {"vocab_size": 10**9}))
    case "deep":
      config_file.write_text('{"a":' * 100_000)
    case "pickle":
      (folder / tensors.WEIGHTS).rename(folder / "pytorch_model.bin")
    case "tokenizer":
      (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    case "tokenizer of bytes":
      (folder / "tokenizer.json").write_bytes(b"\xff\xfe\0")
    case "tokenizer deep":
      (folder / "tokenizer.json").write_text('{"a":' * 100_000)
    case "tokenizer large":
      text = json.loads(TOKENIZER.to_json())
      text["model"]["vocab"]["heaven"] = V  # the model has rows 0 to V - 1
      (folder / "tokenizer.json").write_text(json.dumps(text))
    case "sentencepiece":
      (folder / "tokenizer.json").unlink()
      (folder / "spiece.model").write_bytes(bytes(range(256)))
    case "vocabulary of text":
      (folder / "tokenizer.json").unlink()
      (folder / "vocab.json").write_text('{"a": -1}')
      (folder / "merges.txt").write_text("a b c\n")
    case "weights in a folder":
      (folder / tensors.WEIGHTS).unlink()
      (folder / tensors.WEIGHTS).mkdir()


DAMAGE = [
  *(
    "header",
    "names",
    "many names",
    "layers",
    "width",
    "vocabulary",
    "deep",
    "pickle",
    "tokenizer",
  ),
  *("tokenizer of bytes", "tokenizer deep", "tokenizer large", "sentencepiece"),
  *("vocabulary of text", "weights in a folder"),
]


@pytest.mark.parametrize("kind", DAMAGE)
def test_launch_refuses_a_damaged_model(kind, published, tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  folder = tmp_path / "model"
  shutil.copytree(published / "gpt", folder)
  damage(folder, kind)

  def sampled():
    capsys.readouterr()  # what it said when its time was taken
    return launch.main(["sample", f"--workdir=hf:{folder}", "--prompt=the heaven"])

  status = cheaply(sampled)
  lines = capsys.readouterr().err.splitlines()
  assert status == 4
  assert lines[-1].startswith("error[CHECKPOINT]: ")
  assert len(lines[-1]) <= 500
  assert len(lines) <= 102  # of which the others are what is wrong, one by one
  assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
  "place", ["hf:/nowhere", "hf:~nobody-here/x", "hf:\0", f"hf:{'x' * 5000}", "hf:"]
)
def test_launch_refuses_places_that_are_none(place, capsys):
  assert launch.main(["sample", f"--workdir={place}", "--prompt=x"]) == 4
  in_a_line(capsys.readouterr().err.strip())


def test_an_old_name_does_not_hide_a_new_one(tmp_path):
  names = ("x.LayerNorm.gamma", "x.LayerNorm.weight")
  header = {name: entry("F32", (1,), (4 * i, 4 * i + 4)) for i, name in enumerate(names)}
  text = json.dumps(header).encode()
  (tmp_path / tensors.WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
  (tmp_path / "config.json").write_text('{"model_type": "bert"}')
  with pytest.raises(Unreadable, match="under an old name and a new one"):
    huggingface.read(tmp_path)


def test_mutated_tokenizers_are_refused_or_read(tmp_path):
  """tokenizer.json with some of its letters changed: it loads and reads, or says in a line why not."""
  generator, text = random.Random(0), TOKENIZER.to_json()
  file, read = tmp_path / "tokenizer.json", 0
  for number in range(300):
    letters = list(text)
    for _ in range(generator.randint(1, 4)):
      at = generator.randrange(len(letters))
      letters[at : at + generator.randint(0, 6)] = generator.choice('"{}[]:,0-e\\ntruefals')
    file.write_text("".join(letters))
    os.utime(file, ns=(number, number))
    try:
      found = tokenizers.load(file)
    except ValueError as error:
      in_a_line(error)
      continue
    read += 1
    found.decode(found.encode("in the heaven"))
  assert 0 < read < 250


# ------------------------------------------------------------------ adapters


@pytest.mark.parametrize(
  "change",
  [
    *({"r": True}, {"r": 10**400}, {"r": 2.5}, {"lora_alpha": 10**400}, {"lora_alpha": "8"}),
    *(
      {"rank_pattern": [1]},
      {"rank_pattern": {"c_attn": "x"}},
      {"alpha_pattern": {"c_attn": None}},
    ),
    *({"peft_type": ["LORA"]}, {"bias": {}}, {"rank_pattern": "c_attn"}),
  ],
)
def test_adapters_that_lie_are_refused(change, published, tmp_path):
  from interop import peft

  model = MODELS["gpt"][0]
  settings = {field: getattr(model, field) for field in model.__dataclass_fields__}
  settings["name"] = "transformer.gpt"
  pair = {"a": np.ones((2, 8, 2), np.float32), "b": np.ones((2, 2, 8), np.float32)}
  adapters = {"decoder_layers": {"attention": {"query": {"kernel": pair}}}}
  peft.write(tmp_path, adapters, rank=2, alpha=2.0, model=settings)
  assert peft.read(tmp_path, settings).rank == 2
  said = json.loads((tmp_path / peft.CONFIG).read_text())
  # What they match is not searched for: an expression that never ends is only text.
  said["target_modules"] = "(a+)+" * 50 + "$"
  (tmp_path / peft.CONFIG).write_text(json.dumps(said))
  assert peft.read(tmp_path, settings).rank == 2
  (tmp_path / peft.CONFIG).write_text(json.dumps(said | change))
  with pytest.raises(Unreadable) as error:
    peft.read(tmp_path, settings)
  in_a_line(error.value)


# ------------------------------------------------------------------ pickles, and what else would run


class Canary:
  """Leaves a mark where it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def test_samples_are_no_objects(tmp_path):
  mark = tmp_path / "ran"
  objects = np.empty(1, object)
  objects[0] = Canary(mark)
  huge = tmp_path / "huge.npz"
  for name, write in {
    "objects": lambda file: np.savez(file, images=objects),
    "pickle": lambda file: file.write_bytes(pickle.dumps(Canary(mark))),
    "others": lambda file: np.savez(file, pictures=np.zeros(1)),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: (np.savez(file, images=np.ones(99)), os.truncate(file, 200)),
  }.items():
    file = tmp_path / f"{name}.npz"
    write(file)
    with pytest.raises(CheckpointError):
      look._samples(file)
  assert not mark.exists()
  header = {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)}
  with zipfile.ZipFile(huge, "w") as members, members.open("images.npy", "w") as member:
    np.lib.format.write_array_header_1_0(member, header)
  with pytest.raises(CheckpointError):
    cheaply(look._samples, huge)
  np.savez(tmp_path / "good.npz", images=np.arange(3.0))
  np.testing.assert_array_equal(look._samples(tmp_path / "good.npz"), np.arange(3.0))


def test_an_unpacked_file_of_samples_has_a_bound(tmp_path, monkeypatch):
  monkeypatch.setattr(look, "_LARGEST_SAMPLES", 10_000)
  np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros(10**6, np.uint8))
  with pytest.raises(CheckpointError, match="more than 10,000"):
    look._samples(tmp_path / "bomb.npz")


def test_a_study_that_would_be_unpickled_is_not_opened(tmp_path):
  """Optuna's CMA-ES takes up its state from a pickle in whatever storage it is given."""
  space = {"x": uniform(0.0, 1.0), "y": uniform(0.0, 1.0)}
  for place in (f"sqlite:///{tmp_path}/study.db", str(tmp_path / "study.journal")):
    with pytest.raises(ConfigError, match="pickle"):
      Search(space, Settings(max_resource=1, sampler="cmaes"), storage=place)
  assert not list(tmp_path.iterdir())
  Search(space, Settings(max_resource=1, sampler="tpe"), storage=str(tmp_path / "study.journal"))


@pytest.mark.parametrize(
  "name",
  [
    *("os", "..tests.test_security", "../tests/test_security", "transformer", "__init__", "layers"),
    *(
      "transformer.gpt.Model",
      "transformer.gpt\n",
      "transformer/gpt",
      ".transformer.gpt",
      "",
      5,
      None,
    ),
    *("transformer.gpt:x", "models.transformer.gpt", "layers.__init__", ["transformer.gpt"], {}),
  ],
)
def test_a_name_in_a_config_is_that_of_a_file_of_the_room(name):
  before = set(sys.modules)
  for room, attribute in (("models", "Model"), ("tasks", "Task"), ("data", "Source")):
    with pytest.raises(ConfigError) as error:
      build._locate(room, attribute, {"name": name}, "model")
    in_a_line(error.value)
  assert set(sys.modules) == before


def test_arithmetic_of_claims_is_no_program():
  generator = random.Random(0)
  pieces = [
    "a",
    "rival.a",
    "1",
    "1e999",
    "<",
    ">",
    "and",
    "or",
    "+",
    "-",
    "**",
    "//",
    "(",
    ")",
    "@",
  ]
  pieces += [
    "log(",
    "__import__('os')",
    "().__class__",
    "lambda: 0",
    "[1]",
    "not",
    "'x'",
    "if",
    "0x1",
  ]
  pieces += ["a.b", "rival", ":=", "{}", "\0", "é", "await a", "f''", "deviation(", "*", "/", "in"]
  values = {"a": np.array([1.0, 2.0]), "rival.a": np.array([2.0, 1.0]), "é": np.ones(2)}
  parsed = 0
  for _ in range(2000):
    text = ["a", "<", "rival.a", "and", "a", ">", "1", "-", "log(", "a", ")", "*", "2"]
    for _ in range(generator.randint(1, 3)):
      text[generator.randrange(len(text))] = generator.choice(pieces)
    text = " ".join(text)
    try:
      found = relation.parse(text)
    except ConfigError as error:
      in_a_line(error)
      continue
    for comparison in found:
      assert set(comparison.names) <= set(values)
      with np.errstate(all="ignore"):
        comparison.difference(values)
      parsed += 1
  assert parsed > 10
  for text in (
    "-" * 100_000 + "a < 1",
    "(" * 5000 + "a",
    "a < 1" + " + 1" * 50_000,
    "a<" + "9" * 9000,
  ):
    with pytest.raises(ConfigError):
      relation.parse(text)


@pytest.mark.parametrize(
  "text",
  [
    "-" * 10**6 + "1",
    "(" * 10**5,
    "[" * 10**5 + "]" * 10**5,
    "{" * 300,
    "9" * 10**5,
    "1" + "+1j" * 10**4,
  ],
)
def test_a_value_on_a_command_line_is_text_where_it_is_no_value(text):
  assert config.literal(text) == text


# ------------------------------------------------------------------ the workdirs of others


def test_links_in_a_workdir_lead_nowhere_else(tmp_path):
  """Whoever looks at a run writes to its directory: through a link, to a file of their own."""
  mine = tmp_path / "mine"
  mine.write_text("precious")
  for name in (".lock", "report.html", ".evaluation.json.tmp", "samples/seed_0.npz", "figures"):
    workdir = tmp_path / name.replace("/", "-")
    (workdir / name).parent.mkdir(parents=True)
    (workdir / "config.json").write_text("{}")
    (workdir / name).symlink_to(tmp_path if name == "figures" else mine)
    for trained in (True, False):
      with pytest.raises(StorageError, match="leaves the workdir"):
        Workdir(workdir, trained=trained)
  assert mine.read_text() == "precious"
  workdir = tmp_path / "run"
  (workdir / "checkpoints").mkdir(parents=True)
  (workdir / "checkpoints" / "latest").symlink_to(tmp_path)  # on a larger disk
  (workdir / "newest").symlink_to("checkpoints")
  Workdir(workdir).close()


@pytest.mark.parametrize("name", ["sweep.json", "trials/0000", "trials/0000/trial.json", "jobs"])
def test_links_in_a_sweep_lead_nowhere_else(tmp_path, name):
  (tmp_path / "mine").mkdir()
  link = tmp_path / "sweep" / name
  link.parent.mkdir(parents=True)
  link.symlink_to(tmp_path / "mine")
  with pytest.raises(StorageError, match="leaves the workdir"):
    Ledger(tmp_path / "sweep")
  assert not any((tmp_path / "mine").iterdir())


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"[]", b"1", b"{", b"", b'{"a": 1'])
def test_a_workdirs_config_is_json(content, tmp_path, capsys):
  (tmp_path / "config.json").write_bytes(content)
  with pytest.raises(ConfigError):
    read_config(tmp_path)


def test_a_workdirs_config_runs_nothing(tmp_path, capsys):
  canary = tmp_path / "ran"
  said = {
    "model": {"name": "os", "_target_": "os.mkdir", "_args_": [str(canary)]},
    "data": {"name": f"!!python/object/apply:os.mkdir ['{canary}']"},
    "task": {"name": "builtins.exec"},
    "training": {"steps": f"__import__('os').mkdir('{canary}')"},
  }
  (tmp_path / "config.json").write_text(json.dumps(said))
  for command in ("evaluate", "sample", "report", "probe"):
    assert launch.main([command, f"--workdir={tmp_path}"]) == 2
    in_a_line(capsys.readouterr().err.strip())
  assert not canary.exists()


SCRIPT = "<script>alert(1)</script>"


def test_a_report_shows_texts_and_runs_none(tmp_path):
  """What a run's files say is text in its report, wherever it stands in them."""
  evil = f"{SCRIPT}\"'><img src=x onerror=alert(1)>&amp;"
  figures = tmp_path / "figures"
  figures.mkdir()
  said = {evil: evil, "model": {"name": evil, evil: [evil]}, "data": [{evil: evil}]}
  table = {"columns": [evil], "rows": [[evil]], "caption": evil}
  for name, content in {
    "config.json": said,
    "environment.json": {"command": evil, "commit": evil, "seed": evil, evil: {evil: evil}},
    "evaluation.json": {
      "splits": {evil: {evil: evil, "examples": evil}},
      "step": evil,
      "weights": evil,
      "conditions": {evil: evil},
    },
    "figures/captions.json": {"x": evil, evil: evil},
    "figures/tables.json": {evil: table},
  }.items():
    (tmp_path / name).write_text(json.dumps(content))
  png = b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 1, 1)
  (figures / "x.png").write_bytes(png)
  (figures / f"{evil.replace('/', '')}.png").write_bytes(b"no image")
  page = html.write(tmp_path, default_config={evil: 1}, warnings=[evil]).read_text()
  assert page.count("&lt;script&gt;") > 15
  assert "<script" not in page.lower()
  assert "<img src=x" not in page.lower()
  assert "default-src 'none'" in page
