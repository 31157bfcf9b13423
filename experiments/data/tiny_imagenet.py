"""Tiny ImageNet for TensorFlow Datasets, which has none: 200 of ImageNet's classes, 500 images of 64 x 64 of each.

It was made for a course at Stanford (CS231n, 2015). The labels of its test part were never published, so its validation
part, 50 images of a class, is what errors are reported on. Importing this module makes the name known to TFDS.
"""

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import utils
from tensorflow_datasets.core.download import checksums

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
