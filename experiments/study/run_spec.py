"""One run of a study, which is executed once, in its own folder."""

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
from experiments.training import atomic_write, checkpoint, json_files, run_folder, writers
from experiments.training.exceptions import UnusableError, disk_errors_as_unusable, reason_of
from experiments.training.prefetch import Track
from experiments.training.records import Result


class RunSpec(NamedTuple):
    """One run of a study.

    Attributes:
      name: the name that is shown while it runs, for example `sam constant, seed 0`.
      config: the settings of the run.
      folder: the folder of the completed run.
    """

    name: str
    config: Config
    folder: Path

    @property
    def unfinished(self) -> Path:
        """The folder of the run until the run is complete."""
        return self.folder.with_name(f"{self.folder.name}{run.UNFINISHED}")


@dataclass(frozen=True)
class RunOptions:
    """How the runs of a study are executed.

    Attributes:
      location: the location of the data.
      sharpness: how the sharpness of each run is measured; None: it is not measured.
      context: the settings that all runs share: whether to write TensorBoard's event files, when to save each run, and
        when to stop, which is also checked before each run and each measurement.
      finished: the file in which finished runs are recorded; None: they are not recorded.
      jobs: the number of processes that execute runs at the same time.
    """

    location: data.Location = data.Location()
    sharpness: SharpnessSettings | None = None
    context: run.RunContext = run.RunContext()
    finished: Path | None = None
    jobs: int = 1


def is_done(spec: RunSpec) -> bool:
    """Returns whether the run is complete. A restored run, which has no records of steps, is complete, too.

    Raises:
      UnusableError: If its folder holds something else, or a damaged run.
    """
    if not os.path.lexists(spec.folder):
        return False
    reason = "its config differs"
    try:
        if Config.load(spec.folder / "config.json") == spec.config:
            updates = run.result_of(spec.folder).updates
            kinds = [
                (each["kind"], each["step"]) for each in writers.read(spec.folder / "metrics.jsonl", "step", "epoch")
            ]
            steps_found = sum(kind == "step" for kind, _ in kinds)
            if steps_found == updates or (not steps_found and kinds[-1:] == [("epoch", updates)]):
                return True
            reason = f"metrics.jsonl has {steps_found} of {updates} updates"
    except (json_files.DamagedError, OSError) as error:
        reason = error.reason if isinstance(error, json_files.DamagedError) else reason_of(error)
    remedy = f"choose another output, or remove it ({reason})."
    raise UnusableError(f"{spec.folder} holds another run, or a damaged one: {remedy}")


def check_unfinished(spec: RunSpec) -> None:
    """Checks that a run can start or resume in its unfinished folder.

    A run with a checkpoint resumes, and foreign files in its folder are kept. A run without a checkpoint starts anew,
    and its folder must hold no foreign file.

    Raises:
      UnusableError: If the folder is a symbolic link, or holds a foreign file and no checkpoint.
    """
    unfinished = spec.unfinished
    atomic_write.refuse_link(unfinished)
    if not unfinished.is_dir() or _has_begun(unfinished):
        return
    if found := run_folder.user_files(unfinished):
        message = f"{unfinished} holds {found[0]}, which does not belong to the run, and no checkpoint"
        raise UnusableError(f"{message}: move it elsewhere, or choose another output.")


def execute(spec: RunSpec, dataset: data.Dataset, options: RunOptions = RunOptions(), track: Track = iter) -> Result:
    """Executes a run in its unfinished folder and renames the folder at the end, so that `spec.folder` is complete.

    A run that was stopped resumes from its last checkpoint; without a checkpoint it starts anew. If another process has
    completed the run in the meantime, its result is returned.

    Args:
      spec: the run.
      dataset: the data of the run.
      options: how the run is executed.
      track: iterates over the batches and shows progress.

    Returns:
      The result of the run.

    Raises:
      UnusableError: If the folder has checkpoints of another config or damaged checkpoints, if another process executes
        the run, or if the folder cannot be written.
    """
    atomic_write.refuse_link(spec.unfinished)
    unfinished = make_folder(spec.unfinished)
    with run_folder.hold_run_lock(unfinished):
        if _is_done(spec):
            result = run.result_of(spec.folder)
        else:
            check_unfinished(spec)
            result = _completed(spec, dataset, options, track)
            with disk_errors_as_unusable(unfinished):
                unfinished.rename(spec.folder)
    with suppress(OSError):  # it was renamed, or holds foreign files
        unfinished.rmdir()
    return result


def _is_done(spec: RunSpec) -> bool:
    """Returns `is_done(spec)`. If it raises and the run was not started, removes the lock and the unfinished folder."""
    try:
        return is_done(spec)
    except UnusableError:
        with suppress(OSError):  # another process may remove them at the same time
            if [path.name for path in spec.unfinished.iterdir()] == [run_folder.LOCK]:
                (spec.unfinished / run_folder.LOCK).unlink()
                spec.unfinished.rmdir()
        raise


def _completed(spec: RunSpec, dataset: data.Dataset, options: RunOptions, track: Track) -> Result:
    """Resumes a run from its last checkpoint, or starts it anew, and returns its result."""
    config, unfinished, start = spec.config, spec.unfinished, resume.Start()
    with disk_errors_as_unusable(unfinished):
        if _has_begun(unfinished):
            start = resume.reopened(unfinished, config, dataset)
        else:
            for name in (path.name for path in unfinished.iterdir() if path.name != run_folder.LOCK):
                run_folder.remove(unfinished, name)
    if start is None:  # it was stopped between writing its result and renaming the folder
        return run.completed(unfinished)
    write = partial(sharpness_records.add, unfinished)
    watch = watching(config, dataset, options.sharpness, write) if options.sharpness else None
    context = replace(options.context, track=track, watch=watch, start=start)
    return run.execute(config, dataset, unfinished, context)


def _has_begun(unfinished: Path) -> bool:
    """Returns whether the folder has a checkpoint or a result to resume from."""
    return bool(checkpoint.steps(unfinished / resume.CHECKPOINTS)) or (unfinished / "result.json").exists()
