"""Time limits: durations on the command line, and the deadline at which a program stops."""

import re
import time
from dataclasses import dataclass
from typing import Self

from experiments.training.preemption import Stop

STARTED = time.monotonic()
"""The clock when this module was imported; `experiments` imports it before the slow imports of its programs."""

_DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")


def seconds_of(name: str, duration: str) -> float:
    """Returns a duration in seconds.

    Args:
      name: the name of the argument, for the error message.
      duration: hours, minutes and seconds, in this order, each an integer; for example `90s`, `25m`, `3h` or `1h30m`.

    Raises:
      ValueError: If the text is not a duration, or if the duration is 0.
    """
    found = _DURATION.fullmatch(duration)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        raise ValueError(f"{name} is {duration!r}: give a positive duration, for example 90s, 25m, 3h or 1h30m.")
    return float(total)


@dataclass(frozen=True)
class Deadline:
    """The time at which a program stops. It is a `Stop`: the program passes it to its runs.

    Each process has its own clock, so a run with several processes must not use it.

    Attributes:
      limit: the time limit as it was given, for example `25m`.
      at: the time of the deadline, in seconds of `time.monotonic()`.
    """

    limit: str
    at: float

    @classmethod
    def after_start(cls, limit: str) -> Self:
        """Returns the deadline of a time limit that counts from the start of the program.

        Raises:
          ValueError: If the limit is not a duration.
        """
        return cls(limit, STARTED + seconds_of("time_limit", limit))

    def __call__(self, _: int = 0) -> bool:
        """Returns whether the deadline has passed; it does not depend on the number of updates."""
        return time.monotonic() >= self.at


def first_of(*reasons: Stop) -> Stop:
    """Returns a `Stop` that stops as soon as one of several reasons does."""
    return lambda step: any(reason(step) for reason in reasons)
