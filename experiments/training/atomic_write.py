"""Files and folders that are written whole or not at all, and SHA-256 digests of saved states.

A file is never written through a symbolic link. The digests detect a flipped bit in a compressed array, which would
otherwise be read as different numbers without an error.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.training import json_files
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


DIGESTS = "digests.json"


def of(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    """Returns the SHA-256 of each file below `folder` whose path matches `pattern`, except the file of digests."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file() and path != folder / DIGESTS)
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def write(folder: Path, digests: Any) -> None:
    """Writes the digests atomically."""
    write_whole(folder / DIGESTS, json.dumps(digests))


def read(folder: Path) -> dict[str, Any]:
    """Reads the digests that `write` wrote.

    Raises:
      OSError, ValueError: If the file cannot be read, or is not a JSON object.
    """
    found = json_files.parsed(json_files.text_of(folder / DIGESTS))
    if not isinstance(found, dict):
        raise ValueError(f"{DIGESTS} is not a JSON object")
    return found


def check(folder: Path, digests: Any) -> None:
    """Compares the files with their digests.

    Raises:
      OSError, ValueError: If a file is missing or was changed, or if there are no digests.
    """
    if not isinstance(digests, dict) or not digests:
        raise ValueError(f"{DIGESTS} is empty")
    for name, digest in digests.items():
        if _digest(folder / name) != digest:
            raise ValueError(f"{name} was changed")


def _digest(path: Path) -> str:
    with json_files.regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
