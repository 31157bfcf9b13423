"""The saved states of a run: where a run resumes, whether its config is the requested one, and the trained state."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from experiments import data
from experiments.config import Config
from experiments.training import checkpoint, digests, json_files, run_folder
from experiments.training.exceptions import UnusableError, printable, reason_of
from experiments.training.progress import Progress
from experiments.training.records import Notes
from experiments.training.run_folder import LOCK

CHECKPOINTS = "checkpoints"
"""The name of the folder of saves in the folder of a run."""

CHECKPOINT = "checkpoint"
"""The name of the folder in a run's folder that holds the trained state, with checksums and the config."""


class Start(NamedTuple):
    """The point from which a run starts or resumes.

    Attributes:
      is_again: whether an earlier program started this run in its folder.
      save: the step of the save from which it resumes; None: it starts from the beginning.
      progress: the position of the run.
      metrics_bytes: the length of `metrics.jsonl` in bytes at that position.
      seconds: the duration of the run until then, in seconds.
    """

    is_again: bool = False
    save: int | None = None
    progress: Progress = Progress()
    metrics_bytes: int = 0
    seconds: float = 0.0

    def restored(self, output: Path, state: Any) -> Any:
        """Returns the saved training state, or the initial `state` if the run starts from the beginning.

        Raises:
          UnusableError: If the save is damaged, or holds the state of another network or method.
        """
        return state if self.save is None else checkpoint.restore_save(output / CHECKPOINTS, self.save, state)


def reopened(output: Path, config: Config, dataset: data.Dataset, devices: int = 1) -> Start | None:
    """Returns where the run in a folder resumes: from its last save, or from the beginning if it has none.

    No file is changed.

    Args:
      output: the folder of the run.
      config: the requested config.
      dataset: the data of the run.
      devices: the number of devices.

    Returns:
      The start; None if the run is complete.

    Raises:
      ValueError: If the folder holds something else, a run of another config or of other data, or a damaged one.
    """
    if not (output / "config.json").exists():
        names = sorted(path.name for path in output.iterdir() if path.name != LOCK)
        if names := [name for name in names if not run_folder.is_temporary(name)]:
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
        message = f"{save} was made by another version ({error}): start again in another folder."
        raise UnusableError(printable(message)) from error
    check_same(found, config, save)
    _check_environment(notes, config, dataset, devices, save)
    metrics = output / "metrics.jsonl"
    length = metrics.stat().st_size if metrics.is_file() else 0
    if length < notes.metrics_bytes:
        message = f"it has {length} bytes, and had {notes.metrics_bytes} when the run was saved"
        raise UnusableError(f"{metrics} is damaged: {message}. Start the run again in another folder.")
    return Start(True, progress.step, progress, notes.metrics_bytes, notes.seconds)


def _check_environment(notes: Notes, config: Config, dataset: data.Dataset, devices: int, save: Path) -> None:
    """Refuses to resume with other data, or on other devices if each of them has a perturbation."""
    again = "or start the run again in another folder."
    if notes.data != dataset.fingerprint():
        changed = f"the data set {config.problem.dataset} has changed since {save} was saved"
        raise UnusableError(f"{changed}: restore the run's data, {again}")
    if config.descent.perturbation == "device" and notes.devices not in (devices, None):
        differing = f"the number of devices was {notes.devices} when {save} was made, and is {devices} here"
        raise UnusableError(f"{differing}, and each has its own perturbation: use {notes.devices}, {again}")


def check_same(found: Config, wanted: Config, where: Path) -> None:
    """Refuses to resume a run with another config.

    Raises:
      UnusableError: If the configs differ; the message names each differing field with both values.
    """
    expected = wanted.settings
    differing = [(name, ours) for name, ours in found.settings.items() if ours != expected[name]]
    if differing:
        message = ", ".join(f"{name} is {ours!r} there and {expected[name]!r} here" for name, ours in differing)
        remedy = "Give its settings, choose another folder, or remove it."
        raise UnusableError(f"{where} belongs to another run: {message}. {remedy}")


def write_digests(output: Path) -> None:
    """Writes checksums and the config into the folder of the trained state, whose other files are complete.

    Args:
      output: the folder of the run.
    """
    folder = output / CHECKPOINT
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    digests.write(folder, {"config": config, "files": digests.compute(folder)})


def trained_state(output: Path, config: Config, like: Any) -> Any:
    """Returns the trained state of a finished run.

    Args:
      output: the folder of the run.
      config: the config of the run.
      like: a state of the same structure, shapes, dtypes and shardings.

    Raises:
      UnusableError: If the state was changed since it was saved, cannot be read, or is that of another run. A state
        without checksums is read unchecked.
    """
    folder, found = output / CHECKPOINT, config
    try:
        if unchecked(output) is None:
            sealed = digests.read(folder)
            digests.check(folder, sealed.get("files"))
            found = Config.of(sealed.get("config"))
    except (OSError, ValueError) as error:
        raise _unreadable(output, error) from error
    check_same(found, config, folder)
    try:
        return checkpoint.restore(folder, like)
    except Exception as error:  # Orbax and TensorStore do not document their errors
        raise _unreadable(output, error) from error


def unchecked(output: Path) -> str | None:
    """Returns a warning if the trained state has no checksums, as in earlier versions; None if it has them."""
    if (output / CHECKPOINT / digests.DIGESTS).exists() or not (output / CHECKPOINT).exists():
        return None
    message = "whether its state is complete, and belongs to this run, cannot be checked"
    return printable(f"{output} was made before trained states had checksums: {message}.")


def _unreadable(output: Path, error: Exception) -> UnusableError:
    message = f"{output} has no readable trained state ({reason_of(error)}): run it again."
    return UnusableError(printable(message))
