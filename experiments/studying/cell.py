"""A run of a study: in a folder of its own, done once."""

import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments import data, run, sharpness_file
from experiments.config import Config
from experiments.measuring import Sharpness, watching
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
