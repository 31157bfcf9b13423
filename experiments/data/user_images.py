"""Data of one's own: `npz:FILE`, a NumPy file, and `image_folder:FOLDER`, a folder of images.

They are kept in memory, and need no TensorFlow. They are normalized by the mean and the standard deviation of the
training images.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.data.dataset import Dataset, Split, channel_moments
from experiments.data.image_folder import count_images, digest_images, read_image_folder
from experiments.data.npz_file import count_npz, digest_npz, read_npz


@dataclass(frozen=True)
class UserImageSettings:
    """How data of one's own are read. Data sets with a name have settings of their own.

    Attributes:
      image_size: the side in pixels that the images of a folder are scaled to. None: they are not scaled.
      crop_padding: the largest shift of a training image, in pixels.
      flip: whether training images are mirrored at random.
    """

    image_size: int | None = None
    crop_padding: int = 0
    flip: bool = False


_NPZ, _IMAGE_FOLDER = "npz", "image_folder"
FORMS = (f"{_NPZ}:FILE", f"{_IMAGE_FOLDER}:FOLDER")
"""The forms of a name of data of one's own."""

_DIGESTS: dict[str, Callable[[Path], str]] = {_NPZ: digest_npz, _IMAGE_FOLDER: digest_images}
_COUNTS: dict[str, Callable[[Path], int]] = {_NPZ: count_npz, _IMAGE_FOLDER: count_images}


def is_user_images(name: str) -> bool:
    """Returns whether the name is that of a file or folder of one's own."""
    kind, _, path = name.partition(":")
    return kind in _COUNTS and bool(path)


def is_image_folder(name: str) -> bool:
    """Returns whether the name is that of a folder of images."""
    return is_user_images(name) and _parsed(name)[0] == _IMAGE_FOLDER


def count_train(name: str) -> int:
    """Returns the number of training examples, without reading the images.

    Args:
      name: one of `FORMS`.

    Raises:
      ValueError: If the file or folder cannot be read.
    """
    kind, path = _parsed(name)
    return _COUNTS[kind](path)


def images_digest(name: str) -> str:
    """Returns a digest of the images: of all in a file, and of a folder of all names and sizes and of some images.

    Args:
      name: one of `FORMS`.

    Raises:
      ValueError: If the file or folder cannot be read.
    """
    kind, path = _parsed(name)
    return _DIGESTS[kind](path)


@functools.lru_cache(maxsize=2)  # reading takes seconds, and a study loads its data before every run
def load_user_images(name: str, settings: UserImageSettings) -> Dataset:
    """Reads a file or folder of images.

    Args:
      name: one of `FORMS`.
      settings: how the images are read.

    Returns:
      The data set. Its arrays are shared and read-only.

    Raises:
      ValueError: If the data cannot be read, or are not of the form that they should have.
    """
    kind, path = _parsed(name)
    parts: dict[str, Split] = read_npz(path) if kind == _NPZ else read_image_folder(path, settings.image_size)
    train = parts["train"]
    mean, std = channel_moments(train.images)
    if not std.all():
        raise ValueError(f"the training images in {path} have a channel of one value only: give images that differ.")
    if settings.crop_padding > min(train.image_shape[:2]):
        side = f"crop_padding is {settings.crop_padding}, and the images in {path} have the shape {train.image_shape}"
        raise ValueError(f"{side}: give at most the shorter side.")
    num_classes = int(train.labels.max()) + 1
    return Dataset(train, parts["test"], num_classes, mean, std, settings.crop_padding, settings.flip)


def _parsed(name: str) -> tuple[str, Path]:
    """Returns the kind and the path."""
    kind, _, path = name.partition(":")
    return kind, Path(path).expanduser()
