"""The folder of a run: the files that the program writes, their removal, and the lock for one process at a time.

The program recognises its files by their exact names. A file with another name, a symbolic link, and a folder with the
name of one of the program's files belong to the user: they are never removed and never followed.
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

_NEW = r"\.[a-z]+\.[a-z]+\.[0-9a-f]{8}\.new"  # as `atomic_write.replacing` names it
_UNFINISHED = r"\.orbax-checkpoint-tmp(-\d+)?"  # at the end of a name, while Orbax writes the folder
_SAVE = r"(checkpoint|checkpoints/\d+)"
_INSIDE = rf"/(state|notes|d|array_metadatas|ocdbt\.process_\d+)({_UNFINISHED})?"
_WRITTEN = (
    r"/(_\w+|metadata|manifest\.ocdbt|[0-9a-f]{32}|process_\d+|commit_success\.txt|digests\.json|.+\.__lock"
    rf"|{_NEW})"
)

_FOLDERS = re.compile(rf"checkpoints|tensorboard|{_SAVE}({_UNFINISHED})?({_INSIDE})*")
_FILES = re.compile(
    rf"\.lock|(config|result|targets)\.json|(metrics|sharpness)\.jsonl|{_NEW}"
    rf"|tensorboard/events\.out\.tfevents\..+|{_SAVE}({_UNFINISHED})?({_INSIDE})*{_WRITTEN}"
)
_TEMPORARY = re.compile(rf"{_NEW}|{_SAVE}{_UNFINISHED}")
_TO_BE_WRITTEN = re.compile(rf"result\.json|(metrics|sharpness)\.jsonl|checkpoints|{_SAVE}({_UNFINISHED})?(/.*)?")


class _Entry(NamedTuple):
    """A file, a folder or a link in the folder of a run or below it."""

    path: str
    is_folder: bool
    is_programs: bool


def user_files(run: Path) -> list[str]:
    """Returns the paths below the folder of a run that are not the program's, relative to that folder."""
    return [entry.path for entry in _entries(run) if not entry.is_programs]


def remove(run: Path, part: str) -> None:
    """Removes a file or a folder of a run, except what is not the program's; what cannot be removed stays."""
    for entry in list(_entries(run)):
        if entry.is_programs and (entry.path == part or entry.path.startswith(f"{part}/")):
            with suppress(OSError):  # the folder holds a user's file, or is not writable
                (os.rmdir if entry.is_folder else os.unlink)(run / entry.path)


def remove_unfinished(run: Path) -> None:
    """Removes the unfinished files of a program that was stopped, before a run is written into its folder.

    Raises:
      UnusableError: If something that is not the program's has the name of a file that will be written.
    """
    entries = list(_entries(run))
    if blocking := [entry.path for entry in entries if not entry.is_programs and _TO_BE_WRITTEN.fullmatch(entry.path)]:
        message = f"{run} holds {blocking[0]}, which does not belong to the run and has the name of one of its files"
        raise UnusableError(f"{message}: move it elsewhere.")
    for entry in entries:
        if _TEMPORARY.fullmatch(entry.path):
            remove(run, entry.path)


def is_temporary(name: str) -> bool:
    """Returns whether a name in the folder of a run is that of a file whose writing was interrupted."""
    return re.fullmatch(_NEW, name) is not None


def _entries(run: Path, below: str = "") -> Iterator[_Entry]:
    """Yields all entries of a folder, the content of a folder before the folder; foreign folders are not entered."""
    with os.scandir(run / below) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        path = f"{below}/{child.name}" if below else child.name
        is_folder = child.is_dir(follow_symlinks=False)
        is_file = child.is_file(follow_symlinks=False)
        is_programs = bool(_FOLDERS.fullmatch(path) if is_folder else is_file and _FILES.fullmatch(path))
        if is_folder and is_programs:
            yield from _entries(run, path)
        yield _Entry(path, is_folder, is_programs)


LOCK = ".lock"
"""The lock file of a folder; it stays if the run was not completed."""

_HELD = (errno.EAGAIN, errno.EACCES)
_UNIX_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # Windows does not have them
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | _UNIX_FLAGS  # network file systems lock only writable files


@contextmanager
def hold_run_lock(folder: Path) -> Iterator[None]:
    """Locks a folder until the block or the process ends, even by a crash; within the block it may be renamed.

    Without `fcntl`, as on Windows, nothing is locked. Some network file systems do not lock between machines.

    Raises:
      UnusableError: If another process holds the lock, if the folder is not writable, or if it holds a user's file with
        the name of the lock.
    """
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:
        yield
        return
    with _opened(folder, folder, os.O_RDONLY) as directory, _opened(folder, LOCK, _LOCK_FLAGS, directory) as lock:
        found = os.fstat(lock)
        if not stat.S_ISREG(found.st_mode) or found.st_size:  # the lock is an empty file; any other file is the user's
            raise _foreign(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise UnusableError(f"another process uses {folder}: wait for it, or choose another folder.") from error
        yield
        # A process that has opened the removed file, and one that creates a new file, both find a run that is complete.
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
