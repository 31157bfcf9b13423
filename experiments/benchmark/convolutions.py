"""Times the convolutions of ResNets against those of XLA: `python -m experiments.benchmark.convolutions`."""

import dataclasses
import statistics
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax
from rich.console import Console

from experiments.benchmark.benchmark_steps import repeated
from experiments.benchmark.ratios import Subject, race
from experiments.cli.command import Command
from experiments.cli.errors import parse, start
from experiments.cli.tables import Rows, as_terminal
from experiments.config import check_choice
from experiments.config.checks import check_count
from experiments.models.convolution import conv_general_dilated

_OURS, _XLA = "ours", "lax"


class Convolution(NamedTuple):
    """The shape of a convolution of images with height and width `side`, padded as in a ResNet."""

    side: int
    channels_in: int
    channels: int
    size: int
    stride: int

    def __str__(self) -> str:
        """Describes the convolution, such as `3x3, 64 to 128 channels, 32x32 pixels, stride 2`."""
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        channels = f"{self.channels_in} to {self.channels} channels"
        return f"{self.size}x{self.size}, {channels}, {self.side}x{self.side} pixels{stride}"


NETWORKS = {
    "resnet18": (
        Convolution(32, 3, 64, 3, 1),
        Convolution(32, 64, 64, 3, 1),
        Convolution(32, 64, 128, 3, 2),
        Convolution(32, 64, 128, 1, 2),
        Convolution(16, 128, 128, 3, 1),
        Convolution(16, 128, 256, 3, 2),
        Convolution(16, 128, 256, 1, 2),
        Convolution(8, 256, 256, 3, 1),
        Convolution(8, 256, 512, 3, 2),
        Convolution(8, 256, 512, 1, 2),
        Convolution(4, 512, 512, 3, 1),
    ),
    "small_resnet": (
        Convolution(32, 3, 16, 3, 1),
        Convolution(32, 16, 16, 3, 1),
        Convolution(32, 16, 32, 3, 2),
        Convolution(32, 16, 32, 1, 2),
        Convolution(16, 32, 32, 3, 1),
        Convolution(16, 32, 64, 3, 2),
        Convolution(16, 32, 64, 1, 2),
        Convolution(8, 64, 64, 3, 1),
    ),
}
"""The different convolutions of each network on images of 32x32 pixels."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Time the convolutions of a ResNet, and their gradients, against those of XLA.

    Attributes:
      network: The network, resnet18 or small_resnet (ResNet-8).
      batch_sizes: The numbers of images.
      rounds: The number of measurements of each convolution.
    """

    network: str = "resnet18"
    batch_sizes: tuple[int, ...] = (32, 128)
    rounds: int = 5

    def __post_init__(self) -> None:
        check_choice("network", self.network, NETWORKS)
        check_count("rounds", self.rounds)
        for size in self.batch_sizes:
            check_count("batch_sizes", size)


def products(shape: Convolution, batch_size: int, convolve: Callable[..., jax.Array]) -> dict[str, Subject]:
    """Compiles the convolution and its two gradients, on Gaussian arrays; returns functions that compute them."""
    padding = ((shape.size // 2,) * 2,) * 2

    def output(images: jax.Array, kernel: jax.Array) -> jax.Array:
        strides, layout = (shape.stride, shape.stride), ("NHWC", "HWIO", "NHWC")
        return convolve(images, kernel, strides, padding, dimension_numbers=layout)

    images = jax.random.normal(jax.random.key(0), (batch_size, shape.side, shape.side, shape.channels_in))
    kernel = jax.random.normal(jax.random.key(1), (shape.size, shape.size, shape.channels_in, shape.channels))
    gradient = jax.random.normal(jax.random.key(2), jax.eval_shape(output, images, kernel).shape)

    def of_images(kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda images: output(images, kernel), images)(gradient)[0]

    def of_kernel(images: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: output(images, kernel), kernel)(gradient)[0]

    return {
        "output": _compiled(output, images, kernel),
        "gradient of the images": _compiled(of_images, kernel, gradient),
        "gradient of the kernel": _compiled(of_kernel, images, gradient),
    }


def _compiled(function: Callable[..., jax.Array], *arrays: jax.Array) -> Subject:
    return repeated(jax.jit(function).lower(*arrays).compile(), 1, *arrays)


def rows(batch_size: int, rounds: int, shapes: tuple[Convolution, ...]) -> Rows:
    """Returns the median times of the three products of each convolution: by `lax` → ours."""
    found: Rows = [(f"batch {batch_size}: ms of lax → ours", "output", "gradient of images", "gradient of kernel")]
    for shape in shapes:
        ours, theirs = (products(shape, batch_size, each) for each in (conv_general_dilated, lax.conv_general_dilated))
        times = [race({_XLA: theirs[product], _OURS: ours[product]}, rounds) for product in ours]
        medians = [[f"{1e3 * statistics.median(each[name]):.1f}" for name in (_XLA, _OURS)] for each in times]
        found.append((str(shape), *map(" → ".join, medians)))
    return found


COMMAND = Command(
    "benchmark.convolutions",
    Arguments,
    "--network small_resnet --batch-sizes 16 128",
)


def main() -> None:
    """Prints a table for each batch size."""
    arguments = parse(COMMAND)
    for batch_size in arguments.batch_sizes:
        Console().print(as_terminal(rows(batch_size, arguments.rounds, NETWORKS[arguments.network])))


if __name__ == "__main__":
    start(main)
