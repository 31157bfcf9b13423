"""The trained state on disk, by Orbax."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from experiments.training.endings import UnusableError, reason_of


@contextmanager
def quietly() -> Iterator[None]:
    """While Orbax works: what fails in its threads is told once, by who waits for it, not in their words too."""
    log, hook = logging.getLogger("absl"), sys.unraisablehook
    log.addFilter(_is_not_of_orbax)
    sys.unraisablehook = lambda failed: None if "Event loop is closed" in str(failed.exc_value) else hook(failed)
    try:
        yield
    finally:
        log.removeFilter(_is_not_of_orbax)
        sys.unraisablehook = hook


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


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
    """Read the state that `save` wrote, with the structure, shapes and dtypes of `like`."""
    with quietly(), ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.resolve(), like)
