"""Prepares CIFAR-10 and CIFAR-100 from the original archive, or from its unpacked folder.

An image in the binary files is one byte per label, then 1,024 red, 1,024 green and 1,024 blue pixels, row by row.
CIFAR-100 has a coarse label before the fine one, which is the class.
"""

import hashlib
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from etils import epy

from experiments import data
from experiments.data.catalogue import load_prepared

with epy.lazy_imports():  # it imports TensorFlow, which takes seconds, and no help text needs it
    from experiments.data import preparation

_PIXELS = 3 * 32 * 32
COUNTS = {"train": 50_000, "test": 10_000}
"""The number of images of each part."""


@dataclass(frozen=True)
class Layout:
    """The files of a data set.

    Attributes:
      archive: the name of the original archive.
      folder: the name of the folder in the archive.
      parts: the files with the images of each part, in order.
      classes: the number of classes of each label byte; the last is the class of the image.
      names: the file with the names of the classes, for each label byte.
    """

    archive: str
    folder: str
    parts: Mapping[str, tuple[str, ...]]
    classes: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files."""
        return (*(name for names in self.parts.values() for name in names), *self.names)


_BATCHES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_FINE = ("coarse_label_names.txt", "fine_label_names.txt")

LAYOUTS = {
    "cifar10": Layout(
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        {"train": _BATCHES, "test": ("test_batch.bin",)},
        (10,),
        ("batches.meta.txt",),
    ),
    "cifar100": Layout(
        "cifar-100-binary.tar.gz",
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        (20, 100),
        _FINE,
    ),
}


def prepare_cifar(name: str, source: Path, location: data.Location) -> None:
    """Prepares the data set for TFDS, and checks that it has the images and labels of the binary files.

    Args:
      name: a key of `LAYOUTS`.
      source: the archive, its unpacked folder, or a folder that contains one of them.
      location: the folder of prepared data.

    Raises:
      ValueError: If the source is not the data set or is incomplete, if the data cannot be prepared, or if other data
        are already prepared there.
    """
    layout, source = LAYOUTS[name], source.expanduser()
    with _unpacked(_found(source, layout), layout, preparation.published_sums(name, location)) as parent:
        expected = {part: examples(parent / layout.folder, layout, part, source) for part in COUNTS}
        _check_names(parent / layout.folder, layout, source)
        preparation.prepare_from_folder(name, location, parent)
    prepared = load_prepared(name, location, only_tfds=True)
    for part, split in {"train": prepared.train, "test": prepared.test}.items():
        if not isinstance(split, data.Split) or not same_examples(split, expected[part]):
            where = location.folder / name
            differing = f"data set {name!r} is already prepared, and its {part} part differs from {source}"
            raise ValueError(f"{differing}: remove {where} to prepare it anew, or choose another data_dir.")


def examples(folder: Path, layout: Layout, part: str, source: Path) -> data.Split:
    """Reads the images and labels of one part from the binary files, in their order.

    Args:
      folder: the unpacked folder.
      layout: its files.
      part: train or test.
      source: the file or folder that the user gave, for the error message.

    Raises:
      ValueError: If the number of images is wrong, or if a label is too large.
    """
    width = len(layout.classes) + _PIXELS
    content = b"".join((folder / name).read_bytes() for name in layout.parts[part])
    files = f"{', '.join(layout.parts[part])} in {source}"
    if len(content) != COUNTS[part] * width:
        sizes = f"{len(content):,} bytes, and the {COUNTS[part]:,} images of the data set have {COUNTS[part] * width:,}"
        raise ValueError(f"{files} has {sizes}: give the complete binary version, {layout.archive}.")
    rows = np.frombuffer(content, np.uint8).reshape(-1, width)
    labels = rows[:, : len(layout.classes)]
    if (labels >= np.array(layout.classes)).any():
        column = int((labels >= np.array(layout.classes)).any(0).argmax())
        largest = f"the label {labels[:, column].max()}, and the data set has {layout.classes[column]} classes"
        raise ValueError(f"{files} has {largest}: give the original binary version, {layout.archive}.")
    images = rows[:, len(layout.classes) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return data.Split(images, labels[:, -1].astype(np.int32))


def same_examples(split: data.Split, other: data.Split) -> bool:
    """Returns whether two parts have the same images with the same labels, in any order."""
    return _digests(split) == _digests(other)


def _digests(split: data.Split) -> list[bytes]:
    labels = split.labels.astype("<i4")
    pairs = zip(split.images, labels, strict=True)
    return sorted(hashlib.sha256(image.tobytes() + label.tobytes()).digest() for image, label in pairs)


def _found(source: Path, layout: Layout) -> Path:
    """Returns the archive or the unpacked folder: the source itself, or what a folder contains."""
    inside = (source / layout.folder, source / layout.archive)
    if source.is_dir() and not (source / layout.files[0]).exists():
        source = next((each for each in inside if each.exists()), source)
    if not source.exists():
        needed = f"give {layout.archive}, or the folder {layout.folder} from it"
        raise ValueError(f"source is {str(source)!r}, which does not exist: {needed}.")
    return source


@contextmanager
def _unpacked(source: Path, layout: Layout, sums: Mapping[str, str]) -> Iterator[Path]:
    """Yields a temporary folder in which the unpacked folder has its original name, with all its files."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / layout.folder
        try:
            if source.is_dir():
                folder.symlink_to(source.resolve(), target_is_directory=True)
            else:
                _extract(source, folder, layout, sums[layout.archive])
        except (OSError, tarfile.TarError) as error:
            raise ValueError(f"{source} cannot be read ({error}): copy it again from its original.") from error
        if absent := [name for name in layout.files if not (folder / name).is_file()]:
            needed = f"give the binary version, {layout.archive} or the folder {layout.folder} from it"
            raise ValueError(f"{source} has no file {absent[0]}: {needed}.")
        yield Path(temporary)


def _extract(archive: Path, folder: Path, layout: Layout, checksum: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != checksum:
        differing = f"{archive} is not the published {layout.archive}: its SHA-256 is {found}, and not {checksum}"
        raise ValueError(f"{differing}. Copy or download it again, or give its unpacked folder.")
    folder.mkdir()
    with tarfile.open(archive) as members:
        for name in layout.files:
            content = members.extractfile(f"{layout.folder}/{name}")
            (folder / name).write_bytes(b"" if content is None else content.read())


def _check_names(folder: Path, layout: Layout, source: Path) -> None:
    for file, count in zip(layout.names, layout.classes, strict=True):
        names = [name for name in (folder / file).read_text(errors="replace").split("\n") if name]
        if len(names) != count:
            raise ValueError(
                f"{file} in {source} has {len(names)} names, and the data set has {count} classes: "
                f"give the complete binary version, {layout.archive}."
            )
