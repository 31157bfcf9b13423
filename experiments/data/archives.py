"""The archives that a data set is made from: where they are looked for, and whether the missing ones can be had."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import tensorflow_datasets as tfds

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
    return [
        Archive(info.filename or urlsplit(url).path.rsplit("/", 1)[-1], url, info.checksum, info.size)
        for url, info in builder.url_infos.items()
    ]


def are_for_everybody(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether TFDS may fetch them: some are only given to those who register."""
    return not builder.MANUAL_DOWNLOAD_INSTRUCTIONS


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
    return _shared_folder(builder, location) / builder.name


def folder_of(builder: tfds.core.DatasetBuilder, location: Location) -> Path:
    """The folder with archives that were fetched by hand: the data set's own, or a shared one that has all of them."""
    own, shared = own_folder(builder, location), _shared_folder(builder, location)
    names = [archive.name for archive in archives_of(builder)]
    in_own, in_shared = ([(folder / name).exists() for name in names] for folder in (own, shared))
    return shared if all(in_shared) and not any(in_own) else own


def _shared_folder(builder: tfds.core.DatasetBuilder, location: Location) -> Path:
    return location.manual_dir or Path(builder.data_dir_root) / "downloads" / "manual"


def missing(builder: tfds.core.DatasetBuilder, folder: Path) -> list[Archive]:
    """The archives that are neither in `folder` nor among those that TFDS fetched before."""
    downloads = builder.data_dir_root / "downloads"

    def is_there(archive: Archive) -> bool:
        fetched = tfds.download.resource.get_dl_fname(archive.url, archive.checksum)
        places = (downloads / builder.name / fetched, downloads / fetched)
        return (folder / archive.name).exists() or any(map(tfds.download.resource.is_locally_cached, places))

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
                response.raise_for_status()
        except requests.HTTPError as error:
            raise OSError(f"{host} answers {error.response.status_code} {error.response.reason}") from error
        except requests.Timeout as error:
            raise OSError(f"{host} does not answer in {_PATIENCE:g} seconds") from error
        except requests.RequestException as error:
            raise OSError(f"there is no connection to {host}") from error
