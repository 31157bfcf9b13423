"""A run of a study: in a folder of its own, done once."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments import data
from experiments.cli.output_folder import make_folder
from experiments.config import Config
from experiments.runner import resume, run, sharpness_records
from experiments.sharpness import SharpnessSettings, watching
from experiments.training import atomic_write, checkpoint, json_files, own_files, writers
from experiments.training.exceptions import UnusableError, disk_errors_as_unusable, reason_of
from experiments.training.prefetch import Track
from experiments.training.records import Result


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

    @property
    def unfinished(self) -> Path:
        """The folder of the run before it is complete."""
        return self.folder.with_name(f"{self.folder.name}{run.UNFINISHED}")


@dataclass(frozen=True)
class RunOptions:
    """How the runs of a study are executed.

    Attributes:
      location: where the data are.
      sharpness: how the sharpness of each run is measured; None: it is not measured.
      context: what the runs share: TensorBoard's event files, when each run is saved, and when to stop, which is also
        asked before each run and each measurement.
    """

    location: data.Location = data.Location()
    sharpness: SharpnessSettings | None = None
    context: run.RunContext = run.RunContext()


def is_done(cell: RunSpec) -> bool:
    """Whether the cell was run to its end.

    Raises:
      UnusableError: If its folder holds something else, or a run that was damaged.
    """
    if not os.path.lexists(cell.folder):
        return False
    reason = "its config is another"
    try:
        if Config.load(cell.folder / "config.json") == cell.config:
            updates = run.result_of(cell.folder).updates
            steps_found = sum(1 for _ in writers.read(cell.folder / "metrics.jsonl", "step"))
            if updates == steps_found:
                return True
            reason = f"metrics.jsonl has {steps_found} of {updates} updates"
    except (json_files.DamagedError, OSError) as error:
        reason = error.reason if isinstance(error, json_files.DamagedError) else reason_of(error)
    remedy = f"choose another output, or remove it ({reason})."
    raise UnusableError(f"{cell.folder} holds another run, or a damaged one: {remedy}")


def check_unfinished(cell: RunSpec) -> None:
    """Refuse to begin or to go on with a cell where its unfinished folder holds what is not of a run.

    Foreign files next to a save stay where they are. A run without a save starts anew, and its folder must hold no
    foreign file.

    Raises:
      UnusableError: If the folder is a symbolic link, or holds anything foreign and no save.
    """
    unfinished = cell.unfinished
    atomic_write.refuse_link(unfinished)
    if not unfinished.is_dir() or _has_begun(unfinished):
        return
    if found := own_files.foreign(unfinished):
        said = f"{unfinished} holds {found[0]}, which is not of the run, and no save"
        raise UnusableError(f"{said}: move it elsewhere, or choose another output.")


def execute(cell: RunSpec, dataset: data.Dataset, options: RunOptions = RunOptions(), track: Track = iter) -> Result:
    """Run a cell in an unfinished folder, which is renamed at the end: a folder with the cell's name is complete.

    A run that was stopped continues from its last save; without a save it starts anew. A run that another process has
    completed in the meantime is left as it is.

    Args:
      cell: what to run.
      dataset: its data.
      options: how it is run.
      track: iterates over the batches and shows progress.

    Returns:
      Its result.

    Raises:
      UnusableError: If there are saves of a run of another config, or damaged ones, if another process works on it, or
        if it cannot be written.
    """
    atomic_write.refuse_link(cell.unfinished)
    unfinished = make_folder(cell.unfinished)
    with own_files.hold_run_lock(unfinished):
        if _is_done(cell):
            result = run.result_of(cell.folder)
        else:
            check_unfinished(cell)
            result = _completed(cell, dataset, options, track)
            with disk_errors_as_unusable(unfinished):
                unfinished.rename(cell.folder)
    with suppress(OSError):  # it was renamed, or holds foreign files
        unfinished.rmdir()
    return result


def _is_done(cell: RunSpec) -> bool:
    """`is_done`; where it refuses and nothing was begun, the lock and the unfinished folder are removed."""
    try:
        return is_done(cell)
    except UnusableError:
        with suppress(OSError):  # another process may do so, too
            if [path.name for path in cell.unfinished.iterdir()] == [own_files.LOCK]:
                (cell.unfinished / own_files.LOCK).unlink()
                cell.unfinished.rmdir()
        raise


def _completed(cell: RunSpec, dataset: data.Dataset, options: RunOptions, track: Track) -> Result:
    """The result of a run, continued from its last save; a run without a save starts anew."""
    config, unfinished, start = cell.config, cell.unfinished, resume.Start()
    with disk_errors_as_unusable(unfinished):
        if _has_begun(unfinished):
            start = resume.reopened(unfinished, config, dataset)
        else:
            for name in (path.name for path in unfinished.iterdir() if path.name != own_files.LOCK):
                own_files.remove(unfinished, name)
    if start is None:  # it was stopped after its result was written and before the folder was renamed
        return run.completed(unfinished)
    write = partial(sharpness_records.add, unfinished)
    watch = watching(config, dataset, options.sharpness, write) if options.sharpness else None
    context = replace(options.context, track=track, watch=watch, start=start)
    return run.execute(config, dataset, unfinished, context)


def _has_begun(unfinished: Path) -> bool:
    """Whether there is a save or a result to continue from."""
    return bool(checkpoint.steps(unfinished / resume.CHECKPOINTS)) or (unfinished / "result.json").exists()
