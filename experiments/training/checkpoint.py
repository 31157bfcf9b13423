"""The trained state on disk, by Orbax."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp


def save(path: Path, state: Any) -> None:
    """Write `state`, any pytree of arrays, into the new folder `path`; it is complete on return."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.resolve(), state)


def restore(path: Path, like: Any) -> Any:
    """Read the state that `save` wrote, with the structure, shapes and dtypes of `like`."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.resolve(), like)
