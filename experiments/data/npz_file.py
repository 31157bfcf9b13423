"""Reads images of one's own from a NumPy file with the arrays `x_train`, `y_train`, `x_test` and `y_test`.

The images are uint8, `(examples, height, width)` or `(examples, height, width, channels)`. The labels are integers that
number the classes from 0, `(examples,)`.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from experiments.data.dataset import Split

PARTS = ("train", "test")
ARRAYS = tuple(f"{kind}_{part}" for part in PARTS for kind in "xy")
_MOST_CHANNELS = 4
_REMEDY = f"write it with np.savez, with the arrays {', '.join(ARRAYS[:-1])} and {ARRAYS[-1]}."
# A RuntimeError means that the file is encrypted or its compression unsupported, a MemoryError that a shape is absurd.
UNREADABLE = (EOFError, MemoryError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


def read_npz(path: Path) -> dict[str, Split]:
    """Reads the training and the test images.

    Args:
      path: the file.

    Returns:
      The parts `train` and `test`. Their arrays are read-only.

    Raises:
      ValueError: If the file cannot be read, or if an array is missing or has a wrong shape, dtype or value.
    """
    arrays = read_arrays(path)
    parts = {part: _split(arrays[f"x_{part}"], arrays[f"y_{part}"], part, path) for part in PARTS}
    train, test = parts["train"], parts["test"]
    if test.image_shape != train.image_shape:
        shapes = f"x_test in {path} has images of shape {test.image_shape}, and x_train of shape {train.image_shape}"
        raise ValueError(f"{shapes}: give images of one shape.")
    _check_labels(train.labels, test.labels, path)
    return parts


def read_arrays(path: Path, remedy: str = _REMEDY) -> dict[str, np.ndarray]:
    """Reads the four arrays without checking them.

    Args:
      path: the file.
      remedy: what to do if this fails, for the error message.

    Raises:
      ValueError: If the file cannot be read, or if an array is missing.
    """
    with _opened(path, remedy) as file:
        return {name: file[name] for name in ARRAYS}


def count_npz(path: Path) -> int:
    """Returns the number of training examples in the file, without reading its images.

    Raises:
      ValueError: If the file cannot be read, or has no training labels.
    """
    with _opened(path) as file:
        labels = file["y_train"]
    _check_label_array(labels, "y_train", path)
    return len(labels)


def digest_npz(path: Path) -> str:
    """Returns a digest of the arrays in the file, from their checksums in its directory, without reading them.

    Raises:
      ValueError: If the file cannot be read.
    """
    with _opened(path), zipfile.ZipFile(path) as archive:
        members = sorted((each.filename, each.CRC, each.file_size) for each in archive.infolist())
    return hashlib.sha256(repr(members).encode()).hexdigest()


@contextmanager
def _opened(path: Path, remedy: str = _REMEDY) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens the file, and names it in the error if reading fails."""
    try:
        with path.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise ValueError("it is not an npz file, or it is truncated")
            stream.seek(0)
            file: np.lib.npyio.NpzFile = np.load(stream, allow_pickle=False)
            if missing := [name for name in ARRAYS if name not in file.files]:
                raise ValueError(f"it has no array {missing[0]!r}")
            yield file
    except UNREADABLE as error:
        raise ValueError(f"the NumPy file {path} cannot be used ({first_line_of(error)}): {remedy}") from error


def first_line_of(error: Exception) -> str:
    """Returns the first line of an error's message; for an error of the system, the system's own message."""
    message = (isinstance(error, OSError) and error.strerror) or str(error).partition("\n")[0].rstrip(".")
    return message or type(error).__name__


def _split(images: np.ndarray, labels: np.ndarray, part: str, path: Path) -> Split:
    name = f"x_{part} in {path}"
    if images.dtype != np.uint8:
        raise ValueError(f"{name} has dtype {images.dtype}: give uint8 images, with values from 0 to 255.")
    if images.ndim not in (3, 4) or 0 in images.shape:
        needed = "(examples, height, width) or (examples, height, width, channels), without empty axes"
        raise ValueError(f"{name} has shape {images.shape}: give {needed}.")
    images = images if images.ndim == 4 else images[..., None]
    if images.shape[-1] > _MOST_CHANNELS:
        raise ValueError(
            f"{name} has shape {images.shape}, with {images.shape[-1]} channels on the last axis: "
            f"give at most {_MOST_CHANNELS} channels, on the last axis."
        )
    _check_label_array(labels, f"y_{part}", path)
    if len(labels) != len(images):
        both = f"y_{part} in {path} has {len(labels)} labels, and x_{part} has {len(images)} images"
        raise ValueError(f"{both}: give one label for each image.")
    return frozen(images, labels)


def frozen(images: np.ndarray, labels: np.ndarray) -> Split:
    """Returns the examples in read-only arrays, with labels in int32."""
    images, labels = np.ascontiguousarray(images), labels.astype(np.int32)
    for array in (images, labels):
        array.flags.writeable = False
    return Split(images, labels)


def _check_label_array(labels: np.ndarray, name: str, path: Path) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} in {path} has dtype {labels.dtype}: give integers, the numbers of the classes.")
    if labels.ndim != 1:
        raise ValueError(f"{name} in {path} has shape {labels.shape}: give shape (examples,), one label per image.")
    if labels.size and not 0 <= labels.min() <= labels.max() < 2**31:
        outside = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"{name} in {path} has the label {outside}: number the classes from 0.")


def _check_labels(train: np.ndarray, test: np.ndarray, path: Path) -> None:
    """Refuses labels that do not number the classes of the training images from 0 without gaps."""
    found = np.unique(train)
    if found[-1] != len(found) - 1:
        absent = int(np.argmax(found != np.arange(len(found))))
        labels = f"y_train in {path} has the label {found[-1]}, and not the label {absent}"
        raise ValueError(f"{labels}: number the classes from 0 without gaps.")
    if len(found) == 1:
        raise ValueError(f"y_train in {path} has the label 0 only: give images of at least two classes.")
    if test.max() >= len(found):
        labels = f"y_test in {path} has the label {test.max()}, and y_train has labels up to {found[-1]}"
        raise ValueError(f"{labels}: give training images of every class.")
