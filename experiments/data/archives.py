"""The archives that a data set is made from: where they are looked for, and whether the missing ones can be had."""

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

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
