"""Interleaved timing, the ratios that come of it, and the table that shows them.

Every round of a race times every subject once, so that what slows the machine down slows all of them down.
"""

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
import optax
from rich.table import Table

import sam_optax
from experiments.cli.tables import Rows, as_terminal

Subject = Callable[[], object]
"""Does a piece of work, and returns when the device has done it."""

Seconds = Mapping[str, Sequence[float]]
"""The seconds of each subject of a race, one number for each round."""

_TURN = 0.25  # seconds: a shorter turn would measure the clock and the scheduler


def race(subjects: Mapping[str, Subject], rounds: int, steps: int = 1) -> dict[str, list[float]]:
    """The seconds that each subject takes, in each round.

    Each subject is called twice before the first round: to warm up, and to see how long it takes. Where the slowest one
    is quick, a turn is several calls, the same number for each subject, and its seconds are divided by that number.

    Args:
      subjects: what to time, by name.
      rounds: how often each subject has a turn.
      steps: how many steps a call makes; the result is the seconds of one step.

    Returns:
      `rounds` numbers for each subject; those at one position of the lists were timed together.
    """
    for subject in subjects.values():
        subject()
    calls = math.ceil(_TURN / max(map(_seconds, subjects.values())))
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds):
        for name in order(list(subjects), number):
            seconds[name].append(_seconds(subjects[name], calls) / calls / steps)
    return seconds


def order(names: list[str], number: int) -> list[str]:
    """The order of round `number`: each name is first in turn, and every second cycle of rounds runs backwards."""
    cycle, first = divmod(number, len(names))
    turned = names[first:] + names[:first]
    return turned[::-1] if cycle % 2 else turned


def _seconds(subject: Subject, calls: int = 1) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        subject()
    return time.perf_counter() - started


def machine() -> dict[str, Any]:
    """The device, the cores that this process may use, and the versions, for JSON."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "cores": cores(),
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {module.__name__: module.__version__ for module in (jax, jaxlib, optax, flax, sam_optax)},
    }


def cores() -> int:
    """The cores that this process may use if the system reports them, otherwise all cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Figure:
    """How much of something the subject takes, measured in what its reference takes in the same round.

    Attributes:
      model: the network.
      batch_size: examples of a step.
      quantity: what is compared, such as `time` or `peak memory`.
      subject: what was measured.
      reference: what it is compared with.
      target: what the median of the ratios should not exceed; None is no target.
      unit: of `amounts` and `reference_amounts`: `s` or `B`.
      amounts: of the subject, one for each round; a single one of memory, which does not vary.
      reference_amounts: of the reference, likewise.
    """

    model: str
    batch_size: int
    quantity: str
    subject: str
    reference: str
    target: float | None
    unit: str
    amounts: Sequence[float]
    reference_amounts: Sequence[float]

    @property
    def ratios(self) -> np.ndarray:
        """The subject's amount in units of the reference's, `(rounds,)`."""
        return np.asarray(self.amounts) / np.asarray(self.reference_amounts)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile of the ratios, their median and their upper quartile."""
        lower, median, upper = np.quantile(self.ratios, (0.25, 0.5, 0.75))
        return float(lower), float(median), float(upper)

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or between them `in spread`: the median exceeds the target, the lower quartile does not.

        They are compared as the table prints them, to three decimals. Without a target the verdict is a dash.
        """
        lower, median, _ = (round(each, 3) for each in self.quartiles)
        if self.target is None:
            return "–"
        if median <= self.target:
            return "met"
        return "in spread" if lower <= self.target else "missed"

    def as_json(self) -> dict[str, Any]:
        """The figure, and the amounts that it was computed from."""
        lower, median, upper = self.quartiles
        computed = {"median": median, "quartiles": [lower, upper], "rounds": len(self.amounts), "verdict": self.verdict}
        return asdict(self) | computed


_CAPTION = "the cosine of the diagnostics keeps the clean gradient through the second pass; contrib.sam has none"
_UNITS = {"s": (1e3, "ms"), "B": (1e-6, "MB")}
_SECONDS_FROM = 10.0


def table(title: str, figures: Iterable[Figure]) -> Table:
    """A row for each figure: the subject's median amount, the ratios' median and quartiles, and the verdict."""
    rows: Rows = [("", "takes", "measured in", "ratio", "quartiles", "target", "verdict")]
    for figure in figures:
        lower, median, upper = figure.quartiles
        spread = f"{lower:.3f}–{upper:.3f}" if len(figure.amounts) > 1 else "–"
        target = "–" if figure.target is None else f"{figure.target:g}"
        taken = _amount(statistics.median(figure.amounts), figure.unit)
        rows.append((figure.subject, taken, figure.reference, f"{median:.3f}", spread, target, figure.verdict))
    shown = as_terminal(rows)
    shown.padding = 0  # the table must fit into 80 columns
    shown.title, shown.caption, shown.title_justify, shown.caption_justify = title, _CAPTION, "left", "left"
    return shown


def _amount(value: float, unit: str) -> str:
    factor, smaller = (1, "s") if unit == "s" and value >= _SECONDS_FROM else _UNITS[unit]
    return f"{factor * value:.4g} {smaller}"
