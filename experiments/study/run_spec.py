"""A run of a study: in a folder of its own, done once."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from experiments import data
from experiments.cli.output_folder import make_folder
from experiments.config import Config
from experiments.runner import run, sharpness_records
from experiments.runner.resume import CHECKPOINTS, Start, reopened
from experiments.sharpness import SharpnessSettings, watching
from experiments.training.atomic_write import refuse_link
from experiments.training.checkpoint import steps
from experiments.training.checkpoint_schedule import Saving
from experiments.training.exceptions import UnusableError, disk_errors_as_unusable, reason_of
from experiments.training.json_files import DamagedError
from experiments.training.own_files import foreign, remove
from experiments.training.preemption import Stop, never
from experiments.training.prefetch import Track
from experiments.training.records import Result
from experiments.training.run_lock import LOCK, hold_run_lock
from experiments.training.writers import read


class RunSpec(NamedTuple):
    """One run of a study.

    Attributes:
      name: how it is called on the way: `sam constant, seed 0`.
      config: what to run.
      folder: where it is, or will be.
    """

    name: str
    config: Config
    folder: Path


def is_done(cell: RunSpec) -> bool:
    """Whether the cell was run to its end.

    Raises:
      UnusableError: If its folder holds something else, or a run that was damaged.
    """
    if not os.path.lexists(cell.folder):
        return False
    try:
        reason = _difference(cell)
    except DamagedError as error:
        reason = error.reason
    except OSError as error:
        reason = reason_of(error)
    if reason is not None:
        raise UnusableError(
            f"{cell.folder} holds another run, or a damaged one: choose another output, or remove it ({reason})."
        )
    return True


def _difference(cell: RunSpec) -> str | None:
    """Why a folder does not hold the cell's run, whole; None where it does."""
    if Config.load(cell.folder / "config.json") != cell.config:
        return "its config is another"
    updates, steps_found = run.result_of(cell.folder).updates, 0
    for _ in read(cell.folder / "metrics.jsonl", "step"):
        steps_found += 1
    return None if updates == steps_found else f"metrics.jsonl has {steps_found} of {updates} updates"


def check_unfinished(cell: RunSpec) -> None:
    """Refuse to begin or to go on with a cell where its unfinished folder holds what is not of a run.

    Foreign files next to a save stay where they are. A run without a save starts anew, and its folder must hold no
    foreign file.

    Raises:
      UnusableError: If the folder is a symbolic link, or holds anything foreign and no save.
    """
    unfinished = _unfinished(cell)
    refuse_link(unfinished)
    if not unfinished.is_dir() or _has_begun(unfinished):
        return
    if found := foreign(unfinished):
        raise UnusableError(
            f"{unfinished} holds {found[0]}, which is not of the run, and no save: move it elsewhere, or choose "
            "another output."
        )


def execute(
    cell: RunSpec,
    dataset: data.Dataset,
    track: Track = iter,
    sharpness: SharpnessSettings | None = None,
    tensorboard: bool = False,
    *,
    saving: Saving = Saving(),
    stop: Stop = never,
) -> Result:
    """Run a cell, in a folder beside its own that is renamed at the end: what has its name is complete.

    A run that was stopped on its way goes on from its last save; one that was not saved starts anew. One that another
    process has completed in the meantime is left as it is.

    Args:
      cell: what to run.
      dataset: its data.
      track: goes through the batches while something watches.
      sharpness: how it is measured on the way, where that is asked for.
      tensorboard: whether TensorBoard's event files are written, too.
      saving: how it is saved on its way.
      stop: whether to stop, asked before each step.

    Returns:
      Its result.

    Raises:
      UnusableError: If there are saves of a run of another config, or damaged ones, if another process works on it, or
        if it cannot be written.
    """
    refuse_link(_unfinished(cell))
    unfinished = make_folder(_unfinished(cell))
    with hold_run_lock(unfinished):
        if _is_done(cell, unfinished):
            result = run.result_of(cell.folder)
        else:
            write = partial(sharpness_records.add, unfinished)
            watch = watching(cell.config, dataset, sharpness, write) if sharpness else None
            around = {"watch": watch, "tensorboard": tensorboard, "saving": saving, "stop": stop}
            check_unfinished(cell)
            result = _completed(unfinished, cell.config, dataset, track, **around)
            with disk_errors_as_unusable(unfinished):
                unfinished.rename(cell.folder)
    with suppress(OSError):  # it has its name, or holds what is not of this run
        unfinished.rmdir()
    return result


def _is_done(cell: RunSpec, unfinished: Path) -> bool:
    """`is_done`; where it refuses, and nothing was begun, nothing is left behind, the lock included."""
    try:
        return is_done(cell)
    except UnusableError:
        with suppress(OSError):  # another process may do so, too
            if [path.name for path in unfinished.iterdir()] == [LOCK]:
                (unfinished / LOCK).unlink()
                unfinished.rmdir()
        raise


def _completed(unfinished: Path, config: Config, dataset: data.Dataset, track: Track, **around: Any) -> Result:
    """The result of a run, from where it stands to its end."""
    with disk_errors_as_unusable(unfinished):
        start = _start(unfinished, config, dataset)
    if start is None:  # it was stopped between its result and its name
        return run.completed(unfinished)
    return run.execute(config, dataset, unfinished, track, start=start, **around)


def _start(unfinished: Path, config: Config, dataset: data.Dataset) -> Start | None:
    """Where an unfinished run goes on; where nothing was saved, nothing is lost, and it starts anew."""
    if _has_begun(unfinished):
        return reopened(unfinished, config, dataset)
    for name in (path.name for path in unfinished.iterdir() if path.name != LOCK):
        remove(unfinished, name)
    return Start()


def _has_begun(unfinished: Path) -> bool:
    """Whether there is something to go on from."""
    return bool(steps(unfinished / CHECKPOINTS)) or (unfinished / "result.json").exists()


def _unfinished(cell: RunSpec) -> Path:
    """The folder of a cell that was not run to its end."""
    return cell.folder.with_name(f"{cell.folder.name}{run.UNFINISHED}")
