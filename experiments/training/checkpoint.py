"""Writes and reads checkpoints with Orbax: the trained state, and the last few saves of a run.

A checkpoint is either complete or absent.
"""

import errno
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from experiments.training import digests, json_files
from experiments.training.exceptions import UnusableError, go_on_hint, reason_of
from sam_optax.method_states import StepDiagnostics

_text = partial(jax.tree_util.keystr, simple=True, separator="/")  # the path of a leaf as text
_OVERHEAD = 2**20  # an upper bound on the bytes that a save needs in addition to its arrays


@contextmanager
def quietly() -> Iterator[None]:
    """Suppresses Orbax's own messages; a failure in a background thread is raised once, by the call that waits."""
    hook = sys.unraisablehook
    filters: dict[str, Callable[[logging.LogRecord], bool]] = {
        "absl": lambda record: "orbax" not in record.pathname,
        "asyncio": lambda record: "exception was never retrieved" not in record.getMessage(),
    }
    with ExitStack() as restored:
        for name, is_shown in filters.items():
            logging.getLogger(name).addFilter(is_shown)
            restored.callback(logging.getLogger(name).removeFilter, is_shown)
        restored.callback(setattr, sys, "unraisablehook", hook)
        sys.unraisablehook = lambda failed: None if "Event loop is closed" in str(failed.exc_value) else hook(failed)
        yield


@contextmanager
def _errors_as(refusal: Callable[[Exception], UnusableError]) -> Iterator[None]:
    """Replaces any error of Orbax or TensorStore by `refusal(error)`, because their error types are not documented."""
    try:
        yield
    except Exception as error:
        raise refusal(error) from error


def save(path: Path, state: Any) -> None:
    """Writes `state`, any pytree of arrays, to the new folder `path`, and returns when the folder is complete.

    Raises:
      UnusableError: If it cannot be written.
    """

    def refusal(error: Exception) -> UnusableError:
        return UnusableError(f"{path} cannot be written: {reason_of(error)}. Free some space, or choose another.")

    with _errors_as(refusal), quietly(), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), state)


def restore(path: Path, like: Any) -> Any:
    """Reads the state that `save` wrote, with the structure, shapes and dtypes of `like`.

    It also reads states that were saved by earlier versions, in which the diagnostics have fewer fields.
    """
    with quietly(), ocp.StandardCheckpointer() as checkpointer:
        saved = _saved_paths(checkpointer, path.resolve())

        def saved_fields(path: Any, node: Any) -> Any:
            if not _is_diagnostics(node):
                return node
            return {name: x for name, x in node._asdict().items() if f"{_text(path)}/{name}" in saved}

        fields = jax.tree_util.tree_map_with_path(saved_fields, like, is_leaf=_is_diagnostics)
        found = checkpointer.restore(path.resolve(), fields)
    return jax.tree.map(_completed, like, found, is_leaf=_is_diagnostics)


def _saved_paths(checkpointer: ocp.StandardCheckpointer, path: Path) -> set[str]:
    """Returns the paths of all arrays in a saved state."""
    found: Any = checkpointer.metadata(path)
    found = getattr(found, "item_metadata", found)
    return {_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(getattr(found, "tree", found))}


def _completed(like: Any, found: Any) -> Any:
    """Returns `found`, with diagnostics built from the saved fields; a field that was not saved was not measured.

    The first layout of the diagnostics had four numbers and no flag `measured`; NaN meant that nothing was measured.
    """
    if not _is_diagnostics(like):
        return found
    missing = {name: jnp.zeros_like(x) for name, x in like._asdict().items() if name not in found}
    if "measured" not in found:
        measured = ~jnp.isnan(found["grad_norm"])
        found = {name: jnp.where(measured, x, 0) for name, x in found.items()} | {"measured": measured}
    return StepDiagnostics(**(missing | found))


def _is_diagnostics(node: Any) -> bool:
    return isinstance(node, StepDiagnostics)


class Checkpoints:
    """Writes the saves of a run in the background; the first save creates the folder.

    Each save is a folder named after its step. It contains the state, the notes, and the SHA-256 digests of their
    files; a digest detects a flipped bit in a compressed array. The folder gets its name when all files are complete.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._manager: ocp.CheckpointManager | None = None
        self._quiet = ExitStack()

    def save(self, step: int, state: Any, notes: dict[str, Any]) -> None:
        """Starts to save `state`, unless `step` is already saved; afterwards the buffers of `state` may be donated.

        Raises:
          UnusableError: If it cannot be saved, or if the previous save failed.
        """
        needed = _OVERHEAD + sum(x.nbytes for x in jax.tree.leaves(state))
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes))
        with _errors_as(self._refused):
            free = shutil.disk_usage(self._folder.parent).free
            if free < needed:  # otherwise it would fail in the background, with a long message from Orbax
                raise OSError(errno.ENOSPC, f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")
            manager = self._opened()
            if step not in manager.all_steps():
                manager.save(step, args=args)

    def close(self) -> None:
        """Waits until all saves are complete.

        Raises:
          UnusableError: If a save failed.
        """
        manager, self._manager = self._manager, None
        with _errors_as(self._refused), self._quiet:
            if manager is not None:
                manager.close()

    def _opened(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._quiet.enter_context(quietly())
            in_background = ocp.AsyncOptions(post_finalization_callback=lambda: _write_digests(self._folder))
            # `run_folder.remove_unfinished` removes unfinished saves, which it finds by their exact names
            options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, async_options=in_background)
            self._manager = ocp.CheckpointManager(self._folder.resolve(), options=options)
        return self._manager

    def _refused(self, error: Exception) -> UnusableError:
        run = self._folder.parent
        return UnusableError(f"{run} cannot be saved: {reason_of(error)}. {go_on_hint(run)}")


def steps(folder: Path) -> list[int]:
    """Returns the steps that have a save, in order; the list is empty if the folder does not exist."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def notes_of(folder: Path, step: int) -> Any:
    """Returns the notes that were saved with a state.

    Raises:
      UnusableError: If the save is damaged, or was made by another version.
    """
    save = folder / str(step)
    with _errors_as(partial(_damaged, save)):
        digests.check(save, digests.read(save))
        return json_files.parsed(json_files.text_of(save / "notes" / "metadata"))


def restore_save(folder: Path, step: int, like: Any) -> Any:
    """Returns the state of a save, with the structure, shapes, dtypes and shardings of `like`.

    Raises:
      UnusableError: If the save is damaged, or holds the state of another network or method.
    """
    save = folder / str(step)
    with _errors_as(partial(_damaged, save)):
        return restore(save / "state", like)


def _damaged(save: Path, error: Exception) -> UnusableError:
    others = [step for step in steps(save.parent) if step != int(save.name)]
    remedy = f"remove it to continue from step {others[-1]}" if others else "remove it to start again"
    return UnusableError(f"{save} is damaged, or belongs to another network or version ({reason_of(error)}): {remedy}.")


def _write_digests(folder: Path) -> None:
    """Writes the digests into the save that is about to get its name; Orbax calls it after writing the other files."""
    if jax.process_index():
        return
    for save in (path for path in folder.iterdir() if not path.name.isdecimal() and path.is_dir()):
        # the pattern skips the files at the top of the folder, where Orbax writes timestamps
        digests.write(save, digests.compute(save, "*/**/*"))
