"""CIFAR-100, WRN-28-10: a row of the paper's table.

    python -m experiments.reproduce --config cifar100_wrn28_10

Nine cells of 200 epochs; a seed takes 150 million gradients of an image.
"""

from pathlib import Path

from experiments.configs.recipes import CNN
from experiments.configs.row import Row, published
from experiments.study import Grid

ROW = Row(
    title="CIFAR-100, WRN-28-10",
    study=Grid(
        Path("runs/cifar100_wrn28_10"),
        dataset="cifar100",
        model="wide_resnet28_10",
        **CNN,
    ),
    published=published(
        "25.62 / 1113.26 | 24.78 / 456.17 | 24.94 / 435.17 | "
        "22.65 / 22.72 | 21.10 / 10.99 | 21.50 / 12.37 | "
        "25.57 / 1148.09 | 24.16 / 687.44 | 24.00 / 665.13"
    ),
)
