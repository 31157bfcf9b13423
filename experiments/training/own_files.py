"""The folder of a run: the files that the program writes, their removal, and the lock for one process at a time.

The program knows its files by their exact names. Whatever has another name, is a symbolic link, or is a folder where
the program has a file, belongs to the user: it is never removed, and never followed.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from experiments.training.exceptions import UnusableError, go_on_hint, reason_of

_NEW = r"\.[a-z]+\.[a-z]+\.[0-9a-f]{8}\.new"  # as `whole_file` has it
_UNFINISHED = r"\.orbax-checkpoint-tmp(-\d+)?"  # at the end of a name, while Orbax writes the folder
_SAVE = r"(checkpoint|checkpoints/\d+)"
_INSIDE = rf"/(state|notes|d|array_metadatas|ocdbt\.process_\d+)({_UNFINISHED})?"
_WRITTEN = (
    r"/(_\w+|metadata|manifest\.ocdbt|[0-9a-f]{32}|process_\d+|commit_success\.txt|digests\.json|.+\.__lock"
    rf"|{_NEW})"
)

_FOLDERS = re.compile(rf"checkpoints|tensorboard|{_SAVE}({_UNFINISHED})?({_INSIDE})*")
_FILES = re.compile(
    rf"\.lock|(config|result)\.json|(metrics|sharpness)\.jsonl|{_NEW}"
    rf"|tensorboard/events\.out\.tfevents\..+|{_SAVE}({_UNFINISHED})?({_INSIDE})*{_WRITTEN}"
)
_TEMPORARY = re.compile(rf"{_NEW}|{_SAVE}{_UNFINISHED}")
_TO_BE_WRITTEN = re.compile(rf"result\.json|(metrics|sharpness)\.jsonl|checkpoints|{_SAVE}({_UNFINISHED})?(/.*)?")


class _Entry(NamedTuple):
    """A file, a folder or a link below the folder of a run."""

    path: str
    is_folder: bool
    is_own: bool


def foreign(run: Path) -> list[str]:
    """The paths below the folder of a run that are not the program's, relative to it."""
    return [entry.path for entry in _entries(run) if not entry.is_own]


def remove(run: Path, part: str) -> None:
    """Remove a file or a folder of a run, as far as it is the program's; what cannot be removed stays."""
    for entry in list(_entries(run)):
        if entry.is_own and (entry.path == part or entry.path.startswith(f"{part}/")):
            with suppress(OSError):  # a folder holds what is not the program's, or nothing can be removed there
                (os.rmdir if entry.is_folder else os.unlink)(run / entry.path)


def make_room(run: Path) -> None:
    """Remove what a program that was stopped has left half written, before a run is written into its folder.

    Raises:
      UnusableError: If something that is not the program's has the place of a file that will be written.
    """
    entries = list(_entries(run))
    if blocking := [entry.path for entry in entries if not entry.is_own and _TO_BE_WRITTEN.fullmatch(entry.path)]:
        said = f"{run} holds {blocking[0]}, which is not of the run and has the place of one of its files"
        raise UnusableError(f"{said}: move it elsewhere.")
    for entry in entries:
        if _TEMPORARY.fullmatch(entry.path):
            remove(run, entry.path)


def is_temporary(name: str) -> bool:
    """Whether a name in the folder of a run is that of a file whose writing was cut short."""
    return re.fullmatch(_NEW, name) is not None


def _entries(run: Path, below: str = "") -> Iterator[_Entry]:
    """All that is in a folder, the content of a folder before the folder; that of foreign folders is not looked at."""
    with os.scandir(run / below) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        path = f"{below}/{child.name}" if below else child.name
        is_folder = child.is_dir(follow_symlinks=False)
        is_file = child.is_file(follow_symlinks=False)
        is_own = bool(_FOLDERS.fullmatch(path) if is_folder else is_file and _FILES.fullmatch(path))
        if is_folder and is_own:
            yield from _entries(run, path)
        yield _Entry(path, is_folder, is_own)


LOCK = ".lock"
"""The file by which a folder is held; it stays where a run was not completed."""

_HELD = (errno.EAGAIN, errno.EACCES)
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # network file systems lock what can be written


@contextmanager
def hold_run_lock(folder: Path) -> Iterator[None]:
    """Hold a folder, until the block or the process ends, however it ends; within the block it may be renamed.

    Some file systems know no locks, or none between machines, and Windows has other ones: there nothing is held.

    Raises:
      UnusableError: If another process holds it, if nothing can be written there, or if the user has a file of the name
        of the lock there.
    """
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:
        yield
        return
    with _opened(folder, folder, os.O_RDONLY) as directory, _opened(folder, LOCK, _LOCK_FLAGS, directory) as lock:
        found = os.fstat(lock)
        if not stat.S_ISREG(found.st_mode) or found.st_size:  # the lock is an empty file: another one is the user's
            raise _foreign(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise UnusableError(f"another process works in {folder}: wait for it, or choose another.") from error
        yield
        # who waits with the file that is gone, and who makes a new one, both find a run that is complete
        with suppress(OSError):
            if os.path.samestat(os.fstat(lock), os.stat(LOCK, dir_fd=directory, follow_symlinks=False)):
                os.unlink(LOCK, dir_fd=directory)


def _foreign(folder: Path) -> UnusableError:
    return UnusableError(f"{folder} holds a file {LOCK} that is not this program's: move it elsewhere.")


@contextmanager
def _opened(folder: Path, path: Path | str, flags: int, within: int | None = None) -> Iterator[int]:
    try:
        handle = os.open(path, flags, 0o666, dir_fd=within)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _foreign(folder) from error
        raise UnusableError(f"{folder} cannot be written: {reason_of(error)}. {go_on_hint(folder)}") from error
    try:
        yield handle
    finally:
        os.close(handle)
