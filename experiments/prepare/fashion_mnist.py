"""Prepares Fashion-MNIST from Debian's package dataset-fashion-mnist.

Debian's archives differ from the published ones only in their gzip headers: Debian's tools removed the file name and
replaced the time. Restoring both gives the checksums that TFDS expects.
"""

import hashlib
from collections.abc import Mapping
from itertools import product
from pathlib import Path

from etils import epy

from experiments import data
from experiments.data.catalogue import load_prepared
from experiments.training.atomic_write import replacing

with epy.lazy_imports():  # it imports TensorFlow, which takes seconds, and no help text needs it
    from experiments.data import preparation

PACKAGE = Path("/usr/share/datasets/fashion-mnist")
"""The folder of the package."""

_NAME = "fashion_mnist"
_MODIFIED = {"train": 1504176606, "t10k": 1504176627}  # the times in the published headers, in seconds since 1970
_HAS_NAME = 8  # a flag of RFC 1952


def prepare_fashion_mnist(source: Path, location: data.Location) -> None:
    """Prepares the data set for TFDS.

    Args:
      source: the package's folder with the four archives.
      location: the folders of prepared data and of archives.

    Raises:
      ValueError: If an archive is missing or wrong, or if the data cannot be prepared.
    """
    copy_archives(source, preparation.manual_folder(_NAME, location), preparation.published_sums(_NAME, location))
    load_prepared(_NAME, location, only_tfds=True)


def copy_archives(source: Path, target: Path, sums: Mapping[str, str]) -> None:
    """Copies the four archives from the package's folder, and restores the published headers.

    A published archive that is already in `target` is kept.

    Args:
      source: the folder of the package.
      target: the folder for the archives of this data set.
      sums: the SHA-256 sums of the published archives, by name.

    Raises:
      ValueError: If an archive is missing, is not that of the package, or cannot be written, or if `target` has another
        file with the name of an archive.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        for (part, modified), kind in product(_MODIFIED.items(), ("images-idx3", "labels-idx1")):
            archive = f"{part}-{kind}-ubyte.gz"
            _copy(source / archive, target / archive, modified, sums[archive])
    except OSError as error:
        package = "the folder of the package dataset-fashion-mnist"
        remedy = f"Give {package} with --source, and a writable folder with --manual-dir."
        raise ValueError(f"{error.filename}: {error.strerror}. {remedy}") from error


def _copy(source: Path, target: Path, modified: int, checksum: str) -> None:
    if target.exists() or target.is_symlink():
        if not target.is_file() or hashlib.sha256(target.read_bytes()).hexdigest() != checksum:
            remedy = "move it elsewhere, or give another folder with --manual-dir."
            raise ValueError(f"{target} is not the published archive, and is not replaced: {remedy}")
        return
    content = with_header(source.read_bytes(), source.stem, modified)
    if hashlib.sha256(content).hexdigest() != checksum:
        raise ValueError(f"{source} is not the archive of Debian's package: download the package again.")
    with replacing(target) as new:
        new.write_bytes(content)


def with_header(archive: bytes, name: str, modified: int) -> bytes:
    """Returns a gzip file with `name` and the time `modified`, in seconds since 1970, written into its header.

    Raises:
      ValueError: If `archive` is not a gzip file, or if its header has a name or other optional fields.
    """
    start, flags, rest = archive[:3], archive[3:4], archive[8:]
    if start != b"\x1f\x8b\x08" or flags != b"\0":
        raise ValueError(f"{name}.gz is not the gzip file of Debian's package: download the package again.")
    return start + bytes([_HAS_NAME]) + modified.to_bytes(4, "little") + rest[:2] + name.encode() + b"\0" + rest[2:]
