"""Small user-supplied data for tests: a NumPy file and a folder of images with the same content."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES, TRAIN, TEST = 3, 48, 12


def arrays(shape: tuple[int, ...] = (8, 8), seed: int = 0) -> dict[str, Any]:
    """Returns noise images of this shape, with labels of three classes."""
    bits = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for part, size in {"train": TRAIN, "test": TEST}.items():
        made[f"x_{part}"] = bits.integers(0, 256, (size, *shape)).astype(np.uint8)
        made[f"y_{part}"] = np.arange(size) % CLASSES
    return made


def write_npz(path: Path, **changed: Any) -> Path:
    """Writes the arrays into a file; `changed` replaces arrays, and None removes one."""
    made = {name: array for name, array in (arrays() | changed).items() if array is not None}
    np.savez(path, **made)
    return path


def write_folder(folder: Path, suffix: str = "png", **changed: Any) -> Path:
    """Writes the arrays as one image per file."""
    made = arrays() | changed
    for part in ("train", "test"):
        for i, (image, label) in enumerate(zip(made[f"x_{part}"], made[f"y_{part}"], strict=True)):
            path = folder / part / f"class {label}" / f"{i:03}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder
