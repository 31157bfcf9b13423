"""The pictures of sharpness: the curve over radii, and the landscapes of two runs."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.reporting.groups import Study
from experiments.reporting.runs import Run
from experiments.reporting.sharpness import WORST_CASE, last_records, settings_of
from experiments.training.writers import Record
from sam_optax.sharpness import Curve, Landscape
from sam_optax.sharpness.plots import plot_curve, plot_landscapes

_PAPERS_RADIUS = 0.0002
_BALL = ("norm", "adaptive", "steps", "restarts", "examples", "normalize_logits", "reestimate_batchnorm")


def figures(study: Study) -> dict[str, tuple[str, Figure]]:
    """The pictures that there is something for, with their captions, by their titles."""
    drawn = {}
    if curves := mean_curves(study):
        caption = (
            "The worst case over radii, mean over the seeds. Dotted: the radii that single values are measured at."
        )
        marks = sorted({_PAPERS_RADIUS, *(setting.rho for setting in settings_of(study))})
        drawn["Sharpness over radii"] = (caption, plot_curve(curves, marks))
    if landscapes := two_landscapes(study):
        caption = (
            "The loss along two random directions, filter by filter as long as the weights, the same in each panel."
        )
        drawn["Loss landscapes"] = (caption, plot_landscapes(landscapes))
    return drawn


def mean_curves(study: Study) -> dict[str, Curve]:
    """The mean curve of each group whose runs were all measured in one way, the way of the first such group."""
    found: dict[str, Curve] = {}
    way = None
    for group in study.groups:
        records = [record for run in group.runs for record in last_records(run, "curve")[-1:]]
        ways = {tuple(record[name] for name in _BALL) for record in records}
        if len(records) == len(group.runs) and len(ways) == 1 and way in (None, *ways):
            way = ways.pop()
            found[group.name] = _mean_curve(records)
    return found


def two_landscapes(study: Study) -> dict[str, Landscape]:
    """The landscapes of two runs of one seed, the flattest one and the sharpest one, where that is known."""
    by_seed = [_landscapes(study, seed) for seed in study.seeds]
    found = max(by_seed, key=len, default=[])  # of the first of the seeds that have the most
    ordered = sorted(found, key=lambda each: each[0])
    return {name: landscape for _, name, landscape in (ordered if len(ordered) < 2 else [ordered[0], ordered[-1]])}


def _landscapes(study: Study, seed: int) -> list[tuple[float, str, Landscape]]:
    """Of the runs of a seed: sharpness, 0 where it is not known, name and landscape."""
    found = []
    for group in study.groups:
        run = group.by_seed.get(seed)
        for record in last_records(run, "landscape")[-1:] if run else []:
            landscape = Landscape(_array(record["coordinates"]), jnp.asarray(_array(record["loss"])))
            found.append((_sharpness(run), f"{group.name}, seed {seed}", landscape))
    return found


def _sharpness(run: Run) -> float:
    known = [record["sharpness"] for record in last_records(run, WORST_CASE) if record["sharpness"] is not None]
    return known[0] if known else 0.0


def _mean_curve(records: Sequence[Record]) -> Curve:
    rho, sharpness, first_order, error = (
        np.mean([_array(record[name]) for record in records], axis=0)
        for name in ("rho", "sharpness", "first_order", "error")
    )
    logarithm = np.log(np.where(sharpness > 0, sharpness, np.nan))
    slope = np.gradient(logarithm, np.log(rho))
    losses = [record["loss"] for record in records]
    loss = float(np.mean(_array(losses)))
    return Curve(rho, sharpness, first_order, slope, error, loss, records[0]["parameters"], records[0]["norm"])


def _array(values: object) -> np.ndarray:
    """Numbers as they stand in a record, where null is what is not finite."""
    return np.asarray(values, dtype=float)
