"""The runs of a study: each in a folder of its own, done once."""

import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from experiments import data, run, sharpness_file
from experiments.command_line import sensibly
from experiments.config import Config
from experiments.measuring import Sharpness, has_measured, watching
from experiments.measuring.console import measure
from experiments.training.writers import Record, TensorBoard, read


class Cell(NamedTuple):
    """One run of a study.

    Attributes:
      name: how it is called on the way: `sam constant, seed 0`.
      config: what to run.
      folder: where it is, or will be.
    """

    name: str
    config: Config
    folder: Path


def run_all(
    title: str,
    cells: list[Cell],
    location: data.Location,
    console: Console,
    *,
    sharpness: Sharpness | None = None,
    tensorboard: bool = False,
) -> None:
    """Run the cells that were not run yet, with a bar of progress.

    A wrong setting, missing data and a folder with another run end the program with a sentence, before the first run.

    Args:
      title: what is run: `small_resnet on digits`.
      cells: all runs of the study.
      location: where the data are.
      console: the terminal.
      sharpness: how the sharpness of each is measured; None: not at all.
      tensorboard: whether TensorBoard's event files are written, too.
    """
    left = sensibly(_to_do, cells, location)
    console.print(f"{len(cells)} runs of {title}, {len(left)} of them to do")
    with Progress(console=console, transient=True) as progress:
        overall = progress.add_task("runs", total=len(left))
        for cell in left:
            dataset = run.load(cell.config, location)
            task = progress.add_task(cell.name, total=cell.config.plan.total_steps(len(dataset.train)))
            result = execute(cell, dataset, partial(progress.track, task_id=task), sharpness, tensorboard)
            progress.remove_task(task)
            console.print(f"{cell.name}: {run.ending(result)}, in {result['seconds']:.1f} s")
            progress.advance(overall)
        if sharpness is not None:
            measure_all(cells, location, sharpness, progress)


def measure_all(cells: list[Cell], location: data.Location, sharpness: Sharpness, progress: Progress) -> None:
    """Measure what was not measured yet; what cannot be is told in a sentence, and the others go on."""
    for cell in progress.track(cells, description="sharpness"):
        dataset = run.load(cell.config, location)
        try:
            if not has_measured(cell.folder, cell.config, dataset, sharpness):
                measure(cell.folder, cell.config, dataset, sharpness, progress.console)
        except ValueError as error:
            progress.console.print(f"not measured: {error}")


def _to_do(cells: Iterable[Cell], location: data.Location) -> list[Cell]:
    for cell in cells:
        run.load(cell.config, location)
    return [cell for cell in cells if not is_done(cell)]


def is_done(cell: Cell) -> bool:
    """Whether the cell was run to its end.

    Raises:
      ValueError: If its folder holds something else, or a run that was damaged.
    """
    if not cell.folder.exists():
        return False
    try:
        same = Config.load(cell.folder / "config.json") == cell.config
        updates = run.result_of(cell.folder)["updates"]
        complete = updates == sum(1 for _ in read(cell.folder / "metrics.jsonl", "step"))
    except (OSError, ValueError, TypeError, KeyError):
        same = complete = False
    if not (same and complete):
        raise ValueError(f"{cell.folder} holds another run, or a damaged one: choose another output, or remove it.")
    return True


def execute(
    cell: Cell,
    dataset: data.Dataset,
    track: run.Track = iter,
    sharpness: Sharpness | None = None,
    tensorboard: bool = False,
) -> Record:
    """Run a cell, in a folder beside its own that is renamed at the end: what has its name is complete.

    Args:
      cell: what to run.
      dataset: its data.
      track: goes through the batches while something watches.
      sharpness: how it is measured on the way, where that is asked for.
      tensorboard: whether TensorBoard's event files are written, too.

    Returns:
      Its result.
    """
    unfinished = cell.folder.with_name(f"{cell.folder.name}{run.UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    folder = run.claim(unfinished)
    writers = [TensorBoard(folder / "tensorboard")] if tensorboard else []
    watch = watching(cell.config, dataset, sharpness, partial(sharpness_file.add, folder)) if sharpness else None
    result = run.execute(cell.config, dataset, folder, track, writers, watch=watch)
    unfinished.rename(cell.folder)
    return result
