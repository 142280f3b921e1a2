"""What is raised on files that cannot be taken over."""

from collections.abc import Sequence

_SHOWN = 3  # of each kind of fault, in the message
_LONGEST = 400  # letters of a message, and of a detail
_MOST = 100  # details


def plain(text: str) -> str:
  """A line that a terminal shows as it is: names in a file may hold what steers terminals."""
  line = " ".join(text[: 2 * _LONGEST].split())
  line = "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
  return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


class Unreadable(Exception):
  """A file that is not what it should be, or a model that another's format cannot hold.

  Attributes:
    details: what is wrong, a line each, where the message has room for the first few.
  """

  def __init__(self, what: str, details: Sequence[str] = ()):
    super().__init__(plain(what))
    self.details = [plain(line) for line in details[:_MOST]]
    if len(details) > _MOST:
      self.details.append(f"and {len(details) - _MOST} more")


def listed(where: object, faults: dict[str, list[str]]) -> Unreadable:
  """The error that lists faults by kind: in its message the first of each, in `details` all."""
  parts = []
  for kind, lines in faults.items():
    if lines:
      more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
      parts.append(f"{len(lines)} {kind}: {', '.join(lines[:_SHOWN])}{more}")
  details = [f"{kind}: {line}" for kind, lines in faults.items() for line in lines]
  return Unreadable(f"{where}: {'; '.join(parts)}", details)
