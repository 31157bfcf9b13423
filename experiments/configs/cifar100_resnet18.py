"""CIFAR-100, ResNet-18: a row of the paper's table.

    python -m experiments.reproduce --config cifar100_resnet18

Nine cells of 200 epochs; a seed takes 150 million gradients of an image.
"""

from pathlib import Path

from experiments.configs.recipes import CNN
from experiments.configs.row import Row, published
from experiments.study import Grid

ROW = Row(
    title="CIFAR-100, ResNet-18",
    study=Grid(
        Path("runs/cifar100_resnet18"),
        dataset="cifar100",
        model="resnet18",
        **CNN,
    ),
    published=published(
        "26.61 / 154.27 | 26.39 / 46.23 | 26.61 / 47.55 | "
        "25.58 / 1.33 | 25.10 / 0.94 | 25.18 / 0.90 | "
        "26.63 / 155.88 | 25.87 / 72.70 | 26.12 / 71.86"
    ),
)
