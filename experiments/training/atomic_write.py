"""Files that are written whole or not at all, and SHA-256 digests of saved states.

A file is never written through a symbolic link. The digests are needed since compressed numbers with a flipped bit are
other numbers.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from experiments.training import json_files
from experiments.training.exceptions import UnusableError


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


DIGESTS = "digests.json"


def of(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    """The sum of each file below `folder` whose path matches, the file of the sums left out."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file() and path != folder / DIGESTS)
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def write(folder: Path, digests: Any) -> None:
    """Write the sums, whole or not at all."""
    write_whole(folder / DIGESTS, json.dumps(digests))


def read(folder: Path) -> dict[str, Any]:
    """What `write` wrote.

    Raises:
      OSError, ValueError: If it cannot be read, or is no object of JSON.
    """
    found = json_files.parsed(json_files.text_of(folder / DIGESTS))
    if not isinstance(found, dict):
        raise ValueError(f"{DIGESTS} is no JSON object")
    return found


def check(folder: Path, digests: Any) -> None:
    """Compare the files with their sums.

    Raises:
      OSError, ValueError: If one is missing or was changed, or if there are no sums.
    """
    if not isinstance(digests, dict) or not digests:
        raise ValueError(f"{DIGESTS} is empty")
    for name, digest in digests.items():
        if _digest(folder / name) != digest:
            raise ValueError(f"{name} was changed")


def _digest(path: Path) -> str:
    with json_files.regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
