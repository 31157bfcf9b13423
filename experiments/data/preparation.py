"""Prepares data sets on disk with TFDS, and reads them.

The output of TFDS is hidden. A failed preparation leaves no partial data.
"""

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from tarfile import TarError
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from rich.console import Console
from tensorflow_datasets.core import DatasetBuilder
from tensorflow_datasets.core.download import DownloadError
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.extractor import ExtractError

from experiments.data import archives
from experiments.data.dataset import Split
from experiments.data.imagenet import Records
from experiments.data.location import Location

BY_INDEX = "array_record"
"""The format of prepared data that allows random access to examples."""

_FILES = 128  # files per split in that format; all of them stay open, and systems allow 1,024 open files

_FAILURES = (OSError, TarError, tf.errors.OpError, DownloadError, NonMatchingChecksumError, ExtractError)


def prepare(name: str, location: Location, advice: str = "", file_format: str | None = None) -> DatasetBuilder:
    """Prepares a data set if necessary, and returns its builder. If the data exist, the network is not used.

    Args:
      name: the name of the data set in TFDS.
      location: the folders to look in.
      advice: a sentence on how else to obtain the data, for the error message.
      file_format: the format of the prepared data; the default is that of TFDS.

    Raises:
      ValueError: If the data cannot be prepared; the message names the files that are needed.
    """
    tf.config.set_visible_devices([], "GPU")  # the accelerator's memory belongs to JAX
    builder = _builder(name, location, file_format)
    if builder.data_path.exists():
        return builder
    folder = archives.folder_of(builder, location)
    missing = archives.missing(builder, folder)
    try:
        if missing and builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise OSError("archives that need a registration are not downloaded")
        archives.knock(missing)
        _make(builder, folder)
    except _FAILURES as error:
        if builder.data_path.exists():  # another process has prepared them
            return _builder(name, location, file_format)
        wanted, into = (missing, folder) if missing else (archives.archives_of(builder), manual_folder(name, location))
        files = ", ".join(f"{each.name} ({each.url})" for each in wanted)
        raise ValueError(
            f"data set {name!r} is not in {builder.data_dir_root}, and cannot be prepared there: {_reason(error)}. "
            f"Put {files} into {into}, or choose another data_dir or manual_dir. {advice}".rstrip()
        ) from error
    return builder


def prepare_from_folder(name: str, location: Location, folder: Path) -> None:
    """Prepares a data set from an archive that is already extracted. If the data exist, nothing is done.

    Args:
      name: the name of a data set with a single archive.
      location: the folders to look in.
      folder: a temporary folder with the content of the archive; TFDS also writes into it.

    Raises:
      ValueError: If the data cannot be prepared.
    """
    tf.config.set_visible_devices([], "GPU")  # the accelerator's memory belongs to JAX
    builder: Any = _builder(name, location)
    if builder.data_path.exists():
        return
    # The builder reads the folder in place of what it would have downloaded and extracted.
    split_generators, extracted = builder._split_generators, _Extracted(str(folder))
    builder._split_generators = lambda dl_manager: split_generators(extracted)
    try:
        with _quietly(builder):
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_dir=str(folder), download_config=config)
    except _FAILURES as error:
        if builder.data_path.exists():  # another process has prepared them
            return
        root = builder.data_dir_root
        refused = f"data set {name!r} cannot be prepared in {root}: {_reason(error)}"
        raise ValueError(f"{refused}. Make the folder writable, or choose another data_dir.") from error


class _Extracted(NamedTuple):
    """Replaces TFDS's download manager for an archive that is already extracted."""

    folder: str

    def download_and_extract(self, url: str) -> str:
        """Returns the folder with the content of the archive."""
        del url
        return self.folder


def manual_folder(name: str, location: Location) -> Path:
    """Returns the folder for archives of a data set that are downloaded by hand."""
    return archives.own_folder(_builder(name, location), location)


def published_sums(name: str, location: Location) -> dict[str, str]:
    """Returns the SHA-256 checksums of the published archives of a data set, by the name of the archive."""
    return {archive.name: archive.checksum for archive in archives.archives_of(_builder(name, location))}


def _builder(name: str, location: Location, file_format: str | None = None) -> DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=location.data_dir, file_format=file_format)
    except Exception as error:  # TFDS parses the files in the folder, so any exception is possible
        where = location.data_dir or "the default data_dir"
        reason = f"data set {name!r} in {where} cannot be opened ({_reason(error)})"
        raise ValueError(f"{reason}: remove its folder, or choose another data_dir.") from error


def _reason(error: Exception) -> str:
    """Returns the reason of an error in one line."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(" .:")


@contextlib.contextmanager
def _quietly(builder: DatasetBuilder) -> Iterator[Path]:
    """Shows one line while the data are prepared, hides TFDS's output, and removes what a failure leaves.

    It yields the folder of prepared data.
    """
    root = Path(builder.data_dir_root)
    tfds.disable_progress_bar()
    with (
        _leaving_nothing_unfinished(root, builder.name),
        contextlib.ExitStack() as at_exit,
        Console(stderr=True).status(f"preparing {builder.name} in {root}"),
        contextlib.redirect_stdout(io.StringIO()),  # TFDS prints its progress there
    ):
        # TFDS warns about the ImageNet split without labels, which is not used.
        at_exit.callback(logging.set_verbosity, logging.get_verbosity())
        logging.set_verbosity(logging.ERROR)
        root.mkdir(parents=True, exist_ok=True)
        yield root


def _make(builder: DatasetBuilder, folder: Path) -> None:
    # TFDS identifies extracted files only by the archive's name, which MNIST and Fashion-MNIST share: delete them.
    with (
        _quietly(builder) as root,
        TemporaryDirectory(dir=root, prefix="extracted-", ignore_cleanup_errors=True) as extracted,
    ):
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:  # the archives need a registration
            archives.check_sizes(archives.archives_of(builder), folder)
        else:
            manager = tfds.download.DownloadManager(
                download_dir=builder.data_dir_root / "downloads",
                extract_dir=extracted,
                manual_dir=folder,
                url_infos=builder.url_infos,
                dataset_name=builder.name,
                force_checksums_validation=True,
            )
            # Download one at a time: if TFDS downloads in parallel and one fails, the others continue in the
            # background.
            for archive in archives.archives_of(builder):
                manager.download(archive.url)
        config = tfds.download.DownloadConfig(manual_dir=folder, extract_dir=extracted, try_download_gcs=False)
        if builder.info.file_format == tfds.core.FileFormat(BY_INDEX):
            config.num_shards = _FILES
        builder.download_and_prepare(download_config=config)


@contextlib.contextmanager
def _leaving_nothing_unfinished(root: Path, name: str) -> Iterator[None]:
    """Removes partial downloads, and folders that were created, if the preparation fails."""
    fetched = root / "downloads" / name
    needed = (fetched, fetched.parent, root / name, root, *root.parents)
    created = [folder for folder in needed if not folder.exists()]
    before = set(fetched.glob("*.tmp.*"))
    try:
        yield
    except BaseException:
        for partial in set(fetched.glob("*.tmp.*")) - before:
            shutil.rmtree(partial, ignore_errors=True)
        for folder in created:
            with contextlib.suppress(OSError):  # the folder is not empty
                folder.rmdir()
        raise


# The builders below are untyped: the decorators of TFDS hide the signatures of their methods from type checkers.
_DAMAGE = (tf.errors.OpError, OSError, LookupError, RuntimeError, ValueError)


def read(builder: Any, split: str) -> Split:
    """Reads all examples of one split, in the order of the files.

    Args:
      builder: the builder of a prepared data set.
      split: the name of the split in TFDS.

    Returns:
      The images and labels, in read-only arrays.

    Raises:
      ValueError: If the files are damaged.
    """
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    try:
        examples = builder.as_dataset(split=split, batch_size=-1, read_config=in_order)
    except (tf.errors.OpError, OSError, LookupError) as error:
        raise _damaged(builder) from error
    images, labels = examples["image"].numpy(), examples["label"].numpy().astype(np.int32)
    for array in (images, labels):
        array.flags.writeable = False
    return Split(images, labels)


def opened(builder: Any, split: str) -> Records:
    """Opens the examples of one split, which stay on disk. One example of each file is read, to check the file.

    Args:
      builder: the builder of a data set that is prepared in a format with random access.
      split: the name of the split in TFDS.

    Raises:
      ValueError: If the files are damaged.
    """
    try:
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        last = np.cumsum(builder.info.splits[split].shard_lengths) - 1
        source.__getitems__(last.tolist())
    except _DAMAGE as error:
        raise _damaged(builder) from error
    return Records.of(source, builder.info.features["label"].num_classes)


def _damaged(builder: DatasetBuilder) -> ValueError:
    return ValueError(f"data set {builder.name!r} in {builder.data_dir} is damaged: remove it to prepare it anew.")
