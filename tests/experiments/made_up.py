"""Archives of made-up images in the published formats, for the parsers of TFDS. No test uses the network."""

import gzip
import io
import socket
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy.io import savemat
from tensorflow_datasets.image_classification import mnist

from experiments import data
from experiments.data import catalogue

TRAIN, TEST = 60, 10

Parts = dict[str, data.Split]


def parts(shape: tuple[int, int, int], num_classes: int, seed: int = 0) -> Parts:
    """A training and a test split. All images differ, and as many labels occur as there are images."""
    bits = np.random.default_rng(seed)

    def split(size: int) -> data.Split:
        labels = np.arange(size) % num_classes if num_classes <= size else bits.choice(num_classes, size)
        return data.Split(bits.integers(0, 256, (size, *shape)).astype(np.uint8), labels.astype(np.int32))

    return {"train": split(TRAIN), "test": split(TEST)}


def write_cifar10(folder: Path) -> Parts:
    made = parts((32, 32, 3), 10)
    records = {name: _cifar_records(split, [split.labels]) for name, split in made.items()}
    size = len(records["train"]) // 5
    files = {f"data_batch_{i + 1}.bin": records["train"][i * size : (i + 1) * size] for i in range(5)}
    names = "\n".join(f"class {i}" for i in range(10)).encode() + b"\n\n"
    files |= {"test_batch.bin": records["test"], "batches.meta.txt": names}
    _tar(folder / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", files)
    return made


def write_cifar100(folder: Path) -> Parts:
    made = parts((32, 32, 3), 100)
    coarse = {name: np.full(len(split), 7) for name, split in made.items()}  # the coarse label, which is not used
    files = {f"{name}.bin": _cifar_records(split, [coarse[name], split.labels]) for name, split in made.items()}
    for kind, count in {"coarse": 20, "fine": 100}.items():
        files[f"{kind}_label_names.txt"] = "\n".join(f"{kind} {i}" for i in range(count)).encode()
    _tar(folder / "cifar-100-binary.tar.gz", "cifar-100-binary", files)
    return made


def write_mnist(folder: Path, seed: int = 0) -> Parts:
    made = parts((28, 28, 1), 10, seed)
    for name, content in idx_files(made).items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return made


def idx_files(made: Parts) -> dict[str, bytes]:
    """MNIST's four files, by name."""
    files = {}
    for name, split in {"train": made["train"], "t10k": made["test"]}.items():
        images, labels = split.images, split.labels
        files[f"{name}-images-idx3-ubyte"] = struct.pack(">IIII", 2051, len(images), 28, 28) + images.tobytes()
        files[f"{name}-labels-idx1-ubyte"] = struct.pack(">II", 2049, len(labels)) + labels.astype(np.uint8).tobytes()
    return files


def write_svhn(folder: Path) -> Parts:
    made = parts((32, 32, 3), 10)
    for name, split in {**made, "extra": made["test"]}.items():
        digits = np.where(split.labels == 0, 10, split.labels)[:, None]  # a zero is stored as class 10
        savemat(folder / f"{name}_32x32.mat", {"X": np.moveaxis(split.images, 0, -1), "y": digits.astype(np.uint8)})
    return made


WRITERS: dict[str, Callable[[Path], Parts]] = {
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "fashion_mnist": write_mnist,
    "mnist": write_mnist,
    "svhn_cropped": write_svhn,
}


def register(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> None:
    """Make TFDS accept the archives in `folder` as the published ones, with their number of images."""
    shrink(monkeypatch, name)
    known = tfds.builder_cls(name).url_infos
    for url, info in list(known.items()):
        monkeypatch.setitem(known, url, tfds.download.checksums.compute_url_info(folder / info.filename))
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", TRAIN)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", TEST)


def shrink(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Reduces the number of training images of the data set to that of the made-up ones."""
    entry = catalogue.ENTRIES[name]
    monkeypatch.setitem(catalogue.ENTRIES, name, replace(entry, size=entry.size._replace(train=TRAIN)))


def make(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> Parts:
    """Writes made-up archives into a new folder and registers them."""
    folder.mkdir(parents=True)
    made = WRITERS[name](folder)
    register(monkeypatch, name, folder)
    return made


def assert_same_examples(split: data.Split, made: data.Split) -> None:
    """Asserts that the images and labels are the same in any order, because TFDS has its own order."""
    read, expected = (np.argsort([image.tobytes() for image in part.images]) for part in (split, made))
    np.testing.assert_array_equal(split.images[read], made.images[expected])
    np.testing.assert_array_equal(split.labels[read], made.labels[expected])


def forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every address look-up fail except that of this machine."""
    resolve = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "no network in tests")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("NO_PROXY", "*")


def _cifar_records(split: data.Split, labels: list[np.ndarray]) -> bytes:
    """Records of the labels, followed by the red, green and blue pixels of an image."""
    planes = split.images.transpose(0, 3, 1, 2).reshape(len(split), -1)
    return np.concatenate([*(label[:, None] for label in labels), planes], axis=1).astype(np.uint8).tobytes()


def _tar(path: Path, folder: str, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
