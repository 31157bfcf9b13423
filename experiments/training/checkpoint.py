"""The trained state on disk, by Orbax."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from experiments.training.endings import UnusableError, reason_of
from sam_optax.method_states import StepDiagnostics


@contextmanager
def quietly() -> Iterator[None]:
    """Without Orbax's own messages: a failure in its threads is raised once, by the call that waits for it."""
    log, loop, hook = logging.getLogger("absl"), logging.getLogger("asyncio"), sys.unraisablehook
    log.addFilter(_is_not_of_orbax)
    loop.addFilter(_is_no_lost_task)
    sys.unraisablehook = lambda failed: None if "Event loop is closed" in str(failed.exc_value) else hook(failed)
    try:
        yield
    finally:
        log.removeFilter(_is_not_of_orbax)
        loop.removeFilter(_is_no_lost_task)
        sys.unraisablehook = hook


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def _is_no_lost_task(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


def save(path: Path, state: Any) -> None:
    """Write `state`, any pytree of arrays, into the new folder `path`; it is complete on return.

    Raises:
      UnusableError: If it cannot be written.
    """
    try:
        with quietly(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.resolve(), state)
    except Exception as error:  # whatever Orbax and TensorStore make of it
        raise UnusableError(f"{path} cannot be written: {reason_of(error)}. Make room, or choose another.") from error


def restore(path: Path, like: Any) -> Any:
    """Read the state that `save` wrote, with the structure, shapes and dtypes of `like`.

    A state that an earlier version wrote, with fewer fields in its diagnostics, is read, too.
    """
    path = path.resolve()
    with quietly(), ocp.StandardCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(path, like)
        except ValueError:
            earlier = _with_the_fields_of(_saved_paths(checkpointer, path), like)
            if jax.tree.structure(earlier) == jax.tree.structure(_with_the_fields_of(None, like)):
                raise
            found = checkpointer.restore(path, earlier)
    return jax.tree.map(
        lambda x, y: _completed(y, x) if _is_diagnostics(x) else y, like, found, is_leaf=_is_diagnostics
    )


def _saved_paths(checkpointer: ocp.StandardCheckpointer, path: Path) -> set[str]:
    """The paths of all arrays in a saved state."""
    found: Any = checkpointer.metadata(path)
    found = getattr(found, "item_metadata", found)
    return {_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(getattr(found, "tree", found))}


def _with_the_fields_of(saved: set[str] | None, like: Any) -> Any:
    """`like` with its diagnostics as dictionaries of those fields that were saved; None: of all."""

    def fields(path: Any, node: Any) -> Any:
        if not _is_diagnostics(node):
            return node
        return {name: x for name, x in node._asdict().items() if saved is None or f"{_text(path)}/{name}" in saved}

    return jax.tree_util.tree_map_with_path(fields, like, is_leaf=_is_diagnostics)


def _completed(found: dict[str, Any], like: StepDiagnostics) -> StepDiagnostics:
    """The diagnostics from the fields that were saved; what was not saved was not measured.

    The first layout had four numbers and no flag. NaN meant that nothing was measured.
    """
    missing = {name: jnp.zeros_like(x) for name, x in like._asdict().items() if name not in found}
    if "measured" not in found:
        measured = ~jnp.isnan(found["grad_norm"])
        found = {name: jnp.where(measured, x, 0) for name, x in found.items()} | {"measured": measured}
    return StepDiagnostics(**(missing | found))


def _text(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_diagnostics(node: Any) -> bool:
    return isinstance(node, StepDiagnostics)
