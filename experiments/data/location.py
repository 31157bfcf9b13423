"""The folders of prepared data and of archives."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Location:
    """The folders of TensorFlow Datasets (TFDS). The embedded digits need none.

    Attributes:
      data_dir: The folder of prepared data. The default is TFDS_DATA_DIR or ~/tensorflow_datasets.
      manual_dir: The folder with archives that were downloaded by hand. The archives of a data set are in this folder,
        or in a subfolder with the name of the data set. The default is downloads/manual within data_dir.
    """

    data_dir: Path | None = None
    manual_dir: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of prepared data, in which each data set has a folder."""
        folder = self.data_dir or Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
        return folder.expanduser()
