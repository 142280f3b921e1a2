"""Trains an experiment as a process that is killed and started again; prints the bits at the end.

python tests/killing.py WORKDIR EXPERIMENT [key=value ...]

It is launch.py's `train` without figures and report, so that many kills are affordable.
"""

import hashlib
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from training import checkpoint, config, run
from training.build import build
from training.errors import UserError
from training.loop import Stop
from training.machine import Machines
from training.parallel import to_host
from training.workdir import Workdir


def main(path: str, name: str, *overrides: str) -> int:
  found = build(config.override(config.load(name), [pair.split("=", 1) for pair in overrides]))
  try:
    workdir = Workdir(path)
    workdir.claim(found.config)
    with Stop() as stop:
      state, _, _ = run.fit([run.Run(found, workdir, sys.argv)], Machines(), stop=stop)
    workdir.close()
  except UserError as error:
    print(error, file=sys.stderr, flush=True)
    return error.status
  arrays = {p: checkpoint.fingerprint(leaf) for p, leaf in checkpoint.leaves(to_host(state))}
  rows = hashlib.sha256((pathlib.Path(path) / "metrics.jsonl").read_bytes()).hexdigest()
  print(json.dumps({"arrays": arrays, "rows": rows}))
  return 0


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
