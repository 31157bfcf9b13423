"""Saves within a run: the last few states that it went through, by Orbax, each whole or not there at all."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from experiments.training import checkpoint, digests, records
from experiments.training.endings import UnusableError, go_on_hint, reason_of

_BESIDE = 2**20  # bytes of a save beside its numbers, and more than that


class Checkpoints:
    """The saves of a run, written in the background; the folder is made with the first one.

    A save is the folder `STEP`, with the state, the notes, and the SHA-256 of their files: compressed numbers with a
    flipped bit are other numbers, which nobody would notice. It gets its name when all of that is there.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._manager: ocp.CheckpointManager | None = None
        self._quiet = ExitStack()

    def save(self, step: int, state: Any, notes: dict[str, Any]) -> None:
        """Begin to save, where `step` is not saved already; the buffers of `state` may be given away on return.

        Raises:
          UnusableError: If it cannot be saved, or if the save before could not.
        """
        self._check_room(state)
        kinds = {"state": ocp.args.StandardSave(state), "notes": ocp.args.JsonSave(notes)}
        try:
            manager = self._opened()
            if step not in manager.all_steps():
                manager.save(step, args=ocp.args.Composite(**kinds))
        except Exception as error:  # whatever Orbax and TensorStore make of it
            raise self._refused(error) from error

    def close(self) -> None:
        """Wait until all is saved.

        Raises:
          UnusableError: If it could not be.
        """
        manager, self._manager = self._manager, None
        try:
            with self._quiet:
                if manager is not None:
                    manager.close()
        except Exception as error:
            raise self._refused(error) from error

    def _check_room(self, state: Any) -> None:
        """Refuse beforehand what would fail in the background, in many words of Orbax."""
        run, needed = self._folder.parent, _BESIDE + sum(x.nbytes for x in jax.tree.leaves(state))
        try:
            free = shutil.disk_usage(run).free
        except OSError as error:
            raise self._refused(error) from error
        if free < needed:
            reason = f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free"
            raise UnusableError(f"{run} cannot be saved: {reason}. {go_on_hint(run)}")

    def _opened(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._quiet.enter_context(checkpoint.quietly())
            in_background = ocp.AsyncOptions(post_finalization_callback=lambda: _write_digests(self._folder))
            # unfinished saves are removed by `own_files.make_room`, which knows them by their exact names
            options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, async_options=in_background)
            self._manager = ocp.CheckpointManager(self._folder.resolve(), options=options)
        return self._manager

    def _refused(self, error: Exception) -> UnusableError:
        run = self._folder.parent
        return UnusableError(f"{run} cannot be saved: {reason_of(error)}. {go_on_hint(run)}")


def steps(folder: Path) -> list[int]:
    """Of which steps there is a save, in order; none where there is no folder."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def notes_of(folder: Path, step: int) -> Any:
    """What was written beside the state of a save.

    Raises:
      UnusableError: If the save is damaged, or was made by another version.
    """
    save = folder / str(step)
    try:
        digests.check(save, digests.read(save))
        return records.parsed(records.text_of(save / "notes" / "metadata"))
    except (OSError, ValueError) as error:
        raise _damaged(save, error) from error


def restore(folder: Path, step: int, like: Any) -> Any:
    """The state of a save, with the structure, shapes, dtypes and places of `like`.

    Raises:
      UnusableError: If the save is damaged, or holds the state of another network or method.
    """
    save = folder / str(step)
    try:
        return checkpoint.restore(save / "state", like)
    except Exception as error:  # whatever Orbax and TensorStore make of it
        raise _damaged(save, error) from error


def _damaged(save: Path, error: Exception) -> UnusableError:
    others = [step for step in steps(save.parent) if step != int(save.name)]
    remedy = f"to go on from step {others[-1]}" if others else "to start again"
    return UnusableError(
        f"{save} is damaged, or is of another network or version ({reason_of(error)}): remove it {remedy}."
    )


def _write_digests(folder: Path) -> None:
    """Into the save that is about to get its name; Orbax calls it when all other files are there."""
    if jax.process_index():
        return
    for save in (path for path in folder.iterdir() if not path.name.isdecimal() and path.is_dir()):
        digests.write(save, digests.of(save, "*/**/*"))  # beside the folders Orbax notes its own times
