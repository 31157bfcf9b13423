"""The sharpness of a study's runs: the paper's table, all radii beside each other, and where their orders differ."""

import math
import statistics
from collections.abc import Sequence
from itertools import combinations

from experiments.cli.tables import Rows, mean_and_deviation
from experiments.report.groups import Group, Study
from experiments.report.paired import is_direct_pair
from experiments.report.protocols import PAPERS_RADIUS, headline, most_common, worst_cases
from experiments.runner.finished_runs import Run
from experiments.sharpness.protocol import SharpnessProtocol

_MOST_NAMED = 8  # pairs


def protocols_of(study: Study) -> dict[SharpnessProtocol, list[float]]:
    """How the study was measured, and at which radii; the first way is the one to look at."""
    return most_common(group.runs for group in study.groups)


def figure(runs: Sequence[Run], way: SharpnessProtocol, rho: float, name: str = "sharpness") -> str:
    """Mean ± standard deviation of what was measured; a dash unless all runs have it, and it is a number."""
    found = numbers(runs, way, rho, name)
    return mean_and_deviation(found, ".3g") if found else "–"


def numbers(runs: Sequence[Run], way: SharpnessProtocol, rho: float, name: str = "sharpness") -> list[float]:
    """What was measured of each run; nothing unless all have it, and it is a number."""
    found = [getattr(worst_cases(run).get(way, {}).get(rho), name, None) for run in runs]
    kept = [float(value) for value in found if value is not None]
    return kept if len(kept) == len(found) else []


def radius_rows(study: Study, way: SharpnessProtocol, radii: Sequence[float]) -> Rows:
    """A row a group: its loss, unperturbed, and at each radius the sharpness and the part that the gradient makes."""
    heading = [f"group ({way.title})", "loss"]
    for rho in radii:
        heading += [f"sharpness, ρ {rho:.3g}", "of it first order, %"]
    return [tuple(heading), *(_radius_row(group, way, radii) for group in study.groups)]


def orderings(study: Study, way: SharpnessProtocol, radii: Sequence[float]) -> str:
    """In words: which pairs of groups one radius orders one way, and another one the other way."""
    first = headline(radii)
    told = [_compared(study, way, *sorted((first, other))) for other in radii if other != first]
    return " ".join(filter(None, told))


def caption(study: Study, way: SharpnessProtocol) -> str:
    """What the figures are."""
    parameters = next(record.parameters for run in study.runs for record in run.sharpness)
    ball = {"linf": "ℓ∞", "l2": "ℓ2"}[way.norm] + " ball" + (" in units of each weight" if way.adaptive else "")
    seeds = "mean over the seeds" if len(study.seeds) > 1 else "of one seed"
    return (
        f"Sharpness: how much the loss of {way.measured_batch_size} examples rises at most within the {ball} of "
        f"radius ρ, by {way.steps} iterations of APGD; mean over {way.examples} training examples, {seeds}. "
        f"With {parameters:,} parameters the corner of the ℓ∞ ball of radius {PAPERS_RADIUS} is "
        f"{PAPERS_RADIUS * math.sqrt(parameters):.2g} away. Values at one radius cannot be compared between networks "
        "of different size, and where they are mostly first order they follow the training loss."
    )


def _radius_row(group: Group, way: SharpnessProtocol, radii: Sequence[float]) -> tuple[str, ...]:
    row = [group.name, figure(group.runs, way, radii[0], "loss")]
    for rho in radii:
        row += [figure(group.runs, way, rho), _first_order(group.runs, way, rho)]
    return tuple(row)


def _first_order(runs: Sequence[Run], way: SharpnessProtocol, rho: float) -> str:
    wholes, parts = (numbers(runs, way, rho, name) for name in ("sharpness", "first_order"))
    return f"{100 * sum(parts) / sum(wholes):.3g}" if parts and sum(wholes) > 0 else "–"


def _compared(study: Study, way: SharpnessProtocol, small: float, large: float) -> str:
    means = {group.name: [numbers(group.runs, way, rho) for rho in (small, large)] for group in study.groups}
    known = {name: [statistics.mean(each) for each in found] for name, found in means.items() if all(found)}
    pairs = [pair for pair in combinations(study.groups, 2) if all(group.name in known for group in pair)]
    differing = [(a, b) for a, b in pairs if _sign(known, a, b, 0) * _sign(known, a, b, 1) < 0]
    if not pairs:
        return ""
    between = f"At ρ {small:.3g} and at ρ {large:.3g} the mean sharpness orders"
    if not differing:
        return f"{between} all {len(pairs)} pairs of groups alike."
    direct = [pair for pair in differing if is_direct_pair(*pair)]
    sorted_pairs = [(a, b) if _sign(known, a, b, 0) > 0 else (b, a) for a, b in direct]
    named = [
        f"{sharper.name} is sharper than {flatter.name} at ρ {small:.3g}, and flatter at ρ {large:.3g}"
        for sharper, flatter in sorted_pairs[:_MOST_NAMED]
    ]
    more = f" There are {len(direct) - _MOST_NAMED} more such pairs." if len(direct) > _MOST_NAMED else ""
    told = f" Of those that differ in strategy alone or in method alone: {'; '.join(named)}." if named else ""
    return f"{between} {len(differing)} of {len(pairs)} pairs of groups differently.{told}{more}"


def _sign(means: dict[str, list[float]], one: Group, other: Group, place: int) -> float:
    difference = means[one.name][place] - means[other.name][place]
    return math.copysign(1.0, difference) if difference else 0.0
