"""The archives that data sets are made from: whether they can be had, and the reader of Tiny ImageNet's.

TensorFlow Datasets (TFDS) has no Tiny ImageNet: 200 of ImageNet's classes, 500 images of 64 x 64 of each. It was made
for a course at Stanford (CS231n, 2015). The labels of its test part were never published, so its validation part, 50
images of a class, is what errors are reported on. Importing this module makes the name known to TFDS.
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

from experiments.data.catalogue import Location

_PATIENCE = 10.0  # seconds


class Archive(NamedTuple):
    """A file that somebody published.

    Attributes:
      name: of the file.
      url: its address.
      checksum: its SHA-256, as TFDS knows it.
      size: in bytes.
    """

    name: str
    url: str
    checksum: str
    size: int


def archives_of(builder: tfds.core.DatasetBuilder) -> list[Archive]:
    """What the data set is made from."""
    infos = (builder.url_infos or {}).items()
    return [
        Archive(info.filename or Path(urlsplit(url).path).name, url, info.checksum, info.size) for url, info in infos
    ]


def check_sizes(archives: list[Archive], folder: Path) -> None:
    """Refuse archives in `folder` that were cut short; a checksum of ImageNet's would take ten minutes.

    Raises:
      OSError: If one has another size than the published one.
    """
    for archive in archives:
        size = (folder / archive.name).stat().st_size
        if size != archive.size:
            raise OSError(f"{folder / archive.name} has {size} bytes, and the published one {archive.size}")


def own_folder(builder: tfds.core.DatasetBuilder, location: Location) -> Path:
    """The folder for archives of this data set alone: MNIST and Fashion-MNIST give theirs the same names."""
    return (location.manual_dir or Path(builder.data_dir_root) / "downloads" / "manual") / builder.name


def folder_of(builder: tfds.core.DatasetBuilder, location: Location) -> Path:
    """The folder with archives that were fetched by hand: the data set's own, or a shared one that has all of them."""
    own = own_folder(builder, location)
    names = [archive.name for archive in archives_of(builder)]
    in_own, in_shared = ([(folder / name).exists() for name in names] for folder in (own, own.parent))
    return own.parent if all(in_shared) and not any(in_own) else own


def missing(builder: tfds.core.DatasetBuilder, folder: Path) -> list[Archive]:
    """The archives that are neither in `folder` nor among those that TFDS fetched before."""
    downloads = builder.data_dir_root / "downloads"

    def is_there(archive: Archive) -> bool:
        fetched = resource.get_dl_fname(archive.url, archive.checksum)
        places = (downloads / builder.name / fetched, downloads / fetched)
        return (folder / archive.name).exists() or any(map(resource.is_locally_cached, places))

    return [archive for archive in archives_of(builder) if not is_there(archive)]


def knock(archives: list[Archive]) -> None:
    """Ask for each archive without reading it, since TFDS gives up on a silent server after minutes only.

    Raises:
      OSError: If one cannot be had, with the reason in a few words.
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
    """Reads the original archive, and unpacks nothing; labels follow the classes' names in order (`wnids.txt`)."""

    VERSION = tfds.core.Version("1.0.0")
    name = "tiny_imagenet"
    url_infos = {URL: _ARCHIVE}  # noqa: RUF012 - TFDS declares it, as one mapping for the class

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
                # The few grey files stay as they are: TFDS decodes them to the three channels of the feature.
                yield path, {"image": io.BytesIO(files.read(path)), "label": labels[wnid]}


def _train(files: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Path and class of each training image: the class names its folder."""
    for path in files.namelist():
        if path.startswith(f"{_ROOT}/train/") and path.endswith(".JPEG"):
            yield path, path.split("/")[2]


def _validation(files: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    """Path and class of each validation image, by a table: name, class, and the four sides of a box."""
    for row in files.read(f"{_ROOT}/val/val_annotations.txt").decode().splitlines():
        name, wnid = row.split("\t")[:2]
        yield f"{_ROOT}/val/images/{name}", wnid
