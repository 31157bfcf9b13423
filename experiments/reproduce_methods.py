"""Compares all methods on one data set: `python -m experiments.reproduce_methods --output runs/methods`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from rich.console import Console

from experiments import data
from experiments.benchmark import program_costs
from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.cli.output_folder import make_folder, write_document
from experiments.cli.tables import Rows, as_markdown, as_terminal, mean_and_deviation
from experiments.runner import run
from experiments.runner.finished_runs import find_runs
from experiments.sharpness import SharpnessSettings
from experiments.study import Comparison, RunOptions, run_all
from experiments.training.methods import METHODS
from experiments.training.preemption import on_sigterm

if TYPE_CHECKING:  # the report imports pandas and SciPy's statistics, for which --help does not wait
    from experiments.report.groups import Study

_ROUNDS = 10


@dataclass(frozen=True)
class Arguments:
    """Train with every method, each at the radius of its paper, and write a table of error, evaluations and time.

    Attributes:
      study: The study to run.
      location: The location of the data.
      sharpness: How the sharpness of each run is measured.
    """

    study: Annotated[Comparison, tyro.conf.arg(name="")]
    location: Annotated[data.Location, tyro.conf.arg(name="")]
    sharpness: SharpnessSettings = SharpnessSettings()


COMMAND = Command(
    "reproduce_methods",
    Arguments,
    "--methods sgd sam gsam look_sam --output runs/methods",
    (
        "output",
        "dataset",
        "model",
        "methods",
        "seeds",
        "batch_plan",
        "lr_schedule",
        "learning_rate",
        "micro_batch",
        "data_dir",
    ),
)


def main() -> None:
    """Parses the command line, runs the study, times a step of each method, and writes the table."""
    arguments = parse(COMMAND)
    study = arguments.study
    console = Console(soft_wrap=True, markup=False, highlight=False)
    document = exit_on_value_error(make_folder, study.output) / "methods.md"
    title = f"{study.network.model} on {study.problem.dataset}"
    with on_sigterm() as stop:
        options = RunOptions(arguments.location, arguments.sharpness, run.RunContext(stop=stop))
        failed = run_all(title, study.run_specs, options, console)
    if failed:
        sys.exit(1)
    console.print(f"timing ten steps of each, {_ROUNDS} rounds")
    configs = {method: study.config(method, study.seeds[0]) for method in study.methods}
    dataset = run.load(configs[study.methods[0]], arguments.location)
    seconds = program_costs.race_configs(configs, dataset, _ROUNDS)
    from experiments.report.groups import studies  # noqa: PLC0415 - see above
    from experiments.report.runs_table import table_of  # noqa: PLC0415

    table = table_of(find_runs([spec.folder for spec in study.run_specs]))
    # Some methods have the learning rate of their paper; without `chosen`, they would be studies of their own.
    (reported,) = studies(table, chosen=("learning_rate",))
    rows = method_rows(reported, seconds)
    exit_on_value_error(write_document, document, f"{as_markdown(rows)}\n\n{_caption(study.seeds)}\n")
    console.print(as_terminal(rows))
    console.print(f"{_caption(study.seeds)}\nas Markdown: {document}")


def method_rows(study: "Study", seconds: Mapping[str, Sequence[float]]) -> Rows:
    """Returns the radius, the test error, the sharpness and the cost of a step of each method of a comparison.

    Args:
      study: the study, which has one group per method.
      seconds: the time of a step of each method, one number per round; equal places were timed together.
    """
    from experiments.report.study_tables import sharpness_cell  # noqa: PLC0415
    from experiments.sharpness.columns import protocols_of  # noqa: PLC0415 - see above

    measured = [(protocol, rho) for protocol, radii in list(protocols_of([study.runs]).items())[:1] for rho in radii]
    titles = [", ".join([f"sharpness, ρ {rho:.3g}", *protocol.departures]) for protocol, rho in measured]
    rows: Rows = [("method", "ρ", "test error, %", *titles, "gradients per step", "time per step, relative to SGD")]
    for group in study.groups:
        name, errors = group.config.method, mean_and_deviation((100 * group.values("test_error")).tolist())
        rows.append(
            (
                METHODS[name].title,
                f"{group.config.descent.rho:g}" if METHODS[name].uses else "–",
                f"{errors} (diverged: {group.diverged})" if group.diverged else errors,
                *(sharpness_cell(group, protocol.column(rho)) for protocol, rho in measured),
                f"{(group.values('gradient_evaluations') / group.values('updates')).mean():.2f}",
                f"{np.median(np.divide(seconds[name], seconds['sgd'])):.2f}",
            )
        )
    return rows


def _caption(seeds: Sequence[int]) -> str:
    over = f"mean ± standard deviation over the seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "of one seed"
    return (
        f"Test error and worst-case sharpness after the last epoch, {over}. Time: the median ratio to SGD's in ten "
        "interleaved rounds of ten steps, second passes as often as in training."
    )


if __name__ == "__main__":
    start(main)
