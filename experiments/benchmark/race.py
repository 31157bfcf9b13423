"""Interleaved timing, and the machine that it runs on.

Every round times every subject once, so that what slows the machine slows them all.
"""

import math
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import flax
import jax
import jaxlib
import optax

import sam_optax

Subject = Callable[[], object]
"""Does a piece of work, and returns when the device has done it."""

_TURN = 0.25  # seconds: a turn shorter than that would measure the clock and the scheduler


def race(subjects: dict[str, Subject], rounds: int) -> dict[str, list[float]]:
    """The seconds a call of each subject takes, in each round.

    Each is called twice before: to warm up, and to see how long it takes. Where the slowest is quick, a turn is
    several calls, as many for each subject, and its seconds are divided by them.

    Args:
      subjects: what to time, by name.
      rounds: how often each has a turn.

    Returns:
      `rounds` numbers a subject; those at one place in the lists were timed together.
    """
    for subject in subjects.values():
        subject()
    calls = math.ceil(_TURN / max(map(_seconds, subjects.values())))
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds):
        for name in order(list(subjects), number):
            seconds[name].append(_seconds(subjects[name], calls) / calls)
    return seconds


def order(names: list[str], number: int) -> list[str]:
    """The order of a round: each name comes first in its turn, and every other time around they run backwards."""
    around, first = divmod(number, len(names))
    turned = names[first:] + names[:first]
    return turned[::-1] if around % 2 else turned


def _seconds(subject: Subject, calls: int = 1) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        subject()
    return time.perf_counter() - started


def machine() -> dict[str, Any]:
    """The device, the cores that this process may use, and the versions, as JSON has them."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "cores": cores(),
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {
            module.__name__: module.__version__  # pyright: ignore[reportAttributeAccessIssue]
            for module in (jax, jaxlib, optax, flax, sam_optax)
        },
    }


def cores() -> int:
    """The cores that this process may use, where the system tells, else all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
