"""SHA-256 sums of the files of a saved state: compressed numbers with a flipped bit are other numbers."""

import hashlib
import json
from pathlib import Path
from typing import Any

from experiments.training import records
from experiments.training.whole_file import write_whole

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
    found = records.parsed(records.text_of(folder / DIGESTS))
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
    with records.regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
