"""The trained state of a finished run: sealed with checksums and the run's config, and checked where it is read."""

import json
from pathlib import Path
from typing import Any

from experiments.config import Config
from experiments.runner.resume import check_same
from experiments.training import atomic_write, checkpoint
from experiments.training.exceptions import UnusableError, printable, reason_of

CHECKPOINT = "checkpoint"
"""The folder of the trained state in that of a run."""


def seal(output: Path) -> None:
    """Write checksums and the config into the trained state, which is complete.

    Args:
      output: the folder of the run.
    """
    folder = output / CHECKPOINT
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    atomic_write.write(folder, {"config": config, "files": atomic_write.of(folder)})


def restored(output: Path, config: Config, like: Any) -> Any:
    """The trained state of a finished run.

    Args:
      output: the folder of the run.
      config: what was run.
      like: a state of the same structure, shapes, dtypes and places.

    Raises:
      UnusableError: If the state is damaged, or that of another run. A state without checksums is read as it is.
    """
    check(output, config)
    try:
        return checkpoint.restore(output / CHECKPOINT, like)
    except Exception as error:  # whatever Orbax and TensorStore make of it
        raise _unreadable(output, reason_of(error)) from error


def check(output: Path, config: Config) -> None:
    """Refuse a trained state that was changed since it was saved, or that is of another run.

    Raises:
      UnusableError: If it was; a state without checksums passes.
    """
    if unchecked(output) is not None:
        return
    folder = output / CHECKPOINT
    try:
        sealed = atomic_write.read(folder)
        atomic_write.check(folder, sealed.get("files"))
        found = Config.of(sealed.get("config"))
    except (OSError, ValueError) as error:
        raise _unreadable(output, reason_of(error)) from error
    check_same(found, config, folder)


def unchecked(output: Path) -> str | None:
    """A sentence where a trained state has no checksums, as earlier versions saved it; None where it has them."""
    if (output / CHECKPOINT / atomic_write.DIGESTS).exists() or not (output / CHECKPOINT).exists():
        return None
    return printable(
        f"{output} was made before trained states had checksums: that its state is whole, and of this run, cannot be "
        "checked."
    )


def _unreadable(output: Path, reason: str) -> UnusableError:
    return UnusableError(printable(f"{output} has no trained state that can be read ({reason}): run it again."))
