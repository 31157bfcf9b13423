"""The table of a comparison of methods."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.cli.tables import Rows, mean_and_deviation
from experiments.report import sharpness
from experiments.report.protocols import common
from experiments.runner.finished_runs import Run
from experiments.sharpness.protocol import SharpnessProtocol
from experiments.training.methods import METHODS


def method_rows(runs: Sequence[Run], seconds: Mapping[str, Sequence[float]]) -> Rows:
    """A row a method: its radius, test error over the seeds, and what a step takes.

    Args:
      runs: of each method, one a seed.
      seconds: the time of a step of each method, one number a round; those at one place were timed together.

    Returns:
      The rows, with the sharpness that all runs have, in the order of `METHODS`.
    """
    by_method = {name: [run for run in runs if run.config.method == name] for name in METHODS}
    measured = [(way, rho) for way, radii in list(common(runs).items())[:1] for rho in radii]
    titles = [", ".join([f"sharpness, ρ {rho:.3g}", *way.departures]) for way, rho in measured]
    heading = ("method", "ρ", "test error, %", *titles, "gradients a step", "time a step, in SGD's")
    return [heading, *(_row(name, of_it, measured, seconds) for name, of_it in by_method.items() if of_it)]


def caption(seeds: Sequence[int]) -> str:
    """What the figures of the table are."""
    over = f"mean ± standard deviation over the seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "of one seed"
    return (
        f"Test error and worst-case sharpness after the last epoch, {over}. Time: the median ratio to SGD's in ten "
        "interleaved rounds of ten steps, second passes as often as in training."
    )


def _row(
    name: str,
    runs: Sequence[Run],
    measured: Sequence[tuple[SharpnessProtocol, float]],
    seconds: Mapping[str, Sequence[float]],
) -> tuple[str, ...]:
    errors = mean_and_deviation([100 * run.result.test_error for run in runs])
    diverged = sum(run.diverged for run in runs)
    evaluations = statistics.mean(run.result.gradient_evaluations / run.result.updates for run in runs)
    ratio = np.median(np.divide(seconds[name], seconds["sgd"]))
    return (
        METHODS[name].title,
        f"{runs[0].config.descent.rho:g}" if METHODS[name].uses else "–",
        f"{errors} (diverged: {diverged})" if diverged else errors,
        *(sharpness.figure(runs, way, rho) for way, rho in measured),
        f"{evaluations:.2f}",
        f"{ratio:.2f}",
    )
