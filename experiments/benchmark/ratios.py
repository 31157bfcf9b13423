"""Interleaved timing, the ratios of the times, and the table that shows them.

Every round of a race times every subject once, so that a slowdown of the machine affects all subjects.
"""

import math
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
from experiments.runner.provenance import cores, processor

Subject = Callable[[], object]
"""A function to time; it returns when the device has finished its work."""

Seconds = Mapping[str, Sequence[float]]
"""The seconds of each subject of a race, one number per round."""

_TURN = 0.25  # seconds; in a shorter measurement, timer overhead and process scheduling would dominate


def race(subjects: Mapping[str, Subject], rounds: int, steps: int = 1) -> dict[str, list[float]]:
    """Times each subject in each round, in seconds.

    Each subject is called twice before the first round: to warm up, and to estimate its time. If even the slowest
    subject takes less than a quarter of a second, each measurement makes several calls, the same number for every
    subject, and the time is divided by that number.

    Args:
      subjects: the functions to time, by name.
      rounds: the number of measurements of each subject.
      steps: the number of steps per call; the result is the seconds of one step.

    Returns:
      A list of `rounds` times for each subject; times at the same index were measured in the same round.
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
    """Returns the names in the order of round `number`: rotated by one per round, reversed in every second cycle."""
    cycle, first = divmod(number, len(names))
    turned = names[first:] + names[:first]
    return turned[::-1] if cycle % 2 else turned


def _seconds(subject: Subject, calls: int = 1) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        subject()
    return time.perf_counter() - started


def machine() -> dict[str, Any]:
    """Returns the device, the number of cores that this process may use, and the versions, for JSON."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "cores": cores(),
        "processor": processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {module.__name__: module.__version__ for module in (jax, jaxlib, optax, flax, sam_optax)},
    }


@dataclass(frozen=True)
class Figure:
    """The time or memory of a subject, relative to that of its reference in the same round.

    Attributes:
      model: the name of the network.
      batch_size: the number of examples per step.
      quantity: the quantity that is compared, such as `time` or `peak memory`.
      subject: the name of the subject.
      reference: the name of the reference.
      target: the largest acceptable median of the ratios; None means that there is no target.
      unit: the unit of `amounts` and `reference_amounts`: `s` or `B`.
      amounts: the amounts of the subject, one per round; a single one for memory, which does not vary.
      reference_amounts: the amounts of the reference, one per round, or a single one.
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
        """The amounts of the subject divided by those of the reference, `(rounds,)`."""
        return np.asarray(self.amounts) / np.asarray(self.reference_amounts)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, the median and the upper quartile of the ratios."""
        lower, median, upper = np.quantile(self.ratios, (0.25, 0.5, 0.75))
        return float(lower), float(median), float(upper)

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or, if the median exceeds the target but the lower quartile does not, `in spread`.

        The numbers are compared as the table prints them, to three decimals. Without a target the verdict is a dash.
        """
        lower, median, _ = (round(each, 3) for each in self.quartiles)
        if self.target is None:
            return "–"
        if median <= self.target:
            return "met"
        return "in spread" if lower <= self.target else "missed"

    def as_json(self) -> dict[str, Any]:
        """Returns the attributes of the figure with its median, quartiles, number of rounds and verdict, for JSON."""
        lower, median, upper = self.quartiles
        computed = {"median": median, "quartiles": [lower, upper], "rounds": len(self.amounts), "verdict": self.verdict}
        return asdict(self) | computed


_CAPTION = "The diagnostics keep the clean gradient for the cosine; contrib.sam has no diagnostics."
_UNITS = {"s": (1e3, "ms"), "B": (1e-6, "MB")}
_SECONDS_FROM = 10.0


def table(title: str, figures: Iterable[Figure]) -> Table:
    """Returns a table with one row per figure.

    A row shows the median amount of the subject, the median and the quartiles of the ratios, and the verdict.
    """
    rows: Rows = [("", "takes", "relative to", "ratio", "quartiles", "target", "verdict")]
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
