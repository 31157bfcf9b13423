"""CIFAR-10, ResNet-18: a row of the paper's table.

    python -m experiments.reproduce --config cifar10_resnet18

Nine cells of 200 epochs; a seed takes 150 million gradients of an image.
"""

from pathlib import Path

from experiments.configs.recipes import CNN
from experiments.configs.row import Row, published
from experiments.study import Grid

ROW = Row(
    title="CIFAR-10, ResNet-18",
    study=Grid(
        Path("runs/cifar10_resnet18"),
        dataset="cifar10",
        model="resnet18",
        **CNN,
    ),
    published=published(
        "7.17 / 106.46 | 6.34 / 51.82 | 6.21 / 48.39 | "
        "6.39 / 8.73 | 6.03 / 4.27 | 6.06 / 4.08 | "
        "6.63 / 141.37 | 6.08 / 88.53 | 6.20 / 89.30"
    ),
)
