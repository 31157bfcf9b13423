"""The archives that data sets are prepared from: checks that they are available, and a reader for Tiny ImageNet.

TensorFlow Datasets (TFDS) does not provide Tiny ImageNet, which has 200 of ImageNet's classes and 500 training images
of 64 x 64 pixels per class. It was made for a course at Stanford (CS231n, 2015). The labels of its test split were
never published, so errors are reported on its validation split, which has 50 images per class. Importing this module
registers the data set with TFDS.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core import utils
from tensorflow_datasets.core.download import checksums, resource

from experiments.data.location import Location

_PATIENCE = 10.0  # seconds


class Archive(NamedTuple):
    """A published file.

    Attributes:
      name: the name of the file.
      url: the address of the file.
      checksum: the SHA-256 checksum that TFDS has recorded.
      size: the size in bytes.
    """

    name: str
    url: str
    checksum: str
    size: int


def archives_of(builder: tfds.core.DatasetBuilder) -> list[Archive]:
    """Returns the archives that the data set is prepared from."""
    infos = (builder.url_infos or {}).items()
    return [
        Archive(info.filename or Path(urlsplit(url).path).name, url, info.checksum, info.size) for url, info in infos
    ]


def check_sizes(archives: list[Archive], folder: Path) -> None:
    """Checks that no archive in `folder` is truncated.

    Only sizes are compared, because a checksum of ImageNet's archives would take ten minutes.

    Raises:
      OSError: If the size of an archive differs from the published size.
    """
    for archive in archives:
        size = (folder / archive.name).stat().st_size
        if size != archive.size:
            raise OSError(f"{folder / archive.name} has {size} bytes, and the published archive has {archive.size}")


def own_folder(builder: tfds.core.DatasetBuilder, location: Location) -> Path:
    """Returns the folder for this data set's archives only, because MNIST's and Fashion-MNIST's have the same names."""
    return (location.manual_dir or Path(builder.data_dir_root) / "downloads" / "manual") / builder.name


def folder_of(builder: tfds.core.DatasetBuilder, location: Location) -> Path:
    """Returns the folder with the archives that were downloaded by hand.

    It is the data set's own folder, or the shared folder if all archives are there and none is in the data set's own.
    """
    own = own_folder(builder, location)
    names = [archive.name for archive in archives_of(builder)]
    in_own, in_shared = ([(folder / name).exists() for name in names] for folder in (own, own.parent))
    return own.parent if all(in_shared) and not any(in_own) else own


def missing(builder: tfds.core.DatasetBuilder, folder: Path) -> list[Archive]:
    """Returns the archives that are neither in `folder` nor among those that TFDS has already downloaded."""
    downloads = builder.data_dir_root / "downloads"

    def is_there(archive: Archive) -> bool:
        fetched = resource.get_dl_fname(archive.url, archive.checksum)
        places = (downloads / builder.name / fetched, downloads / fetched)
        return (folder / archive.name).exists() or any(map(resource.is_locally_cached, places))

    return [archive for archive in archives_of(builder) if not is_there(archive)]


def knock(archives: list[Archive]) -> None:
    """Requests each archive without reading it, because TFDS waits for minutes for a server that does not answer.

    Raises:
      OSError: If an archive is not available; the message gives the reason.
    """
    for archive in archives:
        host = urlsplit(archive.url).hostname
        try:
            with requests.get(archive.url, stream=True, timeout=_PATIENCE) as response:
                if not response.ok:
                    raise OSError(f"{host} answers {response.status_code} {response.reason}")
        except requests.Timeout as error:
            raise OSError(f"{host} does not answer in {_PATIENCE:g} seconds") from error
        except requests.RequestException as error:
            raise OSError(f"there is no connection to {host}") from error


URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_ROOT = "tiny-imagenet-200"
_SHA256 = "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"
_ARCHIVE = checksums.UrlInfo(size=utils.Size(248_100_043), checksum=_SHA256, filename=f"{_ROOT}.zip")


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Reads the original archive without extracting it; labels number the class names of `wnids.txt`, sorted."""

    VERSION = tfds.core.Version("1.0.0")
    name = "tiny_imagenet"
    url_infos = {URL: _ARCHIVE}  # noqa: RUF012 - TFDS declares it as a mapping of the class

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg")
        features = tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(num_classes=200)})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = dl_manager.download(URL)
        return {part: self._generate_examples(archive, part) for part in ("train", "validation")}

    def _generate_examples(self, archive: Any, part: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with zipfile.ZipFile(archive) as files:
            classes = sorted(files.read(f"{_ROOT}/wnids.txt").decode().split())
            labels = {name: label for label, name in enumerate(classes)}
            for path, wnid in (_train if part == "train" else _validation)(files):
                # A few files are grayscale. TFDS decodes them to the three channels of the feature.
                yield path, {"image": io.BytesIO(files.read(path)), "label": labels[wnid]}


def _train(files: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Yields the path and the class of each training image; the class is the name of the folder."""
    for path in files.namelist():
        if path.startswith(f"{_ROOT}/train/") and path.endswith(".JPEG"):
            yield path, path.split("/")[2]


def _validation(files: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Yields the path and the class of each validation image.

    They are read from a table, whose rows hold the file name, the class, and the four sides of a bounding box.
    """
    for row in files.read(f"{_ROOT}/val/val_annotations.txt").decode().splitlines():
        name, wnid = row.split("\t")[:2]
        yield f"{_ROOT}/val/images/{name}", wnid
