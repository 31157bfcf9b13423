"""Reads images of one's own from a folder: `train/LABEL/*.png` and `test/LABEL/*.png`, or jpg.

This is the layout of `ImageFolder` in TensorFlow Datasets (TFDS). The classes are the names of the folders, sorted.
Hidden files and folders are ignored. Images are decoded by Pillow, turned upright by their EXIF orientation, and kept
in memory.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from experiments.data.dataset import Split
from experiments.data.npz_file import PARTS, frozen

_SUFFIXES = (".png", ".jpg", ".jpeg")
_GREY, _COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # modes of Pillow with 8 bits or fewer
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
_READ = 64  # images whose content the digest of a folder covers
_LAYOUT = "put images into train/LABEL and test/LABEL, with one folder for each class"


class ImageFile(NamedTuple):
    """An image on disk.

    Attributes:
      path: the file.
      label: the number of its class.
    """

    path: Path
    label: int


def read_image_folder(folder: Path, size: int | None = None) -> dict[str, Split]:
    """Reads the training and the test images.

    The order is a fixed permutation, the same in each call, so that the first training examples are of all classes. The
    images have one channel if all of them are grey, and three otherwise.

    Args:
      folder: the folder that contains `train` and `test`.
      size: the height and width in pixels. Each image is scaled so that its shorter side has this length, and cropped
        to its centre. None: images are not scaled, and must have one size.

    Returns:
      The parts `train` and `test`. Their arrays are read-only.

    Raises:
      ValueError: If a folder is missing or empty, or if an image cannot be read or has another size than the others.
    """
    files = {part: _in_fixed_order(listed) for part, listed in _listed(folder).items()}
    images = {part: [_pixels(each.path, size) for each in listed] for part, listed in files.items()}
    _check_equal_sizes(files, images)
    channels = max(image.shape[-1] for part in PARTS for image in images[part])
    parts = {}
    for part in PARTS:
        pixels = np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in images.pop(part)])
        parts[part] = frozen(pixels, np.array([each.label for each in files[part]]))
    return parts


def count_images(folder: Path) -> int:
    """Returns the number of training images, without reading them.

    Raises:
      ValueError: If a folder is missing or empty.
    """
    return len(_listed(folder)["train"])


def digest_images(folder: Path) -> str:
    """Returns a digest of the names and sizes of all images, and of the content of some.

    Raises:
      ValueError: If a folder is missing or empty, or if an image cannot be read.
    """
    images = [image.path for part in _listed(folder).values() for image in part]
    some = np.linspace(0, len(images) - 1, min(_READ, len(images))).astype(int)
    try:
        listed = [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in images]
        digest = hashlib.sha256(repr(listed).encode())
        for index in some:
            digest.update(images[index].read_bytes())
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror}): make its images readable.") from error
    return digest.hexdigest()


def _listed(folder: Path) -> dict[str, list[ImageFile]]:
    """Returns the images of each part, sorted by class and name."""
    classes = {part: [path.name for path in _visible(folder / part)] for part in PARTS}
    names = classes["train"]
    if len(names) < 2:
        raise ValueError(f"{folder / 'train'} has {len(names)} folders: {_LAYOUT}, for at least two classes.")
    if unknown := sorted(set(classes["test"]) - set(names)):
        untrained = f"{folder / 'test' / unknown[0]} has a class that {folder / 'train'} does not have"
        raise ValueError(f"{untrained}: give training images of every class.")
    files = {part: list(_files(folder / part, names)) for part in PARTS}
    if not files["test"]:
        raise ValueError(f"{folder / 'test'} has no images: {_LAYOUT}.")
    return files


def _files(part: Path, names: list[str]) -> Iterator[ImageFile]:
    for label, name in enumerate(names):
        if part.name == "test" and not (part / name).exists():
            continue
        paths = _visible(part / name)
        if part.name == "train" and not paths:
            raise ValueError(f"{part / name} has no images: add some, or remove the folder.")
        for path in paths:
            if path.suffix.lower() not in _SUFFIXES:
                raise ValueError(f"{path} is not a png or jpg image: convert it, or move it elsewhere.")
            yield ImageFile(path, label)


def _visible(folder: Path) -> list[Path]:
    """Returns the files and folders in a folder, sorted by name; hidden ones are omitted."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{folder} cannot be read as a folder ({error.strerror}): {_LAYOUT}.") from error


def _in_fixed_order(files: list[ImageFile]) -> list[ImageFile]:
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))]


def _pixels(path: Path, size: int | None) -> np.ndarray:
    """Reads an image, uint8 `(height, width, 1)` if it is grey, and `(height, width, 3)` otherwise."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            is_opaque = not image.has_transparency_data or _lowest_alpha(image) == 255
    except _UNREADABLE as error:
        raise ValueError(f"image {path} cannot be read: replace it, or remove it.") from error
    if image.mode not in (*_GREY, *_COLOUR):
        raise ValueError(f"image {path} has the mode {image.mode} of Pillow: convert it to 8 bits per channel.")
    if not is_opaque:
        raise ValueError(f"image {path} is partly transparent: save it with a background, without transparency.")
    image = image.convert("L" if image.mode in _GREY else "RGB")
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _lowest_alpha(image: Image.Image) -> Any:
    return image.convert("RGBA").getchannel("A").getextrema()[0]


def _check_equal_sizes(files: dict[str, list[ImageFile]], images: dict[str, list[np.ndarray]]) -> None:
    first, sides = files["train"][0].path, images["train"][0].shape[:2]
    for part in PARTS:
        for file, image in zip(files[part], images[part], strict=True):
            if image.shape[:2] != sides:
                (height, width), (rows, columns) = image.shape[:2], sides
                sizes = f"image {file.path} has {width} x {height} pixels, and {first} has {columns} x {rows}"
                raise ValueError(f"{sizes}: give image_size, the side that all images are scaled to.")
