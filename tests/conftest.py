"""Every test runs with four devices and with our own warnings as errors.

Dtype promotion is not strict here, because Optax's own arithmetic is not; test_experiments.py traces
every loss, transform and measure of ours under strict promotion.
"""

import gc
import os
import pathlib
import sys
import warnings

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # experiments and rooms are imported as from the root
os.chdir(ROOT)
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/fukugen/tests")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What is tested here is compiled far more often than it is run.
os.environ["XLA_FLAGS"] = (
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
  + os.environ.get("XLA_FLAGS", "")
)

import jax  # noqa: E402 - after its environment
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
  """A process that keeps thousands of compiled programs grows by gigabytes, and slows down."""
  yield
  jax.clear_caches()
  gc.collect()


def pytest_configure(config):
  rooms = "|".join(p.name for p in ROOT.iterdir() if (p / "__init__.py").exists())
  config.addinivalue_line("filterwarnings", f"error:::({rooms}|launch)\\b")
  warnings.filterwarnings("error", module=rf"({rooms}|launch)\b")
