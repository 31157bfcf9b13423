"""The convergence study from its settings to its Markdown, with a word to the person who waits."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from experiments import data
from experiments.cli.tables import as_terminal
from experiments.convergence.document import Part, network_part, quadratic_part
from experiments.convergence.gradient_norms import Curves
from experiments.convergence.network_study import NetworkStudy, check_unfinished, curve_of, execute, is_done
from experiments.convergence.norm_plots import Floors
from experiments.convergence.quadratic_study import QuadraticStudy, floor, follow
from experiments.runner import run
from experiments.study import RunSpec


def cells_of(study: NetworkStudy, location: data.Location) -> list[RunSpec]:
    """All runs of the study on networks.

    Raises:
      ValueError: If their data are not there, if a batch plan does not fit them, or if the folder holds other runs.
    """
    cells = study.cells(len(data.load(study.dataset, study.seeds[0], location).train))
    for cell in cells:
        run.load(cell.config, location)
        if not is_done(cell, study):
            check_unfinished(cell)
    return cells


def study_networks(study: NetworkStudy, cells: list[RunSpec], location: data.Location, console: Console) -> Part:
    """Do the runs that were not done yet, print the table, and draw.

    Args:
      study: how they are measured.
      cells: all of them.
      location: where the data are.
      console: the terminal.

    Returns:
      The part of the document.
    """
    left = [cell for cell in cells if not is_done(cell, study)]
    title = f"{study.model} on {study.dataset}"
    console.print(f"{len(cells)} runs of {title}, {len(left)} of them to do")
    with Progress(console=console, transient=True) as progress:
        overall = progress.add_task("runs", total=len(left))
        for cell in left:
            dataset = run.load(cell.config, location)
            task = progress.add_task(cell.name, total=run.total_updates(cell.config, dataset))
            last = execute(cell, study, dataset, partial(progress.track, task_id=task))
            progress.remove_task(task)
            progress.advance(overall)
            console.print(f"{cell.name}: test error {last.test_error:.2%}")
    statistics = "the statistics of these examples" if study.reestimate_batchnorm else "its running statistics"
    told = (
        f"The training loss over all examples, without augmentation, BatchNorm in inference mode with {statistics}; ρ "
        f"{study.measured_rho:g} in SAM's gradient, for every method. Constant plan {study.constant_plan}, increasing "
        f"plan {study.increasing_plan}, seeds {', '.join(map(str, study.seeds))}."
    )
    part = network_part(title, told, _curves(cells), study.output)
    _show(part, console)
    return part


def study_quadratic(
    study: QuadraticStudy, methods: Sequence[str], strategies: Sequence[str], folder: Path, console: Console
) -> Part:
    """Follow every method by every strategy, find the floors, print the tables, and draw.

    Args:
      study: the problem.
      methods: of `REACH`.
      strategies: of the study on networks.
      folder: of the document.
      console: the terminal.

    Returns:
      The part of the document.
    """
    with console.status("the stochastic quadratic"):
        courses = {(method, strategy): follow(study, method, strategy) for method in methods for strategy in strategies}
        rate, batch_size = study.floor_rates[0], study.floor_batch_sizes[0]
        by_batch_size = _floors(study, methods, [(rate, size) for size in study.floor_batch_sizes])
        by_rate = _floors(study, methods, [(each, batch_size) for each in study.floor_rates])
        part = quadratic_part(study, courses, by_batch_size, by_rate, folder)
    _show(part, console)
    return part


def _floors(study: QuadraticStudy, methods: Sequence[str], places: list[tuple[float, int]]) -> Floors:
    return {method: [floor(study, method, *place) for place in places] for method in methods}


def _curves(cells: list[RunSpec]) -> Curves:
    """By method and strategy, the seeds together."""
    alike: dict[tuple[str, str], list[RunSpec]] = {}
    for cell in cells:
        method, *strategy, _ = cell.folder.name.split("-")
        alike.setdefault((method, " ".join(strategy)), []).append(cell)
    order = list(dict.fromkeys(method for method, _ in alike))
    return {key: curve_of(alike[key]) for key in sorted(alike, key=lambda key: order.index(key[0]))}


def _show(part: Part, console: Console) -> None:
    for caption, rows in part.tables:
        console.print(as_terminal(rows))
        console.print(f"{caption}\n")
