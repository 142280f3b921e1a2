"""How values, names and times are written for a reader, on a page as on a terminal."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

ABSENT = object()  # None is a value that a file may hold


def text(value: Any) -> str:
  """A value as a reader writes it on a command line, with every digit."""
  if value is ABSENT:
    return "(absent)"
  if isinstance(value, str):
    return value if value else '""'
  return json.dumps(value, ensure_ascii=False, default=str)


def brief(value: Any, digits: int = 4) -> str:
  """A value in few characters: 0.00031622776601 is 0.0003162, and 3e-05 is 3e-5.

  Args:
    value: anything that `text` takes.
    digits: significant digits of a number; those before its decimal point are all kept.
  """
  if isinstance(value, bool) or not isinstance(value, float):
    return text(value)
  if not math.isfinite(value):
    return str(value)
  if 10**digits <= round(abs(value)) < 1e7:
    return f"{value:.0f}"
  return re.sub(r"e([+-])0*", lambda sign: f"e{sign[1].strip('+')}", f"{value:.{digits}g}")


def short(value: object, width: int) -> str:
  """One printable line of at most `width` characters."""
  line = " ".join(str(value).split())
  line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
  return line if len(line) <= width else line[: width - 1] + "…"


def short_names(keys: Iterable[str]) -> dict[str, str]:
  """Each dotted key by as many of its last parts as tell it from the others."""
  keys = list(keys)
  names = {}
  for key in keys:
    parts = key.split(".")
    for count in range(1, len(parts) + 1):
      name = ".".join(parts[-count:])
      if not any(other != key and f".{other}".endswith(f".{name}") for other in keys):
        break
    names[key] = name
  return names


def duration(seconds: float) -> str:
  """Seconds as "12 s", "3 min 05 s" or "1 h 02 min"."""
  whole = round(seconds)
  if whole < 60:
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
  if whole < 3600:
    return f"{whole // 60} min {whole % 60:02d} s"
  return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
