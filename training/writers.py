"""Where a run's scalars and pictures go besides its own files."""

from collections.abc import Mapping, Sequence
from typing import Any

from report.tensorboard import Events
from report.writer import Several, Writer
from training import processes
from training.errors import ConfigError
from training.workdir import Workdir


def opened(
  workdir: Workdir, config: Mapping[str, Any], *, name: str, track: Sequence[str], step: int
) -> Writer:
  """TensorBoard's events, and the trackers that were asked for.

  Args:
    workdir: of the run.
    config: resolved.
    name: of the experiment.
    track: "wandb", "mlflow", "trackio".
    step: that the run goes on from; what was logged after it is logged again.

  Raises:
    ConfigError: a tracker's package is not installed.
  """
  if not processes.first():
    return Several([])
  found = [Events(workdir.path, purge_step=step + 1 if step else None)]
  if not track:
    return found[0]
  from report import trackers  # half a second, for which nobody else need wait

  try:
    found += trackers.writers(
      track, workdir.path, config=config, experiment=name, resume_step=step or None
    )
  except (ValueError, ImportError) as error:
    found[0].close()
    raise ConfigError(
      str(error), kept="the run is as it was", do="install it, or leave it out of --track"
    ) from None
  return Several(found)
