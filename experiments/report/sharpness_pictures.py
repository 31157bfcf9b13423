"""The pictures of sharpness: the curve over radii, and the landscapes of two runs."""

from collections import Counter
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.report.groups import Study
from experiments.report.protocols import PAPERS_RADIUS, headline, in_order, worst_cases
from experiments.report.sharpness import protocols_of
from experiments.runner.finished_runs import Run
from experiments.sharpness.protocol import SharpnessProtocol
from experiments.training import records
from sam_optax.sharpness import Curve, Landscape
from sam_optax.sharpness.plots import plot_curve, plot_landscapes

_OF_LANDSCAPE = ("examples", "normalize_logits", "reestimate_batchnorm")


def figures(study: Study, few: Study) -> dict[str, tuple[str, Figure]]:
    """The pictures that there is something for, with their captions, by their titles.

    Args:
      study: what was run.
      few: those of its groups that have a line, where they were measured.
    """
    drawn = {}
    if (way := most_common_curve(few)) is not None:
        curves = mean_curves(few, way)
        caption = f"The worst case over radii, mean over the seeds ({way.title}). Dotted: radii of single values."
        if len(curves) < len(study.groups):
            caption += f" {len(curves)} of {len(study.groups)} groups are drawn: where all runs have such a curve."
        marks = sorted({PAPERS_RADIUS, *protocols_of(study).get(way, [])})
        drawn["Sharpness over radii"] = (caption, plot_curve(curves, marks))
    if landscapes := two_landscapes(study):
        caption = (
            "The loss along two random directions, filter by filter as long as the weights: the flattest run whose "
        )
        caption += "landscape was measured, and the sharpest one."
        drawn["Loss landscapes"] = (caption, plot_landscapes(landscapes))
    return drawn


def most_common_curve(study: Study) -> SharpnessProtocol | None:
    """The way in which the curves of most groups were measured; of several the one nearest the paper's."""
    counts = Counter(way for group in study.groups for way in set.intersection(*map(set, map(_curves, group.runs))))
    return next(iter(in_order(counts, counts)), None)


def mean_curves(study: Study, way: SharpnessProtocol) -> dict[str, Curve]:
    """The mean curve of each group of which all runs have one."""
    found = {group.name: [_curves(run).get(way) for run in group.runs] for group in study.groups}
    return {name: _mean_curve([each for each in of_it if each]) for name, of_it in found.items() if all(of_it)}


def two_landscapes(study: Study) -> dict[str, Landscape]:
    """The landscapes of two runs of one seed, the flattest one and the sharpest one; any two if that is not known."""
    by_seed = [_landscapes(study, seed) for seed in study.seeds]
    found = max(by_seed, key=len, default=[])  # of the first of the seeds that have the most
    known = [each for each in found if each[0] is not None]
    ordered = sorted(known, key=lambda each: each[0] or 0.0) if len(known) > 1 else found
    return {name: landscape for _, name, landscape in (ordered if len(ordered) < 2 else [ordered[0], ordered[-1]])}


def _curves(run: Run) -> dict[SharpnessProtocol, records.WorstCaseCurve]:
    return {
        SharpnessProtocol.of(record): record
        for record in run.sharpness
        if isinstance(record, records.WorstCaseCurve) and record.epoch == run.epochs
    }


def _mean_curve(found: Sequence[records.WorstCaseCurve]) -> Curve:
    rho, sharpness, first_order, error = (
        np.mean([_array(getattr(record, name)) for record in found], axis=0)
        for name in ("rho", "sharpness", "first_order", "error")
    )
    slope = np.gradient(np.log(np.where(sharpness > 0, sharpness, np.nan)), np.log(rho))
    loss = float(np.mean(_array([record.loss for record in found])))
    return Curve(rho, sharpness, first_order, slope, error, loss, found[0].parameters, found[0].norm)


def _landscapes(study: Study, seed: int) -> list[tuple[float | None, str, Landscape]]:
    """Sharpness, if it is known, name and landscape of the runs of a seed, all measured in one way."""
    found = [
        (group, run, record)
        for group in study.groups
        for run in [group.by_seed.get(seed)]
        for record in (run.sharpness if run else [])
        if run and isinstance(record, records.Landscape) and record.epoch == run.epochs
        if np.isfinite(_centre(record))
    ]
    settings = [tuple(getattr(record, name) for name in _OF_LANDSCAPE) for _, _, record in found]
    return [
        (_sharpness(run, study), f"{group.name}, seed {seed}", _landscape(record))
        for (group, run, record), way in zip(found, settings, strict=True)
        if way == settings[0]
    ]


def _sharpness(run: Run, study: Study) -> float | None:
    """What the study's first table has of the run."""
    for way, radii in protocols_of(study).items():
        record = worst_cases(run).get(way, {}).get(headline(radii))
        return record and record.sharpness
    return None


def _landscape(record: records.Landscape) -> Landscape:
    return Landscape(_array(record.coordinates), jnp.asarray(_array(record.loss)))


def _centre(record: records.Landscape) -> float:
    loss = _array(record.loss)
    return float(loss[len(loss) // 2, len(loss) // 2])


def _array(values: object) -> np.ndarray:
    """Numbers as they stand in a record, where null is what is not finite."""
    return np.asarray(values, dtype=float)
