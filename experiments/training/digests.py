"""SHA-256 digests of saved states.

They detect a flipped bit in a compressed array, which would otherwise be read as different numbers without an error.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from experiments.training import json_files
from experiments.training.atomic_write import write_whole

DIGESTS = "digests.json"
"""The name of the file of digests."""


def compute(folder: Path, pattern: str = "**/*") -> dict[str, str]:
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
