"""Reads a prepared data set from NumPy arrays. This needs no TensorFlow.

The arrays are `x_train`, `y_train`, `x_test` and `y_test`, with the examples in the order in which TensorFlow Datasets
(TFDS) stores them. They are in the file `NAME.npz`, or in the folder `NAME_arrays` with one file per array, such as
`y_train.npy`. A large array may be divided along its first axis into `x_train-0.npy`, `x_train-1.npy` and so on.
`python -m experiments.prepare` writes both forms.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.dataset import Size, Split
from experiments.data.npz_file import ARRAYS, PARTS, UNREADABLE, first_line_of, frozen, read_arrays


class _Piece(NamedTuple):
    """An array, or a part of one.

    Attributes:
      label: the words for it in error messages.
      array: the array.
    """

    label: str
    array: np.ndarray


def npz_path(folder: Path, name: str) -> Path:
    """Returns the path of the file with the arrays of the data set `name`."""
    return folder / f"{name}.npz"


def array_folder(folder: Path, name: str) -> Path:
    """Returns the path of the folder with the arrays of the data set `name`."""
    return folder / f"{name}_arrays"


def part_number(file_name: str, array_name: str) -> int | None:
    """Returns the number of the part in a file name such as `x_train-0.npy`, and None for other names."""
    found = re.fullmatch(rf"{array_name}-(0|[1-9][0-9]*)\.npy", file_name)
    return int(found[1]) if found else None


def read_prepared_arrays(folder: Path, name: str, size: Size) -> dict[str, Split] | None:
    """Reads the training and the test examples of a data set from its file or its folder of arrays.

    If both exist, the file is read.

    Args:
      folder: the folder of prepared data.
      name: the name of the data set.
      size: the size of the data set.

    Returns:
      The parts `train` and `test`, in read-only arrays; None if neither the file nor the folder exists.

    Raises:
      ValueError: If the arrays cannot be read, or are not those of a data set of this size.
    """
    path, parts = npz_path(folder, name), array_folder(folder, name)
    source = next(filter(os.path.exists, (path, parts)), None)  # Path.exists raises an error without permission
    if source is None:
        return None
    if source == path:
        pieces = {each: [_Piece(f"{each} in {path}", array)] for each, array in read_arrays(path, _REMEDY).items()}
    else:
        pieces = {each: list(_read_pieces(parts, each)) for each in ARRAYS}
    splits = {part: _split(pieces, part, size, source) for part in PARTS}
    if len(splits["train"]) != size.train:
        count = f"{len(splits['train']):,} training images, and {name} has {size.train:,}"
        raise ValueError(f"{source} has {count}: {_REMEDY}")
    return splits


_REMEDY = "copy the arrays again from the machine that prepared them, or move them elsewhere."


def _read_pieces(folder: Path, name: str) -> Iterator[_Piece]:
    """Yields the parts of an array in order, or the array."""
    for path in _files(folder, name):
        try:
            with path.open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except UNREADABLE as error:
            raise ValueError(f"{path} cannot be read ({first_line_of(error)}): {_REMEDY}") from error
        yield _Piece(str(path), array)


def _files(folder: Path, name: str) -> list[Path]:
    """Returns the files of an array, in order."""
    try:
        found = {path.name: path for path in folder.iterdir()}
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror}): {_REMEDY}") from error
    whole = f"{name}.npy"
    numbered = {number: path for each, path in found.items() if (number := part_number(each, name)) is not None}
    if whole in found and numbered:
        raise ValueError(f"{folder} has both {whole} and {name}-{min(numbered)}.npy: remove the one that is outdated.")
    if whole in found:
        return [found[whole]]
    absent = next((number for number in range(len(numbered)) if number not in numbered), None)
    if not numbered or absent is not None:
        missing = f"{whole} or {name}-0.npy" if not numbered else f"{name}-{absent}.npy"
        raise ValueError(f"{folder} has no file {missing}: {_REMEDY}")
    return [numbered[number] for number in sorted(numbered)]


def _split(pieces: dict[str, list[_Piece]], part: str, size: Size, source: Path) -> Split:
    """Checks and joins the images and the labels of one part of the data set."""
    for piece in pieces[f"x_{part}"]:
        _check_images(piece, size)
    for piece in pieces[f"y_{part}"]:
        _check_labels(piece, size)
    images, labels = (np.concatenate([piece.array for piece in pieces[f"{kind}_{part}"]]) for kind in "xy")
    if len(images) != len(labels) or not len(images):
        count = f"{len(images):,} images in x_{part} and {len(labels):,} labels in y_{part}"
        raise ValueError(f"{source} has {count}, and needs one label for each image: {_REMEDY}")
    return frozen(images, labels)


def _check_images(piece: _Piece, size: Size) -> None:
    dtype, shape = piece.array.dtype, piece.array.shape
    if dtype != np.uint8 or shape[1:] != size.image_shape:
        needed = f"uint8 and (examples, {', '.join(map(str, size.image_shape))})"
        raise ValueError(f"{piece.label} has dtype {dtype} and shape {shape}, and needs {needed}: {_REMEDY}")


def _check_labels(piece: _Piece, size: Size) -> None:
    labels = piece.array
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        found = f"dtype {labels.dtype} and shape {labels.shape}, and needs integers and (examples,)"
        raise ValueError(f"{piece.label} has {found}: {_REMEDY}")
    outside = labels[(labels < 0) | (labels >= size.num_classes)]
    if outside.size:
        label = f"the label {outside[0]}, and the data set has {size.num_classes} classes, numbered from 0"
        raise ValueError(f"{piece.label} has {label}: {_REMEDY}")
