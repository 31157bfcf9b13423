"""The protocols and radii with which the runs of a report were measured.

Values are compared only where protocol and radius are the same.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from experiments.runner.finished_runs import Run
from experiments.sharpness.protocol import SharpnessProtocol
from experiments.training import records

PAPERS_RADIUS = 0.0002

Radii = dict[float, records.WorstCase]
"""What was measured at each radius, to three digits."""


def worst_cases(run: Run, epoch: int | None = None) -> dict[SharpnessProtocol, Radii]:
    """The worst cases after an epoch; None is the last one. A radius that was measured twice counts as it was last."""
    at = run.epochs if epoch is None else epoch
    found: dict[SharpnessProtocol, Radii] = {}
    for record in run.sharpness:
        if isinstance(record, records.WorstCase) and record.epoch == at:
            found.setdefault(SharpnessProtocol.of(record), {})[float(f"{record.rho:.3g}")] = record
    return found


def common(runs: Sequence[Run]) -> dict[SharpnessProtocol, list[float]]:
    """The protocols and radii, in increasing order, that all runs were measured with."""
    each = [worst_cases(run) for run in runs]
    shared = set.intersection(*(set(found) for found in each))
    radii = {protocol: sorted(set.intersection(*(set(found[protocol]) for found in each))) for protocol in shared}
    return {protocol: radii[protocol] for protocol in in_order(protocol for protocol in radii if radii[protocol])}


def most_common(groups: Iterable[Sequence[Run]]) -> dict[SharpnessProtocol, list[float]]:
    """The protocols and radii of the groups, those of most groups first, then those nearest the paper's."""
    counts: Counter[SharpnessProtocol] = Counter()
    radii: dict[SharpnessProtocol, set[float]] = {}
    for runs in groups:
        for protocol, of_group in common(runs).items():
            counts[protocol] += 1
            radii.setdefault(protocol, set()).update(of_group)
    return {protocol: sorted(radii[protocol]) for protocol in in_order(counts, counts)}


def in_order(
    protocols: Iterable[SharpnessProtocol], counts: Mapping[SharpnessProtocol, int] | None = None
) -> list[SharpnessProtocol]:
    """Protocols that are counted most often first, then those nearest the paper's, then those of most examples."""
    known = counts or {}
    return sorted(
        protocols,
        key=lambda protocol: (-known.get(protocol, 0), len(protocol.departures), -protocol.examples, protocol),
    )


def headline(radii: Sequence[float]) -> float:
    """The radius of the paper if it is there, else the smallest one."""
    return PAPERS_RADIUS if PAPERS_RADIUS in radii else min(radii)
