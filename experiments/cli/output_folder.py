"""The folder that a program writes into: made and tried before any work is done."""

import os
import tempfile
from pathlib import Path

from experiments.training.atomic_write import write_whole
from experiments.training.exceptions import UnusableError, disk_errors_as_unusable
from experiments.training.own_files import LOCK

_GLOB = "*?["
_BELOW = 250  # bytes that the longest path below the folder of a run needs
_LONGEST = 4096  # bytes of a path, the end included


def make_folder(output: Path) -> Path:
    """The folder `output`, made where it is not there.

    Raises:
      UnusableError: If it cannot be made, read or written, or if a trained state could not be saved in it.
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
    """The folder of a run, made where it is not there.

    Raises:
      ValueError: If it cannot be made, or holds something already.
    """
    names = sorted(path.name for path in make_folder(output).iterdir() if path.name != LOCK)
    if names:
        raise ValueError(f"output folder {output} holds {names[0]} already: choose another folder, or empty it.")
    return output


def write_document(path: Path, text: str) -> None:
    """Write a file of results into an output folder; an older one of its name is replaced.

    Raises:
      UnusableError: If it cannot be written.
    """
    with disk_errors_as_unusable(path.parent):
        write_whole(path, text)


def _check_path(output: Path) -> None:
    """Refuse paths in which Orbax and TensorStore lose checkpoints, or refuse to write them.

    Raises:
      UnusableError: If the path is one of them.
      OSError: If the system knows no such path.
    """
    path = os.path.realpath(output)
    if found := sorted({*_GLOB, "\\"} & set(path)):
        raise UnusableError(f"output folder {output} has {found[0]} in its path, which loses checkpoints: rename it.")
    is_utf8 = path == path.encode(errors="replace").decode()
    if not is_utf8 or "/gs:/" in f"{path}/":  # which is read as a bucket of Google's
        raise UnusableError(f"output folder {path!r} has a name with which checkpoints cannot be saved: rename it.")
    if len(os.fsencode(path)) + _BELOW > _LONGEST:
        raise UnusableError(f"output folder {path[:60]}... has a path that is too long for checkpoints: shorten it.")


def _reason(output: Path, error: OSError) -> str:
    """Why a folder cannot be used; a link to nothing is there already, and cannot be made."""
    if not isinstance(error, FileExistsError):
        return str(error.strerror)
    try:
        output.stat()
    except FileNotFoundError:
        return "it is a symbolic link to nothing"
    except OSError as found:
        return str(found.strerror)
    return "it is a file"
