"""The output folder of a program, which is created and checked before any work is done."""

import os
import tempfile
from pathlib import Path

from experiments.training.atomic_write import write_whole
from experiments.training.exceptions import UnusableError, disk_errors_as_unusable
from experiments.training.run_folder import LOCK

_GLOB = "*?["
_BELOW = 250  # bytes of the longest path inside the folder of a run
_LONGEST = 4096  # the most bytes of a path, including the terminating null byte


def make_folder(output: Path) -> Path:
    """Creates the folder `output` if it does not exist, and returns it.

    Raises:
      UnusableError: If it cannot be created, read or written, or if no checkpoint could be saved in it.
    """
    try:
        _check_path(output)
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            return output
    except OSError as error:
        reason = _reason(output, error)
        raise UnusableError(f"output folder {output} cannot be used: {reason}. Choose another.") from error


def claim(output: Path) -> Path:
    """Creates the folder of a run if it does not exist, and returns it.

    Raises:
      ValueError: If it cannot be created, or is not empty.
    """
    names = sorted(path.name for path in make_folder(output).iterdir() if path.name != LOCK)
    if names:
        raise ValueError(f"output folder {output} holds {names[0]} already: choose another folder, or empty it.")
    return output


def write_document(path: Path, text: str) -> None:
    """Writes a file of results into an output folder; an existing file of that name is replaced.

    Raises:
      UnusableError: If it cannot be written.
    """
    with disk_errors_as_unusable(path.parent):
        write_whole(path, text)


def _check_path(output: Path) -> None:
    """Checks that Orbax and TensorStore can save checkpoints below a path, and find them again.

    Raises:
      UnusableError: If they cannot.
      OSError: If the path is not valid on this system.
    """
    path = os.path.realpath(output)
    if found := sorted({*_GLOB, "\\"} & set(path)):
        raise UnusableError(f"output folder {output} has {found[0]} in its path, which loses checkpoints: rename it.")
    is_utf8 = path == path.encode(errors="replace").decode()
    if not is_utf8 or "/gs:/" in f"{path}/":  # TensorStore reads it as a Google Cloud Storage bucket
        raise UnusableError(f"output folder {path!r} has a name with which checkpoints cannot be saved: rename it.")
    if len(os.fsencode(path)) + _BELOW > _LONGEST:
        raise UnusableError(f"output folder {path[:60]}... has a path that is too long for checkpoints: shorten it.")


def _reason(output: Path, error: OSError) -> str:
    """Returns why a folder cannot be used. A broken symbolic link exists already, so it cannot be created."""
    if not isinstance(error, FileExistsError):
        return str(error.strerror)
    try:
        output.stat()
    except FileNotFoundError:
        return "it is a broken symbolic link"
    except OSError as found:
        return str(found.strerror)
    return "it is a file"
