"""Where data sets are on this machine."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Location:
    """The folders of TensorFlow Datasets (TFDS); the embedded digits need none.

    Attributes:
      data_dir: TFDS's folder of prepared data; left out, TFDS_DATA_DIR or ~/tensorflow_datasets.
      manual_dir: The folder with archives fetched by hand, each data set's in it or in a folder of the set's name;
        left out, downloads/manual within data_dir.
    """

    data_dir: Path | None = None
    manual_dir: Path | None = None
