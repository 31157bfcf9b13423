"""Files that are there whole, or not at all, and that are never written through a symbolic link."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from experiments.training.endings import UnusableError


def write_whole(path: Path, text: str) -> None:
    """Write a file, or replace it: a program that is stopped at any moment leaves the old one or the new one.

    Raises:
      UnusableError: If `path` is a symbolic link.
    """
    with replacing(path) as new, new.open("r+b") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new, empty file that takes the place of `path` when the block is complete.

    Its name is one that no other file has.

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


def refuse_link(path: Path) -> None:
    """Refuse to write where a symbolic link leads.

    Raises:
      UnusableError: If `path` is one.
    """
    if path.is_symlink():
        raise UnusableError(f"{path} is a symbolic link, through which nothing is written: remove it.")
