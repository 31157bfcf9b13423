"""Tiny ImageNet, ResNet-18: a row of the paper's table.

    python -m experiments.reproduce --config tiny_imagenet_resnet18

Nine cells of 200 epochs; a seed takes 300 million gradients of an image.
"""

from pathlib import Path

from experiments.configs.recipes import CNN
from experiments.configs.row import Row, published
from experiments.study import Grid

ROW = Row(
    title="Tiny ImageNet, ResNet-18",
    study=Grid(
        Path("runs/tiny_imagenet_resnet18"),
        dataset="tiny_imagenet",
        model="resnet18",
        **CNN,
    ),
    published=published(
        "39.62 / 279.07 | 40.28 / 97.52 | 40.13 / 97.23 | "
        "39.36 / 13.33 | 38.40 / 10.65 | 38.25 / 10.31 | "
        "39.84 / 333.73 | 39.07 / 183.59 | 39.05 / 192.29"
    ),
)
