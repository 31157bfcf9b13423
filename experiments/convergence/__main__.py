"""Measures how training converges: `python -m experiments.convergence --output runs/convergence`."""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.progress import Progress

from experiments import data
from experiments.cli import output_folder, tables
from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.config import checks
from experiments.convergence.falling_radius import compare, worst_case
from experiments.convergence.gradient_norms import REACH
from experiments.convergence.network_study import (
    NetworkStudy,
    check_unfinished,
    curve_of,
    execute,
    is_done,
    times_to_targets,
)
from experiments.convergence.quadratic_study import QuadraticStudy, floor, follow
from experiments.study import RunOptions, RunSpec, study_runs
from experiments.study.strategies import TUNED

if TYPE_CHECKING:  # it imports matplotlib, for which --help does not wait
    from experiments.convergence.document import Part

_PARTS = ("radius", "quadratic", "networks")


@dataclass(frozen=True)
class Arguments:
    """Measure the norms of the full gradient and of the full SAM gradient during training, and fit rates to them.

    Every method is trained with every strategy.

    Attributes:
      study: The networks to train.
      location: The folders of the data.
      quadratic: The stochastic quadratic problem, for which the exact solution is known.
      parts: The parts of the study to run: radius (a falling radius, on the quadratic), quadratic, networks.
    """

    study: Annotated[NetworkStudy, tyro.conf.arg(name="")]
    location: Annotated[data.Location, tyro.conf.arg(name="")] = field(default_factory=data.Location)
    quadratic: QuadraticStudy = field(default_factory=QuadraticStudy)
    parts: tuple[str, ...] = _PARTS

    def __post_init__(self) -> None:
        for name in self.parts:
            checks.check_choice("parts", name, _PARTS)
        checks.check_distinct("parts", self.parts)
        if {"radius", "quadratic"} & set(self.parts) and not set(self.study.methods) & set(REACH):
            known = ", ".join(REACH)
            raise ValueError(f"methods is {self.study.methods}: the quadratic supports only {known}; add one of them.")


COMMAND = Command(
    "convergence",
    Arguments,
    "--parts networks --methods sgd gsam --output runs/convergence",
    (
        "output",
        "parts",
        "dataset",
        "model",
        "methods",
        "strategies",
        "seeds",
        "constant_plan",
        "increasing_plan",
        "every",
    ),
)


def main() -> None:
    """Parses the command line, and runs the parts of the study."""
    arguments = parse(COMMAND)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    study, location = arguments.study, arguments.location
    from experiments.convergence.document import markdown  # noqa: PLC0415 - it imports matplotlib
    from experiments.convergence.falling_radius_part import radius_part  # noqa: PLC0415

    document = exit_on_value_error(output_folder.make_folder, study.output) / "convergence.md"
    specs, left = exit_on_value_error(_run_specs, study, location) if "networks" in arguments.parts else ([], [])
    known = [name for name in study.methods if name in REACH]
    parts = []
    if "radius" in arguments.parts:
        with console.status("a falling radius"):
            results, worst = compare(arguments.quadratic, known), worst_case(arguments.quadratic)
        parts.append(_shown(radius_part(arguments.quadratic, results, worst, study.output), console))
    if "quadratic" in arguments.parts:
        with console.status("the stochastic quadratic"):
            part = study_quadratic(arguments.quadratic, study, known)
        parts.append(_shown(part, console))
    if specs:
        parts.append(_shown(study_networks(study, specs, left, location, console), console))
    exit_on_value_error(output_folder.write_document, document, markdown(parts))
    console.print(f"report with figures: {document}")


def _run_specs(study: NetworkStudy, location: data.Location) -> tuple[list[RunSpec], list[RunSpec]]:
    """Returns all runs of the study on networks, and those that are not complete yet."""
    specs = study.run_specs(
        len(data.load(study.problem.dataset, study.seeds[0], location, study.problem.user_images).train)
    )
    return specs, study_runs.to_do(specs, location, partial(is_done, study=study), check_unfinished)


def study_networks(
    study: NetworkStudy, specs: list[RunSpec], left: list[RunSpec], location: data.Location, console: Console
) -> "Part":
    """Executes the runs that are not complete yet, and draws the pictures.

    Args:
      study: the settings of the study.
      specs: all runs.
      left: the runs that are not complete yet.
      location: the folders of the data.
      console: the terminal.

    Returns:
      The part of the document.
    """
    from experiments.convergence.document import network_part  # noqa: PLC0415 - it imports matplotlib

    title = f"{study.network.model} on {study.problem.dataset}"
    console.print(f"{len(specs)} runs of {title}, {len(left)} of them to do")
    with Progress(console=console, transient=True) as progress:
        for spec, dataset, track in study_runs.in_turn(left, RunOptions(location), progress):
            last = execute(spec, study, dataset, track)
            error = "not finite" if last.test_error is None else f"{100 * last.test_error:.2f}%"
            console.print(f"{spec.name}: test error {error}")
    alike: dict[tuple[str, str], list[RunSpec]] = {}
    for spec in specs:
        method, *strategy, _ = spec.folder.name.split("-")
        alike.setdefault((method, " ".join(strategy)), []).append(spec)
    curves = {key: curve_of(alike[key]) for key in sorted(alike, key=lambda key: study.methods.index(key[0]))}
    times = {key: times_to_targets(alike[key], study) for key in curves}
    return network_part(study, title, curves, times)


def study_quadratic(study: QuadraticStudy, networks: NetworkStudy, methods: list[str]) -> "Part":
    """Runs every method with every strategy, measures the floors, and draws the pictures.

    The strategy constant_tuned is omitted, since its learning rates are those of networks.

    Args:
      study: the settings of the study.
      networks: the study on networks, which gives the strategies and the folder of the document.
      methods: keys of `REACH`.

    Returns:
      The part of the document.
    """
    from experiments.convergence.document import quadratic_part  # noqa: PLC0415 - it imports matplotlib

    trajectories = {
        (method, strategy): follow(study, method, strategy)
        for method in methods
        for strategy in networks.strategies
        if strategy != TUNED and networks.has_cell(method, strategy)
    }
    rate, size = study.floor_rates[0], study.floor_batch_sizes[0]
    by_size = {method: [floor(study, method, rate, each) for each in study.floor_batch_sizes] for method in methods}
    by_rate = {method: [floor(study, method, each, size) for each in study.floor_rates] for method in methods}
    return quadratic_part(study, trajectories, {"batch_size": by_size, "rate": by_rate}, networks.output)


def _shown(part: "Part", console: Console) -> "Part":
    """Prints the tables of a part, and returns the part."""
    for caption, rows in part.tables:
        console.print(tables.as_terminal(rows), f"{caption}\n", sep="\n")
    return part


if __name__ == "__main__":
    start(main)
