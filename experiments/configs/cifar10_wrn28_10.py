"""CIFAR-10, WRN-28-10: a row of the paper's table.

    python -m experiments.reproduce --config cifar10_wrn28_10

Nine cells of 200 epochs; a seed takes 150 million gradients of an image.
"""

from pathlib import Path

from experiments.configs.recipes import CNN
from experiments.configs.row import Row, published
from experiments.study import Grid

ROW = Row(
    title="CIFAR-10, WRN-28-10",
    study=Grid(
        Path("runs/cifar10_wrn28_10"),
        dataset="cifar10",
        model="wide_resnet28_10",
        **CNN,
    ),
    published=published(
        "7.04 / 1124.45 | 6.13 / 546.93 | 5.98 / 543.27 | "
        "5.53 / 48.25 | 5.10 / 38.79 | 5.05 / 40.28 | "
        "6.67 / 1467.67 | 5.87 / 771.79 | 5.92 / 794.45"
    ),
)
