"""Weights & Biases, MLflow and trackio, for who wants them beside metrics.jsonl and TensorBoard.

A tracker is never in the way of the training. It works in a thread of its own, and the first error
switches it off for the rest of the process with one line on stderr. `.trackers.json` in the workdir
keeps which of the tracker's runs is this one, and how far each of its series has been sent, so that
a resumed run goes on there and sends nothing twice.
"""

import abc
import contextlib
import importlib
import json
import logging
import os
import queue
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from report import files, page
from report.writer import Writer, pixels

_PROJECT = "fukugen"  # where a tracker files a run, unless its own environment variable says
_WAITING = 10_000  # rows on their way to a tracker before it counts as stuck
_PATIENCE = 60.0  # seconds that the end of a run waits for a tracker


class _Run(NamedTuple):
  """What a tracker is told about a run, besides its rows.

  Attributes:
    workdir: its folder.
    experiment: the experiment file and variant.
    config: settings by dotted key.
  """

  workdir: Path
  experiment: str
  config: dict[str, Any]

  @property
  def described(self) -> dict[str, Any]:
    """The settings and, where a tracker has no better place for it, which run this is."""
    return {**self.config, "experiment": self.experiment, "workdir": str(self.workdir)}


class _Service(abc.ABC):
  """What one package does; everything is called in one thread, `open` first.

  Attributes:
    modules: what it imports.
    install: what pip installs for that.
  """

  modules: ClassVar[tuple[str, ...]]
  install: ClassVar[str]

  def __init__(self, run: _Run):
    self.run = run

  @abc.abstractmethod
  def open(self, run_id: str | None) -> str:
    """Goes on in the run of this id, or starts one; returns its id."""

  @abc.abstractmethod
  def scalars(self, step: int, values: dict[str, float]) -> None:
    """Sends numbers by name, the split in front ("train/loss")."""

  @abc.abstractmethod
  def image(self, step: int, tag: str, array: np.ndarray) -> None:
    """Sends a picture, uint8 [H, W, 3]."""

  @abc.abstractmethod
  def close(self) -> None:
    """Ends the run; what was sent has arrived when this returns."""


class _WeightsAndBiases(_Service):
  """Online or offline as WANDB_MODE says; its local files are in WANDB_DIR or the workdir."""

  modules = ("wandb",)
  install = "wandb"

  def open(self, run_id: str | None) -> str:
    import wandb

    online = wandb.setup().settings.mode == "online"
    # Asked before `init`, which would prompt for a key in the middle of the training.
    if online and not wandb.login(prompt=False, verify=False):
      raise ValueError("no API key; run `wandb login`, or set WANDB_MODE=offline")
    # The end of a path tells runs apart; a tag has at most 64 characters.
    tags = [self.run.experiment[-64:], str(self.run.workdir)[-64:]]
    self._log = wandb.init(
      project=os.environ.get("WANDB_PROJECT", _PROJECT),
      id=run_id or uuid.uuid4().hex[:8],
      resume="allow" if run_id else None,
      name=self.run.workdir.name,
      dir=os.environ.get("WANDB_DIR", str(self.run.workdir)),
      config=self.run.described,
      tags=tags,
      # It would otherwise stand between the training and its terminal.
      settings=wandb.Settings(console="off", quiet=True),
    )
    # Its own count of steps refuses what comes late; ours is a metric like the others.
    self._log.define_metric("*", step_metric="step")
    return self._log.id

  def scalars(self, step: int, values: dict[str, float]) -> None:
    self._log.log({"step": step, **values})

  def image(self, step: int, tag: str, array: np.ndarray) -> None:
    import wandb

    self._log.log({"step": step, f"figures/{tag}": wandb.Image(array)})

  def close(self) -> None:
    self._log.finish()


class _MLflow(_Service):
  """The store of MLFLOW_TRACKING_URI, or mlflow.db beside the workdir, for all runs in a folder."""

  modules = ("mlflow", "sqlalchemy", "alembic")  # the light package lacks what its database needs
  install = "mlflow-skinny sqlalchemy alembic"

  def open(self, run_id: str | None) -> str:
    # A new database is announced as if that were news to a user.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    folder = self.run.workdir.parent
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{folder / 'mlflow.db'}")
    self._id = run_id or self._create(None if uri else (folder / "mlflow").as_uri())
    self._client.update_run(self._id, status="RUNNING")
    return self._id

  def _create(self, artifacts: str | None) -> str:
    from mlflow.entities import Param

    run = self._client.create_run(
      self._experiment(artifacts),
      run_name=self.run.workdir.name,
      tags={"experiment": self.run.experiment, "workdir": str(self.run.workdir)},
    )
    settings = [Param(key, str(value)[:6000]) for key, value in self.run.config.items()]
    for start in range(0, len(settings), 100):  # the most that MLflow takes at once
      self._client.log_batch(run.info.run_id, params=settings[start : start + 100])
    return run.info.run_id

  def _experiment(self, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
    found = self._client.get_experiment_by_name(name)
    if found is None:
      try:
        return self._client.create_experiment(name, artifact_location=artifacts)
      except MlflowException:  # another run, started at the same moment, was first
        found = self._client.get_experiment_by_name(name)
        if found is None:
          raise
    return found.experiment_id

  def scalars(self, step: int, values: dict[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, value in values.items()]
    self._client.log_batch(self._id, metrics=metrics)

  def image(self, step: int, tag: str, array: np.ndarray) -> None:
    self._client.log_image(self._id, array, key=f"figures/{tag}", step=step)

  def close(self) -> None:
    self._client.set_terminated(self._id)


class _Trackio(_Service):
  """The database in TRACKIO_DIR, which is in the user's cache by default; no server is started."""

  modules = ("trackio",)
  install = "trackio"

  def open(self, run_id: str | None) -> str:
    import trackio

    self._log = trackio.init(
      project=_PROJECT,
      # It finds runs again by name, and workdirs of the same name are many.
      name=run_id or f"{self.run.workdir.name}-{uuid.uuid4().hex[:8]}",
      resume="allow",
      config=self.run.described,
      embed=False,
    )
    return self._log.name

  def scalars(self, step: int, values: dict[str, float]) -> None:
    self._log.log(dict(values), step=step)

  def image(self, step: int, tag: str, array: np.ndarray) -> None:
    import trackio

    self._log.log({f"figures/{tag}": trackio.Image(array)}, step=step)

  def close(self) -> None:
    self._log.finish()


_SERVICES: dict[str, type[_Service]] = {
  "wandb": _WeightsAndBiases,
  "mlflow": _MLflow,
  "trackio": _Trackio,
}


class _Record:
  """.trackers.json: {tracker: {"run": its id, "sent": {series: last step}}}."""

  def __init__(self, path: Path, *, resumed: bool):
    self._path = path
    self._lock = threading.Lock()  # every tracker has a thread
    self._trackers: dict[str, dict[str, Any]] = {}
    if resumed and path.exists():
      try:
        self._trackers = json.loads(path.read_text(encoding="utf-8"))
      except ValueError:
        raise ValueError(
          f"{path} cannot be read; without it the trackers start new runs, so delete it"
        ) from None

  def run_id(self, tracker: str) -> str | None:
    return self._trackers[tracker]["run"] if tracker in self._trackers else None

  def sent(self, tracker: str) -> dict[str, int]:
    return dict(self._trackers[tracker]["sent"]) if tracker in self._trackers else {}

  def opened(self, tracker: str, run_id: str) -> None:
    with self._lock:
      self._trackers[tracker] = {"run": run_id, "sent": self.sent(tracker)}
      self._write()

  def advance(self, tracker: str, series: str, step: int) -> None:
    with self._lock:
      self._trackers[tracker]["sent"][series] = step
      self._write()

  def _write(self) -> None:
    files.write_whole(self._path, json.dumps(self._trackers, indent=2).encode() + b"\n")


class _Call(NamedTuple):
  series: str
  step: int
  send: Callable[[], None]


class _Tracker(Writer):
  """Hands rows over to a thread, in which the service may be slow or fail."""

  def __init__(self, name: str, service: _Service, record: _Record):
    self._name = name
    self._service = service
    self._record = record
    self._before = record.sent(name)
    self._calls: queue.Queue[_Call | None] = queue.Queue(_WAITING)
    self._off = threading.Event()
    self._switching = threading.Lock()
    # A daemon, so that a service that never answers does not keep the process.
    self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
    self._thread.start()

  def scalars(self, step: int, split: str, values: Mapping[str, float]) -> None:
    named = {f"{split}/{name}": float(value) for name, value in values.items()}
    self._hand_over(split, step, lambda: self._service.scalars(step, named))

  def image(self, tag: str, figure_or_array: Any, step: int) -> None:
    # Drawn here: the caller may change the figure, and matplotlib knows no threads.
    array = pixels(tag, figure_or_array)
    self._hand_over(f"figures/{tag}", step, lambda: self._service.image(step, tag, array))

  def close(self) -> None:
    if not self._off.is_set():
      with contextlib.suppress(queue.Full):  # then the thread is stuck, as is said below
        self._calls.put(None, timeout=_PATIENCE)
      self._thread.join(_PATIENCE)
      if self._thread.is_alive():
        self._switch_off(f"it did not finish within {_PATIENCE:g} s")

  def _hand_over(self, series: str, step: int, send: Callable[[], None]) -> None:
    sent_before = series in self._before and step <= self._before[series]
    if sent_before or self._off.is_set():
      return
    try:
      self._calls.put_nowait(_Call(series, step, send))
    except queue.Full:
      self._switch_off(f"{_WAITING} rows wait for it")

  def _work(self) -> None:
    try:
      run_id = self._service.open(self._record.run_id(self._name))
      self._record.opened(self._name, run_id)
      for call in iter(self._calls.get, None):
        if self._off.is_set():
          break
        call.send()
        self._record.advance(self._name, call.series, call.step)
      self._service.close()
    except Exception as error:  # whatever a package raises, the training goes on
      self._switch_off(f"{type(error).__name__}: {error}")
      with contextlib.suppress(Exception):
        self._service.close()

  def _switch_off(self, reason: str) -> None:
    with self._switching:
      if not self._off.is_set():
        self._off.set()
        reason = " ".join(reason.split())[:300]
        print(
          f"warning: the tracker {self._name} is off from here on: {reason}; metrics.jsonl and"
          " TensorBoard have everything",
          file=sys.stderr,
          flush=True,
        )


def writers(
  names: Sequence[str],
  workdir: Path,
  *,
  config: Mapping[str, Any],
  experiment: str,
  resume_step: int | None,
) -> list[Writer]:
  """Starts trackers; what they do from then on never raises and never waits, except in `close`.

  Args:
    names: of the trackers: "wandb", "mlflow", "trackio".
    workdir: the folder of the run.
    config: the resolved config; it is logged by dotted key ("stages.0.training.steps").
    experiment: the experiment file and variant, a tag of the run.
    resume_step: the step that the run goes on from, in the trackers' runs that it had before; None
      for a run from the start, which is a new one in every tracker.

  Returns:
    list of a writer for each name.

  Raises:
    ValueError: there is no tracker of that name, or .trackers.json cannot be read.
    ImportError: its package is not installed.
  """
  # No tracker is started unless all can be.
  for name in names:
    if name not in _SERVICES:
      raise ValueError(f"there is no tracker {name!r}; there are {', '.join(_SERVICES)}")
  for name in dict.fromkeys(names):
    _import(name)
  workdir = Path(workdir).absolute()
  record = _Record(workdir / ".trackers.json", resumed=resume_step is not None)
  # MLflow allows no brackets in a name.
  settings = {re.sub(r"\[(\d+)\]", r".\1", key): value for key, value in page.flat(config)}
  run = _Run(workdir, experiment, settings)
  return [_Tracker(name, _SERVICES[name](run), record) for name in dict.fromkeys(names)]


def _import(name: str) -> None:
  # A run tells nobody but whom it was asked to tell; MLflow reads this when it is imported.
  os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
  for module in _SERVICES[name].modules:
    try:
      importlib.import_module(module)
    except ImportError as error:
      raise ImportError(
        f"the tracker {name} needs the package {module}, which cannot be imported ({error}); run"
        f" `pip install {_SERVICES[name].install}`"
      ) from None
