"""The sharpness of runs on the way: worst cases after several epochs, measured in one way at one radius."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from experiments.report.protocols import PAPERS_RADIUS, in_order, worst_cases
from experiments.report.run_curves import Curve
from experiments.runner.finished_runs import Run
from experiments.sharpness.protocol import SharpnessProtocol
from experiments.training.records import WorstCase


def most_followed(runs: Iterable[Run]) -> tuple[SharpnessProtocol, float] | None:
    """The way and the radius that most runs were followed with; of several those nearest the paper's."""
    counts = Counter(key for run in runs for key, records in _by_setting(run).items() if len(records) > 1)
    if not counts:
        return None
    most = max(counts.values())
    often = [key for key, count in counts.items() if count == most]
    first = in_order({way for way, _ in often})[0]
    return first, min((rho for way, rho in often if way == first), key=lambda rho: (rho != PAPERS_RADIUS, rho))


def followed(run: Run, way: SharpnessProtocol, rho: float) -> Curve | None:
    """The worst case over the epochs; None unless there are two of them."""
    records = _by_setting(run).get((way, rho), [])
    if len(records) < 2:
        return None
    points = [(record.epoch, record.step, record.sharpness) for record in records]
    return Curve(*np.asarray(points, np.float64).T)  # null is NaN


def _by_setting(run: Run) -> dict[tuple[SharpnessProtocol, float], list[WorstCase]]:
    found: dict[tuple[SharpnessProtocol, float], list[WorstCase]] = {}
    for epoch in sorted({record.epoch for record in run.sharpness}):
        for way, radii in worst_cases(run, epoch).items():
            for rho, record in radii.items():
                found.setdefault((way, rho), []).append(record)
    return found
