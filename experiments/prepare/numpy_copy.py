"""Writes a prepared data set as a NumPy file, which `--dataset npz:FILE` reads on machines without TensorFlow."""

from pathlib import Path

import numpy as np

from experiments import data
from experiments.data.npz_file import read_npz
from experiments.training.atomic_write import replacing


def write_npz(path: Path, dataset: data.Dataset) -> None:
    """Writes the images and labels, in the order of the data set. A file that already holds them is kept.

    Args:
      path: the file.
      dataset: a data set in memory.

    Raises:
      ValueError: If the file cannot be written, or if there is another file with its name.
    """
    parts = {"train": dataset.train, "test": dataset.test}
    splits = {part: split for part, split in parts.items() if isinstance(split, data.Split)}
    if path.exists() or path.is_symlink():
        _check_same(path, splits)
        return
    arrays = {f"x_{part}": split.images for part, split in splits.items()}
    arrays |= {f"y_{part}": split.labels for part, split in splits.items()}
    try:
        with replacing(path) as new, new.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({error.strerror}): free space, or choose another data_dir."
        ) from error


def _check_same(path: Path, splits: dict[str, data.Split]) -> None:
    move = "move it elsewhere, or choose another data_dir."
    try:
        found = read_npz(path)
    except ValueError as error:
        raise ValueError(f"{path} is not the NumPy file of this data set, and is not replaced: {move}") from error
    for part, split in splits.items():
        same = np.array_equal(found[part].images, split.images) and np.array_equal(found[part].labels, split.labels)
        if not same:
            raise ValueError(f"{path} holds other images or labels ({part} part), and is not replaced: {move}")
