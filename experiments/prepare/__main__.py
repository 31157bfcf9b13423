"""Prepares a data set: `python -m experiments.prepare cifar100 --source cifar-100-binary.tar.gz`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional

from experiments import data
from experiments.cli.command import Command
from experiments.cli.errors import exit_on_value_error, parse, start
from experiments.config import check_choice
from experiments.config.checks import check_count
from experiments.data.catalogue import load_prepared
from experiments.data.prepared_arrays import array_folder, npz_path
from experiments.prepare.cifar import LAYOUTS, prepare_cifar
from experiments.prepare.fashion_mnist import PACKAGE, prepare_fashion_mnist
from experiments.prepare.numpy_copy import write_npz, write_parts

_FASHION_MNIST = "fashion_mnist"


@dataclass(frozen=True)
class Arguments:
    """Prepare a data set from files on this machine, without a network.

    `experiments.train` then finds it with the same --data-dir. The images are also written as a NumPy file into this
    folder, such as cifar100.npz. A machine without TensorFlow needs only this file.

    Attributes:
      dataset: cifar10, cifar100 or fashion_mnist.
      source: For CIFAR, the original archive (cifar-100-binary.tar.gz, cifar-10-binary.tar.gz), its unpacked folder, or
        a folder that contains one of them. For Fashion-MNIST, the folder of Debian's package dataset-fashion-mnist,
        which is /usr/share/datasets/fashion-mnist by default.
      location: The location of the prepared data.
      part_size: Also write the images as a folder of NumPy files, such as cifar100_arrays, each of at most this many
        MiB. The folder replaces cifar100.npz where large files cannot be copied.
    """

    dataset: Positional[str]
    location: Annotated[data.Location, tyro.conf.arg(name="")]
    source: Path | None = None
    part_size: int | None = None


COMMAND = Command(
    "prepare",
    Arguments,
    "cifar100 --source cifar-100-binary.tar.gz --data-dir data",
)


def main() -> None:
    """Parses the command line and prepares the data."""
    arguments = parse(COMMAND)
    ready = exit_on_value_error(_ready, arguments)
    Console(soft_wrap=True, markup=False, highlight=False).print(ready)


def _ready(arguments: Arguments) -> str:
    """Prepares the data, writes the NumPy files, and returns a sentence on the result."""
    name, location = arguments.dataset, arguments.location
    check_choice("dataset", name, (*LAYOUTS, _FASHION_MNIST))
    check_count("part_size", arguments.part_size)
    try:
        _prepare(name, arguments.source, location)
    except ImportError as error:
        needed = f"preparing {name} needs a package ({error}): install sam_optax[experiments]."
        raise ValueError(needed.replace("\n", " ")) from error
    dataset, folder = load_prepared(name, location, only_tfds=True), location.folder
    copies = [npz_path(folder, name)]
    write_npz(copies[0], dataset)
    if arguments.part_size is not None:
        copies.append(array_folder(folder, name))
        write_parts(copies[-1], dataset, arguments.part_size)
    count = f"{len(dataset.train):,} training and {len(dataset.test):,} test images"
    return f"{name}: {count} are ready in {folder}, and as NumPy arrays in {' and '.join(map(str, copies))}"


def _prepare(name: str, source: Path | None, location: data.Location) -> None:
    if name == _FASHION_MNIST:
        prepare_fashion_mnist(source or PACKAGE, location)
    elif source is None:
        layout = LAYOUTS[name]
        needed = f"give {layout.archive}, or the folder {layout.folder} from it"
        raise ValueError(f"source is None, and {name} has no default: {needed}.")
    else:
        prepare_cifar(name, source, location)


if __name__ == "__main__":
    start(main)
