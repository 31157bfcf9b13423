"""Writes a prepared data set as NumPy arrays, which a machine without TensorFlow reads in place of TFDS's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from experiments import data
from experiments.data.npz_file import ARRAYS, read_arrays
from experiments.data.prepared_arrays import part_number
from experiments.training.atomic_write import creating, replacing

_MOVE = "move it elsewhere, or choose another data_dir."


def write_npz(path: Path, dataset: data.Dataset) -> None:
    """Writes the images and labels, in the order of the data set. A file that already holds them is kept.

    Args:
      path: the file.
      dataset: a data set in memory.

    Raises:
      ValueError: If the file cannot be written, or if there is another file with its name.
    """
    arrays = _arrays(dataset)
    if path.exists() or path.is_symlink():
        _check_same(path, arrays)
        return
    with _written(path), replacing(path) as new, new.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _arrays(dataset: data.Dataset) -> dict[str, np.ndarray]:
    """Returns the four arrays of a data set in memory, by name."""
    parts = {"train": dataset.train, "test": dataset.test}
    splits = {part: split for part, split in parts.items() if isinstance(split, data.Split)}
    arrays = {f"x_{part}": split.images for part, split in splits.items()}
    return arrays | {f"y_{part}": split.labels for part, split in splits.items()}


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{path} cannot be written ({error.strerror})"
        raise ValueError(f"{reason}: free space, or choose another data_dir.") from error


def _check_same(path: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        found = read_arrays(path)
    except ValueError as error:
        raise ValueError(f"{path} is not the NumPy file of this data set, and is not replaced: {_MOVE}") from error
    for name, array in arrays.items():
        if not _equal(found[name], array):
            raise ValueError(f"{path} holds other images or labels ({name}), and is not replaced: {_MOVE}")


def _equal(array: np.ndarray, other: np.ndarray) -> bool:
    return array.dtype == other.dtype and np.array_equal(array, other)


_MIB = 2**20
_HEADER = 4096  # bytes of a file that are not data; NumPy writes 128


def write_parts(folder: Path, dataset: data.Dataset, part_size: int) -> None:
    """Writes the images and labels as a folder of NumPy files. A folder that already holds the same files is kept.

    An array that is larger than a file may be is divided along its first axis. Other files in an existing folder are
    ignored.

    Args:
      folder: the folder.
      dataset: a data set in memory.
      part_size: the largest size of a file in MiB.

    Raises:
      ValueError: If the folder cannot be written, or if other arrays are in it.
    """
    files = {}
    for name, array in _arrays(dataset).items():
        files |= _divided(name, array, part_size * _MIB - _HEADER)
    if folder.exists() or folder.is_symlink():
        _check_same_files(folder, files)
        return
    with _written(folder), creating(folder) as new:
        for name, array in files.items():
            np.save(new / name, array, allow_pickle=False)


def _divided(name: str, array: np.ndarray, most: int) -> dict[str, np.ndarray]:
    """Returns the parts of an array by the name of their file. Each has at most `most` bytes."""
    if array.nbytes <= most:
        return {f"{name}.npy": array}
    rows = max(1, most // array[0].nbytes)
    return {f"{name}-{i}.npy": array[start : start + rows] for i, start in enumerate(range(0, len(array), rows))}


def _check_same_files(folder: Path, files: dict[str, np.ndarray]) -> None:
    """Refuses a folder with another set of arrays, with other content, or with parts of other sizes."""
    if not folder.is_dir() or {path.name for path in folder.iterdir() if _is_array(path.name)} != files.keys():
        other = f"{folder} does not hold the NumPy files of this data set with this part_size"
        raise ValueError(f"{other}, and is not replaced: {_MOVE}")
    for name, array in files.items():
        try:
            same = _equal(np.load(folder / name, allow_pickle=False), array)
        except (OSError, ValueError, EOFError):
            same = False
        if not same:
            raise ValueError(f"{folder / name} holds other images or labels, and is not replaced: {_MOVE}")


def _is_array(file_name: str) -> bool:
    """Returns whether a file name is that of an array or of a part of one."""
    return any(file_name == f"{name}.npy" or part_number(file_name, name) is not None for name in ARRAYS)
