"""The saved states of a run: where a run goes on, whether it is the one that is asked for, and the trained state."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from experiments import data
from experiments.config import Config
from experiments.training import atomic_write, checkpoint, json_files, own_files
from experiments.training.exceptions import UnusableError, printable, reason_of
from experiments.training.own_files import LOCK
from experiments.training.progress import Progress
from experiments.training.records import Notes

CHECKPOINTS = "checkpoints"
"""The folder of the saves in that of a run."""

CHECKPOINT = "checkpoint"
"""The folder of the trained state, with checksums and the config, in that of a run."""


class Start(NamedTuple):
    """Where a run begins, or goes on.

    Attributes:
      is_again: whether the run's folder is there from an earlier time.
      save: the step of the save that it goes on from; None: it begins at its beginning.
      progress: its position.
      metrics_bytes: how long `metrics.jsonl` was then.
      seconds: how long the run had taken.
    """

    is_again: bool = False
    save: int | None = None
    progress: Progress = Progress()
    metrics_bytes: int = 0
    seconds: float = 0.0

    def restored(self, output: Path, state: Any) -> Any:
        """The training state to go on with, in the place of `state`, that of the beginning.

        Raises:
          UnusableError: If it is damaged, or that of another network or method.
        """
        return state if self.save is None else checkpoint.restore_save(output / CHECKPOINTS, self.save, state)


def reopened(output: Path, config: Config, dataset: data.Dataset) -> Start | None:
    """Where the run in a folder goes on: from its last save, or from its beginning, where it has none.

    Nothing is changed.

    Args:
      output: the folder.
      config: what is to be run.
      dataset: its data.

    Returns:
      The start; None, if the run is complete.

    Raises:
      ValueError: If the folder holds something else, a run of another config or of other data, or a damaged one.
    """
    if not (output / "config.json").exists():
        names = sorted(path.name for path in output.iterdir() if path.name != LOCK)
        if names := [name for name in names if not own_files.is_temporary(name)]:
            raise ValueError(f"output folder {output} holds {names[0]} and no run: choose another folder, or empty it.")
        return Start()
    check_same(Config.load(output / "config.json"), config, output)
    if (output / "result.json").exists():
        return None
    saved = checkpoint.steps(output / CHECKPOINTS)
    if not saved:
        return Start(is_again=True)
    save = output / CHECKPOINTS / str(saved[-1])
    try:
        notes = json_files.decode(checkpoint.notes_of(output / CHECKPOINTS, saved[-1]), Notes)
        found, progress = Config.of(notes.config), notes.position
        if progress.step != saved[-1]:
            raise ValueError(f"step is {progress.step}, expected {saved[-1]}")
    except UnusableError:
        raise
    except (ValueError, TypeError) as error:
        said = f"{save} was made by another version ({error}): start again in another folder."
        raise UnusableError(printable(said)) from error
    check_same(found, config, save)
    if notes.data != dataset.fingerprint():
        remedy = "bring back the data that the run had, or start it again in another folder."
        raise UnusableError(f"the data set {config.problem.dataset} has changed since {save} was saved: {remedy}")
    metrics = output / "metrics.jsonl"
    length = metrics.stat().st_size if metrics.is_file() else 0
    if length < notes.metrics_bytes:
        said = f"it has {length} bytes, and had {notes.metrics_bytes} when the run was saved"
        raise UnusableError(f"{metrics} is damaged: {said}. Start the run again in another folder.")
    return Start(True, progress.step, progress, notes.metrics_bytes, notes.seconds)


def check_same(found: Config, wanted: Config, where: Path) -> None:
    """Refuse to go on with another run.

    Raises:
      UnusableError: If the configs differ; it names each field with both values.
    """
    asked = wanted.settings
    differing = [(name, ours) for name, ours in found.settings.items() if ours != asked[name]]
    if differing:
        said = ", ".join(f"{name} is {ours!r} there and {asked[name]!r} here" for name, ours in differing)
        remedy = "Give the settings that it has, take another folder, or remove it."
        raise UnusableError(f"{where} is of another run: {said}. {remedy}")


def seal(output: Path) -> None:
    """Write checksums and the config into the trained state, which is complete.

    Args:
      output: the folder of the run.
    """
    folder = output / CHECKPOINT
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    atomic_write.write(folder, {"config": config, "files": atomic_write.of(folder)})


def trained_state(output: Path, config: Config, like: Any) -> Any:
    """The trained state of a finished run.

    Args:
      output: the folder of the run.
      config: what was run.
      like: a state of the same structure, shapes, dtypes and places.

    Raises:
      UnusableError: If the state was changed since it was saved, cannot be read, or is that of another run. A state
        without checksums is read as it is.
    """
    folder, found = output / CHECKPOINT, config
    try:
        if unchecked(output) is None:
            sealed = atomic_write.read(folder)
            atomic_write.check(folder, sealed.get("files"))
            found = Config.of(sealed.get("config"))
    except (OSError, ValueError) as error:
        raise _unreadable(output, error) from error
    check_same(found, config, folder)
    try:
        return checkpoint.restore(folder, like)
    except Exception as error:  # whatever Orbax and TensorStore make of it
        raise _unreadable(output, error) from error


def unchecked(output: Path) -> str | None:
    """A sentence where a trained state has no checksums, as earlier versions saved it; None where it has them."""
    if (output / CHECKPOINT / atomic_write.DIGESTS).exists() or not (output / CHECKPOINT).exists():
        return None
    said = "that its state is whole, and of this run, cannot be checked"
    return printable(f"{output} was made before trained states had checksums: {said}.")


def _unreadable(output: Path, error: Exception) -> UnusableError:
    said = f"{output} has no trained state that can be read ({reason_of(error)}): run it again."
    return UnusableError(printable(said))
