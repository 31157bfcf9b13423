"""Files and folders that are written whole or not at all. A file is never written through a symbolic link."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.training.exceptions import UnusableError


def write_whole(path: Path, text: str) -> None:
    """Writes or replaces a file atomically: at any moment the file on disk is the old one or the new one.

    Raises:
      UnusableError: If `path` is a symbolic link.
    """
    with replacing(path) as new, new.open("r+b") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a new, empty file that replaces `path` when the block completes.

    Its name is unique.

    Raises:
      UnusableError: If `path` is a symbolic link.
    """
    refuse_link(path)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield new
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


@contextmanager
def creating(folder: Path) -> Iterator[Path]:
    """Yields a new, empty folder that gets the name `folder` when the block completes.

    Its first name is unique.

    Raises:
      UnusableError: If `folder` is a symbolic link.
      OSError: If `folder` exists and is not empty.
    """
    refuse_link(folder)
    new = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    new.mkdir()
    try:
        yield new
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def refuse_link(path: Path) -> None:
    """Refuses to write through a symbolic link.

    Raises:
      UnusableError: If `path` is a symbolic link.
    """
    if path.is_symlink():
        raise UnusableError(f"{path} is a symbolic link, and files are not written through links: remove it.")
