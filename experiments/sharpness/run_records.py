"""The measured sharpness of runs: worst cases, curves over epochs and over radii, and landscapes."""

from collections import Counter
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from experiments.runner.finished_runs import Run
from experiments.runner.run_curves import Curve
from experiments.sharpness.protocol import SharpnessProtocol
from experiments.training import records
from sam_optax.sharpness import Curve as RadiusCurve
from sam_optax.sharpness import Landscape

PAPERS_RADIUS = 0.0002

_OF_LANDSCAPE = ("examples", "normalize_logits", "reestimate_batchnorm")


def worst_cases(run: Run, epoch: int | None = None) -> dict[SharpnessProtocol, dict[float, records.WorstCase]]:
    """Returns the worst cases after an epoch, by protocol and radius; None: after the last one.

    Of a radius that was measured twice, the later measurement counts.
    """
    at = run.epochs if epoch is None else epoch
    found: dict[SharpnessProtocol, dict[float, records.WorstCase]] = {}
    for record in run.sharpness:
        if isinstance(record, records.WorstCase) and record.epoch == at:
            found.setdefault(SharpnessProtocol.of(record), {})[float(f"{record.rho:.3g}")] = record
    return found


def most_followed(runs: Sequence[Run]) -> tuple[SharpnessProtocol, float] | None:
    """Returns the protocol and the radius with which most runs were measured after several epochs."""
    counts = Counter(key for run in runs for key, found in _by_setting(run).items() if len(found) > 1)
    if not counts:
        return None
    most = max(counts.values())
    often = [key for key, count in counts.items() if count == most]
    first = min({way for way, _ in often}, key=_order)
    return first, min((rho for way, rho in often if way == first), key=lambda rho: (rho != PAPERS_RADIUS, rho))


def followed(run: Run, way: SharpnessProtocol, rho: float) -> Curve | None:
    """Returns the worst case over the epochs; None unless there are two values."""
    found = _by_setting(run).get((way, rho), [])
    if len(found) < 2:
        return None
    epoch, step, values = np.asarray([(each.epoch, each.step, each.sharpness) for each in found], np.float64).T
    return Curve(epoch, step, values, np.zeros(len(values)))  # null is NaN


def radius_curves(runs: Sequence[Run]) -> dict[SharpnessProtocol, RadiusCurve]:
    """Returns the mean curves over radii of runs, for each protocol of which all runs have a curve."""
    found = [_curves(run) for run in runs]
    return {way: _mean_curve([each[way] for each in found]) for way in set.intersection(*map(set, found))}


def landscapes(runs: Sequence[Run]) -> dict[int, Landscape]:
    """Returns the landscapes of runs, by index. Runs with other settings than the first one are omitted."""
    found = {
        place: record
        for place, run in enumerate(runs)
        for record in run.sharpness
        if isinstance(record, records.Landscape) and record.epoch == run.epochs
        if np.isfinite(_array(record.loss)[len(record.loss) // 2, len(record.loss) // 2])
    }
    ways = {place: [getattr(record, name) for name in _OF_LANDSCAPE] for place, record in found.items()}
    return {
        place: Landscape(_array(record.coordinates), jnp.asarray(_array(record.loss)))
        for place, record in found.items()
        if ways[place] == next(iter(ways.values()))
    }


def _by_setting(run: Run) -> dict[tuple[SharpnessProtocol, float], list[records.WorstCase]]:
    found: dict[tuple[SharpnessProtocol, float], list[records.WorstCase]] = {}
    for epoch in sorted({record.epoch for record in run.sharpness}):
        for way, radii in worst_cases(run, epoch).items():
            for rho, record in radii.items():
                found.setdefault((way, rho), []).append(record)
    return found


def _curves(run: Run) -> dict[SharpnessProtocol, records.WorstCaseCurve]:
    return {
        SharpnessProtocol.of(record): record
        for record in run.sharpness
        if isinstance(record, records.WorstCaseCurve) and record.epoch == run.epochs
    }


def _mean_curve(found: Sequence[records.WorstCaseCurve]) -> RadiusCurve:
    rho, sharpness, first_order, error = (
        np.mean([_array(getattr(record, name)) for record in found], axis=0)
        for name in ("rho", "sharpness", "first_order", "error")
    )
    slope = np.gradient(np.log(np.where(sharpness > 0, sharpness, np.nan)), np.log(rho))
    loss = float(np.mean(_array([record.loss for record in found])))
    return RadiusCurve(rho, sharpness, first_order, slope, error, loss, found[0].parameters, found[0].norm)


def _array(values: object) -> np.ndarray:
    """Returns the numbers of a record, in which null is a number that is not finite."""
    return np.asarray(values, dtype=float)


def _order(way: SharpnessProtocol) -> tuple[int, int, SharpnessProtocol]:
    """Returns the sort key of protocols: those near the paper's come first, then those with many examples."""
    return len(way.departures), -way.examples, way
